"""Word vectors: every form gives the same table, damaged files are a sentence, and training gives the same bytes."""

import gzip
import io
import random

import numpy as np
import pytest

from vikdf.metrics import vectors

MATRIX = np.array([[1, 2], [3, -4]], dtype=np.float32)
BINARY = b"2 2\n" + b"".join(w + b" " + row.tobytes() + b"\n" for w, row in zip((b"cat", b"the"), MATRIX, strict=True))


def test_vectors_are_the_same_from_every_form(tmp_path):
    matrix = np.array([[1, 2], [3, -4]], dtype=np.float32)
    (tmp_path / "t").mkdir()
    (tmp_path / "t/glove.txt").write_text("cat 1 2\nthe 3 -4\n")
    head = b"2 2\n"
    body = b"".join(word + b" " + row.tobytes() + b"\n" for word, row in zip((b"cat", b"the"), matrix, strict=True))
    (tmp_path / "w.bin").write_bytes(head + body)
    (tmp_path / "n").mkdir()
    np.save(tmp_path / "n/vectors.npy", matrix)
    (tmp_path / "n/words.txt").write_text("cat\nthe\n")
    for path in ("t", "t/glove.txt", "w.bin", "n", "n/vectors.npy"):
        table = vectors.load(tmp_path / path)
        assert (table.rows(["the", "cat", "dog"]) == [[3, -4], [1, 2], [2, -1]]).all(), path


def test_wrong_vector_files_are_named(tmp_path):
    with pytest.raises(ValueError, match="nowhere is missing"):
        vectors.load(tmp_path / "nowhere")
    (tmp_path / "bad.txt").write_text("cat 1 2\nthe 3\n")
    with pytest.raises(ValueError, match="bad.txt cannot be read as word vectors: line 2: 1 numbers, but 2 expected"):
        vectors.load(tmp_path / "bad.txt")


FORMS = {
    "headed.txt": b"2 2\ncat 1 2 \nthe 3 -4 \n",
    "fast.vec": b"2 2\ncat 1 2\nthe 3 -4\n",
    "glove.txt.gz": gzip.compress(b"cat 1 2\nthe 3 -4\n"),
    "windows.txt": b"cat 1 2\r\nthe 3 -4\r\n",
    "plain.bin": BINARY.replace(b"\nthe", b"the").removesuffix(b"\n"),
    "packed.bin.gz": gzip.compress(BINARY),
}


@pytest.mark.parametrize("name", FORMS)
def test_more_forms_give_the_same_table(name, tmp_path):
    (tmp_path / name).write_bytes(FORMS[name])
    table = vectors.load(tmp_path / name)
    assert (table.rows(["the", "cat", "dog"]) == [[3, -4], [1, 2], [2, -1]]).all()
    assert list(table.place) == ["cat", "the"]


def test_words_with_spaces_and_words_given_twice_are_kept_as_they_come(tmp_path):
    (tmp_path / "t.txt").write_text("cat 1 2\n. . 3 4\ncat 5 6\n")
    assert vectors.load(tmp_path / "t.txt").rows(["cat", ". ."]).tolist() == [[1, 2], [3, 4]]


NUMPY = io.BytesIO()
np.save(NUMPY, np.ones((2, 2), np.float32))
NUMPY = NUMPY.getvalue()
DAMAGED = {
    "empty.txt": (b"", "no vectors in it"),
    "words.vec": (b"cat\ndog\n", "line 1: 0 numbers"),
    "letters.txt": (b"cat 1 2\ndog 3 x\n", "line 2: could not convert"),
    "latin.txt": (b"cat 1 2\ncaf\xe9 3 4\n", "line 2 is no UTF-8"),
    "short.txt": (b"3 2\ncat 1 2\nthe 3 4\n", "tells 3 words, but 2 follow"),
    "nan.txt": (b"cat 1 2\nthe nan 4\n", "vector of 'the' has numbers that are not finite"),
    "cut.txt.gz": (gzip.compress(b"cat 1 2\n" * 500)[:-12], "ended before"),
    "no.txt.gz": (b"cat 1 2\n", "[Nn]ot a gzipped file"),
    "cut.bin": (BINARY[:-6], "more than it has bytes|ends within word 2 of 2"),
    "cut.bin.gz": (gzip.compress(BINARY[:-6]), "ends within word 2 of 2"),
    "huge.bin": (b"99999999999999 300\ncat ", "more than it has bytes for"),
    "text.bin": (b"cat 1 2\n", "does not begin with `count width`"),
    "wordless.bin.gz": (gzip.compress(b"2 2\n" + b"x" * 20000), "no word where word 1 should begin"),
    "zero.bin": (b"0 2\n", "no vectors in it"),
    "vectors.npy": (b"no array", "cannot be read as word vectors"),
    "wide.bin.gz": (gzip.compress(b"1 99999999999\nx "), "words of 99999999999 numbers, expected at most 10000"),
    "long.txt": (b"cat " + b"1" * (1 << 20), "line 1 is longer than 1048576 bytes"),
    "bomb.txt.gz": (gzip.compress((b" " * 999_999 + b"\n") * 75, 9), r"bomb.txt.gz unpacks to more than \d+ bytes"),
    "header.npy": (NUMPY.replace(b"(2, 2)", b"(9, 9)"), "cannot be read as word vectors"),
    "believed.npy": (NUMPY.replace(b"(2, 2), ", b"(99999, 99999), "), "cannot be read as word vectors"),
    "t.npz": (b"", "unknown form of word vectors"),
    "t.npy.gz": (b"", "unknown form of word vectors"),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_damaged_files_are_a_sentence_that_names_them(name, tmp_path):
    content, message = DAMAGED[name]
    (tmp_path / "words.txt").write_text("cat\n")
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=message) as told:
        vectors.load(tmp_path / name)
    assert name in str(told.value)


@pytest.mark.parametrize(
    "array, words, message",
    [
        (np.zeros(3), "a\nb\nc\n", "expected .words, width. of numbers"),
        (np.array([["a"]]), "a\n", "expected .words, width. of numbers"),
        (np.array([[{}]], dtype=object), "a\n", "cannot be read"),
        (np.ones((2, 2)), "a\n", "2 rows, but words.txt beside it has 1 words"),
        (np.ones((0, 2)), "", "no vectors in it"),
        (np.full((1, 2), np.inf), "a\n", "not finite"),
        (np.ones((1, 2)), None, "words.txt"),
    ],
)
def test_arrays_that_are_no_table_of_words_are_a_sentence(array, words, message, tmp_path):
    np.save(tmp_path / "vectors.npy", array)
    if words is not None:
        (tmp_path / "words.txt").write_text(words)
    with pytest.raises(ValueError, match=message):
        vectors.load(tmp_path / "vectors.npy")


def test_a_folder_with_two_tables_names_both(tmp_path):
    for name in ("a.txt", "b.vec"):
        (tmp_path / name).write_text("cat 1 2\n")
    with pytest.raises(ValueError, match="found: a.txt, b.vec"):
        vectors.load(tmp_path)


def test_trained_vectors_are_the_same_bytes_twice_and_put_like_words_together(tmp_path):
    from vikdf.backbones.vectors import train

    rng = random.Random(0)
    lines = [
        f"the {rng.choice(['red', 'blue'])} {rng.choice(['car', 'bus'])} {rng.choice(['stops', 'starts'])} at {i % 7}"
        for i in range(300)
    ]
    (tmp_path / "text.txt").write_text("\n".join(lines) + "\n")
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        train(texts=tmp_path / "text.txt", width=4, window=2, seed=1, output=tmp_path / name)
    assert (tmp_path / "one/vectors.npy").read_bytes() == (tmp_path / "two/vectors.npy").read_bytes()
    table = vectors.load(tmp_path / "one")
    assert table.name == "ppmi-svd-4-window-2"
    red, blue, stops = table.rows(["red", "blue", "stops"])

    def cosine(a, b):
        return a @ b / np.linalg.norm(a) / np.linalg.norm(b)

    assert cosine(red, blue) > 0.9 > cosine(red, stops)
