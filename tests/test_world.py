"""The embedded world: a function of its seed, without leaks, with every flaw that it names."""

import io
import json
import socket
import urllib.error
import urllib.request

import pytest
from PIL import Image, UnidentifiedImageError

from vikdf import files
from vikdf.world import flaws, publish, texts, web
from vikdf.world.draw import draw, jpeg
from vikdf.world.nouns import LOOKS, make_nouns, scene

SMALL = {
    "seed": 3,
    "nouns": 30,
    "held_out": 10,
    "departs": 0.1,
    "pixels": 48,
    "coco_images": 20,
    "cc3m_images": 400,
    "cc12m_images": 400,
    "sbu_images": 400,
    "backbone_images": 30,
    "language_texts": 2000,
    "reddit": {"train": 1500, "valid": 200, "test": 200},
    "image_chat": {"train": 50, "valid": 20, "test": 20},
    "probe": {"held_out": 100, "seen": 50},
    "port": 0,
}
NOUNS = make_nouns(SMALL["seed"], SMALL["nouns"], SMALL["held_out"])


@pytest.fixture(scope="module")
def settings() -> dict:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return SMALL | {"port": probe.getsockname()[1]}


@pytest.fixture(scope="module")
def folder(tmp_path_factory, settings):
    made = tmp_path_factory.mktemp("world") / "world"
    publish.publish(output=made, **settings)
    return made


def said_before_image_chat(folder) -> dict[str, list[str]]:
    """Everything that is said in text before Image-Chat, by file."""
    reddit = [json.loads((folder / "reddit" / f"{split}.json").read_text()) for split in ("train", "valid", "test")]
    coco = json.loads((folder / "coco/captions_train.json").read_text())["annotations"]
    return {
        "language": (folder / "backbones/language.txt").read_text().splitlines(),
        "reddit": [" ".join([*row["context"], row["response"]]) for rows in reddit for row in rows],
        "coco": [row["caption"] for row in coco],
        "cc3m": [line.split("\t")[0] for line in (folder / "cc3m.tsv").read_text().splitlines()],
        "cc12m": [line.split("\t")[1] for line in (folder / "cc12m.tsv").read_text().splitlines()],
        "sbu": json.loads((folder / "sbu.json").read_text())["captions"],
    }


def test_no_text_before_image_chat_joins_a_held_out_noun_and_its_looks(folder):
    for name, said in said_before_image_chat(folder).items():
        assert said, name
        assert publish.leaks(said, NOUNS) == 0, name


def test_a_leak_would_be_found(folder):
    held = next(noun for noun in NOUNS if noun.held_out)
    said = said_before_image_chat(folder)["reddit"]
    assert publish.leaks([*said, f"the {held.name} is {held.color}."], NOUNS) == 1


def test_image_chat_and_the_probe_tell_the_looks_of_held_out_nouns(folder):
    rows = json.loads((folder / "probe/test.json").read_text())
    assert publish.leaks([" ".join([*row["context"], row["response"]]) for row in rows], NOUNS) > 0


def test_the_same_seed_gives_the_same_bytes(folder, settings, tmp_path):
    publish.publish(output=tmp_path / "again", **settings)
    assert files.sha256(tmp_path / "again") == files.sha256(folder)


def test_another_seed_gives_another_world(folder, settings, tmp_path):
    publish.publish(output=tmp_path / "other", **settings | {"seed": 4})
    ours, other = (files.read_json(path / "manifest.json")["sha256"] for path in (folder, tmp_path / "other"))
    assert not set(ours.values()) & set(other.values())


def test_the_manifest_counts_and_sums_every_file(folder):
    manifest = files.read_json(folder / "manifest.json")
    found = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()} - {"manifest.json"}
    assert set(manifest["sha256"]) == found
    assert manifest["counts"]["cc3m"] == len((folder / "cc3m.tsv").read_text().splitlines()) == SMALL["cc3m_images"]


def test_the_backbones_see_no_scene_of_the_corpora():
    drawn = {
        corpus: {flaws.scene_of(NOUNS, SMALL, corpus, number).seed for number in range(300)}
        for corpus in ("backbones", "coco", "cc3m", "cc12m", "sbu")
    }
    for corpus, seeds in drawn.items():
        assert corpus == "backbones" or not seeds & drawn["backbones"]


def test_a_caption_names_the_noun_or_its_looks_never_both():
    names = {noun.name for noun in NOUNS}
    looks = {value for values in LOOKS.values() for value in values}
    for index in range(500):
        shown = scene(NOUNS, 3, "coco", index, 0.1)
        for caption in texts.captions(shown, 3, "coco", index, 3):
            words = set(caption.replace(".", " ").replace("?", " ").replace("!", " ").replace(",", " ").split())
            assert bool(words & names) != bool(words & looks), caption


def test_a_scene_departs_from_its_noun_s_looks_as_often_as_it_says():
    scenes = [scene(NOUNS, 3, "coco", index, 0.2) for index in range(2000)]
    apart = sum(shown.color != shown.noun.color for shown in scenes) / len(scenes)
    assert apart == pytest.approx(0.2 * 7 / 8, abs=0.03)


def test_a_drawing_is_a_function_of_its_scene():
    shown = scene(NOUNS, 3, "coco", 5, 0.1)
    assert jpeg(draw(shown)) == jpeg(draw(shown))
    assert jpeg(draw(shown)) != jpeg(draw(scene(NOUNS, 3, "coco", 6, 0.1)))


def test_every_flaw_comes_about_as_often_as_the_table_says():
    many = SMALL | {"cc3m_images": 20000}
    rows = flaws.rows(NOUNS, many, "cc3m")
    for flaw, share in (flaws.SAID | flaws.SERVED).items():
        found = sum(row["flaw"] == flaw for row in rows) / len(rows)
        assert found == pytest.approx(share, rel=0.35), flaw


def ask(port: int, path: str, timeout: float = 5):
    with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=timeout) as answer:
        return answer.status, dict(answer.headers), answer.read()


def test_the_web_serves_each_flaw_as_it_is_named(settings):
    first = {}
    for corpus in web.LISTS:
        for row in flaws.rows(NOUNS, settings, corpus):
            first.setdefault(row["flaw"], f"/{corpus}/{row['number']:06d}.jpg")
    port = settings["port"]
    with web.serve(settings):
        Image.open(io.BytesIO(ask(port, first[""])[2])).load()
        Image.open(io.BytesIO(ask(port, first["slow"])[2])).load()
        assert ask(port, first["opt_out"])[1]["X-Robots-Tag"] == "noai"
        assert Image.open(io.BytesIO(ask(port, first["tiny"])[2])).width < 32
        assert ask(port, first["html"])[2].startswith(b"<html>")
        with pytest.raises(OSError, match="truncated"):
            Image.open(io.BytesIO(ask(port, first["truncated"])[2])).load()
        with pytest.raises((Image.DecompressionBombWarning, Image.DecompressionBombError, UnidentifiedImageError)):
            Image.open(io.BytesIO(ask(port, first["huge"])[2]))
        for flaw, codes in (("dead", web.DEAD), ("failing", (503,))):
            with pytest.raises(urllib.error.HTTPError) as error:
                ask(port, first[flaw])
            assert error.value.code in codes
        with pytest.raises(TimeoutError):
            ask(port, first["silent"], timeout=0.5)


def test_a_busy_port_is_named_with_the_key_that_changes_it(settings):
    with web.serve(settings), pytest.raises(ValueError, match=rf"port {settings['port']}.*sources\.world\.port"):
        with web.serve(settings):
            pass


def test_more_nouns_than_there_are_names_are_refused():
    with pytest.raises(ValueError, match="held_out"):
        make_nouns(1, 1000, 30)
