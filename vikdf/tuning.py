"""The budget of tuning, the same for every system: some learning rates, tried on Reddit, compared by validation NLL alone.

In: results/finetune/tried/<system>-lr<rate>-s<seed>/, each a tuning on Reddit like that of the system's row but for the rate.
Out: tuning.csv, a row a try: system, learning_rate, steps, best_step, validation_nll, lowest (of the system's tries), used
(the rate that params.yaml gives the system). No test item is read.
Run: python -m vikdf.tuning --tried results/finetune/tried/* --rates '{"vikdf": 0.001}' --output results/tuning.csv

Compare a system's NLLs with each other only: another tokenizer counts other tokens.
"""

import re
import sys
from pathlib import Path

from vikdf import files, flags
from vikdf.means import write_csv

TRY = re.compile(r"(\w+)-lr([0-9.e-]+)-s\d+")
COLUMNS = ["system", "learning_rate", "steps", "best_step", "validation_nll", "lowest", "used"]


def tuning(*, tried: list[Path], rates: dict, output: Path) -> None:
    """Lists what each learning rate gave each system on validation data, and says where params.yaml uses another than the best.

    tried: folders of tunings, named <system>-lr<learning rate>-s<seed>
    rates: system -> the learning rate that its rows are made with
    output: the table to write
    """
    rows = [row_of(folder) for folder in tried]
    lowest = {name: min(row["validation_nll"] for row in rows if row["system"] == name) for name in rates}
    for row in rows:
        row["lowest"] = "yes" if row["validation_nll"] == lowest[row["system"]] else "no"
        row["used"] = "yes" if row["learning_rate"] == rates[row["system"]] else "no"
    # four decimals would make 2e-5 a zero
    shown = [row | {"learning_rate": f"{row['learning_rate']:g}"} for row in rows]
    write_csv(output, COLUMNS, shown)
    for row in rows:
        if row["lowest"] == "yes" and row["used"] == "no":
            print(
                f"{row['system']}: {row['learning_rate']:g} has the lowest validation NLL ({row['validation_nll']:.4f}), but its "
                f"rows are made with {rates[row['system']]:g}: give it that one in params.yaml, as every other system has its best",
                file=sys.stderr,
            )


def row_of(folder: Path) -> dict:
    """A try from its folder's name and metrics."""
    named = TRY.fullmatch(folder.name)
    if not named:
        raise ValueError(f"{folder} is no try: expected a folder named <system>-lr<learning rate>-s<seed>")
    found = files.read_json(folder / "metrics.json")
    row = {"system": named[1], "learning_rate": float(named[2]), "steps": found["steps"]}
    return row | {"best_step": found["best_step"], "validation_nll": found["validation_nll"]}


if __name__ == "__main__":
    flags.main(tuning)
