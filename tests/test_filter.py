"""filter: each rule drops what its name says, every drop is counted, and real captions survive."""

import io
import json
import re
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import yaml
from PIL import Image

from vikdf import files, schemas, verify
from vikdf.filter.__main__ import filter_pairs
from vikdf.filter.near import look
from vikdf.filter.rules import CAPTION_RULES, ENGLISH, FOREIGN, NAMES, PICTURE_RULES, REPEATS, _detect, first, prepared

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
    filter_pairs(**PARAMS | overrides, pairs=paths, output=folder / "out", state=folder / "state")
    report = pl.read_parquet(folder / "out/report.parquet").to_dicts()
    kept = schemas.read(folder / "out/pairs.parquet", schemas.PAIRS).to_pylist()
    return kept, {(row["unit"], row["source"], row["reason"]): row["count"] for row in report if row["count"]}


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


def judged(captions: list[str], **overrides) -> list[str]:
    """The rule of one caption that drops each, or ""."""
    table = pl.DataFrame({"caption": captions}, schema={"caption": pl.String})
    return [NAMES[number] for number in table.select(first(CAPTION_RULES, prepared(PARAMS | overrides))).to_series()]


@pytest.mark.parametrize("rule,caption", [(rule, caption) for rule, texts in DROPPED.items() for caption in texts])
def test_each_caption_rule_drops_what_its_name_says(rule, caption):
    assert judged([caption]) == [rule]


def test_every_rule_of_one_caption_has_an_example():
    assert DROPPED.keys() | {"blocked_word"} == CAPTION_RULES.keys()


PLAIN = {  # the costly forms of the rules, each character and word counted
    "few_words": lambda text, p: len(re.findall(r"\S+", text)) < p["min_words"],
    "many_words": lambda text, p: len(re.findall(r"\S+", text)) > p["max_words"],
    "few_letters": lambda text, p: sum(map(str.isalpha, text)) < p["min_letters"] * len("".join(text.split())),
}


@pytest.mark.parametrize("rule", PLAIN)
def test_a_rule_with_a_cheap_test_first_says_what_counting_says(rule):
    rng = np.random.default_rng(0)
    params = PARAMS | {"max_words": 6, "min_letters": 0.75}
    letters = list("ab1!.é  \t\u00a0日")
    texts = ["".join(rng.choice(letters, rng.integers(0, 30))) for _ in range(500)]
    found = pl.DataFrame({"caption": texts}).select(first({rule: CAPTION_RULES[rule]}, params)).to_series() > 0
    assert found.to_list() == [PLAIN[rule](text, params) for text in texts]
    assert 0 < found.sum() < len(texts)


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
    reasons = pl.Series(judged(captions))
    assert (reasons != "").mean() < 0.002, reasons.value_counts(sort=True)


def blocklists(folder: Path, **lines: str) -> dict:
    for name, text in lines.items():
        (folder / name).write_text(text)
    return dict.fromkeys(("words", "hosts", "pictures")) | {name: str(folder / name) for name in lines}


def test_a_caption_with_a_blocked_word_goes_and_one_with_a_longer_word_stays(tmp_path):
    words = blocklists(tmp_path, words="# not for us\nÉcole\nred-haired\n\nass\n")
    captions = ["an ASS in the field", "a glass on the table", "the école of the town", "a red-haired man there"]
    captions += ["a red haired man there", "# not for us on the wall"]
    gone = ["blocked_word", "", "blocked_word", "blocked_word", "", ""]
    assert judged(captions, blocklists=words) == gone


def test_thousands_of_blocked_words_are_searched(tmp_path):
    words = blocklists(tmp_path, words="\n".join(f"word{number}" for number in range(5000)))
    assert judged(["this is word4999 here", "this is word50000 here"], blocklists=words) == ["blocked_word", ""]


HOSTS = {  # with example.org, b.example.net. and `local` on the list
    "https://example.org/a.jpg": True,
    "http://me@a.b.EXAMPLE.org:80/a.jpg": True,
    "http://example.org./a.jpg": True,
    "http://a.example.org.:80/a.jpg": True,
    "http://a.b.c.d.e.f.g.h.example.org/a.jpg": True,
    "http://me@you@example.org/a.jpg": True,
    "http://a.b.example.net/a.jpg": True,
    "http://printer.local/a.jpg": True,
    "https://notexample.org/example.org": False,
    "http://example.org.evil.com/a.jpg": False,
    "http://example.net/b.example.net": False,
    "http://local.com/a@example.org": False,
    "": False,
}


@pytest.mark.parametrize("url", HOSTS)
def test_pictures_from_a_blocked_host_and_from_those_below_it_go(tmp_path, url):
    hosts = blocklists(tmp_path, hosts="example.org\nb.example.net.\nlocal")
    rows = pl.DataFrame({"captions": [["a"]], "url": url, "width": 64, "height": 64})
    found = rows.select(first(PICTURE_RULES, prepared(PARAMS | {"blocklists": hosts}))).item()
    assert NAMES[found] == ("blocked_host" if HOSTS[url] else "")


def test_without_a_pattern_no_text_is_boilerplate():
    assert judged(["a red dog in the garden", "stock photo of a dog"], boilerplate=[]) == ["", ""]


def test_no_foreign_word_stands_twice_and_none_is_english():
    words = FOREIGN.split("|")
    assert len(set(words)) == len(words) and not set(words) & set(ENGLISH.split("|"))


def test_a_blocked_picture_goes(tmp_path):
    pictures = blocklists(tmp_path, pictures=look(noise(1))[0].hex().upper())
    rows = [pair(number, [f"a red thing number {number}"]) for number in range(3)]
    kept, counts = run(tmp_path, rows, blocklists=pictures)
    assert [row["key"] for row in kept] == ["a-000000000", "a-000000002"] and counts[
        "picture", "a", "blocked_picture"
    ] == 1


@pytest.mark.parametrize(
    "name,text,sentence",
    [("pictures", "abc", "expected the sha256"), ("words", b"\xff\xfe", "not UTF-8"), ("hosts", None, "is missing")],
)
def test_a_wrong_blocklist_is_named(tmp_path, name, text, sentence):
    path = tmp_path / "list.txt"
    if text is not None:
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ValueError, match=f"list.txt .*{sentence}"):
        prepared(PARAMS | {"blocklists": PARAMS["blocklists"] | {name: str(path)}})


def test_a_pattern_that_is_none_is_named():
    with pytest.raises(ValueError, match="filter.boilerplate.*'a\\(b'"):
        prepared(PARAMS | {"boilerplate": ["fine", "a(b"]})


DETECTOR = {"name": "py3langid", "languages": ["en"], "sure": 0.5}


def test_an_installed_detector_drops_other_languages(tmp_path):
    texts = [
        "kot siedzi pod czerwonym dachem i patrzy przed siebie",
        "a cat sits on the red roof and looks at the birds",
    ]
    rows = [pair(number, [text]) for number, text in enumerate(texts)]
    kept, counts = run(tmp_path, rows, detector=DETECTOR)
    assert [row["captions"] for row in kept] == [texts[1:]] and counts["caption", "a", "detected_language"] == 1


def test_another_version_of_the_detector_decides_anew_and_without_one_none_is_asked_for(tmp_path, monkeypatch):
    rows = [pair(0, ["a cat sits on the red roof and looks at the birds"])]
    for version in ("1", "2", "2"):
        monkeypatch.setattr("importlib.metadata.version", lambda name, version=version: f"{name} {version}")
        run(tmp_path, rows, detector=DETECTOR)
    assert len(list(tmp_path.glob("state/filter/*"))) == 2
    run(tmp_path, rows, detector=None)
    works = [json.loads(path.read_text())["params"] for path in tmp_path.glob("state/filter/*/work.json")]
    assert sorted(work.get("the detector", "") for work in works) == [
        "",
        "py3langid py3langid 1",
        "py3langid py3langid 2",
    ]


def test_a_detector_that_is_not_there_is_named_with_its_cure(monkeypatch):
    _detect.cache_clear()
    monkeypatch.setitem(sys.modules, "py3langid", None)
    monkeypatch.setitem(sys.modules, "py3langid.langid", None)
    with pytest.raises(ValueError, match="run `pip install py3langid`"):
        prepared(PARAMS | {"detector": DETECTOR})


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
    assert {"no_caption", "blocked_host", "small", "narrow"} == PICTURE_RULES.keys()


def test_a_picture_keeps_its_good_captions_and_the_others_are_counted(tmp_path):
    said = ["a red dog in the garden", "IMG_1", '"A red dog  in the garden."', "the dog is red", "the dog is red"]
    kept, counts = run(tmp_path, [pair(0, said)])
    assert kept[0]["captions"] == [said[0], said[3]]
    captions = {reason: count for (unit, _, reason), count in counts.items() if unit == "caption"}
    assert captions == {"kept": 2, "boilerplate": 1, "same_words_again": 1, "same_caption_again": 1}


def test_of_two_equal_pictures_the_one_with_a_usable_caption_stays(tmp_path):
    kept, _ = run(tmp_path, [pair(0, ["stock photo"], image=noise(5)), pair(1, ["a red dog here"], image=noise(5))])
    assert [row["key"] for row in kept] == ["a-000000001"]


def test_a_text_on_too_many_pictures_goes_however_it_is_spelled(tmp_path):
    texts = ["a view of the town"] * 4 + ["A view of  the town."] + ["a red dog here"]
    rows = [pair(number, [text]) for number, text in enumerate(texts)]
    kept, counts = run(tmp_path, rows, max_pictures_a_caption=3)
    assert [row["captions"] for row in kept] == [["a red dog here"]]
    assert counts["picture", "a", "on_many_pictures"] == 4 and counts["picture", "a", "words_on_many_pictures"] == 1


def test_a_picture_that_cannot_be_decoded_is_counted(tmp_path):
    rows = [pair(number, [f"a red thing number {number}"]) for number in range(4)]
    rows[1]["image"], rows[2]["image"], rows[3]["image"] = rows[1]["image"][:90], b"", None
    kept, counts = run(tmp_path, rows)
    assert [row["key"] for row in kept] == ["a-000000000"] and counts["picture", "a", "unreadable"] == 3


@pytest.mark.parametrize("harm", ["none", "a bit", "cut", "gone", "what tells of them"])
def test_pictures_that_a_killed_run_looked_at_are_taken_over_only_as_they_were_written(tmp_path, monkeypatch, harm):
    monkeypatch.setattr("vikdf.filter.__main__.IMAGES", 4)
    rows, asked = [pair(number, [f"a red thing number {number}"]) for number in range(12)], []
    for name in ("whole", "killed"):
        (tmp_path / name).mkdir()
    whole = run(tmp_path / "whole", rows)

    def counted(image, dies_at: int = 0):
        asked.append(image)
        if len(asked) == dies_at:
            raise KeyboardInterrupt
        return look(image)

    monkeypatch.setattr("vikdf.filter.near.look", lambda image: counted(image, dies_at=11))
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "killed", rows)
    (path,) = (tmp_path / "killed/state").rglob("looks" if harm != "what tells of them" else "looks.json")
    kept = bytearray(path.read_bytes())
    kept[len(kept) // 2] ^= 1
    if harm == "gone":
        path.unlink()
    elif harm != "none":
        path.write_bytes(kept[:-9] if harm == "cut" else kept)
    asked.clear()
    monkeypatch.setattr("vikdf.filter.near.look", counted)
    assert run(tmp_path / "killed", rows) == whole and len(asked) == (4 if harm == "none" else 12)


def test_when_nothing_is_left_the_report_says_why(tmp_path):
    with pytest.raises(ValueError, match="no pair is left.*\n.*\n.*timeout"):
        run(tmp_path, [pair(0, ["a red dog here"], status="timeout")])


def test_a_damaged_table_is_named(tmp_path):
    schemas.write([pair(0, ["a red dog here"])], tmp_path / "x.parquet", schemas.PAIRS)
    data = (tmp_path / "x.parquet").read_bytes()
    (tmp_path / "x.parquet").write_bytes(data[: len(data) // 2])
    with pytest.raises(ValueError, match="x.parquet is damaged"):
        filter_pairs(**PARAMS, pairs=[tmp_path / "x.parquet"], output=tmp_path / "out", state=tmp_path / "state")


def test_a_rule_that_was_asked_and_dropped_nothing_is_in_the_report_with_a_zero(tmp_path):
    words = blocklists(tmp_path, words="blocked")
    run(tmp_path, [pair(0, ["a red dog here"])], [pair(1, ["a blue cat there"], source="b")], blocklists=words)
    report = pl.read_parquet(tmp_path / "out/report.parquet")
    off = {"blocked_host", "blocked_picture", "detected_language"}
    for source in ("a", "b"):
        of = {unit: report.filter(source=source, unit=unit) for unit in ("picture", "caption")}
        assert {*of["picture"]["reason"]} == {"kept", *NAMES[1:]} - off
        assert {*of["caption"]["reason"]} == {"kept", *CAPTION_RULES, *REPEATS} and of["caption"]["count"].sum() == 1
    lines = (tmp_path / "out/report.txt").read_text().splitlines()
    assert [line.split(":")[0] for line in lines if ": " in line] == ["dropped nothing", "were not asked"] * 2
    assert (
        "small, unreadable" in lines[3]
        and lines[4] == "were not asked: blocked_host, blocked_picture, detected_language"
    )


def test_the_filters_manifest_names_its_files_and_verify_reads_it(tmp_path):
    run(tmp_path, [pair(0, ["a red dog here"]), pair(1, ["IMG_1"])])
    manifest = files.read_json(tmp_path / "out/manifest.json")
    assert manifest["pictures"] == manifest["captions"] == {"kept": 1, "read": 2}
    assert manifest["files"].keys() == {"pairs.parquet", "report.parquet", "report.txt", "report.svg"}
    verify.verify([tmp_path / "out"])
    (tmp_path / "out/pairs.parquet").write_bytes(b"other")
    with pytest.raises(ValueError, match="pairs.parquet has changed"):
        verify.verify([tmp_path / "out"])
