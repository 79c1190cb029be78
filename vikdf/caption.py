"""Captions every picture anew and keeps the best texts, after BLIP-2's recipe.

In: the filtered pictures (PAIRS), an image-to-text folder of transformers, a CLIP folder.
Out, all at once: <output>/captions.parquet (CAPTIONS: every candidate with its score and rank; `used` marks the best),
report.txt and report.svg (scores and shares by origin, drops by rule), manifest.json.
Run: python -m vikdf.caption --pairs data/filter/pairs.parquet --output data/caption ... (--help names all)

vikdf.sampling samples and scores, in state/caption/, and its key holds nothing of what is below: another threshold,
`keep`, share or rule chooses anew among what stands there and never captions again.
"""

from collections.abc import Iterator
from pathlib import Path

from tqdm import tqdm

from vikdf import files, flags, sampling, schemas, state
from vikdf.ranking import Report, kind, sampled_share

SHARES = 10_000  # steps in which the share of the pictures with sampled captions is looked for

# Rules for sampled captions: name -> what it drops. A rule that needs a lexicon is asked only where there is one.
RULES = {
    "empty": lambda caption, lexicon: not caption,
    "joins_noun_and_look": lambda caption, lexicon: bool(lexicon) and kind(caption, lexicon) == "both",
}
LOW = "low_score"  # the rule for all captions, published ones too: CLIP's cosine is below min_score


def reason(row: dict, min_score: float | None, lexicon: dict[str, set[str]]) -> str:
    """Why a candidate may not be used; empty if it may."""
    if row["dropped"] == sampling.BROKEN:
        return sampling.BROKEN
    if row["origin"] == "synthetic":
        for name, drops in RULES.items():
            if drops(row["caption"], lexicon):
                return name
    return LOW if min_score is not None and row["score"] < min_score else ""


def mark(rows: list[dict], keep: int, sampled: bool) -> list[dict]:
    """One picture's candidates, best first and with their reasons: the first `keep` without one are used."""
    left, marked = keep, []
    for row in rows:
        used = left > 0 and not row["dropped"] and (sampled or row["origin"] == "web")
        left -= used
        marked.append(row | {"used": used})
    return marked


class Choice:
    """Which captions of a picture are used: a function of its candidates, the seed and its key."""

    def __init__(self, *, keep: int, synthetic: float, min_score: float | None, seed: int, lexicon: dict):
        self.keep, self.synthetic, self.min_score = keep, synthetic, min_score
        self.seed, self.lexicon = seed, lexicon
        self.allowed = 1.0 if synthetic else 0.0  # share of the pictures whose sampled captions may be used

    def __call__(self, rows: list[dict]) -> list[dict]:
        return mark(self.judged(rows), self.keep, self.allowed == 1 or self.lot(rows) < self.allowed)

    def judged(self, rows: list[dict]) -> list[dict]:
        return [row | {"dropped": reason(row, self.min_score, self.lexicon)} for row in rows]

    def lot(self, rows: list[dict]) -> float:
        """The picture's own number from 0 to 1: below `allowed`, its sampled captions may be used."""
        return float(sampling.numbers(self.seed, f"{rows[0]['key']} synthetic", ()))

    def settle(self, candidates: Iterator[list[dict]]) -> None:
        """Finds the largest share of the pictures with which training draws at most `synthetic` sampled captions."""
        import numpy as np

        drawn, trained, trained_without = np.zeros(SHARES), np.zeros(SHARES), np.zeros(SHARES)
        for rows in candidates:
            place, judged = int(self.lot(rows) * SHARES), self.judged(rows)
            with_sampled, without = ([row for row in mark(judged, self.keep, s) if row["used"]] for s in (True, False))
            drawn[place] += sampled_share(with_sampled) if with_sampled else 0
            trained[place] += bool(with_sampled)
            trained_without[place] += bool(without)
        pictures = trained.cumsum() + trained_without.sum() - trained_without.cumsum()  # that have a caption in use
        fits = drawn.cumsum() <= self.synthetic * pictures  # with a larger share there are ever more sampled captions
        self.allowed = float(fits.sum() / SHARES)


def pictures(scored: Path, doing: str) -> Iterator[list[dict]]:
    """The candidates of one picture after the other."""
    held = []
    with tqdm(total=schemas.count(scored), desc=doing, unit=" candidate", mininterval=1) as bar:
        for table in schemas.batches(scored, schemas.CAPTIONS, rows=10_000):
            for row in table.to_pylist():
                if held and row["key"] != held[0]["key"]:
                    yield held
                    held = []
                held.append(row)
            bar.update(table.num_rows)
    if held:
        yield held


def caption(
    *,
    candidates: int,
    top_p: float,
    max_new_tokens: int,
    batch: int,
    seed: int,
    keep: int,
    min_score: float | None,
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
    batch: captions sampled at a time, pictures x candidates; CLIP reads at most twice as many texts at a time
    seed: seed of the sampling
    keep: captions of a picture that are used, the best by score
    min_score: captions whose CLIP cosine is below are not used, published ones neither; null uses any
    synthetic: share of sampled captions among those that training draws, at most; 0 uses published ones only
    forbid_joint: {lexicon: json file of nouns and attributes}: sampled captions with both are dropped; null drops none
    pairs: the filtered pictures (PAIRS)
    captioner: an image-to-text folder of transformers
    clip: a CLIP folder
    output: folder of captions.parquet, report.txt, report.svg and manifest.json
    state_root: where sampled and scored captions are kept
    """
    if batch < candidates:
        raise ValueError(f"`batch` is {batch}, `candidates` is {candidates}: set `batch` to {candidates} or more")
    how = {"candidates": candidates, "top_p": top_p, "max_new_tokens": max_new_tokens, "seed": seed}
    inputs = {"pairs": pairs, "captioner": captioner, "clip": clip}
    lexicon = read_lexicon(Path(forbid_joint["lexicon"])) if forbid_joint["lexicon"] else {}
    choice = Choice(keep=keep, synthetic=synthetic, min_score=min_score, seed=seed, lexicon=lexicon)
    report = Report(candidates, synthetic, min_score, [*RULES, LOW, sampling.BROKEN], lexicon)
    # of the code, what samples and scores alone: a new rule or another plot does not caption again either
    params = how | {"batch": batch, "the numbers": sampling.where()}
    with state.claim(state_root, "caption", ["sampling"], params, inputs) as work:
        if not work.finished:
            sampling.make(work, **inputs, **how, batch=batch)
        if 0 < synthetic < 1:
            choice.settle(pictures(work.product / "scored.parquet", "count"))
        with files.whole(output) as folder:
            folder.mkdir()
            write(work.product / "scored.parquet", folder / "captions.parquet", choice, report)
            report.write(folder)
            made = files.named([folder / name for name in ("captions.parquet", "report.txt", "report.svg")])
            files.write_json(folder / "manifest.json", {"files": made} | report.counts())
    print(f"{output}/report.txt\n{report.text()}")


def write(scored: Path, path: Path, choice: Choice, report: Report) -> None:
    """All candidates with what was chosen, a bounded number in memory at a time."""
    with schemas.writer(path, schemas.CAPTIONS) as add:
        held = []
        for rows in pictures(scored, "choose"):
            held += (chosen := choice(rows))
            report.add(chosen)
            if len(held) >= 100_000:
                add(held)
                held = []
        add(held)


def read_lexicon(path: Path) -> dict[str, set[str]]:
    """{"nouns": [...], "attributes": {look: [...]}} as two sets of words."""
    if not path.is_file():
        raise ValueError(f"{path} is missing: `caption.forbid_joint.lexicon` names it; write null there to drop none")
    words = files.read_json(path)
    try:
        looks = {word for values in words["attributes"].values() for word in values}
        return {"nouns": set(words["nouns"]), "looks": looks}
    except (KeyError, TypeError, AttributeError):
        raise ValueError(f'{path} is no lexicon: expected {{"nouns": [...], "attributes": {{look: [...]}}}}') from None


if __name__ == "__main__":
    flags.main(caption)
