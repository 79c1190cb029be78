"""The index of pictures: exact, the same whatever is asked at once, back from its files, and no trust in them."""

import json

import numpy as np
import pytest

from vikdf.baselines.parts.index import CONFIG, NAMES, VECTORS, Index, chosen, distinct, rows_of


def unit(rows: int, width: int = 16, seed: int = 0) -> np.ndarray:
    drawn = np.random.default_rng(seed).normal(size=(rows, width)).astype(np.float32)
    return drawn / np.linalg.norm(drawn, axis=1, keepdims=True)


def names(rows: int) -> list[str]:
    return [f"picture {row}" for row in range(rows)]


def plain(vectors: np.ndarray, queries: np.ndarray, top: int) -> np.ndarray:
    """Every inner product, sorted; among equals the first."""
    scores = queries.astype(np.float64) @ vectors.astype(np.float64).T
    return np.argsort(-scores, axis=1, kind="stable")[:, :top]


@pytest.fixture
def flat() -> Index:
    return Index.build(names(400), unit(400))


def test_the_nearest_are_those_of_comparing_with_every_picture(flat):
    queries = unit(90, seed=1)
    places, scores = flat.search(queries, top=5)
    assert places.tolist() == plain(flat.vectors, queries, 5).tolist()
    assert np.allclose(scores, np.take_along_axis(queries @ flat.vectors.T, places, axis=1), atol=1e-6)


def test_an_answer_does_not_depend_on_what_else_is_asked(flat):
    queries = unit(90, seed=1)
    places, scores = flat.search(queries, top=5)
    alone = [flat.search(query[None], top=5) for query in queries]
    assert np.array_equal(places, np.concatenate([each for each, _ in alone]))
    assert np.array_equal(scores, np.concatenate([each for _, each in alone]))


def test_of_equal_pictures_the_first_comes_first():
    twice = np.concatenate([unit(30), unit(30)])
    places, _ = Index.build(names(60), twice).search(unit(30), top=2)
    assert places.tolist() == [[row, row + 30] for row in range(30)]


def test_an_index_of_cells_finds_all_where_it_looks_into_all_and_most_where_into_a_third():
    vectors, queries = unit(1000), unit(100, seed=1)
    right = plain(vectors, queries, 1)
    every = Index.build(names(1000), vectors, "ivf", lists=12, probes=12).search(queries)[0]
    some = Index.build(names(1000), vectors, "ivf", lists=12, probes=4).search(queries)[0]
    assert np.array_equal(every, right)
    assert 0.6 < (some == right).mean() < 1


@pytest.mark.parametrize("settings", [{}, {"kind": "ivf", "lists": 8, "probes": 3}])
def test_a_saved_index_answers_as_before_and_its_bytes_are_always_the_same(tmp_path, settings):
    queries, bytes_of = unit(20, seed=1), []
    for folder in (tmp_path / "a", tmp_path / "b"):
        made = Index.build(names(300), unit(300), **settings)
        made.save(folder)
        bytes_of.append([(folder / name).read_bytes() for name in (VECTORS, NAMES, CONFIG)])
    again = Index.load(tmp_path / "a")
    assert bytes_of[0] == bytes_of[1]
    for ours, theirs in zip(made.search(queries, top=3), again.search(queries, top=3), strict=True):
        assert np.array_equal(ours, theirs)
    assert again.names == made.names


def spoil_names(folder):
    (folder / NAMES).write_text(json.dumps(["one"]))


def spoil_twins(folder):
    (folder / NAMES).write_text(json.dumps(["same"] * 400))


def spoil_width(folder):
    (folder / CONFIG).write_text(json.dumps({"kind": "flat", "pictures": 400, "width": 2**40}))


def spoil_kind(folder):
    (folder / CONFIG).write_text(json.dumps({"kind": "ivf", "probes": 9, "pictures": 400, "width": 16}))


def spoil_type(folder):
    (folder / CONFIG).write_text(json.dumps(["flat"]))


def spoil_vectors(folder):
    (folder / VECTORS).write_bytes((folder / VECTORS).read_bytes()[:-100])


def spoil_numbers(folder):
    from safetensors.numpy import save_file

    vectors = unit(400)
    vectors[7, 3] = np.nan
    save_file({"vectors": vectors}, folder / VECTORS)


def spoil_all(folder):
    (folder / CONFIG).unlink()


SPOILS = (spoil_names, spoil_twins, spoil_width, spoil_kind, spoil_type, spoil_vectors, spoil_numbers, spoil_all)


@pytest.mark.parametrize("spoil", SPOILS)
def test_a_harmed_index_is_one_sentence_that_names_the_folder(flat, tmp_path, spoil):
    flat.save(tmp_path / "index")
    spoil(tmp_path / "index")
    with pytest.raises(ValueError, match=f"{tmp_path}/index.*make"):
        Index.load(tmp_path / "index")


@pytest.mark.parametrize("queries, top", [(unit(3, width=9), 1), (unit(3), 401), (unit(3), 0), (unit(3)[0], 1)])
def test_a_question_that_does_not_fit_is_refused(flat, queries, top):
    with pytest.raises(ValueError, match="expected"):
        flat.search(queries, top=top)


@pytest.mark.parametrize("wrong", [{"kind": "tree"}, {"kind": "ivf"}, {"kind": "ivf", "lists": 500, "probes": 2}])
def test_settings_that_no_index_has_are_refused(wrong):
    with pytest.raises(ValueError, match="expected"):
        Index.build(names(400), unit(400), **wrong)


class Listed:
    """What the index reads of shards."""

    folder = "shards"

    def __init__(self, pictures: str):
        import pyarrow as pa

        self.index = pa.table({"image_sha256": list(pictures)})


def test_a_picture_that_many_rows_show_is_taken_once_by_its_first_row():
    shards = Listed("abacbd")
    assert distinct(shards) == ([0, 1, 3, 5], ["a", "b", "c", "d"])
    assert chosen(shards, {"kind": "flat", "most_pictures": 2}) == ([0, 1], ["a", "b"], {"kind": "flat"})
    assert rows_of(shards, ["d", "b"]) == [5, 1]
    with pytest.raises(ValueError, match="lacks 1 pictures of the index"):
        rows_of(shards, ["d", "z"])
