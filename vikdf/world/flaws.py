"""The flaws of the world's web: what is wrong with which row of a published list, as a function of the seed.

A row is {number, shown, url, caption, flaw}. `shown` is the number of the scene in its picture, another row's where
pictures repeat; `flaw` is empty for a sound row, else a kind of the tables below. Every kind occurs in every list, each
in its share of the rows, so that what a stage drops can be counted against what was wrong.
"""

import random
from collections.abc import Callable

from vikdf.world import texts
from vikdf.world.nouns import Noun, Scene, scene

SAID = {  # what is said of the picture -> share of the rows
    "wrong_caption": 0.02,  # the caption of another scene
    "file_name": 0.008,
    "boilerplate": 0.008,  # of the page around the picture
    "other_script": 0.006,
    "other_language": 0.006,
    "too_short": 0.005,
    "too_long": 0.004,
}
REPEATED = {  # what an earlier sound row has already
    "same_row": 0.006,  # address and caption
    "same_picture": 0.006,  # its bytes at another address
    "near_picture": 0.008,  # its picture in another quality or size
}
SERVED = {  # what the host answers: vikdf/world/web.py
    "gone": 0.008,  # 404 or 410
    "forbidden": 0.004,  # 403
    "failing": 0.003,  # 500, however often it is asked
    "silent": 0.001,  # never answers; a handful, because each costs a timeout a pass
    "slow": 0.008,  # answers after a moment: no loss
    "truncated": 0.006,
    "html": 0.006,  # a page that says that it is a picture
    "huge": 0.002,  # few bytes, more pixels than anyone should decode
    "tiny": 0.004,
    "opt_out": 0.004,  # X-Robots-Tag: noai
}
SHARES = SAID | REPEATED | SERVED  # a row in nine
FEWEST = 50  # rows of a list that holds every kind once and is still mostly sound

FILE_NAMES = ["IMG_{number:04d}.jpg", "DSC0{number:04d}", "photo-{number}.png", "Untitled {number}", "image{number}"]
BOILERPLATE = [
    "click to enlarge",
    "click here for more pictures",
    "image not available",
    "all rights reserved",
    "© 2019 all rights reserved by the owner",
    "stock photo",
    "visit www.example.com for the whole story",
]
SCRIPTS = [
    "一张照片里有一个东西",
    "庭の写真です、とてもきれいです",
    "картинка с какой-то вещью на улице",
    "ένα πράγμα στη φωτογραφία",
    "صورة لشيء في الحديقة",
    "तस्वीर में एक चीज़ है",
]
LANGUAGES = [
    "ein Ding, das auf der Straße steht und nicht sehr schön ist",
    "une photo de la chose que nous avons vue dans le jardin avec les enfants",
    "una foto de la cosa que está en la calle con los niños",
    "een ding dat op het strand staat en van mijn broer is",
]
LONG = " ".join(["this page tells you all that you ever wanted to know and how you can buy it from us today"] * 6)


def rows(nouns: list[Noun], settings: dict, corpus: str) -> list[dict]:
    """The rows of one published list, in order."""
    count = settings[f"{corpus}_images"]
    if count < FEWEST:
        raise ValueError(
            f"sources.world.{corpus}_images is {count}, expected at least {FEWEST}: every flaw occurs in a list"
        )
    rng = random.Random(f"flaws {settings['seed']} {corpus}")
    kinds = [kind for kind, share in SHARES.items() for _ in range(max(1, round(share * count)))]
    flawed = dict(
        zip(rng.sample(range(1, count), len(kinds)), kinds, strict=True)
    )  # row 0 is sound: something to repeat
    made, sound = [], []
    for number in range(count):
        flaw = flawed.get(number, "")
        shown = rng.choice(sound) if flaw in REPEATED else number
        said = captions_of(nouns, settings, corpus, shown, 2)
        row = {"number": number, "shown": shown, "url": url(settings, corpus, number), "caption": said[0], "flaw": flaw}
        if flaw == "same_row":
            row["url"] = url(settings, corpus, shown)
        if flaw in ("same_picture", "near_picture"):
            row["caption"] = said[1]
        if flaw == "wrong_caption":  # of a scene that no row shows
            row["caption"] = captions_of(nouns, settings, corpus, number + count, 1)[0]
        if flaw in SPOILT:
            row["caption"] = SPOILT[flaw](said[0], number, rng)
        if not flaw:
            sound.append(number)
        made.append(row)
    return made


# flaw -> what becomes of a caption
SPOILT: dict[str, Callable[[str, int, random.Random], str]] = {
    "file_name": lambda caption, number, rng: rng.choice(FILE_NAMES).format(number=number),
    "boilerplate": lambda caption, number, rng: rng.choice(BOILERPLATE),
    "other_script": lambda caption, number, rng: rng.choice(SCRIPTS),
    "other_language": lambda caption, number, rng: rng.choice(LANGUAGES),
    "too_short": lambda caption, number, rng: caption.split()[-1],
    "too_long": lambda caption, number, rng: f"{caption} {LONG}",
}


def url(settings: dict, corpus: str, number: int) -> str:
    return f"http://127.0.0.1:{settings['port']}/{corpus}/{number:06d}.jpg"


def scene_of(nouns: list[Noun], settings: dict, corpus: str, number: int) -> Scene:
    return scene(nouns, settings["seed"], corpus, number, settings["departs"])


def captions_of(nouns: list[Noun], settings: dict, corpus: str, number: int, count: int) -> list[str]:
    return texts.captions(scene_of(nouns, settings, corpus, number), count, corpus, number, settings["seed"])
