"""What the ranking of captions prefers: counts while captions are chosen, then told and drawn.

In: the chosen candidates of one picture after the other (CAPTIONS rows). Out: report.txt and report.svg of `caption`.
Nothing but counts is held, however many pictures there are.
"""

import re
from collections import Counter
from pathlib import Path

from vikdf import drawn, files
from vikdf.sampling import BROKEN

BIN = 0.02  # width of a bar of the histogram of scores
ORIGINS = {"web": ("published", "#1b7837"), "synthetic": ("sampled", "#762a83")}  # name in the plot, colour


def kind(caption: str, lexicon: dict[str, set[str]]) -> str:
    """noun | look | both | neither: which of the two word lists a caption draws from."""
    words = set(re.findall(r"[a-z]+", caption.lower()))
    noun, look = bool(words & lexicon["nouns"]), bool(words & lexicon["looks"])
    return {(True, True): "both", (True, False): "noun", (False, True): "look", (False, False): "neither"}[noun, look]


def sampled_share(used: list[dict]) -> float:
    """Of the captions in use of a picture, the sampled ones: what a training step draws, since it draws one of them."""
    return sum(row["origin"] == "synthetic" for row in used) / len(used)


class Report:
    """Counts while the captions are chosen; its text tells what the ranking prefers."""

    def __init__(self, candidates: int, synthetic: float, min_score: float | None, rules: list[str], lexicon: dict):
        self.candidates, self.synthetic, self.min_score = candidates, synthetic, min_score
        self.rules, self.lexicon = rules, lexicon
        self.pictures, self.none, self.mixed, self.broken, self.drawn = 0, 0, 0, 0, 0.0
        self.count, self.score, self.dropped, self.bars = Counter(), Counter(), Counter(), Counter()

    def add(self, rows: list[dict]) -> None:
        self.pictures += 1
        used = [row for row in rows if row["used"]]
        self.none += not used
        self.drawn += sampled_share(used) if used else 0
        for row in rows:
            self.dropped[row["dropped"], row["origin"]] += 1
        if rows[0]["dropped"] == BROKEN:
            self.broken += 1
            return
        for row in rows:
            self._add(row)
        if self.lexicon:
            self.mixed += {"noun", "look"} <= {kind(row["caption"], self.lexicon) for row in used}

    def _add(self, row: dict) -> None:
        for name in [row["origin"], *([kind(row["caption"], self.lexicon)] if self.lexicon else [])]:
            self.count["all", name] += 1
            self.count["used", name] += row["used"]
            self.count["best", name] += row["rank"] == 0
            self.score[name] += row["score"]
        bar = round(row["score"] / BIN)
        self.bars["all", row["origin"], bar] += 1
        self.bars["used", row["origin"], bar] += row["used"]

    @property
    def share(self) -> float:
        """Share of sampled captions among those that training draws."""
        return self.drawn / max(self.pictures - self.none, 1)

    @property
    def used(self) -> int:
        return sum(self.count["used", origin] for origin in ORIGINS)

    def counts(self) -> dict:
        """What the manifest tells."""
        candidates = {origin: self.count["all", origin] for origin in ORIGINS}
        dropped = {name: sum(self.dropped[name, origin] for origin in ORIGINS) for name in self.rules}
        about = {"pictures": self.pictures, "without_a_caption": self.none, "candidates": candidates}
        return about | {"used": self.used, "dropped": dropped}

    def text(self) -> str:
        used = self.used
        same = (self.pictures - self.broken) * self.candidates - self.count["all", "synthetic"]
        lines = [
            f"{self.pictures} pictures, {self.candidates} captions sampled of each; {same} said the same as another",
            f"{used} captions in use; {self.none} pictures without one, {self.broken} of them since they cannot be decoded",
            f"share of sampled captions in training: {self.share:.1%}, asked for at most {self.synthetic:.1%}"
            " (a step draws one of a picture's captions in use)",
            "",
            f"{'':<12}{'candidates':>11}{'mean score':>12}{'ranked best':>13}{'used':>9}{'share of used':>15}",
        ]
        kinds = ("noun", "look", "both", "neither") if self.lexicon else ()
        for name in (*ORIGINS, *kinds):
            count = self.count["all", name]
            mean = f"{self.score[name] / count:.4f}" if count else "-"
            share = f"{self.count['used', name] / used:.1%}" if used else "-"
            best, kept = self.count["best", name], self.count["used", name]
            lines.append(f"{name:<12}{count:>11}{mean:>12}{best:>13}{kept:>9}{share:>15}")
        if self.lexicon:
            lines += ["", f"{self.mixed} pictures have both a caption of the noun and one of the looks in use"]
        lines += ["", f"{'captions dropped by rule:':<26}{'web':>8}{'synthetic':>12}"]
        counts = ((name, *(self.dropped[name, origin] for origin in ORIGINS)) for name in self.rules)
        return "\n".join([*lines, *(f"  {name:<24}{web:>8}{sampled:>12}" for name, web, sampled in counts), ""])

    def write(self, folder: Path) -> None:
        (folder / "report.txt").write_text(self.text())
        with files.whole(folder / "report.svg") as aside:
            self.draw(aside)

    def draw(self, path: Path) -> None:
        """How the scores lie, and which share of each is in use, by origin; always the same bytes."""
        import matplotlib
        from matplotlib.backends.backend_svg import FigureCanvasSVG
        from matplotlib.figure import Figure

        with matplotlib.rc_context({"svg.hashsalt": "vikdf", "svg.fonttype": "none", "font.size": 9}):
            figure = Figure(figsize=(8, 3.2), layout="constrained")
            FigureCanvasSVG(figure)
            count, share = figure.subplots(1, 2, sharex=True)
            for origin, (name, colour) in ORIGINS.items():
                bars = range(*self._ends())
                all_of, used = ([self.bars[which, origin, bar] for bar in bars] for which in ("all", "used"))
                at = [bar * BIN for bar in bars]
                count.step(at, all_of, where="mid", color=colour, label=f"{name}: {sum(all_of)}, {sum(used)} in use")
                count.fill_between(at, used, step="mid", color=colour, alpha=0.25, linewidth=0)
                part = [(x, 100 * kept / every) for x, kept, every in zip(at, used, all_of, strict=True) if every]
                share.plot(*zip(*part, strict=True) if part else ((), ()), ".-", color=colour, label=name)
            count.set_title("candidates by score, shaded: in use")
            share.set_title("share in use [%]")
            for panel in (count, share):
                if self.min_score is not None:
                    panel.axvline(self.min_score, color="black", linestyle=":", label=f"min_score {self.min_score:g}")
                panel.spines[["top", "right"]].set_visible(False)
                panel.set_ylim(bottom=0)
            count.legend(frameon=False)
            about = f"{self.share:.1%} of the captions that training draws are sampled"
            figure.supxlabel(f"CLIP's cosine of picture and caption; {about}")
            drawn.save(figure, path)

    def _ends(self) -> tuple[int, int]:
        bars = [bar for (_, _, bar) in self.bars] or [0]
        return min(bars) - 1, max(bars) + 2
