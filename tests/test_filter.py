"""filter: each rule drops what its name says, every drop is counted, and real captions survive."""

import io
import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import yaml
from PIL import Image

from vikdf import schemas
from vikdf.filter import CAPTION_RULES, PICTURE_RULES, filter_pairs, judge_captions, look, near_again

ROOT = Path(__file__).resolve().parent.parent
SHARED = ROOT.parent / "shared/data"
PARAMS = yaml.safe_load((ROOT / "params.yaml").read_text())["filter"]


def noise(seed: int, size: tuple[int, int] = (64, 64)) -> bytes:
    """A picture with large patches, unlike any other seed's."""
    coarse = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    stream = io.BytesIO()
    Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC).save(stream, "PNG")
    return stream.getvalue()


def pair(number: int, captions: list[str], status: str = "ok", image: bytes | None = None, source: str = "a") -> dict:
    image = image or noise(number)
    width, height = Image.open(io.BytesIO(image)).size
    row = {"key": f"{source}-{number:09d}", "source": source, "url": "", "captions": captions, "status": status}
    return row | {"width": width, "height": height, "image": image if status == "ok" else None}


def run(folder: Path, *tables: list[dict], **overrides) -> tuple[list[dict], dict]:
    """Filters the tables; gives the kept rows and {(unit, source, reason): count}."""
    paths = []
    for number, rows in enumerate(tables):
        paths.append(folder / f"{number}.parquet")
        schemas.write(rows, paths[-1], schemas.PAIRS)
    filter_pairs(**PARAMS | overrides, pairs=paths, output=folder / "out")
    report = pl.read_parquet(folder / "out/report.parquet").to_dicts()
    kept = schemas.read(folder / "out/pairs.parquet", schemas.PAIRS).to_pylist()
    return kept, {(row["unit"], row["source"], row["reason"]): row["count"] for row in report}


DROPPED = {
    "garbled": ["a dog \x00 in the garden", "a dog \ufffd\ufffd in the garden"],
    "boilerplate": ["IMG_0042", "DSC-1234 ", "photo 12", "the house on the hill.jpg", "Click to enlarge the picture"]
    + ["image no longer available", "© all rights reserved", "stock photo", "see more at https://example.org"],
    "other_script": ["красный предмет на улице", "红色的东西 在 厨房", "κόκκινο πράγμα στην κουζίνα"],
    "other_language": [
        "ein rotes ding in der küche",
        "una foto de un gato",
        "un chat sur la table",
        "een rode fiets op straat",
    ],
    "few_words": ["dog", "red dog"],
    "many_words": ["a dog and " * 21],
    "few_letters": ["a 12 34 56 78 90 12", "$$$ 40% off !!! 2019 now"],
}


@pytest.mark.parametrize("rule,caption", [(rule, caption) for rule, texts in DROPPED.items() for caption in texts])
def test_each_caption_rule_drops_what_its_name_says(rule, caption):
    table = pl.DataFrame({"key": ["k"], "source": ["s"], "captions": [[caption]]})
    assert judge_captions(table, PARAMS)["reason"].to_list() == [rule]


def test_every_rule_of_one_row_has_an_example():
    assert DROPPED.keys() == CAPTION_RULES.keys()


@pytest.mark.parametrize(
    "file", ["cc3m/Validation_GCC-1.1.0-Validation.tsv", "coco_captions_val2017_dev/captions_val2017.json"]
)
def test_published_captions_survive(file):
    if not (SHARED / file).exists():
        pytest.skip(f"no real sample here: {SHARED / file}")
    text = (SHARED / file).read_text()
    if file.endswith(".json"):
        captions = [annotation["caption"] for annotation in json.loads(text)["annotations"]]
    else:
        captions = [line.split("\t")[0] for line in text.splitlines()]
    keys = [str(number) for number in range(len(captions))]
    table = pl.DataFrame({"key": keys, "source": "s", "captions": [[caption] for caption in captions]})
    reasons = judge_captions(table, PARAMS)["reason"]
    assert reasons.is_not_null().mean() < 0.002, reasons.value_counts(sort=True)


def test_every_row_is_counted_once_under_one_reason(tmp_path):
    first = [pair(number, [f"a red thing number {number} in the garden"]) for number in range(4)]
    first += [pair(4, ["IMG_1"]), pair(5, ["a lost dog here"], status="http_404"), pair(6, [])]
    second = [
        pair(7, ["a small dog in the snow"], source="b", image=noise(1)),
        pair(8, ["a small dog here"], source="b"),
    ]
    second += [pair(9, ["a tiny thing here"], source="b", image=noise(9, (20, 64)))]
    second += [pair(10, ["a long thing here"], source="b", image=noise(10, (200, 64)))]
    kept, counts = run(tmp_path, first, second)
    pictures = {(source, reason): count for (unit, source, reason), count in counts.items() if unit == "picture"}
    assert pictures == {
        ("a", "kept"): 4,
        ("a", "boilerplate"): 1,
        ("a", "http_404"): 1,
        ("a", "no_caption"): 1,
        ("b", "kept"): 1,
        ("b", "same_picture_again"): 1,
        ("b", "small"): 1,
        ("b", "narrow"): 1,
    }
    assert sum(pictures.values()) == len(first) + len(second)
    assert [row["key"] for row in kept] == [f"a-{n:09d}" for n in range(4)] + ["b-000000008"]
    assert "same_picture_again" in (tmp_path / "out/report.txt").read_text()
    assert {"no_caption", "small", "narrow"} == PICTURE_RULES.keys()


def test_a_picture_keeps_its_good_captions_and_the_others_are_counted(tmp_path):
    said = ["a red dog in the garden", "IMG_1", "A red dog  in the garden", "the dog is red"]
    kept, counts = run(tmp_path, [pair(0, said)])
    assert kept[0]["captions"] == [said[0], said[3]]
    captions = {reason: count for (unit, _, reason), count in counts.items() if unit == "caption"}
    assert captions == {"kept": 2, "boilerplate": 1, "same_caption_again": 1}


def test_of_two_equal_pictures_the_one_with_a_usable_caption_stays(tmp_path):
    kept, _ = run(tmp_path, [pair(0, ["stock photo"], image=noise(5)), pair(1, ["a red dog here"], image=noise(5))])
    assert [row["key"] for row in kept] == ["a-000000001"]


def test_a_text_on_too_many_pictures_goes(tmp_path):
    rows = [pair(number, ["a view of the town"]) for number in range(4)] + [pair(9, ["a red dog here"])]
    kept, counts = run(tmp_path, rows, max_pictures_a_caption=3)
    assert len(kept) == 1 and counts["picture", "a", "on_many_pictures"] == 4


def test_near_duplicates_by_bands_equal_all_pairs_compared():
    rng = np.random.default_rng(0)
    values = [int(value) for value in rng.integers(0, 2**63, 150)]
    values += [
        value ^ (1 << int(a)) ^ (1 << int(b)) ^ (1 << int(c))
        for value, a, b, c in zip(values, *rng.integers(0, 64, (3, 150)), strict=True)
    ]
    values += [value ^ 0b11111 for value in values[:20]]
    naive, kept = [], []
    for value in values:
        naive.append(any((value ^ other).bit_count() <= 3 for other in kept))
        kept += [] if naive[-1] else [value]
    colours = pl.Series([bytes(48)] * len(values), dtype=pl.Binary)
    assert near_again(pl.Series(values, dtype=pl.UInt64), colours, 3).to_list() == naive


def test_a_recompressed_photograph_is_the_same_and_another_is_not():
    folder = SHARED / "coco_tiny/train2017"
    if not folder.exists():
        pytest.skip(f"no real sample here: {folder}")
    photographs = [path.read_bytes() for path in sorted(folder.glob("*.jpg"))]
    copies = []
    for data in photographs:
        picture, stream = Image.open(io.BytesIO(data)).convert("RGB"), io.BytesIO()
        picture.resize((picture.width // 2, picture.height // 2)).save(stream, "JPEG", quality=60)
        copies.append(stream.getvalue())
    seen = [look(data) for data in photographs + copies]
    hashes = pl.Series([each[1] for each in seen], dtype=pl.UInt64)
    again = near_again(hashes, pl.Series([each[2] for each in seen]), PARAMS["near_picture_bits"]).to_list()
    assert sum(again[:50]) == 0 and sum(again[50:]) >= 49


def test_when_nothing_is_left_the_report_says_why(tmp_path):
    with pytest.raises(ValueError, match="no pair is left.*\n.*\n.*timeout"):
        run(tmp_path, [pair(0, ["a red dog here"], status="timeout")])


def test_a_damaged_table_is_named(tmp_path):
    schemas.write([pair(0, ["a red dog here"])], tmp_path / "x.parquet", schemas.PAIRS)
    data = (tmp_path / "x.parquet").read_bytes()
    (tmp_path / "x.parquet").write_bytes(data[: len(data) // 2])
    with pytest.raises(ValueError, match="x.parquet is damaged"):
        filter_pairs(**PARAMS, pairs=[tmp_path / "x.parquet"], output=tmp_path / "out")
