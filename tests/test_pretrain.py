"""Pretraining: same seed, same bytes; finished work is exported; pairs, captions and losses are what they should be."""

import contextlib
import io
import os
import signal
from pathlib import Path

import numpy as np
import pytest

from vikdf import files, order, pretrain, schemas, state

TRAINING = {
    "steps": 3,
    "processes": 1,
    "micro_batch": 4,
    "accumulate": 1,
    "learning_rate": 0.001,
    "weight_decay": 0.05,
    "schedule": "constant_after_warmup",
    "warmup": 0.5,
    "clip_norm": 1.0,
    "precision": "float32",
    "workers": 0,
    "checkpoint_every": 100,
}
WEIGHTS = {"tim": 0.5, "tamim": 0.2, "iamtm": 0.2, "iaci": 1.0, "iakr": 0.5}
SETTINGS = {
    "variant": "vikdf",
    "seed": 1,
    "clip": "clip",
    "bert": "bert",
    "llm": "llm",
    "shuffle_pairs": False,
    "cache_features": True,
    "held_back": 4,
    "weights": WEIGHTS,
    "model": {"queries": 2, "tim_width": 8, "mask_pixels": 24},
    "training": TRAINING,
}


@pytest.fixture(scope="session")
def shards(tmp_path_factory) -> Path:
    """40 small pictures with two captions each, packed by the stage itself."""
    from PIL import Image

    from vikdf import shards as stage

    folder, random = tmp_path_factory.mktemp("shards"), np.random.default_rng(0)
    pairs, captions = [], []
    for i in range(40):
        data = io.BytesIO()
        Image.fromarray(random.integers(0, 255, (48, 48, 3), dtype=np.uint8)).save(data, "PNG")
        row = {"key": f"test-{i:09d}", "source": "test"}
        pairs.append(
            row | {"url": "", "captions": [], "status": "ok", "width": 48, "height": 48, "image": data.getvalue()}
        )
        for rank, text in enumerate([f"a red kettle {i}", f"blue vase {i}"]):
            about = {"caption": text, "origin": "web", "score": 0.5, "rank": rank, "used": True, "dropped": ""}
            captions.append(row | about)
    schemas.write(pairs, folder / "pairs.parquet", schemas.PAIRS)
    schemas.write(captions, folder / "captions.parquet", schemas.CAPTIONS)
    paths = {"captions": folder / "captions.parquet", "pairs": folder / "pairs.parquet"}
    stage.shards(rows_per_shard=16, max_shard_bytes=10**9, **paths, output=folder / "shards")
    return folder / "shards"


@pytest.fixture(autouse=True)
def untracked(monkeypatch, tmp_path):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    monkeypatch.setattr("vikdf.tracking.send", lambda folder, store: None)
    monkeypatch.chdir(tmp_path)


def run(shards, backbones, root, **changed) -> Path:
    folders = {
        "shards": shards,
        "backbones": backbones["clip"].parent,
        "output": root / "out",
        "state_root": root / "state",
    }
    pretrain.pretrain(**folders, **(SETTINGS | changed))
    return root / "out"


@pytest.fixture(scope="session")
def product(shards, backbones, tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("vikdf.tracking.send", lambda folder, store: None)
        return run(shards, backbones, tmp_path_factory.mktemp("product"))


def test_the_product_holds_weights_curves_and_scores_and_no_times(product):
    assert {path.name for path in product.iterdir()} == {
        "model.safetensors",
        "config.json",
        "tuned.json",
        "iqformer.json",
        "curves.jsonl",
        "metrics.json",
        "README.md",
        "generation_config.json",
        "tokenizer.json",
        "tokenizer_config.json",
        "chat_template.jinja",
    }
    lines = (product / "curves.jsonl").read_text().splitlines()
    assert len(lines) == 3 and all(f'"{name}"' in lines[0] for name in (*pretrain.LOSSES, "step"))
    metrics = files.read_json(product / "metrics.json")
    assert metrics["held_back"] == 4 and metrics["tuned_params"] == sum(
        files.read_json(product / "tuned.json").values()
    )
    assert 0 <= metrics["text_to_image_recall_at_1"] <= 1 and metrics["masked_error_of_mean_image"] > 0


def test_the_same_seed_gives_the_same_bytes_and_another_seed_others(product, shards, backbones, tmp_path):
    assert files.sha256(run(shards, backbones, tmp_path / "again")) == files.sha256(product)
    assert files.sha256(run(shards, backbones, tmp_path / "other", seed=2)) != files.sha256(product)


def test_a_stopped_run_goes_on_to_the_same_bytes(product, shards, backbones, tmp_path, monkeypatch):
    batch = pretrain.Pairs.batch

    def stop(self, picked):
        os.kill(os.getpid(), signal.SIGTERM)
        return batch(self, picked)

    monkeypatch.setattr(pretrain.Pairs, "batch", stop)
    with pytest.raises(InterruptedError, match="SIGTERM after step 1 of 3"):
        run(shards, backbones, tmp_path)
    monkeypatch.setattr(pretrain.Pairs, "batch", batch)
    assert files.sha256(run(shards, backbones, tmp_path)) == files.sha256(product)


def test_finished_work_is_exported_without_training(shards, backbones, tmp_path, monkeypatch):
    first = files.sha256(run(shards, backbones, tmp_path))
    monkeypatch.setattr(pretrain, "train", lambda *_: pytest.fail("trained twice"))
    (tmp_path / "out/model.safetensors").unlink()
    assert files.sha256(run(shards, backbones, tmp_path)) == first


def test_finished_work_of_changed_code_is_done_again(shards, backbones, tmp_path, monkeypatch):
    monkeypatch.setattr(state, "code_digest", lambda modules: "before")
    run(shards, backbones, tmp_path)
    monkeypatch.setattr(state, "code_digest", lambda modules: "after")
    trained = []
    monkeypatch.setattr(pretrain, "train", lambda *_: trained.append(1))
    with contextlib.suppress(FileNotFoundError):  # nothing was made this time
        run(shards, backbones, tmp_path)
    assert trained


def test_zero_steps_leave_the_initial_weights_and_tune_nothing(shards, backbones, tmp_path):
    initial = run(shards, backbones, tmp_path, training=TRAINING | {"steps": 0})
    assert files.read_json(initial / "tuned.json") == {} and (initial / "curves.jsonl").read_text() == ""


def test_what_the_iqformer_took_over_is_printed_kept_and_tracked(shards, backbones, tmp_path, capsys):
    made = run(shards, backbones, tmp_path, training=TRAINING | {"steps": 0})
    told, lists = capsys.readouterr().out, files.read_json(made / "iqformer.json")
    assert f"{len(lists['taken'])} tensors taken over from BERT" in told
    assert f"{len(lists['initialised'])} tensors initialised" in told and "queries" in lists["initialised"]
    (journal,) = (tmp_path / "state").rglob("journal.jsonl")
    assert "iqformer.json" in journal.read_text()


@pytest.mark.parametrize("name", pretrain.LOSSES)
def test_a_weight_of_zero_leaves_the_loss_and_its_parts_out(shards, backbones, tmp_path, name):
    made = run(shards, backbones, tmp_path, weights=WEIGHTS | {name: 0}, training=TRAINING | {"steps": 1})
    assert f'"{name}"' not in (made / "curves.jsonl").read_text()
    assert not [part for part in files.read_json(made / "tuned.json") if part.startswith(f"{name}.")]
    found = files.read_json(made / "metrics.json")
    assert (found["masked_error"] is None) == (name == "tamim")  # a decoder that was not trained tells nothing
    assert (found["text_to_image_recall_at_1"] is None) == (name == "tim")


def test_too_few_pairs_to_hold_one_back_are_refused(shards, backbones, tmp_path, monkeypatch):
    monkeypatch.setattr("vikdf.samples.Shards.__len__", lambda self: 9)
    with pytest.raises(ValueError, match="the shards hold 9 image-text pairs, but at least 10 are needed"):
        run(shards, backbones, tmp_path)


def test_shuffled_pairs_have_no_fixed_point_among_the_trained_ones(shards):
    from vikdf.samples import Shards

    data = Shards(shards)
    rows, held = order.split(len(data), 4, seed=1)
    own, others = (pretrain.captions_of(data, rows, shuffled, seed=1) for shuffled in (False, True))
    assert sorted(map(tuple, own)) == sorted(map(tuple, others))
    assert all(mine != theirs for mine, theirs in zip(own, others, strict=True))
    assert not set(rows) & set(held) and len(rows) + len(held) == len(data)


@pytest.mark.parametrize("cached", [False, True])
def test_features_are_made_where_the_params_ask_for_them(shards, backbones, tmp_path, cached):
    run(shards, backbones, tmp_path, cache_features=cached, training=TRAINING | {"steps": 1})
    assert (tmp_path / "state/features").exists() == cached
