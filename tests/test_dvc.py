"""dvc.yaml says of each stage what its rules say: the same rules, inputs, outputs and params."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from test_seals import flip

ROOT = Path(__file__).resolve().parent.parent
STAGES = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]

OWN_TARGETS = {  # rules beside what their stage makes: DVC does not keep their products
    "cost": "results/cost.csv",
    "figures": "results/figures/cost.svg",
    "report": "results/report.html",
    "evidence": "results/evidence.csv",
    "table3": "results/table3.csv",
    "table4": "results/table4.csv",
    "figure7": "results/figure7.svg",
    "figure5": "results/figure5.svg",
    "figure6": "results/figure6.svg",
    "everything": "results/all",
}


@pytest.fixture(scope="module")
def jobs() -> list[dict]:
    """Every job of the whole DAG, targets of their own included, as Snakemake itself plans it: rule, inputs, outputs."""
    whole_stages = re.findall(r"^rule (\w+_all):", (ROOT / "workflow/targets.smk").read_text(), flags=re.M)
    targets = ["all", *whole_stages, *OWN_TARGETS.values()]
    command = ["snakemake", "--cores", "1", "--dry-run", "--forceall", "--", *targets]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    found = []
    for block in re.split(r"\n(?=(?:local)?rule \w+:)", done.stdout + done.stderr)[1:]:
        lines = {key: re.search(rf"^    {key}: (.*)$", block, flags=re.M) for key in ("input", "output")}
        paths = {key: line.group(1).split(", ") if line else [] for key, line in lines.items()}
        found.append({"rule": re.match(r"(?:local)?rule (\w+):", block).group(1), **paths})
    return found


def allowed(stage: str) -> list[str]:
    return re.search(r"--allowed-rules ([\w ]+?) --", STAGES[stage]["cmd"]).group(1).split()


def below(path: str, folders) -> bool:
    return any(path == folder or path.startswith(f"{folder}/") for folder in folders)


def outs(stage: str) -> list[str]:
    return [*STAGES[stage]["outs"], *STAGES[stage].get("metrics", [])]


def test_the_rules_that_the_stages_name_partition_the_rules_of_the_snakefile():
    text = "\n".join(path.read_text() for path in [*ROOT.glob("workflow/**/*.smk"), ROOT / "Snakefile"])
    rules = set(re.findall(r"^(?:rule|use rule \w+ as) (\w+)(?::| with:)", text, flags=re.M)) - {"all"}
    named = [rule for stage in STAGES for rule in allowed(stage)]
    assert sorted(named) == sorted(rules)


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_asks_for_targets_of_its_own_rules(stage, jobs):
    own = allowed(stage)
    made = {path for job in jobs if job["rule"] in own for path in job["output"]}
    for target in STAGES[stage]["cmd"].split(" -- ")[1].split():
        assert target in own or target in made


@pytest.mark.parametrize("stage", STAGES)
def test_the_outs_of_a_stage_are_what_its_rules_make(stage, jobs):
    rules = set(allowed(stage)) - set(OWN_TARGETS)
    made = [path for job in jobs if job["rule"] in rules for path in job["output"]]
    assert [path for path in made if not below(path, outs(stage))] == []
    assert [out for out in outs(stage) if not any(below(path, [out]) for path in made)] == []


@pytest.mark.parametrize("stage", STAGES)
def test_the_deps_of_a_stage_are_what_its_rules_read(stage, jobs):
    own = [job for job in jobs if job["rule"] in allowed(stage)]
    read = {path for job in own for path in job["input"]} - {path for job in own for path in job["output"]}
    deps = STAGES[stage].get("deps", [])
    missing = sorted(path for path in read if not below(path, deps))
    assert missing == [], "add these (or their folder) to deps in dvc.yaml"
    assert [dep for dep in deps if not any(below(path, [dep]) for path in read)] == []


@pytest.mark.parametrize("stage", STAGES)
def test_the_params_of_a_stage_are_the_sections_that_its_rules_read(stage):
    text = (ROOT / f"workflow/rules/{stage}.smk").read_text() + whole_stage(stage)
    used = set(re.findall(r'(?:flags\(|config\[)"(\w+)', text))
    for helper, sections in HELPERS.items():
        used |= sections if re.search(rf"\b{helper}", text) else set()
    assert used <= set(STAGES[stage]["params"]), "add the section to params in dvc.yaml"


HELPERS = {  # a name that is made elsewhere -> the sections it is made of
    r"runs\(": {"finetune", "baselines"},
    r"core_runs\(": {"finetune", "baselines", "tables"},
    r"evidence_runs\(": {"finetune", "baselines", "evidence"},
    r"ALL_RUNS\b": {"seeds", "finetune", "baselines"},
    r"VARIANT\b": {"finetune"},
}


def whole_stage(stage: str) -> str:
    """The rule of workflow/targets.smk that names everything of a stage, if the stage has one."""
    found = re.search(
        rf"^rule {stage}_all:.*?(?=^rule |\Z)", (ROOT / "workflow/targets.smk").read_text(), flags=re.M | re.S
    )
    return found.group() if found else ""


def test_what_restores_products_restores_one_in_which_a_bit_was_flipped_behind_its_times(tmp_path):
    def dvc(*words: str) -> None:
        done = subprocess.run([sys.executable, "-m", "dvc", *words], cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr

    command = re.search(r"^restore:.*\n\t\$\(RUN\) dvc (.+)$", (ROOT / "Makefile").read_text(), flags=re.M)[1]
    (tmp_path / "product").write_text("as it was made")
    dvc("init", "--no-scm")
    dvc("add", "product")
    flip(tmp_path / "product")
    dvc(*command.split())
    assert (tmp_path / "product").read_text() == "as it was made"


def test_nothing_persists_and_everything_is_kept_in_the_cache():
    text = (ROOT / "dvc.yaml").read_text()
    assert "persist" not in text and "cache: false" not in text
