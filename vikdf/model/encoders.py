"""Text and image encoder (section 3.1.1): one frozen CLIP. Texts and pictures in, H_T and H_I in the joint space out.

    clip = CLIP.load("data/backbones/clip")          # an open_clip folder (or local-dir:FOLDER) or a transformers one
    H, mask = clip.text(clip.tokenize(["a red kettle"]))
    H = clip.image(clip.preprocess(picture)[None])

Every position is projected into the joint space, not only the pooled one. The activation (GELU or QuickGELU) and the
preparation of pictures are the folder's; one that does not say them, or contradicts itself, is refused.

Shapes: B batch, L text tokens, P image patches + 1, E joint width, S side of the picture.
"""

from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vikdf import files
from vikdf.model import pretrained

OPEN_CLIP_WEIGHTS = "open_clip_model.safetensors"
FOREIGN = ("tokenizer_kwargs", "hf_model_name", "timm_model_name")


class OpenClip:
    """The towers of an open_clip folder: open_clip_config.json + open_clip_model.safetensors."""

    def __init__(self, folder: Path):
        import open_clip
        from safetensors import SafetensorError

        self._check_config(folder)
        try:
            self._check_size(folder)
            self.model, _, self.preprocess = open_clip.create_model_and_transforms(f"local-dir:{folder}")
        except (RuntimeError, AssertionError, SafetensorError, *pretrained.HARMED) as error:  # it asserts some sizes
            told = " ".join(str(error).split())[:200]
            raise ValueError(f"the weights in {folder} do not fit its open_clip_config.json: {told}") from None
        self.tower = getattr(self.model, "text", self.model)  # CustomTextCLIP keeps its text tower apart
        if not hasattr(self.tower, "token_embedding") or self.tower.attn_mask is None:
            raise ValueError(f"the CLIP in {folder} has no causal text tower of CLIP's own kind; choose one that has")
        visual = self.model.visual
        if not isinstance(visual, open_clip.transformer.VisionTransformer) or (
            visual.pool_type != "tok" or visual.attn_pool is not None or visual.final_ln_after_pool
        ):
            raise ValueError(
                f"the image tower of the CLIP in {folder} is no ViT that is read at its class token: choose one that is, "
                "such as ViT-B-32 or ViT-L-14, since every patch is needed in the joint space"
            )
        visual.output_tokens = True
        own = (
            files.read_json(folder / "open_clip_config.json")["model_cfg"].get("text_cfg", {}).get("hf_tokenizer_name")
        )
        safe = dict(trust_remote_code=False) if own else {}  # open_clip's own tokenizer does not know the word
        with pretrained.refused(folder):
            self.tokenizer = open_clip.get_tokenizer(f"local-dir:{folder}", **safe)
        self.context = self.tower.context_length
        self.vocabulary = self.tower.vocab_size
        self.patch = self.model.visual.patch_size[0]
        self.pixels = self.model.visual.image_size[0]
        self.width = self.model.visual.output_dim

    @staticmethod
    def _check_config(folder: Path) -> None:
        """What open_clip would fill in or make up, with a warning at most."""
        config = files.read_json(folder / "open_clip_config.json")
        model = config.get("model_cfg") if isinstance(config, dict) else None
        if not isinstance(model, dict) or not isinstance(model.get("vision_cfg"), dict):
            raise ValueError(
                f"{folder}/open_clip_config.json describes no model: expected model_cfg with a vision_cfg in it; copy the "
                "file from where the checkpoint comes from"
            )
        prepared = config.get("preprocess_cfg") or {}
        if lost := [name for name in ("mean", "std") if name not in prepared]:
            raise ValueError(
                f"{folder}/open_clip_config.json does not say how pictures are prepared: expected preprocess_cfg with "
                f"mean and std, found no {' and no '.join(lost)}; copy them from where the checkpoint comes from"
            )
        side, own = prepared.get("size"), model["vision_cfg"].get("image_size", 224)
        if side is not None and _square(side) != _square(own):
            raise ValueError(
                f"{folder}/open_clip_config.json prepares pictures of size {side}, but its vision_cfg reads image_size "
                f"{own}: set both to the side that the weights were trained with"
            )
        OpenClip._check_towers(folder, model)
        if not (folder / OPEN_CLIP_WEIGHTS).exists():
            raise ValueError(f"{folder} holds no {OPEN_CLIP_WEIGHTS}: copy the weights there, as safetensors")
        OpenClip._check_activation(folder, model.get("quick_gelu", False))

    @staticmethod
    def _check_size(folder: Path) -> None:
        """A configuration may say any size: what it describes is made without memory first."""
        import open_clip

        config = files.read_json(folder / "open_clip_config.json")["model_cfg"]
        held = pretrained.held([folder / OPEN_CLIP_WEIGHTS])
        pretrained.check_layers(folder, config, held)
        kind = open_clip.model.CustomTextCLIP if config.get("custom_text") else open_clip.model.CLIP
        with torch.device("meta"):
            outline = kind(**{key: value for key, value in config.items() if key != "custom_text"})
        told, there = sum(value.numel() for value in outline.parameters()), sum(held.values())
        if told > 2 * there:
            raise ValueError(f"it describes a model of {told} numbers, but the weights hold {there}")

    @staticmethod
    def _check_towers(folder: Path, model: dict) -> None:
        """open_clip hands these words on to libraries that fetch, or run code of the folder."""
        said = {
            key: value for part in (model, *model.values()) if isinstance(part, dict) for key, value in part.items()
        }
        foreign = {key: said[key] for key in FOREIGN if said.get(key)}
        if said.get("hf_tokenizer_name") not in (None, "", "."):
            foreign["hf_tokenizer_name"] = said["hf_tokenizer_name"]
        for key, value in foreign.items():
            raise ValueError(
                f"{folder}/open_clip_config.json names {key} {value!r}, which may fetch files or run code: expected towers of "
                "open_clip's own, and its own tokenizer or that of the folder (hf_tokenizer_name '.')"
            )

    @staticmethod
    def _check_activation(folder: Path, quick: bool) -> None:
        """Many folders hold the same CLIP for transformers too: both files must tell of the same activation."""
        path = folder / "config.json"
        if not path.exists() or files.read_json(path).get("model_type") != "clip":
            return
        act = _one_activation(folder)
        if (act == "quick_gelu") != quick:
            raise ValueError(
                f"{folder}: open_clip_config.json says quick_gelu {str(quick).lower()}, config.json says hidden_act {act!r}: "
                "set both to the activation that the weights were trained with (OpenAI's: quick_gelu)"
            )

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

        self._check_config(folder)
        self.model = pretrained.load(CLIPModel, folder)
        self.tokenizer = pretrained.read(AutoTokenizer, folder)
        self.processor = pretrained.read(AutoImageProcessor, folder)
        self.context = self.model.config.text_config.max_position_embeddings
        self.vocabulary = self.model.config.text_config.vocab_size
        self.patch = self.model.config.vision_config.patch_size
        self.pixels = self.model.config.vision_config.image_size
        self.width = self.model.config.projection_dim

    @staticmethod
    def _check_config(folder: Path) -> None:
        """What transformers would fill in with a default, or read without noticing that it does not fit."""
        from transformers import AutoConfig

        config = pretrained.read(AutoConfig, folder)
        if config.model_type != "clip":
            raise ValueError(
                f"{folder} holds a model of type {config.model_type!r}, expected 'clip'; choose a CLIP folder"
            )
        _one_activation(folder)
        path = folder / "preprocessor_config.json"
        prepared = files.read_json(path) if path.exists() else {}
        if lost := [name for name in ("image_mean", "image_std") if not prepared.get(name)]:
            raise ValueError(
                f"{path} names no {' and no '.join(lost)}: copy the file from where the checkpoint comes from"
            )
        side = prepared.get("crop_size") if prepared.get("do_center_crop", True) else prepared.get("size")
        own = config.vision_config.image_size
        if side is not None and _square(side) != _square(own):
            raise ValueError(
                f"{path} prepares pictures of {side}, but the vision tower in {folder} reads {own}: set both to the side "
                "that the weights were trained with"
            )

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


def _one_activation(folder: Path) -> str:
    """The activation of a transformers CLIP, which both of its towers must name."""
    from transformers import AutoConfig

    config = pretrained.read(AutoConfig, folder)
    acts = config.text_config.hidden_act, config.vision_config.hidden_act
    if acts[0] != acts[1]:
        raise ValueError(
            f"the CLIP in {folder} names the activation {acts[0]!r} for text and {acts[1]!r} for pictures: a CLIP has "
            "one; set hidden_act in text_config and vision_config to the one of its training (OpenAI's: quick_gelu)"
        )
    return acts[0]


def _square(side) -> tuple[int, int]:
    """A side as the files of both ecosystems write it: 224, [224, 224], {height, width} or {shortest_edge}."""
    if isinstance(side, dict):
        side = [side.get("height", side.get("shortest_edge")), side.get("width", side.get("shortest_edge"))]
    return (side, side) if isinstance(side, int) else tuple(side)


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
    def load(cls, folder, dtype: torch.dtype | None = None) -> "CLIP":
        """dtype: of the frozen weights; None keeps the one that they were saved in."""
        folder = Path(str(folder).removeprefix("local-dir:"))  # as open_clip writes the same
        of_open_clip, of_transformers = (folder / "open_clip_config.json").exists(), (folder / "config.json").exists()
        if of_open_clip and ((folder / OPEN_CLIP_WEIGHTS).exists() or not of_transformers):
            made = cls(OpenClip(folder), folder)
        elif of_transformers:
            made = cls(TransformersClip(folder), folder)
        else:
            raise ValueError(f"{folder} holds no CLIP: expected open_clip_config.json or transformers' config.json")
        return made if dtype is None else made.to(dtype)

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
        return self.towers.image(pixels.to(self.model.logit_scale.dtype))  # [B, P, E]

    def embed_text(self, tokens: Tensor) -> Tensor:
        H, mask = self.text(tokens)
        return F.normalize(H[torch.arange(len(H)), mask.sum(1) - 1], dim=-1)  # [B, E]

    def embed_image(self, pixels: Tensor) -> Tensor:
        return F.normalize(self.image(pixels)[:, 0], dim=-1)  # [B, E]
