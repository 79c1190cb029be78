"""How far raters agree, beyond chance: Fleiss' kappa and Krippendorff's alpha.

In: for kappa a table of counts, a row an item and a column a category; for alpha the ratings of each item. Out: a number
up to 1, or None where it is not defined: fewer than two raters, or all ratings the same, so that chance agrees wholly too.
Kappa takes 4 and 5 as no nearer than 1 and 5; alpha, with the interval distance, counts the squared difference.
"""

import numpy as np


def counts(ratings: list[list[int]], categories: tuple[int, ...]) -> np.ndarray:
    """How often each item [rows] got each category [columns]."""
    values = np.asarray(ratings)  # [items, raters]
    return np.stack([(values == each).sum(axis=1) for each in categories], axis=1)


def fleiss_kappa(table: np.ndarray) -> float | None:
    """Fleiss 1971, of counts [items, categories]. Ours: scipy has none, and nltk's is no function of counts."""
    table = np.asarray(table, dtype=float)
    raters = table.sum(axis=1)
    if not np.allclose(raters, raters[0]):
        raise ValueError("Fleiss' kappa needs the same number of ratings for every item")
    shares = table.sum(axis=0) / table.sum()
    by_chance = (shares**2).sum()
    if raters[0] < 2 or np.isclose(by_chance, 1):
        return None
    agreed = ((table**2).sum(axis=1) - raters) / (raters * (raters - 1))
    return float((agreed.mean() - by_chance) / (1 - by_chance))


def krippendorff_alpha(ratings: list[list[int]]) -> float | None:
    """With the interval distance, which the means beside it assume as well; nltk computes it."""
    from nltk.metrics.agreement import AnnotationTask
    from nltk.metrics.distance import interval_distance

    if len(ratings[0]) < 2 or len({value for row in ratings for value in row}) < 2:
        return None
    triples = [(rater, item, value) for item, row in enumerate(ratings) for rater, value in enumerate(row)]
    return float(AnnotationTask(data=triples, distance=interval_distance).alpha())
