"""What each run cost: cost.csv, from the journals that every tracked job leaves in `state`.

In: <state>/<stage>/<key>/journal.jsonl of backbones, pretrain, finetune, generate, evaluate, tables, evidence, table3,
table4 and figures 5 to 7; asked.json beside those of finetune. Out: cost.csv, a row a run: stage, run, seconds, stretches,
steps, rows_per_second, flops, peak_memory_mb, gpu_memory_mb, device, status.
Run: python -m vikdf.costs --state-root state --output results/cost.csv (the rule `cost`)

Seconds are wall time in which a job was at work: a run that was stopped and went on counts its stretches, not the pause
between them. Rows a second are those of its steps (of generate: its answers) over these seconds, so steps that were lost and done
again slow it.
FLOPs are those of all its steps (forward and backward) or answers, measured on a few of them and scaled up (vikdf.flops says
what is counted); empty where nothing was measured, as of what a server elsewhere answers.
Memory is the last stretch's. Of runs with one name, such as those of other params, the one that was asked for last counts.
Tries of `tuning.csv` are not in the table, but for one that a row was made of later: it stands there as the row.
Stages without a journal (sources, filter, caption, shards, dialogues) are not in the table.
The one table that two equal runs write differently: it tells of the machine.
"""

import sys
from pathlib import Path

from vikdf import flags, flops, tracking
from vikdf.means import write_csv
from vikdf.tuning import TRY

COLUMNS = [
    "stage",
    "run",
    "seconds",
    "stretches",
    "steps",
    "rows_per_second",
    "flops",
    "peak_memory_mb",
    "gpu_memory_mb",
    "device",
    "status",
]


def costs(*, state_root: Path, output: Path) -> None:
    """Writes what each run cost: wall time, steps, rows a second, peak memory, device.

    state_root: the folder `state`, below which the journals lie
    output: cost.csv
    """
    found, older = newest([row for path in _journals(state_root) if (row := row_of(path.parent))])
    write_csv(output, COLUMNS, found)
    if older:
        print(f"{len(older)} older runs of the same names are not in {output}: {', '.join(older)}", file=sys.stderr)


def _journals(root: Path) -> list[Path]:
    return sorted(Path(root).rglob(tracking.JOURNAL))


def row_of(folder: Path) -> dict | None:
    """The row of one piece of work, by the name that it was asked for; None of what was only a try of `tuning.csv`."""
    row = cost(tracking.read(folder))
    names = {row["run"]: row["began"]} | tracking.asked(folder) if row else {}
    own = [name for name in names if not TRY.fullmatch(name.removeprefix("finetune-"))]
    last = max(own, key=names.get, default=None)
    return row | {"run": last, "asked": names[last]} if own else None


def newest(rows: list[dict]) -> tuple[list[dict], list[str]]:
    """The run of each name that was asked for last, in the order in which stages and runs began; and the names of the others."""
    kept: dict[tuple, dict] = {}
    for row in sorted(rows, key=lambda row: row["asked"]):
        kept[row["stage"], row["run"]] = row
    ordered = sorted(kept.values(), key=lambda row: row["began"])
    stages = list(dict.fromkeys(row["stage"] for row in ordered))
    older = sorted(row["run"] for row in rows if row is not kept[row["stage"], row["run"]])
    return sorted(ordered, key=lambda row: stages.index(row["stage"])), older


def cost(lines: list[dict]) -> dict | None:
    """The row of one journal; None of one that a kill left without its first line."""
    if not lines or "stage" not in lines[0]:
        return None
    head, end = lines[0], next((line for line in lines if "end" in line), {})
    seconds, again = tracking.seconds(lines), sum("again" in line for line in lines)
    trained = {"training.micro_batch", "steps"} & set(
        head["params"]
    )  # elsewhere a journal's step is a chunk, or a point
    steps = max((line.get("step", 0) for line in lines), default=0) if trained else 0
    steps = steps or _number(head["params"], "steps")
    values = [line["values"] for line in lines if "values" in line]
    answered = max((line.get("answered", 0) for line in values), default=0)
    rows = answered or (steps or 0) * (_batch(head["params"]) or 0)
    rate = rows / seconds if rows and seconds > 0 else None
    return {
        "stage": head["stage"], "run": head["name"], "began": head["time"], "seconds": seconds, "stretches": 1 + again,
        "steps": int(steps) if steps else None, "rows_per_second": rate, "flops": flops.total(values, steps, answered),
        "peak_memory_mb": end.get("peak_memory_mb"), "gpu_memory_mb": end.get("gpu_memory_mb"),
        "device": end.get("device"), "status": end.get("end", "UNFINISHED"),
    }  # fmt: skip


def _batch(params: dict[str, str]) -> float | None:
    """Rows of one step: a training's micro-batches in all processes, or a backbone's `batch`."""
    if "training.micro_batch" not in params:
        return _number(params, "batch")
    parts = [_number(params, f"training.{name}") or 1 for name in ("micro_batch", "accumulate", "processes")]
    return parts[0] * parts[1] * parts[2]


def _number(params: dict[str, str], name: str) -> float | None:
    try:
        return float(params[name])
    except (KeyError, ValueError):
        return None


if __name__ == "__main__":
    flags.main(costs)
