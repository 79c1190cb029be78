"""A CLIP by its open_clip name, written as an open_clip folder (open_clip_config.json + open_clip_model.safetensors).

In: {name: ViT-L-14-quickgelu, pretrained: openai, revision: COMMIT}: a tag of open_clip's list, fetched from its hub; or
{name: ViT-L-14, path: weights.safetensors, preprocess: {mean, std, interpolation, resize_mode}}: a file of weights, which
does not say itself how pictures are prepared. Out: the folder, in which activation and preparation are written down.
"""

import difflib
import os
from pathlib import Path

from vikdf import files

PREPARED = ("mean", "std", "interpolation", "resize_mode")
CURE = (
    "; or copy their safetensors file here by hand and use {form: open_clip, name: NAME, path: FILE, preprocess: {...}}"
)


def make(
    *,
    name: str,
    output: Path,
    pretrained: str | None = None,
    revision: str | None = None,
    path: Path | None = None,
    preprocess: dict | None = None,
) -> dict:
    """The folder of a named architecture with the weights of a tag or of a file."""
    os.environ["HF_HUB_OFFLINE"] = "0"
    import open_clip

    config = open_clip.get_model_config(name)
    if config is None:
        near = difflib.get_close_matches(name, open_clip.list_models(), n=3, cutoff=0)
        raise ValueError(f"open_clip knows no model {name!r}: expected a name as {', '.join(near)}")
    if (pretrained is None) == (path is None):
        raise ValueError(
            f"{name}: expected `pretrained` (a tag, as `openai`) or `path` (a safetensors file), and not both"
        )
    if path is None:
        prepared = tagged(name, pretrained, config)
        weights = fetch(name, pretrained, revision)
    else:
        prepared, weights = given(path, preprocess), path
    write(name, config, prepared, weights, output)
    return {}


def tagged(name: str, tag: str, config: dict) -> dict:
    """How pictures are prepared for the weights of a tag; an error where their activation is not the architecture's."""
    import open_clip

    found = open_clip.get_pretrained_cfg(name, tag)
    if not found:
        tags = ", ".join(open_clip.list_pretrained_tags_by_model(name)) or "none"
        raise ValueError(f"open_clip knows no weights {tag!r} of {name}: expected one of {tags}")
    trained, own = found.get("quick_gelu", False), config.get("quick_gelu", False)
    if trained != own:
        kinds = {True: "QuickGELU", False: "GELU"}
        other = f"{name}-quickgelu" if trained else name.removesuffix("-quickgelu")
        raise ValueError(
            f"the weights {tag!r} of {name} were trained with {kinds[trained]}, but open_clip builds {name} with {kinds[own]}: "
            f"set name to {other}"
        )
    return {key: found[key] for key in PREPARED}


def safe(path: Path) -> Path:
    if path.suffix != ".safetensors":
        raise ValueError(f"{path} is no safetensors file: save the weights as one (pickle files are not loaded)")
    return path


def given(path: Path, preprocess: dict | None) -> dict:
    safe(path)
    if lost := [key for key in PREPARED if key not in (preprocess or {})]:
        raise ValueError(
            f"{path} does not say how pictures are prepared: set `preprocess` with mean, std, interpolation and resize_mode "
            f"to those of its training (found no {' and no '.join(lost)})"
        )
    return preprocess


def fetch(name: str, tag: str, revision: str | None) -> Path:
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled
    from open_clip import pretrained

    hub, _, file = pretrained.get_pretrained_cfg(name, tag).get("hf_hub", "").rpartition("/")
    if hub and not revision:
        raise ValueError(f"{name} of {hub} has no revision: set `revision` to the commit of {hub} that is meant")
    if not hub:  # what lies at a plain address is a pickle file, always
        raise ValueError(
            f"open_clip offers the weights {tag!r} of {name} as a pickle file only, which is not loaded{CURE}"
        )
    try:
        extra = {"filename": file} if file else {}
        found = Path(pretrained.download_pretrained_from_hf(hub, revision=revision, **extra))
    except (HfHubHTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled, FileNotFoundError) as error:
        raise ValueError(
            f"the weights {tag!r} of {name} could not be fetched ({str(error).splitlines()[0]}): check the network{CURE}"
        ) from None
    return safe(found)


def write(name: str, config: dict, prepared: dict, weights: Path, output: Path) -> None:
    """Weights in open_clip's own names, whatever form they came in (OpenAI's, old ones): open_clip converts them."""
    import open_clip
    from open_clip.factory import load_checkpoint
    from safetensors import SafetensorError

    model = open_clip.create_model(name, pretrained_text=False)
    try:
        load_checkpoint(model, str(weights))
    except (RuntimeError, AssertionError) as error:  # open_clip asserts some sizes
        told = " ".join(str(error).split())[:200]
        raise ValueError(f"the weights in {weights} are not those of {name}: {told}") from None
    except SafetensorError as error:
        raise ValueError(f"{weights} is damaged ({error}): copy or fetch it anew") from None
    tensors = {key: value.contiguous() for key, value in model.state_dict().items()}
    files.save_tensors(tensors, output / "open_clip_model.safetensors")
    tokenizer = open_clip.get_tokenizer(name)
    if hasattr(tokenizer, "save_pretrained"):
        tokenizer.save_pretrained(output)
        config["text_cfg"]["hf_tokenizer_name"] = "."  # from now on the one that lies in the folder
    prepared = {key: list(value) if isinstance(value, tuple) else value for key, value in prepared.items()}
    files.write_json(output / "open_clip_config.json", {"model_cfg": config, "preprocess_cfg": prepared})
