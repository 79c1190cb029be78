"""Knowledge integration (section 3.3, Figure 4): BVIF = IACI + IAKR, both through the frozen LLM.

Each takes K, K in the LLM's width, and texts as token ids; each gives (sum, count): the loss is their quotient, so that
a caller can weigh micro-batches by their targets. The LLM's head runs where there is a target, and no graph is kept where nothing
that is trained goes in.

Shapes: B batch, L positions, n queries, D IQ-Former width, H LLM width.
"""

import torch
from torch import Tensor, nn

from vikdf.model.backbone import LLM


def draw(llm: LLM, prompts: list[str], rows: int, generator: torch.Generator) -> list[list[int]]:
    """One of the prompts for each row, as token ids."""
    coded = llm.tokenize(prompts)
    return [coded[i] for i in torch.randint(len(prompts), (rows,), generator=generator)]


class IACI(nn.Module):
    """Instruction-aware contextual inference, Equation 6: the LLM says the text T from K and a prompt.

    K comes from T's own text tokens (the paper attaches the text encoder). N_t counts T's tokens and its end token.
    """

    def __init__(self, prompts: list[str]):
        super().__init__()
        self.prompts = prompts

    def forward(
        self, llm: LLM, given: Tensor, texts: list[list[int]], generator: torch.Generator
    ) -> tuple[Tensor, int]:
        """given [B, n, H]: K in the LLM's width."""
        asked = draw(llm, self.prompts, len(texts), generator)
        starts = llm.rows([[prompt] for prompt in asked], given.shape[1])
        rows = [[*start, *text, llm.end] for start, text in zip(starts, texts, strict=True)]
        ids, _ = llm.pad(rows)  # [B, L]
        nll = llm.nll(llm.states(llm.embed(ids, given)), ids, llm.pad_tail(rows, [len(text) + 1 for text in texts]))
        return nll.sum(), len(nll)


class IAKR(nn.Module):
    """Instruction-aware knowledge reconstruction, Equation 8: the LLM gives K back from a prompt and T.

    Prompt and T come first, then K, teacher-forced; the state before each K_i, through a linear layer, is its
    reconstruction; mean squared error over vectors and components.
    target = "attached" (default): the gradient also flows into the K that is to be reconstructed, since 3.3 optimises
    "the learnable knowledge vectors" by this loss, as the original code does; "detached" leaves K out, so that K is
    not drawn towards what is easy to predict.
    """

    def __init__(self, *, prompts: list[str], llm_width: int, width: int, target: str):
        super().__init__()
        if target not in ("attached", "detached"):
            raise ValueError(f"iakr_target is {target!r}: expected 'attached' or 'detached'")
        self.prompts, self.target = prompts, target
        self.back = nn.Linear(llm_width, width)

    def forward(
        self, llm: LLM, given: Tensor, texts: list[list[int]], generator: torch.Generator, K: Tensor
    ) -> tuple[Tensor, int]:
        """given [B, n, H]: K in the LLM's width; K [B, n, D]."""
        asked = draw(llm, self.prompts, len(texts), generator)
        rows = llm.rows([[prompt + text] for prompt, text in zip(asked, texts, strict=True)], 0)
        before = llm.states_behind(rows, given[:, :-1])  # [B, n, H]: nothing is read behind the last K
        truth = (K.detach() if self.target == "detached" else K).float()
        error = (self.back(before.to(self.back.weight.dtype)).float() - truth) ** 2  # [B, n, D]
        return error.sum(), error.numel()
