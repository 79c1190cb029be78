"""The product of a baseline: weights, settings and the digests of the frozen parts that it stands on.

    product.write(folder, "maria", tensors, settings={"layers": 4}, frozen={"bert": backbones / "bert"}, trained=..., run=...)
    settings, tensors = product.read(folder, "maria", {"bert": backbones / "bert"})

In a folder: model.safetensors (what the system adds to its frozen parts), config.json, the tokenizer where there is one, README.md.
A frozen part that is another than in training is an error that names it. Nothing tells time, host or path.
"""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

from vikdf import files
from vikdf.model import checkpoint

KEYS = {"format": (str,), "kind": (str,), "settings": checkpoint.OBJECT, "frozen": checkpoint.OBJECT}
KEYS |= {"trained": checkpoint.OBJECT, "run": checkpoint.MAYBE}
FORMAT = "vikdf-baseline"


def write(
    folder: Path,
    kind: str,
    tensors: dict[str, Tensor],
    *,
    settings: dict,
    frozen: dict[str, Path],
    tokenizer=None,
    trained: dict[str, int] | None = None,
    run: dict | None = None,
) -> None:
    """`frozen`: part -> folder, whose bytes are named; `trained`: parameters of all stages, by name."""
    with files.whole(Path(folder) / checkpoint.WEIGHTS) as aside:
        tensors = {name: value.detach().cpu().contiguous().clone() for name, value in tensors.items()}
        files.save_tensors(tensors, aside, format="pt")
    if tokenizer is not None:
        with files.saving(folder):
            tokenizer.save_pretrained(folder)
    named = {part: checkpoint.name_part(path) for part, path in frozen.items()}
    config = {"format": FORMAT, "kind": kind, "settings": settings, "frozen": named, "trained": trained or {}}
    with files.whole(Path(folder) / "README.md") as aside:
        aside.write_text(_card(config | {"run": run}))
    files.write_json(Path(folder) / checkpoint.CONFIG, config | {"run": run})


def read(folder: Path, kind: str, frozen: dict[str, Path]) -> tuple[dict, dict[str, Tensor]]:
    """Settings and tensors of a product, once its frozen parts are byte for byte those of its training."""
    path = Path(folder) / checkpoint.CONFIG
    if not path.exists():
        raise ValueError(f"{folder} holds no checkpoint: expected a folder with {checkpoint.CONFIG}")
    config = files.read_json(path)
    said = config if isinstance(config, dict) else {}
    if said.keys() != KEYS.keys() or said["format"] != FORMAT or said["kind"] != kind:
        raise ValueError(f"{path} is that of {said.get('kind')!r}, expected a product of the system {kind!r}")
    with checkpoint.described(folder):
        checkpoint.expect("it", said, KEYS)
        checkpoint.expect("frozen", said["frozen"], dict.fromkeys(frozen, checkpoint.OBJECT))
        for part in frozen:
            checkpoint.expect(f"frozen.{part}", said["frozen"][part], checkpoint.FROZEN)
    for part, place in frozen.items():
        checkpoint.find_part(part, said["frozen"][part], Path(folder), place)
    return said["settings"], checkpoint.read_weights(folder)


@contextlib.contextmanager
def outlined(folder: Path, settings: dict, tensors: dict[str, Tensor]) -> Iterator[None]:
    """Inside, a model is made without memory, to be loaded by `assign`: config.json may say any size, and any number of layers."""
    with checkpoint.described(folder), torch.device("meta"):
        for name, value in settings.items():
            if name.endswith("layers") and isinstance(value, int) and value > len(tensors):
                raise ValueError(f"settings has {name} {value}, but {checkpoint.WEIGHTS} holds {len(tensors)} tensors")
        yield


def own(module: torch.nn.Module, frozen: tuple[str, ...] = ()) -> dict[str, Tensor]:
    """The module's tensors but those below the frozen prefixes, which are not saved again; tied ones under their first name."""
    first = {}
    for name, value in module.state_dict(keep_vars=True).items():
        first.setdefault(id(value), (name, value))
    return {name: value.detach() for name, value in first.values() if not name.startswith(frozen)}


def load(module, tensors: dict[str, Tensor], frozen: tuple[str, ...], folder: Path, assign: bool = False) -> None:
    """Loads `tensors`; all outside the frozen prefixes must be there, and nothing else. `assign`: the module lies on `meta`."""
    ours = own(module, frozen)
    wanted = {name: list(value.shape) for name, value in ours.items()}
    found = {name: list(value.shape) for name, value in tensors.items()}
    wrong = [name for name in sorted(wanted.keys() | found.keys()) if wanted.get(name) != found.get(name)]
    if wrong:
        said = f"{wrong[0]} is {found.get(wrong[0], 'missing')}, expected {wanted.get(wrong[0], 'none')}"
        raise ValueError(f"{folder}/{checkpoint.WEIGHTS} does not fit {checkpoint.CONFIG}: {said}; train again")
    if assign:  # as a copy into the module would have them: in its precision, and in memory of their own
        tensors = {name: value.to(ours[name].dtype, copy=True) for name, value in tensors.items()}
    module.load_state_dict(tensors, strict=False, assign=assign)


def _card(config: dict) -> str:
    """README.md of the folder: what it is, what it stands on, what was trained."""
    run = config["run"] or {}
    lines = [f"# {config['kind']}" + (f", {run['name']}" if run.get("name") else ""), ""]
    lines += ["One of the systems that VIKDF is compared with, trained by the same pipeline.", ""]
    lines += ["| frozen part | folder | sha256 |", "|---|---|---|"]
    lines += [f"| {part} | {one['folder']} | `{one['sha256']}` |" for part, one in sorted(config["frozen"].items())]
    count = sum(config["trained"].values())
    lines += ["", f"Parameters trained in all stages: {count:,}.", ""]
    for name, value in sorted((run.get("results") or {}).items()):
        lines.append(f"- {name}: {value}")
    return "\n".join(lines) + "\n"
