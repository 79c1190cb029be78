"""The framework (section 3.1, Figure 1): frozen CLIP -> IQ-Former -> frozen LLM, and the five losses between.

    model = VIKDFForPretraining.build(clip="data/backbones/clip", bert="data/backbones/bert", llm="data/backbones/llm", queries=8)
    losses = model.losses({"pixels": ..., "clip_tokens": ..., "captions": [...], "lots": [...]})
    model.save("results/pretrain/vikdf-s1"); K = model.knowledge(["what colour is the kettle?"])

Shapes: B batch, L text tokens, P image patches + 1, n queries, D IQ-Former width, E CLIP's joint width, H LLM width,
S side of the picture.
"""

import functools

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
        settings = checkpoint.arguments(IQFormer, config["iqformer"], "source.iqformer")
        return cls(clip, IQFormer(**settings), config["llm_width"])


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
        iaci_from: str = "text",
        iaci_prompts: tuple[str, ...] = ("Write a short description for the image.",),
        iakr_prompts: tuple[str, ...] = ("Create an image that reflects the following description:",),
        iakr_target: str = "attached",
        iakr_input: str = "teacher",
    ):
        """The defaults are the paper's (4.2 and 3.3); where it leaves a choice, the argument names it.

        tim: 'pooled' (first knowledge vectors in a projection of tim_width) or 'set' (cosine of the whole sets)
        leave_unchanged: share of masked squares and tokens that stay visible (paper: none; original code: 0.2)
        iaci_from: 'text', 'other_caption' or 'image', see IACI
        iakr_target: 'attached' or 'detached'; iakr_input: 'teacher' or 'slots', see IAKR
        """
        super().__init__()
        self.settings = {"tim": tim, "tim_width": tim_width, "temperature": temperature, "fusion_heads": fusion_heads}
        self.settings |= {"mask_pixels": mask_pixels, "mask_image": mask_image, "mask_text": mask_text}
        self.settings |= {"leave_unchanged": leave_unchanged, "iaci_prompts": list(iaci_prompts)}
        self.settings |= {"iakr_prompts": list(iakr_prompts), "iakr_target": iakr_target}
        self.settings |= {"iaci_from": iaci_from, "iakr_input": iakr_input}
        self.initialised_from: dict = {}
        self.source = KnowledgeSource(clip, iqformer, llm.width)
        self.llm = llm
        widths = {"width": clip.width, "knowledge_width": iqformer.width, "heads": fusion_heads}
        widths["leave_unchanged"] = leave_unchanged
        self.tim = TIM(width=iqformer.width, kind=tim, projection=tim_width, temperature=temperature)
        self.tamim = TAMIM(**widths, pixels=clip.pixels, patch=clip.patch, mask_pixels=mask_pixels, ratio=mask_image)
        words = {"vocabulary": clip.vocabulary, "context": clip.context, "end_of_text": clip.end_of_text}
        self.iamtm = IAMTM(**widths, **words, ratio=mask_text)
        self.iaci = IACI(prompts=list(iaci_prompts), source=iaci_from)
        sizes = {"llm_width": llm.width, "width": iqformer.width, "queries": self.source.queries}
        self.iakr = IAKR(prompts=list(iakr_prompts), **sizes, target=iakr_target, reads=iakr_input)

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

    def frozen(self) -> list[nn.Module]:
        return [self.llm, self.source.clip]

    def trained_parameters(self) -> list[nn.Parameter]:
        return [parameter for parameter in self.parameters() if parameter.requires_grad]

    def knowledge(self, texts: list[str]) -> Tensor:
        return self.source.knowledge(texts)  # [B, n, D]

    def losses(self, batch: dict, wanted: tuple[str, ...] = LOSSES) -> dict[str, Tensor]:
        """The wanted losses of one batch, by name. Weighing them (Equations 5 and 9) is the training loop's."""
        return {name: total / count for name, (total, count) in self.sums(batch, wanted).items()}

    def counts(self, batch: dict, wanted: tuple[str, ...] = LOSSES) -> dict[str, int]:
        """The targets of each loss, known before anything is computed: what a step over many micro-batches divides by."""
        rows, tokens = len(batch["lots"]), batch["clip_tokens"]
        made = {"tim": rows, "tamim": rows * self.tamim.count(), "iakr": rows * self.source.iqformer.queries.numel()}
        if "iamtm" in wanted:
            mask = self.source.clip.text_mask(tokens)
            made["iamtm"] = int(self.iamtm.cover(tokens[:, : mask.shape[1]], mask, batch["lots"])[1].sum())
        if "iaci" in wanted:
            made["iaci"] = sum(len(text) + 1 for text in self._told(batch))
        return {name: made[name] for name in wanted}

    def sums(self, batch: dict, wanted: tuple[str, ...] = LOSSES) -> dict[str, tuple[Tensor, int]]:
        """(sum, count) of each loss, so that a caller can weigh micro-batches by their targets.

        batch: pixels [B, 3, S, S], clip_tokens [B, L], captions: list of str (or caption_ids: the LLM's token ids of each),
        lots: a seed for each row's masks and prompts; others or other_ids: another caption of each picture, if IACI reads it.
        h_text [B, L, E] and h_image [B, P, E] may be given, CLIP being frozen, and save its work.
        """
        clip, pixels, tokens, lots = self.source.clip, batch["pixels"], batch["clip_tokens"], batch["lots"]
        mask = clip.text_mask(tokens)  # [B, L]
        # of tokens as long as they were given: a text's states then have the same bits in every batch, and in a cache
        H_T = batch["h_text"] if "h_text" in batch else clip.states(tokens)
        H_T, tokens = H_T[:, : mask.shape[1]].contiguous(), tokens[:, : mask.shape[1]]  # [B, L, E], [B, L]
        sources = [(H_T, mask)]
        if "tim" in wanted or "iamtm" in wanted or ("iaci" in wanted and self.iaci.source == "image"):
            H_I = batch["h_image"] if "h_image" in batch else clip.image(pixels)  # [B, P, E]
            sources.append((H_I, None))
        K_T, *rest = self.source.iqformer.together(sources)  # [B, n, D]
        K_I = rest[0] if rest else None
        made = {}
        if "tim" in wanted:
            made["tim"] = self.tim(K_T, K_I)
        if "tamim" in wanted:
            covered, masked = self.tamim.cover(pixels, lots)
            made["tamim"] = self.tamim(clip.image(covered), K_T, pixels, masked)
        if "iamtm" in wanted:
            covered, masked = self.iamtm.cover(tokens, mask, lots)
            made["iamtm"] = self.iamtm(clip.states(covered), K_I, tokens, masked)
        return made | self.integrate(K_T, K_I, batch, wanted)

    def integrate(self, K_T: Tensor, K_I: Tensor | None, batch: dict, wanted: tuple[str, ...]) -> dict:
        """BVIF: both paths read K [B, n, D] through the same layer into the LLM."""
        made, lots, into_llm = {}, batch["lots"], functools.cache(self.source.into_llm)  # one K: projected once
        if "iaci" in wanted:
            given = into_llm(K_I if self.iaci.source == "image" else K_T)  # [B, n, H]
            made["iaci"] = self.iaci(self.llm, given, self._told(batch), lots)
        if "iakr" in wanted:
            made["iakr"] = self.iakr(self.llm, into_llm(K_T), self._ids(batch, "caption"), lots, K_T)
        return made

    def _ids(self, batch: dict, kind: str) -> list[list[int]]:
        return batch[f"{kind}_ids"] if f"{kind}_ids" in batch else self.llm.tokenize(batch[f"{kind}s"])

    def _told(self, batch: dict) -> list[list[int]]:
        """The texts that IACI lets the LLM say."""
        return self._ids(batch, "other" if self.iaci.source == "other_caption" else "caption")

    def save(self, folder, *, trained: dict[str, int] | None = None, run: dict | None = None) -> None:
        """`trained`: parameters by part (else all that require a gradient); `run`: its facts, see vikdf.model.card."""
        config = {"kind": "VIKDFForPretraining", "settings": self.settings, "source": self.source.config(), "run": run}
        config["trained"] = checkpoint.parts(checkpoint.trainable(self)) if trained is None else trained
        config["tamim"] = self.tamim.shape if "tamim" in config["trained"] else None  # untrained, it draws noise
        config["frozen"] = {"clip": checkpoint.name_part(self.source.clip.folder)}
        config["frozen"]["llm"] = checkpoint.name_part(self.llm.folder)
        config["initialised_from"] = self.initialised_from
        checkpoint.write(folder, checkpoint.trained_tensors(self, self.FROZEN), config, self.llm.tokenizer)

    @classmethod
    def load(cls, folder, *, clip=None, llm=None) -> "VIKDFForPretraining":
        config = checkpoint.read_config(folder)
        if config["kind"] != "VIKDFForPretraining":
            raise ValueError(
                f"{folder} holds a {config['kind']}, expected a VIKDFForPretraining: load it as a Responder"
            )
        found = checkpoint.find_parts(folder, {"clip": clip, "llm": llm})
        encoder, llm, weights = CLIP.load(found["clip"]), LLM.load(found["llm"]), checkpoint.read_weights(folder)

        def make() -> VIKDFForPretraining:
            shape = checkpoint.arguments(IQFormer, config["source"]["iqformer"], "source.iqformer")
            return cls(encoder, IQFormer(**shape), llm, **checkpoint.arguments(cls, config["settings"], "settings"))

        made = checkpoint.build(make, config, weights, cls.FROZEN, folder)
        made.initialised_from = config["initialised_from"]
        checkpoint.load_trained(made, weights, cls.FROZEN, folder)
        return made
