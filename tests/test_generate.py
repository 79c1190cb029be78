"""Answers: every task of a row, the same for any batch size, every column filled, a stopped run goes on."""

import os
import signal

import pytest
from test_finetune import KNOWING, dialogues, pretrained  # noqa: F401 - fixtures

from vikdf import files, generate, schemas, systems, tracking
from vikdf.model.respond import Responder

PROMPTED = {"kind": "llm_zero_shot", "llm": "llm", "tuned": False, "instruction": "what colour", "fractions": ["zero"]}
DECODING = {"beams": 2, "no_repeat_ngram": 3, "max_new_tokens": 6}


@pytest.fixture(scope="session")
def tuned(pretrained, backbones, tmp_path_factory):  # noqa: F811
    folder = tmp_path_factory.mktemp("tuned")
    systems.learner(KNOWING, pretrained, systems.Places(backbones["llm"].parent), {}, 1).save(folder)
    files.write_json(folder / "tuned.json", {"source.into_llm.weight": 7})
    return folder


@pytest.fixture
def answer(dialogues, backbones, tuned, tmp_path, monkeypatch):  # noqa: F811
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("vikdf.tracking.send", lambda folder, store: None)

    def answered(output="out.parquet", state_root="state", **changed):
        settings = {"tuned": [tuned], "system": "vikdf", "fraction": "zero", "seed": 1, "entry": KNOWING}
        settings |= {"batch": 3, "precision": "float32"}
        tasks = ["reddit", "image_chat", "probe"] if changed.get("fraction", "zero") == "zero" else ["image_chat"]
        tables = [dialogues / f"{task}.parquet" for task in tasks]
        folders = {"dialogues": tables, "backbones": backbones["llm"].parent, "state_root": tmp_path / state_root}
        folders |= {"pretrained": [], "shards": []}
        generate.generate(output=tmp_path / output, decoding=DECODING, **folders, **(settings | changed))
        return schemas.read(tmp_path / output, schemas.RESPONSES).to_pylist()

    return answered


def test_zero_answers_all_tasks_and_the_other_fractions_image_chat(answer):
    rows = answer()
    assert {(row["task"], row["data"]) for row in rows} == {
        ("reddit", "full"),
        ("image_chat", "zero"),
        ("probe", "zero"),
    }
    assert {(row["task"], row["data"]) for row in answer(fraction="eighth")} == {("image_chat", "eighth")}


def test_a_prompted_system_is_at_zero_data_everywhere_and_tunes_nothing(answer):
    rows = answer(tuned=[], system="llm_zero_shot", entry=PROMPTED)
    assert {row["data"] for row in rows} == {"zero"} and {row["tuned_params"] for row in rows} == {0}


def test_every_row_holds_answer_nll_tokens_and_the_tuned_parameters(answer):
    rows = answer()
    assert len(rows) == 21 and len({row["id"] for row in rows}) == 21
    assert all(row["nll"] > 0 and row["tokens"] > 1 and row["tuned_params"] == 7 for row in rows)
    assert {row["images"] for row in rows} == {"none"}


def test_a_probe_row_has_the_nll_of_each_choice_put_into_the_answer(answer):
    rows = answer()
    assert all(len(row["cloze"]) == (3 if row["task"] == "probe" else 0) for row in rows)
    for row in (row for row in rows if row["task"] == "probe"):
        choice = ["it is red", "it is blue", "it is green"].index(row["reference"])
        assert row["cloze"][choice] == pytest.approx(row["nll"], abs=1e-4)


def test_the_batch_size_changes_no_answer(answer):
    one, many = answer("one.parquet", "a", batch=1), answer("many.parquet", "b", batch=64)
    assert [row["hypothesis"] for row in one] == [row["hypothesis"] for row in many]
    assert [row["nll"] for row in one] == pytest.approx([row["nll"] for row in many], abs=1e-4)


def test_bfloat16_answers_with_nearly_the_same_nll(answer):
    plain, lower = answer("plain.parquet", "a"), answer("lower.parquet", "b", precision="bfloat16")
    assert [row["nll"] for row in lower] == pytest.approx([row["nll"] for row in plain], rel=0.02)
    assert [row["nll"] for row in lower] != [row["nll"] for row in plain]


def test_the_same_system_gives_the_same_bytes(answer, tmp_path):
    answer("a.parquet", "a")
    answer("b.parquet", "b")
    assert files.sha256(tmp_path / "a.parquet") == files.sha256(tmp_path / "b.parquet")


def test_a_stopped_run_goes_on_with_the_next_chunk(answer, tmp_path, monkeypatch):
    monkeypatch.setattr(generate, "CHUNK", 8)
    answer("whole.parquet", "whole")
    asked, plain = [], Responder.generate

    def stop(self, contexts, **settings):
        if len(contexts) > 1:  # one is answered again beside each chunk, to count its FLOPs
            asked.append(len(contexts))
            if len(asked) == 2:
                os.kill(os.getpid(), signal.SIGTERM)
        return plain(self, contexts, **settings)

    monkeypatch.setattr(Responder, "generate", stop)
    with pytest.raises(InterruptedError, match="SIGTERM after chunk 2 of 3; nothing is lost"):
        answer("stopped.parquet", "stopped")
    answer("stopped.parquet", "stopped")
    assert asked == [8, 8, 5]
    assert files.sha256(tmp_path / "stopped.parquet") == files.sha256(tmp_path / "whole.parquet")
    [journal] = [tracking.read(path.parent) for path in (tmp_path / "stopped").rglob(tracking.JOURNAL)]
    assert [line["values"]["answered"] for line in journal if "answered" in line.get("values", {})] == [8, 16, 21]
    assert sum("again" in line for line in journal) == 1 and journal[-1]["end"] == "FINISHED"


@pytest.mark.parametrize("harm", ["a digit", "cut", "another list"])
def test_a_damaged_chunk_is_named_and_alone_made_again(answer, tmp_path, monkeypatch, capfd, harm):
    monkeypatch.setattr(generate, "CHUNK", 8)
    answer("whole.parquet", "whole")
    with monkeypatch.context() as patch, pytest.raises(TypeError):
        patch.setattr("vikdf.state.Work.finish", None)  # all chunks are there, the product is not
        answer("hit.parquet", "hit")
    (part,) = (tmp_path / "hit/generate").glob("*/checkpoints/000001.json")
    text = part.read_text()
    digit = text.index('"nll": ') + 7
    harmed = {"a digit": text[:digit] + str((int(text[digit]) + 1) % 10) + text[digit + 1 :], "cut": text[:-9]}
    part.write_text(harmed.get(harm, "[]"))
    asked, plain = [], Responder.generate
    monkeypatch.setattr(
        Responder, "generate", lambda self, rows, **how: asked.append(len(rows)) or plain(self, rows, **how)
    )
    answer("hit.parquet", "hit")
    assert asked == [8] and f"{part} is damaged: it is made again" in capfd.readouterr().err
    assert files.sha256(tmp_path / "hit.parquet") == files.sha256(tmp_path / "whole.parquet")
    [journal] = [tracking.read(path.parent) for path in (tmp_path / "hit").rglob(tracking.JOURNAL)]
    assert [line["values"]["answered"] for line in journal if "answered" in line.get("values", {})] == [8, 16, 21]
