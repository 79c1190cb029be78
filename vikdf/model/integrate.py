"""Knowledge integration (section 3.3, Figure 4): BVIF = IACI + IAKR, both through the frozen LLM.

Each takes K, K in the LLM's width, and texts as token ids; each gives (sum, count): the loss is their quotient, so that
a caller can weigh micro-batches by their targets. The LLM's head runs where there is a target, and no graph is kept where nothing
that is trained goes in. That is why the paths are two calls of the LLM: in one, IAKR's prompt and text would stand in IACI's graph,
which costs 1.2 to 1.3 times the whole step's FLOPs (benchmarks/step.py), more than a fuller batch gives back.

Shapes: B batch, L positions, n queries, D IQ-Former width, H LLM width.
"""

import torch
from torch import Tensor, nn

from vikdf.model.backbone import LLM
from vikdf.model.distill import uniform

SPREAD = 0.02  # of new vectors, as of the IQ-Former's queries


def draw(llm: LLM, prompts: list[str], lots: list[int], salt: int) -> list[list[int]]:
    """One of the prompts for each row, as token ids."""
    coded = llm.tokenize(prompts)
    return [coded[int(number * len(prompts))] for number in uniform(lots, salt)]


class IACI(nn.Module):
    """Instruction-aware contextual inference, Equation 6: the LLM says the text T from K and a prompt.

    K comes from T's own text tokens (the paper attaches the text encoder). N_t counts T's tokens and its end token.
    source = "text" (default): so; "other_caption": the LLM says another caption of the same picture than the one that K comes from;
    "image": K comes from the picture, which without IAKR and without prompt is BLIP-2's vision-to-language generation.
    """

    def __init__(self, *, prompts: list[str], source: str):
        super().__init__()
        if source not in ("text", "other_caption", "image"):
            raise ValueError(f"iaci_from is {source!r}: expected 'text', 'other_caption' or 'image'")
        self.prompts, self.source = prompts, source

    def forward(self, llm: LLM, given: Tensor, texts: list[list[int]], lots: list[int]) -> tuple[Tensor, int]:
        """given [B, n, H]: K in the LLM's width."""
        asked = draw(llm, self.prompts, lots, 3)
        starts = llm.rows([[prompt] for prompt in asked], given.shape[1])
        rows = [[*start, *text, llm.end] for start, text in zip(starts, texts, strict=True)]
        ids, _ = llm.pad(rows)  # [B, L]
        nll = llm.nll(
            llm.states(llm.embed(ids[:, :-1], given)), ids, llm.pad_tail(rows, [len(text) + 1 for text in texts])
        )
        return nll.sum(), len(nll)


class IAKR(nn.Module):
    """Instruction-aware knowledge reconstruction, Equation 8: the LLM gives K back from a prompt and T.

    Prompt and T come first, then K, teacher-forced; the state before each K_i, through a linear layer, is its
    reconstruction; mean squared error over vectors and components.
    target = "attached" (default): the gradient also flows into the K that is to be reconstructed, since 3.3 optimises
    "the learnable knowledge vectors" by this loss, as the original code does; "detached" leaves K out, so that K is
    not drawn towards what is easy to predict.
    """

    def __init__(self, *, prompts: list[str], llm_width: int, width: int, queries: int, target: str, reads: str):
        super().__init__()
        if target not in ("attached", "detached"):
            raise ValueError(f"iakr_target is {target!r}: expected 'attached' or 'detached'")
        if reads not in ("teacher", "slots"):
            raise ValueError(f"iakr_input is {reads!r}: expected 'teacher' or 'slots'")
        self.prompts, self.target = prompts, target
        self.back = nn.Linear(llm_width, width)
        self.slots = nn.Parameter(torch.randn(queries, llm_width) * SPREAD) if reads == "slots" else None

    def forward(
        self, llm: LLM, given: Tensor, texts: list[list[int]], lots: list[int], K: Tensor
    ) -> tuple[Tensor, int]:
        """given [B, n, H]: K in the LLM's width; K [B, n, D]."""
        asked = draw(llm, self.prompts, lots, 4)
        rows = llm.rows([[prompt + text] for prompt, text in zip(asked, texts, strict=True)], 0)
        if self.slots is None:
            before = llm.states_behind(rows, given[:, :-1])  # [B, n, H]: nothing is read behind the last K
        else:
            before = llm.states_behind(rows, self.slots.expand(len(rows), -1, -1))[:, 1:]  # [B, n, H]
        truth = (K.detach() if self.target == "detached" else K).float()
        error = (self.back(before.to(self.back.weight.dtype)).float() - truth) ** 2  # [B, n, D]
        return error.sum(), error.numel()
