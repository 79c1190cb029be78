"""A captioner (BLIP-2's recipe, named in section 3.4.1): pictures in, sampled captions out.

In: an image-to-text folder of transformers whose kind is in PROMPTS: model as safetensors, tokenizer, image processor.
    captioner = Captioner(Path("data/backbones/captioner"))
    captions = captioner.sample(captioner.look([picture]), numbers, top_p=0.9)  # a list of texts for each picture

A caption is sampled with random numbers that the caller gives, put into generate() through a logits processor: what a
picture gets does not depend on which pictures share its batch.
"""

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from vikdf.model import pretrained

UNREAD = ".pooler."  # weights that no caption needs; several published ViT decoders lack them


class Nucleus:
    """Nucleus sampling with given random numbers [rows, tokens]: leaves one token a row for generate() to pick.

    The likeliest tokens that together reach `top_p` share the interval from 0 to 1; the row's number falls on one.
    """

    def __init__(self, numbers: Tensor, top_p: float):
        self.numbers, self.top_p, self.step = numbers, top_p, 0

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        likely, tokens = scores.float().softmax(-1).sort(dim=-1, descending=True, stable=True)  # [rows, V]
        reach = likely.cumsum(-1)
        possible = (likely > 0).sum(
            -1, keepdim=True
        ) - 1  # rounding keeps a sum below 1: a forbidden token is no way out
        last = torch.minimum((reach < self.top_p).sum(-1, keepdim=True), possible)
        point = self.numbers[:, self.step, None] * reach.gather(-1, last)
        self.step += 1
        taken = tokens.gather(-1, torch.minimum((reach <= point).sum(-1, keepdim=True), last))
        return torch.full_like(scores, -torch.inf).scatter(-1, taken, 0.0)


def begins_itself(folder: Path, config, tokenizer) -> list[int]:
    """Nothing: the model knows the token that a caption begins with."""
    return []


def picture_places(folder: Path, config, tokenizer) -> list[int]:
    """BLIP-2's LLM reads the picture in the places of its image token, and then the beginning of an empty text."""
    if config.image_token_index is None:
        raise ValueError(
            f"{folder}/config.json names no image_token_index, so that BLIP-2 cannot tell where its LLM reads the picture: "
            "take a newer revision of the checkpoint, whose tokenizer has an image token"
        )
    return [config.image_token_index] * config.num_query_tokens + tokenizer("").input_ids


# Kinds of folders that caption a picture without being asked (model_type in config.json): token ids of what is fed first.
PROMPTS: dict[str, Callable[..., list[int]]] = {
    "blip": begins_itself,
    "blip-2": picture_places,
    "git": begins_itself,
    "vision-encoder-decoder": begins_itself,
}


def place() -> tuple[torch.device, torch.dtype]:
    """Where captions are sampled: in bfloat16 on a GPU, in float32 on a CPU."""
    gpu = torch.cuda.is_available()
    return torch.device("cuda" if gpu else "cpu"), torch.bfloat16 if gpu else torch.float32


class Captioner:
    """An image-to-text folder of transformers, ready to sample from."""

    def __init__(self, folder: Path):
        from transformers import AutoConfig, AutoImageProcessor, AutoModelForImageTextToText, AutoTokenizer

        folder = Path(folder)
        config = pretrained.read(AutoConfig, folder)
        if config.model_type not in PROMPTS:
            raise ValueError(
                f"{folder} holds a model of type {config.model_type!r}, expected one that captions a picture without being "
                f"asked: {', '.join(PROMPTS)}; name another folder as `captioner` under backbones.models in params.yaml"
            )
        _check_files(folder)
        self.device, self.dtype = place()
        # the two by themselves: a folder of the older form has no processor_config.json that would join them
        self.processor = pretrained.read(AutoImageProcessor, folder)
        self.tokenizer = pretrained.read(AutoTokenizer, folder)
        model, lost = pretrained.weights(AutoModelForImageTextToText, folder, self.dtype)
        if lost := [name for name in lost if UNREAD not in name]:
            raise ValueError(
                f"{folder} lacks {len(lost)} weights that its config.json asks for, as {lost[0]}: copy it anew"
            )
        self.model = model.to(self.device).eval()
        self.prompt = PROMPTS[config.model_type](folder, config, self.tokenizer)
        self.folder = folder
        # tokens that fit behind what is fed first, the last of which is never read; T5 counts distances and has no end
        positions = getattr(config.get_text_config(decoder=True), "max_position_embeddings", None)
        self.most = positions + 1 - max(len(self.prompt), 1) if positions else None

    def look(self, pictures: list) -> Tensor:
        """Pictures as the model sees them: [B, 3, S, S]."""
        return self.processor(images=pictures, return_tensors="pt")["pixel_values"]

    @torch.no_grad()
    def sample(self, pixels: Tensor, numbers: Tensor, top_p: float) -> list[list[str]]:
        """For each picture as many captions as it has rows of random numbers [B, candidates, tokens]."""
        from transformers import LogitsProcessorList

        count = numbers.shape[1]
        if self.most is not None and numbers.shape[2] > self.most:
            raise ValueError(
                f"max_new_tokens is {numbers.shape[2]}, but {self.folder} has places for {self.most}: set "
                f"`caption.max_new_tokens` in params.yaml to {self.most} or less"
            )
        nucleus = Nucleus(numbers.flatten(0, 1).to(self.device), top_p)  # [B * candidates, tokens]
        first = torch.tensor([self.prompt], device=self.device).expand(len(pixels), -1)
        said = self.model.generate(
            pixel_values=pixels.to(self.device, self.dtype),
            **({"input_ids": first} if self.prompt else {}),
            do_sample=True,
            num_beams=1,
            top_k=0,
            top_p=1.0,
            temperature=1.0,
            num_return_sequences=count,
            max_new_tokens=numbers.shape[2],
            logits_processor=LogitsProcessorList([nucleus]),
        )
        said = said[:, said.shape[1] - nucleus.step :]  # without what was fed first
        texts = [" ".join(text.split()) for text in self.tokenizer.batch_decode(said, skip_special_tokens=True)]
        return [texts[i : i + count] for i in range(0, len(texts), count)]


def _check_files(folder: Path) -> None:
    """What transformers would make up, or tell in a page of advice."""
    needed = {
        "an image processor": ("preprocessor_config.json", "processor_config.json"),
        "a tokenizer": ("tokenizer.json", "vocab.json", "vocab.txt", "*.model"),
    }
    for what, names in needed.items():
        if not any(next(folder.glob(name), None) for name in names):
            raise ValueError(
                f"{folder} holds no file of {what} (expected one of {', '.join(names)}): copy it from where the checkpoint "
                "comes from"
            )
