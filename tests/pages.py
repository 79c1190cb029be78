"""For the tests of the report: made-up tables of a run, as the stages before it write them, with hostile words in the answers.

paths = pages.written(tmp_path, seeds=1)    # the report's flags: every file it reads, and its settings
"""

import itertools

from vikdf import schemas
from vikdf.means import COLUMNS, METRICS, PROBE_COLUMNS, write_csv
from vikdf.significance import INTERVALS, PAIRS, SIGNIFICANCE

SYSTEMS = {
    "vikdf": "the paper's setting",
    "llm_lora": "the same LLM alone, LoRA",
    "llm_zero_shot": "prompted, not tuned",
}
CONTROLS = {"random": "never distilled", "shuffled": "shuffled pairs"}
ROWS = [("vikdf", data) for data in ("full", "quarter", "eighth", "zero")]
ROWS += [
    ("llm_lora", "full"),
    ("llm_lora", "zero"),
    ("llm_zero_shot", "zero"),
    ("random", "zero"),
    ("shuffled", "zero"),
]
STATISTICS = {"permutations": 999, "resamples": 200, "confidence": 0.95, "alpha": 0.05, "seed": 1}
HOSTILE = '</script><img src=x onerror=alert(1)> "quoted" & {{ 7 * 7 }} <b>bold</b>'
DRAWING = """<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" viewBox="0 0 374 200"
width="374pt" height="200pt"><style>* {{ color: red }}</style><defs><clipPath id="p"><rect width="9" height="9"/></clipPath>
<path id="m" d="M 0 0 L 300 150"/></defs>
<g clip-path="url(#p)" style="clip-path: url(#p)"><use xlink:href="#m" stroke="currentColor"/><text>{name}</text></g></svg>"""


def by_task(task):
    """The rows of a task: Reddit is tuned on whole, by the systems that Image-Chat has at zero."""
    return [(system, "full") for system, data in ROWS if data == "zero"] if task == "reddit" else ROWS


def value(system, data, place):
    return (
        70.0
        - 4 * [name for name, _ in dict.fromkeys(ROWS)].index(system)
        - ["full", "quarter", "eighth", "zero"].index(data)
        + place / 10
    )


def table1(seeds):
    lines = []
    for task, system, data in ((name, *row) for name in ("reddit", "image_chat") for row in by_task(name)):
        line = dict.fromkeys(COLUMNS) | {
            "task": task,
            "system": system,
            "data": data,
            "images": "none",
            "tuned_params": 1503863,
        }
        line |= {"n_test": 500, "seeds": seeds, "ead1": 12.5, "mean_length": 7.25}
        line |= {name: value(system, data, place) for place, name in enumerate(METRICS)}
        line |= {f"{name}_sd": 0.5 if seeds > 1 else None for name in METRICS}
        lines.append(line)
    return lines


def intervals(means, seeds):
    kept = [(row["task"], row["system"], row["data"], name, row[name]) for row in means for name in METRICS]
    kept += [
        ("probe", name, "zero", "color_accuracy_all_heldout", 0.9 - place / 5)
        for place, name in enumerate([*SYSTEMS, *CONTROLS])
    ]
    made = []
    for task, system, data, metric, number in kept:
        width = 0.05 if task == "probe" else 1.5
        ends = {
            "low": number - width,
            "high": number + width,
            "t_low": number - 3 * width,
            "t_high": number + 3 * width,
        }
        line = {
            "task": task,
            "system": system,
            "data": data,
            "metric": metric,
            "value": number,
            "method": "bootstrap",
            "seeds": seeds,
        }
        made.append(dict.fromkeys(INTERVALS) | line | ends | ({} if seeds > 1 else {"t_low": None, "t_high": None}))
    return made


def pairs(ranges):
    made = []
    for (task, metric), group in itertools.groupby(
        sorted(ranges, key=lambda row: (row["task"], row["metric"])), key=lambda row: (row["task"], row["metric"])
    ):
        for a, b in itertools.combinations(list(group), 2):
            difference = a["value"] - b["value"]
            p = 0.001 if abs(difference) > (0.3 if task == "probe" else 3) else 0.4
            line = {
                "task": task,
                "metric": metric,
                "a": a["system"],
                "a_data": a["data"],
                "b": b["system"],
                "b_data": b["data"],
            }
            line |= {"difference": difference, "p": p, "p_holm": min(1.0, 3 * p)}
            made.append(dict.fromkeys(PAIRS) | line | {"significant": "yes" if p < 0.01 else "no"})
    return made


def significance(means):
    made = []
    for row in means:
        for name in METRICS:
            best = row["system"] in ("vikdf", "random")
            line = {key: row[key] for key in ("task", "system", "data")} | {
                "metric": name,
                "value": row[name],
                "block": "systems",
            }
            line |= {
                "other": "llm_lora",
                "other_data": "full",
                "difference": 1.0,
                "p": 0.001,
                "p_holm": 0.009,
                "n": 500,
            }
            lower = name == "ppl"
            better = best != lower
            line |= {"better": "yes" if better else "no", "significant": "yes" if better and name != "dis2" else "no"}
            made.append(dict.fromkeys(SIGNIFICANCE) | line)
    return made


def probed(seeds):
    lines = []
    for (place, system), look, nouns in itertools.product(
        enumerate([*SYSTEMS, *CONTROLS]), ("color", "place"), ("heldout", "seen")
    ):
        line = dict.fromkeys(PROBE_COLUMNS) | {
            "system": system,
            "data": "zero",
            "attribute": look,
            "nouns": nouns,
            "n": 176,
        }
        lines.append(
            line | {"stated": 0.9, "accuracy": 0.8, "accuracy_all": 0.9 - place / 5, "floor": 0.15, "seeds": seeds}
        )
    return lines


def answers(system, data):
    head = dict.fromkeys(schemas.EXAMPLES.names) | {"system": system, "data": data, "seed": 1}
    made = []
    for number in range(30):
        line = {
            "id": f"i{number:04d}",
            "task": "image_chat",
            "context": ["i bought a new truck.", f"what colour is truck {number}?"],
        }
        text = (
            HOSTILE
            if number == 1
            else ""
            if number == 2 and system == "vikdf"
            else f"i think truck {number} is red, says {system}."
        )
        made.append(head | line | {"reference": f"truck {number} is red.", "hypothesis": text, "rouge_l": 0.5})
    if data == "zero":
        made += [row | {"task": "reddit", "data": "full", "id": row["id"].replace("i", "r")} for row in made]
        line = {
            "id": "p1",
            "task": "probe",
            "context": ["here is a kite."],
            "reference": "the kite is blue.",
            "hypothesis": "blue.",
        }
        line |= {"noun": "kite", "attribute": "color", "held_out": True, "stated": True, "right": system == "vikdf"}
        made.append(head | line)
    return made


def costs():
    head = dict.fromkeys(["stage", "run", "seconds", "steps", "peak_memory_mb", "device"])
    jobs = [
        ("backbones", "backbones-clip-s1", 135.1),
        ("pretrain", "pretrain-vikdf-all-s1", 121.5),
        ("pretrain", "pretrain-shuffled-all-s1", 119.0),
    ]
    return [
        head | {"stage": stage, "run": run, "seconds": seconds, "steps": 300, "peak_memory_mb": 812.4, "device": "cpu"}
        for stage, run, seconds in jobs
    ]


def written(folder, seeds=1):
    """Writes all files; gives the report's arguments."""
    means = table1(seeds)
    ranges = intervals(means, seeds)
    tables = {
        "table1": (COLUMNS, means), "probe": (PROBE_COLUMNS, probed(seeds)), "intervals": (INTERVALS, ranges),
        "pairs": (PAIRS, pairs(ranges)), "significance": (SIGNIFICANCE, significance(means)), "cost": (list(costs()[0]), costs()),
    }  # fmt: skip
    for name, (columns, lines) in tables.items():
        write_csv(folder / f"{name}.csv", columns, lines)
    (folder / "table1.md").write_text(
        "# Table 1\n\n## Notes\n\n- Bold: `best`; \\*: <b>significant</b>.\n\n## Signatures\n\n- reddit: `bleu|tok:nltk`\n"
    )
    figures = [folder / f"figures/{name}.svg" for name in ("curves_pretrain", "funnel", "fractions", "probe", "cost")]
    (folder / "figures").mkdir(exist_ok=True)
    for path in figures:
        path.write_text(DRAWING.format(name=path.stem))
    reported = folder / "reported"
    reported.mkdir(exist_ok=True)
    (reported / "table1.csv").write_text(
        "task,system,data,tuned_params,ppl,bleu1\nimage_chat,vikdf,zero,0,27.32,15.35\nimage_chat,bart,full,406000000,37.26,13.41\n"
    )
    (reported / "table3.csv").write_text("method,image_chat_bleu1\nVIKDF,15.35\n-TIM,13.80\n")
    (reported / "table4.csv").write_text("method,llm,reddit_bleu1\nLoRA,Llama,14.81\n")
    files = []
    for system, data in ROWS:
        files.append(folder / f"examples/{system}-{data}-s1.parquet")
        schemas.write(answers(system, data), files[-1], schemas.EXAMPLES)
    return {
        "table1": folder / "table1.csv", "below": folder / "table1.md", "probed": folder / "probe.csv",
        "costs": folder / "cost.csv",
        "significance": folder / "significance.csv", "intervals": folder / "intervals.csv", "pairs": folder / "pairs.csv",
        "answers": files, "figures": figures, "reported": [reported / f"table{n}.csv" for n in (1, 3, 4)], "extra": [],
        "output": folder / "report.html", "state_root": folder / "state", "systems": SYSTEMS, "controls": CONTROLS,
        "statistics": STATISTICS, "shown": 20,
    }  # fmt: skip
