"""A tuned baseline out of its folder: `vikdf reply` answers with it, and says in a sentence what it cannot do."""

import json

import pytest
import torch

from vikdf import baseline, use
from vikdf.baselines import seq2seq
from vikdf.model.backbone import LLM
from vikdf.model.respond import Responder
from vikdf.systems import Places

ENTRY = {"kind": "seq2seq", "tokenizer": "llm", "width": 16, "layers": 2, "dropout": 0.0, "context_tokens": 32}
TURNS = ["hello", "what colour is the kettle ?"]


@pytest.fixture(scope="module")
def saved(backbones, tmp_path_factory):
    """The folder as finetune leaves it, and the system that was saved."""
    torch.manual_seed(1)
    system = seq2seq.learner(ENTRY, None, Places(backbones["llm"].parent), {}, 1).eval()
    folder = tmp_path_factory.mktemp("run") / "results/finetune/seq2seq-zero-s1"
    folder.mkdir(parents=True)
    system.save(folder, run={"settings": {"entry": ENTRY, "system": "seq2seq", "seed": 1}})
    return folder, system


def test_reply_gives_what_the_system_itself_answers(saved, backbones, capsys):
    folder, system = saved
    use.reply(folder, TURNS, backbones["llm"].parent)
    assert capsys.readouterr().out.strip() == system.generate([TURNS])[0].strip()


def test_only_a_language_model_reads_no_more_than_its_positions(saved, backbones):
    made = baseline.Baseline(saved[0], baseline.found(saved[0]), backbones["llm"].parent)
    assert made.fits(["hello " * 10_000], 8)  # it reads the end
    made.system = Responder(LLM.load(backbones["llm"]))
    assert made.fits(TURNS, 8) and not made.fits(["hello " * 10_000], 8)


def test_what_only_vikdf_can_is_refused_in_a_sentence(saved, backbones, tmp_path):
    for ask in (
        lambda: use.textualize(saved[0], TURNS, None),
        lambda: use.draw(saved[0], TURNS, None, tmp_path / "a.png"),
    ):
        with pytest.raises(ValueError, match="it is a baseline, ask a VIKDF system"):
            ask()


def test_what_it_learned_from_pictures_is_found_beside_it(tmp_path):
    folder, learned = tmp_path / "results/finetune/maria-zero-s1", tmp_path / "results/pretrain/maria-s1"
    for path in (folder, learned, tmp_path / "data/backbones", tmp_path / "data/shards"):
        path.mkdir(parents=True)
    found = baseline._seen(folder, {"system": "maria", "seed": 1}, None)
    assert found == (learned, tmp_path / "data/shards")


@pytest.mark.parametrize("kind", ["../../evil", "nothing", None, "os"])
def test_a_kind_that_is_no_file_of_ours_is_refused(saved, tmp_path, kind):
    config = json.loads((saved[0] / "config.json").read_text())
    config["run"]["settings"]["entry"]["kind"] = kind
    with pytest.raises(ValueError, match="does not say with which entry"):
        baseline.Baseline(saved[0], config, None)


def test_other_folders_are_left_to_vikdf(tmp_path):
    assert baseline.found(tmp_path) is None
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    assert baseline.found(tmp_path) is None
