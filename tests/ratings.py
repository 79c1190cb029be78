"""A small study for the tests of human evaluation: two systems, four dialogues, three raters, and what these shall rate.

Nothing here reaches results/: the tests write into folders of their own.
"""

from pathlib import Path

from vikdf import schemas
from vikdf.human import LETTERS
from vikdf.human.sheet import sheet

HOSTILE = '</script><script>document.title="taken"</script><img src=x onerror="document.title=1"> & {{ 7*7 }} \u2028 \u202e tupni'
DIALOGUES = [f"image_chat-test-000000{number}" for number in range(4)]
GIVEN = {  # system -> criterion -> a row a dialogue, a number a rater
    "vikdf": {
        "relevance": [[5, 5, 5], [4, 4, 5], [3, 3, 3], [5, 4, 4]],
        "informativeness": [[2, 2, 2], [2, 2, 2], [2, 2, 2], [2, 2, 2]],
        "fluency": [[4, 4, 4], [2, 4, 4], [4, 4, 4], [2, 2, 2]],
    },
    "llm_lora": {
        "relevance": [[1, 1, 1], [2, 1, 1], [1, 2, 2], [3, 3, 3]],
        "informativeness": [[1, 2, 3], [3, 2, 1], [1, 2, 3], [2, 2, 2]],
        "fluency": [[5, 5, 5], [5, 5, 4], [5, 5, 5], [4, 4, 4]],
    },
}


def row(name: str, system: str, **changes) -> dict:
    """A row of RESPONSES."""
    said = {
        "context": ["what a kettle!", HOSTILE],
        "reference": "it is red.",
        "hypothesis": f"{system[::-1]} of {name}",
    }
    made = {"id": name, "task": "image_chat", "system": system, "data": "zero", "images": "none", "seed": 1}
    return made | {"tuned_params": 0, "nll": 1.0, "tokens": 4, "probe": "", "cloze": []} | said | changes


def responses(folder: Path, names: list[str] = DIALOGUES, systems=tuple(GIVEN), **changes) -> list[Path]:
    """A file a system; its answers are hostile too, and the second is empty."""
    made = []
    for system in systems:
        rows = [row(name, system, hypothesis=f"{HOSTILE} {number} {system[::-1]}") for number, name in enumerate(names)]
        rows[min(1, len(rows) - 1)]["hypothesis"] = ""
        schemas.write([each | changes for each in rows], folder / f"{system}.parquet", schemas.RESPONSES)
        made.append(folder / f"{system}.parquet")
    return made


def photograph(folder: Path, names: list[str]) -> Path:
    """A folder with a picture for each dialogue, wide as a camera's, with a word that a camera would write."""
    from PIL import Image

    made = Image.new("RGB", (1600, 800), "red")
    exif = made.getexif()
    exif[0x010E] = "taken at home"  # ImageDescription
    exif[0x0112] = 6  # it lies on its side
    folder.mkdir()
    for name in names:
        made.save(folder / f"{name}.jpg", exif=exif, comment="by its owner")
    return folder


def study(folder: Path, paths: list[Path] | None = None, **changes) -> dict:
    """Writes the sheets of the study below the folder; gives the key."""
    flags = {"task": "image_chat", "data": "zero", "dialogues": 4, "raters": 3, "seed": 1, "output": folder / "human"}
    return sheet(responses=paths or responses(folder), **flags | changes)


def wanted(key: dict, rater: int) -> dict[tuple[int, str, str], int]:
    """(dialogue from 1, letter, criterion) of a rater's sheet -> what this rater shall give."""
    return {
        (number, LETTERS[place], criterion): rows[DIALOGUES.index(item["dialogue"])][rater - 1]
        for number, item in enumerate(key["raters"][str(rater)]["items"], start=1)
        for place, system in enumerate(item["systems"])
        for criterion, rows in GIVEN[system].items()
    }


def returned(key: dict, rater: int) -> dict:
    """What the page of a rater saves, once all is rated."""
    rows: dict[tuple, dict] = {}
    for (number, letter, criterion), value in wanted(key, rater).items():
        rows.setdefault((number, letter), {"dialogue": number, "answer": letter})[criterion] = value
    return {"sheet": key["raters"][str(rater)]["sheet"], "rater": rater, "ratings": [*rows.values()]}
