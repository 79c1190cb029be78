"""Table 4 of the paper: language models of several families, each tuned alone with LoRA and with VIKDF, at zero data.

In: results/evaluate/<system>-zero-s<seed>.parquet (SCORES) of the rows, every seed. The rows of the preset's own language model
are the systems `llm_lora` and `vikdf`; those of another one, <llm>, are `llm_lora_on_<llm>` and `vikdf_on_<llm>`, which differ
from them in the language model alone (VIKDF's pretraining with it is the variant `on_<llm>`).
Out: table4.csv (means over seeds and their spread), table4.md (the same to read).
Run: python -m vikdf.families --scores results/evaluate/*-zero-s*.parquet --output results ... (the rule `table4`)
"""

from pathlib import Path

from vikdf import files, flags, tracking
from vikdf.ablations import MEASURES, NUMBERS, measured, over_seeds, zero_data
from vikdf.means import read, write_csv

METHODS = {"LoRA": "llm_lora", "VIKDF": "vikdf"}  # in the paper's order


def rows_of(table4: dict[str, str], own: str) -> list[dict]:
    """Each row's method, language model, and the system that stands for both."""
    return [
        {"method": method, "llm": title, "backbone": llm, "system": system if llm == own else f"{system}_on_{llm}"}
        for method, system in METHODS.items()
        for title, llm in table4.items()
    ]


def families(*, scores: list[Path], output: Path, state_root: Path, seeds: list, table4: dict, own: str) -> None:
    """Table 4: each language model alone with LoRA, and with VIKDF, each with PPL, BLEU-1 and ROUGE-L at zero data.

    scores: SCORES tables of the rows at zero data
    output: folder of table4.csv and table4.md
    state_root: the folder `state`; the journal that feeds MLflow lies below it
    seeds: the seeds that every row must have
    table4: what a language model is called -> its name under backbones.models, in the order of the rows
    own: the language model of the preset, with which `llm_lora` and `vikdf` are made
    """
    rows = rows_of(table4, own)
    found = zero_data(read(scores), [row["system"] for row in rows], seeds, output / "table4.csv")
    rows = [row | found[row["system"]] for row in rows]
    write_csv(output / "table4.csv", ["method", "llm", "backbone", "system", *NUMBERS], rows)
    with files.whole(output / "table4.md") as aside:
        aside.write_text(readable(rows, seeds))
    with tracking.Run("table4", "table4", params={"rows": table4}, folder=state_root / "table4") as run:
        run.log(0, {f"{row['system']}/{name}": row[name] for row in rows for name in MEASURES if row[name] is not None})
        for name in ("table4.csv", "table4.md"):
            run.artifact(output / name)


def readable(rows: list[dict], seeds: list) -> str:
    lines = ["# Table 4: language models of several families, zero data", ""]
    lines += [*measured(rows, {"method": "method", "llm": "language model"}), ""]
    lines += [
        "- LoRA: the language model alone, tuned on Reddit. VIKDF: knowledge distilled for this language model, which stays "
        "frozen, and tuned on Reddit alike. Rows of one language model differ in nothing else.",
        "- PPL: lower is better, and only rows of one language model can be compared in it, since tokens differ; all others: "
        "higher. Colour, place: share of right answers about nouns whose looks no text told.",
        over_seeds(seeds),
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    flags.main(families)
