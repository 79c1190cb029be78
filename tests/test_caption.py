"""caption: every candidate is kept, the best are used, and what a picture gets is its own affair."""

import io
import json
import signal
import subprocess
import sys

import pytest
import torch
from PIL import Image

from vikdf import sampling, schemas, verify
from vikdf.backbones import captioner as training
from vikdf.caption import Choice, caption, read_lexicon
from vikdf.model.captioner import Captioner
from vikdf.ranking import kind

COLOURS = {"red": (220, 30, 30), "green": (30, 200, 30), "blue": (40, 40, 230)}
LEXICON = {"nouns": ["vase", "kettle"], "held_out": ["vase"], "attributes": {"color": list(COLOURS)}}
WORDS = {"nouns": set(LEXICON["nouns"]), "looks": set(COLOURS)}
SETTINGS = {"candidates": 3, "top_p": 0.9, "max_new_tokens": 8, "batch": 12, "seed": 1}
SETTINGS |= {"keep": 2, "min_score": None, "synthetic": 1.0}


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


def run(world, folder, state=None, **changed):
    """The chosen candidates; what was sampled for one test is there for another, unless it names a state of its own."""
    paths = {name: world[name] for name in ("pairs", "captioner", "clip")}
    settings = SETTINGS | {"forbid_joint": {"lexicon": str(world["lexicon"])}} | changed
    caption(**paths, **settings, output=folder / "out", state_root=state or world["root"] / "state")
    return schemas.read(folder / "out/captions.parquet", schemas.CAPTIONS).to_pylist()


@pytest.fixture(scope="session")
def made(world, tmp_path_factory):
    return run(world, tmp_path_factory.mktemp("made"))


def report_of(folder) -> list[str]:
    """The lines of the report, with single spaces."""
    return [" ".join(line.split()) for line in (folder / "out/report.txt").read_text().splitlines()]


def choice(**changed) -> Choice:
    return Choice(**{"keep": 2, "synthetic": 1.0, "min_score": None, "seed": 1, "lexicon": {}} | changed)


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


def test_the_manifest_names_every_file_and_verify_sees_a_change(world, made, tmp_path):
    run(world, tmp_path)
    manifest = json.loads((tmp_path / "out/manifest.json").read_text())
    used = sum(row["used"] for row in made)
    assert (len(manifest["files"]), manifest["pictures"], manifest["used"]) == (3, 40, used)
    (tmp_path / "out/captions.parquet").write_bytes(b"other")
    with pytest.raises(ValueError, match="captions.parquet has changed"):
        verify.verify([tmp_path])


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
    alone = run(world | {"pairs": tmp_path / "two.parquet"}, tmp_path, batch=3)
    for each, row in zip(alone, [row for row in made if row["key"] in {each["key"] for each in alone}], strict=True):
        assert each | {"score": 0} == row | {"score": 0}
        assert each["score"] == pytest.approx(row["score"], abs=1e-5)


def test_the_ranking_is_that_of_open_clip_itself_asked_for_one_text_at_a_time(world, made):
    import open_clip

    model, _, preprocess = open_clip.create_model_and_transforms(f"local-dir:{world['clip']}")
    tokenizer = open_clip.get_tokenizer(f"local-dir:{world['clip']}", trust_remote_code=False)
    model.eval()
    for row in rows(6):
        found = of(made, row["key"])
        with torch.no_grad():
            image = model.encode_image(preprocess(Image.open(io.BytesIO(row["image"])))[None])
            texts = [model.encode_text(tokenizer([each["caption"]])) for each in found]
        for each, text in zip(found, texts, strict=True):
            assert each["score"] == pytest.approx(torch.cosine_similarity(image, text).item(), abs=1e-5)
        assert [each["score"] for each in found] == sorted((each["score"] for each in found), reverse=True)


def test_the_best_k_that_no_rule_drops_are_used(made):
    for row in rows(40):
        left = [each for each in of(made, row["key"]) if not each["dropped"]]
        assert [each["used"] for each in left] == [i < 2 for i in range(len(left))]


def test_a_sampled_caption_that_joins_a_noun_and_a_look_is_dropped_and_a_published_one_is_not():
    found = [("a red vase", "synthetic"), ("", "synthetic"), ("a blue kettle", "web"), ("a red thing", "synthetic")]
    blank = {"key": "a", "dropped": "", "used": False, "score": 0.5}
    candidates = [blank | {"caption": text, "origin": origin} for text, origin in found]
    chosen = choice(keep=4, lexicon=WORDS)(candidates)
    assert [row["dropped"] for row in chosen] == ["joins_noun_and_look", "empty", "", ""]
    assert [row["used"] for row in chosen] == [False, False, True, True]
    assert [row["dropped"] for row in choice(keep=4)(candidates)] == ["", "empty", "", ""]


def all_join(folder) -> dict:
    """A lexicon by which most sampled captions join a noun and a look."""
    words = {"nouns": ["look", "a"], "attributes": {"any": ["look", "a"]}}
    (folder / "lexicon.json").write_text(json.dumps(words))
    return {"lexicon": str(folder / "lexicon.json")}


def test_the_report_counts_what_a_rule_drops(world, tmp_path):
    table = run(world, tmp_path, forbid_joint=all_join(tmp_path))
    dropped = [row for row in table if row["dropped"] == "joins_noun_and_look"]
    assert dropped and all(row["origin"] == "synthetic" and not row["used"] for row in dropped)
    assert f"joins_noun_and_look 0 {len(dropped)}" in report_of(tmp_path)


def candidates_of_many(count: int) -> list[list[dict]]:
    """Pictures with two to four candidates; of every fifth the published caption is not used, its score is too low."""
    made = []
    for i in range(count):
        about = {"key": f"{i}", "dropped": "", "used": False, "caption": "a vase"}
        found = [about | {"origin": "synthetic", "score": 0.5, "rank": rank} for rank in range(1 + i % 3)]
        made.append([*found, about | {"origin": "web", "score": 0.1 if i % 5 == 0 else 0.4, "rank": len(found)}])
    return made


def trained_share(chosen: list[list[dict]]) -> float:
    """The naive share: over the pictures with a caption in use, the chance that a draw of one is a sampled one."""
    used = [[row["origin"] for row in rows if row["used"]] for rows in chosen]
    shares = [each.count("synthetic") / len(each) for each in used if each]
    return sum(shares) / len(shares)


@pytest.mark.parametrize("wanted", [0.05, 0.25, 0.5])
def test_the_share_of_sampled_captions_in_training_is_the_one_asked_for(wanted):
    many = candidates_of_many(3000)
    made = choice(keep=4, synthetic=wanted, min_score=0.2)
    made.settle(iter(many))
    assert wanted - 0.002 < trained_share([made(rows) for rows in many]) <= wanted


def test_a_share_that_no_choice_reaches_uses_all_sampled_captions_and_none_uses_none():
    many = candidates_of_many(300)
    almost_all = choice(keep=4, synthetic=0.99)
    almost_all.settle(iter(many))
    assert [almost_all(rows) for rows in many] == [choice(keep=4)(rows) for rows in many]
    assert trained_share([choice(synthetic=0.0)(rows) for rows in many]) == 0


def test_a_larger_share_keeps_the_pictures_of_a_smaller_one():
    many = candidates_of_many(500)
    used = []
    for share in (0.1, 0.3):
        made = choice(keep=4, synthetic=share)
        made.settle(iter(many))
        used.append({rows[0]["key"] for rows in many if made(rows)[0]["used"]})
    assert used[0] < used[1]


def test_a_caption_below_min_score_is_not_used_whoever_wrote_it(world, made, tmp_path):
    middle = sorted(row["score"] for row in made)[len(made) // 2]
    after = run(world, tmp_path, min_score=middle)
    low = [row for row in after if row["score"] < middle]
    assert {row["origin"] for row in low} == {"web", "synthetic"}
    assert all(row["dropped"] and not row["used"] for row in low)
    web = sum(row["dropped"] == "low_score" and row["origin"] == "web" for row in after)
    assert f"low_score {web} " in " ".join(report_of(tmp_path))


def test_another_choice_never_captions_again(world, made, tmp_path, monkeypatch):
    before = made
    monkeypatch.setattr("vikdf.model.captioner.Captioner", None)  # would be called to caption again
    same = {"used": 0, "dropped": 0}
    joined = {"forbid_joint": all_join(tmp_path)}
    for changed in ({"keep": 1}, {"min_score": 0.0}, {"synthetic": 0.3}, {"synthetic": 0.0}, joined):
        after = run(world, tmp_path, **changed)
        assert [row | same for row in before] == [row | same for row in after]
        assert [row["used"] for row in before] != [row["used"] for row in after], changed
    assert sum(row["used"] for row in run(world, tmp_path, keep=1)) == 40 < sum(row["used"] for row in before)


def test_what_was_sampled_in_other_numbers_is_sampled_anew(world, made, tmp_path, monkeypatch):
    monkeypatch.setattr("vikdf.model.captioner.place", lambda: (torch.device("cpu"), torch.bfloat16))
    monkeypatch.setattr("vikdf.model.captioner.Captioner", None)  # is called to caption again
    with pytest.raises(TypeError, match="not callable"):
        run(world, tmp_path)


def test_only_the_code_that_samples_and_scores_is_part_of_the_work(world, made):
    from vikdf.code import code

    work = json.loads(next(world["root"].glob("state/caption/*/work.json")).read_text())
    followed = {path for module in work["modules"] for path in code(module)}
    assert {"vikdf/sampling.py", "vikdf/model/captioner.py", "vikdf/model/encoders.py"} <= followed
    assert not {"vikdf/caption.py", "vikdf/ranking.py"} & followed


def test_a_picture_that_cannot_be_decoded_is_counted_and_the_others_stay_the_same(world, made, tmp_path):
    table = rows(40)
    broken = {5: picture("red")[:60], 6: b"<html>", 17: None}
    for number, image in broken.items():
        table[number]["image"] = image
    schemas.write(table, tmp_path / "pairs.parquet", schemas.PAIRS)
    after = run(world | {"pairs": tmp_path / "pairs.parquet"}, tmp_path)
    bad = {table[number]["key"] for number in broken}
    lost = [row for row in after if row["key"] in bad]
    assert {row["caption"] for row in lost} == {text for number in broken for text in table[number]["captions"]}
    assert all(row["dropped"] == "broken_picture" and row["score"] is None and not row["used"] for row in lost)
    assert [row["caption"] for row in after if row["key"] not in bad] == [
        row["caption"] for row in made if row["key"] not in bad
    ]
    assert f"broken_picture {len(lost)} 0" in report_of(tmp_path)
    assert any("3 of them since they cannot be decoded" in line for line in report_of(tmp_path))


def test_fewer_rows_at_a_time_than_candidates_are_refused(world, tmp_path):
    with pytest.raises(ValueError, match="`batch` is 2, `candidates` is 3: set `batch` to 3 or more"):
        run(world, tmp_path, batch=2)


def test_a_killed_run_goes_on_with_its_finished_pieces_to_the_same_bytes(world, tmp_path, monkeypatch):
    monkeypatch.setattr(sampling, "CHUNK", 10)
    run(world, tmp_path / "whole", tmp_path / "whole/state")
    sample, calls = Captioner.sample, []

    def dies(self, pixels, *rest):
        calls.append(len(pixels))
        if len(calls) == 8:  # in the third piece of 4 + 4 + 2 pictures
            raise KeyboardInterrupt
        return sample(self, pixels, *rest)

    monkeypatch.setattr(Captioner, "sample", dies)
    with pytest.raises(KeyboardInterrupt):
        run(world, tmp_path / "killed", tmp_path / "killed/state")
    assert not (tmp_path / "killed/out").exists()
    run(world, tmp_path / "killed", tmp_path / "killed/state")
    assert sum(calls) == 40 + 4 + 4  # only the third piece was begun twice
    same_files(tmp_path / "killed", tmp_path / "whole")


def same_files(one, other):
    for name in ("captions.parquet", "report.txt", "report.svg"):
        assert (one / "out" / name).read_bytes() == (other / "out" / name).read_bytes(), name


def test_a_damaged_piece_is_noticed_and_alone_made_again(world, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sampling, "CHUNK", 10)
    run(world, tmp_path / "whole", tmp_path / "whole/state")
    with monkeypatch.context() as patch, pytest.raises(TypeError):
        patch.setattr("vikdf.state.Work.finish", None)  # all pieces are there, the product is not
        run(world, tmp_path / "hit", tmp_path / "hit/state")
    sample, calls = Captioner.sample, []
    monkeypatch.setattr(Captioner, "sample", lambda self, *given: calls.append(len(given[0])) or sample(self, *given))
    piece = next(tmp_path.glob("hit/state/caption/*/checkpoints/000001-*.parquet"))
    hit = bytearray(piece.read_bytes())
    hit[len(hit) // 2] ^= 1
    piece.write_bytes(hit)
    run(world, tmp_path / "hit", tmp_path / "hit/state")
    assert sum(calls) == 10 and f"{piece} is damaged: it is made again" in capsys.readouterr().err
    same_files(tmp_path / "hit", tmp_path / "whole")


KILLED = """
import importlib, json, os, signal, sys
from pathlib import Path
from vikdf import sampling
from vikdf.caption import caption

sampling.CHUNK = 10
module, name, calls = sys.argv[1], sys.argv[2], int(sys.argv[3])
owner = importlib.import_module(module)
*inside, name = name.split(".")
for part in inside:
    owner = getattr(owner, part)
real = getattr(owner, name)

def dies(*given, **named):
    global calls
    calls -= 1
    if calls == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    return real(*given, **named)

setattr(owner, name, dies)
asked = json.loads(sys.argv[4])
paths = {key: Path(asked[key]) for key in ("pairs", "captioner", "clip", "output", "state_root")}
caption(**asked | paths)
"""


@pytest.mark.long
@pytest.mark.parametrize(
    "where",
    [
        ("vikdf.model.captioner", "Captioner.sample", 8),  # in the middle of a piece
        ("pathlib", "Path.rename", 2),  # a piece is written, but does not count yet
        ("vikdf.files", "write_json", 2),  # the product lies there, but does not count yet
        ("vikdf.ranking", "Report.write", 1),  # chosen, but the output is not whole
    ],
    ids=lambda where: where[1],
)
def test_a_run_that_is_killed_anywhere_goes_on_to_the_same_bytes(world, tmp_path, monkeypatch, where):
    monkeypatch.setattr(sampling, "CHUNK", 10)
    run(world, tmp_path / "whole", tmp_path / "whole/state")
    paths = {name: world[name] for name in ("pairs", "captioner", "clip")}
    folders = {"output": tmp_path / "killed/out", "state_root": tmp_path / "killed/state"}
    asked = paths | SETTINGS | {"forbid_joint": {"lexicon": str(world["lexicon"])}} | folders
    command = [sys.executable, "-c", KILLED, *map(str, where), json.dumps(asked, default=str)]
    assert subprocess.run(command, capture_output=True).returncode == -signal.SIGKILL
    assert not (tmp_path / "killed/out").exists()
    run(world, tmp_path / "killed", tmp_path / "killed/state")
    same_files(tmp_path / "killed", tmp_path / "whole")


def test_what_a_picture_gets_does_not_depend_on_its_piece(world, made, tmp_path, monkeypatch):
    monkeypatch.setattr(sampling, "CHUNK", 7)
    assert [row | {"score": 0} for row in run(world, tmp_path, tmp_path)] == [row | {"score": 0} for row in made]


def test_a_caption_has_a_kind():
    texts = ("the vase", "Red!", "a red vase", "hello")
    assert [kind(text, WORDS) for text in texts] == ["noun", "look", "both", "neither"]


def test_the_plot_is_an_svg_that_names_scores_and_shares(made, world, tmp_path):
    import xml.etree.ElementTree as tree

    run(world, tmp_path, min_score=0.0)
    drawn = (tmp_path / "out/report.svg").read_text()
    assert tree.fromstring(drawn).tag.endswith("svg")
    for word in ("candidates by score", "share in use", "published: ", "sampled: ", "min_score 0"):
        assert word in drawn, word


def test_a_lexicon_that_is_not_there_is_named_with_the_cure(tmp_path):
    with pytest.raises(ValueError, match="lost.json is missing: `caption.forbid_joint.lexicon` names it; write null"):
        read_lexicon(tmp_path / "lost.json")


def test_without_a_lexicon_nothing_is_dropped_and_no_kinds_are_told(world, tmp_path):
    table = run(world, tmp_path, forbid_joint={"lexicon": None})
    assert not any(row["dropped"] == "joins_noun_and_look" for row in table)
    assert "noun " not in (tmp_path / "out/report.txt").read_text()
