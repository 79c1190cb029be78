"""The campaign's table: a row for each kind of fault, with what became of the times it was tried.

In: what each fault came to. Out: Markdown, with seed, time and versions, on the screen and in docs/reliability.md.
"""

import argparse
import platform
import re
from collections import Counter
from importlib.metadata import version
from pathlib import Path

from vikdf import files

ITSELF, COMMAND, LOST, UNTRIED = "by itself", "by the command", "lost", "not tried"
AS_READ, BY_VERIFY = "as it was read", "by `vikdf verify`"
UNSAID, STOPPED = "made again, or read by nobody that depends on it", "by a run that stopped and did not name it"
UNSEALED = ("journal.jsonl", "mlflow.json", "mlflow.db", "asked.json")  # what only shows: unread, a harm to it is none
SHOWN = ["snakemake", "torch", "transformers", "pyarrow", "mlflow"]  # versions that stand below the table


def markdown(done: list[dict], given: argparse.Namespace) -> str:
    lines = ["| fault | tried | recovered by itself | by `vikdf recover` | lost |", "|---|---:|---:|---:|---:|"]
    for kind in [*sorted({each["kind"] for each in done}), "all"]:
        found = Counter(each["verdict"] for each in done if kind in (each["kind"], "all"))
        row = [kind, found.total() - found[UNTRIED], found[ITSELF], found[COMMAND], found[LOST]]
        lines.append(f"| {' | '.join(map(str, row))} |")
    seconds = sum(each["seconds"] for each in done)
    way = "chained in one run from clean" if given.chain else "each in a copy of the tree, cut back"
    used = ", ".join(f"{name} {version(name)}" for name in SHOWN)
    lines += ["", f"Preset {given.preset}, seed {given.seed}, {len(done)} faults, {way}: {seconds / 60:.0f} minutes on"]
    lines[-1] += f" {given.cores} cores ({platform.machine()}); Python {platform.python_version()}, {used}."
    if late := sum(each["verdict"] == UNTRIED for each in done):
        lines.append(f"Not tried, since the run was never met in the right moment: {late}.")
    if how := Counter(each["noticed"] for each in done if each["noticed"] and each["verdict"] != LOST):
        lines.append(
            f"Harmed files were noticed: {'; '.join(f'{name}: {count}' for name, count in how.most_common())}."
        )
    lines += [f"- lost: {each['kind']}: {each['what']}: {each['noticed']}" for each in done if each["verdict"] == LOST]
    return "\n".join(lines) + "\n"


def put(page: Path, text: str, name: str) -> None:
    """Writes the table into a page, between the marks of its name."""
    first, last = f"<!-- {name} -->\n", f"<!-- {name} end -->"
    told, count = re.subn(f"{first}.*?{last}", lambda _: f"{first}{text}{last}", page.read_text(), flags=re.S)
    if count != 1:
        raise ValueError(f"{page} has no place for the table: expected a line {first.strip()} and a line {last}")
    with files.whole(page) as aside:
        aside.write_text(told)
