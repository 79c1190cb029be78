"""A figure as an SVG that has the same bytes wherever it is drawn.

with rc_context({"svg.hashsalt": ...}):
    drawn.save(figure, path)
"""


def save(figure, path) -> None:
    """Lays the figure out, rounds where its panels came to lie, and writes it without a date.

    matplotlib's solver ends with other last bits in another process, and the SVG's names are digests of them.
    """
    figure.draw_without_rendering()
    figure.set_layout_engine("none")
    for panel in figure.axes:
        panel.set_position([round(share, 6) for share in panel.get_position().bounds])
    figure.savefig(path, format="svg", metadata={"Date": None, "Creator": None})
