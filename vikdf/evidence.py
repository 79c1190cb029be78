"""Is it the pictures? Each contrast of two systems at zero data, with a paired t-interval over seeds.

In: results/evaluate/<system>-zero-s<seed>.parquet (SCORES) of every system and seed.
Out: evidence.csv (each system's mean, then each contrast), evidence_seeds.csv (every value), evidence.md, evidence.svg.
Run: python -m vikdf.evidence --scores results/evaluate/*-zero-s*.parquet --output results ...
"""

from pathlib import Path
from statistics import fmean

from vikdf import files, flags, tracking
from vikdf.figures import style
from vikdf.means import lower_is_better, read, write_csv
from vikdf.statistics.seeds import t_interval
from vikdf.typeset import markdown

LOOKS = ["color", "place"]  # what the demo world's CLIP can see well; size, texture and shape stand in probe.csv
PROBED = ["accuracy", "accuracy_all", "cloze_accuracy", "cloze_rank"]
METRICS = [("probe", f"{look}_{name}_heldout") for look in LOOKS for name in PROBED]
METRICS += [("image_chat", name) for name in ("ppl", "bleu1", "rouge_l")]
COLUMNS = ["contrast", "question", "a", "b", "metric", "mean_a", "mean_b", "difference", "low", "high", "seeds"]
COLUMNS += ["excludes_zero", "favours"]
SHOWN = [f"{look}_{name}_heldout" for look in LOOKS for name in ("accuracy_all", "cloze_accuracy")]


def evidence(
    *, scores: list[Path], output: Path, state_root: Path, seeds: list, contrasts: dict, confidence: float
) -> None:
    """Gives each contrast over the seeds, with its interval.

    scores: SCORES tables of every system at zero data and of every seed
    output: folder of evidence.csv, evidence_seeds.csv, evidence.md and evidence.svg
    state_root: the folder `state`; the journal that feeds MLflow lies below it
    seeds: the seeds that every system must have
    contrasts: name -> {a, b, question}: two systems that differ in one thing, and what the difference answers
    confidence: of the intervals: 0.95 covers the true difference in 95 of 100 repetitions
    """
    values = by_system(read(scores))
    if missing := [f"{system} seed {seed}" for system in values for seed in seeds if seed not in values[system]]:
        cure = "run `snakemake --cores all results/evidence.csv`"
        raise ValueError(f"no zero-data scores of {', '.join(missing)}: {cure}")
    means = [single(system, name, values, seeds, confidence) for system in values for _, name in METRICS]
    pairs = [
        contrast(key, pair, name, values, seeds, confidence) for key, pair in contrasts.items() for _, name in METRICS
    ]
    rows = [row for row in means + pairs if row]
    every = [
        {"system": system, "seed": seed, "metric": name, "value": values[system][seed].get(name)}
        for system in values for seed in seeds for _, name in METRICS
    ]  # fmt: skip
    write_csv(output / "evidence_seeds.csv", ["system", "seed", "metric", "value"], every)
    write_csv(output / "evidence.csv", COLUMNS, rows)
    with files.whole(output / "evidence.md") as aside:
        aside.write_text(readable(rows, contrasts, confidence))
    draw([row for row in rows if row["contrast"] and row["metric"] in SHOWN], confidence, output / "evidence.svg")
    with tracking.Run("evidence", "evidence", params={"contrasts": contrasts}, folder=state_root / "evidence") as run:
        run.log(0, {f"{row['contrast']}/{row['metric']}": row["difference"] for row in rows if row["contrast"]})
        for name in ("evidence.csv", "evidence_seeds.csv", "evidence.md", "evidence.svg"):
            run.artifact(output / name)


def by_system(rows: list[dict]) -> dict[str, dict[int, dict[str, float]]]:
    """values[system][seed][metric], only the metrics that are contrasted, at zero data."""
    values: dict[str, dict[int, dict[str, float]]] = {}
    for row in rows:
        if row["data"] == "zero" and (row["task"], row["metric"]) in METRICS:
            values.setdefault(row["system"], {}).setdefault(row["seed"], {})[row["metric"]] = row["value"]
    return dict(sorted(values.items()))


def single(system: str, name: str, values: dict, seeds: list, confidence: float) -> dict | None:
    """A system's own mean with its interval: the row of the table that the contrasts compare."""
    found = [values[system][seed][name] for seed in seeds if name in values[system][seed]]
    if not found:
        return None
    low, high = t_interval(found, confidence)
    row = dict.fromkeys(COLUMNS) | {"contrast": "", "a": system, "metric": name, "mean_a": fmean(found)}
    return row | {"low": low, "high": high, "seeds": len(found)}


def contrast(key: str, pair: dict, name: str, values: dict, seeds: list, confidence: float) -> dict | None:
    """a - b, paired by seed; a seed in which one has no value (no reply states the look) is not counted."""
    for side in ("a", "b"):
        if pair[side] not in values:
            raise ValueError(f"contrast {key}: no scores of {pair[side]!r}; there are: {', '.join(values)}")
    a, b = values[pair["a"]], values[pair["b"]]
    both = [seed for seed in seeds if name in a[seed] and name in b[seed]]
    if not both:
        return None
    differences = [a[seed][name] - b[seed][name] for seed in both]
    low, high = t_interval(differences, confidence)
    apart = low is not None and (low > 0 or high < 0)
    better = -fmean(differences) if lower_is_better(name) else fmean(differences)
    return {
        "contrast": key, "question": pair["question"], "a": pair["a"], "b": pair["b"], "metric": name,
        "mean_a": fmean(a[seed][name] for seed in both), "mean_b": fmean(b[seed][name] for seed in both),
        "difference": fmean(differences), "low": low, "high": high, "seeds": len(both),
        "excludes_zero": "yes" if apart else "no",
        "favours": (pair["a"] if better > 0 else pair["b"]) if apart else "neither",
    }  # fmt: skip


def readable(rows: list[dict], contrasts: dict, confidence: float) -> str:
    """evidence.md: one table a question, and the systems' own means."""
    percent = f"{100 * confidence:g} %"
    lines = ["# Evidence: zero data, held-out nouns", ""]
    lines += [f"Differences a - b, paired by seed, with {percent} t-intervals.", ""]
    for key, pair in contrasts.items():
        found = [row for row in rows if row["contrast"] == key]
        lines += [f"## {pair['question']}", "", f"a = `{pair['a']}`, b = `{pair['b']}` ({key})", ""]
        texts = [[row["metric"], *_numbers(row), str(row["seeds"]), row["favours"]] for row in found]
        lines += markdown(["metric", "a", "b", "a - b", "interval", "seeds", "favours"], texts) + [""]
    lines += ["## The systems", ""]
    head = ["system", *(name for _, name in METRICS)]
    systems = list(dict.fromkeys(row["a"] for row in rows if not row["contrast"]))
    own = {(row["a"], row["metric"]): f"{row['mean_a']:.2f}" for row in rows if not row["contrast"]}
    lines += markdown(head, [[system, *(own.get((system, name), "-") for _, name in METRICS)] for system in systems])
    notes = [
        "",
        "- accuracy: among replies that state a value of the look; accuracy_all: among all replies. A reply that names "
        "two values is wrong. cloze_rank and ppl: lower is better.",
        "- favours: the better side where the interval leaves out 0, else neither. The intervals are not corrected for "
        "their number.",
        "- An interval covers what the seed changes: new weights, data order and masks of pretraining and fine-tuning. The "
        "world, the backbones (one CLIP and one shuffled CLIP, one language model) and the captions are the same for all seeds.",
        "",
    ]
    return "\n".join(lines + notes)


def _numbers(row: dict) -> list[str]:
    between = "-" if row["low"] is None else f"{row['low']:+.3f} to {row['high']:+.3f}"
    return [f"{row['mean_a']:.3f}", f"{row['mean_b']:.3f}", f"{row['difference']:+.3f}", between]


def draw(rows: list[dict], confidence: float, path: Path) -> None:
    """One panel a metric, one line a contrast: the difference and its interval; always the same bytes."""
    keys = list(dict.fromkeys(row["contrast"] for row in rows))
    about = ", ".join(f"{row['contrast']} {row['metric']} {row['difference']:+.2f}" for row in rows)
    height = 0.5 + 2 * (0.4 + 0.2 * max(len(keys), 1))
    with style.figure(path, "evidence", title="Is it the pictures? The contrasts", about=about, height=height) as made:
        for panel, name in zip(style.panels(made, 4, sharey=True, sharex=True), SHOWN, strict=True):
            style.bare(panel, name.removesuffix("_heldout").replace("_", " "))
            panel.axvline(0, color=style.PLAIN, linewidth=1)
            for row in (row for row in rows if row["metric"] == name):
                height, found = len(keys) - keys.index(row["contrast"]), row["low"] is not None
                color = style.GOOD if row["excludes_zero"] == "yes" else style.PLAIN
                panel.plot([row["low"], row["high"]] if found else [], [height] * 2 * found, color=color, linewidth=2)
                panel.plot([row["difference"]], [height], "o", color=color)
            panel.set_yticks(range(len(keys), 0, -1), [key.replace("_", " ") for key in keys], fontsize=7)
            panel.set_ylim(0.4, len(keys) + 0.6)
        made.supxlabel(
            f"difference a - b, held-out nouns, zero data; {100 * confidence:g} % t-interval over seeds", fontsize=8
        )


if __name__ == "__main__":
    flags.main(evidence)
