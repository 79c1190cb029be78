"""Table 1 to read and to print: rows, marks and intervals in, Markdown and LaTeX out.

    markdown(head, rows)                               # lines of any table
    page(means, probed, marked, ranges, about, notes)  # table1.md
    tex(means, marked, about, notes)                   # table1.tex: \\input it where the package booktabs is loaded

about = (systems, controls), each name -> one line; notes = what stands below the table (`vikdf.tables.notes`).
"""

import re

from vikdf.means import BESIDE, MEASURES, METRICS, TASKS, TITLES

PROBED = (
    "Probe: a reply is right if it states the right value and no other; the majority guess always gives the commonest value. "
    "In brackets: intervals over nouns."
)
SIGNS = {"significant": r"\*", "paper_only": "†"}
SPECIAL = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "±": r"$\pm$"}
SPECIAL |= {"<": r"\textless{}", ">": r"\textgreater{}", "†": r"$^{\dagger}$", "|": r"\textbar{}"}
SPECIAL |= {sign: f"\\{sign}" for sign in "&%$#_{}"}


def markdown(head: list[str], rows: list[list[str]], left: int = 1) -> list[str]:
    """A Markdown table; the first `left` columns stand at the left, numbers at the right."""
    line = ["---"] * left + ["---:"] * (len(head) - left)
    return [f"| {' | '.join(row)} |" for row in [head, line, *rows]]


def blocks(means: list[dict], controls) -> list[tuple[str, list[dict]]]:
    """Each task's systems and, apart, its controls, with a heading; empty ones are left out."""
    made = []
    for task, title in TASKS.items():
        here = [row for row in means if row["task"] == task]
        made.append((title, [row for row in here if row["system"] not in controls]))
        made.append((f"{title}: controls", [row for row in here if row["system"] in controls]))
    return [(title, rows) for title, rows in made if rows]


def page(means: list[dict], probed: list[dict], marked: dict, ranges: dict, about: tuple, notes: list[str]) -> str:
    """table1.md: each task, its controls apart, the probe, intervals, and what a reader must know to trust the numbers."""
    lines, parts = ["# Table 1", ""], blocks(means, about[1])
    for title, rows in parts:
        lines += [f"## {title}", "", *_block(rows, marked), ""]
    for nouns, title in (("heldout", "held-out nouns"), ("seen", "seen nouns")):
        block = [row for row in probed if row["nouns"] == nouns]
        lines += [f"## Probe: {title}", "", *_probe_block(block, ranges), ""] if block else []
    for title, rows in parts:
        lines += [f"## Intervals: {title}", "", *_interval_block(rows, ranges), ""]
    for title, rows in parts:
        lines += [f"## Beside Table 1: {title}", "", *_beside_block(rows), ""]
    lines += ["## Notes", "", *(f"- `{name}`: {text}" for name, text in described(means, about))]
    lines += [f"- {note}" for note in [*notes, *([PROBED] if probed else [])]]
    return "\n".join(lines) + "\n"


def described(means: list[dict], about: tuple) -> list[tuple[str, str]]:
    there = {row["system"] for row in means}
    return [(name, text) for names in about for name, text in names.items() if name in there]


def _block(rows: list[dict], marked: dict) -> list[str]:
    lines = []
    for row in rows:
        cells = [row["system"], row["data"], row["images"], f"{row['tuned_params']:,}"]
        lines.append([*cells, *(_cell(row, name, marked) for name in METRICS)])
    return markdown(["system", "data", "images", "tuned parameters", *TITLES.values()], lines, left=3)


def _cell(row: dict, name: str, marked: dict) -> str:
    """**12.34**\\* ± 0.10: bold best, italic second, star, spread over seeds."""
    if row[name] is None:
        return "-"
    found = marked[row["task"], row["system"], row["data"], name]
    around = "**" if "best" in found else "*" if "second" in found else ""
    sign = "".join(text for mark, text in SIGNS.items() if mark in found)
    return f"{around}{row[name]:.2f}{around}{sign}{_spread(row, name)}"


def _spread(row: dict, name: str) -> str:
    return "" if row[f"{name}_sd"] is None else f" ± {row[f'{name}_sd']:.2f}"


def _interval_block(rows: list[dict], ranges: dict) -> list[str]:
    """A line a row for the interval over the examples; one more for that over the seeds, where there are several."""
    lines = []
    for row in rows:
        found = {name: ranges.get((row["task"], row["system"], row["data"], name), {}) for name in METRICS}
        for over, low, high in (("examples", "low", "high"), ("seeds", "t_low", "t_high")):
            cells = [_between(each.get(low), each.get(high), 2) or "-" for each in found.values()]
            if over == "examples" or set(cells) != {"-"}:
                lines.append([row["system"], row["data"], over, *cells])
    return markdown(["system", "data", "over", *TITLES.values()], lines, left=3)


def _between(low: float | None, high: float | None, decimals: int) -> str:
    return "" if low is None or high is None else f"{low:.{decimals}f} to {high:.{decimals}f}"


def _beside_block(rows: list[dict]) -> list[str]:
    there = {name: title for name, title in BESIDE.items() if any(row[name] is not None for row in rows)}
    lines = [
        [row["system"], row["data"]]
        + ["-" if row[name] is None else f"{row[name]:.2f}{_spread(row, name)}" for name in there]
        for row in rows
    ]
    return markdown(["system", "data", *there.values()], lines, left=2)


def _probe_block(rows: list[dict], ranges: dict) -> list[str]:
    lines = []
    for row in rows:
        cells = [row["system"], row["data"], row["attribute"], str(row["n"])]
        for name in MEASURES:
            found = ranges.get(("probe", row["system"], row["data"], f"{row['attribute']}_{name}_{row['nouns']}"), {})
            between = (
                _between(found.get("low"), found.get("high"), 2) if name.endswith(("_all", "cloze_accuracy")) else ""
            )
            cells.append("-" if row[name] is None else f"{row[name]:.2f}" + (between and f" ({between})"))
        lines.append(cells)
    return markdown(["system", "data", "attribute", "n", *MEASURES.values()], lines, left=3)


HOW = r"""% Load the package booktabs and \input{table1} where the table shall stand. To look at it alone:
% pdflatex -jobname table1_alone '\documentclass{article}\usepackage{booktabs}\begin{document}\input{table1}\end{document}'
\begin{table*}
\centering\scriptsize\setlength{\tabcolsep}{1.6pt}
\caption{Automatic evaluation. Bold: best of its block; underlined: second best; *: significantly better than the best row
of any other system of the block. How this is tested, and what it does not say: see the notes to this table.}\smallskip
\begin{tabular}{@{}ll*{9}{r}@{}}
\toprule"""


def tex(means: list[dict], marked: dict, about: tuple, notes: list[str]) -> str:
    """table1.tex: the blocks of table1.md as one table; after it, where a page may break, what a reader must know."""
    heads = ["Methods", "Data", "Tuned", *TITLES.values()]
    lines = [HOW, " & ".join(heads) + r" \\"]
    for title, rows in blocks(means, about[1]):
        lines += [r"\midrule", rf"\multicolumn{{{len(heads)}}}{{@{{}}l}}{{\textit{{{escaped(title)}}}}} \\"]
        for row in rows:
            first = [rf"\texttt{{{escaped(row['system'])}}}", escaped(row["data"]), short(row["tuned_params"])]
            lines.append(" & ".join([*first, *(_tex_cell(row, name, marked) for name in METRICS)]) + r" \\")
            if row["seeds"] > 1:  # below the means: beside them eight columns would not fit the page
                lines.append(" & ".join(["", "", "", *(_tex_spread(row, name) for name in METRICS)]) + r" \\")
    lines += [r"\bottomrule", r"\end{tabular}", r"\end{table*}", r"\begingroup\scriptsize\raggedright\parindent0pt"]
    lines += [r"Notes to the table of the automatic evaluation.\par"]
    texts = [rf"\texttt{{{escaped(name)}}}: {escaped(text)}." for name, text in described(means, about)]
    lines += [f"{text}\\par" for text in [*texts, *(escaped(note) for note in notes)]]
    return "\n".join([*lines, r"\endgroup"]) + "\n"


def _tex_cell(row: dict, name: str, marked: dict) -> str:
    if row[name] is None:
        return "--"
    found, text = marked[row["task"], row["system"], row["data"], name], f"{row[name]:.2f}"
    text = rf"\textbf{{{text}}}" if "best" in found else rf"\underline{{{text}}}" if "second" in found else text
    return text + "$^{*}$" * ("significant" in found) + r"$^{\dagger}$" * ("paper_only" in found)


def _tex_spread(row: dict, name: str) -> str:
    return "" if row[f"{name}_sd"] is None else rf"\tiny$\pm${row[f'{name}_sd']:.2f}"


def escaped(text: str) -> str:
    """Text for LaTeX; `code` of Markdown becomes typewriter."""
    plain = "".join(SPECIAL.get(sign, sign) for sign in text.replace(r"\*", "*").replace("**", ""))
    return re.sub("`([^`]*)`", r"\\texttt{\1}", plain)


def short(count: int) -> str:
    """159,000,000 -> 159M, as the paper tells the tuned parameters."""
    for size, unit in ((10**9, "B"), (10**6, "M"), (10**3, "k")):
        if count >= size:
            return f"{count / size:.3g}{unit}"
    return str(count)
