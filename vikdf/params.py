"""params.yaml: read, checked against workflow/schemas/params.schema.yaml, and turned into a stage's flags.

In: a params file. Out: its values as plain dicts, or one sentence that names the key and the cure; check_files says the
same of the files that it names.
Used by the Snakefile, `vikdf validate` and the tests: python -m vikdf.cli validate params.yaml
"""

import difflib
import hashlib
import json
import shlex
from collections.abc import Iterator
from pathlib import Path

import yaml
from jsonschema import Draft202012Validator

from vikdf import plain_yaml
from vikdf.systems import BACKBONES

SCHEMA = Path(__file__).resolve().parent.parent / "workflow/schemas/params.schema.yaml"

MODELS = ["backbones.models"]
SYSTEMS = ["finetune.systems", "baselines"]
ABLATED = ["tables.table3.*", "tables.figure7.*"]
NAMES = [  # (a value that names an entry, the sections that may hold the entry, names that are always there)
    *[(f"{where}.{part}", MODELS, []) for where in ("pretrain", "ablations.*") for part in ("clip", "bert", "llm")],
    *[(f"baselines.*.{key}", MODELS, []) for key in BACKBONES],
    ("evaluate.encoder", MODELS, []),
    ("finetune.systems.*.pretrain", ["ablations"], ["vikdf"]),
    *[(f"evidence.contrasts.*.{side}", SYSTEMS, []) for side in ("a", "b")],
    *[(where, ["ablations"], ["vikdf"]) for where in ABLATED],
    ("tables.table4.*", MODELS, []),
    ("tables.core.*", SYSTEMS, []),
    *[(f"tables.{figure}.task", ["dialogues.corpora"], []) for figure in ("figure5", "figure6")],
]
FILES = [  # the values that name files which the stages read
    *[f"sources.corpora.*.{key}" for key in ("captions", "images", "list", "shards")],
    "filter.blocklists.*",
    *[f"backbones.models.*.{key}" for key in ("pairs", "boxes", "texts", "lexicon")],
    "caption.forbid_joint.lexicon",
    *[f"dialogues.corpora.*.{key}" for key in ("train", "valid", "test", "pictures")],
]
WORLD = "data/sources/world/"
MADE = ("data/sources/", "data/filter/")  # a backbone may be trained on what these stages make
NULLABLE = ("filter.", "caption.")
SMALL = 1 << 26  # bytes of a file whose digest is asked before the first job: that takes a tenth of a second


def load(path: Path, schema: Path = SCHEMA) -> dict:
    """The params of a file, checked; a ValueError says in one sentence what is wrong and what would be right."""
    path = Path(path)
    if not path.exists():
        raise ValueError(f"{path} is missing: copy one from presets/, for example `cp presets/demo.yaml {path}`")
    if path.is_dir():
        raise ValueError(f"{path} is a folder: expected a params file, such as presets/demo.yaml")
    values = plain_yaml.read(path)
    check(values, yaml.safe_load(schema.read_text()), path)
    check_forms(values, path)
    check_world(values, path)
    check_names(values, path)
    check_ablated(values, path)
    check_families(values, path)
    check_apart(values, path)
    check_spread(values, path)
    return values


def check(values, schema: dict, path: Path) -> None:
    """Raises a ValueError for the first wrong key, unknown keys first: a typo also leaves a key missing."""
    order = ["additionalProperties", "required"]
    errors = sorted(
        Draft202012Validator(schema).iter_errors(values),
        key=lambda error: (order.index(error.validator) if error.validator in order else 2, str(error.json_path)),
    )
    if errors:
        more = f" ({len(errors) - 1} more wrong after this one)" if len(errors) > 1 else ""
        raise ValueError(f"{path}: {_sentence(errors[0])}{more}")


def check_forms(values: dict, path: Path) -> None:
    """Raises a ValueError for an entry of a corpus that its stage would refuse, such as an option of another form."""
    from vikdf.corpora import pairs, talks

    try:
        pairs.check_entries(values["sources"]["corpora"])
        for task, entry in values["dialogues"]["corpora"].items():
            talks.check(task, entry, entry.get("clean", values["dialogues"]["clean"]))
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def check_world(values: dict, path: Path) -> None:
    """Raises a ValueError where no world is drawn, but a value names a file of it."""
    if values["sources"]["world"] is not None:
        return
    named = [(dotted, text) for dotted, text in _texts(values) if f"{text}/".startswith(WORLD)]
    if named:
        more = f" ({len(named) - 1} more values name files of it)" if len(named) > 1 else ""
        said = f"`{named[0][0]}` is {named[0][1]}, which is drawn by sources.world, and that is null"
        raise ValueError(f"{path}: {said}: name your own, or start from presets/paper.yaml{more}")


def check_files(values: dict) -> None:
    """Raises a ValueError for files that are neither there nor made by the rules `world` and `raw`, and for cut ones, all in one.

    Paths are seen from the folder in which the run stands.
    """
    world = (WORLD,) if values["sources"]["world"] else ()
    wrong = {}
    for dotted, path in (found for where in FILES for found in _found(values, where).items()):
        made = world + (MADE if dotted.startswith("backbones.") else ())
        if path and not path.startswith(made):
            raw = values["sources"]["raw"].get(path, {})
            look = _cut if Path(path).exists() else _lost
            wrong.setdefault(path, look(path, dotted, raw))
    if said := [sentence for sentence in wrong.values() if sentence]:
        raise ValueError("\n".join(said))


def _lost(path: str, dotted: str, raw: dict) -> str:
    """What to say of a file that is not there; nothing where the rule `raw` fetches it."""
    if "url" in raw:
        return ""
    how = f"by hand: {raw['by_hand']}, and put it there" if raw else "it has no entry under `sources.raw`"
    how += (
        "; write null there for none"
        if dotted.startswith(NULLABLE) or dotted.endswith(".pictures")
        else "; data/README.md tells where to get it"
    )
    return f"{path} is missing: `{dotted}` of params.yaml names it; {how}"


def _cut(path: str, dotted: str, raw: dict) -> str:
    """What is wrong with a file that is there: empty, or of another size or digest than its entry of sources.raw says."""
    if not Path(path).is_file():
        return ""
    size = Path(path).stat().st_size
    known = {} if "member" in raw else raw  # size and digest are those of the archive that it was taken from
    cure = f"`{dotted}` of params.yaml names it; put it there anew"
    if raw:
        cure = "delete it, and it is fetched anew" if "url" in raw else f"by hand: {raw['by_hand']}"
    if known.get("bytes") not in (None, size):
        return f"{path} has {size} bytes, but `sources.raw` says {known['bytes']}; {cure}"
    if not size and not dotted.startswith("filter.blocklists."):  # a list may block nothing
        return f"{path} is empty; {cure}"
    if known.get("sha256") and size <= SMALL:
        found = hashlib.sha256(Path(path).read_bytes()).hexdigest()
        if found != known["sha256"]:
            return f"{path} has sha256 {found}, but `sources.raw` says {known['sha256']}; {cure}"
    return ""


def check_names(values: dict, path: Path) -> None:
    """Raises a ValueError for the first value that names an entry which is not there."""
    for place, sections, besides in NAMES:
        known = [name for part in sections for entries in _found(values, part).values() for name in entries] + besides
        for dotted, name in _found(values, place).items():
            if name is not None and name not in known:  # null names none
                close = difflib.get_close_matches(str(name), known, n=1)
                advice = f"did you mean `{close[0]}`?" if close else f"known there: {', '.join(known)}"
                where = " or ".join(f"`{part}`" for part in sections)
                raise ValueError(f"{path}: `{dotted}` is {name}, but {where} has no entry of that name; {advice}")


def check_ablated(values: dict, path: Path) -> None:
    """Raises a ValueError for rows of table 3 or figure 7 that cannot be made: each is the system vikdf on another variant."""
    systems = values["finetune"]["systems"] | values["baselines"]
    if "vikdf" not in values["finetune"]["systems"]:
        raise ValueError(
            f"{path}: `finetune.systems` has no entry vikdf, with which table 3 and figure 7 compare; add it"
        )
    for dotted, name in (found for where in ABLATED for found in _found(values, where).items()):
        if name in systems and name != "vikdf":
            said = "is also the name of a system, which is tuned in its own way"
            raise ValueError(f"{path}: `{dotted}` is {name}, which {said}; give the ablation another name")


def check_families(values: dict, path: Path) -> None:
    """Raises a ValueError for rows of table 4 that cannot be made: vikdf and llm_lora on other language models."""
    if values["baselines"].get("llm_lora", {}).get("kind") != "llm_lora":
        said = "`baselines` has no entry llm_lora of that kind, whose row table 4 repeats with each language model"
        raise ValueError(f"{path}: {said}; add it")
    if (alone := values["baselines"]["llm_lora"]["llm"]) != (own := values["pretrain"]["llm"]):
        raise ValueError(f"{path}: `baselines.llm_lora.llm` is {alone}, but `pretrain.llm` is {own}: name the same one")
    for dotted, llm in _found(values, "tables.table4.*").items():
        made = {f"on_{llm}": "ablations", f"vikdf_on_{llm}": "finetune.systems", f"llm_lora_on_{llm}": "baselines"}
        for name, where in made.items():
            if name in section(values, where):
                said = f"makes {name} by itself, but `{where}` has an entry of that name"
                raise ValueError(f"{path}: `{dotted}` {said}; give that entry another name")


def check_apart(values: dict, path: Path) -> None:
    """Raises a ValueError for a baseline whose products would lie where those of another name lie."""
    for name, entry in values["baselines"].items():
        for where in ["finetune.systems", *["ablations"] * ("pretrain" in entry)]:
            if name in section(values, where):
                raise ValueError(f"{path}: `baselines` and `{where}` both have an entry {name}; rename one of them")


def check_spread(values: dict, path: Path) -> None:
    """Raises a ValueError where training would refuse to spread the LLM (vikdf/place.py)."""
    for where in ("pretrain", "finetune"):
        training = values[where]["training"]
        if training["shard_llm"] and training["processes"] == 1:
            said = f"`{where}.training.shard_llm` is true, but `{where}.training.processes` is 1"
            raise ValueError(f"{path}: {said}: set processes to the number of GPUs, or shard_llm to false")
    systems = values["finetune"]["systems"] | values["baselines"]
    tuned = [name for name, entry in systems.items() if entry.get("lora") or entry.get("tuned")]
    if values["finetune"]["training"]["shard_llm"] and tuned:
        raise ValueError(
            f"{path}: `finetune.training.shard_llm` is true, but {tuned[0]} tunes a model of its own or the LLM with LoRA, and "
            "only a frozen LLM can be spread: set shard_llm to false"
        )


def _found(values, pattern: str) -> dict:
    """What a dotted pattern reaches, by its dotted place; a star stands for every key, or every place of a list."""
    reached = {"": values}
    for part in pattern.split("."):
        reached = {
            f"{where}.{key}".strip("."): inner[key]
            for where, inner in reached.items()
            for inner in [dict(enumerate(inner)) if isinstance(inner, list) else inner]
            if isinstance(inner, dict)
            for key in (inner if part == "*" else [part])
            if key in inner
        }
    return reached


def _texts(values, where: str = "") -> Iterator[tuple[str, str]]:
    """Every text among the values with its dotted place."""
    if isinstance(values, str):
        yield where, values
    inner = values.items() if isinstance(values, dict) else enumerate(values) if isinstance(values, list) else ()
    for key, value in inner:
        yield from _texts(value, f"{where}.{key}".strip("."))


def _sentence(error) -> str:
    where = ".".join(map(str, error.absolute_path))
    dotted = f"{where}." if where else ""
    if error.validator == "additionalProperties":
        known = list(error.schema.get("properties", {}))
        unknown = next(key for key in error.instance if key not in known)
        close = difflib.get_close_matches(str(unknown), known, n=1)
        listed = f"known here: {', '.join(known) or 'no key at all'}"
        return f"unknown key `{dotted}{unknown}`; " + (f"did you mean `{dotted}{close[0]}`?" if close else listed)
    if error.validator == "required":
        missing = next(key for key in error.validator_value if key not in error.instance)
        meaning = error.schema.get("properties", {}).get(missing, {}).get("description", "")
        return f"the key `{dotted}{missing}` is missing" + (f" ({meaning})" if meaning else "")
    found = json.dumps(error.instance, default=str)
    found = found if len(found) < 60 else found[:57] + "..."
    meaning = error.schema.get("description", "")
    return f"`{where}` is {found}, but should be {_wanted(error)}" + (f" ({meaning})" if meaning else "")


def _wanted(error) -> str:
    value = error.validator_value
    wanted = {
        "type": lambda: " or ".join(value if isinstance(value, list) else [value]) + _number_hint(error.instance),
        "enum": lambda: "one of " + ", ".join(map(str, value)),
        "const": lambda: str(value),
        "minimum": lambda: f"at least {value}",
        "maximum": lambda: f"at most {value}",
        "exclusiveMinimum": lambda: f"above {value}",
        "exclusiveMaximum": lambda: f"below {value}",
        "minItems": lambda: f"a list of at least {value}",
        "pattern": lambda: f"text like {value}",
    }
    return wanted[error.validator]() if error.validator in wanted else error.message


def _number_hint(found) -> str:
    """YAML reads 1e-4 as text: a number with an exponent needs its point."""
    if not isinstance(found, str):
        return ""
    try:
        number = float(found)
    except ValueError:
        return ""
    return f", written {number:.1e}" if "e" in found.lower() else f", written {number:g} without quotes"


def section(params: dict, name: str) -> dict:
    """The section by name; a dot goes down, as in `sources.world`."""
    for part in name.split("."):
        params = params[part]
    return params


def as_flags(values: dict) -> str:
    """Key and value as a stage's module takes them, quoted for the shell; lists, dicts and null as JSON."""
    return " ".join(f"--{key.replace('_', '-')} {shlex.quote(_text(value))}" for key, value in values.items())


def _text(value) -> str:
    return value if isinstance(value, str) else json.dumps(value)
