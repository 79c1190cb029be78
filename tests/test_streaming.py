"""filter on tables larger than memory: the same as the plain form in memory, whatever the parts; a kill costs nothing."""

import io
import os
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pytest
import yaml
from PIL import Image

from benchmarks import captions, plain_filter
from tests.test_filter import PARAMS, SHARED, noise, pair
from vikdf import schemas
from vikdf.filter import __main__ as filter
from vikdf.filter import funnel, near, repeats, rules, verdicts
from vikdf.filter.near import look, near_again

ROOT = Path(__file__).resolve().parent.parent
LOOSE = PARAMS | {"max_pictures_a_caption": 4, "near_picture_bits": 3}


def tables(folder: Path, seed: int, rows: int = 120) -> list[Path]:
    """Two tables of rows with every kind of flaw, few texts and few pictures, so that they repeat."""
    rng = np.random.default_rng(seed)
    said = [
        f"a {word} thing in the {place}" for word in ("red", "blue", "old") for place in ("house", "city", "garden")
    ]
    said += [
        "A red  thing in the house.",
        "A RED thing in the house",
        "IMG_1",
        "una foto de un gato",
        "dog",
        "a \x00 dog here",
    ]
    pictures = [noise(number) for number in range(40)] + [noise(number, (70, 64)) for number in range(10)]
    pictures += [noise(0, (20, 64)), b"no picture"]
    paths = []
    for source in "ab":
        made = []
        for number in range(rows):
            texts = [said[int(place)] for place in len(said) * rng.random(rng.integers(0, 3)) ** 1.5]
            texts += [f"the {number} things of {source}"] if rng.random() < 0.5 else []
            image = pictures[int(rng.integers(len(pictures)))]
            status = "ok" if rng.random() < 0.9 else str(rng.choice(["timeout", "http_404"]))
            size = {"width": 64, "height": 20 if image == pictures[-2] else 64}
            row = pair(number, texts, status, noise(0), source) | size
            made.append(row | {"image": image if status == "ok" else None})
        paths.append(folder / f"{source}.parquet")
        with schemas.writer(paths[-1], schemas.PAIRS) as add:  # uneven row groups
            add(made[: rows // 3])
            add(made[rows // 3 :])
    return paths


def naive(paths: list[Path], params: dict) -> tuple[list[dict], Counter]:
    """The kept rows and the counts, everything in memory, one rule after the other."""
    params = rules.prepared(params)

    def told(which: dict, column: str, value) -> str:
        wide = value if column == "row" else {column: value}
        numbers = pl.DataFrame([wide], infer_schema_length=None).select(rules.first(which, params))
        return rules.NAMES[numbers.item()]

    rows = [row for path in paths for row in schemas.read(path, schemas.PAIRS).to_pylist()]
    said, often, exactly = [], Counter(), Counter()
    for row in rows:
        row["reason"] = row["status"].replace("ok", "") or (
            told(rules.PICTURE_RULES, "row", row) if row["captions"] else "no_caption"
        )
        row["said"], texts, forms = [], set(), set()
        for text in row["captions"] if not row["reason"] else ():
            form = " ".join(text.lower().strip(rules.AROUND).split())
            reason = told(rules.CAPTION_RULES, "caption", text)
            reason = reason or ("same_caption_again" if text in texts else "same_words_again" if form in forms else "")
            if not reason:
                texts.add(text), forms.add(form)
                often[form] += 1
                exactly[text] += 1
            said.append({"text": text, "form": form, "reason": reason, "row": row})
            row["said"].append(said[-1])
    for each in (each for each in said if not each["reason"]):
        most = params["max_pictures_a_caption"]
        each["reason"] = "on_many_pictures" if exactly[each["text"]] > most else ""
        each["reason"] = each["reason"] or ("words_on_many_pictures" if often[each["form"]] > most else "")
    seen, stayed = set(), []
    for row in rows:
        if not row["reason"] and all(each["reason"] for each in row["said"]):
            row["reason"] = row["said"][0]["reason"]
        found = look(row["image"])
        if not row["reason"] and not found:
            row["reason"] = "unreadable"
        if not row["reason"] and found[0] in seen:
            row["reason"] = "same_picture_again"
        if not row["reason"]:
            seen.add(found[0])
            row["reason"] = "near_picture_again" if any(alike(found, other) for other in stayed) else ""
            stayed += [] if row["reason"] else [found]
    counts = Counter((row["source"], "picture", row["reason"] or "kept") for row in rows)
    for each in said:
        gone = verdicts.WITH_ITS_PICTURE if each["row"]["reason"] else "kept"
        counts[each["row"]["source"], "caption", each["reason"] or gone] += 1
    kept = [
        row | {"captions": [each["text"] for each in row["said"] if not each["reason"]]}
        for row in rows
        if not row["reason"]
    ]
    return [{name: row[name] for name in schemas.PAIRS.names} for row in kept], counts


def alike(one: tuple, other: tuple, bits: int = 3) -> bool:
    apart = np.frombuffer(one[2], np.uint8).astype(int) - np.frombuffer(other[2], np.uint8)
    return (one[1] ^ other[1]).bit_count() <= bits and np.abs(apart).max() <= near.COLOUR_STEP


def in_parts(monkeypatch, size: int) -> None:
    """Everything that is looked at in parts, in parts of this size."""
    for module, name in ((filter, "ROWS"), (filter, "IMAGES"), (repeats, "ROWS"), (verdicts, "WINDOW")):
        monkeypatch.setattr(module, name, size)
    for name in ("BLOCK", "PAIRS"):
        monkeypatch.setattr(near, name, size)


def run(folder: Path, paths: list[Path], **overrides) -> dict[str, bytes]:
    filter.filter_pairs(**LOOSE | overrides, pairs=paths, output=folder / "out", state=folder / "state")
    return {path.name: path.read_bytes() for path in (folder / "out").iterdir()}


@pytest.mark.parametrize("size", [1, 7, 100])
def test_streamed_in_parts_is_the_plain_form_in_memory(tmp_path, monkeypatch, size):
    paths = tables(tmp_path, seed=size, rows=50)
    in_parts(monkeypatch, size)
    run(tmp_path, paths)
    kept, counts = naive(paths, LOOSE)
    assert schemas.read(tmp_path / "out/pairs.parquet", schemas.PAIRS).to_pylist() == kept
    report = pl.read_parquet(tmp_path / "out/report.parquet")
    assert {row[:3]: row[3] for row in report.iter_rows() if row[3]} == counts
    assert len({reason for _, _, reason in counts}) > 12


def test_small_parts_and_another_number_of_threads_give_the_same_bytes(tmp_path, monkeypatch):
    paths = tables(tmp_path, seed=0)
    params = yaml.safe_dump(LOOSE)
    call = (
        "import sys, yaml; from pathlib import Path; from vikdf.filter.__main__ import filter_pairs;"
        "_, params, folder, *pairs = sys.argv;"
        "filter_pairs(**yaml.safe_load(params), pairs=[*map(Path, pairs)], output=Path(folder, 'out'), state=Path(folder, 'state'))"
    )
    command = [sys.executable, "-c", call, params, str(tmp_path / "four"), *map(str, paths)]
    subprocess.run(
        command, check=True, cwd=ROOT, env=os.environ | {"POLARS_MAX_THREADS": "4"}, stdout=subprocess.DEVNULL
    )
    four = {path.name: path.read_bytes() for path in (tmp_path / "four/out").iterdir()}
    for module, name in ((filter, "ROWS"), (repeats, "ROWS"), (verdicts, "WINDOW"), (near, "BLOCK"), (near, "PAIRS")):
        monkeypatch.setattr(module, name, 5)
    assert run(tmp_path, paths) == four
    assert four.keys() == {"pairs.parquet", "report.parquet", "report.txt", "report.svg", "manifest.json"}


KILLED = """
import os, signal, sys, yaml
from pathlib import Path
from vikdf.filter import __main__ as filter, near
look, seen = near.look, []
def killing(image):
    seen.append(image)
    if len(seen) == 50:
        os.kill(os.getpid(), signal.SIGKILL)
    return look(image)
near.look, filter.IMAGES = killing, 20
_, params, folder, *pairs = sys.argv
filter.filter_pairs(**yaml.safe_load(params), pairs=[*map(Path, pairs)], output=Path(folder, "out"), state=Path(folder, "state"))
"""


def test_a_killed_filter_goes_on_and_gives_the_same_bytes_and_leaves_no_scratch(tmp_path, monkeypatch):
    paths = tables(tmp_path, seed=1)
    whole = run(tmp_path / "whole", paths)
    command = [sys.executable, "-c", KILLED, yaml.safe_dump(LOOSE), str(tmp_path), *map(str, paths)]
    assert subprocess.run(command, cwd=ROOT, capture_output=True).returncode == -signal.SIGKILL
    assert not (tmp_path / "out").exists()
    looked = []
    monkeypatch.setattr(near, "look", lambda image: looked.append(image) or look(image))
    assert run(tmp_path, paths) == whole
    looks = len(looked)
    run(tmp_path / "again", paths)
    assert 0 < looks <= len(looked) - looks - 30
    assert not [*(tmp_path / "state").rglob("checkpoints"), *(tmp_path / "state").rglob("texts-*")]


def test_what_was_decided_is_not_decided_again(tmp_path, monkeypatch):
    paths = tables(tmp_path, seed=2, rows=30)
    made = run(tmp_path, paths)
    (tmp_path / "out/pairs.parquet").unlink()
    monkeypatch.setattr(near, "look", None)
    assert run(tmp_path, paths) == made


@pytest.mark.parametrize("block", [1, 4, 128])
def test_near_duplicates_in_halves_are_those_of_one_after_the_other(monkeypatch, block):
    monkeypatch.setattr(near, "BLOCK", block)
    monkeypatch.setattr(near, "PAIRS", 40)
    rng = np.random.default_rng(block)
    found = []
    for bits in (0, 3, 5):
        values = rng.integers(0, 2**63, 12).astype(np.uint64)[rng.integers(0, 12, 200)]
        for _ in range(4):
            values ^= np.uint64(1) << rng.integers(0, 64, 200).astype(np.uint64)
        colours = rng.integers(100, 105, (200, near.COLOURS)).astype(np.uint8) + rng.choice([0, 4], (200, 1)).astype(
            np.uint8
        )
        looks, stayed, expected = [(b"", int(v), c.tobytes()) for v, c in zip(values, colours, strict=True)], [], []
        for one in looks:
            expected.append(any(alike(one, other, bits) for other in stayed))
            stayed += [] if expected[-1] else [one]
        assert near_again(values, lambda at, colours=colours: colours[at], bits).tolist() == expected
        found.append(sum(expected))
    assert found[0] < found[1] < found[2]


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
    colours = np.array([list(each[2]) for each in seen], np.uint8)
    hashes = np.array([each[1] for each in seen], np.uint64)
    again = near_again(hashes, lambda at: colours[at], PARAMS["near_picture_bits"])
    assert sum(again[:50]) == 0 and sum(again[50:]) >= 49


def test_the_benchmarks_pandas_form_gives_every_drawn_caption_the_same_reason(tmp_path):
    captions.write(tmp_path / "rows.parquet", 20000)
    few = PARAMS | {"max_pictures_a_caption": 10}
    found = filter.judge_captions([tmp_path / "rows.parquet"], rules.prepared(few), tmp_path)
    text = pl.read_parquet(tmp_path / "rows.parquet", columns=["caption"])["caption"].to_pandas()
    ours = [found.names[number] for number in found.read("rows", 0, 20000)]
    assert ours == plain_filter.reasons(text, few).tolist()
    assert plain_filter.RULES.keys() | {"on_many_pictures", "words_on_many_pictures", ""} == set(ours)


def test_the_funnel_ends_with_what_is_kept(tmp_path):
    run(tmp_path, tables(tmp_path, seed=3, rows=40))
    report = pl.read_parquet(tmp_path / "out/report.parquet")
    for unit in funnel.UNITS:
        names, left = funnel.steps(report, unit)
        for source in "ab":
            counts = dict(report.filter(unit=unit, source=source).select("reason", "count").iter_rows())
            assert left[source][0] == sum(counts.values()) and left[source][-1] == counts["kept"]
            assert names[0] == "in all" and len(names) == len(left[source])
    assert "a: pictures left" in (tmp_path / "out/report.svg").read_text()


def test_reading_a_table_in_parts_keeps_none_of_them(tmp_path):
    texts = [np.random.default_rng(number).bytes(1000).hex() for number in range(500)]
    schema = pa.schema([("key", pa.string())])
    with schemas.writer(tmp_path / "x.parquet", schema) as add:
        for number in range(20):
            add(pa.table({"key": [f"{number}{text}" for text in texts]}))
    before = pa.total_allocated_bytes()
    held = [pa.total_allocated_bytes() for _ in schemas.batches(tmp_path / "x.parquet", schema, rows=500)]
    assert max(held) - before < (tmp_path / "x.parquet").stat().st_size / 2
