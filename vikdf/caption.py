"""Captions every picture anew and keeps the best texts, after BLIP-2's recipe.

In: the filtered pictures (PAIRS), an image-to-text folder of transformers, a CLIP folder.
Out, all at once: <output>/captions.parquet (CAPTIONS: every candidate with its score and rank; `used` marks the best),
report.txt (scores and shares by origin, drops by rule).
Run: python -m vikdf.caption --pairs data/filter/pairs.parquet --output data/caption ... (--help names all)

Sampling and scoring are kept by pieces in state/caption/; choosing is done anew each time, so another `keep` or another
rule never captions again. A candidate is sampled with random numbers of its own picture (a function of seed and key),
put into generate() through a logits processor: what a picture gets does not depend on which pictures share its batch.
"""

import hashlib
import io
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from tqdm import tqdm

from vikdf import files, flags, schemas, state

CHUNK = 500  # pictures of one finished piece: what a killed run repeats at most


def numbers(seed: int, key: str, shape: tuple[int, ...]):
    """The picture's own random numbers: uniform, a function of the seed and the key alone."""
    import numpy as np

    own = hashlib.sha256(f"{seed} {key}".encode()).digest()
    return np.random.default_rng(int.from_bytes(own[:16])).random(shape, dtype=np.float32)


class Nucleus:
    """Nucleus sampling with given random numbers [rows, tokens]: leaves one token a row for generate() to pick.

    The likeliest tokens that together reach `top_p` share the interval from 0 to 1; the row's number falls on one.
    """

    def __init__(self, numbers, top_p: float):
        self.numbers, self.top_p, self.step = numbers, top_p, 0

    def __call__(self, input_ids, scores):
        import torch

        likely, tokens = scores.float().softmax(-1).sort(dim=-1, descending=True, stable=True)  # [rows, V]
        reach = likely.cumsum(-1)
        last = (reach < self.top_p).sum(-1, keepdim=True).clamp(max=scores.shape[-1] - 1)
        point = self.numbers[:, self.step, None] * reach.gather(-1, last)
        self.step += 1
        taken = tokens.gather(-1, torch.minimum((reach <= point).sum(-1, keepdim=True), last))
        return torch.full_like(scores, -torch.inf).scatter(-1, taken, 0.0)


class Captioner:
    """Any image-to-text folder of transformers (BLIP, BLIP-2, ...), on the GPU in bfloat16 where there is one."""

    def __init__(self, folder: Path):
        import torch
        from transformers import AutoModelForImageTextToText, AutoProcessor

        from vikdf.model import pretrained

        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.dtype = torch.bfloat16 if self.device.type == "cuda" else torch.float32
        self.processor = pretrained.read(AutoProcessor, folder)
        self.model = pretrained.load(AutoModelForImageTextToText, folder, self.dtype).to(self.device).eval()

    def sample(self, pictures: list, numbers, top_p: float) -> list[list[str]]:
        """For each picture as many captions as it has rows of random numbers [B, candidates, tokens]."""
        import torch
        from transformers import LogitsProcessorList

        rows = torch.from_numpy(numbers).flatten(0, 1).to(self.device)  # [B * candidates, tokens]
        pixels = self.processor(images=pictures, return_tensors="pt")["pixel_values"]  # [B, 3, S, S]
        said = self.model.generate(
            pixel_values=pixels.to(self.device, self.dtype),
            do_sample=True,
            num_beams=1,
            top_k=0,
            top_p=1.0,
            temperature=1.0,
            num_return_sequences=numbers.shape[1],
            max_new_tokens=numbers.shape[2],
            logits_processor=LogitsProcessorList([Nucleus(rows, top_p)]),
        )
        texts = [" ".join(text.split()) for text in self.processor.batch_decode(said, skip_special_tokens=True)]
        return [texts[i : i + numbers.shape[1]] for i in range(0, len(texts), numbers.shape[1])]


def collapse(web: list[str], synthetic: list[str]) -> list[tuple[str, str]]:
    """(caption, origin) of each candidate once; the published text stands for a sampled one that says the same."""
    once = {}
    for origin, texts in (("web", web), ("synthetic", synthetic)):
        for text in texts:
            once.setdefault(" ".join(text.lower().split()), (text, origin))
    return list(once.values())


def cosines(clip, pictures: list, texts: list[list[str]]) -> list[list[float]]:
    """CLIP's cosine of each picture and each of its texts; a text that several pictures have is read once."""
    import torch

    device = next(clip.parameters()).device
    place = {text: i for i, text in enumerate(sorted({text for row in texts for text in row}))}
    image = clip.embed_image(torch.stack([clip.preprocess(picture) for picture in pictures]).to(device))  # [B, E]
    text = clip.embed_text(clip.tokenize(list(place)).to(device))  # [texts, E]
    return [(text[[place[each] for each in row]] @ vector).tolist() for row, vector in zip(texts, image, strict=True)]


def candidates_of(rows: list[dict], captioner: Captioner, clip, own: list, top_p: float) -> list[dict]:
    """All candidates of a batch of pictures with their scores, best first (CAPTIONS, nothing chosen yet)."""
    import numpy as np
    from PIL import Image

    pictures = [Image.open(io.BytesIO(row["image"])).convert("RGB") for row in rows]
    sampled = captioner.sample(pictures, np.stack(own), top_p)
    found = [collapse(row["captions"], texts) for row, texts in zip(rows, sampled, strict=True)]
    scores = cosines(clip, pictures, [[text for text, _ in each] for each in found])
    made = []
    for row, each, scored in zip(rows, found, scores, strict=True):
        ranked = sorted(zip(scored, each, strict=True), key=lambda item: (-item[0], item[1][1] != "web", item[1][0]))
        for rank, (score, (text, origin)) in enumerate(ranked):
            about = {"key": row["key"], "source": row["source"], "caption": text, "origin": origin}
            made.append(about | {"score": score, "rank": rank, "used": False, "dropped": ""})
    return made


def make(work: state.Work, pairs: Path, captioner: Path, clip: Path, *, batch: int, **sampling) -> None:
    """Samples and scores piece by piece; pieces that are there already are not made again."""
    from vikdf.model.encoders import CLIP

    models = None
    shape = (sampling["candidates"], sampling["max_new_tokens"])
    total = schemas.read(pairs, schemas.PAIRS, ["key"]).num_rows
    with tqdm(total=total, desc="caption", unit=" picture", mininterval=1) as bar:
        for number, table in enumerate(schemas.batches(pairs, schemas.PAIRS, CHUNK)):
            piece = work.checkpoints / f"{number:06d}.parquet"
            if not piece.exists():
                models = models or (Captioner(captioner), CLIP.load(clip))
                models[1].to(models[0].device)
                made, rows = [], table.select(["key", "source", "captions", "image"]).to_pylist()
                for start in range(0, len(rows), batch):
                    part = rows[start : start + batch]
                    own = [numbers(sampling["seed"], row["key"], shape) for row in part]  # B x [candidates, tokens]
                    made += candidates_of(part, *models, own, sampling["top_p"])
                    bar.update(len(part))
                schemas.write(made, piece, schemas.CAPTIONS)
            else:
                bar.update(table.num_rows)
    with work.finish() as product, schemas.writer(product / "scored.parquet", schemas.CAPTIONS) as add:
        for piece in sorted(work.checkpoints.glob("*.parquet")):
            add(schemas.read(piece, schemas.CAPTIONS))


def kind(caption: str, lexicon: dict[str, set[str]]) -> str:
    """noun | look | both | neither: which of the two word lists a caption draws from."""
    words = set(re.findall(r"[a-z]+", caption.lower()))
    noun, look = bool(words & lexicon["nouns"]), bool(words & lexicon["looks"])
    return {(True, True): "both", (True, False): "noun", (False, True): "look", (False, False): "neither"}[noun, look]


# Rules for sampled captions: name -> what it drops. A rule that needs a lexicon is asked only where there is one.
RULES = {
    "empty": lambda caption, lexicon: not caption,
    "joins_noun_and_look": lambda caption, lexicon: bool(lexicon) and kind(caption, lexicon) == "both",
}


def choose(rows: list[dict], keep: int, synthetic: float, seed: int, lexicon: dict[str, set[str]]) -> list[dict]:
    """Marks the captions in use of one picture, its candidates given best first; sampled ones must pass the rules."""
    allowed = numbers(seed, f"{rows[0]['key']} synthetic", ()) < synthetic
    left = keep
    chosen = []
    for row in rows:
        sampled = row["origin"] == "synthetic"
        dropped = next((name for name, drops in RULES.items() if sampled and drops(row["caption"], lexicon)), "")
        used = not dropped and left > 0 and (allowed or not sampled)
        left -= used
        chosen.append(row | {"dropped": dropped, "used": used})
    return chosen


def pictures(scored: Path) -> Iterator[list[dict]]:
    """The candidates of one picture after the other."""
    held = []
    for table in schemas.batches(scored, schemas.CAPTIONS, rows=10_000):
        for row in table.to_pylist():
            if held and row["key"] != held[0]["key"]:
                yield held
                held = []
            held.append(row)
    if held:
        yield held


class Report:
    """Counts while the captions are chosen; its text tells what the ranking prefers."""

    def __init__(self, candidates: int, lexicon: dict[str, set[str]]):
        self.candidates, self.lexicon = candidates, lexicon
        self.pictures, self.none, self.mixed = 0, 0, 0
        self.count, self.score, self.dropped = Counter(), Counter(), Counter()

    def add(self, rows: list[dict]) -> None:
        self.pictures += 1
        used = [row for row in rows if row["used"]]
        self.none += not used
        for row in rows:
            what = [row["origin"], *([kind(row["caption"], self.lexicon)] if self.lexicon else [])]
            for name in what:
                self.count["all", name] += 1
                self.count["used", name] += row["used"]
                self.count["best", name] += row["rank"] == 0
                self.score[name] += row["score"]
            self.dropped[row["dropped"]] += 1
        if self.lexicon:
            self.mixed += {"noun", "look"} <= {kind(row["caption"], self.lexicon) for row in used}

    def text(self) -> str:
        used = sum(self.count["used", origin] for origin in ("web", "synthetic"))
        same = self.pictures * self.candidates - self.count["all", "synthetic"]
        lines = [
            f"{self.pictures} pictures, {self.candidates} captions sampled of each; {same} said the same as another",
            f"{used} captions in use; {self.none} pictures without one",
            "",
            f"{'':<12}{'candidates':>11}{'mean score':>12}{'ranked best':>13}{'used':>9}{'share of used':>15}",
        ]
        kinds = ("noun", "look", "both", "neither") if self.lexicon else ()
        for name in ("web", "synthetic", *kinds):
            count = self.count["all", name]
            mean = f"{self.score[name] / count:.4f}" if count else "-"
            share = f"{self.count['used', name] / used:.1%}" if used else "-"
            best, kept = self.count["best", name], self.count["used", name]
            lines.append(f"{name:<12}{count:>11}{mean:>12}{best:>13}{kept:>9}{share:>15}")
        if self.lexicon:
            lines += ["", f"{self.mixed} pictures have both a caption of the noun and one of the looks in use"]
        lines += ["", "sampled captions dropped by rule:"]
        return "\n".join([*lines, *(f"  {name:<22}{self.dropped[name]:>8}" for name in RULES), ""])


def caption(
    *,
    candidates: int,
    top_p: float,
    max_new_tokens: int,
    batch: int,
    seed: int,
    keep: int,
    synthetic: float,
    forbid_joint: dict,
    pairs: Path,
    captioner: Path,
    clip: Path,
    output: Path,
    state_root: Path,
) -> None:
    """Samples captions of every picture, ranks them and the published ones by CLIP, and marks the best.

    candidates: captions sampled of each picture
    top_p: nucleus sampling keeps the likeliest tokens that together reach this probability
    max_new_tokens: the longest sampled caption
    batch: pictures at a time
    seed: seed of the sampling
    keep: captions of a picture that are used, the best by score
    synthetic: share of the pictures whose sampled captions may be used; 0 uses published ones only
    forbid_joint: {lexicon: json file of nouns and attributes}: sampled captions with both are dropped; null drops none
    pairs: the filtered pictures (PAIRS)
    captioner: an image-to-text folder of transformers
    clip: a CLIP folder
    output: folder of captions.parquet and report.txt
    state_root: where sampled and scored captions are kept
    """
    sampling = {"candidates": candidates, "top_p": top_p, "max_new_tokens": max_new_tokens, "seed": seed}
    inputs = {"pairs": pairs, "captioner": captioner, "clip": clip}
    lexicon = read_lexicon(Path(forbid_joint["lexicon"])) if forbid_joint["lexicon"] else {}
    with (
        state.claim(state_root, "caption", ["caption"], sampling | {"batch": batch}, inputs) as work,
        files.whole(output) as folder,
    ):
        if not work.finished:
            make(work, **inputs, **sampling, batch=batch)
        folder.mkdir()
        report = Report(candidates, lexicon)
        with schemas.writer(folder / "captions.parquet", schemas.CAPTIONS) as add:
            held = []
            for rows in pictures(work.product / "scored.parquet"):
                held += choose(rows, keep, synthetic, seed, lexicon)
                report.add(held[-len(rows) :])
                if len(held) >= 100_000:
                    add(held)
                    held = []
            add(held)
        (folder / "report.txt").write_text(report.text())
    print(f"{output}/report.txt\n{report.text()}")


def read_lexicon(path: Path) -> dict[str, set[str]]:
    """{"nouns": [...], "attributes": {look: [...]}} as two sets of words."""
    words = files.read_json(path)
    return {"nouns": set(words["nouns"]), "looks": {word for values in words["attributes"].values() for word in values}}


if __name__ == "__main__":
    flags.main(caption)
