"""The packages: pinned, listed with their licences, looked up for known faults; and the lists are theirs."""

import json
import re
import tomllib
import types
from pathlib import Path

import pytest
import yaml

from docs import supply

ROOT = Path(__file__).resolve().parent.parent
BILL = json.loads((ROOT / "docs/sbom.json").read_text())
PAGE = (ROOT / "docs/licences.md").read_text()
PINNED = supply.pins((ROOT / "constraints.txt").read_text())
TOLD = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def test_the_bill_of_materials_names_every_pinned_package_and_no_other():
    assert {part["bom-ref"]: part["version"] for part in BILL["components"]} == PINNED


def test_the_bill_of_materials_is_cyclonedx():
    schema = pytest.importorskip("cyclonedx.schema").SchemaVersion.V1_6
    validation = pytest.importorskip("cyclonedx.validation.json")
    assert validation.JsonStrictValidator(schema).validate_str(json.dumps(BILL)) is None


def test_the_list_of_licences_is_that_of_the_bill():
    assert supply.with_list(PAGE, supply.listed(BILL, TOLD)) == PAGE


def test_every_package_has_a_licence_and_the_words_of_the_index_are_gone():
    said = {part["name"]: part["licenses"][0]["license"]["name"] for part in BILL["components"]}
    assert [name for name, text in said.items() if not text or "License ::" in text or len(text) > 120] == []


def test_every_licence_that_asks_for_more_than_to_be_named_is_explained():
    strong = {part["name"] for part in BILL["components"] if re.search("GPL|EPL|MPL", str(part["licenses"]))}
    table = PAGE.partition("## What asks for more")[2].partition("## Data")[0]
    named = {
        name for line in table.splitlines() if line.startswith("| ") for name in line.split("|")[1].strip().split(", ")
    }
    assert strong == named - {"package"}


def test_nothing_of_this_machine_is_in_the_bill():
    text = (ROOT / "docs/sbom.json").read_text()
    assert re.findall(r"://|file:|/opt|/home|/root|\+cpu|%2B", text) == []


def test_every_corpus_and_every_model_of_the_paper_has_its_licence():
    paper = yaml.safe_load((ROOT / "presets/paper.yaml").read_text())
    corpora = [*paper["sources"]["corpora"], *paper["dialogues"]["corpora"]]
    models = [entry["hub"] for entry in paper["backbones"]["models"].values() if "hub" in entry]
    tables = PAGE.partition("## Packages")[0]
    assert len(corpora) > 4 and len(models) > 5
    assert [name for name in corpora if f"`{name}`" not in tables] == []
    assert [name for name in models if f"| {name} |" not in tables] == []


BSD = [{"license": {"name": "License :: OSI Approved :: BSD License"}}]
WHOLE = {
    "components": [
        {
            "bom-ref": "Torch==2.0+cpu",
            "name": "Torch",
            "version": "2.0+cpu",
            "licenses": [{"expression": "MIT AND ISC"}],
        },
        {"bom-ref": "a_b==1", "name": "a_b", "version": "1", "licenses": BSD},
        {"bom-ref": "pip==9", "name": "pip", "version": "9"},
    ],
    "dependencies": [{"ref": "Torch==2.0+cpu", "dependsOn": ["a_b==1", "pip==9"]}, {"ref": "a_b==1"}],
}


def test_the_bill_is_the_same_whatever_build_and_whatever_else_a_machine_has():
    told = {"name": "x", "version": "1", "dependencies": ["Torch>=1"], "optional-dependencies": {"dev": ["a_b[more]"]}}
    made = supply.bill(WHOLE, {"torch": "2.0", "a-b": "1"}, told)
    assert [(part["bom-ref"], part["version"], part["purl"]) for part in made["components"]] == [
        ("a-b", "1", "pkg:pypi/a-b@1"),
        ("torch", "2.0", "pkg:pypi/torch@2.0"),
    ]
    assert made["dependencies"][0] == {"ref": "x", "dependsOn": ["a-b", "torch"]}
    assert made["dependencies"][-1] == {"ref": "torch", "dependsOn": ["a-b"]}
    lines = supply.listed(made, told).splitlines()[2:]
    assert lines == ["| a_b | 1 | BSD | tests and checks |", "| Torch | 2.0 | MIT AND ISC | a run |"]


def test_another_version_and_a_missing_package_are_named():
    assert supply.not_as_pinned({"pytest": "0.1", "no-such-package": "1"})[1] == "no-such-package is missing, pinned 1"
    assert supply.not_as_pinned({"pytest": "0.1"})[0].endswith("pinned 0.1") and supply.not_as_pinned({}) == []


def test_the_environment_is_as_pinned():
    assert supply.not_as_pinned(PINNED) == []


FAULT = {
    "name": "x",
    "version": "1",
    "vulns": [{"id": "PYSEC-1", "fix_versions": ["2"]}, {"id": "B", "fix_versions": []}],
}
SOUND = {"name": "y", "version": "1", "vulns": []}


def test_known_faults_are_named_with_the_version_that_mends_them():
    lines = supply.known_faults(json.dumps({"dependencies": [FAULT, SOUND]}))
    assert lines == ["x 1: PYSEC-1, mended in 2", "x 1: B, mended in no version yet"]
    assert supply.known_faults(json.dumps({"dependencies": [SOUND]})) == []


@pytest.mark.parametrize(
    "report", ["", "Traceback", "[]", "{}", '{"dependencies": []}', '{"dependencies": [{"skip_reason": "x"}]}']
)
def test_a_service_that_did_not_answer_is_no_clean_bill(report):
    assert supply.known_faults(report) is None


def test_a_package_that_was_skipped_hides_no_fault_of_the_others():
    report = json.dumps({"dependencies": [{"name": "z", "skip_reason": "x"}, FAULT]})
    assert supply.known_faults(report)[0] == "x 1: PYSEC-1, mended in 2"


@pytest.mark.parametrize(
    "stdout, stderr, said",
    [("a needs b", "", "a needs b"), ("", "No module named pip", "named pip"), ("", "", "without a word")],
)
def test_a_check_that_could_not_run_is_something_wrong(monkeypatch, capsys, stdout, stderr, said):
    done = {"pip": types.SimpleNamespace(returncode=1, stdout=stdout, stderr=stderr)}
    sound = types.SimpleNamespace(returncode=0, stdout=json.dumps({"dependencies": [SOUND]}))
    monkeypatch.setattr(supply, "asked", lambda *words: done.get(words[0], sound))
    monkeypatch.setattr(supply, "stale", list)
    assert supply.audit() == 1
    out = capsys.readouterr().out
    assert said in out and "whole (pip check): nothing wrong" not in out


@pytest.mark.parametrize("report, said, rc", [("", "NOT looked up", 0), ({"dependencies": [FAULT]}, "PYSEC-1", 1)])
def test_the_audit_says_what_it_looked_at_and_fails_where_something_is_wrong(monkeypatch, capsys, report, said, rc):
    class Done:
        returncode, stdout = 0, json.dumps(report) if report else ""

    monkeypatch.setattr(supply, "asked", lambda *words: Done)
    monkeypatch.setattr(supply, "stale", list)
    assert supply.audit() == rc
    out = capsys.readouterr().out
    assert said in out and "whole (pip check): nothing wrong" in out and "as pinned: nothing wrong" in out
