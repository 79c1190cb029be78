"""Reads text-only dialogues and puts them in one form.

In: a file a split, in a form of vikdf/corpora/talks.py: Reddit Conversation, Image-Chat as ParlAI publishes it, any table
with turns, the world's probe. Out: <output>/<task>.parquet (DIALOGUES, all splits) an entry, pictures.parquet
(PICTURES: what the dialogues of train are about, where an entry names `pictures`), and manifest.json last: rows read, kept
and dropped by reason, turns, what cleaning changed, dialogues that stand twice or in two splits, what became of pictures.
Run: python -m vikdf.dialogues --seed 1 --output data/dialogues \
         --corpora '{"reddit": {"form": "reddit", "context_turns": [2, 3], "train": "train.json"}}'

`position` is a row's place in a seeded order of its split, so that an eighth of the data lies inside the
quarter (vikdf/fractions.py).
What stays in memory is the kept text itself and some 60 bytes a dialogue: rows go into arrow's columns as they are read,
pictures straight into their table.
"""

import contextlib
import hashlib
import json
import shlex
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
from tqdm import tqdm

from vikdf import files, flags, schemas
from vikdf.corpora import archives, talks
from vikdf.corpora.album import Album
from vikdf.corpora.talks import SPLITS, Bad, Talk

READ_FIRST = ("test", "valid", "train")  # so that a dialogue of two splits is known when train is read
DRAWN = pa.schema([column for column in schemas.DIALOGUES if column.name != "position"])
BATCH, GROUP = 10_000, 100_000  # rows as Python objects at a time; rows of one group in a table


class Split:
    """The rows of one split as they are read, and what is counted of them."""

    def __init__(self, task: str, split: str, seed: int, others: dict[str, set[int]], drop_repeats: bool, album=None):
        self.task, self.split, self.seed, self.others, self.drop_repeats = task, split, seed, others, drop_repeats
        self.album: Album | None = album
        self.read, self.waiting, self.tables, self.lots = 0, [], [], bytearray()
        self.dropped, self.turns, self.changed, self.doubles = Counter(), Counter(), Counter(), Counter()
        self.styles, self.seen = Counter(), set()

    def add(self, found: Talk | Bad) -> None:
        number, self.read = self.read, self.read + 1
        reason = str(found) if isinstance(found, Bad) else self._double(found)
        if reason:
            self.dropped[reason] += 1
            return
        self.turns[len(found.context)] += 1
        self.styles.update(found.styles)
        row = {"id": f"{self.task}-{self.split}-{number:07d}", "task": self.task, "split": self.split}
        row |= {"context": found.context, "response": found.response, "probe": found.probe}
        self.waiting.append(row | {"picture": self.album.keep(found.picture) if self.album else ""})
        if len(self.waiting) == BATCH:
            self.flush()

    def _double(self, talk: Talk) -> str:
        """Notes whether the same turns were seen before; gives the reason why the rule `repeats` drops them, or nothing."""
        key = _number([*talk.context, talk.response])
        names = [f"also_in_{split}" for split, keys in self.others.items() if key in keys]
        names += ["repeated"] if key in self.seen else []
        self.doubles.update(names)
        self.seen.add(key)
        return names[0] if names and self.drop_repeats else ""

    def flush(self) -> None:
        self.tables.append(pa.Table.from_pylist(self.waiting, schema=DRAWN))
        self.lots += b"".join(_lot(self.seed, row["id"]) for row in self.waiting)
        self.waiting = []

    def table(self) -> pa.Table:
        """The rows in the file's order, each with its place in the seeded order."""
        self.flush()
        column = pa.array(_places(self.lots), pa.int64())
        return pa.concat_tables(self.tables).append_column("position", column).select(schemas.DIALOGUES.names)

    def counts(self) -> dict:
        said = {"read": self.read, "kept": self.turns.total(), "dropped": dict(self.dropped)}
        said |= {"context_turns": {str(turns): count for turns, count in sorted(self.turns.items())}}
        said |= {"turns_cleaned": dict(self.changed), "doubles": dict(self.doubles)}
        return said | ({"styles_left_out": len(self.styles)} if self.styles else {})


def _number(turns: list[str]) -> int:
    """What tells dialogues apart, in 8 bytes: of a million, two differ in it with a chance of 1 in 30 million."""
    return int.from_bytes(hashlib.blake2b(json.dumps(turns).encode(), digest_size=8).digest())


def _lot(seed: int, identity: str) -> bytes:
    """A row's lot: it depends on nothing but the seed and the row, not on a library's generator."""
    return hashlib.sha256(f"{seed} {identity}".encode()).digest()


def _places(lots: bytes) -> np.ndarray:
    """Each row's place in the order of the lots, which have 32 bytes each."""
    words = np.frombuffer(lots, dtype=">u8").reshape(-1, 4)
    places = np.empty(len(words), dtype=np.int64)
    places[np.lexsort(words.T[::-1])] = np.arange(len(words))
    return places


def read_split(
    task: str,
    split: str,
    entry: dict,
    *,
    seed: int,
    steps: list[str] | None = None,
    longest: int = talks.LONGEST,
    drop_repeats: bool = False,
    others: dict[str, set[int]] | None = None,
    album: Album | None = None,
) -> tuple[pa.Table, Split]:
    """A split's rows with their seeded positions, and what was counted; `others`: what stands in splits read before."""
    one = Split(task, split, seed, others or {}, drop_repeats, album)
    asked = entry if album else entry | {"pictures": None}  # a split that sees no picture need not name any
    found = talks.rows(Path(entry[split]), asked, steps=steps or [], longest=longest, changed=one.changed)
    for _, talk in tqdm(found, desc=f"{task} {split}", unit=" dialogue", mininterval=1, file=sys.stderr):
        one.add(talk)
    if not one.turns:
        raise ValueError(
            f"{entry[split]} has no usable row for the form `{entry['form']}`: {_said(one.dropped)}. Look at its rows with "
            f"`{_look(entry, entry[split])}`; context_turns, if given, must name their turns"
        )
    return one.table(), one


def _look(entry: dict, path: str) -> str:
    """The command that looks at the file as this entry reads it."""
    words = ["vikdf", "validate", "--form", entry["form"]]
    for name in ("columns", "separator", "turns"):
        if name in entry:
            value = entry[name] if isinstance(entry[name], list) else [entry[name]]
            words += [f"--{name}", ",".join(map(str, value))]
    return shlex.join([*words, str(path)])


def _said(counts: Counter) -> str:
    return ", ".join(f"{name} {count}" for name, count in sorted(counts.items())) or "none"


def dialogues(
    *,
    seed: int,
    corpora: dict,
    output: Path,
    clean: list[str] = ("strip",),
    max_characters: int = talks.LONGEST,
    repeats: str = "keep",
    max_bytes: int = 20_000_000,
    max_pixels: int = 50_000_000,
) -> None:
    """Reads the dialogue corpora and writes one table for each, and one of the pictures that they are about.

    seed: of the order that the fractions are cut from
    corpora: {task: {form: reddit | image_chat | turns | probe, train: file, valid: file, test: file, ...}}; of image_chat \
also pictures: a folder, zip or tar
    output: folder of the tables
    clean: steps on each turn, in this order: lower, strip, printable, spaces; an entry's own `clean` stands in their place
    max_characters: longer turns are dropped and counted
    repeats: keep | drop, where drop leaves out what stands twice in a split, and of train and valid what the test holds
    max_bytes: a larger picture is refused
    max_pixels: likewise, before it is decoded
    """
    for task, entry in corpora.items():
        talks.check(task, entry, entry.get("clean", clean))
    if repeats not in ("keep", "drop"):
        raise ValueError(f"`repeats` is {repeats!r}, expected keep or drop")
    (output / "manifest.json").unlink(missing_ok=True)  # its existence means complete
    counts, most = {}, {"max_bytes": max_bytes, "max_pixels": max_pixels}
    with schemas.writer(output / "pictures.parquet", schemas.PICTURES) as add:
        add([])  # a table, also where no corpus has pictures
        for task, entry in corpora.items():
            settings = {"seed": seed, "steps": list(entry.get("clean", clean)), "longest": max_characters}
            settings["drop_repeats"] = repeats == "drop"
            with _album(task, entry, add, most) as album:
                made = _read(task, entry, settings, album)
            _write(pa.concat_tables(table for table, _ in made), output / f"{task}.parquet")
            counts[task] = {"splits": {one.split: one.counts() for _, one in made}}
            counts[task]["sha256"] = files.sha256(output / f"{task}.parquet")
            if album:
                counts[task]["pictures"] = dict(sorted(album.counts.items()))
    pictures = files.named([output / "pictures.parquet"])
    files.write_json(output / "manifest.json", {"tasks": counts, "seed": seed} | pictures)


def _read(task: str, entry: dict, settings: dict, album: Album | None) -> list[tuple[pa.Table, Split]]:
    """The splits of a task, in their usual order."""
    made, others = {}, {}
    for split in (split for split in READ_FIRST if split in entry):
        seen = {"others": dict(others), "album": album if split == "train" else None}
        made[split] = read_split(task, split, entry, **settings, **seen)
        others[split] = made[split][1].seen
    for split in (split for split in SPLITS if split in made):
        print(_line(made[split][1]))
    return [made[split] for split in SPLITS if split in made]


@contextlib.contextmanager
def _album(task: str, entry: dict, add: Callable, most: dict) -> Iterator[Album | None]:
    """Where the pictures of train's dialogues are taken from; nothing where the entry names none."""
    if not entry.get("pictures") or "train" not in entry:
        yield None
        return
    with archives.opened(Path(entry["pictures"])) as archive:
        album = Album(task, archive, add, **most)
        yield album
        album.flush()
    said = f"{task} pictures: {_said(album.counts)}"
    if not album.counts["ok"]:
        raise ValueError(
            f"{said}: {entry['pictures']} holds none that {entry['train']} names. Name the folder, zip or tar that holds them "
            f"as <{talks.PICTURE}>.jpg in dialogues.corpora.{task}.pictures, or write null there"
        )
    print(said)


def _line(one: Split) -> str:
    line = f"{one.task} {one.split}: {one.read} read, {one.turns.total()} kept; dropped: {_said(one.dropped)}"
    return line + (f"; doubles: {_said(one.doubles)}" if one.doubles else "")


def _write(table: pa.Table, path: Path) -> None:
    """Writes in groups of rows that are each one piece, so that the bytes do not depend on how they were read."""
    with schemas.writer(path, schemas.DIALOGUES) as add:
        for start in range(0, table.num_rows, GROUP):
            add(table.slice(start, GROUP).combine_chunks())


if __name__ == "__main__":
    flags.main(dialogues)
