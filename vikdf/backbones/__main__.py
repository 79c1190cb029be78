"""Makes one backbone of `backbones.models`: trained here, copied from a path, or fetched from a hub at a pinned revision.

In: an entry {form, ...}: the form is a trainer below, or `path`, `hub` or `open_clip`. Out: a folder in its ecosystem's own form
(open_clip or Hugging Face), manifest.json last.
    python -m vikdf.backbones --name llm --entry '{"form": "path", "path": "/models/llama"}' --seed 1 --output data/backbones/llm
"""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

from vikdf import files, flags, flops, state
from vikdf.backbones import bart, bert, captioner, clip, detector, language, openclip, shapes, unilm, vectors, vit

TABLES = ("*.npy", "*.txt", "*.txt.gz", "*.bin")
FOUND = ("*.json", "*.safetensors", "*.txt", "*.model", "*.jinja")  # weights as safetensors only, and no code
TWICE = "consolidated*"  # Mistral's folders hold the weights a second time, under names of their own


def copy(*, path: Path, output: Path) -> dict:
    """A folder that is there already: only configurations, tokenizers and safetensors are taken."""
    if not path.is_dir():
        raise ValueError(f"{path} is no folder: set `path` under backbones.models to the folder of the checkpoint")
    _take(path, output, FOUND)
    if not any(output.glob("*.safetensors")):
        raise ValueError(
            f"{path} holds no *.safetensors: save the checkpoint with safetensors (pickle files are not loaded)"
        )
    return {}


def word_vectors(*, path: Path, output: Path) -> dict:
    """A folder with one table of word vectors: GloVe text, word2vec binary, or vectors.npy with words.txt."""
    if not path.is_dir() or not _take(path, output, TABLES):
        raise ValueError(f"{path} holds no table of word vectors: expected a folder with one of {', '.join(TABLES)}")
    return {}


def _take(path: Path, output: Path, patterns: tuple[str, ...]) -> int:
    found = [file for pattern in patterns for file in path.glob(pattern) if not file.match(TWICE)]
    for file in found:
        shutil.copyfile(file, output / file.name)
    return len(found)


def fetch(*, hub: str, revision: str, output: Path) -> dict:
    """A checkpoint of the Hugging Face hub at its pinned revision; gated ones need `hf auth login` first."""
    os.environ["HF_HUB_OFFLINE"] = "0"
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        found = snapshot_download(hub, revision=revision, allow_patterns=list(FOUND), ignore_patterns=TWICE)
    except (HfHubHTTPError, LocalEntryNotFoundError) as error:
        raise ValueError(
            f"{hub} at {revision} could not be fetched ({str(error).splitlines()[0]}): check the network and, for a gated "
            "model, `hf auth login`; or copy the folder here by hand and use {form: path, path: FOLDER}"
        ) from None
    return copy(path=Path(found), output=output)


FORMS: dict[str, tuple[Callable, str]] = {  # form -> function, and the module whose code makes it
    "clip": (clip.train, "backbones.clip"),
    "captioner": (captioner.train, "backbones.captioner"),
    "bert": (bert.train, "backbones.bert"),
    "bart": (bart.train, "backbones.bart"),
    "unilm": (unilm.train, "backbones.unilm"),
    "vit": (vit.train, "backbones.vit"),
    "detector": (detector.train, "backbones.detector"),
    "language": (language.train, "backbones.language"),
    "vectors": (vectors.train, "backbones.vectors"),
    "word_vectors": (word_vectors, "files"),
    "path": (copy, "files"),
    "hub": (fetch, "files"),
    "open_clip": (openclip.make, "backbones.openclip"),
}
FOUND_FORMS = ("path", "hub", "open_clip", "word_vectors")  # nothing is trained
SOURCE = ("hub", "name", "pretrained", "revision")  # keys of an entry that checkpoints repeat: where a part came from
PATHS = ("pairs", "boxes", "texts", "lexicon", "path")  # keys of an entry that name inputs


def make(*, name: str, entry: dict, seed: int, output: Path, state_root: Path) -> None:
    """Makes one backbone, or copies it out of state/ when the same one was made before.

    name: its name under backbones.models
    entry: its entry: {form: clip|captioner|bert|bart|unilm|vit|detector|language|vectors|word_vectors|path|hub|open_clip, ...}
    seed: seed of what is trained here
    output: the folder to make
    state_root: where finished work is kept
    """
    settings = dict(entry)
    form = settings.pop("form", None)
    if form not in FORMS:
        raise ValueError(f"backbones.models.{name}: form is {form!r}, expected one of {', '.join(FORMS)}")
    function, module = FORMS[form]
    architecture = settings.pop("architecture", {})  # what `vikdf plan` counts with: it must be this model's
    inputs = {key: Path(settings.pop(key).removeprefix("local-dir:")) for key in PATHS if key in settings}
    if lost := [str(path) for path in inputs.values() if not path.exists()]:
        raise ValueError(f"{lost[0]} is missing: backbones.models.{name} of params.yaml names it")
    trained = {} if form in FOUND_FORMS else {"seed": seed}
    with state.claim(state_root, "backbones", [module], entry | trained | {"name": name}, inputs) as work:
        if not work.finished:
            with (
                work.tracked(f"backbones-{name}-all-s{seed}", entry, {"seed": seed}) as journal,
                flops.noting(journal),
                work.finish() as aside,
            ):
                folder = aside / name
                folder.mkdir()
                with files.saving(folder):
                    scores = function(**inputs, **settings, **trained, output=folder)
                shapes.check(name, architecture, folder)
                made = {"form": form, "scores": scores, "sha256": files.sha256(folder)}
                made |= {key: entry[key] for key in SOURCE if key in entry}
                files.write_json(folder / "manifest.json", made)
                journal.log(0, scores)
        work.export(output, name)


if __name__ == "__main__":
    flags.main(make)
