"""A transformers part from its folder, whole: what transformers would make up, ask for or run is an error here.

In: an Auto class (or a model's own), a folder. Out: the model in the precision that was asked for, or that it was saved in;
or the configuration, tokenizer or processor. Code that lies in a folder is never run, and pickle files are not read.
    model = pretrained.load(AutoModelForCausalLM, Path("data/backbones/llm"), torch.bfloat16)
    tokenizer = pretrained.read(AutoTokenizer, Path("data/backbones/llm"))
"""

import contextlib
import math
from collections.abc import Iterable, Iterator
from pathlib import Path

import torch

from vikdf import files

HARMED = (ValueError, TypeError, KeyError, IndexError, AttributeError, OverflowError, ZeroDivisionError)
LAYERS = ("num_hidden_layers", "n_layer", "num_layers", "n_layers", "encoder_layers", "decoder_layers", "layers")


def read(kind, folder: Path, **settings):
    """Whatever transformers reads from a folder. Not told what to do with code in it, it would ask the standard input."""
    with refused(folder):
        return kind.from_pretrained(folder, trust_remote_code=False, **settings)


class refused:
    """Inside, one sentence in place of what transformers raises at a harmed folder, or of its advice to run the code in one.

    tokenizers has no class of its own for what it raises, and raises a bare Exception.
    """

    def __init__(self, folder: Path):
        self.folder = folder

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind, error, _) -> None:
        names = {each.__name__ for each in getattr(kind, "__mro__", ())}
        if kind is Exception or "StrictDataclassError" in names or (kind and issubclass(kind, HARMED)):
            told = " ".join(str(error).split())[:200]
            raise ValueError(f"{self.folder} cannot be read, and code of its own is never run: {told}") from None


def check_layers(folder: Path, config: dict, held: dict[str, int]) -> None:
    """A configuration may say any number of layers, and each takes time and memory before it is missed in the weights."""
    for part in [config, *(value for value in config.values() if isinstance(value, dict))]:
        for key in LAYERS:
            if type(part.get(key)) is int and part[key] > len(held):
                raise ValueError(
                    f"{folder} has {key} {part[key]}, but its weights are {len(held)} tensors: copy it anew"
                )


def held(paths: Iterable[Path]) -> dict[str, int]:
    """Tensors in files of safetensors -> how many numbers each has; nothing but their heads is read."""
    from safetensors import SafetensorError, safe_open

    found = {}
    for path in paths:
        try:
            with safe_open(path, "pt") as stream:
                found |= {name: math.prod(stream.get_slice(name).get_shape()) for name in stream.keys()}
        except SafetensorError as error:
            raise SafetensorError(f"{path} is damaged: {error}") from None
    return found


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without transformers' report of what the folder lacks: here that is an error, or BERT's pooler, which nothing reads."""
    from transformers.utils import logging

    before = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(before)


def weights(kind, folder: Path, dtype: torch.dtype | None = None) -> tuple:
    """The model, and the names of its weights that the folder lacks; dtype None keeps the one that they were saved in."""
    from safetensors import SafetensorError
    from transformers.utils import logging

    logging.disable_progress_bar()
    if not any(Path(folder).glob("*.safetensors")):
        raise ValueError(f"{folder} holds no *.safetensors: save the weights so (pickle files are not loaded)")
    try:
        if found := held(Path(folder).glob("model*.safetensors")):  # none: transformers says so
            check_layers(folder, _config(folder), found)
        with _quiet():
            model, found = read(kind, folder, use_safetensors=True, dtype=dtype or "auto", output_loading_info=True)
    except (RuntimeError, OSError, SafetensorError, AssertionError) as error:  # no fit (torch asserts some), or damaged
        told = " ".join(str(error).split())[:200]
        raise ValueError(f"the weights in {folder} do not fit its config.json: {told}") from None
    return model, sorted(found["missing_keys"])


def _config(folder: Path) -> dict:
    path = Path(folder) / "config.json"
    found = files.read_json(path) if path.exists() else {}  # transformers says what is missing
    return found if isinstance(found, dict) else {}


def load(kind, folder: Path, dtype: torch.dtype | None = None):
    model, lost = weights(kind, folder, dtype)
    if lost:
        raise ValueError(
            f"{folder} lacks {len(lost)} weights that its config.json asks for, as {lost[0]}: copy it anew"
        )
    return model
