"""What work is kept, and what each piece of it is: `vikdf state`. What may go: vikdf/unwanted.py.

In: a folder of state (vikdf/state.py says what is in it). Out: a line a piece of work, or all that is known of one.

    vikdf state
    vikdf state --explain state/finetune/0123456789abcdef
"""

import argparse
import contextlib
import functools
import re
import time
from dataclasses import dataclass
from pathlib import Path

from vikdf import files, state, tracking

MORE = """
A line a piece of work: whether it is finished, half done or being worked on, its size, when it was last asked for, what it is,
and its folder. What is finished is not done again while its inputs and code are the same; what is half done goes on when its
step is run again. A folder that is deleted is done anew, but answers of an endpoint cost what they cost, once more.

--clean names what nobody will ask for: work that newer, finished work of the same name stands for; finished work that other code
made, which would be done again; features of an encoder that is no more; folders that killed writers left. With --yes it goes.
Never what is being worked on, half done work, answers, downloads, or what MLflow does not have yet.

examples
  vikdf state                                                all work in state/
  vikdf state /disk/state                                    another folder
  vikdf state --explain state/finetune/0123456789abcdef      its params, inputs, code, how far it is, who works on it
  vikdf state --go-on state/pretrain/0123456789abcdef        half done work goes on, though its code was changed since
  vikdf state --clean                                        what may go, and how large it is; nothing is deleted
  vikdf state --clean --yes                                  it goes
"""
KEY = re.compile("[0-9a-f]{16}")
FINISHED, HALF, HELD = "finished", "half done", "being worked on"
BOUGHT = ("answers", "raw")  # stages whose work came from elsewhere: nobody can say that it is not wanted


@dataclass(frozen=True)
class Kept:
    """A piece of work."""

    folder: Path
    work: dict  # what began it; empty of features, answers and downloads
    names: tuple[str, ...]
    status: str
    size: int
    asked: float

    @property
    def stage(self) -> str:
        return self.folder.parent.name


def pieces(root: Path) -> list[Kept]:
    """All work below a folder, by stage, the last asked first."""
    found = [kept(path) for path in root.glob("*/*/") if KEY.fullmatch(path.name)]
    return sorted(found, key=lambda one: (one.stage, -one.asked, one.folder))


def kept(folder: Path) -> Kept:
    lock = folder / "lock"
    status = HELD if files.holder(lock) else FINISHED if _finished(folder) else HALF
    asked = (lock if lock.exists() else folder).stat().st_mtime
    work = state.begun(folder)
    return Kept(folder, work, _names(folder, work), status, size(folder), asked)


def _finished(folder: Path) -> bool:
    if folder.parent.name in BOUGHT:
        return not (folder / "part").exists()
    return (folder / "product.json").exists()


def size(path: Path) -> int:
    return sum(file.stat().st_size for file in path.rglob("*") if file.is_file() and not file.is_symlink())


def _names(folder: Path, work: dict) -> tuple[str, ...]:
    """What a person calls it: the names of its runs, without the stage; of what has no run, the names of what it was made of."""
    stage = folder.parent.name
    runs = tracking.asked(folder) or [line["name"] for line in tracking.read(folder)[:1] if "name" in line]
    if runs:
        return tuple(name.removeprefix(f"{stage}-") for name in runs)
    paths = work.get("paths", {}).values()
    made = told(folder / "about.json") | told(folder / "product.json")
    counts = [f"{made[name]} {name}" for name in ("pictures", "captions") if name in made]
    parts_of = [Path(path).name.split(".")[0] for path in paths]
    said = [", ".join(parts_of or counts), made.get("model"), made.get("url")]
    return tuple(str(name) for name in said if name)[:1]


def told(path: Path) -> dict:
    """A file that only tells of the work: one that is harmed tells nothing."""
    with contextlib.suppress(FileNotFoundError, ValueError):
        said = files.read_json(path)
        return said if isinstance(said, dict) else {}
    return {}


def listed(root: Path) -> str:
    found = pieces(root)
    if not found:
        return f"no work is kept in {root}"
    rows = [(each.status, mb(each.size), ago(each.asked), each.stage, " ".join(each.names)) for each in found]
    wide = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        f"{status:{wide[0]}}  {large:>{wide[1]}}  {age:>{wide[2]}}  {stage:{wide[3]}}  {names:{min(wide[4], 40)}}  {each.folder}"
        for (status, large, age, stage, names), each in zip(rows, found, strict=True)
    ]
    total = f"{len(found)} pieces of work, {mb(sum(each.size for each in found))}"
    return "\n".join([*lines, f"{total}; `vikdf state --clean` says what of it may go"])


def mb(size: int) -> str:
    return f"{size / 1e6:,.1f} MB"


def ago(moment: float) -> str:
    seconds = max(0.0, time.time() - moment)
    for unit, length in (("day", 86400), ("hour", 3600), ("minute", 60)):
        if count := int(seconds // length):
            return f"{count} {unit}{'s' * (count > 1)} ago"
    return "just now"


def explain(folder: Path) -> str:
    """All that is known of one piece of work, and what the next run does with it."""
    if not folder.is_dir() or not KEY.fullmatch(folder.resolve().name):
        raise ValueError(f"{folder} is no work: expected a folder that `vikdf state` lists")
    one, who = kept(folder), files.holder(folder / "lock")
    lines = [
        f"{folder}: {one.stage} {' '.join(one.names)}, {one.status}, {mb(one.size)}, last asked for {ago(one.asked)}"
    ]
    lines += [f"is held by {who}"] if who else []
    inputs = {name: _now(one, name) for name in one.work.get("inputs", {})}
    lines += [f"input {name}: {one.work.get('paths', {}).get(name, '?')} {now}" for name, now in inputs.items()]
    same = same_code(one)
    lines += [f"code: {'the same' if same else 'has changed since'}"] if one.work else []
    lines += [f"checkpoint: {path}" for path in state.standing(folder / "checkpoints")]
    lines += _journal(folder)
    about = one.work.get("params") or told(folder / "encoder.json") or told(folder / "about.json")
    lines += [f"  {name}: {value}" for name, value in tracking.flat(about).items()]
    return "\n".join([*lines, f"the next run: {_next(one, same, inputs)}"] if one.work else lines)


def _now(one: Kept, name: str) -> str:
    """What became of an input. One that was moved into the work's own folder is looked for there."""
    path, digest = Path(one.work.get("paths", {}).get(name, "")), one.work["inputs"][name]
    if path.name and path.exists():
        return "is the same" if state.digest_of(path) == digest else "has changed"
    own = [file for file in one.folder.iterdir() if file.is_file() and files.sha256(file) == digest]
    return f"is the same, and lies at {own[0]}" if own else "is not there"


def _journal(folder: Path) -> list[str]:
    lines = tracking.read(folder)
    if not lines:
        return []
    last = max((line["step"] for line in lines if "step" in line), default=None)
    end = next((line["end"] for line in lines if "end" in line), "no end: it is running, or was killed")
    return [f"journal: last step {'none' if last is None else last}, {end}"]


def _next(one: Kept, same: bool, inputs: dict[str, str]) -> str:
    changed = [name for name, now in inputs.items() if not now.startswith("is the same")]
    if changed:
        return f"is other work, since {', '.join(changed)} changed; this one waits for them to be as they were"
    if one.status == HELD:
        return "is refused while a process works on it"
    if one.status == FINISHED:
        return "takes the product as it is" if same else "does it again, since the code has changed"
    standing = (one.folder / "checkpoints").exists()
    if same or not standing:
        return "goes on" if standing else "begins at the first step"
    return (
        f"is refused, since the code has changed, until you say `vikdf state --go-on {one.folder}` or delete the folder"
    )


@functools.cache
def code(modules: tuple[str, ...]) -> str:
    try:
        return state.code_digest([*modules])
    except ValueError:  # a module that is no more
        return ""


def same_code(one: Kept) -> bool:
    return code(tuple(one.work.get("modules", ()))) == one.work.get("code")


def go_on(folder: Path) -> str:
    """Unfinished work that other code began may go on with the code as it is now."""
    work = state.begun(folder) if KEY.fullmatch(folder.resolve().name) else {}
    if not work:
        raise ValueError(f"{folder} holds no work: expected a folder that `vikdf state` lists")
    if (folder / "product.json").exists():
        raise ValueError(f"{folder} is finished: there is nothing to go on with")
    with files.alone(folder / "lock", str(folder)):
        state.begin(folder, work | {"code": state.code_digest(work["modules"])})
    return f"{folder} goes on with the code as it is now: repeat the command that was refused"


def add_flags(one: argparse.ArgumentParser) -> None:
    some = one.add_mutually_exclusive_group()
    some.add_argument("--explain", type=Path, metavar="WORK", help="all that is known of one piece of work")
    some.add_argument("--go-on", type=Path, metavar="WORK", help="half done work goes on with the code as it is now")
    some.add_argument("--clean", action="store_true", help="what nobody will ask for; with --yes it goes")
    one.add_argument("--yes", action="store_true", help="with --clean: delete it")
