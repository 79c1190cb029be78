"""What `snakemake --report` makes of the outputs that the rules flag: one page with every caption, fetched from nowhere."""

import os
import re
import subprocess
from pathlib import Path

import pytest
from test_workflow import copied

ROOT = Path(__file__).resolve().parent.parent
RULES = sorted(ROOT.glob("workflow/**/*.smk"))
FLAGGED = re.compile(r'report\(\s*"([\w/.{}-]+)",\s*caption="([\w/.]+)",\s*category="([\w ]+)",?\s*\)')


def flagged() -> list[tuple[str, Path]]:
    """Each flagged output with the file of its caption."""
    return [
        (output, (rules.parent / caption).resolve())
        for rules in RULES
        for output, caption, _ in FLAGGED.findall(rules.read_text())
    ]


def test_every_caption_belongs_to_an_output_and_every_flagged_output_has_its_caption():
    captions = {path for _, path in flagged()} | {ROOT / "workflow/report/workflow.rst"}
    assert captions == set(ROOT.glob("workflow/report/*.rst"))
    flags = sum(len(re.findall(r"\breport\($|\breport\(\"", rules.read_text(), flags=re.M)) for rules in RULES)
    assert flags == len(flagged())  # none is written in a way that this test does not read


@pytest.fixture(scope="module")
def page(tmp_path_factory) -> str:
    """Snakemake's report of a tree in which every flagged output is there; proxies that lead nowhere stop any fetching."""
    place = copied(tmp_path_factory.mktemp("report") / "tree", "tiny")
    outputs = [output for output, _ in flagged()]
    for output in outputs:
        (place / output).parent.mkdir(parents=True, exist_ok=True)
        (place / output).write_text("<svg/>")
    nowhere = dict.fromkeys(("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"), "http://127.0.0.1:9")
    command = ["snakemake", "--cores", "1", "--report", "page.html", *outputs]
    done = subprocess.run(command, cwd=place, capture_output=True, text=True, env=os.environ | nowhere)
    assert done.returncode == 0, done.stderr[-3000:]
    return (place / "page.html").read_text()


def test_the_page_holds_every_flagged_output_with_its_caption(page):
    for output, caption in flagged():
        first = re.split(r"[^\w ,:.]", caption.read_text())[0].splitlines()[0]  # up to the first word that is marked up
        assert f'"{output}": ' in page and first in page, output


def test_the_page_names_the_seeds_of_the_run(page):
    assert "Seeds:\n1." in page.split("var workflow_desc")[1][:1000].replace("\\n", "\n")
