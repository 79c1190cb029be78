"""A tokenizer for systems without a chat template: people's texts in, token ids out, and back.

    words = Words.load("data/backbones/bart")
    ids, mask = words.pad([[words.start, *row, words.end] for row in words.encode(["hello there"])])
    words.decode(ids.tolist())  # ["hello there"]

A control token inside a text is read as the characters that it is written with: nobody's text can end a turn. Ids that a
tokenizer lacks are those nearest to them: a start for BERT is [CLS], an end [SEP], a separator without its own the end.
"""

from pathlib import Path

import torch
from torch import Tensor

from vikdf.model import pretrained


class Words:
    def __init__(self, tokenizer, folder: Path | None = None):
        self.tokenizer, self.folder = tokenizer, folder
        self.start = _first(tokenizer.bos_token_id, tokenizer.cls_token_id)
        self.end = _first(tokenizer.eos_token_id, tokenizer.sep_token_id)
        self.separator, self.mask = _first(tokenizer.sep_token_id, self.end), tokenizer.mask_token_id
        if self.start is None or self.end is None:
            raise ValueError(
                f"the tokenizer in {folder} names no token that starts or ends a text: expected bos_token or cls_token, and "
                "eos_token or sep_token"
            )
        self.fill = _first(tokenizer.pad_token_id, self.end)  # stands in places that nothing reads
        special = {i for i, token in tokenizer.added_tokens_decoder.items() if token.special}
        named = {self.start, self.end, self.separator, self.mask, tokenizer.pad_token_id}
        self.control = (special | set(tokenizer.all_special_ids)) - ({tokenizer.unk_token_id} - named)
        self.size = len(tokenizer)

    @classmethod
    def load(cls, folder) -> "Words":
        from transformers import AutoTokenizer

        return cls(pretrained.read(AutoTokenizer, Path(folder)), Path(folder))

    def encode(self, texts: list[str]) -> list[list[int]]:
        if not texts:
            return []
        coded = self.tokenizer(texts, add_special_tokens=False, split_special_tokens=True).input_ids
        return [[i for i in row if i not in self.control] for row in coded]

    def decode(self, rows: list[list[int]]) -> list[str]:
        return [text.strip() for text in self.tokenizer.batch_decode(rows, skip_special_tokens=True)]

    def join(self, contexts: list[list[str]], longest: int) -> list[list[int]]:
        """The turns of each dialogue with the separator between them; of one too long what was said last is kept."""
        coded = iter(self.encode([turn for turns in contexts for turn in turns]))
        rows = [[token for _ in turns for token in (*next(coded), self.separator)][:-1] for turns in contexts]
        return [row[-longest:] for row in rows]

    def pad(self, rows: list[list[int]], device=None) -> tuple[Tensor, Tensor]:
        """ids [B, L] filled up on the right, and mask [B, L] (1 = real)."""
        longest = max(map(len, rows))
        ids = [row + [self.fill] * (longest - len(row)) for row in rows]
        mask = [[1] * len(row) + [0] * (longest - len(row)) for row in rows]
        return torch.tensor(ids, device=device), torch.tensor(mask, device=device)


def _first(*ids: int | None) -> int | None:
    return next((i for i in ids if i is not None), None)
