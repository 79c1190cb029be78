"""The whole model, Responder and checkpoints: what is frozen and saved, what knowledge changes, what is refused."""

import json

import pytest
import torch

from vikdf.model.backbone import LLM
from vikdf.model.iqformer import IQFormer
from vikdf.model.respond import Responder
from vikdf.model.vikdf import KnowledgeSource, VIKDFForPretraining

CONTEXTS = [["hello", "what is it?"], ["what colour is the kettle?"], ["a tree", "a vase", "is the vase red?"]]
RESPONSES = ["red", "it is a blue vase", "no"]


@pytest.fixture(scope="module")
def model(backbones):
    return VIKDFForPretraining.build(**backbones, queries=3, mask_pixels=12)


def test_knowledge_changes_the_answer(backbones, model):
    responder = Responder(LLM.load(backbones["llm"]), model.source)
    plain = Responder(LLM.load(backbones["llm"]))
    assert not torch.allclose(responder.nll(CONTEXTS, RESPONSES)[0], plain.nll(CONTEXTS, RESPONSES)[0], atol=1e-3)
    with torch.no_grad():
        red, blue = (responder.source.into_llm(model.knowledge([text])) for text in ("a red kettle", "the blue vase"))
        ids, _ = responder.llm.pad(responder.prompts(CONTEXTS[1:2]))
        states = [responder.llm.states(responder.llm.embed(ids, K * 10))[:, -1] for K in (red, blue)]
    assert not torch.allclose(*states, atol=1e-4)


def test_the_instruction_of_a_prompted_model_stands_in_its_prompt(backbones):
    responder = Responder(LLM.load(backbones["llm"]), instruction="say yes")
    assert "say yes" in responder.llm.tokenizer.decode(responder.prompts([["hello"]])[0])
    assert not responder.trained_parameters()


def test_a_source_made_for_another_llm_is_refused(backbones, model):
    source = KnowledgeSource(model.source.clip, model.source.iqformer, 16)
    with pytest.raises(ValueError, match="vectors of 16"):
        Responder(LLM.load(backbones["llm"]), source)


def test_a_cloze_gives_the_nll_of_every_candidate(backbones, model):
    responder = Responder(LLM.load(backbones["llm"]), model.source)
    scores = responder.cloze(CONTEXTS[:2], [["red", "blue"], ["it is red"]], batch=2)
    expected = responder.score([CONTEXTS[0], CONTEXTS[0], CONTEXTS[1]], ["red", "blue", "it is red"])[0]
    assert [len(row) for row in scores] == [2, 1]
    assert [value for row in scores for value in row] == pytest.approx(expected, abs=1e-4)


def test_a_kept_iqformer_is_not_trained(backbones, model):
    source = KnowledgeSource(model.source.clip, IQFormer(**model.source.iqformer.shape), 32)
    responder = Responder(LLM.load(backbones["llm"]), source, tune_iqformer=False)
    responder.loss(CONTEXTS, RESPONSES).backward()
    assert {id(p) for p in responder.trained_parameters()} == {id(p) for p in source.into_llm.parameters()}
    assert source.into_llm.weight.grad.abs().sum() > 0
    assert source.iqformer.queries.grad is None


def test_a_saved_model_gives_equal_knowledge_losses_and_answers(backbones, model, tmp_path):
    model.save(tmp_path / "saved")
    again = VIKDFForPretraining.load(tmp_path / "saved", clip=backbones["clip"], llm=backbones["llm"])
    captions = ["a red kettle", "hello"]
    batch = {"pixels": torch.randn(2, 3, 48, 48), "captions": captions}
    batch["clip_tokens"] = model.source.clip.tokenize(captions)
    batch["lots"] = [3, 4]
    ours, theirs = (m.losses(batch) for m in (model, again))
    assert ours == theirs
    assert torch.equal(again.knowledge(captions), model.knowledge(captions))
    answers = [Responder(m.llm, m.source).generate(CONTEXTS, max_new_tokens=4) for m in (model, again)]
    assert answers[0] == answers[1] and all(answers[0])


def test_a_checkpoint_holds_no_frozen_weight(model, tmp_path):
    from safetensors import safe_open

    model.save(tmp_path / "saved")
    with safe_open(tmp_path / "saved/model.safetensors", "pt") as stream:
        size = sum(stream.get_tensor(name).numel() for name in stream.keys())
    assert size == sum(parameter.numel() for parameter in model.trained_parameters())
    assert json.loads((tmp_path / "saved/config.json").read_text())["frozen"].keys() == {"clip", "llm"}


def test_the_same_seed_builds_the_same_bytes(backbones, tmp_path):
    for name in ("one", "two"):
        VIKDFForPretraining.build(**backbones, queries=3, mask_pixels=12, seed=5).save(tmp_path / name)
    files = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("one", "two")]
    assert files[0] == files[1]


def test_a_checkpoint_of_the_other_kind_is_refused(backbones, model, tmp_path):
    Responder(LLM.load(backbones["llm"]), model.source).save(tmp_path / "saved")
    with pytest.raises(ValueError, match="expected a VIKDFForPretraining"):
        VIKDFForPretraining.load(tmp_path / "saved", llm=backbones["llm"], clip=backbones["clip"])
