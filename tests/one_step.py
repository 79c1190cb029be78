"""Single steps of pretraining or fine-tuning by the loop, its losses and gradients on disk: for tests with several processes.

    python -m torch.distributed.run --standalone --nproc-per-node 2 tests/one_step.py FOLDER '[{"name": ..., "losses": ...}, ...]'
FOLDER holds backbones/ ; for each entry FOLDER/<name>.safetensors (gradients of the last step),
<name>-weights.safetensors and <name>.json (losses of the first) are written; or, where a row is to be hurt, what each process
then says, as <name>-<rank>.txt.
"""

import json
import os
import signal
import sys
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch.distributed.tensor import DTensor
from torch.optim.optimizer import register_optimizer_step_pre_hook

from vikdf import finetune, loop, place, pretrain, state
from vikdf.model.respond import Responder
from vikdf.model.vikdf import VIKDFForPretraining

CAPTIONS = ["a red kettle", "the blue vase on the beach and a tree", "hello", "two green boats by a long grey wall"] * 2
NUMBERS = {"seed": 1, "steps": 1, "learning_rate": 0.001, "weight_decay": 0.05, "schedule": "constant_after_warmup"}
NUMBERS |= {"warmup": 0.0, "clip_norm": 1e9, "precision": "float32", "workers": 0, "checkpoint_every": 100}
WEIGHTS = {"tim": 0.5, "tamim": 0.2, "iamtm": 0.2, "iaci": 1.0, "iakr": 0.5}


def pretraining(folders: dict[str, Path], losses: list[str], hurt: int | None = None, **settings):
    """With `hurt`, the number of a row whose picture is no numbers."""
    model = VIKDFForPretraining.build(**folders, queries=3, mask_pixels=12, **settings)
    pixels = torch.randn(8, 3, 48, 48, generator=torch.Generator().manual_seed(1))
    if hurt is not None:
        pixels[hurt] = float("nan")

    def fetch(picked):
        rows = [row for _, row in picked]
        said = [CAPTIONS[row] for row in rows]
        made = {"pixels": pixels[rows], "clip_tokens": model.source.clip.tokenize(said), "captions": said, "lots": rows}
        return made | {"keys": [f"row {row}" for row in rows]}

    return model, pretrain.objective(model, {name: WEIGHTS[name] * (name in losses) for name in WEIGHTS}), fetch


def finetuning(folders: dict[str, Path], **settings):
    model = VIKDFForPretraining.build(**folders, queries=3, mask_pixels=12)
    responder = Responder(model.llm, model.source, **settings)

    def fetch(picked):
        rows = [row for _, row in picked]
        return {
            "contexts": [[CAPTIONS[row], "and ?"] for row in rows],
            "responses": [CAPTIONS[row - 1] for row in rows],
        }

    return responder, finetune.objective(responder), fetch


def main(folder: Path, name: str, losses: list[str], settings: dict, stop_at: int = 0, **numbers) -> None:
    """One step (or `steps`) from the same weights on; which rows it sees is the same too."""
    folders = {part: folder / "backbones" / part for part in ("clip", "bert", "llm")}
    begun = finetuning(folders, **settings) if losses == ["nll"] else pretraining(folders, losses, **settings)
    model, objective, fetch = begun
    found, calls = {}, iter(range(1, 10**6))

    def stop(*_):
        if next(calls) == stop_at and state.main_process():
            os.kill(os.getppid(), signal.SIGTERM)  # torchrun, which then tells all processes and their workers

    objective.register_forward_pre_hook(stop)

    def keep(optimizer, *_):
        found.update({name: p.grad.clone() for name, p in objective.named_parameters() if p.grad is not None})

    handle = register_optimizer_step_pre_hook(keep)
    if numbers.get("shard_llm"):
        place.shard(model.llm.model)
        with torch.no_grad():
            model.llm.states(model.llm.embed(torch.tensor([[1, 2]]), None))
        layers = [value for value in model.llm.model.parameters() if isinstance(value, DTensor)]
        assert len(layers) > 10 and all(value.to_local().numel() < value.numel() for value in layers)  # let go again
    try:
        at = loop.train(
            objective, fetch, 8, loop.Numbers(**NUMBERS | numbers), folder=folder / "state" / name, journal=None
        )
    except ValueError as error:
        if "hurt" not in settings:
            raise
        return (folder / f"{name}-{place.process().process_index}.txt").write_text(str(error))
    finally:
        handle.remove()
    if state.main_process():
        save_file(found, folder / f"{name}.safetensors")
        trained = {name: value for name, value in objective.named_parameters() if value.requires_grad}
        save_file(trained, folder / f"{name}-weights.safetensors")
        (folder / f"{name}.json").write_text(json.dumps(at.curves[0]))


if __name__ == "__main__":
    place.process()  # the process group is there before anything is spread over it
    for asked in json.loads(sys.argv[2]):
        main(Path(sys.argv[1]), **asked)
