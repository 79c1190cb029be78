"""Any two rows of a task, one metric at a time: what the page draws as a ranking with intervals and a matrix of tests.

In: rows of intervals.csv and pairs.csv. Out: plain values that script.js reads; each pair stands once.
"""

from vikdf.means import lower_is_better
from vikdf.report.rows import TASKS, key, title


def compare(intervals: list[dict], pairs: list[dict], controls: dict) -> list[dict]:
    """[{name, title, metrics: [{name, title, lower, rows, pairs}]}], a task each, metrics that have pairs alone.

    A row is [system, data, value, low, high, t_low, t_high, is a control]; a pair is
    [row, row, difference, p, p_holm, is significant].
    """
    tasks = []
    for task in dict.fromkeys(row["task"] for row in pairs):
        tested = [row for row in pairs if row["task"] == task]
        names = list(dict.fromkeys(row["metric"] for row in tested))
        measured = [
            _metric(
                name,
                [row for row in intervals if key(row, "task", "metric") == (task, name)],
                [row for row in tested if row["metric"] == name],
                controls,
            )
            for name in names
        ]
        tasks.append({"name": task, "title": TASKS.get(task, task), "metrics": measured})
    return tasks


def _metric(name: str, rows: list[dict], pairs: list[dict], controls: dict) -> dict:
    rows = [row for row in rows if row["value"] is not None]
    place = {key(row, "system", "data"): number for number, row in enumerate(rows)}
    known = [row for row in pairs if key(row, "a", "a_data") in place and key(row, "b", "b_data") in place]
    return {
        "name": name, "title": title(name), "lower": lower_is_better(name),
        "rows": [
            [row["system"], row["data"], row["value"], row["low"], row["high"], row["t_low"], row["t_high"],
             int(row["system"] in controls)]
            for row in rows
        ],
        "pairs": [
            [place[key(row, "a", "a_data")], place[key(row, "b", "b_data")], row["difference"], row["p"], row["p_holm"],
             int(row["significant"] == "yes")]
            for row in known
        ],
    }  # fmt: skip
