"""The flaws of the world's web: what is wrong with which row of a list, as a function of the seed.

A list row is {number, url, caption, flaw}: the flaw is empty for four rows in five, else a name of the table below. The first
half of the table spoils what is said of a picture, the second half the picture itself, or the host that should serve it.
"""

import random

from vikdf.world import texts
from vikdf.world.nouns import Noun, Scene, scene

FOREIGN = [
    "一张照片里有一个东西",
    "картинка с какой-то вещью на улице",
    "ένα πράγμα στη φωτογραφία",
    "صورة لشيء في الحديقة",
    "ein großes Ding, das auf der Straße steht und nicht sehr schön ist",
    "une photo de la chose que nous avons vue dans le jardin avec les enfants",
]
BOILERPLATE = ["click to enlarge", "IMG_{number}.jpg", "DSC0{number}", "image not available", "all rights reserved"]
LONG = " ".join(["this page tells you all that you ever wanted to know and how you can buy it from us today"] * 6)

SAID = {  # flaw -> share of the rows
    "wrong_caption": 0.03,  # the caption of another picture
    "boilerplate": 0.02,
    "foreign": 0.02,
    "too_short": 0.01,
    "too_long": 0.005,
}
SERVED = {
    "dead": 0.02,  # 404, 410 or 403
    "failing": 0.003,  # 503, always
    "slow": 0.01,  # answers after SLOW seconds: good
    "silent": 0.004,  # never answers: each costs a timeout
    "truncated": 0.01,
    "html": 0.01,  # a page that says that it is a picture
    "huge": 0.003,  # a picture bomb: few bytes, many pixels
    "tiny": 0.005,
    "opt_out": 0.005,  # X-Robots-Tag: noai
    "duplicate": 0.02,  # the picture of an earlier row, saved again in another quality
}
SLOW = 0.3


def rows(nouns: list[Noun], settings: dict, corpus: str) -> list[dict]:
    """The rows of one published list, in order."""
    rng = random.Random(f"flaws {settings['seed']} {corpus}")
    kinds = [*SAID, *SERVED, ""]
    weights = [*SAID.values(), *SERVED.values()]
    weights.append(1 - sum(weights))
    made = []
    for number in range(settings[f"{corpus}_images"]):
        flaw = rng.choices(kinds, weights)[0] if number else ""
        caption = captions_of(nouns, settings, corpus, number, 1)[0]
        shown = rng.randrange(number) if flaw == "duplicate" else number
        url = f"http://127.0.0.1:{settings['port']}/{corpus}/{number:06d}.jpg"
        made.append({"number": number, "shown": shown, "url": url, "flaw": flaw})
        made[-1]["caption"] = _spoil(caption, flaw, number, nouns, settings, corpus, rng)
    return made


def _spoil(caption: str, flaw: str, number: int, nouns: list[Noun], settings: dict, corpus: str, rng) -> str:
    if flaw == "wrong_caption":
        return captions_of(nouns, settings, corpus, number + settings[f"{corpus}_images"], 1)[0]
    if flaw == "boilerplate":
        return rng.choice(BOILERPLATE).format(number=f"{number:04d}")
    if flaw == "foreign":
        return rng.choice(FOREIGN)
    if flaw == "too_short":
        return caption.split()[-1]
    return f"{caption} {LONG}" if flaw == "too_long" else caption


def scene_of(nouns: list[Noun], settings: dict, corpus: str, number: int) -> Scene:
    return scene(nouns, settings["seed"], corpus, number, settings["departs"])


def captions_of(nouns: list[Noun], settings: dict, corpus: str, number: int, count: int) -> list[str]:
    return texts.captions(scene_of(nouns, settings, corpus, number), count, corpus, number, settings["seed"])
