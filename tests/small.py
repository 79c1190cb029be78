"""Small parts, texts and naive forms that the tests of losses and of masks share: everything fits on a page."""

import torch

from vikdf.model.distill import IAMTM, TAMIM

CAPTIONS = ["a red kettle", "the blue vase on the beach and a tree", "hello"]
TOKENS = torch.tensor([[9, 1, 2, 3, 4, 10], [9, 5, 6, 10, 0, 0], [9, 7, 10, 0, 0, 0]])
REAL = torch.tensor([[1, 1, 1, 1, 1, 1], [1, 1, 1, 1, 0, 0], [1, 1, 1, 0, 0, 0]]).bool()


def lots(seed: int) -> dict[str, list[int]]:
    return {"lots": [seed + 1000 * row for row in range(3)]}


def batch_of(model) -> dict:
    pixels = torch.randn(3, 3, 48, 48, generator=torch.Generator().manual_seed(1))
    return {"pixels": pixels, "clip_tokens": model.source.clip.tokenize(CAPTIONS), "captions": CAPTIONS} | lots(0)


def random(*shape, seed: int = 0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float32).requires_grad_()


def assert_same(ours, naive, inputs):
    """Equal losses, equal gradients of every input."""
    torch.testing.assert_close(ours, naive, atol=2e-5, rtol=2e-5)
    for a, b in zip(torch.autograd.grad(ours, inputs), torch.autograd.grad(naive, inputs), strict=True):
        torch.testing.assert_close(a, b, atol=2e-5, rtol=2e-4)


def tamim(**changes):
    settings = {"pixels": 16, "patch": 4, "mask_pixels": 8, "ratio": 0.5, "leave_unchanged": 0.0}
    return TAMIM(width=8, knowledge_width=6, heads=2, **settings | changes)


def iamtm(**changes):
    settings = {"vocabulary": 11, "context": 6, "end_of_text": 10, "ratio": 0.4, "leave_unchanged": 0.0}
    return IAMTM(width=8, knowledge_width=6, heads=2, **settings | changes)


def naive_states(llm, row, K):
    """One unpadded row, vector by vector: last hidden states [1, L, H] and logits [1, L, V]."""
    table, vectors, given = llm.model.get_input_embeddings(), [], iter(K)
    for token in row:
        vectors.append(next(given) if token < 0 else table(torch.tensor(token)))
    made = llm.model(inputs_embeds=torch.stack(vectors)[None], output_hidden_states=True)
    return made.hidden_states[-1], made.logits
