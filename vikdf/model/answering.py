"""What every system of table 1 has in common: it answers dialogues, tells how likely a given answer is, and can be tuned.

    answers = system.generate(contexts, beams=3)          # any number of dialogues, in the order given
    nll, tokens = system.score(contexts, responses)       # -log P of each response, and its tokens

A context is a list of turns, the last one is what is answered. A class of a system gives `nll`, `sizes`, `lengths`, `answers`
and `save`; one that learns more than to tell the response overrides `counts` and `shares` too. B batch.
"""

import torch
from torch import Tensor, nn
from tqdm import tqdm


class Answering(nn.Module):
    def nll(self, contexts: list[list[str]], responses: list[str]) -> tuple[Tensor, Tensor]:
        """-log P and token count of each response [B], its end-of-sequence token among them; of the very system that answers."""
        raise NotImplementedError

    def sizes(self, contexts: list[list[str]], responses: list[str]) -> list[int]:
        """Length of each whole row: rows of like size are computed together."""
        raise NotImplementedError

    def lengths(self, contexts: list[list[str]]) -> list[int]:
        """Length of each prompt."""
        raise NotImplementedError

    def answers(self, contexts: list[list[str]], *, beams: int, no_repeat_ngram: int, max_new_tokens: int) -> list[str]:
        """One response a dialogue, all in one batch."""
        raise NotImplementedError

    def save(self, folder, *, trained: dict[str, int] | None = None, run: dict | None = None) -> None:
        """What answering needs beside the backbones. trained: parameters of all stages, by name; run: its facts."""
        raise NotImplementedError

    def frozen(self) -> list[nn.Module]:
        """Parts whose untrained weights may be kept in half precision, see vikdf.place."""
        return []

    def trained_parameters(self) -> list[nn.Parameter]:
        return [parameter for parameter in self.parameters() if parameter.requires_grad]

    def counts(self, batch: dict) -> dict[str, int]:
        """The targets of each loss, known before anything is computed; here the responses' tokens, their ends too."""
        raise NotImplementedError

    def shares(self, batch: dict, whole: dict[str, float]) -> tuple[Tensor, dict[str, Tensor]]:
        """What goes down, and by name each loss: this batch's sum over the targets of the `whole` step."""
        nll, _ = self.nll(batch["contexts"], batch["responses"])  # [B]
        share = nll.sum() / whole["nll"]
        return share, {"nll": share}

    def loss(self, contexts: list[list[str]], responses: list[str]) -> Tensor:
        """Per response token, over the whole batch: exp of it is the paper's PPL."""
        nll, tokens = self.nll(contexts, responses)
        return nll.sum() / tokens.sum()

    @torch.no_grad()
    def score(self, contexts: list[list[str]], responses: list[str], batch: int = 64) -> tuple[list[float], list[int]]:
        """NLL and token count of any number of responses, in batches of like length, in the order given."""
        nll, tokens = [0.0] * len(contexts), [0] * len(contexts)
        for places in in_batches(self.sizes(contexts, responses), batch, "scoring"):
            part = self.nll([contexts[i] for i in places], [responses[i] for i in places])
            for i, value, count in zip(places, *(x.tolist() for x in part), strict=True):
                nll[i], tokens[i] = value, count
        return nll, tokens

    def cloze(self, contexts: list[list[str]], candidates: list[list[str]], batch: int = 64) -> list[list[float]]:
        """NLL of each candidate response of each dialogue."""
        flat = [(turns, answer) for turns, answers in zip(contexts, candidates, strict=True) for answer in answers]
        nll = iter(self.score([turns for turns, _ in flat], [answer for _, answer in flat], batch)[0])
        return [[next(nll) for _ in answers] for answers in candidates]

    @torch.no_grad()
    def generate(
        self,
        contexts: list[list[str]],
        *,
        beams: int = 3,
        no_repeat_ngram: int = 3,
        max_new_tokens: int = 32,
        batch: int = 64,
    ) -> list[str]:
        """One response a dialogue, in batches of like length, in the order given."""
        answers = [""] * len(contexts)
        decoding = {"beams": beams, "no_repeat_ngram": no_repeat_ngram, "max_new_tokens": max_new_tokens}
        for places in in_batches(self.lengths(contexts), batch, "answering"):
            for i, answer in zip(places, self.answers([contexts[i] for i in places], **decoding), strict=True):
                answers[i] = answer
        return answers


def in_batches(sizes: list[int], batch: int, what: str):
    """Batches of places, longest first: like lengths together, and a batch too large for the memory fails at once."""
    order = sorted(range(len(sizes)), key=lambda i: (-sizes[i], i))
    batches = [order[i : i + batch] for i in range(0, len(order), batch)]
    return tqdm(batches, desc=what, unit="batch", disable=len(batches) < 2)


def turns_of(contexts: list[list[str]]) -> list[list[str]]:
    """The contexts, once it is sure that each has a turn to answer."""
    if not all(contexts):
        raise ValueError("a dialogue has no turn to answer: expected at least one")
    return contexts
