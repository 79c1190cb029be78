"""A BERT from its folder: its body, without the pooler, which nothing here reads, and the head that tells words, if it has one.

bert, head = berts.load(Path("data/backbones/bert"))       # BertModel; transform and bias of the word-telling head, or None
"""

from pathlib import Path

import torch

from vikdf.model import pretrained

HEAD = "cls.predictions."


def load(folder: Path, dtype: torch.dtype | None = None) -> tuple:
    """The head of a folder that holds nothing of one is None: its weights would be random."""
    from transformers import BertForMaskedLM

    whole, lost = pretrained.weights(BertForMaskedLM, folder, dtype)
    bare = not any(name.startswith(HEAD) for name in pretrained.held(Path(folder).glob("*.safetensors")))
    if lost := [name for name in lost if not (bare and name.startswith(HEAD))]:
        raise ValueError(
            f"{folder} lacks {len(lost)} weights that its config.json asks for, as {lost[0]}: copy it anew"
        )
    return whole.bert, None if bare else whole.cls.predictions
