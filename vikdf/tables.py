"""Table 1 and the probe's table from the scores of every system and seed, marked as the statistics say.

In: results/evaluate/*.parquet (SCORES), significance.csv and intervals.csv of the same answers.
Out: table1.csv (means over seeds, percentages as in the paper), table1.md (the same to read, with intervals and notes),
table1.tex (to print), probe.csv, metrics.json (key numbers for `dvc metrics show`).
Run: python -m vikdf.tables --scores results/evaluate/*.parquet --output results ... (see workflow/rules/tables.smk)
"""

from pathlib import Path

from vikdf import files, flags, tracking, typeset
from vikdf.marks import RANGES, VERDICTS, marks, same_answers
from vikdf.means import COLUMNS, METRICS, PROBE_COLUMNS, grouped, key_numbers, probe, read, read_csv, table1, write_csv
from vikdf.statistics.notes import below_table


def tables(
    *,
    scores: list[Path],
    significance: Path,
    intervals: Path,
    output: Path,
    state_root: Path,
    systems: dict,
    controls: dict,
    statistics: dict,
    decoding: dict,
    left_out: dict,
) -> None:
    """Makes the tables of a run.

    scores: SCORES tables, one a system, fraction and seed
    significance: every row of table 1 against the best row of any other system, each metric (see vikdf.significance)
    intervals: each row's interval over the examples and over the seeds
    output: folder of table1.csv, table1.md, table1.tex, probe.csv and metrics.json
    state_root: the folder `state`; the journal that feeds MLflow lies below it
    systems: name -> one line about it, in the order of the rows; a system that is not named here comes after them
    controls: the same for the rows that stand apart below each task
    statistics: how significance and intervals were made; stands below the table
    decoding: how the answers were decoded (of the section `generate`); stands below the table
    left_out: systems that could not be asked -> why; stands below the table, and no number in their place
    """
    rows, verdicts, ranges = read(scores), read_csv(significance, VERDICTS), read_csv(intervals, RANGES)
    order = [*systems, *sorted({row["system"] for row in rows} - set(systems) - set(controls)), *controls]
    means, probed = table1(rows, order), probe(rows, order)
    same_answers(means, verdicts, significance, every=False)  # a system alone in its block has no other to beat
    same_answers(means, ranges, intervals, every=True)
    marked = marks(means, verdicts, controls, statistics["alpha"])
    by_value = {tuple(row[name] for name in ("task", "system", "data", "metric")): row for row in ranges}
    about, below = (systems, controls), notes(means, rows, statistics, decoding, left_out)
    write_csv(output / "table1.csv", COLUMNS, means)
    write_csv(output / "probe.csv", PROBE_COLUMNS, probed)
    numbers = key_numbers(means, probed)
    files.write_json(output / "metrics.json", numbers)
    page = typeset.page(means, probed, marked, by_value, about, below) + signatures(rows)
    for name, text in (("table1.md", page), ("table1.tex", typeset.tex(means, marked, about, below))):
        with files.whole(output / name) as aside:
            aside.write_text(text, encoding="utf-8")
    settings = {"decoding": decoding, "statistics": statistics}
    with tracking.Run("tables", "tables", params=settings, folder=state_root / "tables") as run:
        run.log(0, numbers)
        made = [output / name for name in ("table1.csv", "table1.md", "table1.tex", "probe.csv")]
        for path in [*made, significance, intervals, significance.with_name("pairs.csv")]:
            run.artifact(path)


def notes(means: list[dict], rows: list[dict], statistics: dict, decoding: dict, left_out: dict) -> list[str]:
    """What stands below the table: how its marks are made, what a star says and what not, how the numbers are made."""
    names, tokenizers = _parts(rows, "vectors:"), _parts(rows, "tok:")
    counts = {row["task"]: row["n_test"] for row in means}
    seeds = sorted({row["seed"] for row in rows})
    settings = ", ".join(f"{name} {value}" for name, value in tracking.flat(decoding).items())
    vectors = (
        f"Average, Extrema, Greedy use the word vectors {', '.join(name[: name.rfind('@') + 13] for name in names)}."
    )
    return [
        *(f"Left out: `{name}`, {why}. No number stands in its place." for name, why in left_out.items()),
        *_marking(statistics["alpha"], len(seeds)),
        *below_table(len(seeds), statistics),
        "data: the share of Image-Chat's training set; `zero` is the model tuned on Reddit only (or on nothing).",
        f"Test items: {', '.join(f'{task} {n:,}' for task, n in counts.items())}; every answer is scored, none is left out.",
        f"Seeds: {', '.join(map(str, seeds))}; with several, values are means ± standard deviation over seeds.",
        f"Decoding: {settings}.",
        *([vectors] if names else []),
        f"Words are cut by {', '.join(tokenizers)}; Dis-1 and Dis-2 after lower-casing, "
        "without punctuation and articles, over the whole corpus. Every number's signature stands at the end of table1.md.",
        "PPL is exp(sum of NLL / number of response tokens), end of sequence counted: compare it only between "
        "systems with the same tokenizer. table1.csv has ppl_per_word beside it.",
        *_untold(means),
        "EAD: distinct n-grams over how many so many n-grams would show if they were drawn at random from those that the "
        "references' words can form; above 100 where answers use more words than the references.",
    ]


def _marking(alpha: float, seeds: int) -> list[str]:
    """Bold face, stars and daggers; what significant means follows in the notes of the statistics."""
    bold = (
        "Bold: best of the column in its block (a task's systems, or its controls); italic, in print underlined: second best; "
        "values that are printed alike share the mark. PPL: lower is better; all others: higher. Bold face is the order of "
        "these values and says nothing about chance."
    )
    star = (
        "\\*: significantly better than the best row of any other system of its block; a row of the same system with another "
        "share of data is no other."
    )
    if seeds == 1:
        return [
            bold,
            f"{star} With one seed it does not say that the method would win again when trained anew: that takes several "
            "`seeds`. The paper's own test compares seeds, so that here is none of it.",
        ]
    dagger = (
        f"†: better, and significant by the paper's own one-sample t-test (the seeds against the other's mean, p < {alpha:g}, "
        "not corrected), but not by what a star asks for."
    )
    return [bold, star, dagger]


def _untold(means: list[dict]) -> list[str]:
    """Whose PPL is unknown, and why."""
    names = dict.fromkeys(f"`{row['system']}`" for row in means if row["ppl"] is None)
    said = "is asked through an interface that tells answers alone, not how likely a given one is: no PPL, no cloze."
    return [f"{name} {said}" for name in names]


def _parts(rows: list[dict], head: str) -> list[str]:
    """The parts of the signatures of the eight metrics that begin so, each once."""
    texts = {row["signature"] for row in rows if row["metric"] in METRICS}
    return sorted({part.removeprefix(head) for text in texts for part in text.split("|") if part.startswith(head)})


def signatures(rows: list[dict]) -> str:
    """How each number of Table 1 came about: one line where all systems' signatures are alike, else one a system."""
    lines = ["", "## Signatures", ""]
    groups = grouped([row for row in rows if row["task"] != "probe"], "task", "metric")
    for (task, _), group in groups.items():
        texts = {row["signature"]: None for row in group}
        for text in texts:
            whose = sorted({row["system"] for row in group if row["signature"] == text})
            lines.append(f"- {task}: `{text}`" + (f" ({', '.join(whose)})" if len(texts) > 1 else ""))
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    flags.main(tables)
