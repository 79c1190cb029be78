"""Text and image encoder (section 3.1.1): one frozen CLIP. Texts and pictures in, H_T and H_I in the joint space out.

    clip = CLIP.load("data/backbones/clip")          # an open_clip folder (local-dir) or a transformers CLIP folder
    H, mask = clip.text(clip.tokenize(["a red kettle"]))
    H = clip.image(clip.preprocess(picture)[None])

Every position is projected into the joint space, not only the pooled one. Shapes: B batch, L text tokens,
P image patches + 1, E joint width, S side of the picture.
"""

from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class OpenClip:
    """The towers of an open_clip folder: open_clip_config.json + open_clip_model.safetensors."""

    def __init__(self, folder: Path):
        import open_clip

        self.model, _, self.preprocess = open_clip.create_model_and_transforms(f"local-dir:{folder}")
        self.tower = getattr(self.model, "text", self.model)  # CustomTextCLIP keeps its text tower apart
        if not hasattr(self.tower, "token_embedding") or self.tower.attn_mask is None:
            raise ValueError(f"the CLIP in {folder} has no causal text tower of CLIP's own kind; choose one that has")
        self.model.visual.output_tokens = True
        self.tokenizer = open_clip.get_tokenizer(f"local-dir:{folder}")
        self.context = self.tower.context_length
        self.vocabulary = self.tower.vocab_size
        self.patch = self.model.visual.patch_size[0]
        self.pixels = self.model.visual.image_size[0]
        self.width = self.model.visual.output_dim

    def tokenize(self, texts: list[str], length: int) -> Tensor:
        return self.tokenizer(texts, context_length=length)  # [B, length]

    def text(self, tokens: Tensor) -> Tensor:
        tower, length = self.tower, tokens.shape[1]
        x = tower.token_embedding(tokens)
        x = x + tower.positional_embedding[:length]
        x = tower.ln_final(tower.transformer(x, attn_mask=tower.attn_mask[:length, :length]))
        projection = tower.text_projection
        if projection is None:
            return x
        return projection(x) if isinstance(projection, nn.Linear) else x @ projection  # [B, L, E]

    def image(self, pixels: Tensor) -> Tensor:
        pooled, patches = self.model.visual(pixels)  # [B, E], [B, P - 1, width]: patches are not projected yet
        return torch.cat([pooled[:, None], patches @ self.model.visual.proj], dim=1)  # [B, P, E]


class TransformersClip:
    """The towers of a transformers CLIP folder: config.json, model.safetensors, tokenizer, preprocessor."""

    def __init__(self, folder: Path):
        from transformers import AutoImageProcessor, AutoTokenizer, CLIPModel

        self.model = CLIPModel.from_pretrained(folder)
        self.tokenizer = AutoTokenizer.from_pretrained(folder)
        self.processor = AutoImageProcessor.from_pretrained(folder)
        self.context = self.model.config.text_config.max_position_embeddings
        self.vocabulary = self.model.config.text_config.vocab_size
        self.patch = self.model.config.vision_config.patch_size
        self.pixels = self.model.config.vision_config.image_size
        self.width = self.model.config.projection_dim

    def preprocess(self, picture) -> Tensor:
        return self.processor(images=picture, return_tensors="pt").pixel_values[0]  # [3, S, S]

    def tokenize(self, texts: list[str], length: int) -> Tensor:
        coded = self.tokenizer(texts, padding="max_length", truncation=True, max_length=length, return_tensors="pt")
        return coded.input_ids  # [B, length]

    def text(self, tokens: Tensor) -> Tensor:
        return self.model.text_projection(self.model.text_model(tokens).last_hidden_state)  # [B, L, E]

    def image(self, pixels: Tensor) -> Tensor:
        tower = self.model.vision_model
        states = tower(pixels).last_hidden_state  # [B, P, width]: before the last norm
        return self.model.visual_projection(tower.post_layernorm(states))  # [B, P, E]


class CLIP(nn.Module):
    """Both towers, frozen: no gradient reaches them, and they stay in eval mode."""

    def __init__(self, towers, folder: Path | None = None):
        super().__init__()
        self.towers, self.folder = towers, folder
        self.model = towers.model.eval().requires_grad_(False)
        self.width, self.pixels, self.patch = towers.width, towers.pixels, towers.patch
        self.context, self.vocabulary = towers.context, towers.vocabulary
        self.start_of_text, self.end_of_text = towers.tokenize([""], self.context)[0, :2].tolist()

    @classmethod
    def load(cls, folder) -> "CLIP":
        folder = Path(folder)
        if (folder / "open_clip_config.json").exists():
            return cls(OpenClip(folder), folder)
        if (folder / "config.json").exists():
            return cls(TransformersClip(folder), folder)
        raise ValueError(f"{folder} holds no CLIP: expected open_clip_config.json or transformers' config.json")

    def train(self, mode: bool = True) -> "CLIP":
        return super().train(False)

    def preprocess(self, picture) -> Tensor:
        return self.towers.preprocess(picture.convert("RGB"))  # [3, S, S]

    def tokenize(self, texts: list[str], keep: str = "start") -> Tensor:
        """Token ids [B, context]; of a text that is too long the start (a caption) or the end (a dialogue) is kept."""
        room = self.context - 2
        whole = self.towers.tokenize(texts, max(self.context, 2 + max(len(text.encode()) + 1 for text in texts)))
        rows = torch.zeros(len(texts), self.context, dtype=torch.long)
        for row, length, coded in zip(rows, self._length(whole), whole, strict=True):
            words = coded[1 : length - 1]
            words = words[:room] if keep == "start" else words[-room:]
            row[0], row[1 : len(words) + 1], row[len(words) + 1 :] = self.start_of_text, words, 0
            row[len(words) + 1] = self.end_of_text
        return rows

    def _length(self, tokens: Tensor) -> Tensor:
        """Tokens of each text, with the one that ends it: [B]."""
        return (tokens == self.end_of_text).int().argmax(dim=1) + 1

    def text_mask(self, tokens: Tensor) -> Tensor:
        """True up to the end of each text, trimmed to the longest: [B, L]."""
        length = self._length(tokens)
        return torch.arange(int(length.max()), device=tokens.device) < length[:, None]

    @torch.no_grad()
    def states(self, tokens: Tensor) -> Tensor:
        return self.towers.text(tokens)  # [B, L, E]

    def text(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """H_T [B, L, E] and its mask; trimmed to the longest text, which a causal tower cannot tell."""
        mask = self.text_mask(tokens)
        return self.states(tokens[:, : mask.shape[1]]), mask

    @torch.no_grad()
    def image(self, pixels: Tensor) -> Tensor:
        return self.towers.image(pixels)  # [B, P, E]

    def embed_text(self, tokens: Tensor) -> Tensor:
        H, mask = self.text(tokens)
        return F.normalize(H[torch.arange(len(H)), mask.sum(1) - 1], dim=-1)  # [B, E]

    def embed_image(self, pixels: Tensor) -> Tensor:
        return F.normalize(self.image(pixels)[:, 0], dim=-1)  # [B, E]
