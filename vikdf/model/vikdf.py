"""The framework (section 3.1, Figure 1): frozen CLIP -> IQ-Former -> frozen LLM, and the five losses between.

    model = VIKDFForPretraining.build(clip="data/backbones/clip", bert="data/backbones/bert", llm="data/backbones/llm", queries=8)
    losses = model.losses({"pixels": ..., "clip_tokens": ..., "captions": [...]}, generator)
    model.save("results/pretrain/vikdf-s1"); K = model.knowledge(["what colour is the kettle?"])

Shapes: B batch, L text tokens, P image patches + 1, n queries, D IQ-Former width, E CLIP's joint width, H LLM width,
S side of the picture.
"""

from pathlib import Path

import torch
from torch import Tensor, nn

from vikdf.model import checkpoint
from vikdf.model.backbone import LLM
from vikdf.model.distill import IAMTM, TAMIM, TIM
from vikdf.model.encoders import CLIP
from vikdf.model.integrate import IACI, IAKR
from vikdf.model.iqformer import IQFormer

LOSSES = ("tim", "tamim", "iamtm", "iaci", "iakr")


class KnowledgeSource(nn.Module):
    """P(K|C): all that answering needs of VIKDF beside the LLM. CLIP's text tower, IQ-Former, layer into the LLM."""

    FROZEN = ("clip.",)

    def __init__(self, clip: CLIP, iqformer: IQFormer, llm_width: int):
        super().__init__()
        self.clip, self.iqformer = clip, iqformer
        self.into_llm = nn.Linear(iqformer.width, llm_width)

    @property
    def queries(self) -> int:
        return len(self.iqformer.queries)

    def knowledge(self, texts: list[str]) -> Tensor:
        """K [B, n, D] of texts; a text too long for CLIP keeps its end (of a dialogue, what was said last)."""
        tokens = self.clip.tokenize(texts, keep="end").to(self.into_llm.weight.device)
        return self.iqformer(*self.clip.text(tokens))

    def config(self) -> dict:
        return {"iqformer": self.iqformer.shape, "llm_width": self.into_llm.out_features}

    @classmethod
    def from_config(cls, config: dict, clip: CLIP) -> "KnowledgeSource":
        return cls(clip, IQFormer(**config["iqformer"]), config["llm_width"])

    @classmethod
    def load(cls, folder, *, clip) -> "KnowledgeSource":
        """From a pretrained or a fine-tuned checkpoint; `clip` must be the CLIP of that training."""
        config = checkpoint.read_config(folder)
        checkpoint.check_part("clip", clip, config["frozen"]["clip"], folder)
        made = cls.from_config(config["source"], CLIP.load(clip))
        checkpoint.load_trained(made, checkpoint.read_weights(folder, "source."), cls.FROZEN, folder)
        return made


class VIKDFForPretraining(nn.Module):
    FROZEN = ("source.clip.", "llm.")

    def __init__(
        self,
        clip: CLIP,
        iqformer: IQFormer,
        llm: LLM,
        *,
        tim: str = "pooled",
        tim_width: int = 256,
        temperature: float = 0.07,
        fusion_heads: int = 4,
        mask_pixels: int = 28,
        mask_image: float = 0.6,
        mask_text: float = 0.15,
        leave_unchanged: float = 0.0,
        iaci_prompts: tuple[str, ...] = ("Write a short description for the image.",),
        iakr_prompts: tuple[str, ...] = ("Create an image that reflects the following description:",),
        iakr_target: str = "attached",
    ):
        """The defaults are the paper's (4.2 and 3.3); where it leaves a choice, the argument names it.

        tim: 'pooled' (first knowledge vectors in a projection of tim_width) or 'set' (cosine of the whole sets)
        leave_unchanged: share of masked squares and tokens that stay visible (paper: none; original code: 0.2)
        iakr_target: 'attached' or 'detached', see IAKR
        """
        super().__init__()
        self.settings = {"tim": tim, "tim_width": tim_width, "temperature": temperature, "fusion_heads": fusion_heads}
        self.settings |= {"mask_pixels": mask_pixels, "mask_image": mask_image, "mask_text": mask_text}
        self.settings |= {"leave_unchanged": leave_unchanged, "iaci_prompts": list(iaci_prompts)}
        self.settings |= {"iakr_prompts": list(iakr_prompts), "iakr_target": iakr_target}
        self.initialised_from: dict = {}
        self.source = KnowledgeSource(clip, iqformer, llm.width)
        self.llm = llm
        widths = {"width": clip.width, "knowledge_width": iqformer.width, "heads": fusion_heads}
        widths["leave_unchanged"] = leave_unchanged
        self.tim = TIM(width=iqformer.width, kind=tim, projection=tim_width, temperature=temperature)
        self.tamim = TAMIM(**widths, pixels=clip.pixels, patch=clip.patch, mask_pixels=mask_pixels, ratio=mask_image)
        self.iamtm = IAMTM(**widths, vocabulary=clip.vocabulary, end_of_text=clip.end_of_text, ratio=mask_text)
        self.iaci = IACI(list(iaci_prompts))
        self.iakr = IAKR(prompts=list(iakr_prompts), llm_width=llm.width, width=iqformer.width, target=iakr_target)

    @classmethod
    def build(cls, *, clip, bert, llm, queries: int = 32, seed: int = 1, **settings) -> "VIKDFForPretraining":
        """An untrained model over three backbone folders; new weights are a function of the seed."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            encoder = CLIP.load(clip)
            iqformer = IQFormer.load(bert, queries=queries, encoder_width=encoder.width)
            made = cls(encoder, iqformer, LLM.load(llm), **settings)
        made.initialised_from = {"bert": checkpoint.name_part(bert), "seed": seed}
        return made

    def trained_parameters(self) -> list[nn.Parameter]:
        return [parameter for parameter in self.parameters() if parameter.requires_grad]

    def knowledge(self, texts: list[str]) -> Tensor:
        return self.source.knowledge(texts)  # [B, n, D]

    def losses(self, batch: dict, generator: torch.Generator, wanted: tuple[str, ...] = LOSSES) -> dict[str, Tensor]:
        """The wanted losses of one batch, by name. Weighing them (Equations 5 and 9) is the training loop's."""
        return {name: total / count for name, (total, count) in self.sums(batch, generator, wanted).items()}

    def sums(self, batch: dict, generator: torch.Generator, wanted: tuple[str, ...] = LOSSES) -> dict:
        """(sum, count) of each loss, so that a caller can weigh micro-batches by their targets.

        batch: pixels [B, 3, S, S], clip_tokens [B, L], captions: list of str (or caption_ids: the LLM's token
        ids of each); h_text [B, L, E] and h_image [B, P, E] may be given, CLIP being frozen, and save its work.
        """
        clip, pixels, tokens = self.source.clip, batch["pixels"], batch["clip_tokens"]
        mask = clip.text_mask(tokens)  # [B, L]
        tokens = tokens[:, : mask.shape[1]]
        H_T = batch["h_text"][:, : mask.shape[1]] if "h_text" in batch else clip.states(tokens)  # [B, L, E]
        sources, K_I = [(H_T, mask)], None
        if "tim" in wanted or "iamtm" in wanted:
            H_I = batch["h_image"] if "h_image" in batch else clip.image(pixels)  # [B, P, E]
            sources.append((H_I, None))
        K_T, *rest = self.source.iqformer.together(sources)  # [B, n, D]
        K_I = rest[0] if rest else None
        made = {}
        if "tim" in wanted:
            made["tim"] = self.tim(K_T, K_I)
        if "tamim" in wanted:
            covered, masked = self.tamim.cover(pixels, generator)
            made["tamim"] = self.tamim(clip.image(covered), K_T, pixels, masked)
        if "iamtm" in wanted:
            covered, masked = self.iamtm.cover(tokens, mask, generator)
            made["iamtm"] = self.iamtm(clip.states(covered), K_I, tokens, masked)
        if "iaci" in wanted or "iakr" in wanted:
            made |= self.integrate(K_T, self._texts(batch), generator, wanted)
        return made

    def _texts(self, batch: dict) -> list[list[int]]:
        return batch["caption_ids"] if "caption_ids" in batch else self.llm.tokenize(batch["captions"])

    def integrate(self, K: Tensor, texts: list[list[int]], generator: torch.Generator, wanted: tuple[str, ...]) -> dict:
        """BVIF: both paths read K [B, n, D] through the same layer into the LLM."""
        given, made = self.source.into_llm(K), {}  # [B, n, H]
        if "iaci" in wanted:
            made["iaci"] = self.iaci(self.llm, given, texts, generator)
        if "iakr" in wanted:
            made["iakr"] = self.iakr(self.llm, given, texts, generator, K)
        return made

    def save(self, folder) -> None:
        config = {"kind": "VIKDFForPretraining", "settings": self.settings, "source": self.source.config()}
        config["frozen"] = {"clip": checkpoint.name_part(self.source.clip.folder)}
        config["frozen"]["llm"] = checkpoint.name_part(self.llm.folder)
        config["initialised_from"] = self.initialised_from
        checkpoint.write(folder, checkpoint.trained_tensors(self, self.FROZEN), config)

    @classmethod
    def load(cls, folder, *, clip, llm) -> "VIKDFForPretraining":
        config = checkpoint.read_config(folder)
        if config["kind"] != "VIKDFForPretraining":
            raise ValueError(
                f"{folder} holds a {config['kind']}, expected a VIKDFForPretraining: load it as a Responder"
            )
        for part, given in {"clip": clip, "llm": llm}.items():
            checkpoint.check_part(part, given, config["frozen"][part], Path(folder))
        made = cls(CLIP.load(clip), IQFormer(**config["source"]["iqformer"]), LLM.load(llm), **config["settings"])
        made.initialised_from = config["initialised_from"]
        checkpoint.load_trained(made, checkpoint.read_weights(folder), cls.FROZEN, folder)
        return made
