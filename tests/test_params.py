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
    "tables.table4",
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


@pytest.mark.parametrize(("name", "where"), [("fresh", "finetune.systems"), ("no_tim", "ablations")])
def test_a_baseline_whose_products_would_lie_where_others_lie_is_named(name, where):
    values = yaml.safe_load((ROOT / "params.yaml").read_text())
    values["baselines"][name] = values["baselines"]["maria"]
    with pytest.raises(ValueError, match=f"`baselines` and `{where}` both have an entry {name}"):
        params.check_apart(values, Path("params.yaml"))
    values["baselines"] = {"no_tim": values["baselines"]["bart"]}  # learns from no pairs: nothing of its own lies there
    params.check_apart(values, Path("params.yaml"))


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


def loaded(tmp_path, change) -> dict:
    """The shipped params after this change, as `vikdf validate` and Snakemake load them."""
    values = yaml.safe_load((ROOT / "params.yaml").read_text())
    change(values)
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(values, sort_keys=False))
    return params.load(tmp_path / "params.yaml")


@pytest.mark.parametrize(("where", "entry", "said"), [
    ("dialogues", {"form": "reddit", "context_turns": "any", "separator": "|"}, "reddit takes .*`separator` is unknown"),
    ("dialogues", {"form": "turns", "test": "x", "columns": [0, "b"]}, r"columns is \[0, 'b'\], expected names, or numbers"),
    ("dialogues", {"form": "probe"}, "dialogues.corpora.mine names no file"),
    ("sources", {"form": "list", "list": "x", "url": 1, "caption": "TEXT"}, "sources.corpora.mine: url is 1 and caption 'TEXT'"),
    ("sources", {"form": "cc3m", "list": "x", "images": "y"}, "form cc3m takes list; `images` is unknown"),
])  # fmt: skip
def test_an_option_of_another_form_is_named_before_anything_runs(where, entry, said, tmp_path):
    with pytest.raises(ValueError, match=said):
        loaded(tmp_path, lambda values: values[where]["corpora"].update(mine=entry))


def test_a_file_of_a_world_that_is_not_drawn_is_named(tmp_path):
    said = "`backbones.models.clip.pairs` is data/sources/world/\\S+, which is drawn by sources.world, and that is null"
    with pytest.raises(ValueError, match=said):
        loaded(
            tmp_path, lambda values: values["sources"].update(world=None, corpora={"a": {"form": "cc3m", "list": "x"}})
        )


def files(raw: dict, **changes) -> None:
    """Looks for the files of a run with one list, data/a.tsv, in the folder where the test stands."""
    values = {"sources": {"world": None, "raw": raw, "corpora": {"a": {"form": "cc3m", "list": "data/a.tsv"}}}}
    params.check_files(values | changes)


@pytest.fixture
def stands(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").mkdir()
    (tmp_path / "data/a.tsv").write_bytes(b"a\tb\n")
    return tmp_path


@pytest.mark.parametrize(("raw", "cure"), [
    ({"url": "https://a.org/a", "bytes": 9}, "delete it, and it is fetched anew"),
    ({"by_hand": "open a.org", "bytes": 9}, "by hand: open a.org"),
])  # fmt: skip
def test_a_raw_file_that_was_cut_is_named_with_both_sizes_and_the_cure(raw, cure, stands):
    with pytest.raises(ValueError, match=f"data/a.tsv has 4 bytes, but `sources.raw` says 9; {cure}"):
        files({"data/a.tsv": raw})


def test_a_raw_file_of_the_size_or_out_of_an_archive_of_that_size_is_fine(stands):
    files({"data/a.tsv": {"url": "https://a.org/a", "bytes": 4}})
    files({"data/a.tsv": {"url": "https://a.org/a", "bytes": 9, "member": "a.tsv"}})
    files({"data/a.tsv": {"url": "https://a.org/a", "bytes": None}})


def test_a_small_raw_file_with_another_digest_is_named(stands):
    with pytest.raises(ValueError, match=r"data/a.tsv has sha256 \w{64}, but `sources.raw` says 0{64}"):
        files({"data/a.tsv": {"by_hand": "open a.org", "bytes": 4, "sha256": "0" * 64}})


@pytest.mark.parametrize(("raw", "cure"), [
    ({}, "`sources.corpora.a.list` of params.yaml names it"),
    ({"data/a.tsv": {"url": "https://a.org/a", "bytes": 9, "member": "a.tsv"}}, "delete it"),
])  # fmt: skip
def test_an_empty_raw_file_is_named_even_where_no_size_is_known(raw, cure, stands):
    (stands / "data/a.tsv").write_bytes(b"")
    with pytest.raises(ValueError, match=f"data/a.tsv is empty; {cure}"):
        files(raw)


def test_what_a_person_fetches_may_have_a_size_and_a_digest_but_no_member(tmp_path):
    entry = {"by_hand": "open a.org", "bytes": 4, "sha256": "0" * 64}
    loaded(tmp_path, lambda values: values["sources"].update(raw={"data/a.tsv": entry}))
    with pytest.raises(
        ValueError, match="unknown key `sources.raw.data/a.tsv.member`; known here: by_hand, bytes, sha256"
    ):
        loaded(tmp_path, lambda values: values["sources"].update(raw={"data/a.tsv": entry | {"member": "a"}}))


@pytest.mark.parametrize(("where", "section"), [
    ("filter.blocklists.words", {"filter": {"blocklists": {"words": "lost.txt", "hosts": None}}}),
    ("caption.forbid_joint.lexicon", {"caption": {"forbid_joint": {"lexicon": "lost.txt"}}}),
    ("backbones.models.bert.texts", {"backbones": {"models": {"bert": {"texts": "lost.txt"}}}}),
])  # fmt: skip
def test_every_other_file_that_the_params_name_is_asked_for_too(where, section, stands):
    with pytest.raises(ValueError, match=f"lost.txt is missing: `{where}` of params.yaml names it; .*(null|README)"):
        files({}, **section)


def test_a_file_that_the_run_makes_is_not_asked_for_and_an_empty_blocklist_is_one(stands):
    (stands / "none.txt").touch()
    made = {"models": {"clip": {"pairs": "data/filter/pairs.parquet"}}}
    files({}, backbones=made, filter={"blocklists": {"words": "none.txt"}})


@pytest.mark.parametrize("path", PRESETS, ids=lambda path: path.stem)
def test_every_preset_is_valid(path):
    params.load(path)


def test_the_demo_preset_is_the_shipped_params_file():
    assert (ROOT / "presets/demo.yaml").read_text() == (ROOT / "params.yaml").read_text()


@pytest.mark.parametrize("path", PRESETS, ids=lambda path: path.stem)
def test_every_preset_has_the_same_keys(path):
    assert keys(yaml.safe_load(path.read_text())) == keys(yaml.safe_load((ROOT / "params.yaml").read_text()))


def test_every_key_of_the_schema_says_its_type_and_meaning_and_refuses_strangers():
    whole = yaml.safe_load(params.SCHEMA.read_text())

    def walk(schema, where):
        if not schema or schema.keys() == {"$ref"}:  # said once, elsewhere
            return
        if where:
            assert "description" in schema or where.endswith("*"), where
            assert {"type", "enum", "const", "oneOf", "anyOf"} & set(schema), where
        whole_kinds = "additionalProperties" not in schema  # the keys of an entry are told by its kind
        kinds = [part["then"] for part in schema.get("allOf", []) if whole_kinds and "then" in part]
        if schema.get("type") == "object":
            refused = [part.get("additionalProperties") for part in kinds or [schema]]
            assert None not in refused, where
        entries = schema.get("additionalProperties")
        named = {"*": entries} if isinstance(entries, dict) else {}
        for part in (schema, *kinds):
            for key, inner in {**part.get("properties", {}), **named}.items():
                walk(inner, f"{where}.{key}".strip("."))

    walk(whole, "")
    for name, schema in whole["$defs"].items():
        walk(schema, name)


def test_every_kind_of_baseline_has_its_keys_in_the_schema_and_its_file():
    entries = yaml.safe_load(params.SCHEMA.read_text())["properties"]["baselines"]["additionalProperties"]
    kinds = entries["properties"]["kind"]["enum"]
    described = [part["if"]["properties"]["kind"]["const"] for part in entries["allOf"]]
    folder = params.SCHEMA.parent.parent.parent / "vikdf/baselines"
    files = [path.stem for path in folder.glob("*.py") if path.stem != "__init__"]
    assert sorted(kinds) == sorted(described) == sorted(files)


def keys(values, where="") -> set[str]:
    """Dotted names of all keys, in order of no matter; below a section with free names, that section only."""
    if not isinstance(values, dict) or where in FREE:
        return {where}
    return {name for key, value in values.items() for name in keys(value, f"{where}.{key}".strip("."))} | {where}
