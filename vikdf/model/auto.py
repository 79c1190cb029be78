"""VIKDF to be used: a folder that pretrain or finetune wrote in; replies, knowledge, its words and its picture out.

    from vikdf import VIKDF

    model = VIKDF.from_pretrained("results/finetune/vikdf-zero-s1")
    model.reply(["hello", "what colour is the kettle?"])     # the answer
    model.knowledge("what colour is the kettle?")            # K [n, D]
    model.textualize("what colour is the kettle?")           # what the LLM reads in K alone (Figure 6)
    model.draw("what colour is the kettle?").save("K.png")   # what TAMIM's decoder draws from K alone

Importing this module registers the class: `transformers.AutoModel.from_pretrained(folder)` then gives the same.
Shapes: n queries, D IQ-Former width, S side of CLIP's picture.
"""

from pathlib import Path

import torch
from PIL import Image
from torch import Tensor
from transformers import AutoConfig, AutoModel, PretrainedConfig

from vikdf.model import checkpoint
from vikdf.model.respond import Responder

FROM_AUTO = {"config", "adapter_kwargs"}  # AutoModel hands these to every model; nothing in them is needed here


class VIKDFConfig(PretrainedConfig):
    """config.json as vikdf.model.checkpoint writes it: kind, settings, source, tamim, frozen, trained, run."""

    model_type = "vikdf"


class VIKDF(Responder):
    config_class = VIKDFConfig

    def __init__(self, *parts, **settings):
        super().__init__(*parts, **settings)
        self.name, self.config, self.decoding = "this model", None, dict(checkpoint.DECODING)

    @classmethod
    def from_pretrained(cls, path, *, clip=None, llm=None, backbones=None, **auto) -> "VIKDF":
        """A product of pretrain or finetune, or what save_pretrained wrote.

        backbones: folder of the frozen parts; without it the nearest data/backbones above `path`, then that of the
        working directory. clip, llm: the folder of one part.
        """
        if unknown := sorted(name for name, value in auto.items() if value and name not in FROM_AUTO):
            raise ValueError(
                f"from_pretrained was given {unknown[0]!r}: it takes clip, llm and backbones, each a folder"
            )
        path = Path(path)
        if not path.is_dir():
            raise ValueError(f"{path} is no folder: expected what pretrain, finetune or save_pretrained wrote")
        made = cls.load(path, clip=clip, llm=llm, backbones=backbones)
        made.name, made.config = str(path), VIKDFConfig.from_dict(checkpoint.read_config(path))
        made.decoding = checkpoint.read_decoding(path)
        return made.eval()

    def save_pretrained(self, folder) -> None:
        """The trained parts with tokenizer, decoding and card; the frozen parts are named, not copied."""
        told = {"trained": self.config.trained, "run": self.config.run} if self.config else {}
        self.save(folder, **told, decoding=self.decoding)

    def reply(self, dialogue: str | list[str], **decoding) -> str:
        """The answer to a dialogue: its turns, or one turn. decoding: beams, no_repeat_ngram, max_new_tokens."""
        turns, decoding = self._turns(dialogue), self._decoding(decoding)
        cure = "leave out the oldest turns" if len(turns) > 1 else "shorten it"
        self._room("the dialogue is too long", self.prompts([turns])[0], decoding, cure)
        return self.generate([turns], **decoding)[0]

    @torch.no_grad()
    def knowledge(self, dialogue: str | list[str]) -> Tensor:
        turns = self._turns(dialogue)
        return self._knowing("knowledge vectors").source.knowledge([" ".join(turns)])[0]  # [n, D]

    @torch.no_grad()
    def textualize(self, dialogue: str | list[str], **decoding) -> str:
        """K put into words: the prompt holds K and an instruction, and no word of the dialogue."""
        turns, decoding = self._turns(dialogue), self._decoding(decoding)
        given = self._knowing("knowledge to put into words").project([turns])  # [1, n, H]
        rows = self.llm.rows([self.llm.tokenize([self.describe])], self.source.queries)
        self._room("the answer is too long", rows[0], decoding, "lower max_new_tokens")
        return self.llm.generate(rows, given, **{checkpoint.NAMES[name]: value for name, value in decoding.items()})[0]

    @torch.no_grad()
    def draw(self, dialogue: str | list[str]) -> Image.Image:
        """What TAMIM's decoder makes of K and a picture that is masked everywhere; K is this model's own, tuned or not."""
        K = self.knowledge(dialogue)[None]  # [1, n, D]
        if self.tamim is None:
            raise ValueError(
                f"{self.name} cannot draw: it was distilled without TAMIM, or not at all, so no decoder was trained; "
                "use one with `weights.tamim` above 0"
            )
        clip = self.source.clip
        masked = K.new_zeros(1, 3, clip.pixels, clip.pixels)  # a masked pixel is 0 after normalisation
        drawn = self.tamim.draw(clip.image(masked), K)[0].cpu()  # [3, S, S]
        black, white = (clip.preprocess(Image.new("RGB", (clip.pixels,) * 2, colour)) for colour in ("black", "white"))
        shown = ((drawn - black) / (white - black)).clamp(0, 1) * 255  # the CLIP's own normalisation, undone
        return Image.fromarray(shown.round().byte().permute(1, 2, 0).numpy())

    @property
    def positions(self) -> int | None:
        """Tokens that the LLM reads at most; None where its kind sets no limit."""
        return getattr(self.llm.model.config, "max_position_embeddings", None)

    def fits(self, turns: list[str], answer: int) -> bool:
        return self.positions is None or len(self.prompts([turns])[0]) + answer <= self.positions

    def _decoding(self, given: dict) -> dict[str, int]:
        return checkpoint.decoding(self.decoding | given, "the call")

    def _room(self, what: str, row: list[int], decoding: dict, cure: str) -> None:
        answer = decoding["max_new_tokens"]
        if self.positions is not None and len(row) + answer > self.positions:
            raise ValueError(
                f"{what}: a prompt of {len(row)} tokens and an answer of {answer} are more than the {self.positions} that the "
                f"language model of {self.name} reads; {cure}"
            )

    def _turns(self, dialogue: str | list[str]) -> list[str]:
        turns = [dialogue] if isinstance(dialogue, str) else list(dialogue)
        if not turns or not all(isinstance(turn, str) for turn in turns) or not turns[-1].strip():
            raise ValueError(
                f"the dialogue is {dialogue!r}: expected a text, or a list of turns whose last one says something"
            )
        return turns

    def _knowing(self, what: str) -> "VIKDF":
        if self.source is None:
            raise ValueError(
                f"{self.name} has no {what}: it is a language model tuned on text alone, ask a VIKDF system"
            )
        return self


AutoConfig.register("vikdf", VIKDFConfig, exist_ok=True)
AutoModel.register(VIKDFConfig, VIKDF, exist_ok=True)
