"""A small UniLM: it learns to copy, its folder is a BERT with its head, and no word is told from what comes after it."""

import itertools
from pathlib import Path

import numpy as np
import pytest
import torch

from vikdf import files
from vikdf.backbones import unilm
from vikdf.baselines.parts import berts
from vikdf.model import unified

NUMBERS = {"seed": 1, "batch": 16, "learning_rate": 0.003, "width": 64, "layers": 2, "vocabulary": 300}
HELD = 13  # of 100 pairs; no document of theirs is trained on
NOUNS = ["vase", "boat", "lamp", "drum", "ring", "sofa", "kite", "desk", "hat", "cup"]


@pytest.fixture(scope="module")
def texts(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("texts") / "language.txt"
    pairs = list(itertools.product(NOUNS, NOUNS))
    np.random.default_rng(1).shuffle(pairs)
    path.write_text(
        "".join(f"{one}\ta {other}.\tthe {one} and the {other}.\n" for one, other in pairs[:HELD] + pairs[HELD:] * 3)
    )
    return path


@pytest.fixture(scope="module")
def made(texts, tmp_path_factory) -> tuple[Path, dict]:
    folder = tmp_path_factory.mktemp("unilm")
    return folder, unilm.train(texts=texts, output=folder, steps=200, **NUMBERS)


def parts(folder: Path) -> tuple:
    from transformers import AutoTokenizer, BertForMaskedLM

    return BertForMaskedLM.from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(folder)


def test_training_lowers_its_loss_and_teaches_it_to_copy(texts, made, tmp_path):
    before = unilm.train(texts=texts, output=tmp_path, steps=1, **NUMBERS)
    assert made[1]["loss"] < before["loss"] / 3
    assert made[1]["copied_right"] > 0.9 > 0.5 > before["copied_right"]
    assert made[1]["held_back"] == HELD


def test_the_same_seed_gives_the_same_folder(texts, tmp_path):
    for name in ("a", "b"):
        unilm.train(texts=texts, output=tmp_path / name, steps=2, **NUMBERS)
    assert files.sha256(tmp_path / "a") == files.sha256(tmp_path / "b")


def test_its_folder_is_a_whole_bert_with_the_head_that_tells_words(made):
    bert, head = berts.load(made[0])
    whole, tokenizer = parts(made[0])
    assert tokenizer.mask_token == "[MASK]" and bert.config.hidden_dropout_prob == 0
    assert torch.equal(head.transform.dense.weight, whole.cls.predictions.transform.dense.weight)
    assert torch.equal(whole.cls.predictions.decoder.weight, bert.embeddings.word_embeddings.weight)


def test_what_is_told_in_one_pass_is_that_of_appending_masks_one_by_one(made):
    model, tokenizer = parts(made[0])
    ids, first = unilm.encode(tokenizer, ["vase", "a boat.", "the vase and the boat."])
    read, said = ids[:first], ids[first:]
    with torch.no_grad():
        together, targets = unilm.told(model, tokenizer, [read, read], [said, said[:3]])
        alone = [one_by_one(model, tokenizer, read, said[:place]) for place in range(len(said))]
    assert targets.tolist() == said + said[:3]
    torch.testing.assert_close(together[: len(said)], torch.stack(alone), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(together[len(said) :], torch.stack(alone[:3]), rtol=1e-4, atol=1e-4)


def one_by_one(model, tokenizer, read: list[int], before: list[int]) -> torch.Tensor:
    """The naive form: logits of the one [MASK] behind what was said before."""
    start = tokenizer.cls_token_id
    known, told = [start, *read], [start, *before, tokenizer.mask_token_id]
    sees = torch.ones(len(known) + len(told), len(known) + len(told), dtype=torch.bool).tril()
    sees[:, : len(known)] = True
    places = torch.tensor([[*range(len(known)), *range(len(told))]])
    kinds = torch.tensor([[1] * len(known) + [0] * len(told)])
    x = model.bert.embeddings(torch.tensor([known + told]), position_ids=places, token_type_ids=kinds)
    return model.cls(model.bert.encoder(x, attention_mask=sees[None, None]).last_hidden_state[0, -1])


def test_a_mask_sees_what_stands_before_its_place_and_itself():
    assert unified.twice(2).int().tolist() == [[1, 0, 0, 0], [1, 1, 0, 0], [1, 0, 1, 0], [1, 1, 0, 1]]


def test_the_hint_is_read_and_never_told(made):
    tokenizer = parts(made[0])[1]
    row = unilm.encode(tokenizer, ["vase", "a boat."])
    told = [unilm.cut([row], np.random.default_rng(seed))[1][0] for seed in range(20)]
    assert {len(said) for said in told} == set(range(1, len(row[0]) - row[1] + 1))


def test_a_document_of_any_length_leaves_something_to_read_and_to_tell(made):
    tokenizer = parts(made[0])[1]
    for document in (["vase"], ["vase " * 300, "a boat."], ["vase", "a boat. " * 300]):
        ids, first = unilm.encode(tokenizer, document)
        assert 0 < first < len(ids) <= 126
