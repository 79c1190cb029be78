"""Tables that pass between stages: a byte that changed on the disk is noticed by whoever reads it, and is never another number."""

import random

import pytest

from vikdf import schemas

ROWS = [
    {"task": f"task{n % 3}", "system": "vikdf", "data": "zero", "images": "none", "seed": n, "tuned_params": n * 1000}
    | {"n_test": 500, "metric": "bleu1", "value": n / 7, "signature": f"signature {n}"}
    for n in range(400)
]


@pytest.fixture
def path(tmp_path):
    schemas.write(ROWS, tmp_path / "scores.parquet", schemas.SCORES)
    return tmp_path / "scores.parquet"


def pages(content: bytes) -> int:
    """Bytes before the footer, whose length stands before the last four."""
    return len(content) - 8 - int.from_bytes(content[-8:-4], "little")


def by_batches(path, schema):
    return [row for batch in schemas.batches(path, schema, rows=64) for row in batch.to_pylist()]


@pytest.mark.parametrize("read", [lambda *a: schemas.read(*a).to_pylist(), by_batches], ids=["read", "batches"])
def test_a_flipped_bit_gives_the_same_rows_or_the_name_of_the_damaged_file(path, read):
    content, draw, named = path.read_bytes(), random.Random(1), 0
    for _ in range(300):
        spoiled = bytearray(content)
        spoiled[draw.randrange(4, pages(content))] ^= 1 << draw.randrange(8)
        path.write_bytes(spoiled)
        try:
            assert read(path, schemas.SCORES) == ROWS  # a bit that no reader looks at, as of a page header's statistics
        except ValueError as error:
            named += str(error).startswith(f"{path} is damaged")
    assert named > 250


def test_what_was_not_harmed_is_read_as_it_was_written(path):
    assert schemas.read(path, schemas.SCORES).to_pylist() == by_batches(path, schemas.SCORES) == ROWS
