"""The probe: which share of all answers states the right look of a thing, at zero data, systems and controls.

In: rows of probe.csv and of intervals.csv. Out: probe.svg. Run: by vikdf/figures/__main__.py.
Filled: nouns whose looks no text told (held out), with their interval over nouns; hollow: seen nouns; dotted: who always
says the commonest value.
"""

from pathlib import Path

from vikdf.figures import style

TITLE = "Probe: right answers about looks, zero data"
MEASURE = "accuracy_all"
NOUNS = {"heldout": "held-out nouns", "seen": "seen nouns"}


def draw(rows: list[dict], path: Path, intervals: list[dict], order: list[str]) -> None:
    """A panel an attribute, a row a system."""
    rows = [row for row in rows if row["data"] == "zero" and row[MEASURE] is not None]
    if not rows:
        return style.nothing(path, "probe", TITLE, "these dialogues have no probe")
    attributes = list(dict.fromkeys(row["attribute"] for row in rows))
    there = {row["system"] for row in rows}
    names = [*(name for name in order if name in there), *sorted(there - set(order))]
    bounds = {
        (r["system"], r["metric"]): (r["low"], r["high"])
        for r in intervals
        if r["task"] == "probe" and r["data"] == "zero"
    }
    height = 0.7 + (0.5 + 0.17 * len(names)) * -(-len(attributes) // 2)
    with style.figure(path, "probe", title=TITLE, about=_told(rows), height=height) as made:
        shown = style.panels(made, len(attributes), sharex=True, sharey=True)
        for panel, attribute in zip(shown, attributes, strict=False):
            here = [row for row in rows if row["attribute"] == attribute]
            style.bare(panel, f"{attribute} ({_count(here)})")
            _rows(panel, here, bounds, names)
            panel.tick_params(labelbottom=True)
        handles = {label: handle for handle, label in zip(*shown[0].get_legend_handles_labels(), strict=True)}
        made.legend(handles.values(), handles.keys(), loc="outside upper left", ncols=3)
        made.supxlabel("right answers, share of all (0 to 1); bars: interval over nouns", fontsize=8)


def _rows(panel, rows: list[dict], bounds: dict, names: list[str]) -> None:
    colors = {"heldout": style.GOOD, "seen": style.BAD}
    for row in rows:
        place, kind = names.index(row["system"]), row["nouns"]
        low, high = bounds.get((row["system"], f"{row['attribute']}_{MEASURE}_{kind}"), (None, None))
        at = place + (0 if kind == "heldout" else 0.25)
        if low is not None and high is not None:
            panel.plot([low, high], [at, at], color=colors[kind], linewidth=1.2)
        face = colors[kind] if kind == "heldout" else "none"
        marker = {"marker": "o" if kind == "heldout" else "D", "markerfacecolor": face, "linestyle": "none"}
        panel.plot(row[MEASURE], at, color=colors[kind], label=NOUNS[kind], **marker)
    floors = [row["floor"] for row in rows if row["nouns"] == "heldout" and row["floor"] is not None]
    if floors:
        panel.axvline(floors[0], color=style.PLAIN, linestyle=":", label="commonest value (held out)")
    panel.set_yticks(range(len(names)), names)
    panel.set_ylim(len(names) - 0.4, -0.5)
    panel.set_xlim(-0.03, 1.03)


def _count(rows: list[dict]) -> str:
    counts = {row["nouns"]: row["n"] for row in rows}
    return ", ".join(f"{counts[kind]:.0f} {kind.replace('heldout', 'held out')}" for kind in NOUNS if kind in counts)


def _told(rows: list[dict]) -> str:
    held = [row for row in rows if row["nouns"] == "heldout"]
    parts = [f"{row['system']} {row['attribute']} {row[MEASURE]:.2f}" for row in held]
    return f"Right of all, held-out nouns: {', '.join(parts)}."
