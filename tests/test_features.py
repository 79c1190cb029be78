"""The feature cache: the same losses with and without it, one encoder a cache, whole pieces only, made once by many."""

import json
import multiprocessing
import shutil
import signal
import threading
import time
from pathlib import Path

import checkpoints
import numpy as np
import pytest
import torch
from test_pretrain import SETTINGS, WEIGHTS, shards  # noqa: F401 - a fixture

from vikdf import features, files, pretrain
from vikdf.model.encoders import CLIP
from vikdf.model.vikdf import VIKDFForPretraining
from vikdf.samples import Shards

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def data(shards):  # noqa: F811
    return Shards(shards)


@pytest.fixture(scope="module")
def clip(backbones):
    return CLIP.load(backbones["clip"])


@pytest.fixture(scope="module")
def made(data, clip, tmp_path_factory):
    """A cache that tests read only."""
    return features.of(tmp_path_factory.mktemp("made"), data, clip, CPU)


@pytest.fixture
def small(monkeypatch):
    """Pieces of 16: several for 40 pictures and 80 captions."""
    monkeypatch.setattr(features, "PIECE", 16)


def pieces(folder: Path) -> list[Path]:
    return sorted(folder.glob("*/[0-9a-f]*"))


def old_cache(shards, rows, captions, clip) -> dict:  # noqa: F811
    """The naive reference: everything in memory, of these rows alone."""
    texts = sorted({text for row in captions for text in row})
    tokens = clip.tokenize(texts)
    pixels = torch.stack([clip.preprocess(shards[row]["image"]) for row in rows])
    made = {"pixels": pixels, "h_image": torch.cat([clip.image(part) for part in pixels.split(256)])}
    made["h_text"] = torch.cat([clip.states(part) for part in tokens.split(256)])
    return made | {"clip_tokens": tokens, "places": {text: i for i, text in enumerate(texts)}}


def test_a_batch_holds_the_bits_that_one_computed_in_memory_holds(data, clip, made):
    rows = list(range(30))
    captions = pretrain.captions_of(data, rows, False, 1)
    old, picked = old_cache(data, rows, captions, clip), [3, 11, 7, 29, 3, 0, 15, 21]
    said = [captions[row][row % 2] for row in picked]
    batch = made.batch([data.index["image_sha256"][row].as_py() for row in picked], said)
    places = [old["places"][text] for text in said]
    mask = clip.text_mask(old["clip_tokens"][places])
    length = mask.shape[1]
    assert torch.equal(batch["pixels"], old["pixels"][picked]) and torch.equal(batch["h_image"], old["h_image"][picked])
    assert torch.equal(batch["clip_tokens"], old["clip_tokens"][places][:, :length])
    assert torch.equal(batch["h_text"][mask], old["h_text"][places][:, :length][mask])


@pytest.fixture(scope="module")
def turned(data, backbones, made):
    """Losses and gradients of the same rows without and with the cache."""
    rows, found = list(range(len(data))), []
    for cache in (None, made):
        model = VIKDFForPretraining.build(**backbones, seed=1, **SETTINGS["model"])
        captions = pretrain.captions_of(data, rows, False, 1)
        pairs = pretrain.Pairs(data, rows, captions, model.source.clip, model.llm, 1, cache)
        aim = pretrain.objective(model, WEIGHTS)
        batch = pairs.batch([(0, row) for row in (3, 5, 7, 11, 30, 31, 2, 20)])
        loss, shares = aim(batch, aim.counts(batch))
        loss.backward()
        found.append((shares, {name: value.grad for name, value in model.named_parameters() if value.requires_grad}))
    return found


def test_the_losses_are_equal_bit_for_bit_with_and_without_the_cache(turned):
    (plain, _), (cached, _) = turned
    assert plain.keys() == cached.keys() == set(pretrain.LOSSES)
    assert all(torch.equal(plain[name], cached[name]) for name in plain)


def test_the_gradients_are_equal_bit_for_bit_with_and_without_the_cache(turned):
    (_, plain), (_, cached) = turned
    assert all(torch.equal(plain[name], cached[name]) for name in plain)


def test_pretraining_with_and_without_the_cache_gives_the_same_weights(shards, backbones, tmp_path, monkeypatch):  # noqa: F811
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    monkeypatch.setattr("vikdf.tracking.send", lambda folder, store: None)
    folders = {"shards": shards, "backbones": backbones["clip"].parent, "state_root": tmp_path / "state"}
    for cached in (False, True):
        training = SETTINGS["training"] | {"micro_batch": 8}
        changed = SETTINGS | {"cache_features": cached, "training": training}
        pretrain.pretrain(**folders, output=tmp_path / str(cached), **changed)
    assert (tmp_path / "state/features").exists()
    for name in ("model.safetensors", "curves.jsonl", "metrics.json"):
        assert files.sha256(tmp_path / "False" / name) == files.sha256(tmp_path / "True" / name), name


def test_pictures_take_eight_bits_a_number_and_come_back_whole(made, data, clip):
    arrays = [np.load(path) for path in made.folder.glob("pictures/*/pixels.npy")]
    assert {array.dtype for array in arrays} == {np.dtype(np.uint8)} and sum(map(len, arrays)) == len(data)


def test_what_eight_bits_cannot_hold_is_kept_as_it_is():
    table = torch.linspace(-1, 1, 256).expand(3, 256)
    pixels = table[:, torch.arange(48) * 5].reshape(1, 3, 8, 6)
    assert features.coded(pixels, table).dtype == torch.uint8
    assert torch.equal(features.coded(pixels + 1e-4, table), pixels + 1e-4)


def test_bfloat16_features_come_back_as_such(data, backbones, tmp_path):
    clip = CLIP.load(backbones["clip"], torch.bfloat16)
    found = features.of(tmp_path, data, clip, CPU)
    row, text = data.index.slice(4, 1).to_pylist()[0], data[4]["captions"][0]
    batch = found.batch([row["image_sha256"]] * 16, [text] * 16)
    assert batch["h_text"].dtype == batch["h_image"].dtype == torch.bfloat16
    assert torch.equal(batch["h_image"], clip.image(batch["pixels"]))
    assert torch.equal(batch["h_text"], clip.states(clip.tokenize([text] * 16))[:, : batch["h_text"].shape[1]])


def copied(backbones, folder: Path, part: str) -> Path:
    """The CLIP, changed in one of the parts that features depend on."""
    shutil.copytree(backbones["clip"], folder)
    if part == "weights":
        path = folder / "open_clip_model.safetensors"
        data = bytearray(path.read_bytes())
        data[-3] ^= 1
        path.write_bytes(data)
    elif part == "tokenizer":
        path = folder / "tokenizer.json"
        said = json.loads(path.read_text())
        words = said["model"]["vocab"]
        one, other = "red", "blue"
        one, other = ([word for word in words if word.strip("Ġ") == name][0] for name in (one, other))
        words[one], words[other] = words[other], words[one]
        path.write_text(json.dumps(said))
    else:
        path = folder / "open_clip_config.json"
        said = json.loads(path.read_text())
        said["preprocess_cfg"] |= {"mean and std": {"mean": [0.4] * 3}, "resizing": {"interpolation": "bilinear"}}[part]
        path.write_text(json.dumps(said))
    return folder


CHANGED = {
    "weights": "the file open_clip_model.safetensors",
    "tokenizer": "the cutting of texts, the file tokenizer.json",
    "mean and std": "the file open_clip_config.json, the preparation of pictures",
    "resizing": "the file open_clip_config.json, the preparation of pictures",
}


@pytest.mark.parametrize("part", CHANGED)
def test_a_cache_of_another_encoder_is_refused_with_what_differs(made, backbones, tmp_path, part):
    other = CLIP.load(copied(backbones, tmp_path / "clip", part))
    with pytest.raises(ValueError, match=f"holds the features of another encoder than .*: {CHANGED[part]} differ"):
        features.Features(made.folder, other, CPU)


def test_a_cache_in_other_numbers_is_refused(made, backbones):
    with pytest.raises(ValueError, match="the numbers differ"):
        features.Features(made.folder, CLIP.load(backbones["clip"], torch.bfloat16), CPU)


def test_a_cache_that_does_not_tell_its_encoder_is_refused(made, clip, tmp_path):
    shutil.copytree(made.folder, tmp_path / "copy")
    (tmp_path / "copy/encoder.json").unlink()
    with pytest.raises(ValueError, match="features of another encoder"):
        features.Features(tmp_path / "copy", clip, CPU)


def test_a_changed_encoder_found_by_key_has_a_cache_of_its_own(data, backbones, clip, tmp_path):
    first = features.of(tmp_path, data, clip, CPU)
    before = files.sha256(first.folder)
    other = features.of(tmp_path, data, CLIP.load(copied(backbones, tmp_path / "clip", "mean and std")), CPU)
    assert other.folder != first.folder and files.sha256(first.folder) == before


def test_the_second_pretraining_computes_nothing(data, clip, made, monkeypatch):
    monkeypatch.setattr(clip.towers, "image", lambda pixels: pytest.fail("encoded twice"))
    monkeypatch.setattr(features, "_prepared", lambda *_: pytest.fail("decoded twice"))
    again = features.Features(made.folder, clip, CPU).complete(data)
    assert again.pictures.places == made.pictures.places


def test_shards_with_more_pictures_add_only_those(data, clip, tmp_path, small):
    class Part:
        def __init__(self, rows):
            self.index = data.index.slice(0, rows)

        def __getitem__(self, row):
            return data[row]

    first = features.of(tmp_path, Part(16), clip, CPU)
    before = {path: path.stat().st_mtime_ns for path in first.folder.glob("*/*/*")}
    whole = features.of(tmp_path, data, clip, CPU)
    assert whole.folder == first.folder and len(whole.pictures.places) == len(data)
    assert before == {path: path.stat().st_mtime_ns for path in before}


@pytest.mark.parametrize("harm", ["a byte", "cut", "no manifest", "another manifest", "a lost array"])
def test_a_damaged_piece_is_named_and_made_again(data, clip, tmp_path, small, capsys, harm):
    folder = features.of(tmp_path, data, clip, CPU).folder
    before, piece = files.sha256(folder), pieces(folder)[1]
    path = piece / "states.npy"
    if harm == "a byte":
        content = bytearray(path.read_bytes())
        content[-7] ^= 4
        path.write_bytes(content)
    elif harm == "cut":
        path.write_bytes(path.read_bytes()[:-9])
    elif harm == "no manifest":
        (piece / "manifest.json").unlink()
    elif harm == "another manifest":
        said = files.read_json(piece / "manifest.json")
        files.write_json(piece / "manifest.json", said | {"keys": said["keys"][::-1]})
    else:
        path.unlink()
    features.of(tmp_path, data, clip, CPU)
    assert f"{piece} is damaged: it is made again" in capsys.readouterr().err
    assert files.sha256(folder) == before


def test_an_error_of_the_disk_that_may_pass_takes_no_piece_away(made, tmp_path, monkeypatch):
    def fails(path) -> None:
        raise OSError("Input/output error")

    shutil.copytree(made.folder, tmp_path / "a")
    before = pieces(tmp_path / "a")
    monkeypatch.setattr(files, "sha256", fails)
    with pytest.raises(OSError, match="Input/output error"):
        features.Pieces(tmp_path / "a/pictures").open(clear=True)
    assert before and pieces(tmp_path / "a") == before


def test_room_is_asked_for_before_the_first_picture(data, clip, tmp_path, monkeypatch):
    asked = []

    def full(what, wanted) -> None:
        asked.append((what, *wanted.values()))
        raise OSError("full")

    monkeypatch.setattr(features.space, "need", full)
    with pytest.raises(OSError, match="full"):
        features.of(tmp_path, data, clip, CPU)
    [(what, count)] = asked
    assert what.startswith("CLIP features of 40 pictures") and count > 0
    assert {path.name for path in tmp_path.rglob("*") if path.is_file()} == {"lock"}


@pytest.mark.parametrize("name", ["encoder.json", "product.json"])
def test_what_tells_of_the_cache_may_be_harmed_or_gone_and_nothing_is_computed_again(data, clip, tmp_path, name):
    folder = features.of(tmp_path, data, clip, CPU).folder
    before = {path: path.stat().st_mtime_ns for path in folder.glob("*/*/*")}
    for text in ("[7]", ""):
        (folder / name).write_text(text)
        again = features.of(tmp_path, data, clip, CPU)
        assert again.counts()["pictures"] == len(data) and again.folder == folder
        (folder / name).unlink()
        assert features.of(tmp_path, data, clip, CPU).counts() == again.counts()
    assert before == {path: path.stat().st_mtime_ns for path in before}


def test_a_signal_waits_for_the_end_of_a_piece_and_the_next_run_goes_on(data, clip, tmp_path, small, monkeypatch):
    add = features.Pieces.add
    monkeypatch.setattr(features.Pieces, "add", lambda self, *given: add(self, *given) or signal.raise_signal(15))
    with pytest.raises(InterruptedError, match="stopped by SIGTERM after 16 pictures; nothing is lost"):
        features.of(tmp_path / "hit", data, clip, CPU)
    monkeypatch.setattr(features.Pieces, "add", add)
    (folder,) = (tmp_path / "hit/features").iterdir()
    (piece,) = pieces(folder)
    stamp = (piece / "manifest.json").stat().st_mtime_ns
    features.of(tmp_path / "hit", data, clip, CPU)
    assert (piece / "manifest.json").stat().st_mtime_ns == stamp
    assert files.sha256(folder) == files.sha256(features.of(tmp_path / "whole", data, clip, CPU).folder)


def another(data, clip, root) -> tuple[multiprocessing.Process, multiprocessing.connection.Connection]:
    """A process that makes the cache, and after each piece says so and waits for a word."""
    ours, its = multiprocessing.Pipe()

    def make() -> None:
        add = features.Pieces.add

        def slow(self, *given):
            add(self, *given)
            its.send("piece")
            its.recv()

        features.Pieces.add = slow
        features.of(root, data, clip, CPU)
        its.send("done")

    process = multiprocessing.get_context("fork").Process(target=make)
    process.start()
    assert ours.recv() == "piece"
    return process, ours


def test_what_a_kill_left_is_gone_on_with_to_the_same_bytes(data, clip, tmp_path, small):
    process, _ = another(data, clip, tmp_path / "killed")
    process.kill()
    process.join()
    (folder,) = (tmp_path / "killed/features").iterdir()
    kept = pieces(folder)
    stamps = [path.stat().st_mtime_ns for path in kept]
    assert len(kept) == 1 and not (folder / "product.json").exists()
    features.of(tmp_path / "killed", data, clip, CPU)
    assert [path.stat().st_mtime_ns for path in kept] == stamps
    whole = features.of(tmp_path / "whole", data, clip, CPU).folder
    assert files.sha256(whole) == files.sha256(folder)


def test_of_two_processes_at_once_one_makes_and_the_other_waits(data, clip, tmp_path, capsys, small, monkeypatch):
    process, pipe = another(data, clip, tmp_path)
    monkeypatch.setattr(features.Features, "_make", lambda *_: pytest.fail("made twice"))
    ours, said = [], ""
    waiting = threading.Thread(target=lambda: ours.append(features.of(tmp_path, data, clip, CPU)))
    waiting.start()
    while waiting.is_alive() and "waiting until it ends" not in said:
        said += capsys.readouterr().err
        time.sleep(0.01)
    words = []
    while not words or words[-1] != "done":
        pipe.send("go on")
        words.append(pipe.recv())
    waiting.join()
    process.join()
    assert "waiting until it ends" in said and len(ours[0].pictures.places) == len(data)
    assert words == ["piece"] * 7 + ["done"]  # 3 of 40 pictures and 5 of 80 captions, the first told above


def test_what_was_read_does_not_stay_in_memory(tmp_path, monkeypatch):
    """64 MB are read row by row; at no time much more than the bound is mapped."""
    monkeypatch.setattr(features, "MAPPED", 2**20)
    store = features.Pieces(tmp_path)
    for part in range(8):
        keys = [f"{part}-{row}" for row in range(32)]
        store.add(keys, list(range(1, 33)), {"states": torch.full((32, 2**16), float(part))})

    def mapped() -> int:
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("RssFile")) * 1024

    before, most = mapped(), 0
    for row in range(32):
        found = store.gather([f"{part}-{row}" for part in range(8)], "states")
        assert found[:, 0, 0].tolist() == list(range(8))
        most = max(most, mapped() - before)
    assert most < 8 * 2**20


def test_loader_workers_decode_the_same_pictures(data, clip, made, tmp_path):
    assert files.sha256(features.of(tmp_path, data, clip, CPU, workers=2).folder) == files.sha256(made.folder)


def test_the_random_numbers_of_the_training_are_not_moved(data, clip, tmp_path):
    before = torch.random.get_rng_state()
    features.of(tmp_path, data, clip, CPU)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_a_transformers_clip_is_cached_as_well(data, tmp_path):
    clip = CLIP.load(checkpoints.write_hf_clip(tmp_path / "clip"))
    found = features.of(tmp_path, data, clip, CPU)
    keys, texts = data.index["image_sha256"].to_pylist()[:8], [row[0] for row in data.index["captions"].to_pylist()[:8]]
    batch = found.batch(keys, texts)
    assert torch.equal(batch["pixels"], torch.stack([clip.preprocess(data[row]["image"]) for row in range(8)]))
    assert torch.equal(batch["h_image"], clip.image(batch["pixels"]))
