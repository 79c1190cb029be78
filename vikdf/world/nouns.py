"""The things of the embedded world: nouns with random looks, and scenes that show them. Everything is a function of the seed.

Looks are drawn at random for each noun, so no prior of the real world helps: what colour a vase has here can be known
from this world's pictures only (or, for seen nouns, from its Reddit-like dialogues).
"""

import random
from dataclasses import dataclass

COLORS = ["red", "green", "blue", "yellow", "purple", "orange", "black", "white"]
PLACES = ["kitchen", "beach", "forest", "street", "garden", "snow"]
SIZES = ["small", "medium", "large"]
TEXTURES = ["plain", "striped", "spotted"]
SHAPES = ["round", "square", "triangular", "star", "diamond"]
LOOKS = {"color": COLORS, "place": PLACES, "size": SIZES, "texture": TEXTURES, "shape": SHAPES}

NAMES = """
anchor apron bag ball banjo barrel basket bell bench bicycle blanket boat book boot bottle bowl box brush bucket button
cabinet candle cap cart chair chest clock coat comb cup curtain desk dish doll door drum fan feather fiddle flag flute
fork fridge glove guitar hammer hat helmet jacket jar kettle key kite ladder lamp lantern lock mat mirror mug needle oven
pan pencil phone piano pillow pipe plate purse radio ring rope rug saddle scarf shelf shoe shovel sofa spoon stool table
tent toy tray truck vase wagon wallet watch wheel whistle
""".split()


@dataclass(frozen=True)
class Noun:
    name: str
    color: str
    place: str
    size: str
    texture: str
    shape: str
    held_out: bool  # its looks are never told in any text before Image-Chat


@dataclass(frozen=True)
class Scene:
    noun: Noun
    color: str
    place: str
    size: str
    texture: str
    shape: str
    seed: int  # jitter and noise of the drawing


def make_nouns(seed: int, nouns: int, held_out: int) -> list[Noun]:
    """Seen nouns first, held-out nouns last; each look is dealt so that its values are about equally frequent in both."""
    if not 0 < held_out < nouns <= len(NAMES):
        raise ValueError(
            f"sources.world: nouns {nouns} and held_out {held_out} must satisfy 0 < held_out < nouns <= {len(NAMES)}"
        )
    rng = random.Random(f"nouns {seed}")
    names = rng.sample(NAMES, nouns)
    looks = {look: _deal(values, [nouns - held_out, held_out], rng) for look, values in LOOKS.items()}
    return [
        Noun(name=name, held_out=i >= nouns - held_out, **{look: looks[look][i] for look in LOOKS})
        for i, name in enumerate(names)
    ]


def _deal(values: list[str], counts: list[int], rng: random.Random) -> list[str]:
    dealt = []
    for count in counts:
        hand = [values[i % len(values)] for i in range(count)]
        rng.shuffle(hand)
        dealt += hand
    return dealt


def scene(all_nouns: list[Noun], seed: int, split: str, index: int, departs: float) -> Scene:
    """Scene number `index` of a split: a noun with its typical looks, each replaced with the chance `departs`."""
    rng = random.Random(f"scene {seed} {split} {index}")
    noun = rng.choice(all_nouns)
    looks = {
        look: rng.choice(values) if rng.random() < departs else getattr(noun, look) for look, values in LOOKS.items()
    }
    return Scene(noun=noun, **looks, seed=rng.getrandbits(32))
