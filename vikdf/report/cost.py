"""What the run cost, stage by stage and job by job. In: rows of cost.csv. Out: two tables and the sum."""

from vikdf.report.rows import duration, figure

COLUMNS = {
    "steps": "steps",
    "rows_per_second": "rows a second",
    "flops": "FLOPs",
    "peak_memory_mb": "peak memory, MB",
    "device": "device",
}


def stages(rows: list[dict]) -> list[dict]:
    """A line a stage: jobs, time of all, the longest, the most memory."""
    made = []
    most = max((_sum(rows, stage) for stage in _names(rows)), default=0) or 1
    for stage in _names(rows):
        here = [row for row in rows if row["stage"] == stage]
        longest = max((row["seconds"] for row in here if row["seconds"] is not None), default=None)
        memory = max((row["peak_memory_mb"] for row in here if row.get("peak_memory_mb") is not None), default=None)
        made.append({
            "stage": stage, "jobs": figure(len(here)), "time": duration(_sum(rows, stage)), "longest": duration(longest),
            "memory": figure(memory, 0), "flops": _shown("flops", _flops(here)), "share": round(100 * _sum(rows, stage) / most, 1),
        })  # fmt: skip
    return made


def jobs(rows: list[dict]) -> dict:
    shown = {name: said for name, said in COLUMNS.items() if any(row.get(name) not in (None, "") for row in rows)}
    lines = [
        [row["stage"], row["run"], duration(row["seconds"]), *(_shown(name, row.get(name)) for name in shown)]
        for row in rows
    ]
    return {"head": ["stage", "job", "time", *shown.values()], "rows": lines, "texts": 2}


def _shown(name: str, value) -> str:
    """FLOPs by their power of ten; everything else in whole numbers."""
    return figure(value, 0) if name != "flops" else "" if value is None else f"{value:.2e}"


def total(rows: list[dict]) -> str:
    return duration(sum(row["seconds"] or 0 for row in rows))


def _flops(rows: list[dict]) -> float | None:
    """Of the jobs that were measured."""
    found = [row["flops"] for row in rows if row.get("flops") is not None]
    return sum(found) if found else None


def _names(rows: list[dict]) -> list[str]:
    return list(dict.fromkeys(row["stage"] for row in rows))


def _sum(rows: list[dict], stage: str) -> float:
    return sum(row["seconds"] or 0 for row in rows if row["stage"] == stage)
