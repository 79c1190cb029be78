"""Publishes the embedded world in the forms in which real corpora are published; everything is a function of one seed.

In: the numbers of sources.world. Out, below one folder that appears whole: coco/ (captions json, images.zip), cc3m.tsv,
cc12m.tsv, sbu.json (their pictures are on the world's web), reddit/, image_chat/ (with the pictures that the dialogues of
train are about), probe/, backbones/ (pictures, their captions and boxes, and texts that train the backbones, a split of
their own), lexicon.json (the words for nouns and looks), manifest.json
(settings, counts, flaws, digests).
Run: python -m vikdf.world --output data/sources/world --seed 1 --nouns 90 ... (--help names all)
"""

import json
import re
import sys
import zipfile
from collections import Counter
from pathlib import Path

from tqdm import tqdm

from vikdf import files, flags, schemas
from vikdf.world import flaws, texts, web
from vikdf.world.draw import box, draw, jpeg
from vikdf.world.nouns import LOOKS, Noun, Scene, make_nouns, scene

SPARE = 3  # so many times the wanted valid and test dialogues are made: those that train has are left out
COCO_CAPTIONS = 3
COCO_BROKEN = {3: "missing", 7: "truncated"}  # COCO is clean but for two files
EPOCH = (2000, 1, 1, 0, 0, 0)  # of files in archives: the same bytes every time


def _write(path: Path, text: str) -> None:
    path.write_bytes(text.encode())  # UTF-8, whatever the locale


def _json(path: Path, value) -> None:
    _write(path, json.dumps(value) + "\n")


def _progress(count: int, what: str) -> tqdm:
    return tqdm(range(count), desc=f"draw {what}", unit=" picture", mininterval=1, file=sys.stderr)


def lists(folder: Path, made: dict[str, list[dict]]) -> dict[str, int]:
    """The three url lists in their published forms."""
    cc3m, cc12m, sbu = (made[corpus] for corpus in web.LISTS)
    _write(folder / "cc3m.tsv", "".join(f"{row['caption']}\t{row['url']}\n" for row in cc3m))
    _write(folder / "cc12m.tsv", "".join(f"{row['url']}\t{row['caption']}\n" for row in cc12m))
    parallel = {"image_urls": [row["url"] for row in sbu], "user_ids": [f"{row['number']}@N00" for row in sbu]}
    _json(folder / "sbu.json", parallel | {"captions": [row["caption"] for row in sbu]})
    return {corpus: len(made[corpus]) for corpus in web.LISTS}


def coco(folder: Path, nouns: list[Noun], settings: dict) -> dict[str, int]:
    """One json of images and annotations, and the pictures in a zip, as COCO comes."""
    folder.mkdir()
    images, annotations = [], []
    with zipfile.ZipFile(folder / "images.zip", "w") as archive:
        for number in _progress(settings["coco_images"], "coco"):
            name = f"{number + 1:012d}.jpg"
            image = draw(flaws.scene_of(nouns, settings, "coco", number), settings["pixels"])
            images.append({"id": number + 1, "file_name": name, "height": image.height, "width": image.width})
            for caption in flaws.captions_of(nouns, settings, "coco", number, COCO_CAPTIONS):
                annotations.append({"id": len(annotations) + 1, "image_id": number + 1, "caption": caption})
            data, flaw = jpeg(image), COCO_BROKEN.get(number)
            if flaw != "missing":
                member = zipfile.ZipInfo(f"train/{name}", EPOCH)
                archive.writestr(member, data[: len(data) // 2] if flaw == "truncated" else data)
    about = {"description": "embedded world", "version": "1.0"}
    published = {"info": about, "licenses": [], "images": images, "annotations": annotations}
    _json(folder / "captions_train.json", published)
    return {"coco": len(images)}


def backbones(folder: Path, nouns: list[Noun], settings: dict) -> dict[str, int]:
    """What trains the backbones: pictures, captions, boxes and texts of scenes that no corpus and no test shows."""
    folder.mkdir()
    rows, found = [], []
    for number in _progress(settings["backbone_images"], "backbones"):
        shown = flaws.scene_of(nouns, settings, "backbones", number)
        image = draw(shown, settings["pixels"])
        said = flaws.captions_of(nouns, settings, "backbones", number, COCO_CAPTIONS)
        row = {"key": f"backbones-{number:09d}", "source": "backbones", "url": "", "captions": said, "status": "ok"}
        rows.append(row | {"width": image.width, "height": image.height, "image": jpeg(image)})
        found += boxes(row["key"], shown, settings["pixels"])
    schemas.write(rows, folder / "pairs.parquet", schemas.PAIRS)
    schemas.write(found, folder / "boxes.parquet", schemas.BOXES)
    documents = texts.language(nouns, settings["language_texts"], settings["seed"])
    _write(folder / "language.txt", "".join(f"{document}\n" for document in documents))
    return {"backbones": len(rows), "boxes": len(found), "language": len(documents)}


def boxes(key: str, shown: Scene, pixels: int) -> list[dict]:
    """The object by its noun and the place as the whole picture, a row each: no row joins a noun and a look."""
    marked = {shown.noun.name: box(shown, pixels), shown.place: (0, 0, pixels, pixels)}
    sides = ("left", "top", "right", "bottom")
    return [{"key": key, "label": label, **dict(zip(sides, at, strict=True))} for label, at in marked.items()]


def dialogues(folder: Path, nouns: list[Noun], settings: dict) -> dict[str, int]:
    """Reddit-like and Image-Chat-like dialogues in three splits each, and the probe. No valid or test dialogue is one of train."""
    seed, counts = settings["seed"], {}
    made = {("probe", "test"): texts.probe(nouns, **settings["probe"], seed=seed)}
    make = {
        "reddit": lambda count, split: texts.reddit(nouns, count, split, seed),
        "image_chat": lambda count, split: texts.image_chat(nouns, count, split, seed, settings["departs"]),
    }
    for task, rows in make.items():
        made[task, "train"] = rows(settings[task]["train"], "train")
        known = {said(row) for row in made[task, "train"]}
        for split in ("valid", "test"):
            wanted = settings[task][split]
            new = [row for row in rows(SPARE * wanted, split) if said(row) not in known]
            if len(new) < wanted:
                raise ValueError(
                    f"sources.world.{task}.{split}: only {len(new)} of {wanted} dialogues are not in train: ask for fewer"
                )
            made[task, split] = new[:wanted]
    for (task, split), rows in sorted(made.items()):
        (folder / task).mkdir(exist_ok=True)
        _json(folder / task / f"{split}.json", rows)
        counts[f"{task}_{split}"] = len(rows)
    return counts | chat_pictures(folder / "image_chat", nouns, made["image_chat", "train"], settings)


def chat_pictures(folder: Path, nouns: list[Noun], rows: list[dict], settings: dict) -> dict[str, int]:
    """The scenes that the dialogues of train are about, each under its dialogue's `image_hash`; nobody sees those of the tests."""
    with zipfile.ZipFile(folder / "images.zip", "w") as archive:
        for index in _progress(len(rows), "image_chat"):
            shown = scene(nouns, settings["seed"], "image_chat train", index, settings["departs"])
            member = zipfile.ZipInfo(f"images/{rows[index]['image_hash']}.jpg", EPOCH)
            archive.writestr(member, jpeg(draw(shown, settings["pixels"])))
    return {"image_chat_pictures": len(rows)}


def told(folder: Path) -> dict[str, list[str]]:
    """Every text that is read before Image-Chat, as published: captions, classes of boxes, dialogues whole, documents."""
    coco = files.read_json(folder / "coco/captions_train.json")
    sbu = files.read_json(folder / "sbu.json")
    pairs = schemas.read(folder / "backbones/pairs.parquet", schemas.PAIRS, ["captions"])
    marked = schemas.read(folder / "backbones/boxes.parquet", schemas.BOXES, ["label"])
    reddit = [row for path in sorted((folder / "reddit").glob("*.json")) for row in files.read_json(path)]
    lists = ((folder / name).read_text("utf-8").splitlines() for name in ("cc3m.tsv", "cc12m.tsv"))
    return {
        "captions": [each["caption"] for each in coco["annotations"]] + sbu["captions"] + [x for y in lists for x in y],
        "backbones": [caption for captions in pairs["captions"].to_pylist() for caption in captions],
        "boxes": marked["label"].to_pylist(),
        "language": (folder / "backbones/language.txt").read_text("utf-8").splitlines(),
        "reddit": [" ".join([*row["context"], row["response"]]) for row in reddit],
    }


def said(row: dict) -> tuple[str, ...]:
    """The turns of a dialogue, whatever form it has."""
    return tuple(text for _, text in row["dialog"]) if "dialog" in row else (*row["context"], row["response"])


def leaks(said: list[str], nouns: list[Noun]) -> int:
    """How many texts join a held-out noun and a word for looks."""
    held = {noun.name for noun in nouns if noun.held_out}
    looks = {value for values in LOOKS.values() for value in values}
    words = [set(re.findall(r"\w+", text.lower())) for text in said]
    return sum(bool(found & held) and bool(found & looks) for found in words)


def publish(
    *,
    output: Path,
    seed: int,
    nouns: int,
    held_out: int,
    departs: float,
    pixels: int,
    coco_images: int,
    cc3m_images: int,
    cc12m_images: int,
    sbu_images: int,
    backbone_images: int,
    language_texts: int,
    reddit: dict,
    image_chat: dict,
    probe: dict,
    port: int,
) -> None:
    """Draws and writes the embedded world: corpora, dialogues and what trains the backbones, as real ones appear.

    output: the folder to make
    seed: everything is a function of it
    nouns: how many nouns there are, seen and held out
    held_out: how many of them are held out
    departs: chance that a look of a scene is not its noun's typical one
    pixels: side of a drawn scene
    coco_images: pictures of the COCO-like corpus
    cc3m_images: rows of the CC3M-like list
    cc12m_images: rows of the CC12M-like list
    sbu_images: rows of the SBU-like list
    backbone_images: pictures that train CLIP and the captioner
    language_texts: documents that train the language model and BERT
    reddit: dialogues a split {train, valid, test}
    image_chat: dialogues a split {train, valid, test}
    probe: questions {held_out, seen}
    port: where the world's web will serve the lists' pictures
    """
    settings = {name: value for name, value in locals().items() if name not in ("output", "nouns")} | {"nouns": nouns}
    all_nouns = make_nouns(seed, nouns, held_out)
    made = {corpus: flaws.rows(all_nouns, settings, corpus) for corpus in web.LISTS}
    with files.whole(output) as aside:
        aside.mkdir()
        counts = lists(aside, made) | coco(aside / "coco", all_nouns, settings)
        counts |= backbones(aside / "backbones", all_nouns, settings) | dialogues(aside, all_nouns, settings)
        leaked = {where: leaks(said, all_nouns) for where, said in told(aside).items()}
        assert not any(leaked.values()), f"texts join a held-out noun and its looks: {leaked}"
        names = {"nouns": [noun.name for noun in all_nouns], "held_out": [n.name for n in all_nouns if n.held_out]}
        files.write_json(aside / "lexicon.json", names | {"attributes": LOOKS})
        sums = {path.relative_to(aside).as_posix(): files.sha256(path) for path in aside.rglob("*") if path.is_file()}
        wrong = {corpus: Counter(row["flaw"] for row in made[corpus] if row["flaw"]) for corpus in web.LISTS}
        about = {"settings": settings, "counts": counts, "flaws": wrong, "leaks": leaked, "sha256": sums}
        files.write_json(aside / "manifest.json", about)


if __name__ == "__main__":
    flags.main(publish)
