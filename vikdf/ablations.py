"""Table 3 of the paper: VIKDF, and the same without one of its losses, on Reddit and on Image-Chat with zero data.

In: results/evaluate/<system>-zero-s<seed>.parquet (SCORES) of the rows, every seed.
Out: table3.csv (means over seeds and their spread), table3.md (the same to read).
Run: python -m vikdf.ablations --scores results/evaluate/*-zero-s*.parquet --output results ... (the rule `table3`)
"""

from pathlib import Path
from statistics import fmean

from vikdf import files, flags, tracking
from vikdf.means import grouped, read, spread, write_csv
from vikdf.typeset import markdown

DATA = {"reddit": "full", "image_chat": "zero", "probe": "zero"}  # tuned on all of Reddit, on nothing else
DIALOGUES = {
    f"{task}_{name}": (task, name) for task in ("reddit", "image_chat") for name in ("ppl", "bleu1", "rouge_l")
}
PROBE = {f"{look}_heldout": ("probe", f"{look}_accuracy_all_heldout") for look in ("color", "place")}
MEASURES = (
    DIALOGUES | PROBE
)  # column -> (task, metric). The paper has BLEU-1 and ROUGE-L; the embedded world alone has a probe
TITLES = ["Reddit PPL", "BLEU-1", "ROUGE-L", "Image-Chat PPL", "BLEU-1", "ROUGE-L", "colour", "place"]
NUMBERS = ["tuned_params", *MEASURES, "seeds", *(f"{name}_sd" for name in MEASURES)]


def ablations(*, scores: list[Path], output: Path, state_root: Path, seeds: list, table3: dict) -> None:
    """Table 3: VIKDF beside the same without one of its parts, each with PPL, BLEU-1 and ROUGE-L at zero data.

    scores: SCORES tables of the rows at zero data
    output: folder of table3.csv and table3.md
    state_root: the folder `state`; the journal that feeds MLflow lies below it
    seeds: the seeds that every row must have
    table3: what a row is called -> its system, in the order of the rows
    """
    found = zero_data(read(scores), table3.values(), seeds, output / "table3.csv")
    rows = [{"method": title, "system": system} | found[system] for title, system in table3.items()]
    write_csv(output / "table3.csv", ["method", "system", *NUMBERS], rows)
    with files.whole(output / "table3.md") as aside:
        aside.write_text(readable(rows, seeds))
    with tracking.Run("table3", "table3", params={"rows": table3}, folder=state_root / "table3") as run:
        run.log(0, {f"{row['system']}/{name}": row[name] for row in rows for name in MEASURES if row[name] is not None})
        for name in ("table3.csv", "table3.md"):
            run.artifact(output / name)


def zero_data(rows: list[dict], systems, seeds: list, product: Path) -> dict[str, dict]:
    """The numbers of each system: means over the seeds, their spread, and how many parameters were tuned."""
    wanted = [row for row in rows if row["seed"] in seeds and row["data"] == DATA[row["task"]]]
    groups = grouped(wanted, "system", "seed")
    for system, seed in ((system, seed) for system in systems for seed in seeds):
        there = {(row["task"], row["metric"]) for row in groups.get((system, seed), [])}
        if missing := [name for name, measure in DIALOGUES.items() if measure not in there]:
            what = "scores" if not there else ", ".join(missing)
            cure = f"run `snakemake --cores all {product}`"
            raise ValueError(f"no zero-data {what} of {system} seed {seed}: expected one of every row and seed; {cure}")
    return {system: _numbers([row for seed in seeds for row in groups[system, seed]], seeds) for system in systems}


def _numbers(rows: list[dict], seeds: list) -> dict:
    tuned = sorted({row["tuned_params"] for row in rows})
    if len(tuned) > 1:
        said = f"{rows[0]['system']} was tuned with {' and '.join(f'{n:,}' for n in tuned)} parameters"
        raise ValueError(f"{said}: expected one number, the same for every seed and task")
    made = {"tuned_params": tuned[0], "seeds": len(seeds)}
    for name, measure in MEASURES.items():
        values = [row["value"] for row in rows if (row["task"], row["metric"]) == measure]
        made |= {name: fmean(values) if values else None, f"{name}_sd": spread(values)}
    return made


def readable(rows: list[dict], seeds: list) -> str:
    """table3.md: columns that no row has (no probe in real corpora) are left out."""
    lines = ["# Table 3: without one part, zero data", "", *measured(rows, {"method": "method"}), ""]
    lines += [
        "- Every row is VIKDF with one part left out of its pretraining, and fine-tuned on Reddit alike. -BVIF: instead of "
        "both its losses, the LLM generates the caption from K of the picture (BLIP-2's vision-to-language generation).",
        "- PPL: lower is better; all others: higher. Colour, place: share of right answers about nouns whose looks no text told.",
        over_seeds(seeds),
    ]
    return "\n".join(lines) + "\n"


def measured(rows: list[dict], names: dict[str, str]) -> list[str]:
    """The rows as a table in Markdown: `names` (key of a row -> title), what was tuned, and each measure that some row has."""
    there = {
        name: title for name, title in zip(MEASURES, TITLES, strict=True) if any(row[name] is not None for row in rows)
    }
    texts = [
        [*(row[name] for name in names), f"{row['tuned_params']:,}", *(_cell(row, name) for name in there)]
        for row in rows
    ]
    return markdown([*names.values(), "tuned", *there.values()], texts)


def over_seeds(seeds: list) -> str:
    said = "means ± standard deviation over them."
    said = said if len(seeds) > 1 else "of one seed there is no spread: small differences say nothing."
    return f"- Seeds: {', '.join(map(str, seeds))}; {said}"


def _cell(row: dict, name: str) -> str:
    if row[name] is None:
        return ""
    return f"{row[name]:.2f}" + ("" if row[f"{name}_sd"] is None else f" ± {row[f'{name}_sd']:.2f}")


if __name__ == "__main__":
    flags.main(ablations)
