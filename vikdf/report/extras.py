"""What a run may have beside table 1: the evidence, tables 2 to 4, figures 5 to 7. Each stands in the page if it was made.

In: the paths that are there. Out: one dict a section: its tables, its drawing and, where it was made by another run, a warning.
"""

from pathlib import Path

from vikdf.means import read_csv
from vikdf.report import pictures
from vikdf.report.rows import between, figure, key, title

ZERO = {("reddit", "full"), ("image_chat", "zero")}  # the rows of table 1 that table 3 and figure 7 have too
SAME = 0.005  # means of the same run agree to the printed digits
LOST = "These numbers are not those of the run above: this part was made by another run. Make it again."


CASES = {  # name -> heading, what it shows, columns of its table
    "figure5": (
        "One dialogue, all systems",
        "Chosen by its place in the test set, by no score; systems without the task's own data, where not said otherwise.",
        ["system", "data", "hypothesis"],
    ),
    "figure6": (
        "What VIKDF knows of a dialogue",
        "Its knowledge vectors K put into words by the language model, which reads no word of the dialogue; the picture drawn "
        "from K; the training pictures whose own K is nearest, with their cosine. No dialogue was ever seen with a picture.",
        ["id", "words", "caption", "key", "rank", "cosine"],
    ),
}


def extras(paths: list[Path], means: list[dict], reported: dict[str, list[dict]]) -> list[dict]:
    """Each section that was made; `reported`: the paper's tables by their file's name."""
    there = {path.name: path for path in paths}
    sections = []
    if "evidence.csv" in there:
        sections.append(_evidence(there))
    if "table3.csv" in there:
        sections.append(_table3(read_csv(there["table3.csv"]), means, reported.get("table3.csv", [])))
    if "table4.csv" in there:
        sections.append(_table4(read_csv(there["table4.csv"]), means, reported.get("table4.csv", [])))
    sections += [_case(name, there) for name in CASES if f"{name}.csv" in there]
    if "figure7.csv" in there:
        sections.append(_figure7(there, means))
    if "table2.csv" in there:
        sections.append(_table2(read_csv(there["table2.csv"]), reported.get("table2.csv", [])))
    return sections


def _section(name: str, heading: str, about: str, table: dict, drawing: str = "", warning: str = "") -> dict:
    return {"name": name, "title": heading, "about": about, "table": table, "drawing": drawing, "warning": warning}


def plain(rows: list[dict]) -> dict:
    """A table as it is; a spread (`<name>_sd`) stands beside its mean."""
    names = [name for name in rows[0] if not name.endswith("_sd")] if rows else []
    lines = [[_with_spread(row, name) for name in names] for row in rows]
    texts = next((place for place, name in enumerate(names) if not isinstance(rows[0][name], str)), len(names))
    return {"head": [title(name) for name in names], "rows": lines, "texts": texts}


def _with_spread(row: dict, name: str) -> str:
    spread = row.get(f"{name}_sd")
    return figure(row[name]) + ("" if spread is None else f" ± {figure(spread)}")


def _evidence(there: dict[str, Path]) -> dict:
    rows = [row for row in read_csv(there["evidence.csv"]) if row["contrast"]]
    lines = [
        [row["question"], title(row["metric"]), row["a"], row["b"], figure(row["difference"]), between(row["low"], row["high"]),
         figure(row["seeds"]), row["favours"]]
        for row in rows
    ]  # fmt: skip
    head = ["question", "measure", "a", "b", "a − b", "interval", "seeds", "favours"]
    about = "Two systems that differ in one thing, over seeds: the difference with a paired t-interval."
    drawing = pictures.inline(there["evidence.svg"]) if "evidence.svg" in there else ""
    return _section("evidence", "Is it the pictures?", about, {"head": head, "rows": lines, "texts": 4}, drawing)


def _table3(rows: list[dict], means: list[dict], reported: list[dict]) -> dict:
    names = [name for name in rows[0] if not name.endswith("_sd") and name not in ("method", "system")]
    names = [name for name in names if any(row[name] is not None for row in rows)]
    theirs = {row["method"]: row for row in reported}
    lines = [[row["method"], *(_with_spread(row, name) for name in names)] for row in rows]
    paper = [[figure(theirs.get(row["method"], {}).get(name)) for name in names] for row in rows]
    table = {"head": ["method", *map(_measure, names)], "rows": lines, "texts": 1, "paper": paper}
    about = "VIKDF, and the same without one part of its pretraining, tuned on Reddit alone."
    return _section("table3", "Without one part", about, table, warning=_other_run(rows, means))


def _table2(rows: list[dict], reported: list[dict]) -> dict:
    """Means of the ratings with their intervals over dialogues, and how far the raters agree."""
    criteria = [name for name in ("relevance", "informativeness", "fluency") if name in rows[0]]
    single = [name for name in ("kappa", "alpha", "dialogues", "raters") if name in rows[0]]
    theirs = {row["method"].lower(): row for row in reported}
    lines, paper = [], []
    for row in rows:
        spans = [between(row.get(f"{name}_low"), row.get(f"{name}_high")) for name in criteria]
        means = [
            f"{figure(row[name])} ({span})" if span else figure(row[name])
            for name, span in zip(criteria, spans, strict=True)
        ]
        lines.append([row["system"], *means, *(figure(row[name]) for name in single)])
        other = theirs.get(row["system"], {})
        paper.append([figure(other.get(name)) if other.get(name) is not None else "" for name in [*criteria, *single]])
    table = {"head": ["system", *criteria, *single], "rows": lines, "texts": 1, "paper": paper, "ours": len(lines)}
    for row in [row for name, row in theirs.items() if name not in {row["system"] for row in rows}]:
        lines.append([row["method"], *("" for _ in table["head"][1:])])
        paper.append([figure(row.get(name)) if row.get(name) is not None else "" for name in [*criteria, *single]])
    about = "Ratings that people gave, 1 to 5, blind to the systems. Intervals: over dialogues; kappa, alpha: how far they agree."
    if any(row.get("pictures") == "no" for row in rows):
        about += " Relevance was asked of the text alone; the paper's raters judged text and picture."
    return _section("table2", "What people say", about, table)


def _table4(rows: list[dict], means: list[dict], reported: list[dict]) -> dict:
    names = [
        name for name in rows[0] if not name.endswith("_sd") and name not in ("method", "llm", "backbone", "system")
    ]
    names = [name for name in names if any(row[name] is not None for row in rows)]
    theirs = {key(row, "method", "llm"): row for row in reported}
    lines = [[row["method"], row["llm"], *(_with_spread(row, name) for name in names)] for row in rows]
    paper = [[figure(theirs.get(key(row, "method", "llm"), {}).get(name)) for name in names] for row in rows]
    table = {"head": ["method", "language model", *map(_measure, names)], "rows": lines, "texts": 2, "paper": paper}
    about = "Language models of several families, each tuned alone with LoRA and with VIKDF, on Reddit alone."
    return _section("table4", "Other language models", about, table, warning=_other_run(rows, means))


def _case(name: str, there: dict[str, Path]) -> dict:
    heading, about, columns = CASES[name]
    rows = read_csv(there[f"{name}.csv"])
    lines = [[row[each] if isinstance(row[each], str) else figure(row[each]) for each in columns] for row in rows]
    drawing = pictures.inline(there[f"{name}.svg"]) if f"{name}.svg" in there else ""
    texts = sum(isinstance(rows[0][each], str) for each in columns) if rows else len(columns)
    return _section(name, heading, about, {"head": columns, "rows": lines, "texts": texts}, drawing)


def _figure7(there: dict[str, Path], means: list[dict]) -> dict:
    rows = read_csv(there["figure7.csv"])
    drawing = pictures.inline(there["figure7.svg"]) if "figure7.svg" in there else ""
    about = "VIKDF at zero data by the number of its queries."
    return _section("figure7", "More and fewer queries", about, plain(rows), drawing, _other_run(rows, means))


def _measure(name: str) -> str:
    """A column of table 3: `image_chat_rouge_l`, `color_heldout`, `tuned_params`."""
    for task, said in (("image_chat_", "Image-Chat "), ("reddit_", "Reddit ")):
        if name.startswith(task):
            return said + title(name.removeprefix(task))
    return title(name)


def _other_run(rows: list[dict], means: list[dict]) -> str:
    """A section's own row of `vikdf` must be the one of table 1, where their seeds are as many."""
    here = next((row for row in rows if row.get("system") == "vikdf"), {})
    above = {row["task"]: row for row in means if row["system"] == "vikdf" and (row["task"], row["data"]) in ZERO}
    for task, row in above.items():
        value = here.get(f"{task}_bleu1")
        if value is not None and here.get("seeds") == row.get("seeds") and abs(value - row["bleu1"]) > SAME:
            return LOST
    return ""
