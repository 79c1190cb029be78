"""Means over seeds: SCORES of every system and seed in, the rows of Table 1 and of the probe's table out.

rows = read(paths)                  # SCORES of results/evaluate/*.parquet
table1(rows, order)                 # one row a task, system and share of data: each metric's mean and spread
write_csv(path, COLUMNS, rows)      # as in table1.csv: four decimals, nothing where there is no value
"""

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean, stdev

from vikdf import files, schemas

METRICS = ["ppl", "bleu1", "rouge_l", "average", "extrema", "greedy", "dis1", "dis2"]  # the paper's eight
PER_WORD = "ppl_per_word"
LOWER = ("ppl", "cloze_rank")  # names with these parts: lower is better
TITLES = dict(zip(METRICS, ["PPL", "BLEU-1", "ROUGE-L", "Average", "Extrema", "Greedy", "Dis-1", "Dis-2"], strict=True))
BESIDE = {
    PER_WORD: "PPL a word", "ead1": "EAD-1", "ead2": "EAD-2", "mean_length": "words an answer", "empty": "empty, %",
    "repeated": "repeated, %", "rouge_l_f1": "ROUGE-L F1", "similarity": "similarity",
}  # fmt: skip
MORE = [name for name in BESIDE if name != PER_WORD]  # in table1.csv only
TASKS = {"reddit": "Reddit Conversation", "image_chat": "Image-Chat"}
DATA = ["full", "quarter", "eighth", "zero"]
DIGITS = 4  # of a value in the tables
HEAD = ["task", "system", "data", "images", "tuned_params"]
COLUMNS = [*HEAD, *METRICS, "n_test", "seeds", *(f"{name}_sd" for name in METRICS), PER_WORD, f"{PER_WORD}_sd"]
COLUMNS += [*MORE, *(f"{name}_sd" for name in MORE)]  # new ones at the end: who reads by place reads the same
TEXTS = set(  # of all tables: a system may be called 007
    "task system data images metric method stage run device status contrast question favours excludes_zero attribute nouns "
    "other other_data a b a_data b_data block better significant id key context "
    "reference hypothesis words caption llm backbone lowest used".split()
)
MEASURES = {  # of the probe
    "stated": "states a value", "accuracy": "right among these", "accuracy_all": "right of all", "cloze_accuracy": "cloze right",
    "cloze_rank": "cloze rank", "floor": "majority guess", "cloze_rank_floor": "its rank",
}  # fmt: skip
FLOORS = ["floor", "cloze_rank_floor"]
MEASURED = [name for name in MEASURES if name not in FLOORS]
PROBE_COLUMNS = ["system", "data", "attribute", "nouns", "n", *MEASURED, *FLOORS, "seeds"]
PROBE_COLUMNS += [f"{name}_sd" for name in MEASURED]
KEYS = ["ppl", "bleu1", "rouge_l"]  # of these and of the probe's held-out accuracies key_numbers keeps the means


def read(paths: list[Path]) -> list[dict]:
    """All scores; a system, fraction and seed that come twice are an error."""
    rows, seen = [], {}
    for path in paths:
        for row in schemas.read(path, schemas.SCORES).to_pylist():
            key = tuple(row[name] for name in ("task", "system", "data", "seed", "metric"))
            if key in seen:
                raise ValueError(f"{path} and {seen[key]} both hold {', '.join(map(str, key))}: leave one of them out")
            seen[key] = path
            rows.append(row)
    return rows


def lower_is_better(metric: str) -> bool:
    return any(part in metric for part in LOWER)


def grouped(rows: list[dict], *names: str) -> dict[tuple, list[dict]]:
    found: dict[tuple, list[dict]] = {}
    for row in rows:
        found.setdefault(tuple(row[name] for name in names), []).append(row)
    return found


def mean(values: list[float]) -> float | None:
    """As table1.csv holds it: every page that prints two digits of it then prints the same two."""
    return round(fmean(values), DIGITS) if values else None


def spread(values: list[float]) -> float | None:
    """Standard deviation over seeds; of one seed there is none."""
    return round(stdev(values), DIGITS) if len(values) > 1 else None


def table1(rows: list[dict], order: list[str]) -> list[dict]:
    """One row a task, system and fraction: means and spread over the seeds."""
    made = []
    groups = grouped([row for row in rows if row["task"] in TASKS], "task", "system", "data")
    for (task, system, data), group in groups.items():
        fixed = {tuple(row[name] for name in (*HEAD, "n_test")) for row in group}
        if len(fixed) > 1:
            raise ValueError(f"{system} on {task}, data {data}: seeds differ in more than the scores: {sorted(fixed)}")
        seeds = {row["seed"] for row in group}
        values = {name: [row["value"] for row in part] for (name,), part in grouped(group, "metric").items()}
        line = {name: group[0][name] for name in (*HEAD, "n_test")} | {"seeds": len(seeds)}
        for name in [*METRICS, PER_WORD, *MORE]:
            if 0 < len(values.get(name, [])) < len(seeds):
                raise ValueError(
                    f"{system} on {task}, data {data}: only {len(values[name])} of {len(seeds)} seeds have "
                    f"{name}; evaluate all of them with the same settings"
                )
            line[name] = mean(values.get(name, []))
            line[f"{name}_sd"] = spread(values.get(name, []))
        made.append(line)
    ranks = list(TASKS)
    return sorted(made, key=lambda r: (ranks.index(r["task"]), order.index(r["system"]), DATA.index(r["data"])))


def probe(rows: list[dict], order: list[str]) -> list[dict]:
    """One row a system, attribute and kind of noun (heldout, seen)."""
    split = []
    for row in rows:
        if row["task"] == "probe":
            attribute, _, rest = row["metric"].partition("_")
            measure, _, nouns = rest.rpartition("_")
            split.append(row | {"attribute": attribute, "measure": measure, "nouns": nouns})
    made = []
    for (system, data, attribute, nouns), group in grouped(split, "system", "data", "attribute", "nouns").items():
        values = {name: [row["value"] for row in part] for (name,), part in grouped(group, "measure").items()}
        line = {"system": system, "data": data, "attribute": attribute, "nouns": nouns, "n": group[0]["n_test"]}
        for name in [*MEASURED, *FLOORS]:
            line[name] = mean(values.get(name, []))
            line[f"{name}_sd"] = spread(values.get(name, []))
        made.append(line | {"seeds": len({row["seed"] for row in group})})
    return sorted(made, key=lambda r: (order.index(r["system"]), DATA.index(r["data"]), r["attribute"], r["nouns"]))


def key_numbers(means: list[dict], probed: list[dict]) -> dict[str, float]:
    """Flat: `image_chat/vikdf/zero/bleu1`, `probe/vikdf/zero/color_accuracy_all_heldout`."""
    lines = [(f"{r['task']}/{r['system']}/{r['data']}/{name}", r[name]) for r in means for name in KEYS]
    for r in probed:
        for name in ("accuracy_all", "cloze_accuracy"):
            lines.append((f"probe/{r['system']}/{r['data']}/{r['attribute']}_{name}_{r['nouns']}", r[name]))
    return {name: round(value, 4) for name, value in lines if value is not None and not name.endswith("_seen")}


def cell(value) -> str:
    """Numbers with four decimals, counts as they are, nothing where there is no value."""
    return "" if value is None else f"{value:.{DIGITS}f}" if isinstance(value, float) else str(value)


def write_csv(path: Path, columns: list[str], rows: list[dict]) -> None:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows([cell(row[name]) for name in columns] for row in rows)
    with files.whole(path) as aside:
        aside.write_text(text.getvalue())


def read_csv(path: Path, columns: Sequence[str] = ()) -> list[dict]:
    """The rows of a table that `write_csv` made, numbers as numbers, nothing as None; what is wrong is named, with its cure."""
    cure = f"run `snakemake --cores all {path}` to make it again if the run makes it, else bring back the file that was there"
    if not Path(path).is_file():
        raise ValueError(f"{path} is missing: {cure}")
    try:
        with open(path, newline="", encoding="utf-8") as stream:
            reader = csv.DictReader(stream, strict=True)
            if lost := [name for name in columns if name not in (reader.fieldnames or [])]:
                raise ValueError(f"it has no column {', '.join(lost)}")
            return [{name: _value(name, text) for name, text in row.items()} for row in reader]
    except (ValueError, csv.Error, AttributeError, TypeError) as error:
        raise ValueError(f"{path} is damaged ({error}): move it away and {cure}") from None


def _value(name: str, text: str) -> str | int | float | None:
    if name in TEXTS:
        return text
    if text == "":
        return None
    return int(text) if text.removeprefix("-").isdigit() else float(text)
