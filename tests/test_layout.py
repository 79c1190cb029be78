"""The law of the layout: one word per stage, four lists in one order, small files, and what is never allowed."""

import ast
import re
import subprocess
import tomllib
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parent.parent
STAGES = "sources filter backbones caption shards dialogues pretrain finetune generate evaluate tables".split()
BESIDE = ["seeds", "ablations", "baselines", "evidence"]  # what params.yaml has besides the stages
MODULES = [path for path in sorted(ROOT.glob("vikdf/**/*.py"))]
CODE = [
    *MODULES,
    *(path for folder in ("tests", "benchmarks", "chaos") for path in sorted(ROOT.glob(f"{folder}/*.py"))),
]
RULES = sorted(ROOT.glob("workflow/**/*.smk"))


def read(name: str) -> str:
    return (ROOT / name).read_text()


def test_the_snakefile_includes_the_stages_in_flow_order():
    assert re.findall(r'^include: "workflow/rules/(\w+)\.smk"', read("Snakefile"), flags=re.M) == STAGES


def test_the_sections_of_params_are_the_stages_in_flow_order():
    sections = list(yaml.safe_load(read("params.yaml")))
    assert [name for name in sections if name not in BESIDE] == STAGES
    assert set(sections) == set(STAGES) | set(BESIDE)


def test_the_schema_has_the_same_sections_in_the_same_order():
    schema = yaml.safe_load(read("workflow/schemas/params.schema.yaml"))
    assert list(schema["properties"]) == list(yaml.safe_load(read("params.yaml")))


def test_the_dvc_stages_are_the_stages_in_flow_order():
    assert list(yaml.safe_load(read("dvc.yaml"))["stages"]) == STAGES


def test_the_tree_in_the_readme_names_the_stages_in_flow_order():
    tree = re.search(r"<!-- tree -->\n```\n(.*?)```", read("README.md"), flags=re.S).group(1)
    assert re.findall(r"^\s+(\w+)(?:\.py|/) +stage: ", tree, flags=re.M) == STAGES


def test_the_tree_in_the_readme_names_only_what_exists():
    tree = re.search(r"<!-- tree -->\n```\n(.*?)```", read("README.md"), flags=re.S).group(1)
    folder, lost = [], []
    for line in tree.splitlines():
        name = line.split()[0]
        depth = (len(line) - len(line.lstrip())) // 2
        folder[depth:] = [name]
        path = "".join(folder)
        if not (ROOT / path).exists() and name not in ("data/", "results/", "state/", "logs/"):
            lost.append(path)
    assert lost == []


def test_the_tree_in_the_readme_leaves_out_no_module_and_no_folder():
    tree = re.search(r"<!-- tree -->\n```\n(.*?)```", read("README.md"), flags=re.S).group(1)
    named = set(re.findall(r"^ *([\w./]+)", tree, flags=re.M))
    modules = {path.name for path in ROOT.glob("vikdf/*.py")} - {"__init__.py"}
    folders = {f"{path.parent.name}/" for path in [*ROOT.glob("vikdf/*/__init__.py"), *ROOT.glob("*/*.py")]}
    assert modules | folders <= named


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_has_its_module_rule_file_test_file_and_log_folder(stage):
    assert (ROOT / f"vikdf/{stage}.py").exists() or (ROOT / f"vikdf/{stage}/__main__.py").exists()
    assert (ROOT / f"tests/test_{stage}.py").exists()
    rule = read(f"workflow/rules/{stage}.smk")
    assert re.search(rf"(python|{{params.launch}}) -m vikdf\.{stage} ", rule)
    assert f'"logs/{stage}' in rule


@pytest.mark.parametrize("path", CODE, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_a_file_is_read_in_one_sitting_and_says_what_it_is(path):
    text = path.read_text()
    assert text.count("\n") <= (400 if path.parent.name == "tests" else 320)
    assert ast.get_docstring(ast.parse(text)), "the first lines say what comes in and what goes out"


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_the_body_of_a_function_fits_on_one_screen(path):
    functions = [node for node in ast.walk(_without_docstrings(path)) if isinstance(node, ast.FunctionDef)]
    long = {node.name: node.end_lineno - node.body[0].lineno + 1 for node in functions if node.body}
    assert {name: lines for name, lines in long.items() if lines > 50} == {}


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_nothing_unsafe_is_called(path):
    text = path.read_text()
    assert not re.search(r"import pickle|pickle\.load|trust_remote_code(?!=False)|shell=True|weights_only=False", text)
    assert not re.search(r"(?<![.\w])(eval|exec)\(|os\.system\(", text)
    assert not re.search(r"except( Exception| BaseException)?:", text), "a broad except hides what it did not expect"


def test_all_that_transformers_reads_is_read_in_the_one_place_that_forbids_code():
    calls = [
        path.name
        for path in MODULES
        for line in path.read_text().splitlines()
        if re.search(r"(?<!VIKDF)\.from_pretrained\(", line)
    ]
    assert [name for name in calls if name != "auto.py"] == ["pretrained.py"]  # auto.py: its first lines show a use


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_modules_know_no_paths_of_the_tree(path):
    if path.name in (
        "params.py",
        "tracking.py",
        "store.py",
        "cli.py",
        "code.py",
    ):  # what a person or every run starts from
        return
    strings = [node.value for node in ast.walk(_without_docstrings(path)) if isinstance(node, ast.Constant)]
    paths = [text for text in strings if isinstance(text, str) and re.match(r"(data|results|state|logs)/", text)]
    assert paths == [] and "params.yaml" not in strings


def test_rules_hold_no_logic():
    for path in RULES:
        if path.name not in ("common.smk", "systems.smk"):  # what the rules share
            text = path.read_text()
            assert not re.search(r"^(def|import|from|for|if) |^    run:|^    script:", text, flags=re.M), path
    for path in [*RULES, ROOT / "Snakefile"]:
        assert path.read_text().count("\n") <= 130, path


def test_rules_quote_for_the_shell_what_stands_in_params_or_is_a_path():
    ready = {
        "params.flags",
        "params.seen",
        "params.launch",
    }  # made of whole words by vikdf.params.as_flags, or of no value at all
    for path in RULES:
        shells = re.findall(r"^    shell:\n((?:        \".*\n)+)", path.read_text(), flags=re.M)
        fields = {field for shell in shells for field in re.findall(r"{([^{}]+)}", shell)}
        assert {field for field in fields - ready if not field.endswith(":q")} == set(), path


def test_every_log_of_a_rule_lies_in_the_folder_of_its_stage():
    for stage in STAGES:
        logs = re.findall(r'"logs/(\w+)', read(f"workflow/rules/{stage}.smk"))
        assert set(logs) == {stage}


def test_snakemake_lint_finds_nothing_but_the_missing_container():
    done = subprocess.run(["snakemake", "--lint"], cwd=ROOT, capture_output=True, text=True)
    found = re.findall(r"^    \* (.*)$", done.stderr, flags=re.M)
    assert set(found) == {"Specify a conda environment or container for each rule.:"}, done.stderr


def test_constraints_hold_names_and_versions_only():
    lines = [line for line in read("constraints.txt").splitlines() if not line.startswith("#")]
    assert [line for line in lines if not re.fullmatch(r"[\w.-]+==[\w.]+", line)] == []


def test_every_dependency_is_pinned():
    pinned = {line.split("==")[0].lower().replace("_", "-") for line in read("constraints.txt").splitlines()}
    told = tomllib.loads(read("pyproject.toml"))["project"]
    wanted = told["dependencies"] + told["optional-dependencies"]["dev"]  # what `make setup` installs
    named = {re.match(r"[\w-]+", each)[0].lower().replace("_", "-") for each in wanted}
    assert {"torch", "ruff"} <= named <= pinned


def _without_docstrings(path: Path) -> ast.Module:
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.FunctionDef | ast.ClassDef) and ast.get_docstring(node):
            node.body = node.body[1:]
    return tree
