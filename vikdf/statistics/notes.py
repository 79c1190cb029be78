"""What a reader must know of tests and intervals: sentences for below a table. Settings in, a list of sentences out."""


def below_table(seeds: int, statistics: dict) -> list[str]:
    """What stands below a table whose marks come from significance.csv and intervals.csv."""
    said = [
        f"Significant: a paired permutation test ({statistics['permutations']:,} permutations, two-sided) against the best row "
        "of any other system of the same task and block, Holm-corrected over the metrics of the row, "
        f"p < {statistics['alpha']:g}" + _beside(seeds),
        f"That test swaps the two rows' answers to a random half of the test items, {statistics['permutations']:,} times; p is "
        "the share of swaps with a difference at least as large as the real one: small where chance alone hardly makes such a "
        "difference. Several metrics are several chances to be lucky, which Holm's correction allows for. Rows and tasks are "
        "such chances too, and are not corrected for.",
        "The best other row is picked on the same answers that are tested, which the p-values do not allow for: that makes "
        "stars rarer, since the luckiest of the others has to be beaten, and the p-value of a row behind it too small.",
    ]
    return said + _intervals(seeds, statistics)


def below_two(lines: list[dict], statistics: dict) -> list[str]:
    """What stands below `vikdf compare`."""
    return [
        f"p: paired permutation test, two-sided, {statistics['permutations']:,} permutations; "
        f"p Holm: corrected over the metrics of a task (the probe: of one kind of noun); "
        f"significant: p Holm < {statistics['alpha']:g}" + _beside(lines[0]["seeds"]),
        *_intervals(lines[0]["seeds"], statistics),
    ]


def _beside(seeds: int) -> str:
    if seeds > 1:
        return (
            ", and the paired t-interval over seeds leaves out 0; for Dis-1 and Dis-2 the interval over examples too."
        )
    return "; for Dis-1 and Dis-2 the interval leaves out 0 as well."


def _intervals(seeds: int, statistics: dict) -> list[str]:
    percent = f"{100 * statistics['confidence']:g} %"
    said = (
        f"{percent} intervals: {statistics['resamples']:,} bootstrap samples of the examples, given the trained models; for "
        "Dis-1 and Dis-2 subsamples, since a bootstrap sample repeats answers; for the probe, nouns are drawn, not questions. Of a "
        "dozen nouns, and of shares near 0 or 1, such intervals are too narrow: some cover 90 % where 95 are wanted, and where "
        "all or none are right they have no width, which is no certainty."
    )
    if seeds > 1:
        more = f"t-intervals: over the {seeds} seeds, paired by seed. A bootstrap over so few seeds would cover too little."
    else:
        more = (
            "One seed: tests and intervals hold for these trained models on other dialogues of the same kind. Whether models "
            "trained anew would differ in the same way, they do not say."
        )
    return [said, more]
