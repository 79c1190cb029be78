"""Numbers and tables as a person reads them on a screen, for vikdf.plan.

table(["part", "bytes"], [["weights", short(1_234_567)]])  # lines, words to the left and numbers to the right
"""

GIB = 2**30


def table(titles: list[str], rows: list[list[str]]) -> list[str]:
    """Lines of a table: words to the left, numbers to the right."""
    wide = [max(len(row[i]) for row in [titles, *rows]) for i in range(len(titles))]
    lines = [f"{row[0]:<{wide[0]}}" + "".join(f"  {cell:>{width}}" for cell, width in zip(row[1:], wide[1:], strict=True))
             for row in [titles, *rows]]  # fmt: skip
    return [line.rstrip() for line in [lines[0], "-" * len(lines[0]), *lines[1:]]]


def short(count: float, decimals: int = 2) -> str:
    """1234567 -> 1.23 M."""
    if not count:
        return "-"
    for power, letter in ((15, "P"), (12, "T"), (9, "G"), (6, "M"), (3, "k")):
        if abs(count) >= 10**power:
            return f"{count / 10**power:,.{decimals}f} {letter}"
    return f"{count:,.0f}  "


def memory_of(count: float) -> str:
    """Bytes, in powers of two as GPUs are sold."""
    return f"{count / GIB:,.2f} GiB" if count >= GIB / 10 else f"{count / 2**20:,.2f} MiB"


def many(count: int, what: str) -> str:
    return f"{count:,} {what}" if count == 1 else f"{count:,} {what}{'es' if what.endswith('s') else 's'}"


def time_of(seconds: float) -> str:
    if seconds < 1:
        return "< 1 s"
    return (
        f"{seconds / 3600:,.1f} h"
        if seconds >= 3600
        else f"{seconds / 60:,.1f} min"
        if seconds >= 60
        else f"{seconds:.0f} s"
    )
