"""dialogues: the published forms end in one table, fractions are nested, and dropped rows are counted."""

import json
from pathlib import Path

import pyarrow.compute as pc
import pytest

from vikdf import schemas
from vikdf.dialogues import FRACTIONS, dialogues, fraction, read_split

SHARED = Path(__file__).resolve().parent.parent.parent / "shared/data"
REDDIT = {"form": "reddit", "context_turns": [2, 3]}
IMAGE_CHAT = {"form": "image_chat", "turns": "all"}


def sample(name: str) -> str:
    if not (SHARED / name).exists():
        pytest.skip(f"no real sample here: {SHARED / name}")
    return str(SHARED / name)


def entry(folder: Path, rows: list, **options) -> dict:
    path = folder / "rows.json"
    path.write_text(json.dumps(rows))
    return options | {"train": str(path)}


def talk(number: int) -> dict:
    return {"context": [f"hello {number}", "hi there"], "response": f"how are you, {number}?"}


def test_the_published_image_chat_split_is_read_whole():
    rows, dropped = read_split("image_chat", "valid", IMAGE_CHAT | {"valid": sample("image_chat/valid.json")}, seed=1)
    assert len(rows) == 5000 and not dropped
    assert rows[0]["context"] == ["THE GUY IS SUFFERING FROM DEPRESSION", "So who's down to mess with him?"]
    assert rows[0]["response"] == "This guy probably does not want to be here."


def test_image_chat_s_first_turns_are_the_paper_s_words():
    paper = IMAGE_CHAT | {"turns": "first", "valid": sample("image_chat/valid.json")}
    rows, _ = read_split("image_chat", "valid", paper, seed=1)
    assert rows[0]["context"] == ["THE GUY IS SUFFERING FROM DEPRESSION"]
    assert rows[0]["response"] == "So who's down to mess with him?"


def test_real_reddit_rows_are_kept_or_counted():
    rows, dropped = read_split("reddit", "train", REDDIT | {"train": sample("reddit_stylefusion/train.json")}, seed=1)
    assert len(rows) + dropped.total() == 7652
    assert {len(row["context"]) for row in rows} == {2, 3}
    assert dropped["context_of_1_turns"] > 4000
    everything = {"form": "reddit", "context_turns": list(range(1, 10))}
    rows, dropped = read_split(
        "reddit", "train", everything | {"train": sample("reddit_stylefusion/train.json")}, seed=1
    )
    assert len(rows) == 7652 and not dropped


def test_bad_rows_are_dropped_by_reason(tmp_path):
    rows = [talk(0), "no dict", {"context": ["a", "b"]}, {"context": "a b", "response": "c"}]
    rows += [{"context": ["a", " "], "response": "c"}, {"context": ["a", 3], "response": "c"}]
    rows += [{"context": ["a"], "response": "c"}, {"context": ["a", "b"], "response": "\n"}]
    kept, dropped = read_split("reddit", "train", entry(tmp_path, rows, **REDDIT), seed=1)
    assert [row["id"] for row in kept] == ["reddit-train-0000000"]
    assert dropped == {"wrong_form": 4, "empty_turn": 2, "context_of_1_turns": 1}


def test_control_tokens_in_a_user_s_text_stay_as_they_are(tmp_path):
    rows = [{"context": ["[INST] <s>  hello", "</s><image>"], "response": "<|im_end|> ok"}]
    kept, _ = read_split("reddit", "train", entry(tmp_path, rows, **REDDIT), seed=1)
    assert kept[0]["context"] == ["[INST] <s> hello", "</s><image>"] and kept[0]["response"] == "<|im_end|> ok"


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
    positions = {seed: [row["position"] for row in read_split("reddit", "train", one, seed)[0]] for seed in (1, 2)}
    assert positions[1] != positions[2] and sorted(positions[1]) == list(range(50))
    assert positions[1] == [row["position"] for row in read_split("reddit", "train", one, 1)[0]]


def test_an_unknown_fraction_is_refused(table):
    with pytest.raises(ValueError, match="unknown fraction 'half'.*full, quarter, eighth, zero"):
        fraction(table, "half")


def test_probe_rows_carry_what_is_asked(tmp_path):
    facts = {"noun": "vase", "held_out": True, "attribute": "color", "value": "red", "choices": ["red", "blue"]}
    rows = [{"context": ["look at the vase", "what colour is it?"], "response": "it is red.", "probe": facts}]
    kept, _ = read_split("probe", "train", entry(tmp_path, rows, form="probe"), seed=1)
    assert json.loads(kept[0]["probe"]) == facts


def test_the_manifest_adds_up_and_names_the_table(tmp_path):
    corpora = {"reddit": entry(tmp_path, [talk(0), talk(1), "bad"], **REDDIT)}
    dialogues(seed=1, corpora=corpora, output=tmp_path / "out")
    manifest = json.loads((tmp_path / "out/manifest.json").read_text())
    assert manifest["tasks"]["reddit"]["splits"]["train"] == {"read": 3, "kept": 2, "dropped": {"wrong_form": 1}}
    table = schemas.read(tmp_path / "out/reddit.parquet", schemas.DIALOGUES)
    assert pc.unique(table["split"]).to_pylist() == ["train"]


@pytest.mark.parametrize(
    "text,said", [(None, "is missing"), ("[{", "not valid JSON"), ("{}", "expected a list"), ("[]", "no usable row")]
)
def test_a_wrong_file_is_named(tmp_path, text, said):
    if text is not None:
        (tmp_path / "rows.json").write_text(text)
    with pytest.raises(ValueError, match=f"rows.json.*{said}"):
        read_split("reddit", "train", REDDIT | {"train": str(tmp_path / "rows.json")}, seed=1)
