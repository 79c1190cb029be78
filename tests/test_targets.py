"""Targets beside table 1: each asks for what it names and for nothing more, and results/all says what every file's bytes are."""

import re
import subprocess
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parent.parent
VALUES = yaml.safe_load((ROOT / "params.yaml").read_text())
RULES = (ROOT / "workflow/cases.smk").read_text()


def planned(target: str) -> set[str]:
    """The runs whose scores the target asks for: <system>-<fraction>-s<seed>."""
    command = ["snakemake", "--cores", "1", "--dry-run", "--forceall", "--", target]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    outputs = re.findall(r"^    output: (.*)$", done.stdout + done.stderr, flags=re.M)
    found = [re.search(r"results/evaluate/([\w-]+)\.parquet", line) for line in outputs]
    return {one[1] for one in found if one}


def test_core_makes_every_row_of_its_systems_and_no_other():
    systems = VALUES["finetune"]["systems"] | VALUES["baselines"]
    wanted = {f"{name}-{part}-s1" for name in VALUES["tables"]["core"] for part in systems[name]["fractions"]}
    assert planned("core") == wanted


def test_evidence_repeats_the_systems_that_its_contrasts_name_and_no_other():
    named = {pair[side] for pair in VALUES["evidence"]["contrasts"].values() for side in ("a", "b")}
    assert planned("results/evidence.csv") == {
        f"{name}-zero-s{n}" for name in named for n in VALUES["evidence"]["seeds"]
    }


def test_results_all_asks_for_every_table_and_figure_of_the_paper():
    rule = RULES[RULES.index("rule everything:") :]
    assert all(f"results/{name}" in rule for name in ("table1", "table{number}", "figure{number}"))
    assert "(3, 4)" in rule and "(5, 6, 7)" in rule  # table 2 is people's, not a job's


@pytest.fixture
def listed(tmp_path) -> Path:
    """results/all as the rule's own command makes it of two files."""
    (tmp_path / "results").mkdir()
    paths = ["results/table1.csv", "results/figure5.svg"]
    for path in paths:
        (tmp_path / path).write_text(path)
    command = re.search(r'"(sha256sum [^"]+)"', RULES)[1].replace("{input:q}", " ".join(paths))
    line = command.replace("{output:q}", "results/all").replace("{log:q}", "log")
    subprocess.run(["bash", "-c", line], cwd=tmp_path, check=True)
    return tmp_path


@pytest.mark.parametrize("spoiled", [False, True])
def test_what_results_all_lists_can_be_checked_with_sha256sum(listed, spoiled):
    if spoiled:
        (listed / "results/table1.csv").write_text("another run")
    done = subprocess.run(["sha256sum", "-c", "results/all"], cwd=listed, capture_output=True, text=True)
    assert (done.returncode == 0) is not spoiled
    assert "results/figure5.svg: OK" in done.stdout
