"""A figure has the same bytes wherever it is drawn.

In: a figure whose layout ends a hair off, as matplotlib's solver does in some processes. Out: nothing.
"""

import io

import matplotlib
import pytest
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from vikdf import drawn


class Off(ConstrainedLayoutEngine):
    """Lays out as ever, and a hair off."""

    hair = 0.0

    def execute(self, figure):
        super().execute(figure)
        for panel in figure.axes:
            panel._set_position([share + self.hair for share in panel.get_position().bounds])


def svg(hair: float) -> str:
    layout, text = Off(), io.StringIO()
    layout.hair = hair
    with matplotlib.rc_context({"svg.hashsalt": "vikdf", "svg.fonttype": "none"}):
        figure = Figure(figsize=(4, 3), layout=layout)
        for panel in figure.subplots(1, 2):
            panel.plot([1, 2, 3], [3, 1, 2], label="a curve")
            panel.set_ylabel("a long name")
        figure.supxlabel("what is shown")
        drawn.save(figure, text)
    return text.getvalue()


@pytest.mark.parametrize("hair", [1e-13, -1e-12])
def test_the_last_bits_of_a_layout_change_nothing(hair):
    assert svg(hair) == svg(0.0) and "<dc:date>" not in svg(0.0)


def test_a_layout_that_differs_is_seen():
    assert svg(0.01) != svg(0.0)
