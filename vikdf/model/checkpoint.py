"""Checkpoints: the trained parts (model.safetensors) and config.json, naming each frozen part by folder and sha256.

A frozen part is never saved again; one that is missing, another or changed is an error that names it.
"""

from pathlib import Path

from torch import Tensor

from vikdf import files

WEIGHTS, CONFIG = "model.safetensors", "config.json"


def name_part(folder: Path) -> dict[str, str]:
    return {"folder": Path(folder).name, "sha256": files.sha256(folder)}


def check_part(part: str, folder: Path | None, expected: dict[str, str], checkpoint: Path) -> None:
    """Stops unless `folder` is, byte for byte, the frozen part that the checkpoint was trained with."""
    if folder is None or not Path(folder).is_dir():
        raise ValueError(
            f"{checkpoint} was trained with the frozen part {part} {expected['folder']!r}, but "
            f"{'no folder was given' if folder is None else f'{folder} does not exist'}: give the one of that training"
        )
    found = files.sha256(folder)
    if found != expected["sha256"]:
        raise ValueError(
            f"{part}: {folder} is not what {checkpoint} was trained with: sha256 {found[:16]}..., expected "
            f"{expected['sha256'][:16]}... ({expected['folder']!r}). Give the one of that training or train anew"
        )


def write(folder: Path, tensors: dict[str, Tensor], config: dict) -> None:
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    with files.whole(Path(folder) / WEIGHTS) as aside:
        try:
            save_file({name: value.detach().cpu().contiguous() for name, value in tensors.items()}, aside)
        except SafetensorError as error:
            raise OSError(f"{folder}/{WEIGHTS} cannot be written ({error}): is the disk full?") from None
    files.write_json(Path(folder) / CONFIG, config)


def read_config(folder: Path) -> dict:
    if not (Path(folder) / CONFIG).exists():
        raise ValueError(f"{folder} holds no checkpoint: expected {CONFIG} and {WEIGHTS}")
    return files.read_json(Path(folder) / CONFIG)


def read_weights(folder: Path, prefix: str = "") -> dict[str, Tensor]:
    """The tensors whose name begins with `prefix`, without it."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(Path(folder) / WEIGHTS, "pt") as stream:
            names = [name for name in stream.keys() if name.startswith(prefix)]
            return {name.removeprefix(prefix): stream.get_tensor(name) for name in names}
    except SafetensorError as error:
        raise ValueError(
            f"{folder}/{WEIGHTS} is damaged ({error}): delete {folder} and run `snakemake --cores all {folder}` to make it again"
        ) from None


def load_trained(module, weights: dict[str, Tensor], frozen: tuple[str, ...], checkpoint: Path) -> None:
    """Loads `weights`; every parameter outside the frozen prefixes must be there, and nothing else."""
    missing, unknown = module.load_state_dict(weights, strict=False)
    missing = [name for name in missing if not name.startswith(frozen) or ".lora_" in name]
    if missing or unknown:
        raise ValueError(f"{checkpoint} does not fit: it lacks {missing[:3]}, unknown are {unknown[:3]}; train again")


def trained_tensors(module, frozen: tuple[str, ...]) -> dict[str, Tensor]:
    state = module.state_dict().items()
    return {name: value for name, value in state if not name.startswith(frozen) or ".lora_" in name}
