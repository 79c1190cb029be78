"""Rows of like length are computed together: in fine-tuning, scoring and answering."""

from itertools import islice

import pytest
import torch
from torch import nn

from benchmarks import padding
from vikdf import loop
from vikdf.model.backbone import LLM
from vikdf.model.respond import Responder
from vikdf.model.vikdf import VIKDFForPretraining
from vikdf.order import Batches


@pytest.fixture(scope="module")
def responder(backbones):
    model = VIKDFForPretraining.build(**backbones, queries=3, mask_pixels=12)
    return Responder(model.llm, model.source)


@pytest.fixture(scope="module")
def dialogues():
    return padding.columns(padding.dialogues()["train"][:1000])


def test_a_size_is_what_a_row_takes_in_the_llm_with_its_knowledge(responder, dialogues):
    contexts, responses = (column[:5] for column in dialogues)
    alone = [responder.llm.pad([row])[0].shape[1] for row in responder.rows(contexts, responses)[0]]
    without = Responder(responder.llm).sizes(contexts, responses)
    assert responder.sizes(contexts, responses) == alone == [size + 3 for size in without]


@pytest.mark.parametrize("work", ["fine-tuning", "scoring", "answering"])
@pytest.mark.parametrize("batch", [4, 48])
def test_hardly_more_than_the_real_tokens_is_computed(responder, dialogues, work, batch):
    rows = responder.prompts(dialogues[0]) if work == "answering" else responder.rows(*dialogues)[0]
    ours, plain = padding.count(work, responder.llm, rows, batch)
    assert 1 <= ours <= 1.05 < plain


def test_scoring_makes_its_batches_by_the_tokens_of_whole_rows(responder, dialogues, monkeypatch):
    padded = []
    pad = LLM.pad
    monkeypatch.setattr(LLM, "pad", lambda self, rows, side="right": padded.append(rows) or pad(self, rows, side))
    responder.score(*(column[:40] for column in dialogues), batch=8)
    lengths = [[len(row) for row in rows] for rows in padded[::2]]  # each batch is padded twice: rows, and their tails
    assert sum(lengths, []) == sorted(sum(lengths, []), reverse=True)


class Sum(nn.Module):
    """A single weight, so that what is fed can be watched."""

    def __init__(self):
        super().__init__()
        self.weight, self.seen = nn.Parameter(torch.ones(1)), []

    def counts(self, batch):
        return {"size": len(batch["rows"])}

    def forward(self, batch, whole):
        self.seen.append(batch["rows"])
        share = (self.weight * len(batch["rows"])).sum() / whole["size"]
        return share, {"size": share}


def test_the_loop_feeds_the_batches_of_like_size_and_their_micro_batches_in_order(tmp_path):
    sizes, objective = [(7 * row) % 23 for row in range(24)], Sum()
    numbers = {"seed": 1, "steps": 3, "processes": 1, "micro_batch": 4, "accumulate": 2, "learning_rate": 0.01}
    numbers |= {"weight_decay": 0.0, "schedule": "constant_after_warmup", "warmup": 0.0, "clip_norm": 1.0}
    numbers |= {"precision": "float32", "workers": 0, "checkpoint_every": 10}
    kept = {"folder": tmp_path, "journal": None, "sizes": sizes}
    loop.train(objective, lambda picked: {"rows": [row for _, row in picked]}, 24, loop.Numbers(**numbers), **kept)
    expected = [[row for _, row in batch] for batch in islice(Batches(24, 8, seed=1, sizes=sizes), 3)]
    assert objective.seen == [batch[start : start + 4] for batch in expected for start in (0, 4)]
