"""world: a function of its seed, no text tells the looks of a held-out noun, every flaw is served as it is named."""

import concurrent.futures
import hashlib
import http.client
import io
import json
import re
import shlex
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
import zipfile
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vikdf import params, schemas
from vikdf.corpora.pictures import examine
from vikdf.world import flaws, web
from vikdf.world.draw import draw, jpeg
from vikdf.world.nouns import LOOKS, Scene, make_nouns, scene
from vikdf.world.publish import leaks, publish, said, told

ROOT = Path(__file__).resolve().parent.parent
ROWS = 60
TINY = {"seed": 1, "nouns": 12, "held_out": 4, "departs": 0.1, "pixels": 48, "backbone_images": 40}
TINY |= {f"{corpus}_images": ROWS for corpus in ("coco", "cc3m", "cc12m", "sbu")} | {"language_texts": 200}
TINY |= {split: {"train": 60, "valid": 10, "test": 10} for split in ("reddit", "image_chat")}
TINY |= {"probe": {"held_out": 20, "seen": 20}, "port": 8765}
DEMO = TINY | {"nouns": 90, "held_out": 30} | {f"{corpus}_images": 1500 for corpus in web.LISTS}


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    folder = tmp_path_factory.mktemp("published") / "world"
    publish(output=folder, **TINY)
    return folder


@pytest.fixture(scope="module")
def nouns():
    return make_nouns(1, TINY["nouns"], TINY["held_out"])


def free() -> dict:
    """Settings with a port that was free a moment ago."""
    with socket.socket() as asked:
        asked.bind(("127.0.0.1", 0))
        return TINY | {"port": asked.getsockname()[1]}


@pytest.fixture(scope="module")
def served():
    settings = free()
    with web.serve(settings):
        yield settings


def manifest(folder: Path) -> dict:
    return json.loads((folder / "manifest.json").read_text())


def rows_of(flaw: str, settings: dict) -> list[tuple[str, dict]]:
    """(corpus, row) of one kind, in all lists."""
    nouns = make_nouns(settings["seed"], settings["nouns"], settings["held_out"])
    made = [(corpus, row) for corpus in web.LISTS for row in flaws.rows(nouns, settings, corpus) if row["flaw"] == flaw]
    assert len(made) >= len(web.LISTS), f"{flaw} does not occur in every list"
    return made


def get(url: str, timeout: float = 20) -> tuple[int, bytes, dict]:
    try:
        with urllib.request.urlopen(url, timeout=timeout) as answer:
            return answer.status, answer.read(), dict(answer.headers)
    except urllib.error.HTTPError as error:
        return error.code, b"", {}


def test_the_same_seed_gives_the_same_bytes_and_another_seed_others(world, tmp_path):
    command = [sys.executable, "-m", "vikdf.world", "--output", str(tmp_path / "again")]
    subprocess.run(
        [*command, *shlex.split(params.as_flags(TINY))], cwd=ROOT, check=True, capture_output=True
    )  # another process, as a rule
    assert (tmp_path / "again/manifest.json").read_bytes() == (world / "manifest.json").read_bytes()
    publish(output=tmp_path / "other", **TINY | {"seed": 2})
    same, other = manifest(world)["sha256"], manifest(tmp_path / "other")["sha256"]
    assert same.keys() == other.keys() and all(same[name] != other[name] for name in same)


def test_the_manifest_names_every_file_with_its_digest(world):
    found = {path.relative_to(world).as_posix(): path for path in world.rglob("*") if path.is_file()}
    del found["manifest.json"]
    assert manifest(world)["sha256"] == {
        name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in found.items()
    }


def test_publishing_again_replaces_what_was_there(world, tmp_path):
    shutil.copytree(world, tmp_path / "world")
    (tmp_path / "world/stale.txt").write_text("of an earlier world")
    publish(output=tmp_path / "world", **TINY)
    assert not (tmp_path / "world/stale.txt").exists() and list(tmp_path.iterdir()) == [tmp_path / "world"]


def test_no_text_before_image_chat_joins_a_held_out_noun_and_looks(world, nouns):
    said = told(world)
    assert {where: leaks(each, nouns) for where, each in said.items()} == dict.fromkeys(said, 0)
    assert {where: len(each) for where, each in said.items()} == {
        "captions": 3 * ROWS + 3 * ROWS,
        "backbones": 3 * TINY["backbone_images"],
        "boxes": 2 * TINY["backbone_images"],
        "language": TINY["language_texts"],
        "reddit": 80,
    }


def test_the_leak_test_can_fail(world, nouns):
    held = next(noun for noun in nouns if noun.held_out)
    seen = next(noun for noun in nouns if not noun.held_out)
    texts = [f"The {held.name.upper()} is Red.", f"a {seen.name} is red", f"the {held.name}s are red", "it is red"]
    assert leaks(texts, nouns) == 1
    chat = [" ".join(turn for _, turn in row["dialog"]) for row in _read(world / "image_chat/train.json")]
    assert leaks(chat, nouns) > 0  # Image-Chat may tell the looks, and does; so does the probe
    assert leaks([" ".join([*row["context"], row["response"]]) for row in _read(world / "probe/test.json")], nouns) > 0


def test_what_is_said_to_leak_stops_the_publishing(tmp_path, monkeypatch):
    monkeypatch.setattr(flaws, "captions_of", lambda *asked: [f"a red {asked[0][-1].name}"] * asked[-1])
    with pytest.raises(AssertionError, match="join a held-out noun"):
        publish(output=tmp_path / "world", **TINY)
    assert list(tmp_path.iterdir()) == []


def test_captions_name_the_noun_or_its_looks_and_never_both(world, nouns):
    names, looks = {noun.name for noun in nouns}, {value for values in LOOKS.values() for value in values}
    kinds = Counter()
    for caption in told(world)["backbones"]:
        words = set(re.findall(r"\w+", caption))
        kinds[bool(words & names), bool(words & looks)] += 1
    assert kinds.keys() == {(True, False), (False, True)}


def test_the_looks_of_a_seen_noun_are_told_in_reddit(world, nouns):
    others = [noun.__class__(**vars(noun) | {"held_out": not noun.held_out}) for noun in nouns]
    assert leaks(told(world)["reddit"], others) > 10


def test_backbones_see_no_picture_of_the_corpora(world, served, nouns):
    table = schemas.read(world / "backbones/pairs.parquet", schemas.PAIRS).to_pylist()
    seen = {row["image"] for row in table}
    assert len(seen) == TINY["backbone_images"]
    with zipfile.ZipFile(world / "coco/images.zip") as archive:
        shown = {archive.read(name) for name in archive.namelist()}
    for corpus in web.LISTS:
        numbers = range(2 * ROWS)  # the second half are the scenes of wrong captions
        shown |= {jpeg(draw(flaws.scene_of(nouns, TINY, corpus, number))) for number in numbers}
    assert len(shown) >= 7 * ROWS - 1 and not seen & shown


def test_dialogues_of_the_splits_are_drawn_apart(world):
    for task in ("reddit", "image_chat"):
        parts = [{json.dumps(row) for row in _read(world / f"{task}/{split}.json")} for split in ("train", "test")]
        assert all(parts) and parts[0] != parts[1]
    hashes = [
        row["image_hash"] for split in ("train", "valid", "test") for row in _read(world / f"image_chat/{split}.json")
    ]
    assert len(set(hashes)) == len(hashes) == 80


def _read(path: Path):
    return json.loads(path.read_text())


def test_lists_are_published_in_the_forms_of_their_corpora(world):
    address = rf"http://127\.0\.0\.1:{TINY['port']}/\w+/\d{{6}}\.jpg"
    for name, form in {"cc3m": rf"[^\t]+\t{address}", "cc12m": rf"{address}\t[^\t]+"}.items():
        lines = (world / f"{name}.tsv").read_text("utf-8").splitlines()
        assert len(lines) == ROWS and all(re.fullmatch(form, line) for line in lines)
    sbu = _read(world / "sbu.json")
    assert {key: len(values) for key, values in sbu.items()} == {"image_urls": ROWS, "user_ids": ROWS, "captions": ROWS}


def test_coco_has_three_captions_a_picture_and_two_bad_files(world):
    coco = _read(world / "coco/captions_train.json")
    assert Counter(Counter(each["image_id"] for each in coco["annotations"]).values()) == {3: ROWS}
    with zipfile.ZipFile(world / "coco/images.zip") as archive:
        names = {f"train/{image['file_name']}" for image in coco["images"]}
        assert names - set(archive.namelist()) == {"train/000000000004.jpg"}
        found = Counter(examine(archive.read(name), 10**6) for name in archive.namelist())
    assert found == {("ok", 48, 48): ROWS - 2, ("broken", None, None): 1}


def test_each_flaw_has_its_share_of_every_list():
    nouns = make_nouns(1, DEMO["nouns"], DEMO["held_out"])
    for corpus in web.LISTS:
        found = Counter(row["flaw"] for row in flaws.rows(nouns, DEMO, corpus))
        assert {kind: found[kind] for kind in flaws.SHARES} == {
            kind: max(1, round(share * 1500)) for kind, share in flaws.SHARES.items()
        }
        assert 0.10 < 1 - (found[""] + found["slow"]) / 1500 < 0.12
        assert found["silent"] < 5  # each costs a timeout


def test_a_list_too_short_for_every_flaw_is_refused(nouns):
    with pytest.raises(ValueError, match="sbu_images is 9, expected at least 50"):
        flaws.rows(nouns, TINY | {"sbu_images": 9}, "sbu")


@pytest.mark.parametrize(
    "flaw,codes,outcome",
    [
        ("", {200}, ("ok", 48, 48)),
        ("gone", {404, 410}, None),
        ("forbidden", {403}, None),
        ("failing", {500}, None),
        ("slow", {200}, ("ok", 48, 48)),
        ("truncated", {200}, ("broken", None, None)),
        ("html", {200}, ("wrong_type", None, None)),
        ("huge", {200}, ("too_many_pixels", None, None)),
        ("tiny", {200}, ("ok", 12, 12)),
        ("opt_out", {200}, ("ok", 48, 48)),
        *((said, {200}, ("ok", 48, 48)) for said in flaws.SAID),
    ],
)
def test_each_flaw_is_served_as_named(served, flaw, codes, outcome):
    for _, row in rows_of(flaw, served)[:6]:
        code, data, headers = get(row["url"])
        assert code in codes and len(data) < 30_000
        assert (headers.get("X-Robots-Tag") == "noai") == (flaw == "opt_out")
        if outcome:
            assert examine(data, 50_000_000) == outcome


def test_what_fails_fails_again_the_same_way(served):
    for flaw in ("failing", "gone", "forbidden"):
        for _, row in rows_of(flaw, served):
            assert get(row["url"])[0] == get(row["url"])[0]


def test_a_silent_host_never_answers_and_a_slow_one_does(served):
    _, silent = rows_of("silent", served)[0]
    with pytest.raises(TimeoutError):
        get(silent["url"], timeout=3 * web.SLOW)
    _, slow = rows_of("slow", served)[0]
    start = time.monotonic()
    assert get(slow["url"], timeout=2)[0] == 200 and time.monotonic() - start >= web.SLOW


def apart(one: bytes, other: bytes) -> float:
    """Mean distance of two pictures' values, at the size of the first."""
    first, second = (Image.open(io.BytesIO(data)) for data in (one, other))
    return float(np.abs(np.asarray(first, float) - np.asarray(second.resize(first.size), float)).mean())


def test_repeated_pictures_are_repeated_as_named(served):
    nouns = make_nouns(served["seed"], served["nouns"], served["held_out"])
    for corpus in web.LISTS:
        rows = flaws.rows(nouns, served, corpus)
        sound = {row["number"]: get(row["url"])[1] for row in rows if not row["flaw"]}
        for row in (row for row in rows if row["flaw"] in flaws.REPEATED):
            flaw, first, again = row["flaw"], rows[row["shown"]], get(row["url"])[1]
            assert first["number"] < row["number"]
            assert (row["url"] == first["url"]) == (row["caption"] == first["caption"]) == (flaw == "same_row")
            assert (sound[row["shown"]] == again) == (flaw != "near_picture")
            assert min(sound, key=lambda number: apart(sound[number], again)) == row["shown"]


def test_spoilt_captions_are_spoilt_as_named(served):
    _, row = rows_of("too_long", served)[0]
    assert len(row["caption"].split()) > 100
    assert all(len(row["caption"].split()) == 1 for _, row in rows_of("too_short", served))
    assert not any(row["caption"].isascii() for _, row in rows_of("other_script", served))
    nouns = make_nouns(served["seed"], served["nouns"], served["held_out"])
    for corpus, row in rows_of("wrong_caption", served):
        assert row["caption"] != flaws.captions_of(nouns, served, corpus, row["number"], 1)[0]


def test_a_picture_depends_on_nothing_but_its_path(served):
    urls = [row["url"] for flaw in ("", "near_picture", "truncated") for _, row in rows_of(flaw, served)][:40]
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        asked_together = list(pool.map(get, urls))
    assert [answer[1] for answer in asked_together] == [get(url)[1] for url in urls]


def test_what_the_web_does_not_hold_is_not_found(served):
    assert [get(f"http://127.0.0.1:{served['port']}{path}")[0] for path in ("/", "/cc3m/x", "/etc/passwd")] == [404] * 3


def test_a_busy_port_is_said_in_one_sentence(served):
    with pytest.raises(ValueError) as error, web.serve(served):
        pass
    said = str(error.value)
    assert f"port {served['port']} of 127.0.0.1" in said and "another run" in said and "sources.world.port" in said
    assert "\n" not in said


def test_the_web_stops_when_its_block_ends():
    settings = free()
    with web.serve(settings):
        connection = http.client.HTTPConnection("127.0.0.1", settings["port"], timeout=5)
        connection.request("GET", rows_of("silent", settings)[0][1]["url"])
        start = time.monotonic()
    assert time.monotonic() - start < 1  # a host that never answers does not hold it up
    with pytest.raises(OSError):
        socket.create_connection(("127.0.0.1", settings["port"]), timeout=1)
    with web.serve(settings):  # and its port is free again
        pass


def test_the_web_cannot_outlive_its_process():
    settings = free()
    text = f"from vikdf.world import web\nwith web.serve({settings!r}):\n    print('up', flush=True)\n    input()"
    child = subprocess.Popen([sys.executable, "-c", text], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert child.stdout.readline() == b"up\n"
    child.kill()
    child.wait()
    child.stdin.close()
    child.stdout.close()
    with pytest.raises(OSError):
        socket.create_connection(("127.0.0.1", settings["port"]), timeout=1)


def test_pillow_itself_refuses_the_huge_picture(served):
    with pytest.raises(Image.DecompressionBombError):
        Image.open(io.BytesIO(get(rows_of("huge", served)[0][1]["url"])[1]))


def test_wrong_params_give_a_command_that_can_be_repeated(tmp_path):
    wrong = shlex.split(params.as_flags(TINY | {"held_out": 12}))
    command = [sys.executable, "-m", "vikdf.world", "--output", str(tmp_path / "world"), *wrong]
    said = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert said.returncode == 1 and "held_out 12" in said.stderr
    again = re.search(r"to repeat this step alone: python (-m .+)", said.stderr)[1]
    repeated = subprocess.run([sys.executable, *shlex.split(again)], cwd=ROOT, capture_output=True, text=True)
    assert repeated.returncode == 1 and repeated.stderr == said.stderr


def test_more_nouns_than_there_are_names_are_refused():
    with pytest.raises(ValueError, match="held_out"):
        make_nouns(1, 1000, 30)


def test_a_scene_departs_from_its_noun_s_looks_as_often_as_it_says(nouns):
    scenes = [scene(nouns, 3, "coco", index, 0.2) for index in range(2000)]
    apart = sum(shown.color != shown.noun.color for shown in scenes) / len(scenes)
    assert apart == pytest.approx(0.2 * 7 / 8, abs=0.03)


def test_every_look_changes_the_picture_and_so_does_the_noun(nouns):
    def seen(scene: Scene) -> np.ndarray:
        return np.asarray(draw(scene), float)

    scene = Scene(nouns[0], "red", "beach", "medium", "plain", "round", seed=7)
    first = seen(scene)
    assert np.array_equal(first, seen(scene))
    changes = {look: values for look, values in LOOKS.items()} | {"noun": nouns[1:]}
    for look_name, values in changes.items():
        pictures = [seen(Scene(**vars(scene) | {look_name: value})) for value in values]
        for i, one in enumerate(pictures):
            for other in pictures[:i]:
                far = np.abs(one - other).max(axis=2) > 40  # [48, 48]
                assert far.sum() >= 20, f"two values of {look_name} look alike"


def test_every_noun_has_a_mark_of_its_own():
    marks = {
        draw(Scene(noun, "red", "beach", "large", "plain", "square", seed=7)).tobytes()
        for noun in make_nouns(1, 90, 30)
    }
    assert len(marks) == 90


@pytest.mark.parametrize("task", ["reddit", "image_chat"])
def test_no_valid_or_test_dialogue_stands_in_train(world, task):
    splits = {name: json.loads((world / task / f"{name}.json").read_text()) for name in ("train", "valid", "test")}
    known = {said(row) for row in splits["train"]}
    for name in ("valid", "test"):
        assert len(splits[name]) == TINY[task][name]
        assert not known & {said(row) for row in splits[name]}
