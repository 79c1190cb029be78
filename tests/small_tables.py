"""Small SCORES with what the statistics say of them, for the tests of tables and typeset: `made` writes Table 1 of them."""

from vikdf import schemas
from vikdf.marks import RANGES, VERDICTS
from vikdf.means import METRICS, PER_WORD, TASKS, grouped, table1, write_csv
from vikdf.tables import tables

FIXED = {"images": "none", "tuned_params": 12345, "n_test": 500, "signature": "m|vectors:glove@abc|tok:nltk-3|n:500"}
SYSTEMS, CONTROLS = {"vikdf": "the setting", "llm_lora": "text only"}, {"random": "no knowledge"}
STATISTICS = {"permutations": 1000, "resamples": 1000, "confidence": 0.95, "alpha": 0.05, "seed": 1}


def scores(system, data, seed, value, task="image_chat", names=(*METRICS, PER_WORD)):
    head = FIXED | {"task": task, "system": system, "data": data, "seed": seed}
    return [head | {"metric": name, "value": value + place} for place, name in enumerate(names)]


def probed(system, seed, value):
    names = ["color_accuracy_heldout", "color_accuracy_all_heldout", "color_floor_heldout", "place_cloze_rank_seen"]
    return scores(system, "zero", seed, value, "probe", names)


def verdict(system, data, name, better="yes", significant="no", p_paper="", task="image_chat"):
    """What significance.csv says of one value."""
    fixed = {"task": task, "system": system, "data": data, "metric": name, "block": "", "other": ""}
    return fixed | {"better": better, "significant": significant, "p_paper": p_paper}


def told(rows, verdicts):
    """Rows of significance.csv and intervals.csv of these scores: each value 0.5 to each side, and 1.5 over the seeds."""
    systems = sorted({row["system"] for row in rows})
    means = [(mean, name) for mean in table1(rows, systems) for name in [*METRICS, PER_WORD] if mean[name] is not None]
    ranges = []
    for mean, name in means:
        value, several = mean[name], mean["seeds"] > 1
        line = {key: mean[key] for key in ("task", "system", "data")} | {"metric": name, "value": value}
        line |= {"method": "bootstrap", "low": value - 0.5, "high": value + 0.5}
        ranges.append(line | {"t_low": value - 1.5 if several else None, "t_high": value + 1.5 if several else None})
    values = {(each["task"], each["system"], each["data"], each["metric"]): each["value"] for each in ranges}
    keys = ("task", "system", "data", "metric")
    return ranges, [each | {"value": values[tuple(each[key] for key in keys)]} for each in verdicts]


def made(folder, groups, output="results", verdicts=(), spoil=lambda ranges: None, left_out=None):
    """Writes the tables of these groups of scores; gives their folder. `spoil` may change the rows of intervals.csv."""
    paths = [folder / f"{number}.parquet" for number in range(len(groups))]
    for path, rows in zip(paths, groups, strict=True):
        schemas.write(rows, path, schemas.SCORES)
    keys = ("task", "system", "data", "seed", "metric")
    once = [part[0] for part in grouped([row for rows in groups for row in rows], *keys).values()]
    ranges, decided = told([row | {"n_test": 500} for row in once if row["task"] in TASKS], verdicts)
    spoil(ranges)
    write_csv(folder / "intervals.csv", RANGES, ranges)
    write_csv(folder / "significance.csv", VERDICTS, decided)
    tables(
        scores=paths,
        significance=folder / "significance.csv",
        intervals=folder / "intervals.csv",
        output=folder / output,
        state_root=folder / "state",
        systems=SYSTEMS,
        controls=CONTROLS,
        statistics=STATISTICS,
        decoding={"beams": 3},
        left_out=left_out or {},
    )
    return folder / output
