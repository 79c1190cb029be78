"""Fine-tunes a system on text-only dialogues; the checkpoint with the lowest validation NLL of the same corpus is kept.

In: data/dialogues; where the weights begin (a pretrained folder, or the system tuned on Reddit); the frozen parts below
data/backbones; of baselines that learned from image-text pairs, what they learned, and data/shards. Out: <output>/ with
model.safetensors, config.json, tuned.json (all that any stage trained, by name), curves.jsonl, metrics.json. The fraction
`zero` tunes on Reddit; full, quarter and eighth tune the `zero` product further, on that part of Image-Chat.
Run: python -m vikdf.finetune --system vikdf --fraction zero --start results/pretrain/vikdf-s1 ... (see --help)
"""

import json
from pathlib import Path

from vikdf import files, flags, order, schemas, state, systems

ZERO, TUNED_ON = "zero", {"zero": "reddit"}  # every other fraction is one of Image-Chat's data
UNREAD = ("fractions", "pretrain", "training", "steps")  # of a baseline's entry: here they come as flags, or not at all
COLUMNS = ["split", "position", "context", "response", "picture"]


def task_of(fraction: str) -> str:
    return TUNED_ON.get(fraction, "image_chat")


def rows_of(path: Path, split: str, fraction: str) -> dict[str, list]:
    """Contexts and responses of the named fraction of a split."""
    import pyarrow.compute as pc

    from vikdf.fractions import fraction as part_of

    table = schemas.read(path, schemas.DIALOGUES, COLUMNS)
    part = part_of(table.filter(pc.equal(table["split"], split)), fraction)
    if not part.num_rows:
        raise ValueError(
            f"{path} has no row in the split {split!r}: expected some to tune on; see `dialogues` in params.yaml"
        )
    return {
        "contexts": part["context"].to_pylist(),
        "responses": part["response"].to_pylist(),
        "pictures": part["picture"].to_pylist(),
    }


def objective(system):
    """What the system learns (of VIKDF section 3.4.2: the NLL of the responses), as the loop wants it."""
    import torch

    class Objective(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.responder = system

        def counts(self, batch: dict) -> dict[str, int]:
            return self.responder.counts(batch)

        def forward(self, batch: dict, whole: dict[str, float]):
            return self.responder.shares(batch, whole)

    return Objective()


def validation(responder, rows: dict[str, list], batch: int):
    """() -> NLL per response token of all validation rows, shared out to the processes."""
    import torch
    from accelerate.utils import reduce

    from vikdf import place

    rows, process = {name: rows[name] for name in ("contexts", "responses")}, place.process()
    sizes = responder.sizes(**rows)
    places = sorted(range(len(sizes)), key=lambda i: (sizes[i], i))  # like lengths together: less padding
    batches = [places[start : start + batch] for start in range(0, len(places), batch)]
    rounds = -(-len(batches) // process.num_processes)  # all call the LLM equally often: one that is spread needs it

    def value() -> float:
        sums = torch.zeros(2, dtype=torch.float64, device=process.device)  # NLL, tokens
        for number in range(process.process_index, rounds * process.num_processes, process.num_processes):
            picked = batches[min(number, len(batches) - 1)]
            nll, counts = responder.nll(**{name: [column[i] for i in picked] for name, column in rows.items()})
            if number < len(batches):
                sums += torch.stack([nll.double().sum(), counts.double().sum()])
        total, tokens = reduce(sums, "sum").tolist()
        return total / tokens

    return value


def begin(entry: dict, start: Path | None, places: systems.Places, lora: dict, fraction: str, seed: int):
    """What is tuned, and what was trained in it before, by name."""
    tuned = files.read_json(start / "tuned.json") if start else {}
    if fraction != ZERO:
        return systems.named(entry).answerer(entry, start, places), tuned
    return systems.named(entry).learner(entry, start, places, lora, seed), tuned


def write(folder: Path, responder, at, found: dict, tuned: dict[str, int], run: dict) -> None:
    responder.save(folder, trained=tuned, run=run | {"results": found | {"steps": at.step}})
    files.write_json(folder / "tuned.json", tuned)
    (folder / "curves.jsonl").write_text("".join(json.dumps(point, sort_keys=True) + "\n" for point in at.curves))
    files.write_json(folder / "metrics.json", found | {"steps": at.step, "tuned_params": sum(tuned.values())})


def train(work, responder, tuned: dict, path: Path, fraction: str, numbers, run: dict, journal) -> None:
    """Tunes on the fraction, and writes the product; `run` is what the model card tells of it."""
    from vikdf import loop, place

    place.put(responder, numbers.precision, shard_llm=numbers.shard_llm)
    # On Reddit always all rows: `zero` says how much of Image-Chat was seen.
    rows = rows_of(path, "train", "full" if fraction == ZERO else fraction)
    valid = rows_of(path, "valid", "full")

    def fetch(picked: list[tuple[int, int]]) -> dict:
        made = {"keys": [f"row {row} of the training split in {path}" for _, row in picked]}
        made["lots"] = [order.lot(numbers.seed, *where) for where in picked]  # of masks and noise
        return made | {name: [column[row] for _, row in picked] for name, column in rows.items()}

    value = validation(responder, valid, numbers.micro_batch)
    aim, count = objective(responder), len(rows["contexts"])
    kept = {"folder": work.checkpoints, "journal": journal, "validate": value}
    at = loop.train(aim, fetch, count, numbers, **kept, sizes=responder.sizes(rows["contexts"], rows["responses"]))
    tuned = tuned | {name: part.numel() for name, part in responder.named_parameters() if part.requires_grad}
    found = {"rows": count, "best_step": at.best["step"], "validation_nll": at.best["validation"]}
    if state.main_process():
        names = {"dialogues": f"sha256 of {path.name}", "start": "sha256 of where it began"}
        data = {name: work.inputs[key] for key, name in names.items() if key in work.inputs}
        with work.finish() as product:
            write(product, responder, at, found, tuned, run | {"data": data})
        journal.log(at.step, found)


def finetune(
    *,
    start: list[Path],
    dialogues: Path,
    backbones: Path,
    pretrained: list[Path],
    shards: list[Path],
    output: Path,
    state_root: Path,
    system: str,
    fraction: str,
    seed: int,
    entry: dict,
    lora: dict,
    steps: dict,
    training: dict,
) -> None:
    """Fine-tunes one system on text-only dialogues (paper, section 3.4.2); goes on where it was stopped.

    start: where the weights begin: a pretrained folder, the system's `zero` product, or none
    dialogues: folder of the dialogue tables
    backbones: folder of the backbones
    pretrained: what a baseline learned from image-text pairs; none for other systems
    shards: folder of the shards, where the system looks at pictures
    output: folder of the tuned parts
    state_root: where checkpoints and finished work are kept
    system: the system's name
    fraction: zero (tuned on Reddit), or full | quarter | eighth (tuned further on that part of Image-Chat)
    seed: of new weights and the data order
    entry: the system's entry in params.yaml
    lora: {rank, alpha} where the entry has LoRA, as `finetune.lora` in params.yaml
    steps: {reddit, image_chat: steps of the loop}, as `finetune.steps` in params.yaml
    training: the loop's other numbers, as `finetune.training` in params.yaml (vikdf.loop.Numbers)
    """
    begun, path = (start[0] if start else None), dialogues / f"{task_of(fraction)}.parquet"
    entry = {name: value for name, value in entry.items() if name not in UNREAD}
    training = training | {"steps": steps[task_of(fraction)]}
    pictures = dialogues / "pictures.parquet" if systems.grounded(entry) else None
    places = systems.Places(backbones, *[paths[0] if paths else None for paths in (pretrained, shards)], pictures)
    params = {"system": system, "fraction": fraction, "seed": seed, "entry": entry, "lora": lora, "training": training}
    inputs = {"dialogues": path} | systems.frozen_inputs(entry, places)
    inputs |= ({"start": begun} if begun else {}) | ({"pictures": pictures} if pictures else {})
    name = f"finetune-{output.name}"  # a try of `tuning.csv` has its own, and may be the same work as a row
    with state.claim(state_root, "finetune", ["finetune", *systems.modules(entry)], params, inputs) as work:
        if not work.finished:
            from vikdf import loop

            tags = {"system": system, "fraction": fraction, "seed": seed}
            with work.tracked(name, params, tags) as journal:
                responder, tuned = begin(entry, begun, places, lora, fraction, seed)
                run = {"stage": "finetune", "name": f"{system} {fraction}", "seed": seed, "settings": params}
                numbers = loop.Numbers(seed=seed, **training)
                train(work, responder, tuned, path, fraction, numbers, run, journal)
        work.asked_as(name)
        work.export(output)


if __name__ == "__main__":
    flags.main(finetune)
