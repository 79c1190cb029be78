"""Beam search over any model that tells the next token: transformers' own search, so that all systems are decoded alike.

    rows = search(step, {"states": H}, rows=2, start=0, end=2, beams=3, no_repeat_ngram=3, max_new_tokens=32)

In: `step(prefix, **memory)` -> logits of the next token [R, V], where prefix [R, t] holds ids from `start` on, and memory what
the model knows of each row: tensors [rows, ...], which are repeated a beam. Out: the ids of each answer, without start and end.
The whole prefix is given at each step: answers are short, and a cache would have to be written for each model.
"""

from collections.abc import Callable

import torch
from torch import Tensor
from transformers import GenerationConfig, GenerationMixin, PretrainedConfig, PreTrainedModel
from transformers.modeling_outputs import CausalLMOutput

NAMES = {"beams": "num_beams", "no_repeat_ngram": "no_repeat_ngram_size", "max_new_tokens": "max_new_tokens"}


class _Asked(PreTrainedModel, GenerationMixin):
    """What transformers needs to see of a model before it searches: `step` in the place of its forward."""

    config_class = PretrainedConfig
    main_input_name = "input_ids"

    def __init__(self, step: Callable, device: torch.device):
        super().__init__(PretrainedConfig())
        self.step, self.place = step, torch.nn.Parameter(torch.empty(0, device=device), requires_grad=False)

    def forward(self, input_ids: Tensor, memory: dict[str, Tensor] | None = None, **_) -> CausalLMOutput:
        return CausalLMOutput(logits=self.step(input_ids, **(memory or {}))[:, None])  # [R, 1, V]

    def prepare_inputs_for_generation(self, input_ids: Tensor, memory: dict | None = None, **_) -> dict:
        return {"input_ids": input_ids, "memory": memory}

    def _validate_model_kwargs(self, model_kwargs: dict) -> None:
        """Nothing is passed on that a person wrote."""


@torch.no_grad()
def search(
    step: Callable[..., Tensor],
    memory: dict[str, Tensor],
    rows: int,
    *,
    start: int,
    end: int,
    beams: int,
    no_repeat_ngram: int,
    max_new_tokens: int,
) -> list[list[int]]:
    device = next(iter(memory.values())).device
    repeated = {name: value.repeat_interleave(beams, dim=0) for name, value in memory.items()}
    decoding = {"beams": beams, "no_repeat_ngram": no_repeat_ngram, "max_new_tokens": max_new_tokens}
    config = GenerationConfig(
        do_sample=False,
        use_cache=False,
        pad_token_id=end,
        eos_token_id=end,
        bos_token_id=start,
        **{NAMES[name]: value for name, value in decoding.items()},
    )
    begun = torch.full((rows, 1), start, device=device)
    asked = {"generation_config": config, "memory": repeated, "attention_mask": torch.ones_like(begun)}
    made = _Asked(step, device).generate(begun, **asked)[:, 1:].tolist()
    return [row[: row.index(end)] if end in row else row for row in made]
