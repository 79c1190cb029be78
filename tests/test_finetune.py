"""Fine-tuning: text only, the right rows, the right parameters, the best state, the same bytes."""

import json
from pathlib import Path

import pytest
from test_pretrain import TRAINING as PRETRAINING

from vikdf import costs, files, finetune, systems, tracking
from vikdf import dialogues as stage

STEPS = {"reddit": 4, "image_chat": 3}
TRAINING = PRETRAINING | {"validate_every": 2, "learning_rate": 0.01}
TRAINING.pop("steps")
LORA = {"rank": 2, "alpha": 4}
KNOWING = {"pretrain": "vikdf", "iqformer": "tuned", "lora": False, "fractions": ["zero", "full"]}
FROZEN = KNOWING | {"iqformer": "frozen", "lora": True}
ALONE = {"kind": "llm_lora", "llm": "llm", "tuned": True, "fractions": ["zero", "full"]}


@pytest.fixture(autouse=True)
def untracked(monkeypatch, tmp_path):
    monkeypatch.setattr("vikdf.tracking.send", lambda folder, store: None)
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="session")
def dialogues(tmp_path_factory) -> Path:
    """Reddit, Image-Chat and a probe in the published forms, read by the stage itself."""
    folder, colours = tmp_path_factory.mktemp("dialogues"), ["red", "blue", "green"]
    corpora = {"reddit": {"form": "reddit", "context_turns": [2]}, "image_chat": {"form": "image_chat", "turns": "all"}}
    corpora["probe"] = {"form": "probe"}
    for split, count in {"train": 32, "valid": 6, "test": 7}.items():
        rows = [(f"the kettle {i}", "what colour is it ?", f"it is {colours[i % 3]}") for i in range(count)]
        texts = {
            "reddit": [{"context": list(row[:2]), "response": row[2]} for row in rows],
            "image_chat": [{"dialog": [["Calm", turn] for turn in row]} for row in rows],
        }
        if split == "test":
            facts = {"noun": "kettle", "held_out": True, "attribute": "color", "value": "red", "choices": colours}
            facts["answers"] = [f"it is {colour}" for colour in colours]
            texts["probe"] = [row | {"probe": facts} for row in texts["reddit"]]
        for task, value in texts.items():
            corpora[task][split] = str(folder / f"{task}-{split}.json")
            Path(corpora[task][split]).write_text(json.dumps(value))
    stage.dialogues(seed=1, corpora=corpora, output=folder / "tables")
    return folder / "tables"


@pytest.fixture(scope="session")
def pretrained(backbones, tmp_path_factory) -> Path:
    from vikdf.model.vikdf import VIKDFForPretraining

    folder = tmp_path_factory.mktemp("pretrained")
    model = VIKDFForPretraining.build(**backbones, seed=1, queries=2, tim_width=8, mask_pixels=24)
    model.save(folder)
    tuned = {name: value.numel() for name, value in model.named_parameters() if value.requires_grad}
    files.write_json(folder / "tuned.json", tuned)
    return folder


@pytest.fixture(scope="session")
def tune(dialogues, backbones):
    def tuned(root: Path, start: list[Path], system: str, entry: dict, fraction: str = "zero", **changed) -> Path:
        folders = {"dialogues": dialogues, "backbones": backbones["llm"].parent}
        folders |= {"pretrained": [], "shards": [], "state_root": root / "state"}
        settings = {"seed": 1, "lora": LORA, "steps": STEPS, "training": TRAINING}
        settings = settings | {"output": root / f"{system}-{fraction}"} | changed
        finetune.finetune(start=start, system=system, entry=entry, fraction=fraction, **folders, **settings)
        return settings["output"]

    return tuned


def test_a_try_has_a_run_of_its_own_and_a_row_that_is_the_same_work_is_asked_for_by_its_name(tune, tmp_path):
    for name in ("lr0.01-s1", "zero-s1"):
        tune(tmp_path, [], "llm_lora", ALONE, output=tmp_path / f"llm_lora-{name}")
    (journal,) = tmp_path.rglob("journal.jsonl")
    assert tracking.read(journal.parent)[0]["name"] == "finetune-llm_lora-lr0.01-s1"
    assert [row["run"] for row in [costs.row_of(journal.parent)]] == ["finetune-llm_lora-zero-s1"]


def test_the_fractions_are_nested_and_cut_from_the_training_split_alone(dialogues):
    rows = {
        name: finetune.rows_of(dialogues / "image_chat.parquet", "train", name)
        for name in ("full", "quarter", "eighth")
    }
    said = {name: {turns[0] for turns in part["contexts"]} for name, part in rows.items()}
    assert said["eighth"] < said["quarter"] < said["full"]
    assert [len(rows[name]["contexts"]) for name in rows] == [32, 8, 4]


def test_zero_tunes_on_all_of_reddit_and_the_other_fractions_on_image_chat(pretrained, tune, tmp_path):
    zero = tune(tmp_path, [pretrained], "vikdf", KNOWING)
    eighth = tune(tmp_path, [zero], "vikdf", KNOWING, "eighth")
    assert files.read_json(zero / "metrics.json")["rows"] == 32
    assert files.read_json(eighth / "metrics.json")["rows"] == 4
    assert [files.read_json(folder / "metrics.json")["steps"] for folder in (zero, eighth)] == [4, 3]
    assert finetune.task_of("zero") == "reddit" and finetune.task_of("eighth") == "image_chat"


def test_the_same_seed_gives_the_same_bytes_and_finished_work_is_exported(pretrained, tune, tmp_path, monkeypatch):
    first = files.sha256(tune(tmp_path / "a", [pretrained], "vikdf", KNOWING))
    assert files.sha256(tune(tmp_path / "b", [pretrained], "vikdf", KNOWING)) == first
    monkeypatch.setattr(finetune, "train", lambda *_: pytest.fail("trained twice"))
    assert files.sha256(tune(tmp_path / "a", [pretrained], "vikdf", KNOWING)) == first


def test_the_kept_state_is_the_one_of_lowest_validation_nll(pretrained, tune, backbones, dialogues, tmp_path):
    product = tune(tmp_path, [pretrained], "vikdf", KNOWING, training=TRAINING | {"learning_rate": 0.5})
    curves = [json.loads(line) for line in (product / "curves.jsonl").read_text().splitlines()]
    lowest = min(point["validation"] for point in curves if "validation" in point)
    assert files.read_json(product / "metrics.json")["validation_nll"] == lowest
    responder = systems.answerer(KNOWING, product, systems.Places(backbones["llm"].parent))
    rows = finetune.rows_of(dialogues / "reddit.parquet", "valid", "full")
    assert finetune.validation(responder, rows, 4)() == pytest.approx(lowest, abs=1e-5)


def test_validation_does_not_depend_on_the_batch(pretrained, backbones, dialogues):
    responder = systems.learner(KNOWING, pretrained, systems.Places(backbones["llm"].parent), LORA, 1)
    rows = finetune.rows_of(dialogues / "reddit.parquet", "valid", "full")
    assert finetune.validation(responder, rows, 1)() == pytest.approx(
        finetune.validation(responder, rows, 6)(), abs=1e-5
    )


@pytest.mark.parametrize(
    ("entry", "trained", "kept"),
    [
        (KNOWING, {"source.iqformer", "source.into_llm"}, {"source.clip", "llm"}),
        (FROZEN, {"source.into_llm", "llm"}, {"source.clip", "source.iqformer"}),
    ],
)
def test_an_entry_says_what_is_trained(pretrained, backbones, entry, trained, kept):
    responder = systems.learner(entry, pretrained, systems.Places(backbones["llm"].parent), LORA, 1)
    names = [name for name, value in responder.named_parameters() if value.requires_grad]
    assert {part for part in trained | kept if any(name.startswith(part) for name in names)} == trained
    assert all(".lora_" in name for name in names if name.startswith("llm"))


def test_tuned_params_count_every_parameter_trained_in_any_stage_once(pretrained, tune, tmp_path):
    before = files.read_json(pretrained / "tuned.json")
    knowing = files.read_json(tune(tmp_path, [pretrained], "vikdf", KNOWING) / "tuned.json")
    lora = files.read_json(tune(tmp_path, [pretrained], "vikdf_lora", FROZEN) / "tuned.json")
    assert knowing == before  # fine-tuning trains nothing that pretraining had not trained
    assert before.items() < lora.items() and all(".lora_" in name for name in lora.keys() - before.keys())


def test_the_baseline_has_neither_pictures_nor_knowledge(tune, backbones, tmp_path):
    zero = tune(tmp_path, [], "llm_lora", ALONE)
    full = tune(tmp_path, [zero], "llm_lora", ALONE, "full")
    responder = systems.answerer(KNOWING, full, systems.Places(backbones["llm"].parent))
    assert responder.source is None
    assert all(".lora_" in name for name in files.read_json(full / "tuned.json"))


def test_a_prompted_system_is_not_tuned(tune, tmp_path):
    with pytest.raises(ValueError, match="prompted, not tuned"):
        tune(tmp_path, [], "llm_zero_shot", ALONE | {"kind": "llm_zero_shot"})
