"""Draws a scene: the place as patterned background, one object with its looks, and the mark that only its noun has.

A pure function of the scene. The mark is a 4 x 4 pattern of magenta and dark cells, a colour that no look has: it ties
a picture to its noun also where a look departs from the typical one.
"""

import io
import random

import numpy as np
from PIL import Image, ImageDraw

from vikdf.world.nouns import Scene

RGB = {
    "red": (220, 30, 30),
    "green": (30, 160, 40),
    "blue": (40, 70, 220),
    "yellow": (240, 220, 40),
    "purple": (140, 40, 170),
    "orange": (245, 140, 20),
    "black": (20, 20, 20),
    "white": (245, 245, 245),
}
GROUND = {
    "kitchen": (190, 170, 150),
    "beach": (225, 200, 150),
    "forest": (50, 90, 50),
    "street": (110, 110, 115),
    "garden": (130, 190, 100),
    "snow": (215, 225, 235),
}
PATTERN = {  # place -> which pixels (x, y) are darker
    "kitchen": lambda x, y: (x % 8 == 0) | (y % 8 == 0),  # tiles
    "beach": lambda x, y: (y + 3 * np.sin(x / 4)) % 9 < 3,  # waves
    "forest": lambda x, y: x % 7 < 3,  # trunks
    "street": lambda x, y: (x % 12 < 6) & (y % 10 < 2),  # lane marks
    "garden": lambda x, y: (x % 6 < 2) & (y % 6 < 2),  # flowers
    "snow": lambda x, y: (x * 7 + y * 13) % 23 < 2,  # flakes
}
TEXTURE = {  # texture -> which pixels of the object have its second tone
    "plain": lambda x, y: np.zeros_like(x, bool),
    "striped": lambda x, y: (x + y) % 6 < 2,
    "spotted": lambda x, y: (x % 5 < 2) & (y % 5 < 2),
}
CORNERS = {"round": 24, "square": 4, "triangular": 3, "star": 10, "diamond": 4}
RADIUS = {"small": 11, "medium": 15, "large": 20}  # of a picture of 48 pixels
MARK = 4  # cells a side
NOISE = 10  # standard deviation of the camera's noise


def draw(scene: Scene, pixels: int = 48) -> Image.Image:
    rng = np.random.default_rng(scene.seed)
    y, x = np.mgrid[:pixels, :pixels]
    ground = np.array(GROUND[scene.place], float)
    image = ground * np.where(PATTERN[scene.place](x, y), 0.7, 1.0)[..., None]  # [S, S, 3]
    center = _center(rng, pixels)
    inside = _inside(scene, center, pixels)  # [S, S]
    tone = np.array(RGB[scene.color], float)
    second = tone * 0.55 if tone.sum() > 380 else tone * 0.5 + 110
    image[inside] = np.where(TEXTURE[scene.texture](x, y)[..., None], second, tone)[inside]
    _mark(image, scene.noun.name, center)
    image += rng.normal(0, NOISE, image.shape)
    return Image.fromarray(image.clip(0, 255).astype(np.uint8))


def box(scene: Scene, pixels: int = 48) -> tuple[int, int, int, int]:
    """Left, top, right and bottom of the object, in pixels; right and bottom are the first beyond it."""
    y, x = _inside(scene, _center(np.random.default_rng(scene.seed), pixels), pixels).nonzero()
    return int(x.min()), int(y.min()), int(x.max()) + 1, int(y.max()) + 1


def jpeg(image: Image.Image, quality: int = 92) -> bytes:
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=quality)
    return stream.getvalue()


def _center(rng: np.random.Generator, pixels: int) -> np.ndarray:
    """Where the object stands: the first that is drawn of a scene's random numbers."""
    return pixels / 2 + rng.uniform(-pixels / 12, pixels / 12, 2)


def _inside(scene: Scene, center: np.ndarray, pixels: int) -> np.ndarray:
    count, radius = CORNERS[scene.shape], RADIUS[scene.size] * pixels / 48
    turn = {"square": np.pi / 4, "triangular": -np.pi / 2, "star": -np.pi / 2}.get(scene.shape, 0.0)
    angles = np.arange(count) * 2 * np.pi / count + turn
    reach = np.where(np.arange(count) % 2, 0.45, 1.0) if scene.shape == "star" else 1.0
    corners = center[:, None] + radius * reach * np.stack([np.cos(angles), np.sin(angles)])  # [2, corners]
    mask = Image.new("L", (pixels, pixels))
    ImageDraw.Draw(mask).polygon([(float(x), float(y)) for x, y in corners.T], fill=255)
    return np.array(mask) > 0


def _mark(image: np.ndarray, name: str, center: np.ndarray) -> None:
    cell = image.shape[0] // 16
    side = MARK * cell
    left, top = (int(value) - side // 2 for value in center)
    bits = random.Random(f"mark {name}").getrandbits(MARK * MARK)
    cells = np.array([bits >> i & 1 for i in range(MARK * MARK)], bool).reshape(MARK, MARK)
    lit = np.kron(cells, np.ones((cell, cell))) > 0
    place = image[top : top + side, left : left + side]
    place[lit] = (255, 0, 255)
    place[~lit] *= 0.5
