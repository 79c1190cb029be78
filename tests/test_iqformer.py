"""The IQ-Former from any BERT: what it takes over, what it says of it, one query, half-precision states."""

import io
import logging
import shutil

import checkpoints
import pytest
import torch
from torch import nn
from transformers.utils import logging as transformers_logging

from vikdf import place
from vikdf.model.iqformer import FusionBlock, IQFormer
from vikdf.model.respond import Responder
from vikdf.model.vikdf import VIKDFForPretraining

KINDS = {
    "bert": {},
    "roberta": {"layer_norm_eps": 1e-5, "type_vocab_size": 1, "max_position_embeddings": 66},
    "minilm": {"family": "bert", "num_hidden_layers": 3, "num_attention_heads": 8, "intermediate_size": 48},
    "another activation": {"family": "bert", "hidden_act": "gelu_new"},
}


@pytest.fixture(scope="module", params=KINDS)
def bert(request, tmp_path_factory):
    """A folder whose every weight is random, norms too: a wrong place or a wrong name shows."""
    from transformers import AutoModel

    folder = tmp_path_factory.mktemp("bert")
    checkpoints.write_bert(folder, **{"family": request.param} | KINDS[request.param])
    model = AutoModel.from_pretrained(folder)
    torch.manual_seed(1)
    for weight in model.parameters():
        nn.init.normal_(weight, std=0.3)
    model.save_pretrained(folder)
    return folder


def test_without_cross_attention_the_iqformer_is_the_berts_own_encoder(bert):
    from transformers import AutoModel

    own, iqformer = AutoModel.from_pretrained(bert).eval(), IQFormer.load(bert, queries=3, encoder_width=16)
    for layer in iqformer.layers:
        layer.cross = None
    expected = own.encoder(own.embeddings.LayerNorm(iqformer.queries[None])).last_hidden_state
    torch.testing.assert_close(iqformer(torch.randn(1, 4, 16)), expected)


def test_all_that_bert_has_is_taken_over_and_both_lists_are_told(bert):
    iqformer = IQFormer.load(bert, queries=3, encoder_width=16)
    assert set(iqformer.taken) | set(iqformer.initialised) == set(iqformer.state_dict())
    assert {name.split(".")[2] for name in iqformer.initialised if name != "queries"} == {"cross"}
    assert {name.split(".")[2] for name in iqformer.taken if name.startswith("layers")} == {"attention", "feed"}
    layers = len(iqformer.layers)
    taken, new = iqformer.origin().splitlines()
    assert f"{16 * layers + 2} tensors taken over from BERT: norm.weight" in taken
    assert f"attention.query.weight of layers {' '.join(map(str, range(layers)))}" in taken
    assert f"{10 * (layers - layers // 2) + 1} tensors initialised: queries, cross.query.weight of layers 0" in new


def test_a_bert_without_its_pooler_is_loaded_without_a_word_of_transformers(tmp_path, backbones):
    from safetensors.torch import load_file, save_file

    folder = shutil.copytree(backbones["bert"], tmp_path / "bert")
    weights = load_file(folder / "model.safetensors")
    left = {name: value for name, value in weights.items() if "pooler" not in name}
    save_file(left, folder / "model.safetensors", {"format": "pt"})
    before, said = transformers_logging.get_verbosity(), io.StringIO()
    handler = logging.StreamHandler(said)
    transformers_logging.add_handler(handler)
    try:
        IQFormer.load(folder, queries=3, encoder_width=16)
    finally:
        transformers_logging.remove_handler(handler)
    assert len(left) < len(weights) and said.getvalue() == ""
    assert transformers_logging.get_verbosity() == before


def test_a_saved_shape_builds_the_same_iqformer(bert):
    iqformer = IQFormer.load(bert, queries=3, encoder_width=16)
    again = IQFormer(**iqformer.shape)
    again.load_state_dict(iqformer.state_dict())
    H = torch.randn(2, 4, 16)
    assert torch.equal(again(H), iqformer(H))


def test_weights_that_the_folder_lacks_are_not_called_taken_over(tmp_path):
    from safetensors.torch import load_file, save_file

    folder = checkpoints.write_bert(tmp_path)
    weights = load_file(folder / "model.safetensors")
    del weights["encoder.layer.1.output.dense.weight"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    assert "layers.1.feed.down.weight" in IQFormer.load(folder, queries=3, encoder_width=16).initialised


def test_a_model_with_other_names_is_refused(tmp_path):
    from transformers import DistilBertConfig, DistilBertModel

    DistilBertModel(DistilBertConfig(vocab_size=50, dim=32, n_layers=1, n_heads=2, hidden_dim=64)).save_pretrained(
        tmp_path
    )
    with pytest.raises(ValueError, match="distilbert.*choose a BERT, MiniLM or RoBERTa"):
        IQFormer.load(tmp_path, queries=3, encoder_width=16)


def test_one_query_is_enough_for_every_loss_and_for_answers(backbones):
    model = VIKDFForPretraining.build(**backbones, queries=1, mask_pixels=12)
    captions = ["a red kettle", "the blue vase"]
    batch = {"pixels": torch.randn(2, 3, 48, 48), "captions": captions, "others": captions, "lots": [1, 2]}
    batch["clip_tokens"] = model.source.clip.tokenize(captions)
    losses = model.losses(batch)
    sum(losses.values()).backward()
    assert all(loss.isfinite() for loss in losses.values()) and model.source.iqformer.queries.grad.abs().sum() > 0
    assert len(Responder(model.llm, model.source).generate([["hello"]], max_new_tokens=2)) == 1


@pytest.mark.parametrize("autocast", [False, True])
@pytest.mark.parametrize("part", ["iqformer", "fusion"])
def test_states_in_half_precision_are_read_and_full_precision_weights_get_full_gradients(backbones, part, autocast):
    torch.manual_seed(0)
    reads = (
        IQFormer.load(backbones["bert"], queries=3, encoder_width=16) if part == "iqformer" else FusionBlock(16, 32, 4)
    )
    H, K = torch.randn(2, 5, 16), torch.randn(2, 3, 32)
    given = (H.bfloat16(),) if part == "iqformer" else (H.bfloat16(), K.bfloat16())
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        out = reads(*given)
    exact = reads(*(x.float() for x in given))
    torch.testing.assert_close(out.float(), exact, atol=0.1 if autocast else 1e-6, rtol=0.05 if autocast else 1e-5)
    out.float().pow(2).sum().backward()
    assert {(p.dtype, p.grad.dtype) for p in reads.parameters()} == {(torch.float32, torch.float32)}


@pytest.mark.parametrize("autocast", [False, True])
def test_all_losses_over_frozen_parts_in_half_precision_are_near_those_in_full(backbones, autocast):
    model = VIKDFForPretraining.build(**backbones, queries=3, mask_pixels=12)
    captions = ["a red kettle", "the blue vase", "hello"]
    batch = {"pixels": torch.randn(3, 3, 48, 48), "captions": captions, "others": captions, "lots": [1, 2, 3]}
    batch["clip_tokens"] = model.source.clip.tokenize(captions)
    full = {name: loss.item() for name, loss in model.losses(batch).items()}
    place.put(model, "bfloat16")
    assert {p.dtype for part in (model.source.clip, model.llm) for p in part.parameters()} == {torch.bfloat16}
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        half = model.losses(batch)
    assert {loss.dtype for loss in half.values()} == {torch.float32}
    assert {name: loss.item() for name, loss in half.items()} == pytest.approx(full, rel=0.03, abs=0.03)
    sum(half.values()).backward()
    assert all(
        p.grad.dtype == torch.float32 and p.grad.isfinite().all()
        for p in model.trained_parameters()
        if p.grad is not None
    )
    assert model.tim.log_scale.dtype == torch.float32 and model.tim.log_scale.grad != 0
