"""What masked language modelling hides: of each row some places, from the row's own lot.

    hidden = cover(lengths=[12, 9], share=0.15, least=0, lots=lots, salt=1, words=words)  # place -> what stands there instead
    given = [put(row, places) for row, places in zip(rows, hidden)]

Of the places 80 % show the mask, 10 % a random token, 10 % what they hold, as BERT's. A share of a row need not be a whole
number: the row's lot rounds it up as often as needed, so that the mean is the share also of short rows. What is drawn depends on
the row's length and lot alone, not on its company.
"""

import numpy as np

from vikdf.model.words import Words

KEPT = -1  # shown as it is, and asked for


def cover(lengths: list[int], *, share: float, least: int, lots: list[int], salt: int, words: Words) -> list[dict]:
    """Of each row: place -> the mask's id, a random token's, or KEPT."""
    return [
        _row(length, share, least, np.random.default_rng([lot, salt]), words)
        for length, lot in zip(lengths, lots, strict=True)
    ]


def _row(length: int, share: float, least: int, random: np.random.Generator, words: Words) -> dict[int, int]:
    count = min(length, max(least, int(share * length + random.random())))
    places = sorted(random.choice(length, count, replace=False).tolist())
    chances, others = random.random(count), random.integers(words.size, size=count).tolist()
    kinds = [
        words.mask if chance < 0.8 else other if chance < 0.9 else KEPT
        for chance, other in zip(chances, others, strict=True)
    ]
    return dict(zip(places, kinds, strict=True))


def put(row: list[int], hidden: dict[int, int]) -> list[int]:
    return [token if hidden.get(place, KEPT) == KEPT else hidden[place] for place, token in enumerate(row)]
