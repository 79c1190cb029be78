"""Checkpoints: folders that transformers' Auto classes and vikdf.VIKDF can load, the products of pretrain and finetune.

In such a folder: model.safetensors (the trained parts), config.json, the LLM's tokenizer, generation_config.json and
README.md, the model card. A frozen part is never saved again: config.json names it by folder, source and sha256, and one
that is missing, another or changed is an error that names it. Nothing in the folder tells time, host or path.
"""

import contextlib
import inspect
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from torch import Tensor, nn

from vikdf import files, seals
from vikdf.model import card

WEIGHTS, CONFIG, GENERATION = "model.safetensors", "config.json", "generation_config.json"
KINDS = ("VIKDFForPretraining", "Responder")
PICKLES = ("*.bin", "*.pt", "*.pth", "*.pkl", "*.ckpt")
DECODING = {"beams": 3, "no_repeat_ngram": 3, "max_new_tokens": 32}  # as the original; Responder.generate's own
NAMES = {"beams": "num_beams", "no_repeat_ngram": "no_repeat_ngram_size", "max_new_tokens": "max_new_tokens"}
OBJECT, MAYBE = (dict,), (dict, type(None))
KEYS = {
    "model_type": (str,),
    "architectures": (list,),
    "kind": (str,),
    "settings": OBJECT,
    "source": MAYBE,
    "tamim": MAYBE,
}
KEYS |= {"frozen": OBJECT, "trained": OBJECT, "run": MAYBE}
SOURCE = {"iqformer": OBJECT, "llm_width": (int,)}
FROZEN = {"folder": (str,), "source": (str,), "files": OBJECT, "sha256": (str,)}
VALUES = {
    bool: (bool,),
    int: (int,),
    float: (float, int),
    str: (str,),
}  # a setting's annotation -> types of its JSON value
PARTS = ("source.iqformer", "source.into_llm", "tim", "tamim", "iamtm", "iakr", "llm")


def name_part(folder: Path) -> dict:
    """What config.json says of a frozen part: the folder's name, where it came from, and what it is byte for byte."""
    inside, manifest = files.contents(folder), Path(folder) / "manifest.json"
    said = files.read_json(manifest) if manifest.exists() else {}
    source = "/".join(said[key] for key in ("hub", "name", "pretrained") if key in said) or said.get("form", "")
    source += f"@{said['revision']}" if "revision" in said else ""
    return {"folder": Path(folder).name, "source": source, "files": inside, "sha256": files.digest([*inside.items()])}


def find_part(part: str, expected: dict, checkpoint: Path, given: Path | None, backbones: Path | None = None) -> Path:
    """The folder of a frozen part, byte for byte what the checkpoint was trained with.

    It is `given`, or lies below `backbones`, or in the nearest data/backbones: of the folders above the checkpoint from the
    inside out, then of the working directory.
    """
    name = expected["folder"]
    called = f"the frozen part {part} ({', '.join(filter(None, [f'folder {name!r}', expected['source']]))})"
    if given is not None:
        places, looked = [Path(given)], f"{given} {'is no folder' if Path(given).exists() else 'does not exist'}"
    elif backbones is not None:
        places, looked = [Path(backbones) / name], f"{backbones} has no folder {name!r}"
    else:
        roots = [*Path(checkpoint).resolve().parents, Path.cwd()]
        places = [root / "data" / "backbones" / name for root in roots]
        looked = f"neither a folder above it nor the working directory has data/backbones/{name}"
    found = next((place for place in places if place.is_dir()), None)
    if found is None:
        raise ValueError(
            f"{checkpoint} needs {called}, but {looked}: say where it is, with backbones=FOLDER (on the command line "
            f"--backbones FOLDER) for the folder that holds {name!r}, or with {part}=FOLDER; the one of that training, "
            f"sha256 {expected['sha256'][:16]}..."
        )
    if seen := differences(found, expected):
        raise ValueError(
            f"{found} is not {called} that {checkpoint} was trained with: {seen}. Give the one of that training, "
            f"sha256 {expected['sha256'][:16]}..., or train anew with this one"
        )
    return found


def find_parts(checkpoint: Path, given: dict[str, Path | None], backbones: Path | None = None) -> dict[str, Path]:
    frozen = read_config(checkpoint)["frozen"]
    return {part: find_part(part, entry, checkpoint, given.get(part), backbones) for part, entry in frozen.items()}


def differences(folder: Path, expected: dict) -> str:
    """In what files a folder differs from what config.json expects; empty where it does not."""
    inside, wanted = files.contents(folder), expected["files"]
    kinds = {
        "changed": [name for name, digest in inside.items() if wanted.get(name, digest) != digest],
        "missing": [name for name in wanted if name not in inside],
        "new": [name for name in inside if name not in wanted],
    }
    return ", ".join(f"{name} is {kind}" for kind, names in kinds.items() for name in names[:2])


def parts(tuned: dict[str, int]) -> dict[str, int]:
    """Parameters by part, from parameters by name."""
    sums = {part: sum(count for name, count in tuned.items() if f"{name}.".startswith(f"{part}.")) for part in PARTS}
    return {part: count for part, count in sums.items() if count}


def write(folder: Path, tensors: dict[str, Tensor], config: dict, tokenizer, decoding: dict = DECODING) -> None:
    folder = Path(folder)
    with files.whole(folder / WEIGHTS) as aside:
        tensors = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
        files.save_tensors(tensors, aside, format="pt")
    with files.saving(folder):
        tokenizer.save_pretrained(folder)
    files.write_json(
        folder / GENERATION, {"do_sample": False} | {NAMES[name]: value for name, value in decoding.items()}
    )
    config = config | {"model_type": "vikdf", "architectures": ["VIKDF"]}
    with files.whole(folder / "README.md") as aside:
        aside.write_text(card.write(config))
    files.write_json(folder / CONFIG, config)


def read_config(folder: Path) -> dict:
    """config.json, once it is sure that the folder is a checkpoint of ours and keeps its weights as safetensors."""
    folder = Path(folder)
    if not (folder / CONFIG).exists():
        raise ValueError(f"{folder} holds no checkpoint: expected a folder with {CONFIG} and {WEIGHTS}")
    seals.check(folder)
    config = files.read_json(folder / CONFIG)
    said = config if isinstance(config, dict) else {}
    if said.get("model_type") != "vikdf" or said.get("kind") not in KINDS:
        raise ValueError(
            f"{folder}/{CONFIG} is that of a {said.get('model_type')!r} model ({said.get('kind')}), expected a "
            "'vikdf' one that pretrain or finetune wrote"
        )
    with described(folder):
        _check(config)
    if not (folder / WEIGHTS).exists():
        pickles = sorted(path.name for pattern in PICKLES for path in folder.glob(pattern))
        held = f"{pickles[0]}, a pickle file, which may run any code when it is read" if pickles else "no weights"
        raise ValueError(f"{folder} holds {held}: expected {WEIGHTS}, as pretrain and finetune write it")
    return config


def _check(config: dict) -> None:
    """Every key of config.json is there with a value of its type, and none beside them."""
    distilled = config["kind"] == KINDS[0]
    expect("it", config, KEYS | ({"source": OBJECT, "initialised_from": OBJECT} if distilled else {}))
    if config["source"] is not None:
        expect("source", config["source"], SOURCE)
    elif config["tamim"] is not None:
        raise ValueError("tamim is there without a source: expected null")
    expect("frozen", config["frozen"], dict.fromkeys(["llm", *(["clip"] if config["source"] else [])], OBJECT))
    for part, entry in config["frozen"].items():
        expect(f"frozen.{part}", entry, FROZEN)
        name = entry["folder"]
        if Path(name).name != name or name == "..":
            raise ValueError(f"frozen.{part}.folder is {name!r}: expected the plain name of a folder")


def expect(place: str, found: dict, expected: dict[str, tuple[type, ...]]) -> None:
    if wrong := sorted(expected.keys() ^ found.keys()):
        raise ValueError(f"{place} {'has no' if wrong[0] in expected else 'has an unknown'} key {wrong[0]!r}")
    for key, kinds in expected.items():
        if type(found[key]) not in kinds:
            names = " or ".join(kind.__name__ for kind in kinds)
            raise ValueError(f"{place} has {key} {str(found[key])[:80]!r}: expected a value of type {names}")


def arguments(kind: type[nn.Module], given: dict, place: str) -> dict:
    """What config.json gives to a class of ours, once each key is one of its settings and each value of its type."""
    known = [one for one in inspect.signature(kind).parameters.values() if one.kind is one.KEYWORD_ONLY]
    types = {one.name: VALUES.get(one.annotation, (list, tuple)) for one in known}
    made = {one.name: one.default for one in known if one.default is not one.empty} | given
    expect(place, made, types)
    for key, value in made.items():
        if isinstance(value, int) and not 0 <= value < 2**63:
            raise ValueError(f"{place} has {key} {str(value)[:80]}: expected a number from 0 to 2^63")
        if isinstance(value, list) and not (value and all(isinstance(text, str) for text in value)):
            raise ValueError(f"{place} has {key} {str(value)[:80]}: expected a list of texts, one at least")
    return made


@contextlib.contextmanager
def described(folder: Path) -> Iterator[None]:
    """Whatever fails inside for what config.json says is one sentence that names the file; torch asserts some sizes."""
    try:
        yield
    except (ValueError, ArithmeticError, LookupError, TypeError, RuntimeError, AssertionError) as error:
        told = " ".join(str(error).split())[:300]
        raise ValueError(
            f"{folder}/{CONFIG} describes no model: {told}; copy the folder anew, or train again"
        ) from None


def build(
    make: Callable[[], nn.Module], config: dict, weights: dict, frozen: tuple[str, ...], folder: Path
) -> nn.Module:
    """What `make` gives, once its tensors, made without memory first, are those of `weights`: a size may be any number."""
    with described(folder):
        layers = config["source"]["iqformer"].get("layers") if config["source"] else 0
        if isinstance(layers, int) and layers > len(weights):
            raise ValueError(f"source.iqformer has {layers} layers, but {WEIGHTS} holds {len(weights)} tensors")
        with torch.device("meta"):
            outline = make()
    fit(outline, {name: value for name, value in weights.items() if not name.startswith(frozen)}, frozen, folder, False)
    return make()


def fit(module: nn.Module, weights: dict, frozen: tuple[str, ...], checkpoint: Path, lora: bool = True) -> None:
    """Names the first tensor that is missing, unknown or of another shape; `lora` false: LoRA's are not expected."""
    wanted = {name: list(value.shape) for name, value in trained_tensors(module, frozen).items()}
    wanted = {name: shape for name, shape in wanted.items() if lora or ".lora_" not in name}
    found = {name: list(value.shape) for name, value in weights.items()}
    wrong = [f"it lacks {name}" for name in wanted if name not in found]
    wrong += [f"{name} is unknown" for name in found if name not in wanted]
    both = [name for name in wanted if name in found]
    wrong += [f"{name} is {found[name]}, expected {wanted[name]}" for name in both if found[name] != wanted[name]]
    if wrong:
        raise ValueError(
            f"{checkpoint}/{WEIGHTS} does not fit {CONFIG}: {wrong[0]}; copy the folder anew, or train again"
        )


def read_weights(folder: Path, prefix: str = "") -> dict[str, Tensor]:
    """The tensors whose name begins with `prefix`, without it."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(Path(folder) / WEIGHTS, "pt") as stream:
            names = [name for name in stream.keys() if name.startswith(prefix)]
            return {name.removeprefix(prefix): stream.get_tensor(name) for name in names}
    except SafetensorError as error:
        raise ValueError(
            f"{folder}/{WEIGHTS} is damaged ({error}): delete {folder} and run `snakemake --cores all {folder}` to make it again, "
            "or copy the folder anew"
        ) from None


def read_decoding(folder: Path) -> dict[str, int]:
    """generation_config.json in the words of Responder.generate."""
    path = Path(folder) / GENERATION
    said = files.read_json(path) if path.exists() else {}
    if not isinstance(said, dict) or said.pop("do_sample", False) is not False:
        raise ValueError(
            f"{path} holds {str(said)[:80]}: expected an object, and do_sample false: answers are the likeliest ones"
        )
    ours = {theirs: name for name, theirs in NAMES.items()}
    return decoding({ours.get(name, name): value for name, value in said.items()}, str(path))


def decoding(given: dict, where: str) -> dict[str, int]:
    """The decoding that `where` gives, complete, once each word is known and each number possible."""
    for name, value in given.items():
        if name not in DECODING:
            told = ", ".join(f"{ours} ({theirs} in {GENERATION})" for ours, theirs in NAMES.items())
            raise ValueError(f"{where} says {name!r}: expected {told}")
        least = 0 if name == "no_repeat_ngram" else 1
        if type(value) is not int or value < least:
            raise ValueError(
                f"{where} says {name} ({NAMES[name]} in {GENERATION}) {value!r}: expected a whole number, {least} or more"
            )
    return DECODING | given


def load_trained(module, weights: dict, frozen: tuple[str, ...], checkpoint: Path, lora: bool = True) -> None:
    """Loads `weights`; all outside the frozen prefixes must be there, and nothing else; `lora` false: its weights are new."""
    fit(module, weights, frozen, checkpoint, lora)
    module.load_state_dict(weights, strict=False)


def trained_tensors(module, frozen: tuple[str, ...]) -> dict[str, Tensor]:
    state = module.state_dict().items()
    return {name: value for name, value in state if not name.startswith(frozen) or ".lora_" in name}


def trainable(module) -> dict[str, int]:
    """Parameters by name of all that requires a gradient now."""
    return {name: value.numel() for name, value in module.named_parameters() if value.requires_grad}
