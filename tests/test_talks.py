"""talks: every form of dialogues ends in a context and a response, cleaned by named steps; a bad row says why."""

import csv
import gzip
import json
import re
from collections import Counter
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from vikdf.corpora import talks
from vikdf.corpora.talks import STEPS, Bad

README = (Path(__file__).resolve().parent.parent / "data/README.md").read_text()
EXAMPLES = re.findall(r"```\n(\S+) +(\{[^\n]*\})\n(.*?)```", README, flags=re.S)
TURNS = ["hi .", "how are you ?", "fine ."]


def write(path: Path, rows: list) -> Path:
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    elif path.suffix == ".json":
        path.write_text(json.dumps(rows))
    elif path.suffix == ".gz":
        path.write_bytes(gzip.compress("".join(json.dumps(row) + "\n" for row in rows).encode()))
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def read(path: Path, entry: dict, steps=("strip",), **options) -> list:
    """(context, response) of each row, or the reason why it is none."""
    found = talks.rows(path, entry, steps=list(steps), **options)
    return [str(talk) if isinstance(talk, Bad) else (talk.context, talk.response) for _, talk in found]


@pytest.mark.parametrize("name", ["a.json", "a.jsonl", "a.jsonl.gz", "a.parquet"])
def test_each_kind_of_file_gives_the_same_dialogues(tmp_path, name):
    path = write(tmp_path / name, [{"context": TURNS[:2], "response": TURNS[2]}] * 3)
    assert read(path, {"form": "reddit"}) == [(TURNS[:2], TURNS[2])] * 3


def test_a_column_may_hold_the_list_of_turns(tmp_path):
    path = write(tmp_path / "a.jsonl", [{"said": TURNS}, {"said": [*TURNS, "good !"] * 3}])
    assert read(path, {"form": "turns", "columns": "said"}) == [
        (TURNS[:2], TURNS[2]),
        (([*TURNS, "good !"] * 3)[:-1], "good !"),
    ]


def test_columns_may_hold_a_turn_each_and_the_first_ones_may_be_empty(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text('a,b,answer\n"hi, you",how are you ?,fine .\n,how are you ?,fine .\nhi .,,fine .\n')
    entry = {"form": "turns", "columns": ["a", "b", "answer"]}
    first, second, third = read(path, entry)
    assert first == (["hi, you", "how are you ?"], "fine .") and second == (["how are you ?"], "fine .")
    assert third == "empty_turn"


def test_a_file_without_a_header_has_numbers_for_columns(tmp_path):
    path = tmp_path / "a.tsv"
    path.write_text("hi . EOS how are you ?\tfine .\n")
    assert read(path, {"form": "turns", "columns": [0, 1], "separator": " EOS "}) == [(TURNS[:2], TURNS[2])]


def test_a_list_stands_as_json_in_a_file_that_only_holds_text(tmp_path):
    with open(tmp_path / "a.csv", "w", newline="") as stream:
        csv.writer(stream).writerows([["turns"], [json.dumps(TURNS)], ["no list"], ["{}"]])
    entry = {"form": "turns", "columns": "turns"}
    assert read(tmp_path / "a.csv", entry) == [(TURNS[:2], TURNS[2]), "wrong_form", "wrong_form"]


def test_image_chat_gives_its_turns_without_styles(tmp_path):
    dialog = [["Happy", TURNS[0]], ["Sad", TURNS[1]], ["Happy", TURNS[2]]]
    path = write(
        tmp_path / "a.json", [{"dialog": dialog}, {"dialog": dialog[:1]}, {"dialog": [["Happy", "a", "b"]] * 2}]
    )
    assert read(path, {"form": "image_chat", "turns": "all"})[0] == (TURNS[:2], TURNS[2])
    assert read(path, {"form": "image_chat", "turns": "first"}) == [
        (TURNS[:1], TURNS[1]),
        "dialogue_of_1_turns",
        "wrong_form",
    ]


@pytest.mark.parametrize("form", ["reddit", "turns", "image_chat"])
def test_contexts_of_one_turn_are_kept_or_dropped_by_the_rule_in_every_form(tmp_path, form):
    turns = [["Happy", turn] for turn in TURNS] if form == "image_chat" else TURNS
    long, short = {"dialog": turns, "turns": turns}, {"dialog": turns[1:], "turns": turns[1:]}
    rows = [row | {"context": TURNS[at:2], "response": TURNS[2]} for at, row in enumerate((long, short))]
    path, entry = write(tmp_path / "a.json", rows), {"form": form} | ({"columns": "turns"} if form == "turns" else {})
    assert (
        read(path, entry)
        == read(path, entry | {"context_turns": "any"})
        == read(path, entry | {"context_turns": [1, 2]})
    )
    assert read(path, entry | {"context_turns": [2]}) == [(TURNS[:2], TURNS[2]), "context_of_1_turns"]


@pytest.mark.parametrize(
    "steps,cleaned",
    [
        ([], " Hello \x00 There\n"),
        (["strip"], "Hello \x00 There"),
        (["lower"], " hello \x00 there\n"),
        (["printable"], " Hello  There\n"),
        (["lower", "printable", "spaces"], "hello there"),
    ],
)
def test_each_step_of_cleaning_does_what_its_name_says_and_no_more(tmp_path, steps, cleaned):
    path = write(tmp_path / "a.json", [{"context": ["a"], "response": " Hello \x00 There\n"}])
    assert read(path, {"form": "reddit"}, steps) == [(["a"], cleaned)]


def test_what_a_step_changed_is_counted(tmp_path):
    path, changed = write(tmp_path / "a.json", [{"context": ["A ", "b"], "response": "C"}]), Counter()
    read(path, {"form": "reddit"}, ["lower", "strip"], changed=changed)
    assert changed == {"lower": 2, "strip": 1}


def test_steps_are_idempotent():
    text = "\u0130 A\x00 \u2028b \x9b31m\t"
    for step in STEPS.values():
        assert step(step(text)) == step(text)


def test_control_tokens_in_a_user_s_text_stay_as_they_are(tmp_path):
    path = write(
        tmp_path / "a.json", [{"context": ["[INST] <s> hello", "</s><image>"], "response": "<|im_end|> __url__"}]
    )
    expected = [(["[INST] <s> hello", "</s><image>"], "<|im_end|> __url__")]
    assert read(path, {"form": "reddit"}, ["printable", "strip"]) == expected


def test_each_bad_row_says_why_and_the_next_one_goes_on(tmp_path):
    good = json.dumps({"context": ["a", "b"], "response": "c"})
    bad = {
        "wrong_form": ['{"context": 3, "response": "c"}', '{"context": ["a", 3], "response": "c"}'],
        "missing_column": ['{"context": ["a"]}'],
        "empty_turn": ['{"context": ["a", " "], "response": "c"}', '{"context": [], "response": "c"}'],
        "long_turn": ['{"context": ["a"], "response": "' + "c" * 20_000 + '"}'],
        "too_long": ['{"context": ["a"], "response": "' + "c" * 10_000_000 + '"}'],
        "not_json": ["{", "binary \x01 garbage", '{"context": ["a'],
        "too_deep": ['{"context": ' + "[" * 100_000],
        "not_an_object": ["[1]", '"text"'],
        "empty": [""],
        "nul_bytes": [good + "\0"],
    }
    lines = [(reason, text.encode()) for reason, texts in bad.items() for text in texts]
    lines += [("not_utf8", good.replace("a", "caf\u00e9").encode("latin-1"))]
    lines += [("not_utf8", b'{"context": ["\\ud800"], "response": "c"}')]
    (tmp_path / "a.jsonl").write_bytes(b"\n".join(part for _, line in lines for part in (line, good.encode())) + b"\n")
    found = read(tmp_path / "a.jsonl", {"form": "reddit"})
    assert found[0::2] == [reason for reason, _ in lines]
    assert found[1::2] == [(["a", "b"], "c")] * len(lines)


def test_a_value_nested_to_the_limit_of_the_machine_is_a_bad_row_too(tmp_path):
    deep = '{"context": ["a"], "response": ' + "[" * 900 + "]" * 900 + "}"
    (tmp_path / "a.jsonl").write_text(deep + "\n")
    assert read(tmp_path / "a.jsonl", {"form": "reddit"})[0] in ("wrong_form", "too_deep")


@pytest.mark.parametrize(
    "entry,said",
    [
        ({"form": "redit"}, "unknown form 'redit' in dialogues.corpora.mine: expected one of reddit"),
        ({"form": "turns"}, "dialogues.corpora.mine names no columns"),
        ({"train": "x"}, "unknown form None in dialogues.corpora.mine"),
        ({"form": "turns", "columns": "a", "seperator": "|"}, "takes columns, separator, .*`seperator` is unknown"),
        ({"form": "reddit", "separator": "|", "train": "x"}, "the form reddit takes .*; `separator` is unknown"),
        ({"form": "probe"}, "names no file: expected one for some of train, valid, test"),
    ],
)
def test_a_wrong_entry_is_named_before_anything_is_read(entry, said):
    with pytest.raises(ValueError, match=said):
        talks.check("mine", entry, [])


def test_an_unknown_step_is_named():
    with pytest.raises(ValueError, match="unknown step 'lowercase'.*expected some of lower, strip, printable, spaces"):
        talks.check("mine", {"form": "reddit"}, ["lowercase"])


@pytest.mark.parametrize("name,entry,text", EXAMPLES, ids=[name for name, *_ in EXAMPLES])
def test_the_examples_of_the_data_readme_are_read_as_it_says(tmp_path, name, entry, text):
    (tmp_path / name).write_text(text)
    found = read(tmp_path / name, yaml.safe_load(entry))
    assert found and not [each for each in found if isinstance(each, str)]
    assert found[0][1] == "a red one ." and len(found[0][0]) == 2


def test_the_data_readme_has_an_example_of_every_form_that_people_publish():
    assert {yaml.safe_load(entry)["form"] for _, entry, _ in EXAMPLES} == talks.FORMS.keys() - {"probe"}


@pytest.mark.parametrize("name", [*STEPS, "wrong_form", "missing_column", "empty_turn", "long_turn"])
def test_every_step_and_reason_stands_in_the_data_readme(name):
    assert f"`{name}`" in README
