"""A params.yaml from elsewhere: it runs nothing, and what it names reaches no shell as code."""

import subprocess
from itertools import pairwise
from pathlib import Path

import pytest
import yaml
from test_harmed_files import in_time
from test_workflow import copied, snakemake

from vikdf import files, params

ROOT = Path(__file__).resolve().parent.parent


def test_a_params_file_that_asks_for_code_to_be_run_is_refused_before_any_runs(tmp_path):
    place = copied(tmp_path / "tree", "tiny")
    path = place / "params.yaml"
    path.write_text("__use_yte__: true\n?open('ran', 'w').write('x'): 1\n" + path.read_text())
    done = snakemake(place, "--dry-run")
    assert done.returncode != 0 and "Nothing was run." in done.stdout and "Traceback" not in done.stdout
    assert not (place / "ran").exists()


def test_settings_beside_params_yaml_are_refused(tmp_path):
    done = snakemake(copied(tmp_path / "tree", "tiny"), "--dry-run", "--config", "seeds=[2]")
    assert done.returncode != 0 and "settings stand in params.yaml alone" in done.stdout


NINE = "".join(f"{name}: &{name} [{', '.join([f'*{part}'] * 6)}]\n" for part, name in pairwise("abcdefghi"))
BOMB = f"a: &a [1, 1]\n{NINE}"  # ten million lists
YAML = {
    "too long": ("# " + "x" * 1_000_000, "has 1000002 bytes, a params file at most 200000"),
    "too deep": ("a: " + "[" * 200 + "]" * 200, "its lists and sections are nested more than 100 deep"),
    "deep beyond Python": ("[" * 20_000, "is not valid YAML: maximum recursion depth exceeded"),
    "names without end": (BOMB, "its lists and sections are more than 20000"),
    "a list as a key": ("? [a]: b\n", "line 1: a list or a section stands as a key; write a name"),
    "a set as a key": ("? !!set {a}\n: b\n", "line 1: a list or a section stands as a key"),
    "a time that is none": ("a: !!timestamp x", "is not valid YAML"),
    "a truth that is none": ("a: !!bool x", "is not valid YAML"),
    "an empty number": ('a: !!int ""', "is not valid YAML"),
    "an empty fraction": ('a: !!float ""', "is not valid YAML"),
    "a number without digits": ('a: !!int "_"', "is not valid YAML"),
    "a section that is a list": ("a: !!map [1]", "is not valid YAML"),
    "a time beyond all numbers": (f"a: {'1:' * 200}1.5", "is not valid YAML"),
    "names in numbers": ("".join(f"k{number}: 1\n" for number in range(100_000)), "a params file at most 200000"),
    "as many names as a file may have": ("".join(f"x{n:x}:\n" for n in range(27_000)), "params.yaml"),
    "code": ("a: !!python/object/apply:os.system [touch ran]", "could not determine a constructor for the tag"),
    "no UTF-8": (b"a: \xff\xfe", "is not valid YAML: 'utf-8' codec can't decode"),
    "itself": ("a: &a [*a]", "params.yaml"),
    "nothing": ("", "params.yaml"),
}


@pytest.mark.parametrize("what", YAML)
def test_yaml_that_is_deep_long_or_strange_is_one_sentence_at_once(tmp_path, what):
    content, said = YAML[what]
    path = tmp_path / "params.yaml"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with in_time(), pytest.raises(ValueError, match=said) as error:
        params.load(path)
    assert str(path) in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("deep", ["[" * 101 + "]" * 101, "[" * 200_000])
def test_json_that_is_deep_is_one_sentence_too(tmp_path, deep):
    (tmp_path / "a.json").write_text(deep)
    with in_time(), pytest.raises(ValueError, match="a.json is not valid JSON"):
        files.read_json(tmp_path / "a.json")
    (tmp_path / "a.json").write_text("[" * 99 + "]" * 99)
    files.read_json(tmp_path / "a.json")


SECTIONS = ["backbones.models", "sources.raw", "sources.corpora", "dialogues.corpora", "baselines", "ablations"]


@pytest.mark.parametrize("section", SECTIONS)
@pytest.mark.parametrize("name", ["x;touch ran", "$(touch ran)", "a b", "../x", "data/raw/../../x", "--help", ""])
def test_a_name_that_is_more_than_a_name_is_refused(tmp_path, section, name):
    values = yaml.safe_load((ROOT / "presets/tiny.yaml").read_text())
    at = values
    for part in section.split("."):
        at = at[part]
    at[name] = next(iter(at.values()), {"url": "https://example.org/a", "bytes": None})
    path = tmp_path / "params.yaml"
    path.write_text(yaml.safe_dump(values))
    with pytest.raises(ValueError, match=f"`{section}`"):
        params.load(path)


def test_a_value_reaches_a_stage_as_it_stands_and_no_shell_as_code(tmp_path):
    value = "'; touch ran; echo $(touch ran) `touch ran` \n#"
    line = f"printf %s {params.as_flags({'key': {'value': value}})}"
    done = subprocess.run(["bash", "-c", line], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0 and "touch ran" in done.stdout and list(tmp_path.iterdir()) == []
