"""vikdf/code.py follows a module's imports: every file that can change a stage's product, and no other."""

import pytest
import yaml

from vikdf import systems
from vikdf.code import ROOT, code


@pytest.fixture
def tree(tmp_path):
    """A package of ours with every way to import."""
    texts = {
        "__init__.py": "import os",
        "stage.py": "import json\nfrom vikdf import files\nfrom vikdf.model.parts import Part\n"
        "def late():\n    import vikdf.late\n",
        "files.py": "from pathlib import Path",
        "late.py": "",
        "unused.py": "",
        "model/__init__.py": "",
        "model/parts.py": "from . import near\nfrom ..deep import thing",
        "model/near.py": "",
        "model/other.py": "",
        "deep.py": "thing = 1",
        "metrics/__init__.py": "",
        "metrics/bleu.py": "",
        "scores.py": "from vikdf import metrics",
        "tracking.py": "",
        "shown.py": "",
        "store.py": "",
        "tracked.py": "from vikdf import shown, store, tracking",
        "packed/__init__.py": "",
        "packed/__main__.py": "from vikdf import files",
    }
    for name, text in texts.items():
        path = tmp_path / "vikdf" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path


def names(tree, module) -> set[str]:
    return {path.removeprefix("vikdf/") for path in code(module, tree)}


def test_imports_are_followed_wherever_they_stand_and_parents_count(tree):
    expected = {"__init__.py", "stage.py", "files.py", "late.py", "deep.py"}
    assert names(tree, "stage") == expected | {"model/__init__.py", "model/parts.py", "model/near.py"}


def test_a_package_taken_as_a_whole_counts_whole(tree):
    assert names(tree, "scores") == {"__init__.py", "scores.py", "metrics/__init__.py", "metrics/bleu.py"}


def test_a_stage_that_is_a_package_is_all_its_files_and_their_imports(tree):
    assert names(tree, "packed") == {"__init__.py", "packed/__init__.py", "packed/__main__.py", "files.py"}


def test_what_only_shows_is_left_out(tree):
    assert names(tree, "tracked") == {"__init__.py", "tracked.py"}


def test_a_module_that_does_not_exist_is_named(tree):
    with pytest.raises(ValueError, match="there is no module vikdf.nothing"):
        code("nothing", tree)


def test_pretrain_needs_the_model_but_no_metric_and_tables_need_neither():
    assert "vikdf/model/vikdf.py" in code("pretrain")
    assert not [path for path in code("pretrain") + code("tables") if path.startswith("vikdf/metrics/")]
    parts = {path for path in code("tables") + code("evaluate") if path.startswith("vikdf/model/")}
    assert parts <= {"vikdf/model/__init__.py", "vikdf/model/pretrained.py"}  # the loader, for the metric `similarity`


BASELINES = yaml.safe_load((ROOT / "params.yaml").read_text())["baselines"]
TRAINED = {"sampling": ["sampling"], "pretrain": ["pretrain"], "features": ["features"]}  # work that state.claim keeps
for name, entry in {"vikdf": {}, **BASELINES}.items():
    TRAINED |= {f"{stage} {name}": [stage, *systems.modules(entry)] for stage in ("finetune", "generate")}
    TRAINED |= {f"pretrain {name}": ["pretrain_baseline", *systems.modules(entry)]} if "pretrain" in entry else {}


@pytest.mark.parametrize("work", TRAINED)
def test_no_reader_of_corpora_and_no_packer_is_code_of_what_is_captioned_or_trained(work):
    followed = {path for module in TRAINED[work] for path in code(module)}
    readers = {path for path in followed if path.startswith("vikdf/corpora/")}
    assert readers | followed & {"vikdf/packing.py", "vikdf/shards.py", "vikdf/dialogues.py"} == set()
    assert "vikdf/schemas.py" in followed
