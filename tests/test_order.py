"""The order of the data: exact, resumable anywhere, and shared out among processes."""

from itertools import islice

import numpy as np
import pytest

from vikdf import order as orders
from vikdf.order import Batches, derangement, draw, order

SIZES = np.random.default_rng(0).integers(3, 40, 103).tolist()


def take(batches, count):
    return list(islice(batches, count))


def test_an_epoch_holds_every_row_once():
    assert sorted(order(100, 3, 7).tolist()) == list(range(100))


def test_each_epoch_and_seed_has_its_own_order():
    assert order(50, 1, 0).tolist() != order(50, 1, 1).tolist() != order(50, 2, 1).tolist()


def test_batches_from_the_middle_are_those_of_the_whole_run():
    whole, epoch, position = Batches(23, 5, seed=4), 0, 0
    wanted = take(whole, 12)
    for begun in range(12):
        assert take(Batches(23, 5, 4, epoch, position), 12 - begun) == wanted[begun:]
        epoch, position = whole.after(epoch, position)


def test_a_batch_never_holds_a_row_twice():
    assert all(len({row for _, row in batch}) == 7 for batch in take(Batches(17, 7, seed=1), 20))


def test_a_set_smaller_than_a_batch_is_one_batch():
    assert [len(batch) for batch in take(Batches(3, 8, seed=1), 4)] == [3, 3, 3, 3]


def test_the_processes_share_a_batch_without_rest_or_overlap():
    whole = take(Batches(20, 6, seed=2), 5)
    shares = [take(Batches(20, 6, seed=2, rank=rank, processes=2), 5) for rank in range(2)]
    for one, other, both in zip(*shares, whole, strict=True):
        assert sorted(one + other) == sorted(both)


def test_each_process_gets_one_stretch_of_a_batch():
    whole = take(Batches(20, 6, seed=2), 5)
    shares = [take(Batches(20, 6, seed=2, rank=rank, processes=4), 5) for rank in range(4)]
    assert [sum(parts, []) for parts in zip(*shares, strict=True)] == whole


def rows_of(batches) -> list[list[int]]:
    return [[row for _, row in batch] for batch in batches]


def test_sorted_by_size_an_epoch_still_holds_every_row_once():
    batches = rows_of(take(Batches(103, 5, seed=4, sizes=SIZES), 20))
    assert len(sum(batches, [])) == len(set(sum(batches, []))) == 100


def test_the_rows_that_fill_no_batch_are_not_a_matter_of_size():
    by_size = rows_of(take(Batches(103, 5, seed=4, sizes=SIZES), 20))
    assert set(sum(by_size, [])) == set(sum(rows_of(take(Batches(103, 5, seed=4), 20)), []))


def test_a_batch_holds_like_sizes_as_close_as_its_pool_allows(monkeypatch):
    monkeypatch.setattr(orders, "POOL", 4)
    batches = rows_of(take(Batches(103, 5, seed=4, sizes=SIZES), 20))
    shuffled = order(103, 4, 0)[:100].tolist()
    pools = [sorted(SIZES[row] for row in shuffled[start : start + 20]) for start in range(0, 100, 20)]
    expected = [pool[start : start + 5] for pool in pools for start in range(0, 20, 5)]
    assert sorted([SIZES[row] for row in batch] for batch in batches) == sorted(expected)


def test_batches_of_like_size_come_in_no_order_of_size_and_with_new_company_each_epoch():
    first, second = (rows_of(take(Batches(100, 5, 4, epoch, sizes=SIZES[:100]), 20)) for epoch in range(2))
    means = [sum(SIZES[row] for row in batch) for batch in first]
    assert means != sorted(means) and means != sorted(means, reverse=True)
    assert len({frozenset(batch) for batch in first + second}) > 20


def test_batches_by_size_from_the_middle_are_those_of_the_whole_run():
    whole, epoch, position = Batches(23, 5, seed=4, sizes=SIZES[:23]), 0, 0
    wanted = take(whole, 12)
    for begun in range(12):
        assert take(Batches(23, 5, 4, epoch, position, sizes=SIZES[:23]), 12 - begun) == wanted[begun:]
        epoch, position = whole.after(epoch, position)


def test_sizes_must_be_one_a_row():
    with pytest.raises(ValueError, match="3 sizes for 4 rows"):
        Batches(4, 2, seed=0, sizes=[1, 2, 3])


def test_more_processes_than_rows_are_refused():
    with pytest.raises(ValueError, match="1 rows to train on, but 2 processes"):
        Batches(1, 4, seed=0, processes=2)


def test_the_drawn_caption_depends_on_seed_epoch_and_row_only():
    drawn = [draw(5, 1, epoch, row) for epoch in range(20) for row in range(20)]
    assert drawn == [draw(5, 1, epoch, row) for epoch in range(20) for row in range(20)]
    assert set(drawn) == set(range(5))


@pytest.mark.parametrize("rows", [2, 3, 10, 257])
def test_a_derangement_leaves_no_row_in_its_place(rows):
    places = derangement(rows, seed=rows)
    assert sorted(places.tolist()) == list(range(rows)) and not (places == np.arange(rows)).any()
    assert places.tolist() == derangement(rows, seed=rows).tolist()


def test_one_row_cannot_be_deranged():
    with pytest.raises(ValueError, match="at least two rows"):
        derangement(1, seed=0)


def test_a_tenth_at_most_is_held_back_and_never_none():
    trained, held = orders.split(10, 4, seed=1)
    assert len(held) == 1 and sorted(trained + held) == [*range(10)]
    with pytest.raises(ValueError, match="the shards hold 9 image-text pairs, but at least 10 are needed"):
        orders.split(9, 4, seed=1)
