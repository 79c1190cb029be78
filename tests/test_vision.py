"""What the picture backbones learn from and what they become: boxes and scenes of the world, the detector, the ViT."""

import json
import shutil
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from vikdf import files, schemas
from vikdf.backbones import detector, vit
from vikdf.model import pretrained
from vikdf.world import flaws
from vikdf.world.draw import draw, jpeg
from vikdf.world.nouns import make_nouns, scene
from vikdf.world.publish import publish

WORLD = {
    "seed": 1,
    "nouns": 6,
    "held_out": 2,
    "departs": 0.1,
    "pixels": 48,
    "backbone_images": 60,
    "language_texts": 10,
}
WORLD |= {f"{corpus}_images": 50 for corpus in ("coco", "cc3m", "cc12m", "sbu")}
WORLD |= {split: {"train": 20, "valid": 4, "test": 4} for split in ("reddit", "image_chat")}
WORLD |= {"probe": {"held_out": 4, "seen": 4}, "port": 8765}
SHAPE = {"seed": 1, "learning_rate": 0.002, "pixels": 48, "patch": 12, "width": 32, "layers": 1}
FIND = SHAPE | {"queries": 3, "must_find": 0.0}


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    folder = tmp_path_factory.mktemp("published") / "world"
    publish(output=folder, **WORLD)
    return folder


@pytest.fixture(scope="module")
def nouns():
    return make_nouns(1, WORLD["nouns"], WORLD["held_out"])


@pytest.fixture(scope="module")
def given(world):
    return {"pairs": world / "backbones/pairs.parquet", "boxes": world / "backbones/boxes.parquet"}


def test_boxes_name_the_object_where_it_is_drawn_and_the_place_as_the_whole_picture(world, nouns):
    rows = schemas.read(world / "backbones/boxes.parquet", schemas.BOXES).to_pylist()
    for number in range(WORLD["backbone_images"]):
        shown = flaws.scene_of(nouns, WORLD, "backbones", number)
        object_, place = rows[2 * number : 2 * number + 2]
        assert object_["key"] == place["key"] == f"backbones-{number:09d}"
        assert (object_["label"], place["label"]) == (shown.noun.name, shown.place)
        left, top, right, bottom = (object_[side] for side in ("left", "top", "right", "bottom"))
        assert [place[side] for side in ("left", "top", "right", "bottom")] == [0, 0, 48, 48]
        other = replace(shown, color="black" if shown.color != "black" else "white")  # only the object differs
        far = np.abs(np.asarray(draw(other), float) - np.asarray(draw(shown), float)).max(axis=2) > 0
        y, x = far.nonzero()
        assert left <= x.min() and top <= y.min() and x.max() < right and y.max() < bottom
        assert right - left <= x.max() - x.min() + 3 and bottom - top <= y.max() - y.min() + 3


def test_each_image_chat_dialogue_of_train_has_the_picture_of_its_scene_and_no_other_has_one(world, nouns):
    rows = json.loads((world / "image_chat/train.json").read_text())
    with zipfile.ZipFile(world / "image_chat/images.zip") as archive:
        assert sorted(archive.namelist()) == sorted(f"images/{row['image_hash']}.jpg" for row in rows)
        data = [archive.read(f"images/{row['image_hash']}.jpg") for row in rows]
    for index, (row, picture) in enumerate(zip(rows, data, strict=True)):
        shown = scene(nouns, 1, "image_chat train", index, WORLD["departs"])
        assert picture == jpeg(draw(shown)) and shown.noun.name in row["dialog"][0][1]


def seen(folder: Path, picture: Path):
    """A folder's answer to the first picture, loaded as any checkpoint of the hub is."""
    import io

    import torch
    from PIL import Image
    from transformers import AutoImageProcessor, AutoModel, AutoModelForObjectDetection

    kind = AutoModelForObjectDetection if "queries" in folder.name else AutoModel
    model, processor = pretrained.load(kind, folder).eval(), pretrained.read(AutoImageProcessor, folder)
    image = Image.open(io.BytesIO(schemas.read(picture, schemas.PAIRS, ["image"])["image"][0].as_py()))
    with torch.no_grad():
        return model, model(**processor(images=image, return_tensors="pt"))


def test_a_detector_is_a_folder_of_its_ecosystem_with_the_classes_names(given, tmp_path):
    scores = detector.train(**given, output=tmp_path / "queries", steps=2, batch=4, **FIND)
    model, made = seen(tmp_path / "queries", given["pairs"])
    labels = set(schemas.read(given["boxes"], schemas.BOXES)["label"].to_pylist())
    assert set(model.config.id2label.values()) == labels and scores["classes"] == len(labels)
    assert made.logits.shape == (1, 3, len(labels) + 1) and made.pred_boxes.shape == (1, 3, 4)
    assert made.last_hidden_state[:, -3:].shape == (1, 3, 32)


def some(given: dict, folder: Path, count: int) -> dict:
    """The first pictures and their boxes, in tables of their own."""
    pairs = schemas.read(given["pairs"], schemas.PAIRS).slice(0, count)
    boxes = schemas.read(given["boxes"], schemas.BOXES).slice(0, 2 * count)
    schemas.write(pairs, folder / "pairs.parquet", schemas.PAIRS)
    schemas.write(boxes, folder / "boxes.parquet", schemas.BOXES)
    return {"pairs": folder / "pairs.parquet", "boxes": folder / "boxes.parquet"}


def test_a_detector_finds_and_names_what_it_was_shown(given, tmp_path):
    ten, numbers = some(given, tmp_path, 11), FIND | {"width": 64, "steps": 120, "batch": 10}
    detector.train(**ten, output=tmp_path / "queries", **numbers)
    model, _ = seen(tmp_path / "queries", ten["pairs"])
    images, targets, _ = detector.prepare(**ten, processor=detector.make_processor(48))
    scores = detector.found(model, images[1:], targets[1:])
    assert scores["whole_right"] > 0.9 and scores["object_right"] > 0.9 and scores["object_overlap"] > 0.6
    assert detector.found(model, images[1:], targets[2:] + targets[1:2])["object_right"] < 0.5  # of another picture


def test_the_boxes_of_a_picture_are_its_own_in_shares_of_its_sides(given):
    images, targets, labels = detector.prepare(**given, processor=detector.make_processor(48))
    rows = schemas.read(given["boxes"], schemas.BOXES).to_pylist()
    assert len(images) == len(targets) == WORLD["backbone_images"] and labels == sorted(labels)
    for target, row in zip(targets, rows[::2], strict=True):
        x, y, width, height = target["boxes"][0].tolist()
        assert labels[target["class_labels"][0]] == row["label"]
        assert [round(48 * side) for side in (x - width / 2, y - height / 2)] == [row["left"], row["top"]]
        assert [round(48 * side) for side in (x + width / 2, y + height / 2)] == [row["right"], row["bottom"]]
        assert target["boxes"][1].tolist() == [0.5, 0.5, 1, 1]


def test_pictures_without_a_box_are_learned_as_showing_nothing(given, tmp_path):
    few = some(given, tmp_path, 12)
    boxes = schemas.read(few["boxes"], schemas.BOXES)
    schemas.write(boxes.slice(0, 2), few["boxes"], schemas.BOXES)  # of the first picture, which may be held back
    _, targets, _ = detector.prepare(**few, processor=detector.make_processor(48))
    assert [len(target["class_labels"]) for target in targets] == [2] + [0] * 11
    scores = detector.train(**few, output=tmp_path / "queries", steps=2, batch=4, **FIND)  # batches without any box
    assert np.isfinite(scores["loss"])


def test_a_detector_that_finds_too_little_is_refused(given, tmp_path):
    with pytest.raises(ValueError, match=r"names 0\.\d+ of the held-back objects, expected 0.9.*must_find"):
        detector.train(**given, output=tmp_path, steps=1, batch=2, **FIND | {"must_find": 0.9})


def test_boxes_of_other_pictures_are_refused_by_name(given, tmp_path):
    rows = schemas.read(given["boxes"], schemas.BOXES).to_pylist()
    schemas.write([*rows, rows[0] | {"key": "of-another-world"}], tmp_path / "boxes.parquet", schemas.BOXES)
    with pytest.raises(ValueError, match="boxes.parquet has a box in of-another-world, which .*pairs.parquet"):
        detector.prepare(given["pairs"], tmp_path / "boxes.parquet", detector.make_processor(48))


@pytest.mark.parametrize("kind", ["detector", "vit"])
def test_the_same_seed_gives_the_same_bytes(given, tmp_path, kind):
    for name in ("a", "b"):
        if kind == "detector":
            detector.train(**given, output=tmp_path / name, steps=3, batch=4, **FIND)
        else:
            vit.train(pairs=given["pairs"], output=tmp_path / name, steps=3, batch=4, **SHAPE)
    assert files.sha256(tmp_path / "a") == files.sha256(tmp_path / "b")
    shutil.rmtree(tmp_path / "b")


def test_a_vit_is_a_folder_of_its_ecosystem_with_its_pooler(given, tmp_path):
    vit.train(pairs=given["pairs"], output=tmp_path / "vit", steps=2, batch=4, **SHAPE)
    model, made = seen(tmp_path / "vit", given["pairs"])
    assert made.pooler_output.shape == (1, 32) and made.last_hidden_state.shape == (1, 17, 32)
    assert model.config.image_size == 48


def test_a_vit_learns_which_words_its_pictures_have(given, tmp_path):
    scores = vit.train(pairs=given["pairs"], output=tmp_path / "vit", batch=8, **SHAPE | {"width": 64}, steps=150)
    assert scores["average_precision"] > scores["by_chance"] + 0.1


def test_content_words_are_those_of_some_pictures_and_none_of_grammar():
    captions = [["The red thing", "a photo"]] * 6 + [["blue thing it is"]] * 6 + [["odd"]]
    words, told = vit.content(captions)
    assert words == ["blue", "photo", "red"]  # not `thing`, in 12 of 13; not `odd`, in one
    assert told[:, 2].tolist() == [1.0] * 6 + [0.0] * 7 and told[6].tolist() == [1, 0, 0]


def test_average_precision_is_that_of_the_ranks_one_by_one():
    said = np.array([[0.9, 0.1], [0.8, 0.7], [0.1, 0.6], [0.7, 0.2]])
    told = np.array([[1, 0], [0, 1], [1, 0], [0, 0]], np.float32)
    naive = [(1 / 1 + 2 / 4) / 2, 1.0]
    assert vit.precision(said, told) == {"average_precision": np.mean(naive), "by_chance": 0.375}
    assert vit.precision(said, np.zeros_like(told)) == {}


def test_too_few_pictures_for_a_word_are_refused(world, given, tmp_path):
    rows = schemas.read(given["pairs"], schemas.PAIRS).to_pylist()[:4]
    schemas.write(rows, tmp_path / "pairs.parquet", schemas.PAIRS)
    with pytest.raises(ValueError, match="has no word in the captions of 5 pictures"):
        vit.train(pairs=tmp_path / "pairs.parquet", output=tmp_path / "vit", steps=1, batch=2, **SHAPE)
