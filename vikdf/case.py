"""Figure 5 of the paper: one test dialogue and what every system answers to it.

In: results/evaluate/examples/*.parquet (EXAMPLES) of one seed. Out: figure5.csv (a row a system), figure5.svg (the same to read).
Run: python -m vikdf.case --answers results/evaluate/examples/*-s1.parquet --output results ... (the rule `figure5`)

The dialogue is chosen by its place in the test set and by no score; a system answers as it was tuned without the task's own
data (zero), or where it has no such row, as its first row by DATA, which is then named.
"""

import textwrap
from pathlib import Path

import pyarrow as pa

from vikdf import flags, schemas, tracking
from vikdf.figures import style
from vikdf.means import TASKS, write_csv

DATA = ["zero", "full", "quarter", "eighth"]  # the row that is shown: the first of these that there is
COLUMNS = ["task", "id", "block", "system", "data", "seed", "context", "reference", "hypothesis"]
WANTED = pa.schema([schemas.EXAMPLES.field(name) for name in COLUMNS if name != "block"])
WIDE, LINES, INCH = 62, 6, 0.135  # characters of a line, lines of an answer (figure5.csv has all of it), inches a line
TITLE = "One dialogue, all systems"


def case(*, answers: list[Path], output: Path, state_root: Path, systems: dict, controls: dict, figure5: dict) -> None:
    """Figure 5: what every system answers to one dialogue, chosen by its place in the test set.

    answers: EXAMPLES tables, one a row of table 1, of one seed
    output: folder of figure5.csv and figure5.svg
    state_root: the folder `state`; the journal that feeds MLflow lies below it
    systems: name -> one line about it, in the order of the rows
    controls: the same for the rows that stand apart
    figure5: {task, place}: the task, and where in its test set the dialogue stands (0: first, 0.5: in the middle)
    """
    found = [row for path in answers if (row := chosen(path, **figure5))]
    if not found:
        raise ValueError(f"no table of answers holds the task {figure5['task']!r}: see `tables.figure5` in params.yaml")
    rows = in_order(shown(found), systems, controls)
    write_csv(output / "figure5.csv", COLUMNS, [row | {"context": "\n".join(row["context"])} for row in rows])
    draw(rows, output / "figure5.svg")
    with tracking.Run("figure5", "figure5", params=figure5, folder=state_root / "figure5") as run:
        run.log(0, {"systems": len(rows)})
        for name in ("figure5.csv", "figure5.svg"):
            run.artifact(output / name)


def at(place: float, count: int) -> int:
    """The row at this share of `count` rows."""
    return min(count - 1, int(place * count))


def chosen(path: Path, task: str, place: float) -> dict | None:
    """The row of the dialogue in one system's table; None where it did not answer the task."""
    rows = [row for part in schemas.batches(path, WANTED) for row in part.to_pylist() if row["task"] == task]
    return rows[at(place, len(rows))] if rows else None


def shown(rows: list[dict]) -> list[dict]:
    """One row a system; all must have answered the same dialogue."""
    first = rows[0]
    for row in rows:
        if any(row[name] != first[name] for name in ("id", "context", "reference")):
            said = f"{row['system']} answered {row['id']} where {first['system']} answered {first['id']}"
            raise ValueError(f"{said}: their test sets differ; generate and evaluate both anew")
    kept = {}
    for row in sorted(rows, key=lambda row: DATA.index(row["data"])):
        kept.setdefault(row["system"], row)
    return [*kept.values()]


def in_order(rows: list[dict], systems: dict, controls: dict) -> list[dict]:
    """As in table 1: systems, those that it does not name, controls."""
    by_name = {row["system"]: row for row in rows}
    rest = sorted(set(by_name) - set(systems) - set(controls))
    blocks = {"systems": [*systems, *rest], "controls": [*controls]}
    return [by_name[name] | {"block": block} for block, names in blocks.items() for name in names if name in by_name]


def draw(rows: list[dict], path: Path) -> None:
    """The turns, the reference, then a system after the other; always the same bytes."""
    first = rows[0]
    speakers = [f"turn {number}" for number in range(1, len(first["context"]) + 1)]
    lines = [("the dialogue", "", True)]
    for name, text in [*zip(speakers, first["context"], strict=True), ("reference", first["reference"])]:
        lines += wrapped(name, text)
    for block, heading in (("systems", "answers"), ("controls", "answers of the controls")):
        here = [row for row in rows if row["block"] == block]
        lines += [("", "", False), (heading, "", True)] if here else []
        for row in here:
            name = row["system"] if row["data"] == "zero" else f"{row['system']} ({row['data']})"
            lines += wrapped(name, row["hypothesis"] or "(says nothing)")
    about = f"{TASKS.get(first['task'], first['task'])}, {first['id']}: {' / '.join(first['context'])}"
    with style.figure(path, "figure5", title=TITLE, about=about, height=0.1 + INCH * len(lines)) as made:
        write(made.subplots(), lines)


def wrapped(name: str, text: str, wide: int = WIDE, most: int = LINES) -> list[tuple[str, str, bool]]:
    """(left, right, heading) of each line."""
    parts = textwrap.wrap(flags.printable(text), wide, max_lines=most, placeholder=" …") or [""]
    return [(name if number == 0 else "", part, False) for number, part in enumerate(parts)]


def write(panel, lines: list[tuple[str, str, bool]], left: float = 0.27) -> None:
    """Names at the left, texts beside them."""
    panel.set_axis_off()
    panel.set_xlim(0, 1)
    panel.set_ylim(len(lines), 0)
    for place, (name, text, heading) in enumerate(lines):
        panel.text(0, place + 0.5, name, fontsize=7.5, va="center", weight="bold" if heading else "normal")
        panel.text(left, place + 0.5, text, fontsize=7.5, va="center")


if __name__ == "__main__":
    flags.main(case)
