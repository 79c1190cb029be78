"""Models behind an OpenAI-compatible endpoint: where they are asked, and which cannot be asked from here.

    entry = settled(entry)                     # OPENAI_BASE_URL and OPENAI_MODEL take the place of its url and model
    baselines, left_out = usable(baselines)    # those that can be asked; of the others, name -> why not

In: entries of `baselines` and the environment. The key (OPENAI_API_KEY) is only looked for here; vikdf/baselines/endpoint.py
reads it when it asks. It stands in no params, log, file or message. Used by workflow/common.smk and vikdf.generate.
"""

import os
from collections.abc import Mapping
from urllib.parse import urlsplit

KIND = "endpoint"
KEY = "OPENAI_API_KEY"
PLACES = {"url": "OPENAI_BASE_URL", "model": "OPENAI_MODEL"}  # the names that the openai package and its tools know


def settled(entry: dict, environment: Mapping[str, str] = os.environ) -> dict:
    """The entry with the address and the model that will be asked: the environment goes before the entry's own."""
    if entry.get("kind") != KIND:
        return entry
    found = {key: environment.get(name) or entry[key] for key, name in PLACES.items()}
    if found["url"]:
        found["url"] = address(found["url"])
    return entry | found


def usable(baselines: dict, environment: Mapping[str, str] = os.environ) -> tuple[dict, dict[str, str]]:
    """The entries that can be run, settled; and of those that cannot be asked, why."""
    made = {name: settled(entry, environment) for name, entry in baselines.items()}
    left_out = {name: why for name, entry in made.items() if (why := lacking(entry, environment))}
    return {name: entry for name, entry in made.items() if name not in left_out}, left_out


def check_contrasts(contrasts: dict, left_out: dict[str, str]) -> None:
    """Raises a ValueError for a contrast of `evidence` with a system that is left out: its other side alone says nothing."""
    for name, pair in contrasts.items():
        for side in ("a", "b"):
            if why := left_out.get(pair[side]):
                raise ValueError(
                    f"`evidence.contrasts.{name}` of params.yaml compares {pair[side]}, which is left out ({why}): set that, or "
                    "take the contrast out"
                )


def lacking(entry: dict, environment: Mapping[str, str] = os.environ) -> str:
    """What an endpoint's settled entry still needs; nothing where it can be asked."""
    if entry.get("kind") != KIND:
        return ""
    lost = [name for key, name in PLACES.items() if not entry[key]] + [KEY] * (not environment.get(KEY))
    return f"not set in the environment: {', '.join(lost)}" if lost else ""


def address(url: str) -> str:
    """The endpoint's address in one spelling. A secret inside it would stand in params and logs: it is refused, unprinted."""
    try:
        parts = urlsplit(url)
        right = parts.scheme in ("http", "https") and parts.hostname and (parts.port or True)
    except ValueError:  # a port that is no number
        right = False
    if not right or parts.username or parts.password or parts.query or parts.fragment:
        raise ValueError(
            f"the endpoint's address ({PLACES['url']}, or `url` of the entry under `baselines`) is not one like "
            f"https://host/v1: expected http or https, a host and a path alone; a key belongs into {KEY}"
        )
    return url.rstrip("/")
