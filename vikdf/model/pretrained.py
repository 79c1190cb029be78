"""A transformers part from its folder, whole: what transformers would make up, ask for or run is an error here.

In: an Auto class (or a model's own), a folder. Out: the model in the precision that was asked for, or that it was saved in;
or the configuration, tokenizer or processor. Code that lies in a folder is never run, and pickle files are not read.
    model = pretrained.load(AutoModelForCausalLM, Path("data/backbones/llm"), torch.bfloat16)
    tokenizer = pretrained.read(AutoTokenizer, Path("data/backbones/llm"))
"""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import torch


def read(kind, folder: Path, **settings):
    """Whatever transformers reads from a folder. Not told what to do with code in it, it would ask the standard input."""
    with refused(folder):
        return kind.from_pretrained(folder, trust_remote_code=False, **settings)


@contextlib.contextmanager
def refused(folder: Path) -> Iterator[None]:
    """One sentence in place of transformers' own, which advises to run the code."""
    try:
        yield
    except ValueError as error:
        told = " ".join(str(error).split())[:200]
        raise ValueError(f"{folder} cannot be read, and code of its own is never run: {told}") from None


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
        with _quiet():
            model, found = read(kind, folder, use_safetensors=True, dtype=dtype or "auto", output_loading_info=True)
    except (RuntimeError, OSError, SafetensorError, AssertionError) as error:  # no fit (torch asserts some), or damaged
        told = " ".join(str(error).split())[:200]
        raise ValueError(f"the weights in {folder} do not fit its config.json: {told}") from None
    return model, sorted(found["missing_keys"])


def load(kind, folder: Path, dtype: torch.dtype | None = None):
    model, lost = weights(kind, folder, dtype)
    if lost:
        raise ValueError(
            f"{folder} lacks {len(lost)} weights that its config.json asks for, as {lost[0]}: copy it anew"
        )
    return model
