"""`vikdf plan`: its FLOPs are those that torch counts over real steps, its memory is what autograd keeps."""

import checkpoints
import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from vikdf.backbones import shapes
from vikdf.model import cost, outline
from vikdf.model.backbone import LLM
from vikdf.model.respond import Responder
from vikdf.model.vikdf import LOSSES, KnowledgeSource, VIKDFForPretraining

ROWS = 8
PROMPTS = {
    "iaci_prompts": ["what is on the image ?"],
    "iakr_prompts": ["what is in the image ?"],
}  # as long as each other
SIZES = {  # two that differ in every width, in layers, queries, family and kind of TIM
    "narrow": {
        "clip": {"width": 32, "layers": 2},
        "bert": {"hidden_size": 32, "num_hidden_layers": 2, "intermediate_size": 128},
        "llm": {"family": "llama"},
        "model": {"queries": 4, "mask_pixels": 12, "tim": "pooled", "tim_width": 16},
    },
    "wide": {
        "clip": {"width": 64, "layers": 3},
        "bert": {"hidden_size": 48, "num_hidden_layers": 3, "intermediate_size": 96},
        "llm": {"family": "gpt2", "n_embd": 96, "n_layer": 3},
        "model": {"queries": 7, "mask_pixels": 24, "tim": "set", "iakr_input": "slots"},
    },
}
LORA = {"rank": 3, "alpha": 6}
of_every_kind = pytest.mark.parametrize("entry", [
    {"pretrain": "vikdf", "iqformer": "tuned", "lora": False},
    {"pretrain": "vikdf", "iqformer": "frozen", "lora": True},
    {"llm": "llm"},
], ids=["vikdf", "vikdf_lora", "llm_lora"])  # fmt: skip


@pytest.fixture(scope="module", params=SIZES)
def built(request, tmp_path_factory):
    """A model that can run, the outlines of the same folders, a batch of texts of one length, and their lengths."""
    sizes, root = SIZES[request.param], tmp_path_factory.mktemp(request.param)
    folders = {
        part: getattr(checkpoints, f"write_{part}")(root / part, **sizes[part]) for part in ("clip", "bert", "llm")
    }
    models = {part: {"form": "path", "path": str(folder)} for part, folder in folders.items()}
    settings = sizes["model"] | PROMPTS
    section = {part: part for part in models} | {"model": settings}
    values = {"backbones": {"models": models}, "pretrain": section, "finetune": {"lora": LORA}}
    return VIKDFForPretraining.build(**folders, **settings), outline.Outlines(values, root)


def of_one_length(tokenize, count: int) -> list[str]:
    """Texts with the same number of tokens that begin differently: no position is padding, none is read for all at once."""
    texts = [f"{a} {b} {c} the" for a in checkpoints.WORDS.split() for b in ("red", "blue") for c in ("vase", "tree")]
    lengths = [len(tokenize(text)) for text in texts]
    usual = max(set(lengths), key=lengths.count)
    return [text for text, length in zip(texts, lengths, strict=True) if length == usual][:count]


def batch_of(model) -> tuple[dict, cost.Lengths]:
    clip, llm = model.source.clip, model.llm
    captions = of_one_length(lambda text: llm.tokenize([text])[0], ROWS)
    tokens, texts = clip.tokenize(captions), llm.tokenize(captions)
    prompts = [len(llm.tokenize(loss.prompts)[0]) for loss in (model.iaci, model.iakr)]
    size = len(texts[0])
    assert prompts[0] == prompts[1]
    assert int(clip.text_mask(tokens).sum(1).min()) == int(clip.text_mask(tokens).sum(1).max()) == size + 2
    generator = torch.Generator().manual_seed(1)
    pixels = torch.randn(ROWS, 3, clip.pixels, clip.pixels, generator=generator)
    lots = list(range(ROWS))
    batch = {"pixels": pixels, "clip_tokens": tokens, "captions": captions, "others": captions, "lots": lots}
    opening, ending = (len(piece) for piece in llm.frame(1))
    around = {"template": opening + ending, "opening": opening}
    lengths = cost.Lengths(caption=size, caption_mean=size, prompt=prompts[0], **around)
    return batch, lengths


def counted(forward) -> tuple[int, int]:
    """FLOPs of a forward, and with its backward, by torch's own counter.

    It knows no formula for attention on a CPU, nor for the fused attention of nn.MultiheadAttention: so the maths is
    asked for in single products.
    """
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
            loss = forward()
            before = counter.get_total_flops()
            loss.backward()
            return before, counter.get_total_flops()
    finally:
        torch.backends.mha.set_fastpath_enabled(True)


def agree(work: dict, found: tuple[int, int], rows: int) -> None:
    forward, whole = (rows * sum(getattr(part, kind) for part in work.values()) for kind in ("forward", "total"))
    assert forward == pytest.approx(found[0], rel=0.03)
    assert whole == pytest.approx(found[1], rel=0.03)


def test_the_flops_of_a_pretraining_step_are_those_that_torch_counts(built):
    model, outlines = built
    batch, lengths = batch_of(model)
    found = counted(lambda: sum(model.losses(batch).values()))
    agree(cost.pretraining(outlines.pretraining(), lengths, ROWS, LOSSES), found, ROWS)


@pytest.mark.parametrize("name", LOSSES)
def test_the_flops_of_a_step_with_one_loss_are_those_that_torch_counts(built, name):
    model, outlines = built
    batch, lengths = batch_of(model)
    found = counted(lambda: model.losses(batch, (name,))[name])
    agree(cost.pretraining(outlines.pretraining(), lengths, ROWS, (name,)), found, ROWS)


@of_every_kind
def test_the_flops_of_a_fine_tuning_step_are_those_that_torch_counts(built, entry):
    model, outlines = built
    forward, lengths, _ = tuned(model, entry)
    agree(cost.tuning(outlines.system(entry), lengths), counted(forward), ROWS)


def tuned(model, entry: dict):
    """A forward over dialogues of one length, their lengths, and the system itself."""
    responder, llm, clip = running(model, entry), model.llm, model.source.clip
    contexts = of_one_length(lambda text: llm.tokenize([text])[0], 2 * ROWS)
    said, contexts = contexts[ROWS:], [[text] for text in contexts[:ROWS]]
    size = len(llm.tokenize(said)[0])
    assert int(clip.text_mask(clip.tokenize([text for [text] in contexts])).sum(1).max()) == size + 2
    lengths = cost.Lengths(context=size, response=size, template=sum(len(piece) for piece in llm.frame(1)))
    return lambda: responder.nll(contexts, said)[0].sum(), lengths, responder


def running(model, entry: dict) -> Responder:
    """The same system with weights."""
    lora = {"lora_rank": LORA["rank"]} if entry.get("lora", True) else {}
    source = KnowledgeSource.from_config(model.source.config(), model.source.clip) if "pretrain" in entry else None
    return Responder(LLM.load(model.llm.folder), source, tune_iqformer=entry.get("iqformer") == "tuned", **lora)


def kept(model, forward) -> int:
    """Bytes that autograd keeps for the backward pass, beside the weights."""
    own = {value.untyped_storage().data_ptr() for value in [*model.parameters(), *model.buffers()]}
    found = {}

    def keep(value):
        storage = value.untyped_storage()
        if storage.data_ptr() not in own:  # the value lives on, so that its place is not given to another
            found[storage.data_ptr()] = (storage.nbytes(), value)
        return value

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda value: value):
        assert forward().requires_grad
    return sum(size for size, _ in found.values())


@pytest.mark.parametrize("wanted", [LOSSES, *[(name,) for name in LOSSES]], ids=["all", *LOSSES])
def test_the_memory_for_the_backward_pass_of_pretraining_is_what_autograd_keeps(built, wanted):
    model, outlines = built
    batch, lengths = batch_of(model)
    found = kept(model, lambda: sum(model.losses(batch, wanted).values()))
    planned = ROWS * sum(cost.pretraining_memory(outlines.pretraining(), lengths, wanted, 4).values())
    assert planned == pytest.approx(found, rel=0.1)


@of_every_kind
def test_the_memory_for_the_backward_pass_of_fine_tuning_is_what_autograd_keeps(built, entry):
    model, outlines = built
    forward, lengths, responder = tuned(model, entry)
    planned = ROWS * sum(cost.tuning_memory(outlines.system(entry), lengths, 4).values())
    assert planned == pytest.approx(kept(responder, forward), rel=0.1)


@pytest.mark.parametrize("family", ["llama", "mistral"])
def test_a_sliding_window_reads_the_common_start_with_every_row_as_the_model_does(family, tmp_path):
    folders = {"clip": checkpoints.write_clip(tmp_path / "clip"), "bert": checkpoints.write_bert(tmp_path / "bert")}
    folders["llm"] = checkpoints.write_llm(tmp_path / "llm", family)
    settings = PROMPTS | {"queries": 4, "mask_pixels": 12}
    models = {part: {"form": "path", "path": str(folder)} for part, folder in folders.items()}
    values = {"backbones": {"models": models}, "pretrain": dict.fromkeys(models) | {"model": settings}}
    values["pretrain"] |= {part: part for part in models}
    model, planned = VIKDFForPretraining.build(**folders, **settings), outline.Outlines(values, tmp_path).pretraining()
    batch, lengths = batch_of(model)
    found = counted(lambda: model.losses(batch, ("iakr",))["iakr"])
    agree(cost.pretraining(planned, lengths, ROWS, ("iakr",)), found, ROWS)


@pytest.mark.parametrize("family", checkpoints.FAMILIES)
def test_every_family_of_language_models_costs_what_torch_counts(family, tmp_path):
    folder = checkpoints.write_llm(tmp_path / "llm", family)
    llm, made = LLM.load(folder), shapes.llm("llm", {"form": "path", "path": str(folder)}, tmp_path)
    x = torch.randn(2, 9, llm.width, requires_grad=True)
    work = cost.pass_through(made.stack, 9, 9, graph=True)
    agree({"LLM": work}, counted(lambda: llm.states(x).sum()), 2)
