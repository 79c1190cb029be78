"""What MLflow shows of one system's scores: a run with each metric, its signature, and the answers to read and compare.

In: what evaluate found (SCORES rows, the EXAMPLES table). Out: a journal below state_root/evaluate/, and from it the run
`evaluate-<system>-<fraction>-s<seed>`: metrics `<task>/<metric>`, params `signature/<task>/<metric>`, both tables as they are,
and the first answers of each task as tables that MLflow's own pages show and lay side by side.
"""

import json
import shutil
from pathlib import Path

from vikdf import files, schemas, store, tracking

ROWS = 200  # of each task in a table for the eye: a page of MLflow takes them all at once; the parquet has every row
WRITTEN = ["id", "hypothesis", "reference", "context", "task", "nll", "tokens"]
WRITTEN += ["rouge_l", "average", "extrema", "greedy", "similarity"]
PROBED = ["id", "hypothesis", "reference", "context", "noun", "attribute", "held_out", "stated", "right", "cloze_rank"]
MAIN = ["ppl", "bleu1", "rouge_l", "average", "extrema", "greedy", "dis1", "dis2"]  # stand on the run's first page


def track(
    *, scores: list[dict], inputs: dict[str, Path], settings: dict, output: Path, examples: Path, state_root: Path
) -> None:
    """The whole run at once: evaluation takes seconds, so nothing is sent before its end."""
    first, folder = scores[0], state_root / "evaluate" / output.stem
    name = f"evaluate-{first['system']}-{first['data']}-s{first['seed']}"
    tags = {"system": first["system"], "fraction": first["data"], "seed": first["seed"]}
    tags |= {"task": " ".join(sorted({row["task"] for row in scores})), "mlflow.note.content": note(scores)}
    params = settings | {"images": first["images"], "tuned_params": first["tuned_params"]}
    params |= {f"signature/{row['task']}/{row['metric']}": row["signature"] for row in scores}
    data = {what: files.sha256(path) for what, path in inputs.items()}
    with tracking.Run("evaluate", name, params, folder, tags, data=data, began=tracking.LOADED) as run:
        run.log(0, {f"{row['task']}/{row['metric']}": row["value"] for row in scores})
        for path in (copied(output, folder / "scores.parquet"), copied(examples, folder / "examples.parquet")):
            run.artifact(path)
        for path in tables(examples, folder):
            run.artifact(path)


def copied(path: Path, aside: Path) -> Path:
    """The same file under a name that is the same in every run: so runs are compared."""
    with files.whole(aside) as new:
        shutil.copyfile(path, new)
    return aside


def tables(examples: Path, folder: Path) -> list[Path]:
    """The first rows of each task as files for MLflow's pages; the probe has columns of its own."""
    taken: dict[str, list[dict]] = {}
    for row in schemas.read(examples, schemas.EXAMPLES).to_pylist():
        part = taken.setdefault(row["task"], [])
        part += [row] if len(part) < ROWS else []
    kinds = {"answers": (WRITTEN, lambda row: row["noun"] is None), "probe": (PROBED, lambda row: row["noun"])}
    made = []
    for kind, (columns, belongs) in kinds.items():
        lines = [[shown(row[name]) for name in columns] for part in taken.values() for row in part if belongs(row)]
        if lines:
            made.append(folder / f"{kind}{store.TABLE}")
            with files.whole(made[-1]) as aside:
                aside.write_text(json.dumps({"columns": columns, "data": lines}, ensure_ascii=False))
    return made


def shown(value):
    """A cell for the eye: turns one below the other, numbers short."""
    return "\n".join(value) if isinstance(value, list) else round(value, 4) if isinstance(value, float) else value


def note(scores: list[dict]) -> str:
    """The run's first page, as Markdown: the metrics of table 1, a line a task; the probe's held-out nouns."""
    values = {(row["task"], row["metric"]): row["value"] for row in scores}
    tasks = sorted({task for task, metric in values if metric in MAIN})
    lines = [f"| task | {' | '.join(MAIN)} |", "|---|" + "---:|" * len(MAIN)] if tasks else []
    for task in tasks:
        cells = [f"{values[task, name]:.2f}" if (task, name) in values else "" for name in MAIN]
        lines.append(f"| {task} | {' | '.join(cells)} |")
    right = [
        (name.split("_")[0], value) for (_, name), value in values.items() if name.endswith("accuracy_all_heldout")
    ]
    told = ", ".join(f"{attribute} {value:.2f}" for attribute, value in right)
    lines += ["", f"Probe, held-out nouns, share right: {told}"] if right else []
    return "\n".join([*lines, "", f"The tables show the first {ROWS} answers of each task; examples.parquet has all."])
