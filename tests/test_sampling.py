"""What sampling is made of: texts collapse, CLIP scores in bounded batches."""

import random
from types import SimpleNamespace

import pytest
import torch
from PIL import Image

from vikdf import sampling, schemas
from vikdf.sampling import collapse, cosines, pieces


def test_the_same_text_in_a_picture_collapses_to_the_published_one():
    found = collapse(["A red  thing"], ["a red thing", "a vase", "a vase"])
    assert found == [("A red  thing", "web"), ("a vase", "synthetic")]


class Counting:
    """In the place of a CLIP: what it is given to read."""

    def __init__(self):
        self.read, self.seen = [], []

    def parameters(self):
        return iter([torch.zeros(1)])

    def tokenize(self, texts):
        self.read.append(texts)
        return torch.zeros(len(texts))

    def embed_image(self, pixels):
        self.seen.append(len(pixels))
        return torch.eye(2)[torch.arange(len(pixels)) % 2]

    def embed_text(self, tokens):
        return torch.eye(2)[torch.arange(len(tokens)) % 2]


def test_texts_of_several_pictures_are_scored_once_each():
    clip = Counting()
    assert cosines(clip, torch.zeros(2, 1), [["a", "b"], ["b"]], 10) == [[1.0, 0.0], [1.0]]
    assert clip.read == [["a", "b"]]


def test_clip_reads_at_most_a_batch_of_texts_or_pictures_at_a_time():
    clip = Counting()
    found = cosines(clip, torch.zeros(5, 1), [[f"{i:03d}" for i in range(21)]] * 5, 4)
    assert [len(row) for row in found] == [21] * 5
    assert sorted(text for part in clip.read for text in part) == [f"{i:03d}" for i in range(21)]
    assert max(map(len, clip.read)) <= 4 and max(clip.seen) <= 4
    assert max(map(len, clip.read)) - min(map(len, clip.read)) <= 3


def test_scores_of_a_halved_clip_are_cosines_in_whole_numbers(backbones):
    from vikdf.model.encoders import CLIP

    pixels = CLIP.load(backbones["clip"]).preprocess(Image.new("RGB", (48, 48), "red"))[None]
    texts = [["red kettle", "a vase on the beach"]]
    whole, halved = (
        cosines(CLIP.load(backbones["clip"], d), pixels, texts, 4) for d in (torch.float32, torch.bfloat16)
    )
    assert halved[0] == pytest.approx(whole[0], abs=0.01)
    assert any(score != torch.tensor(score).bfloat16().item() for score in halved[0])


def table_of_pairs(path, groups: list[int]):
    """A table with row groups of these sizes; the pictures are noise, so that a group is many bytes."""
    noise = random.Random(0)
    made = [
        {"key": f"a-{i:09d}", "source": "a", "url": "", "captions": ["b"], "status": "ok", "width": 1, "height": 1}
        | {"image": noise.randbytes(5000)}
        for i in range(sum(groups))
    ]
    with schemas.writer(path, schemas.PAIRS) as add:
        for size in groups:
            add(made[:size])
            made = made[size:]
    return path


def test_pieces_are_the_same_wherever_the_row_groups_end_and_wherever_one_begins(tmp_path, monkeypatch):
    monkeypatch.setattr(sampling, "CHUNK", 7)
    table = table_of_pairs(tmp_path / "pairs.parquet", [5, 1, 20, 3, 11])
    cut = {number: part["key"].to_pylist() for number, part in pieces(table, 0)}
    assert [len(keys) for keys in cut.values()] == [7, 7, 7, 7, 7, 5]
    assert [key for keys in cut.values() for key in keys] == [f"a-{i:09d}" for i in range(40)]
    for first in range(7):
        after = {number: part["key"].to_pylist() for number, part in pieces(table, first)}
        assert after == {number: keys for number, keys in cut.items() if number >= first}


def test_room_is_asked_for_before_the_first_picture(tmp_path, monkeypatch):
    asked, table = [], table_of_pairs(tmp_path / "pairs.parquet", [5])
    work = SimpleNamespace(folder=tmp_path / "work", checkpoints=tmp_path / "work/checkpoints")

    def full(what, wanted) -> None:
        asked.append((what, *wanted.values()))
        raise OSError("full")

    monkeypatch.setattr(sampling.space, "need", full)
    with pytest.raises(OSError, match="full"):  # and no model is read: there is none
        sampling.make(work, table, tmp_path / "captioner", tmp_path / "clip", batch=4, candidates=2)
    [(what, count)] = asked
    assert what == "the sampled captions of 5 pictures" and count > 0 and not work.folder.exists()


def test_what_comes_before_the_first_piece_to_be_made_is_not_read(tmp_path, monkeypatch):
    monkeypatch.setattr(sampling, "CHUNK", 10)
    table = table_of_pairs(tmp_path / "pairs.parquet", [20, 20])
    data = bytearray(table.read_bytes())
    data[4:50_000] = bytes(len(data[4:50_000]))  # within the first row group
    table.write_bytes(data)
    assert [number for number, _ in pieces(table, 2)] == [2, 3]
    with pytest.raises(ValueError, match="is damaged"):
        list(pieces(table, 0))
