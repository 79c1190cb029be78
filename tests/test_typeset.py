"""typeset: Table 1 as LaTeX and Markdown, marked; LaTeX itself compiles it where it is installed."""

import functools
import itertools
import re
import shutil
import subprocess

import pytest
import small_tables
from small_tables import scores, verdict

from vikdf import tracking
from vikdf.marks import marks
from vikdf.means import METRICS, PER_WORD
from vikdf.typeset import escaped, short

ALONE = r"\documentclass{article}\usepackage{booktabs}\begin{document}\input{table1}\end{document}"


@pytest.fixture
def made(tmp_path, monkeypatch):
    monkeypatch.setattr(tracking, "send", lambda folder, store: None)
    return functools.partial(small_tables.made, tmp_path)


def several():
    """Both tasks, two systems, a control, two seeds, a name and numbers of every length."""
    systems = (("vikdf", 70.0), ("llm_zero_shot", 60.0), ("random", 50.0))
    return [
        scores(system, "zero", seed, at + seed, task=task)
        for task in ("reddit", "image_chat")
        for system, at in systems
        for seed in (1, 2)
    ]


VERDICTS = [verdict("vikdf", "zero", "bleu1", significant="yes"), verdict("vikdf", "zero", "rouge_l", p_paper=0.01)]


def row(system, value, data="zero", task="reddit"):
    return {"task": task, "system": system, "data": data} | dict.fromkeys([*METRICS, PER_WORD], value)


def test_bold_underline_star_and_dagger_stand_in_the_latex_table(made):
    text = (made(several(), verdicts=VERDICTS) / "table1.tex").read_text()
    found = [line for line in text.splitlines() if line.startswith(r"\texttt{vikdf} &")][1].split(
        " & "
    )  # of Image-Chat
    assert found[3:6] == [
        r"\underline{71.50}",  # PPL: lower is better
        r"\textbf{72.50}$^{*}$",
        r"\textbf{73.50}$^{\dagger}$",
    ]


def test_every_row_of_the_latex_table_has_as_many_cells_as_its_head(made):
    text = (made(several()) / "table1.tex").read_text()
    body = re.search(r"\\toprule\n(.*)\\bottomrule", text, flags=re.S).group(1)
    lines = [line for line in body.splitlines() if line.endswith(r"\\") and "multicolumn" not in line]
    assert len(lines) == 1 + 2 * 3 * 2 and {line.count(" & ") for line in lines} == {10}


@pytest.mark.skipif(
    not shutil.which("pdflatex"), reason="pdflatex is not installed (Debian: texlive-latex-recommended)"
)
def test_latex_compiles_the_table_and_nothing_overflows_the_page(made):
    shares = itertools.product(("reddit", "image_chat"), ("vikdf", "llm_lora", "random"), ("full", "quarter", "eighth"))
    more = [scores(system, data, seed, 60.0 + seed, task=task) for task, system, data in shares for seed in (1, 2)]
    folder = made([*several(), *more], verdicts=VERDICTS)  # 24 rows of two lines: the demo's table has 22
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "-no-shell-escape", "-jobname", "alone", ALONE]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, errors="replace")
    assert done.returncode == 0, done.stdout[-2000:]
    assert (folder / "alone.pdf").stat().st_size > 10_000
    log = (folder / "alone.log").read_text(errors="replace")
    assert "Overfull" not in log and "too large" not in log  # a float that is higher than its page is cut off


def test_what_latex_reads_as_a_command_is_told_as_text():
    said = r"50 % of \input{x} & #1 costs $5_{a}^b ~ `llm_lora` \* **best**"
    assert escaped(said) == (
        r"50 \% of \textbackslash{}input\{x\} \& \#1 costs \$5\_\{a\}\textasciicircum{}b \textasciitilde{} "
        r"\texttt{llm\_lora} * best"
    )


def test_counts_of_parameters_are_short_as_in_the_paper():
    assert [short(count) for count in (0, 950, 24_000, 159_000_000, 6_740_000_000)] == [
        "0",
        "950",
        "24k",
        "159M",
        "6.74B",
    ]


def test_values_that_are_printed_alike_share_the_mark():
    rows = [row("a", 1.001), row("b", 1.004), row("c", 0.5), row("d", 0.2)]
    found = marks(rows, [], controls={}, alpha=0.05)
    assert [found["reddit", name, "zero", "bleu1"] for name in "abcd"] == [{"best"}, {"best"}, {"second"}, set()]
    assert [found["reddit", name, "zero", "ppl"] for name in "abcd"] == [set(), set(), {"second"}, {"best"}]


def test_controls_and_tasks_are_ranked_apart():
    rows = [row("a", 1.0), row("b", 2.0), row("c", 9.0), row("d", 8.0), row("a", 9.0, task="image_chat")]
    found = marks(rows, [], controls={"c": "", "d": ""}, alpha=0.05)
    assert found["reddit", "b", "zero", "bleu1"] == {"best"} and found["reddit", "c", "zero", "bleu1"] == {"best"}
    assert found["image_chat", "a", "zero", "bleu1"] == set()  # alone in its block: nothing to be better than


def test_what_is_not_better_has_no_star_whatever_the_file_says():
    rows = [row("a", 1.0), row("b", 2.0)]
    verdicts = [verdict("a", "zero", "bleu1", better="no", significant="yes", p_paper="0.001", task="reddit")]
    assert marks(rows, verdicts, controls={}, alpha=0.05)["reddit", "a", "zero", "bleu1"] == {"second"}
