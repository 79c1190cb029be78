"""The filter's caption rules as shipped, on drawn web captions: ours against the same rules in plain pandas.

Both read the same parquet, decide on each caption and write its key and reason; each in its own child process, in turn,
on the same machine. pandas uses one thread; ours may use two (vikdf/__init__.py), so CPU seconds are what counts (a
child's, imports and all). Ours reads PAIRS with a list of captions, pandas the same captions as a plain column. The
reasons must agree row by row.
Run: python -m benchmarks.filter [--rows 2000000] [--rounds 3]; the last line gives the ratio.
     python -m benchmarks.filter --alone true --rows 10000000: ours alone, streamed; stops above 2 GB.
"""

import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

from vikdf import flags, params

ROOT = Path(__file__).resolve().parent.parent
LIMIT = 2000  # MB that ours may take, however long the list is


def ours(rows: Path, output: Path, asked: dict) -> None:
    from vikdf.filter import __main__ as filter
    from vikdf.filter import rules

    with tempfile.TemporaryDirectory(dir=output.parent) as folder:
        verdicts = filter.judge_captions([rows], rules.prepared(asked), Path(folder))
        filter.write_verdicts([rows], verdicts, output)


def plain(rows: Path, output: Path, asked: dict) -> None:
    from benchmarks import plain_filter

    plain_filter.plain(rows, output, asked)


def child(side: str, rows: str, output: str) -> None:
    """One side in this process; prints its CPU and wall seconds and the most memory it took, in MB."""
    start = time.perf_counter()
    {"ours": ours, "plain": plain}[side](Path(rows), Path(output), params.load(ROOT / "params.yaml")["filter"])
    used = resource.getrusage(resource.RUSAGE_SELF)
    told = {
        "cpu": used.ru_utime + used.ru_stime,
        "wall": time.perf_counter() - start,
        "MB": used.ru_maxrss * 1024 / 1e6,
    }
    print(json.dumps(told))


def measured(side: str, rows: Path, output: Path) -> dict:
    call = f"from benchmarks import filter; filter.child({side!r}, {str(rows)!r}, {str(output)!r})"
    done = subprocess.run([sys.executable, "-c", call], capture_output=True, text=True, cwd=ROOT)
    if done.returncode:
        sys.exit(f"{side} failed:\n{done.stderr}")
    told = json.loads(done.stdout.splitlines()[-1])
    print(f"{side}: {told['cpu']:.2f} CPU s, {told['wall']:.2f} s, at most {told['MB']:.0f} MB", flush=True)
    return told


def compare(one: Path, other: Path) -> None:
    """Stops unless both sides gave every row the same reason; tells how many each has."""
    import polars as pl

    found = [pl.read_parquet(path, columns=["key", "reason"]) for path in (one, other)]
    if not found[0].equals(found[1]):
        both = found[0].join(found[1], on="key").filter(pl.col("reason") != pl.col("reason_right"))
        sys.exit(f"ours and plain give {len(both)} rows another reason, such as {both.row(0) if len(both) else 'none'}")
    counts = found[0].group_by("reason").len().sort("len", descending=True)
    print("; ".join(f"{reason or 'kept'} {count:,}" for reason, count in counts.iter_rows()))


def main(*, rows: int = 2_000_000, rounds: int = 3, alone: bool = False) -> None:
    """Times the caption rules against plain pandas, and measures both sides' memory.

    rows: captions
    rounds: repetitions; the medians count
    alone: ours only, once, to see its memory
    """
    with tempfile.TemporaryDirectory() as folder:
        drawn, outputs = Path(folder) / "rows.parquet", {side: Path(folder) / side for side in ("ours", "plain")}
        draw = (
            f"from pathlib import Path; from benchmarks import captions; captions.write(Path({str(drawn)!r}), {rows})"
        )
        subprocess.run([sys.executable, "-c", draw], check=True, cwd=ROOT)  # its memory is no part of this
        if alone:
            most = measured("ours", drawn, outputs["ours"])["MB"]
            print(f"filter {rows:,} rows, streamed: at most {most:.0f} MB of {LIMIT}")
            sys.exit(most > LIMIT)
        told = {side: [] for side in outputs}
        for _ in range(rounds):
            for side, output in outputs.items():
                told[side].append(measured(side, drawn, output))
            compare(*outputs.values())
    middle = {side: {key: median(each[key] for each in found) for key in found[0]} for side, found in told.items()}
    a, b = middle["ours"], middle["plain"]
    print(f"wall: {b['wall'] / a['wall']:.1f}x  ours {a['wall']:.2f} s (two threads)  plain {b['wall']:.2f} s")
    print(f"memory: {a['MB'] / b['MB']:.2f} of plain's  ours {a['MB']:.0f} MB  plain {b['MB']:.0f} MB")
    print(f"filter {b['cpu'] / a['cpu']:.1f}x  ours {a['cpu']:.2f} CPU s  plain {b['cpu']:.2f} CPU s")


if __name__ == "__main__":
    flags.main(main)
