"""The report of a run: one page with its tables, figures, tests and answers, complete in itself.

In: table1.csv and .md, probe.csv, significance.csv, intervals.csv, pairs.csv, cost.csv, EXAMPLES of one seed, drawings, the
paper's reported tables, and what else was made (evidence, tables 2 to 4, figures 5 to 7). Out: report.html.
Run: python -m vikdf.report --table results/table1.csv ... (see workflow/report.smk)
"""

import base64
import hashlib
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from vikdf import files, flags, tracked
from vikdf.means import read_csv
from vikdf.report import compare, cost, examples, extras, notes, pictures, probe, rows, table

HERE = Path(__file__).parent


def report(
    *,
    table1: Path,
    below: Path,
    probed: Path,
    significance: Path,
    intervals: Path,
    pairs: Path,
    costs: Path,
    answers: list[Path],
    figures: list[Path],
    reported: list[Path],
    extra: list[Path],
    output: Path,
    state_root: Path,
    systems: dict,
    controls: dict,
    statistics: dict,
    shown: int,
) -> None:
    """Makes the page.

    table1: table1.csv
    below: table1.md; its notes and signatures stand in the page
    probed: probe.csv
    significance: significance.csv, every row against the best row of any other system
    intervals: intervals.csv
    pairs: pairs.csv, any two rows of a task
    costs: cost.csv
    answers: EXAMPLES tables, one a row of table 1, of one seed
    figures: drawings (SVG), known by their names
    reported: table1.csv to table4.csv of the paper's own numbers
    extra: what else was made: evidence, tables 2 to 4, figures 5 to 7, known by their names
    output: the page
    state_root: the folder `state`; the run `tables` of MLflow gets the page and the drawings
    systems: name -> one line about it, in the order of the rows
    controls: the same for the rows that stand apart
    statistics: how significance and intervals were made
    shown: so many answers of each task stand side by side, the first ones of the test set
    """
    about = {"systems": systems, "controls": controls, "alpha": statistics["alpha"]}
    paper = {path.name: read_csv(path) for path in reported}
    means, chances = read_csv(table1), read_csv(significance)
    ranges, tested, looks, spent = (read_csv(path) for path in (intervals, pairs, probed, costs))
    page = {
        "metrics": table.metrics(means),
        "tasks": table.tasks(means, paper.get("table1.csv", []), chances, ranges, about),
        "glance": table.glance(means, chances, tested, about),
        "counts": {"systems": len({row["system"] for row in means}), "seeds": means[0]["seeds"] if means else 0},
        "drawings": {path.stem: pictures.inline(path) for path in figures},
        "probes": probe.kinds(looks, ranges, controls),
        "probe_table": probe.whole(looks),
        "compare": compare.compare(ranges, tested, controls),
        "stages": cost.stages(spent),
        "jobs": cost.jobs(spent),
        "total": cost.total(spent),
        "items": examples.items(answers, shown, [*systems, *controls]),
        "extras": extras.extras(extra, means, paper),
        "notes": notes.sections(below),
        "statistics": statistics,
        "shown": shown,
    }
    with files.whole(output) as aside:
        aside.write_text(render(page), encoding="utf-8")
    tracked.add(state_root / "tables", [output, costs, *figures])


def render(page: dict) -> str:
    """The page; every text of a table or an answer is escaped."""
    space = Environment(
        loader=FileSystemLoader(HERE), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    space.filters |= {"figure": rows.figure}
    style, script = ((HERE / name).read_text(encoding="utf-8") for name in ("style.css", "script.js"))
    allowed = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()  # no other script runs in the page
    return space.get_template("page.html").render(page, style=style, script=script, allowed=allowed)


if __name__ == "__main__":
    flags.main(report)
