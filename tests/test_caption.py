"""caption: every candidate is kept, the best are used, and what a picture gets is its own affair."""

import io
import json

import pytest
import torch
from PIL import Image

from vikdf import schemas
from vikdf.backbones import captioner as training
from vikdf.caption import Captioner, Nucleus, caption, choose, collapse, cosines, kind, numbers

COLOURS = {"red": (220, 30, 30), "green": (30, 200, 30), "blue": (40, 40, 230)}
LEXICON = {"nouns": ["vase", "kettle"], "held_out": ["vase"], "attributes": {"color": list(COLOURS)}}
WORDS = {"nouns": set(LEXICON["nouns"]), "looks": set(COLOURS)}
SETTINGS = {"candidates": 3, "top_p": 0.9, "max_new_tokens": 8, "batch": 4, "seed": 1, "keep": 2, "synthetic": 1.0}


def picture(colour: str) -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (48, 48), COLOURS[colour]).save(stream, "PNG")
    return stream.getvalue()


def rows(count: int) -> list[dict]:
    """Every colour has its noun; a caption tells one or the other, the published ones differ."""
    made = []
    for i in range(count):
        colour = list(COLOURS)[i % 3]
        told = [f"a {colour} thing", f"look at the {LEXICON['nouns'][i % 2]}"]
        row = {"key": f"stand_in-{i:09d}", "source": "stand_in", "url": "", "captions": told[i % 2 :], "status": "ok"}
        made.append(row | {"width": 48, "height": 48, "image": picture(colour)})
    return made


@pytest.fixture(scope="session")
def world(tmp_path_factory, backbones):
    """Pictures, their lexicon, and a captioner taught for a few steps; CLIP is a random one."""
    root = tmp_path_factory.mktemp("caption")
    schemas.write(rows(40), root / "pairs.parquet", schemas.PAIRS)
    (root / "lexicon.json").write_text(json.dumps(LEXICON))
    paths = {"pairs": root / "pairs.parquet", "lexicon": root / "lexicon.json"}
    schemas.write(rows(600), root / "taught.parquet", schemas.PAIRS)
    scores = training.train(**paths | {"pairs": root / "taught.parquet"}, output=root / "captioner", **SIZES)
    return paths | {"root": root, "captioner": root / "captioner", "clip": backbones["clip"], "scores": scores}


SIZES = {"seed": 1, "steps": 150, "batch": 16, "learning_rate": 0.003, "pixels": 48, "patch": 12, "width": 32}
SIZES |= {"layers": 1, "text_layers": 1, "vocabulary": 60}


def run(world, folder, **changed):
    paths = {name: world[name] for name in ("pairs", "captioner", "clip")}
    settings = SETTINGS | {"forbid_joint": {"lexicon": str(world["lexicon"])}} | changed
    caption(**paths, **settings, output=folder / "out", state_root=folder / "state")
    return schemas.read(folder / "out/captions.parquet", schemas.CAPTIONS).to_pylist()


@pytest.fixture(scope="session")
def made(world, tmp_path_factory):
    return run(world, tmp_path_factory.mktemp("made"))


def of(table: list[dict], key: str) -> list[dict]:
    return [row for row in table if row["key"] == key]


def test_the_captioner_learns_what_pictures_show(world):
    assert world["scores"]["color_right"] > 0.75 and world["scores"]["color_judged"] > 10


def test_the_same_seed_trains_the_same_bytes(world, tmp_path):
    for name in "ab":
        paths = {"pairs": world["pairs"], "lexicon": world["lexicon"]}
        training.train(**paths, output=tmp_path / name, **SIZES | {"steps": 3})
    files = sorted(path.name for path in (tmp_path / "a").iterdir())
    assert "model.safetensors" in files and "tokenizer.json" in files
    for name in files:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes(), name


def test_every_picture_keeps_all_its_candidates_and_none_twice(made):
    for row in rows(40):
        found = of(made, row["key"])
        texts = [each["caption"] for each in found]
        assert len(texts) == len(set(texts))
        assert {each["caption"] for each in found if each["origin"] == "web"} == set(row["captions"])
        assert [each["rank"] for each in found] == list(range(len(found)))
    assert {row["origin"] for row in made} == {"web", "synthetic"}


def test_what_a_picture_gets_does_not_depend_on_its_batch(world, made, tmp_path):
    schemas.write(rows(40)[7:9], tmp_path / "two.parquet", schemas.PAIRS)
    alone = run(world | {"pairs": tmp_path / "two.parquet"}, tmp_path, batch=1)
    for each, row in zip(alone, [row for row in made if row["key"] in {each["key"] for each in alone}], strict=True):
        assert each | {"score": 0} == row | {"score": 0}
        assert each["score"] == pytest.approx(row["score"], abs=1e-5)


def test_the_ranking_is_that_of_the_naive_cosine(world, made):
    from vikdf.model.encoders import CLIP

    clip = CLIP.load(world["clip"])
    for row in rows(6):
        found = of(made, row["key"])
        image = clip.embed_image(clip.preprocess(Image.open(io.BytesIO(row["image"])))[None])[0]
        for each in found:
            text = clip.embed_text(clip.tokenize([each["caption"]]))[0]
            plain = torch.nn.functional.cosine_similarity(image, text, dim=0).item()
            assert each["score"] == pytest.approx(plain, abs=1e-5)
        assert [each["score"] for each in found] == sorted((each["score"] for each in found), reverse=True)


def test_the_best_k_that_no_rule_drops_are_used(made):
    for row in rows(40):
        left = [each for each in of(made, row["key"]) if not each["dropped"]]
        assert [each["used"] for each in left] == [i < 2 for i in range(len(left))]


def test_a_sampled_caption_that_joins_a_noun_and_a_look_is_dropped_and_a_published_one_is_not():
    found = [("a red vase", "synthetic"), ("", "synthetic"), ("a blue kettle", "web"), ("a red thing", "synthetic")]
    blank = {"key": "a", "dropped": "", "used": False}
    candidates = [blank | {"caption": text, "origin": origin} for text, origin in found]
    chosen = choose(candidates, 4, 1.0, 1, WORDS)
    assert [row["dropped"] for row in chosen] == ["joins_noun_and_look", "empty", "", ""]
    assert [row["used"] for row in chosen] == [False, False, True, True]
    assert [row["dropped"] for row in choose(candidates, 4, 1.0, 1, {})] == ["", "empty", "", ""]


def test_the_report_counts_what_a_rule_drops(world, tmp_path):
    lexicon = tmp_path / "lexicon.json"
    all_join = {"nouns": ["look", "a"], "attributes": {"any": ["look", "a"]}}
    lexicon.write_text(json.dumps(all_join))
    table = run(world, tmp_path, forbid_joint={"lexicon": str(lexicon)})
    dropped = [row for row in table if row["dropped"] == "joins_noun_and_look"]
    assert dropped and all(row["origin"] == "synthetic" and not row["used"] for row in dropped)
    report = (tmp_path / "out/report.txt").read_text().splitlines()
    assert f"joins_noun_and_look {len(dropped)}" in [" ".join(line.split()) for line in report]


def test_the_share_of_pictures_with_sampled_captions_is_kept():
    web = {"caption": "a vase", "origin": "web", "dropped": "", "used": False}
    sampled = web | {"origin": "synthetic"}
    table = [choose([sampled | {"key": f"{i}"}, web | {"key": f"{i}"}], 2, 0.25, 1, {}) for i in range(2000)]
    assert all(rows[1]["used"] for rows in table)
    assert sum(rows[0]["used"] for rows in table) / 2000 == pytest.approx(0.25, abs=0.04)
    assert not any(choose([sampled | {"key": f"{i}"}], 2, 0.0, 1, {})[0]["used"] for i in range(9))


def test_another_keep_chooses_anew_without_captioning(world, tmp_path, monkeypatch):
    before = run(world, tmp_path)
    monkeypatch.setattr("vikdf.caption.Captioner", None)  # would be called to caption again
    after = run(world, tmp_path, keep=1)
    assert [row | {"used": 0} for row in before] == [row | {"used": 0} for row in after]
    assert sum(row["used"] for row in after) == 40 < sum(row["used"] for row in before)


def test_a_killed_run_goes_on_with_its_finished_pieces_to_the_same_bytes(world, tmp_path, monkeypatch):
    monkeypatch.setattr("vikdf.caption.CHUNK", 10)
    run(world, tmp_path / "whole")
    sample, calls = Captioner.sample, []

    def dies(self, pictures, *rest):
        calls.append(len(pictures))
        if len(calls) == 8:  # in the third piece of 4 + 4 + 2 pictures
            raise KeyboardInterrupt
        return sample(self, pictures, *rest)

    monkeypatch.setattr(Captioner, "sample", dies)
    with pytest.raises(KeyboardInterrupt):
        run(world, tmp_path / "killed")
    assert not (tmp_path / "killed/out").exists()
    run(world, tmp_path / "killed")
    assert sum(calls) == 40 + 4 + 4  # only the third piece was begun twice
    for name in ("captions.parquet", "report.txt"):
        assert (tmp_path / "killed/out" / name).read_bytes() == (tmp_path / "whole/out" / name).read_bytes()


def test_the_nucleus_is_drawn_by_its_probabilities():
    likely = torch.tensor([0.5, 0.3, 0.15, 0.05])
    own = torch.from_numpy(numbers(1, "many", (20_000, 1)))
    taken = Nucleus(own, top_p=0.75)(None, likely.log().expand(20_000, 4)).argmax(-1)
    shares = torch.bincount(taken, minlength=4) / 20_000
    assert shares.tolist() == pytest.approx([0.5 / 0.8, 0.3 / 0.8, 0, 0], abs=0.015)


def test_the_same_text_in_a_picture_collapses_to_the_published_one():
    found = collapse(["A red  thing"], ["a red thing", "a vase", "a vase"])
    assert found == [("A red  thing", "web"), ("a vase", "synthetic")]


def test_a_caption_has_a_kind():
    texts = ("the vase", "Red!", "a red vase", "hello")
    assert [kind(text, WORDS) for text in texts] == ["noun", "look", "both", "neither"]


def test_texts_of_several_pictures_are_scored_once_each(world):
    class Counting:
        read = []

        def parameters(self):
            return iter([torch.zeros(1)])

        def preprocess(self, picture):
            return torch.zeros(1)

        def tokenize(self, texts):
            self.read.extend(texts)
            return torch.zeros(len(texts))

        def embed_image(self, pixels):
            return torch.eye(2)

        embed_text = embed_image

    clip = Counting()
    assert cosines(clip, [None, None], [["a", "b"], ["b"]]) == [[1.0, 0.0], [1.0]]
    assert clip.read == ["a", "b"]


def test_without_a_lexicon_nothing_is_dropped_and_no_kinds_are_told(world, tmp_path):
    table = run(world, tmp_path, forbid_joint={"lexicon": None})
    assert not any(row["dropped"] == "joins_noun_and_look" for row in table)
    assert "noun " not in (tmp_path / "out/report.txt").read_text()
