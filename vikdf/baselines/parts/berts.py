"""A BERT from its folder, whole but for the pooler, which nothing here reads and which not every folder has.

bert = berts.load(Path("data/backbones/bert"))
"""

from pathlib import Path

import torch

from vikdf.model import pretrained

UNREAD = "pooler."


def load(folder: Path, dtype: torch.dtype | None = None):
    from transformers import BertModel

    bert, lost = pretrained.weights(BertModel, folder, dtype)
    if lost := [name for name in lost if not name.startswith(UNREAD)]:
        raise ValueError(
            f"{folder} lacks {len(lost)} weights that its config.json asks for, as {lost[0]}: copy it anew"
        )
    bert.pooler = None
    return bert
