"""A params.yaml from elsewhere: it runs nothing, and what it names reaches no shell as code."""

import subprocess
from pathlib import Path

import pytest
import yaml
from test_workflow import copied, snakemake

from vikdf import params

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
