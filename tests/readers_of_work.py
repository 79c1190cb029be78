"""Readers of models, checkpoints and what a run keeps (tests/readers.py).

In: nothing. Out: READERS, name -> Reader. To add a reader: one entry. `slow` ones are given fewer inputs.
"""

import contextlib
import io
import json
from pathlib import Path

import numpy as np
import torch
from readers import Reader, both, text, value
from safetensors.torch import save_file


def _packing(folder: Path):
    from vikdf import packing

    with packing.begun(folder / "shards", {"a": 1}) as begun:
        (begun / "index.parquet").touch()


def _write_packing(folder: Path) -> None:
    (folder / ".shards.part").mkdir()
    value(".shards.part/work.json", {"a": 1})(folder)


def _write_checkpoint(folder: Path) -> None:
    from accelerate import Accelerator

    from vikdf import checkpoints

    layer = torch.nn.Linear(3, 2)
    trained = dict(layer.named_parameters())
    optimizer = torch.optim.AdamW(trained.values())
    for step in (1, 2):
        layer(torch.ones(3)).sum().backward()
        optimizer.step()
        at = checkpoints.Progress(step=step, curves=[{"step": 1, "tim": 0.5}], best={"step": 1, "validation": 2.0})
        checkpoints.save(folder, at, trained, optimizer, dict(trained), Accelerator(cpu=True))


def _checkpoint(folder: Path):
    from accelerate import Accelerator

    from vikdf import checkpoints

    layer = torch.nn.Linear(3, 2)
    trained = dict(layer.named_parameters())
    at, _ = checkpoints.resume(folder, trained, torch.optim.AdamW(trained.values()), Accelerator(cpu=True))
    assert at.step in (0, 1, 2)


def _claimed(folder: Path):
    from vikdf import state

    text("input", "7")(folder)
    with state.claim(folder / "state", "some", ["files"], {"a": 1}, {"input": folder / "input"}) as work:
        if not work.finished:
            with work.finish() as product:
                (product / "made.txt").write_text("made")
        assert (work.product / "made.txt").read_text() == "made"


def _weights(folder: Path):
    from vikdf.model import checkpoint

    return checkpoint.read_weights(folder)


def _write_weights(folder: Path) -> None:
    save_file({"a.b": torch.ones(3, 2), "c": torch.arange(4)}, folder / "model.safetensors")


CONFIG = {
    "model_type": "vikdf",
    "architectures": ["VIKDF"],
    "kind": "Responder",
    "settings": {"a": 1},
    "source": None,
    "tamim": None,
    "frozen": {"llm": {"folder": "llm", "source": "", "files": {"a": "0"}, "sha256": "0"}},
    "trained": {"iakr": 3},
    "run": None,
}


def _config(folder: Path):
    from vikdf.model import checkpoint

    return checkpoint.read_config(folder)


def _decoding(folder: Path):
    from vikdf.model import checkpoint

    return checkpoint.read_decoding(folder)


def _write_product(folder: Path) -> None:
    from vikdf.baselines.parts import product

    (folder / "bert").mkdir()
    value("bert/config.json", {"a": 1})(folder)
    tensors = {"a": torch.ones(2, 3)}
    product.write(folder / "made", "some", tensors, settings={"layers": 1}, frozen={"bert": folder / "bert"})


def _product(folder: Path):
    from vikdf.baselines.parts import product

    return product.read(folder / "made", "some", {"bert": folder / "bert"})


def _write_index(folder: Path) -> None:
    from vikdf.baselines.parts.index import Index

    vectors = np.random.default_rng(0).normal(size=(8, 4)).astype(np.float32)
    Index.build([f"{n:064x}" for n in range(8)], vectors, "ivf", lists=2, probes=1).save(folder)


def _vectors_index(folder: Path):
    from vikdf.baselines.parts.index import Index

    found = Index.load(folder)
    try:
        return found.search(np.ones((2, found.width), np.float32), top=1)
    except ValueError:
        return None  # a cell may be empty


def _write_concepts(folder: Path) -> None:
    from vikdf.baselines.parts.regions import Concepts

    Concepts(torch.zeros(3, 2, 4).half(), torch.zeros(3, 2, dtype=torch.int64), ["a", "b"]).save(folder)


def _concepts(folder: Path):
    from vikdf.baselines.parts.regions import Concepts

    return Concepts.load(folder)


def _write_piece(folder: Path) -> None:
    from vikdf.features import Pieces

    arrays = {"tokens": torch.arange(6, dtype=torch.int32), "states": torch.ones(6, 2)}
    Pieces(folder / "captions").add(["a", "b"], [2, 6], arrays)
    piece = next((folder / "captions").iterdir())
    text("name", piece.name)(folder)


def _sampled(folder: Path):
    from vikdf import sampling

    return sampling.found(folder)


def _pieces(folder: Path):
    from vikdf.features import Pieces

    made = Pieces(folder / "captions")
    made.open(clear=False)
    return made.gather(list(made.places), "tokens") if made.places else None


def _write_sampled(folder: Path) -> None:
    from vikdf import sampling

    row = {"key": "a", "source": "a", "caption": "b", "origin": "web", "score": 0.5, "rank": 0, "used": False}
    sampling.keep(folder, 0, [row | {"dropped": ""}])


def _journal(folder: Path):
    from vikdf import costs, store, tracking

    lines = tracking.read(folder)
    return tracking.seconds(lines), costs.cost(lines), store._points(lines, {}, True), tracked_as(folder)


def tracked_as(folder: Path):
    from vikdf import store, tracked

    with contextlib.redirect_stderr(io.StringIO()):
        return store.sent_of(folder), tracked._ended(folder)


LINES = [
    {"stage": "pretrain", "name": "a", "time": 1000, "params": {"steps": "4"}, "data": {}, "tags": {"seed": "1"}},
    *({"step": step, "time": 1000 + step, "values": {"tim": 1 / step}} for step in range(1, 5)),
    {"again": 1010, "stopped": 1005},
    {"artifact": "curves.jsonl", "step": 4, "time": 1015},
    {"end": "FINISHED", "time": 1020, "peak_memory_mb": 1, "device": "cpu: x"},
]


def _sent(folder: Path):
    from vikdf import store, tracked

    return store.sent_of(folder), tracked.behind(folder, "sqlite:///none.db")


def _write_sent(folder: Path) -> None:
    from vikdf import files

    sent = {"store": "x", "journal": "0", "run": "y", "last": {"tim": 4}, "ended": True, "lines": 2}
    files.write_checked(folder / "mlflow.json", sent)
    _write_journal(folder)


def _write_journal(folder: Path) -> None:
    text("journal.jsonl", "".join(json.dumps(line) + "\n" for line in LINES))(folder)


def _write_chunk(folder: Path) -> None:
    from vikdf import files

    answer = {"hypothesis": "a", "nll": 1.0, "tokens": 2, "cloze": []}
    files.write_checked(folder / "000000.json", {"answers": [answer]})


def _chunk(folder: Path):
    from vikdf import generate

    return generate._kept(folder / "000000.json")


def _llm(folder: Path):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from vikdf.model import pretrained

    return pretrained.load(AutoModelForCausalLM, folder / "llm"), pretrained.read(AutoTokenizer, folder / "llm")


def _write_llm(folder: Path) -> None:
    import checkpoints

    checkpoints.write_llm(folder / "llm")


def _clip(folder: Path):
    from vikdf.model.encoders import CLIP

    clip = CLIP.load(folder / "clip")
    return clip.text(clip.tokenize(["a red kettle"]))


def _write_clip(folder: Path) -> None:
    import checkpoints

    checkpoints.write_clip(folder / "clip")


READERS = {
    "packing": Reader(_write_packing, ".shards.part/work.json", _packing, slow=2),
    "checkpoint's state": Reader(_write_checkpoint, "00000002/state.json", _checkpoint),
    "checkpoint's weights": Reader(_write_checkpoint, "00000002/weights.safetensors", _checkpoint),
    "checkpoint's moments": Reader(_write_checkpoint, "00000002/optimizer.safetensors", _checkpoint),
    "work": Reader(_claimed, "state/some/*/work.json", _claimed, slow=4),
    "work's product": Reader(_claimed, "state/some/*/product.json", _claimed, slow=4),
    "weights": Reader(_write_weights, "model.safetensors", _weights),
    "config": Reader(both(value("config.json", CONFIG), _write_weights), "config.json", _config),
    "decoding": Reader(value("generation_config.json", {"num_beams": 3}), "generation_config.json", _decoding),
    "baseline's config": Reader(_write_product, "made/config.json", _product),
    "baseline's weights": Reader(_write_product, "made/model.safetensors", _product),
    "vectors of pictures": Reader(_write_index, "vectors.safetensors", _vectors_index),
    "names of pictures": Reader(_write_index, "names.json", _vectors_index),
    "index of pictures": Reader(_write_index, "index.json", _vectors_index),
    "concepts": Reader(_write_concepts, "concepts.safetensors", _concepts),
    "names of concepts": Reader(_write_concepts, "concepts.json", _concepts),
    "features": Reader(_write_piece, "captions/*/tokens.npy", _pieces),
    "features' manifest": Reader(_write_piece, "captions/*/manifest.json", _pieces),
    "sampled captions": Reader(_write_sampled, "000000-*.parquet", _sampled),
    "journal": Reader(_write_journal, "journal.jsonl", _journal),
    "mlflow.json": Reader(_write_sent, "mlflow.json", _sent),
    "answers of a chunk": Reader(_write_chunk, "000000.json", _chunk),
    "llm's config": Reader(_write_llm, "llm/config.json", _llm, slow=20),
    "llm's weights": Reader(_write_llm, "llm/model.safetensors", _llm, slow=20),
    "llm's tokenizer": Reader(_write_llm, "llm/tokenizer.json", _llm, slow=20),
    "llm's words": Reader(_write_llm, "llm/tokenizer_config.json", _llm, slow=20),
    "clip's config": Reader(_write_clip, "clip/open_clip_config.json", _clip, slow=20),
    "clip's weights": Reader(_write_clip, "clip/open_clip_model.safetensors", _clip, slow=20),
}  # fmt: skip
