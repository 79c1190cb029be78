"""BART: a sequence-to-sequence transformer that was pretrained on text alone, every weight of it tuned on the dialogues.

In: a transformers BART folder (facebook/bart-large: the paper's 406 M; the demo trains a small one); dialogues to tune on.
Out: answers, and how likely a given answer is.
The paper gives a name and a size, no more. Chosen here: the encoder reads `<s> turn </s> turn </s>`, turns joined as ZRIGF
joins them, and of a context longer than BART's positions what was said last; the decoder begins with `</s> <s>`, as in BART's
pretraining, and tells the response and `</s>`. Both count from the first token of the response on. A response longer than
BART's positions is learned and scored up to there, and only those tokens are counted. No label smoothing: every system goes
down in the likelihood by which its state is chosen. Decoded by transformers' own search with a cache.
Shapes: B batch, L tokens read, T tokens said, W width.
"""

from pathlib import Path

import torch
from torch import Tensor

from vikdf.baselines.parts import product
from vikdf.baselines.parts.told import row_sizes, spoken, told
from vikdf.model import checkpoint, pretrained
from vikdf.model.answering import Answering, turns_of
from vikdf.model.search import NAMES
from vikdf.model.words import Words

UNTOLD = ("transformers_version", "architectures", "dtype")  # of the configuration: no matter of the model


class BART(Answering):
    def __init__(self, model, words: Words):
        from transformers import GenerationConfig

        super().__init__()
        self.model, self.words = model.requires_grad_(True), words
        model.generation_config = (
            GenerationConfig()
        )  # what a checkpoint says of decoding is dropped: `generate` decides
        self.begun = [
            model.config.decoder_start_token_id,
            words.start,
        ]  # what every answer begins with, as it was pretrained
        self.positions = model.config.max_position_embeddings

    def prompts(self, contexts: list[list[str]]) -> list[list[int]]:
        joined = self.words.join(turns_of(contexts), self.positions - 2)
        return [[self.words.start, *row, self.words.end] for row in joined]

    def said(self, responses: list[str]) -> list[list[int]]:
        return [row[: self.positions - 1] for row in spoken(self.words, responses)]

    def nll(self, contexts: list[list[str]], responses: list[str]) -> tuple[Tensor, Tensor]:
        rows, device = self.said(responses), self.model.device
        ids, mask = self.words.pad(self.prompts(contexts), device)  # [B, L]
        targets, real = self.words.pad(rows, device)  # [B, T]
        given, _ = self.words.pad([[*self.begun, *row[:-1]] for row in rows], device)  # [B, T + 1]
        features = self.model.model(ids, attention_mask=mask, decoder_input_ids=given, use_cache=False)
        return told(features.last_hidden_state[:, 1:], self.head, targets, real)

    def head(self, features: Tensor) -> Tensor:
        return self.model.lm_head(features) + self.model.final_logits_bias

    def counts(self, batch: dict) -> dict[str, int]:
        return {"nll": sum(map(len, self.said(batch["responses"])))}

    def lengths(self, contexts: list[list[str]]) -> list[int]:
        return [len(row) for row in self.prompts(contexts)]

    def sizes(self, contexts: list[list[str]], responses: list[str]) -> list[int]:
        return row_sizes(self.words, self.lengths, contexts, responses)

    def answers(self, contexts: list[list[str]], **decoding: int) -> list[str]:
        from transformers import GenerationConfig

        ids, mask = self.words.pad(self.prompts(contexts), self.model.device)
        room = self.positions - len(self.begun)
        if decoding["max_new_tokens"] > room:
            raise ValueError(f"max_new_tokens is {decoding['max_new_tokens']}: this BART has room for {room}; lower it")
        ends = {"pad_token_id": self.words.end, "eos_token_id": self.words.end, "decoder_start_token_id": self.begun[0]}
        config = GenerationConfig(do_sample=False, **ends, **{NAMES[name]: value for name, value in decoding.items()})
        begun = torch.tensor([self.begun] * len(ids), device=ids.device)
        given = {"attention_mask": mask, "decoder_input_ids": begun, "generation_config": config}
        return self.words.decode(self.model.generate(ids, **given)[:, len(self.begun) :].tolist())

    def save(self, folder, *, trained: dict[str, int] | None = None, run: dict | None = None) -> None:
        """All of it: no part is left as it was in the folder where it began."""
        told_of = {"trained": checkpoint.trainable(self) if trained is None else trained, "run": run}
        settings = {name: value for name, value in self.model.config.to_diff_dict().items() if name not in UNTOLD}
        product.write(
            folder, "bart", product.own(self), settings=settings, frozen={}, tokenizer=self.words.tokenizer, **told_of
        )


def learner(entry: dict, start: None, places, lora: dict, seed: int) -> BART:
    """Nothing in it is new, so that the seed decides the order of the data and dropout only."""
    from transformers import BartForConditionalGeneration

    folder = places.backbones / entry["bart"]
    return BART(pretrained.load(BartForConditionalGeneration, folder, torch.float32), Words.load(folder))


def configuration(settings: dict):
    from huggingface_hub.errors import StrictDataclassError
    from transformers import BartConfig

    if wrong := sorted(name for name in settings if name.startswith("_")):  # such as an attention kernel to be fetched
        raise ValueError(f"it has the key {wrong[0]!r}, which is no setting of a BART")
    try:
        return BartConfig(**settings)
    except StrictDataclassError as error:  # no ValueError
        raise ValueError(str(error)) from None


def answerer(entry: dict, tuned: Path, places) -> BART:
    """From its folder alone."""
    from transformers import BartForConditionalGeneration

    settings, tensors = product.read(tuned, "bart", {})
    with product.outlined(tuned, settings, tensors):
        made = BART(BartForConditionalGeneration(configuration(settings)), Words.load(tuned))
    product.load(made, tensors, (), tuned, assign=True)
    made.model.tie_weights()
    return made
