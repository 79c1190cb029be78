"""Distils visual knowledge: trains the IQ-Former and the heads of the five losses in one run; CLIP and LLM stay frozen.

In: data/shards (pictures with captions), the folders of CLIP, BERT and LLM below data/backbones. Out: <output>/ with
model.safetensors (the trained parts), config.json, tuned.json (what was trained, by name), iqformer.json (what of the
IQ-Former was taken over from BERT, what is new), curves.jsonl (a line a point: step and losses), metrics.json (last losses;
how well K matches and rebuilds pictures that were held back).
Run: python -m vikdf.pretrain --shards data/shards --backbones data/backbones ... (see --help; the rule names all flags)
"""

import json
from pathlib import Path

from vikdf import files, flags, order, state

LOSSES = ("tim", "tamim", "iamtm", "iaci", "iakr")


def captions_of(shards, rows: list[int], shuffle_pairs: bool, seed: int) -> list[list[str]]:
    """The captions of each row; with shuffle_pairs those of another picture: no row keeps its own."""
    captions = [shards.index["captions"][row].as_py() for row in rows]
    return [captions[place] for place in order.derangement(len(rows), seed)] if shuffle_pairs else captions


class Pairs:
    """Pictures with their captions, as batches for VIKDF.sums; with `features` (vikdf.features) decoded and encoded before."""

    def __init__(self, shards, rows: list[int], captions: list[list[str]], clip, llm, seed: int, features=None):
        self.shards, self.rows, self.captions = shards, rows, captions
        self.clip, self.llm, self.seed, self.features = clip, llm, seed, features

    def batch(self, picked: list[tuple[int, int]]) -> dict:
        """(epoch, row), ... -> a batch: each picture with the one of its captions that this epoch draws."""
        numbers = [row for _, row in picked]
        drawn = [order.draw(len(self.captions[row]), self.seed, epoch, row) for epoch, row in picked]
        said = [self.captions[row][i] for row, i in zip(numbers, drawn, strict=True)]
        # another caption, if there is one
        others = [self.captions[row][i - 1] for row, i in zip(numbers, drawn, strict=True)]
        lots = [order.lot(self.seed, *where) for where in picked]  # of masks and prompts
        made = {"lots": lots, "keys": [self.shards.index["key"][self.rows[row]].as_py() for row in numbers]}
        made |= {"caption_ids": self.llm.tokenize(said), "other_ids": self.llm.tokenize(others)}
        if self.features:
            return made | self.features.batch(self._pictures(numbers), said)
        return made | {"pixels": self.pixels(numbers), "clip_tokens": self.clip.tokenize(said)}

    def pixels(self, numbers: list[int]):
        """Prepared pictures [B, 3, S, S]."""
        import torch

        if self.features:
            return self.features.prepared(self._pictures(numbers))
        return torch.stack([self.clip.preprocess(self.shards[self.rows[row]]["image"]) for row in numbers])

    def _pictures(self, numbers: list[int]) -> list[str]:
        return [self.shards.index["image_sha256"][self.rows[row]].as_py() for row in numbers]


def objective(model, weights: dict[str, float]):
    """Equations 5 and 9 as the loop wants them; a weight of 0 leaves the loss, and what only it trains, out."""
    import torch

    wanted = tuple(name for name in LOSSES if weights[name])
    for name in set(LOSSES) - set(wanted):
        getattr(model, name).requires_grad_(False)
    iakr_reads_K = weights["iakr"] and model.iakr.slots is None and model.source.queries > 1
    model.source.into_llm.requires_grad_(bool(weights["iaci"] or iakr_reads_K))

    class Objective(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.model = model

        def counts(self, batch: dict) -> dict[str, int]:
            return self.model.counts(batch, wanted)

        def forward(self, batch: dict, whole: dict[str, float]):
            shares = {name: total / whole[name] for name, (total, _) in self.model.sums(batch, wanted).items()}
            return sum(weights[name] * share for name, share in shares.items()), shares

    return Objective()


def scores(model, pairs: Pairs, mean, device) -> dict[str, float | None]:
    """Held-back pictures: is a caption's K nearest to its own picture's; is a masked one rebuilt better than by the
    mean picture of the training data? (None where a head that tells it was not trained.)"""
    import torch
    from accelerate.utils import send_to_device
    from torch.nn import functional as F

    from vikdf.model.distill import take

    whole = [(0, row) for row in range(len(pairs.rows))]
    K_T, K_I, errors, plain, counted = [], [], 0.0, 0.0, 0
    with torch.no_grad():
        for start in range(0, len(whole), 50):
            batch = send_to_device(pairs.batch(whole[start : start + 50]), device)
            H_T, mask = model.source.clip.text(batch["clip_tokens"])
            K_T.append(model.source.iqformer(H_T, mask))
            K_I.append(model.source.iqformer(model.source.clip.image(batch["pixels"])))
            total, count = model.sums(batch | {"h_text": H_T}, ("tamim",))["tamim"]
            _, masked = model.tamim.cover(batch["pixels"], batch["lots"])
            apart = (batch["pixels"] - mean.to(device)).abs()  # [B, 3, S, S]
            apart = F.pixel_unshuffle(apart, model.tamim.patch).flatten(2).transpose(1, 2)  # [B, P - 1, 3 p p]
            errors, plain, counted = errors + total.item(), plain + take(apart, masked).sum().item(), counted + count
        similar = model.tim.similarity(torch.cat(K_T), torch.cat(K_I))  # [held back, held back]
        hits = (similar.argmax(dim=1) == torch.arange(len(similar), device=device)).float().mean().item()
    return {
        "held_back": len(whole),
        "text_to_image_recall_at_1": hits if model.tim.trained() else None,
        "text_to_image_recall_at_1_by_chance": 1 / len(whole),
        "masked_error": errors / counted if model.tamim.decoder.weight.requires_grad else None,
        "masked_error_of_mean_image": plain / counted,
    }


def write(folder: Path, model, at, found: dict, tuned: dict[str, int], run: dict) -> None:
    from vikdf.model import checkpoint

    model.save(folder, trained=checkpoint.parts(tuned), run=run | {"results": found | {"steps": at.step}})
    files.write_json(folder / "tuned.json", tuned)
    files.write_json(
        folder / "iqformer.json", {kind: getattr(model.source.iqformer, kind) for kind in ("taken", "initialised")}
    )
    (folder / "curves.jsonl").write_text("".join(json.dumps(point, sort_keys=True) + "\n" for point in at.curves))
    files.write_json(folder / "metrics.json", found | {"steps": at.step, "tuned_params": sum(tuned.values())})


def train(work, shards: Path, folders: dict[str, Path], seed: int, settings: dict, journal) -> None:
    """Trains, scores and writes the product."""

    from vikdf import features, loop, place
    from vikdf.model.vikdf import VIKDFForPretraining
    from vikdf.samples import Shards

    numbers = loop.Numbers(seed=seed, **settings["training"])
    data = Shards(shards)
    rows, held = order.split(len(data), settings["held_back"], seed)
    model = VIKDFForPretraining.build(**folders, seed=seed, **settings["model"])
    if state.main_process():
        print(model.source.iqformer.origin(), flush=True)
    place.put(model, numbers.precision, shard_llm=numbers.shard_llm)
    device = place.process().device
    made, kept = {"clip": model.source.clip, "llm": model.llm, "seed": seed}, None
    if settings["cache_features"] and numbers.steps:
        kept = features.of(work.folder.parents[1], data, model.source.clip, device, numbers.workers)
    captions = captions_of(data, rows, settings["shuffle_pairs"], seed)
    pairs = Pairs(data, rows, captions, features=kept, **made)
    aim = objective(model, settings["weights"])
    at = loop.train(aim, pairs.batch, len(rows), numbers, folder=work.checkpoints, journal=journal)
    tuned = {name: value.numel() for name, value in model.named_parameters() if value.requires_grad and numbers.steps}
    some = pairs.pixels(list(range(min(1000, len(rows)))))
    apart = Pairs(data, held, captions_of(data, held, False, seed), **made)
    with place.autocast(numbers.precision):
        found = scores(model.eval(), apart, some.mean(0), device)
    if state.main_process():
        found |= {name: value for name, value in (at.curves[-1] if at.curves else {}).items() if name in LOSSES}
        run = {"stage": "pretrain", "seed": seed, "settings": settings}
        run["data"] = {"pictures": len(rows), "held_back": len(held), "sha256 of the shards": work.inputs["shards"]}
        with work.finish() as product:
            write(product, model, at, found, tuned, run)
        journal.log(at.step, {name: value for name, value in found.items() if value is not None})


def pretrain(
    *,
    shards: Path,
    backbones: Path,
    output: Path,
    state_root: Path,
    variant: str,
    seed: int,
    clip: str,
    bert: str,
    llm: str,
    shuffle_pairs: bool,
    cache_features: bool,
    held_back: int,
    weights: dict,
    model: dict,
    training: dict,
) -> None:
    """Distils visual knowledge into the IQ-Former (paper, sections 3.2 and 3.3); goes on where it was stopped.

    shards: folder of the shards
    backbones: folder of the backbones
    output: folder of the trained parts
    state_root: where checkpoints and finished work are kept
    variant: the name of the run: vikdf, or an entry of `ablations`
    seed: of new weights, data order, masks and prompts
    clip: name of the CLIP below backbones
    bert: name of the BERT that the IQ-Former starts from
    llm: name of the language model
    shuffle_pairs: true gives every picture the captions of another one (a control)
    cache_features: true reads what CLIP makes of pictures and captions from features/ below state_root (made there once)
    held_back: pairs kept apart for the scores
    weights: {tim, tamim, iamtm, iaci, iakr: weight of the loss}, as `pretrain.weights` in params.yaml; 0 leaves it out
    model: settings of the model, as `pretrain.model` in params.yaml (vikdf.model.vikdf.VIKDFForPretraining)
    training: numbers of the loop, as `pretrain.training` in params.yaml (vikdf.loop.Numbers)
    """
    folders = {"clip": backbones / clip, "bert": backbones / bert, "llm": backbones / llm}
    settings = {"shuffle_pairs": shuffle_pairs, "cache_features": cache_features, "held_back": held_back}
    settings |= {"weights": weights, "model": model, "training": training}
    with state.claim(
        state_root, "pretrain", ["pretrain"], settings | {"seed": seed}, {"shards": shards, **folders}
    ) as work:
        if not work.finished:
            name = f"pretrain-{variant}-all-s{seed}"
            with work.tracked(name, settings, {"variant": variant, "seed": seed}) as journal:
                train(work, shards, folders, seed, settings, journal)
        work.export(output)


if __name__ == "__main__":
    flags.main(pretrain)
