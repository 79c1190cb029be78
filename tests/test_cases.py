"""Figures 5 and 6: a dialogue is chosen by its place, every system's answer stands as it is, and K finds its pictures."""

import io
import re
from pathlib import Path

import drawn
import packs
import pytest
import torch
from PIL import Image
from test_finetune import KNOWING, dialogues, pretrained  # noqa: F401 - fixtures

from vikdf import case, schemas, systems, textualized, tracking
from vikdf.figures import style
from vikdf.means import read_csv
from vikdf.report import pictures

ABOUT = {"systems": {"vikdf": "ours", "gone": "was not run"}, "controls": {"random": "a control"}}
LONG = "a very long answer " * 40
COLOURS = {0: "red", 1: "lime", 2: "blue", 3: "black", 4: "white", 5: "yellow", 6: "magenta"}


@pytest.fixture(autouse=True)
def unsent(monkeypatch):
    monkeypatch.setattr(tracking, "send", lambda folder, store: None)


def answers(folder: Path, system: str, data: str, texts: list[str], task="image_chat") -> Path:
    contexts = [["hello", f"question {number}"] for number in range(len(texts))]
    table = drawn.table(texts, task=task, system=system, data=data, context=contexts)
    path = folder / f"{system}-{data}-{task}.parquet"
    schemas.write(table, path, schemas.EXAMPLES)
    return path


def figure5(folder: Path, paths: list[Path], place: float = 0.5) -> list[dict]:
    made = {"answers": paths, "output": folder, "state_root": folder / "state", **ABOUT}
    case.case(**made, figure5={"task": "image_chat", "place": place})
    return read_csv(folder / "figure5.csv", case.COLUMNS)


def test_the_dialogue_is_chosen_by_its_place_in_the_test_set(tmp_path):
    path = answers(tmp_path, "vikdf", "zero", [f"answer {number}" for number in range(5)])
    found = {place: figure5(tmp_path, [path], place)[0]["hypothesis"] for place in (0, 0.5, 0.99, 1)}
    assert found == {0: "answer 0", 0.5: "answer 2", 0.99: "answer 4", 1: "answer 4"}


def test_every_system_has_one_row_without_data_of_its_own_where_there_is_one_in_the_order_of_table_1(tmp_path):
    made = [("other", "full"), ("random", "zero"), ("vikdf", "full"), ("vikdf", "zero")]
    rows = figure5(tmp_path, [answers(tmp_path, *one, [f"{' '.join(one)}"] * 3) for one in made])
    assert [row["hypothesis"] for row in rows] == ["vikdf zero", "other full", "random zero"]
    assert [row["block"] for row in rows] == ["systems", "systems", "controls"]
    assert "other (full)" in (tmp_path / "figure5.svg").read_text()


def test_systems_that_answered_other_dialogues_are_refused_by_name(tmp_path):
    paths = [answers(tmp_path, "vikdf", "zero", ["a"] * 4), answers(tmp_path, "random", "zero", ["a"] * 2)]
    with pytest.raises(ValueError, match="random answered .* their test sets differ"):
        figure5(tmp_path, paths)


def test_without_an_answer_to_the_task_it_says_where_to_look(tmp_path):
    with pytest.raises(ValueError, match="image_chat.*tables.figure5"):
        figure5(tmp_path, [answers(tmp_path, "vikdf", "zero", ["a"], task="reddit")])


@pytest.mark.parametrize("text", ["", LONG, "<script>alert(1)</script> & \x1b[2J $x_1$", "no" * 200])
def test_any_answer_is_drawn_whole_or_cut_and_the_page_takes_it(tmp_path, text):
    rows = figure5(tmp_path, [answers(tmp_path, "vikdf", "zero", [text])])
    assert rows[0]["hypothesis"] == text
    lines = case.wrapped("vikdf", text)
    assert len(lines) <= case.LINES and all(len(part) <= case.WIDE for _, part, _ in lines)
    assert "<script" not in str(pictures.inline(tmp_path / "figure5.svg"))


def test_figure_5_has_the_same_bytes_twice(tmp_path):
    path, made = answers(tmp_path, "vikdf", "zero", ["one", "two"]), []
    for _ in range(2):
        figure5(tmp_path, [path])
        made.append((tmp_path / "figure5.svg").read_bytes() + (tmp_path / "figure5.csv").read_bytes())
    assert made[0] == made[1]


@pytest.fixture(scope="module")
def given(pretrained, backbones, dialogues, tmp_path_factory) -> dict:  # noqa: F811
    """What figure 6 is made of: a distilled model, the same tuned, test dialogues, shards of plain colours."""
    root = tmp_path_factory.mktemp("figure6")
    places = systems.Places(backbones["llm"].parent)
    systems.learner(KNOWING, pretrained, places, {}, 1).save(root / "tuned")
    images = {number: plain(colour) for number, colour in COLOURS.items()}
    shards = packs.pack(packs.tables(root, images=images))
    made = {"pretrained": pretrained, "tuned": root / "tuned", "shards": shards, "backbones": places.backbones}
    return made | {"dialogues": dialogues / "image_chat.parquet", "precision": "float32"}


def plain(colour: str) -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (24, 24), colour).save(stream, "PNG")
    return stream.getvalue()


def figure6(folder: Path, given: dict, **changed) -> list[dict]:
    about = {"task": "image_chat", "places": [0.0, 0.6], "nearest": 3, "among": 100} | changed
    textualized.textualized(**given, output=folder, state_root=folder / "state", figure6=about)
    return read_csv(folder / "figure6.csv", textualized.COLUMNS)


def test_each_dialogue_stands_with_its_words_and_its_nearest_pictures_best_first(given, tmp_path):
    rows = figure6(tmp_path, given)
    assert [row["rank"] for row in rows] == [1, 2, 3] * 2 and len({row["id"] for row in rows}) == 2
    for first in (0, 3):
        cosines = [row["cosine"] for row in rows[first : first + 3]]
        assert cosines == sorted(cosines, reverse=True) and len({row["key"] for row in rows[first : first + 3]}) == 3
    drawing = (tmp_path / "figure6.svg").read_text()
    assert len(re.findall("<image", drawing)) == 2 * (1 + 3)
    assert "data:image/png" in str(pictures.inline(tmp_path / "figure6.svg"))


def test_the_nearest_pictures_are_those_of_a_search_one_by_one(given, tmp_path):
    from vikdf.model.vikdf import VIKDFForPretraining
    from vikdf.samples import Shards

    rows, folder = figure6(tmp_path, given, places=[0.0]), given["backbones"]
    model = VIKDFForPretraining.load(given["pretrained"], clip=folder / "clip", llm=folder / "llm").eval()
    found = {}
    with torch.no_grad():
        text = model.knowledge([rows[0]["context"].replace("\n", " ")])
        for sample in map(Shards(given["shards"]).__getitem__, range(len(COLOURS))):
            states = model.source.clip.image(model.source.clip.preprocess(sample["image"])[None])
            found[sample["key"]] = model.tim.similarity(text, model.source.iqformer(states, None)).item()
    best = sorted(found, key=found.get, reverse=True)[:3]
    assert [row["key"] for row in rows] == best
    assert [row["cosine"] for row in rows] == pytest.approx([found[key] for key in best], abs=2e-4)


def test_in_half_precision_the_same_picture_is_nearest(given):
    where = [given[name] for name in ("pretrained", "backbones", "shards")]
    asked = [["hello", "a kettle"]], {"nearest": 3, "among": 100}
    (whole,), (half,) = (textualized.nearest(*where, *asked, precision) for precision in ("float32", "bfloat16"))
    assert whole[0]["key"] == half[0]["key"]
    assert [each["cosine"] for each in half] != [each["cosine"] for each in whole]  # it was reckoned otherwise
    assert half[0]["cosine"] == pytest.approx(whole[0]["cosine"], abs=0.05)


def test_of_many_pictures_some_at_equal_distances_are_compared(given):
    from vikdf.samples import Shards

    assert textualized.spread(Shards(given["shards"]), 100) == list(range(7))
    assert textualized.spread(Shards(given["shards"]), 3) == [0, 2, 4]


def test_figure_6_has_the_same_bytes_twice(given, tmp_path):
    made = []
    for _ in range(2):
        figure6(tmp_path, given)
        made.append((tmp_path / "figure6.svg").read_bytes() + (tmp_path / "figure6.csv").read_bytes())
    assert made[0] == made[1]


def test_a_model_that_never_learned_to_draw_leaves_its_place_empty(tmp_path):
    row = {"task": "image_chat", "id": "1", "context": ["hello"], "response": "yes"}
    near = [{"key": "a", "cosine": 0.5, "caption": "a kettle", "picture": Image.new("RGB", (8, 8))}]
    textualized.draw([row], [{"words": "red", "drawn": None}], [near], tmp_path / "figure6.svg")
    text = (tmp_path / "figure6.svg").read_text()
    assert "without TAMIM" in text and len(re.findall("<image", text)) == 1 and style.SVG in text
