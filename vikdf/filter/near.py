"""Which pictures nearly equal an earlier one: their 64-bit difference hashes and their thumbnails' colours say it.

In: encoded pictures (`look`); hashes and colours of all pictures in order (`near_again`).
Out: what a picture looks like; for each picture whether an earlier one that stays looks nearly the same.
Run: by the stage, vikdf/filter/__main__.py.

Memory of `near_again`: 50 bytes a picture (hash, some colours, sorted numbers of half the pictures) and 200 MB; the
colours themselves stay where the caller has them, on disk. What equals a picture that goes does not go for that.
"""

import hashlib
from collections.abc import Callable

import numpy as np
from PIL import Image

from vikdf.decode import opened

THUMBNAIL = 6  # side of the colours that two near duplicates must share
COLOURS = THUMBNAIL * THUMBNAIL * 3  # bytes
COLOUR_STEP = 6  # of 255: recompression and another size move a colour of the thumbnail by less
SAMPLE = [0, 40, 67, 107]  # four of the colours, kept in memory: they rule most pairs out
BLOCK = 128  # so many pictures are compared each with each
PAIRS = 2_000_000  # pairs compared at a time

Colours = Callable[[np.ndarray], np.ndarray]  # numbers of pictures [n] -> their colours [n, COLOURS]


def look(image: bytes | None) -> tuple[bytes, int, bytes] | None:
    """(sha256, difference hash, thumbnail's colours): what tells two pictures apart. None where it cannot be decoded."""
    picture = opened(image)
    if picture is None:
        return None
    grey = np.asarray(picture.convert("L").resize((9, 8), Image.Resampling.BOX))  # [8, 9]
    bits = np.packbits(grey[:, 1:] > grey[:, :-1])
    colours = picture.resize((THUMBNAIL, THUMBNAIL), Image.Resampling.BOX).tobytes()
    return hashlib.sha256(image).digest(), int.from_bytes(bits.tobytes(), "big"), colours


class _Near:
    """The comparison: hashes differ in at most `bits` bits, no colour by more than COLOUR_STEP."""

    def __init__(self, hashes: np.ndarray, colours: Colours, bits: int):
        self.hashes, self.colours, self.bits = hashes, colours, bits
        self.sample = np.empty((len(hashes), len(SAMPLE)), np.uint8)
        for start in range(0, len(hashes), PAIRS):
            chunk = np.arange(start, min(start + PAIRS, len(hashes)))
            self.sample[chunk] = colours(chunk)[:, SAMPLE]
        edges = np.linspace(0, 64, bits + 2).astype(int)
        # Of bits + 1 bands of the hash at least one is equal in near duplicates: only pictures that share one are compared.
        self.bands = [
            (np.uint64(low), np.uint64((1 << int(high - low)) - 1)) for low, high in zip(edges, edges[1:], strict=False)
        ]

    def pairs(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        """For pairs of pictures' numbers [n], which of them are near [n]."""
        near = np.bitwise_count(self.hashes[a] ^ self.hashes[b]) <= self.bits
        for test in (lambda numbers: self.sample[numbers], self.colours):
            at = np.flatnonzero(near)
            if len(at):
                apart = test(a[at]).astype(np.int16) - test(b[at])
                near[at] = np.abs(apart).max(axis=1) <= COLOUR_STEP
        return near

    def of_earlier(self, earlier: np.ndarray, later: np.ndarray) -> np.ndarray:
        """Which of the later pictures are near one of the earlier ones [len(later)]."""
        near = np.zeros(len(later), bool)
        for low, mask in self.bands:
            left = np.flatnonzero(~near)
            bands = self.hashes[earlier] >> low & mask
            order = np.argsort(bands)
            bands, wanted = bands[order], self.hashes[later[left]] >> low & mask
            start, end = (np.searchsorted(bands, wanted, side) for side in ("left", "right"))
            for part in _parts(end - start):
                count = (end - start)[part]
                one = np.repeat(left[part], count)
                step = np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count)
                other = earlier[order[np.repeat(start[part], count) + step]]
                near[one[self.pairs(other, later[one])]] = True
        return near


def _parts(counts: np.ndarray) -> list[slice]:
    """Cuts the rows so that the counts of each part add up to PAIRS, or little more."""
    whose = np.cumsum(counts) // PAIRS
    cuts = [0, *(np.flatnonzero(np.diff(whose)) + 1), len(counts)]
    return [slice(a, b) for a, b in zip(cuts, cuts[1:], strict=False) if b > a]


def near_again(hashes: np.ndarray, colours: Colours, bits: int) -> np.ndarray:
    """True for a picture that an earlier one nearly equals, unless that one goes for the same reason.

    The same as comparing each picture with all earlier ones that stay, in order: first one half of them is decided, then
    the other half is compared with what stayed of the first, then what is left of it is decided in itself.
    """
    near = _Near(hashes, colours, bits)
    again = np.zeros(len(hashes), bool)

    def decide(numbers: np.ndarray) -> None:
        if len(numbers) <= BLOCK:
            _one_by_one(near, numbers, again)
            return
        first, second = numbers[: len(numbers) // 2], numbers[len(numbers) // 2 :]
        decide(first)
        stayed = first[~again[first]]
        again[second] = near.of_earlier(stayed, second)
        decide(second[~again[second]])

    decide(np.arange(len(hashes)))
    return again


def _one_by_one(near: _Near, numbers: np.ndarray, again: np.ndarray) -> None:
    """The plain form, for few: each one with all earlier ones that stay."""
    a, b = np.triu_indices(len(numbers), 1)
    at = np.flatnonzero(near.pairs(numbers[a], numbers[b]))
    for earlier, later in sorted(zip(numbers[a[at]], numbers[b[at]], strict=True), key=lambda pair: pair[1]):
        again[later] |= ~again[earlier]
