"""dialogues: the published files end in one table, fractions are nested, and dropped rows are counted."""

import json
import re
import shlex
from pathlib import Path

import pyarrow.compute as pc
import pytest
import yaml

from vikdf import cli, files, schemas
from vikdf.dialogues import dialogues, read_split
from vikdf.fractions import FRACTIONS, fraction

ROOT = Path(__file__).resolve().parent.parent
SHARED = ROOT.parent / "shared/data"
REDDIT = {"form": "reddit", "context_turns": [2, 3]}
PAPER = yaml.safe_load((ROOT / "presets/paper.yaml").read_text())["dialogues"]


def sample(name: str) -> str:
    if not (SHARED / name).exists():
        pytest.skip(f"no real sample here: {SHARED / name}")
    return str(SHARED / name)


def entry(folder: Path, rows: list, split: str = "train", **options) -> dict:
    path = folder / f"{split}.json"
    path.write_text(json.dumps(rows))
    return options | {split: str(path)}


def talk(number: int) -> dict:
    return {"context": [f"hello {number}", "hi there"], "response": f"how are you, {number}?"}


def made(folder: Path, corpora: dict, **options) -> tuple[dict, dict]:
    """The rows of each task and the manifest's counts of them."""
    dialogues(seed=1, corpora=corpora, output=folder / "out", **options)
    tasks = json.loads((folder / "out/manifest.json").read_text())["tasks"]
    tables = {task: schemas.read(folder / f"out/{task}.parquet", schemas.DIALOGUES).to_pylist() for task in corpora}
    return tables, {task: counts["splits"] for task, counts in tasks.items()}


def as_the_paper(task: str, split: str, path: str, **changed) -> dict:
    settings = {name: PAPER[name] for name in ("clean", "max_characters", "repeats")}
    old = {name: value for name, value in PAPER["corpora"][task].items() if name not in ("train", "valid", "test")}
    return {"corpora": {task: old | changed | {split: path}}} | settings


def test_the_published_image_chat_split_is_read_whole(tmp_path):
    asked = as_the_paper("image_chat", "valid", sample("image_chat/valid.json"))
    rows, counts = made(tmp_path, **asked)
    found = counts["image_chat"]["valid"]
    assert found["read"] == found["kept"] == 5000 and not found["dropped"]
    assert found["styles_left_out"] == 215 and found["context_turns"] == {"2": 5000}
    assert found["turns_cleaned"] == {"lower": 13738, "printable": 0, "strip": 1251}
    first = rows["image_chat"][0]
    assert first["context"] == ["the guy is suffering from depression", "so who's down to mess with him?"]
    assert first["response"] == "this guy probably does not want to be here."


def test_image_chat_s_first_turns_are_the_paper_s_words(tmp_path):
    changed = {"turns": "first", "context_turns": [1], "clean": []}
    asked = as_the_paper("image_chat", "valid", sample("image_chat/valid.json"), **changed)
    rows, counts = made(tmp_path, **asked)
    assert counts["image_chat"]["valid"]["kept"] == 5000
    assert rows["image_chat"][0]["context"] == ["THE GUY IS SUFFERING FROM DEPRESSION"]
    assert rows["image_chat"][0]["response"] == "So who's down to mess with him?"


def test_real_reddit_pairs_are_kept_or_counted(tmp_path):
    asked = as_the_paper("reddit", "train", sample("reddit_stylefusion/train.json"))
    rows, counts = made(tmp_path, **asked)
    found = counts["reddit"]["train"]
    assert found["read"] == 7652 and found["kept"] == len(rows["reddit"]) == 1537
    others = {"4": 220, "5": 136, "6": 40, "7": 36, "8": 35, "9": 64}
    assert found["dropped"] == {"context_of_1_turns": 5584} | {f"context_of_{n}_turns": c for n, c in others.items()}
    assert found["context_turns"] == {"2": 1048, "3": 489}


def test_real_reddit_pairs_are_all_kept_where_any_number_of_turns_is(tmp_path):
    asked = as_the_paper("reddit", "train", sample("reddit_stylefusion/train.json"), context_turns="any")
    _, counts = made(tmp_path, **asked)
    assert counts["reddit"]["train"]["kept"] == 7652 and not counts["reddit"]["train"]["dropped"]


def test_the_same_pairs_come_out_of_the_published_tsv(tmp_path):
    mine = {"form": "turns", "columns": [0, 1], "separator": " EOS ", "context_turns": [2, 3]}
    tsv = made(tmp_path / "a", {"mine": mine | {"train": sample("reddit_stylefusion/ArXiv-like.tsv")}})
    json_ = made(tmp_path / "b", {"mine": REDDIT | {"train": sample("reddit_stylefusion/train.json")}})
    assert tsv[1]["mine"]["train"]["dropped"].pop("wrong_columns") == 22
    assert tsv[1]["mine"]["train"]["dropped"] == json_[1]["mine"]["train"]["dropped"]
    texts = [[(row["context"], row["response"]) for row in rows["mine"]] for rows, _ in (tsv, json_)]
    assert texts[0] == texts[1]


def test_bad_rows_are_dropped_by_reason(tmp_path):
    rows = [talk(0), "no dict", {"context": ["a", "b"]}, {"context": "a b", "response": "c"}]
    rows += [{"context": ["a", " "], "response": "c"}, {"context": ["a", 3], "response": "c"}]
    rows += [{"context": ["a"], "response": "c"}, {"context": ["a", "b"], "response": "\n"}]
    rows, counts = made(tmp_path, {"reddit": entry(tmp_path, rows, **REDDIT)})
    assert [row["id"] for row in rows["reddit"]] == ["reddit-train-0000000"]
    reasons = {"wrong_form": 2, "not_an_object": 1, "missing_column": 1, "empty_turn": 2, "context_of_1_turns": 1}
    assert counts["reddit"]["train"]["dropped"] == reasons


@pytest.fixture
def table(tmp_path):
    corpora = {"reddit": entry(tmp_path, [talk(number) for number in range(100)], **REDDIT)}
    dialogues(seed=1, corpora=corpora, output=tmp_path / "out")
    return schemas.read(tmp_path / "out/reddit.parquet", schemas.DIALOGUES)


def test_fractions_are_nested_and_of_their_size(table):
    ids = {name: set(fraction(table, name)["id"].to_pylist()) for name in FRACTIONS}
    assert [len(ids[name]) for name in ("full", "quarter", "eighth", "zero")] == [100, 25, 13, 0]
    assert ids["eighth"] < ids["quarter"] < ids["full"]


def test_a_fraction_is_drawn_from_the_whole_file(table):
    numbers = [int(each.rsplit("-", 1)[1]) for each in fraction(table, "quarter")["id"].to_pylist()]
    assert min(numbers) < 25 and max(numbers) > 75 and numbers == sorted(numbers)


def test_the_order_is_a_function_of_the_seed(tmp_path):
    one = entry(tmp_path, [talk(number) for number in range(50)], **REDDIT)
    positions = {seed: read_split("reddit", "train", one, seed=seed)[0]["position"].to_pylist() for seed in (1, 2)}
    assert positions[1] != positions[2] and sorted(positions[1]) == list(range(50))
    assert positions[1] == read_split("reddit", "train", one, seed=1)[0]["position"].to_pylist()


def test_the_order_is_that_of_the_lots_one_by_one(table):
    import hashlib

    lots = [hashlib.sha256(f"1 {identity}".encode()).digest() for identity in table["id"].to_pylist()]
    naive = {lot: place for place, lot in enumerate(sorted(lots))}
    assert table["position"].to_pylist() == [naive[lot] for lot in lots]


def test_the_bytes_do_not_depend_on_how_many_rows_are_held_at_a_time(tmp_path, monkeypatch):
    corpora = {"reddit": entry(tmp_path, [talk(number) for number in range(100)], **REDDIT)}
    digests = set()
    for rows in (7, 1000):
        monkeypatch.setattr("vikdf.dialogues.BATCH", rows)
        dialogues(seed=1, corpora=corpora, output=tmp_path / "out")
        digests.add(files.sha256(tmp_path / "out/reddit.parquet"))
    assert len(digests) == 1


def test_an_unknown_fraction_is_refused(table):
    with pytest.raises(ValueError, match="unknown fraction 'half'.*full, quarter, eighth, zero"):
        fraction(table, "half")


def test_probe_rows_carry_what_is_asked(tmp_path):
    facts = {"noun": "vase", "held_out": True, "attribute": "color", "value": "red", "choices": ["red", "blue"]}
    rows = [{"context": ["look at the vase", "what colour is it?"], "response": "it is red.", "probe": facts}]
    kept, _ = read_split("probe", "train", entry(tmp_path, rows, form="probe"), seed=1)
    assert json.loads(kept["probe"][0].as_py()) == facts


def test_the_manifest_adds_up_and_names_the_table(tmp_path):
    rows, counts = made(tmp_path, {"reddit": entry(tmp_path, [talk(0), talk(1), "bad"], **REDDIT)})
    found = counts["reddit"]["train"]
    assert (found["read"], found["kept"], found["dropped"]) == (3, 2, {"not_an_object": 1})
    assert found["context_turns"] == {"2": 2} and not found["doubles"]
    table = schemas.read(tmp_path / "out/reddit.parquet", schemas.DIALOGUES)
    assert pc.unique(table["split"]).to_pylist() == ["train"]


@pytest.fixture
def doubled(tmp_path):
    """Dialogue 1 stands twice in train, 2 in train and test, 3 in train and valid, 4 in valid and test."""
    corpora = REDDIT
    for split, numbers in {"train": [0, 1, 1, 2, 3], "valid": [3, 4], "test": [2, 4, 5]}.items():
        corpora = corpora | entry(tmp_path, [talk(number) for number in numbers], split)
    return {"reddit": corpora}


def test_dialogues_that_stand_twice_are_counted_and_kept(tmp_path, doubled):
    rows, counts = made(tmp_path, doubled)
    doubles = {split: found["doubles"] for split, found in counts["reddit"].items()}
    assert doubles == {
        "train": {"repeated": 1, "also_in_test": 1, "also_in_valid": 1},
        "valid": {"also_in_test": 1},
        "test": {},
    }
    assert len(rows["reddit"]) == 10


def test_the_rule_repeats_takes_them_out_of_train_and_leaves_the_test_whole(tmp_path, doubled):
    rows, counts = made(tmp_path, doubled, repeats="drop")
    dropped = {split: found["dropped"] for split, found in counts["reddit"].items()}
    assert dropped["train"] == {"repeated": 1, "also_in_test": 1, "also_in_valid": 1}
    assert dropped["valid"] == {"also_in_test": 1} and dropped["test"] == {}
    train = [row["response"] for row in rows["reddit"] if row["split"] == "train"]
    assert train == ["how are you, 0?", "how are you, 1?"]


def test_an_entry_s_own_steps_stand_in_the_place_of_the_general_ones(tmp_path):
    loud = entry(tmp_path, [{"context": [" A", "b"], "response": "C"}], **REDDIT)
    rows, _ = made(tmp_path, {"one": loud, "other": loud | {"clean": ["lower"]}}, clean=["strip"])
    assert [rows[task][0]["context"] for task in ("one", "other")] == [["A", "b"], [" a", "b"]]


@pytest.mark.parametrize(
    "text,said", [(None, "is missing"), ("[{", "not valid JSON"), ("{}", "expected"), ("[]", "no usable row")]
)
def test_a_wrong_file_is_named(tmp_path, text, said):
    if text is not None:
        (tmp_path / "rows.json").write_text(text)
    with pytest.raises(ValueError, match=f"rows.json.*{said}"):
        read_split("reddit", "train", REDDIT | {"train": str(tmp_path / "rows.json")}, seed=1)


def test_a_task_whose_name_leads_out_of_the_output_is_refused_before_anything_is_written(tmp_path):
    with pytest.raises(ValueError, match="dialogues.corpora has the name '../evil'"):
        made(tmp_path, {"../evil": entry(tmp_path, [talk(0)], **REDDIT)})
    assert not list(tmp_path.rglob("*.parquet"))


def test_a_file_whose_rows_a_rule_drops_says_which_rule(tmp_path):
    one = entry(tmp_path, [talk(0)], form="reddit", context_turns=[1])
    with pytest.raises(ValueError, match="context_of_2_turns 1.*vikdf validate --form reddit .*context_turns"):
        read_split("reddit", "train", one, seed=1)


def test_the_command_that_looks_at_an_unusable_file_can_be_typed_as_it_stands(tmp_path, capsys):
    one = entry(tmp_path, [{"a": "x"}, {"a": "y"}], form="turns", columns=["a", "b"], separator=" EOS ")
    with pytest.raises(ValueError, match="no usable row") as stop:
        made(tmp_path, {"mine": one})
    words = shlex.split(re.search("`(vikdf .*?)`; context_turns", str(stop.value)).group(1))
    with pytest.raises(SystemExit):
        cli.main(words[1:])
    said = capsys.readouterr()
    assert "2 missing_column" in said.out and "2 of 2 rows are bad" in said.err
