"""Answers the test dialogues: one process loads a system once and answers every task of its row of table 1.

In: data/dialogues; the fine-tuned system (or none, where it is prompted); the frozen parts below data/backbones.
Out: a table (RESPONSES): the answer, the NLL of the reference over all its tokens, and for probe rows the NLL of each
choice put into the answer. A system tuned on Reddit alone (fraction zero) answers Reddit, Image-Chat and the probe;
tuned on Image-Chat, it answers Image-Chat.
Run: python -m vikdf.generate --system vikdf --fraction zero --seed 1 --tuned results/finetune/vikdf-zero-s1 ...

Dialogues are sorted by length, so that a batch holds like with like, and answered in chunks; each finished chunk is
kept in state/, so that a stopped run goes on with the next one.
"""

import json
import sys
from pathlib import Path

from vikdf import endpoints, files, flags, flops, schemas, state, systems

UNREAD = ("fractions", "pretrain", "training", "steps")  # of an entry: how it was trained
CHUNK = 1024  # dialogues between two files in state/


def data_of(task: str, fraction: str, tuned: bool) -> str:
    """What table 1 calls the part of the task's own data that the system was tuned on."""
    return "full" if task == "reddit" and tuned else fraction


def asked(path: Path) -> list[dict]:
    import pyarrow.compute as pc

    table = schemas.read(path, schemas.DIALOGUES)
    rows = table.filter(pc.equal(table["split"], "test")).to_pylist()
    if not rows:
        raise ValueError(
            f"{path} has no row in the split 'test': expected some to answer; see `dialogues` in params.yaml"
        )
    return rows


def answer(answerer, rows: list[dict], decoding: dict, batch: int) -> list[dict]:
    """hypothesis, nll, tokens and cloze of each row."""
    contexts = [row["context"] for row in rows]
    said = answerer.generate(contexts, **decoding, batch=batch)
    nll, tokens = answerer.score(contexts, [row["response"] for row in rows], batch)
    made = [
        {"hypothesis": text, "nll": value, "tokens": count, "cloze": []}
        for text, value, count in zip(said, nll, tokens, strict=True)
    ]
    probes = [i for i, row in enumerate(rows) if row["probe"]]
    choices = [json.loads(rows[i]["probe"])["answers"] for i in probes]
    for i, values in zip(probes, answerer.cloze([contexts[i] for i in probes], choices, batch), strict=True):
        made[i]["cloze"] = values
    return made


def answer_all(work, load, rows: list[dict], decoding: dict, batch: int, journal) -> list[dict]:
    """All rows in chunks of like length, longest first; chunks that are there already are read, not repeated."""
    from tqdm import tqdm

    from vikdf.signals import Signals, stop

    order = sorted(range(len(rows)), key=lambda i: (-len(" ".join(rows[i]["context"])), i))
    chunks = [order[start : start + CHUNK] for start in range(0, len(order), CHUNK)]
    answerer, made = None, [{}] * len(rows)
    with Signals() as signals:
        for number, places in enumerate(bar := tqdm(chunks, desc="answering", unit="chunk", mininterval=5)):
            part = work.checkpoints / f"{number:06d}.json"
            begun, answers = part.exists(), _kept(part)
            if answers is None:
                answerer, some = answerer or load(), [rows[i] for i in places]
                answers = answer(answerer, some, decoding, batch)
                files.write_checked(part, {"answers": answers})
                if not begun:  # the journal tells of a damaged one already
                    journal.log(number, {"answered": min((number + 1) * CHUNK, len(rows))})
                    flops.answers(journal, number, len(chunks), answer, answerer, some, decoding, batch)
            for i, values in zip(places, answers, strict=True):
                made[i] = values
            bar.set_postfix({"dialogues": len(places)})
            stop(signals.name, f"chunk {number + 1} of {len(chunks)}", work.folder)
    return made


def _kept(part: Path) -> list[dict] | None:
    """A chunk's answers as they were kept; None where there are none, or damaged ones."""
    try:
        return files.read_checked(part)["answers"]
    except FileNotFoundError:
        return None
    except ValueError:
        print(f"{part} is damaged: it is made again", file=sys.stderr)
        return None


def loader(entry: dict, tuned: Path | None, places: systems.Places, precision: str):
    """() -> the system, ready to answer."""

    def load():
        from vikdf import place

        return place.put(systems.named(entry).answerer(entry, tuned, places), precision).eval()

    return load


def table(work, load, paths: dict[str, Path], wanted: dict, product: Path | None, params: dict, journal) -> list[dict]:
    """The rows of RESPONSES; wanted: task -> what table 1 calls the data that the system was tuned on."""
    from vikdf import place

    rows = [row for path in paths.values() for row in asked(path)]
    with place.autocast(params["precision"]):
        made = answer_all(work, load, rows, params["decoding"], params["batch"], journal)
    count = sum(files.read_json(product / "tuned.json").values()) if product else 0
    same = {"system": params["system"], "images": systems.images(params["entry"])}
    same |= {"seed": params["seed"], "tuned_params": count}
    return [
        {"id": row["id"], "task": row["task"], "data": wanted[row["task"]], "context": row["context"]}
        | {"reference": row["response"], "probe": row["probe"], **same, **values}
        for row, values in zip(rows, made, strict=True)
    ]


def generate(
    *,
    tuned: list[Path],
    dialogues: list[Path],
    backbones: Path,
    pretrained: list[Path],
    shards: list[Path],
    output: Path,
    state_root: Path,
    system: str,
    fraction: str,
    seed: int,
    entry: dict,
    decoding: dict,
    batch: int,
    precision: str,
) -> None:
    """Answers the test dialogues with one system, and scores the references.

    tuned: the fine-tuned system; none for a prompted one
    dialogues: the tables whose test dialogues are answered, named after their tasks
    backbones: folder of the backbones
    pretrained: what a baseline learned from image-text pairs; none for other systems
    shards: folder of the shards, where the system looks at pictures
    output: the table to write
    state_root: where finished chunks are kept
    system: the system's name
    fraction: zero | full | quarter | eighth: what of Image-Chat the system was tuned on
    seed: of the system's training
    entry: the system's entry in params.yaml
    decoding: {beams, no_repeat_ngram, max_new_tokens}
    batch: dialogues answered at once
    precision: float32 | bfloat16: of the frozen parts, and of the reckoning
    """
    product = tuned[0] if tuned else None
    paths = {path.stem: path for path in dialogues}
    wanted = {task: data_of(task, fraction, tuned=product is not None) for task in paths}
    entry = {name: value for name, value in endpoints.settled(entry).items() if name not in UNREAD}
    given = [paths[0] if paths else None for paths in (pretrained, shards)]
    places = systems.Places(backbones, *given, answers=state_root / "answers")
    params = {"system": system, "fraction": fraction, "seed": seed, "entry": entry}
    params |= {"decoding": decoding, "batch": batch, "precision": precision}
    inputs = paths | systems.frozen_inputs(entry, places) | ({"tuned": product} if product else {})
    with state.claim(state_root, "generate", ["generate", *systems.modules(entry)], params, inputs) as work:
        if not work.finished:
            load = loader(entry, product, places, precision)
            tags = {"system": system, "fraction": fraction, "seed": seed}
            with work.tracked(f"generate-{system}-{fraction}-s{seed}", params, tags) as journal:
                made = table(work, load, paths, wanted, product, params, journal)
                with work.finish() as aside:
                    schemas.write(made, aside / "responses.parquet", schemas.RESPONSES)
        work.export(output, "responses.parquet")


if __name__ == "__main__":
    flags.main(generate)
