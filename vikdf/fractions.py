"""The nested fractions of a dialogue set: full > quarter > eighth > zero.

In: the rows of one split (DIALOGUES), whose `position` is a seeded order. Out: those that stand first in it. It reads no
published form, so that tuning does not depend on the code that does.
"""

import pyarrow as pa
import pyarrow.compute as pc

FRACTIONS = {"full": 1, "quarter": 1 / 4, "eighth": 1 / 8, "zero": 0}


def fraction(table: pa.Table, name: str) -> pa.Table:
    """The named fraction of one split's rows: those that come first in its seeded order."""
    if name not in FRACTIONS:
        raise ValueError(f"unknown fraction {name!r}: expected one of {', '.join(FRACTIONS)}")
    return table.filter(pc.less(table["position"], pa.scalar(FRACTIONS[name] * table.num_rows)))
