"""params.yaml: what is wrong is said in one sentence that names key and cure; the presets have the same keys."""

from pathlib import Path

import pytest
import yaml

from vikdf import params

ROOT = Path(__file__).resolve().parent.parent
PRESETS = sorted((ROOT / "presets").glob("*.yaml"))
FREE = [  # here the user names the entries: their keys may differ from preset to preset
    "sources.world",
    "sources.corpora",
    "sources.raw",
    "dialogues.corpora",
    "backbones.models",
    "finetune.systems",
    "tables.systems",
    "tables.controls",
    "tables.table3",
    "ablations",
    "baselines",
    "evidence.contrasts",
]
SCHEMA = {
    "type": "object",
    "additionalProperties": False,
    "required": ["filter"],
    "properties": {
        "filter": {
            "type": "object",
            "additionalProperties": False,
            "required": ["min_words"],
            "properties": {
                "min_words": {"type": "integer", "minimum": 1, "description": "shortest caption"},
                "rate": {"type": "number"},
            },
        }
    },
}


def message(text, tmp_path) -> str:
    schema, path = tmp_path / "schema.yaml", tmp_path / "params.yaml"
    schema.write_text(yaml.safe_dump(SCHEMA))
    path.write_text(text)
    with pytest.raises(ValueError) as error:
        params.load(path, schema)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_a_mistyped_key_is_named_with_the_one_that_was_meant(tmp_path):
    said = message("filter: {min_word: 3}", tmp_path)
    assert "unknown key `filter.min_word`; did you mean `filter.min_words`?" in said


def test_a_missing_key_is_named_with_its_meaning(tmp_path):
    assert "the key `filter.min_words` is missing (shortest caption)" in message("filter: {}", tmp_path)


def test_a_wrong_value_is_named_with_what_was_found_and_expected(tmp_path):
    assert "`filter.min_words` is 0, but should be at least 1" in message("filter: {min_words: 0}", tmp_path)


def test_a_number_that_yaml_reads_as_text_is_shown_as_it_should_be_written(tmp_path):
    assert "written 1.0e-04" in message("filter: {min_words: 3, rate: 1e-4}", tmp_path)


def test_a_key_that_stands_twice_is_refused(tmp_path):
    assert "`min_words` stands twice" in message("filter:\n  min_words: 3\n  min_words: 4", tmp_path)


def test_text_that_is_no_yaml_is_refused_in_one_sentence(tmp_path):
    assert "is not valid YAML" in message("filter: {min_words: 3", tmp_path)


def test_a_value_that_names_an_entry_which_is_not_there_is_refused():
    values = {
        "backbones": {"models": {"clip": {}, "llm": {}}},
        "pretrain": {"clip": "clip", "llm": "lm"},
        "ablations": {"shuffled": {"clip": "clip"}},
        "finetune": {"systems": {"vikdf": {"pretrain": "vikdf"}, "c": {"pretrain": "shufled"}}},
    }
    with pytest.raises(ValueError, match="`pretrain.llm` is lm, but `backbones.models` has no entry .* mean `llm`"):
        params.check_names(values, Path("params.yaml"))
    values["pretrain"]["llm"] = "llm"
    with pytest.raises(ValueError, match="`finetune.systems.c.pretrain` is shufled.*did you mean `shuffled`"):
        params.check_names(values, Path("params.yaml"))
    values["finetune"]["systems"]["c"]["pretrain"] = "shuffled"
    params.check_names(values, Path("params.yaml"))


def test_a_row_of_table_3_and_a_point_of_figure_7_must_be_an_ablation():
    values = {"ablations": {"no_tim": {}, "queries_4": {}}, "tables": {"table3": {"VIKDF": "vikdf", "-TIM": "no_tmi"}}}
    with pytest.raises(ValueError, match="`tables.table3.-TIM` is no_tmi, but `ablations` .*; did you mean `no_tim`"):
        params.check_names(values, Path("params.yaml"))
    values["tables"] = {"table3": {"-TIM": "no_tim"}, "figure7": ["vikdf", "querys_4"]}
    with pytest.raises(ValueError, match="`tables.figure7.1` is querys_4, .*; did you mean `queries_4`"):
        params.check_names(values, Path("params.yaml"))


def test_an_ablation_with_the_name_of_a_system_cannot_be_a_row():
    values = yaml.safe_load((ROOT / "params.yaml").read_text())
    values["tables"]["table3"]["-pairs"] = "shuffled"
    with pytest.raises(ValueError, match="`tables.table3.-pairs` is shuffled, which is also the name of a system"):
        params.check_ablated(values, Path("params.yaml"))
    del values["finetune"]["systems"]["vikdf"]
    with pytest.raises(ValueError, match="`finetune.systems` has no entry vikdf"):
        params.check_ablated(values, Path("params.yaml"))


def test_an_ablation_cannot_ask_for_processes_of_its_own(tmp_path):
    values = yaml.safe_load((ROOT / "params.yaml").read_text())
    values["ablations"]["no_tim"]["training"] = {"processes": 2}
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(values))
    with pytest.raises(ValueError, match="unknown key `ablations.no_tim.training.processes`"):
        params.load(tmp_path / "params.yaml")


def test_an_llm_that_cannot_be_spread_is_named_before_anything_runs(tmp_path):
    def load(where: str, **changes) -> None:
        values = yaml.safe_load((ROOT / "params.yaml").read_text())
        values[where]["training"] |= {"shard_llm": True} | changes
        (tmp_path / "params.yaml").write_text(yaml.safe_dump(values))
        params.load(tmp_path / "params.yaml")

    with pytest.raises(
        ValueError, match="`pretrain.training.shard_llm` is true, but `pretrain.training.processes` is 1"
    ):
        load("pretrain", processes=1)
    with pytest.raises(ValueError, match="`finetune.training.shard_llm` is true, but .* with LoRA.*shard_llm to false"):
        load("finetune", processes=2)
    load("pretrain", processes=2)  # this one can be


@pytest.mark.parametrize(("entry", "lost"), [
    ({"form": "hub", "revision": "abc"}, "hub"),
    ({"form": "hub", "hub": "someone/model"}, "revision"),
    ({"form": "open_clip", "pretrained": "openai"}, "name"),
])  # fmt: skip
def test_what_a_form_of_backbones_needs_is_asked_for(entry, lost, tmp_path):
    values = yaml.safe_load((ROOT / "params.yaml").read_text())
    values["backbones"]["models"]["clip"] = entry
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(values))
    with pytest.raises(ValueError, match=f"the key `backbones.models.clip.{lost}` is missing"):
        params.load(tmp_path / "params.yaml")


def test_the_paper_takes_128_rows_a_step_in_both_trainings():
    paper = yaml.safe_load((ROOT / "presets/paper.yaml").read_text())
    for section in ("pretrain", "finetune"):
        numbers = paper[section]["training"]
        assert numbers["processes"] * numbers["micro_batch"] * numbers["accumulate"] == 128


def test_flags_are_quoted_for_the_shell_and_nested_values_are_json():
    values = {"min_words": 3, "name": "a b", "sizes": {"x": 1}, "none": None, "on": True}
    assert params.as_flags(values) == """--min-words 3 --name 'a b' --sizes '{"x": 1}' --none null --on true"""


@pytest.mark.parametrize("path", PRESETS, ids=lambda path: path.stem)
def test_every_preset_is_valid(path):
    params.load(path)


def test_the_demo_preset_is_the_shipped_params_file():
    assert (ROOT / "presets/demo.yaml").read_text() == (ROOT / "params.yaml").read_text()


@pytest.mark.parametrize("path", PRESETS, ids=lambda path: path.stem)
def test_every_preset_has_the_same_keys(path):
    assert keys(yaml.safe_load(path.read_text())) == keys(yaml.safe_load((ROOT / "params.yaml").read_text()))


def test_every_key_of_the_schema_says_its_type_and_meaning_and_refuses_strangers():
    def walk(schema, where):
        if where:
            assert "description" in schema or where.endswith("*"), where
            assert {"type", "enum", "const", "oneOf", "anyOf"} & set(schema), where
        if schema.get("type") == "object":
            assert schema.get("additionalProperties") is not None, where
        entries = schema.get("additionalProperties")
        named = {"*": entries} if isinstance(entries, dict) else {}
        for key, inner in {**schema.get("properties", {}), **named}.items():
            walk(inner, f"{where}.{key}".strip("."))

    walk(yaml.safe_load(params.SCHEMA.read_text()), "")


def keys(values, where="") -> set[str]:
    """Dotted names of all keys, in order of no matter; below a section with free names, that section only."""
    if not isinstance(values, dict) or where in FREE:
        return {where}
    return {name for key, value in values.items() for name in keys(value, f"{where}.{key}".strip("."))} | {where}
