"""Table 1 and the probe's table from the scores of every system and seed.

In: results/evaluate/*.parquet (SCORES). Out: table1.csv (means over seeds, percentages as in the paper), table1.md (the
same to read), probe.csv, metrics.json (key numbers for `dvc metrics show`).
Run: python -m vikdf.tables --scores results/evaluate/*.parquet --output results ... (see workflow/rules/tables.smk)
"""

import csv
import io
from collections.abc import Callable
from pathlib import Path
from statistics import fmean, stdev

from vikdf import files, flags, schemas, tracking

METRICS = ["ppl", "bleu1", "rouge_l", "average", "extrema", "greedy", "dis1", "dis2"]
PER_WORD = "ppl_per_word"
LOWER_IS_BETTER = {"ppl", PER_WORD}
TITLES = dict(zip(METRICS, ["PPL", "BLEU-1", "ROUGE-L", "Average", "Extrema", "Greedy", "Dis-1", "Dis-2"], strict=True))
TASKS = {"reddit": "Reddit Conversation", "image_chat": "Image-Chat"}
DATA = ["full", "quarter", "eighth", "zero"]
HEAD = ["task", "system", "data", "images", "tuned_params"]
COLUMNS = [*HEAD, *METRICS, "n_test", "seeds", *(f"{name}_sd" for name in METRICS), PER_WORD, f"{PER_WORD}_sd"]
MEASURED = ["stated", "accuracy", "accuracy_all", "cloze_accuracy", "cloze_rank"]
FLOORS = ["floor", "cloze_rank_floor"]
PROBE_COLUMNS = ["system", "data", "attribute", "nouns", "n", *MEASURED, *FLOORS, "seeds"]
PROBE_COLUMNS += [f"{name}_sd" for name in MEASURED]
KEYS = ["ppl", "bleu1", "rouge_l"]  # of these and of the probe's held-out accuracies metrics.json keeps the means


def tables(
    *, scores: list[Path], output: Path, state_root: Path, systems: dict, controls: dict, decoding: dict
) -> None:
    """Makes the tables of a run.

    scores: SCORES tables, one a system, fraction and seed
    output: folder of table1.csv, table1.md, probe.csv and metrics.json
    state_root: the folder `state`; the journal that feeds MLflow lies below it
    systems: name -> one line about it, in the order of the rows; a system that is not named here comes after them
    controls: the same for the rows that stand apart below each task
    decoding: how the answers were decoded (of the section `generate`); stands below the table
    """
    rows = read(scores)
    order = [*systems, *sorted({row["system"] for row in rows} - set(systems) - set(controls)), *controls]
    means = table1(rows, order)
    probed = probe(rows, order)
    write_csv(output / "table1.csv", COLUMNS, means)
    write_csv(output / "probe.csv", PROBE_COLUMNS, probed)
    numbers = key_numbers(means, probed)
    files.write_json(output / "metrics.json", numbers)
    with files.whole(output / "table1.md") as aside:
        aside.write_text(readable(means, probed, rows, systems, controls, decoding))
    with tracking.Run("tables", "tables", params={"decoding": decoding}, folder=state_root / "tables") as run:
        run.log(0, numbers)
        for name in ("table1.csv", "table1.md", "probe.csv"):
            run.artifact(output / name)


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


def grouped(rows: list[dict], *names: str) -> dict[tuple, list[dict]]:
    found: dict[tuple, list[dict]] = {}
    for row in rows:
        found.setdefault(tuple(row[name] for name in names), []).append(row)
    return found


def spread(values: list[float]) -> float | None:
    """Standard deviation over seeds; of one seed there is none."""
    return stdev(values) if len(values) > 1 else None


def table1(rows: list[dict], order: list[str]) -> list[dict]:
    """One row a task, system and fraction: means and spread over the seeds."""
    made = []
    groups = grouped([row for row in rows if row["task"] in TASKS], "task", "system", "data")
    for (task, system, data), group in groups.items():
        fixed = {tuple(row[name] for name in (*HEAD, "n_test")) for row in group}
        if len(fixed) > 1:
            raise ValueError(f"{system} on {task}, data {data}: seeds differ in more than the scores: {sorted(fixed)}")
        values = {name: [row["value"] for row in part] for (name,), part in grouped(group, "metric").items()}
        line = {name: group[0][name] for name in (*HEAD, "n_test")} | {"seeds": len({row["seed"] for row in group})}
        for name in [*METRICS, PER_WORD]:
            line[name] = fmean(values[name]) if name in values else None
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
            line[name] = fmean(values[name]) if name in values else None
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
    return "" if value is None else f"{value:.4f}" if isinstance(value, float) else str(value)


def write_csv(path: Path, columns: list[str], rows: list[dict]) -> None:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows([cell(row[name]) for name in columns] for row in rows)
    with files.whole(path) as aside:
        aside.write_text(text.getvalue())


def markdown(head: list[str], rows: list[list[str]], left: int = 1) -> list[str]:
    """A Markdown table; the first `left` columns stand at the left, numbers at the right."""
    line = ["---"] * left + ["---:"] * (len(head) - left)
    return [f"| {' | '.join(row)} |" for row in [head, line, *rows]]


def marks(rows: list[dict], name: str) -> Callable[[dict, str], str]:
    """Bold for the best value of a column, italic for the second best; equal values share the mark."""
    values = sorted({f"{row[name]:.2f}" for row in rows if row[name] is not None}, key=float)
    values = values if name in LOWER_IS_BETTER else values[::-1]
    signs = dict(zip(values, ["**", "*"], strict=False))  # as many as there are
    return lambda row, text: (sign := signs.get(f"{row[name]:.2f}", "")) + text + sign


def _block(rows: list[dict]) -> list[str]:
    lines = []
    marked = {name: marks(rows, name) for name in METRICS}
    for row in rows:
        cells = [row["system"], row["data"], row["images"], f"{row['tuned_params']:,}"]
        for name in METRICS:
            deviation = "" if row[f"{name}_sd"] is None else f" ± {row[f'{name}_sd']:.2f}"
            cells.append("-" if row[name] is None else marked[name](row, f"{row[name]:.2f}") + deviation)
        lines.append(cells)
    return markdown(["system", "data", "images", "tuned parameters", *TITLES.values()], lines, left=3)


def _probe_block(rows: list[dict]) -> list[str]:
    head = ["system", "attribute", "n", "states a value", "right among these", "right of all"]
    head += ["cloze right", "cloze rank", "majority guess", "its rank"]
    shares = ["stated", "accuracy", "accuracy_all", "cloze_accuracy", "cloze_rank", "floor", "cloze_rank_floor"]
    texts = [
        [row["system"], row["attribute"], str(row["n"]), *("-" if row[n] is None else f"{row[n]:.2f}" for n in shares)]
        for row in rows
    ]
    return markdown(head, texts, left=2)


def readable(means, probed, rows, systems: dict, controls: dict, decoding: dict) -> str:
    """table1.md: each task, its controls apart, the probe, and what a reader must know to trust the numbers."""
    lines = ["# Table 1", ""]
    for task, title in TASKS.items():
        here = [row for row in means if row["task"] == task]
        for heading, block in (
            (title, [row for row in here if row["system"] not in controls]),
            (f"{title}: controls", [row for row in here if row["system"] in controls]),
        ):
            lines += [f"## {heading}", "", *_block(block), ""] if block else []
    for nouns, title in (("heldout", "held-out nouns"), ("seen", "seen nouns")):
        block = [row for row in probed if row["nouns"] == nouns]
        lines += [f"## Probe: {title}", "", *_probe_block(block), ""] if block else []
    about = systems | controls
    there = [name for name in about if any(row["system"] == name for row in means)]
    lines += ["## Notes", "", *(f"- `{name}`: {about[name]}" for name in there), *_notes(means, rows, decoding)]
    return "\n".join(lines) + "\n"


def _notes(means: list[dict], rows: list[dict], decoding: dict) -> list[str]:
    signatures = {row["signature"] for row in rows if row["metric"] in METRICS}
    names = {part for text in signatures for part in text.split("|") if part.startswith("vectors:")}
    tokenizers = {part for text in signatures for part in text.split("|") if part.startswith("tok:")}
    counts = {row["task"]: row["n_test"] for row in means}
    seeds = sorted({row["seed"] for row in rows})
    return [
        "- Bold: best of the column in its block; italic: second best. PPL: lower is better; all others: higher.",
        "- data: the share of Image-Chat's training set; `zero` is the model tuned on Reddit only (or on nothing).",
        f"- Test items: {', '.join(f'{task} {n:,}' for task, n in counts.items())}; every answer is scored.",
        f"- Seeds: {', '.join(map(str, seeds))}; with several, values are means ± standard deviation over seeds.",
        f"- Decoding: {', '.join(f'{name} {value}' for name, value in tracking.flat(decoding).items())}.",
        f"- Average, Extrema, Greedy use the word vectors {', '.join(sorted(names)).replace('vectors:', '')}.",
        f"- Words are cut by {', '.join(sorted(tokenizers)).replace('tok:', '')}; Dis-1 and Dis-2 after lower-casing, "
        "without punctuation and articles, over the whole corpus.",
        "- PPL is exp(sum of NLL / number of response tokens), end of sequence counted: compare it only between "
        "systems with the same tokenizer. table1.csv has ppl_per_word beside it.",
        "- Probe: a reply is right if it states the right value and no other; the majority guess always gives the "
        "commonest value.",
    ]


if __name__ == "__main__":
    flags.main(tables)
