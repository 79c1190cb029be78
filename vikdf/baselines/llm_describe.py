"""Describe-then-answer: the frozen language model is asked to imagine the scene of a dialogue, then answers with it in mind.

In: an entry {kind: llm_describe, llm, imagine: how it is asked, between: what stands between turns there, described: most
tokens of a description, opening: how the answer's prompt begins, instruction}. Out: `learner` refuses, since there is nothing
to tune; `answerer` gives the model.

The control for visual knowledge in words: what a text-only model can tell of a scene, without a picture anywhere. Both steps
are the model's own: (1) its likeliest words (greedy) after `imagine`, one message of the user with the {dialogue} in it and no
instruction beside it; (2) the answer to the dialogue whose first message is `opening`, with {scene} for that description and
{turn} for the message.
The NLL of a response is that of step 2 given step 1's one description: the likelihood of the very system that answers, not
a sum over all descriptions. What is described is kept by context, so that each is described once.
"""

import re
from pathlib import Path

import torch

from vikdf.model.answering import in_batches, turns_of
from vikdf.model.backbone import LLM
from vikdf.model.respond import Responder

PLACES = re.compile(r"\{scene\}|\{turn\}")  # of the opening
BATCH = 64  # descriptions at once; like lengths together


class Describing(Responder):
    def __init__(self, llm: LLM, *, imagine: str, between: str, described: int, opening: str, instruction: str):
        super().__init__(llm, instruction=instruction)
        self.imagine, self.between, self.described, self.opening = imagine, between, described, opening
        self.kept: dict[str, str] = {}

    @torch.no_grad()
    def scenes(self, contexts: list[list[str]]) -> list[str]:
        """What the model imagines of each dialogue."""
        texts = [self.between.join(turns) for turns in contexts]
        new = [text for text in dict.fromkeys(texts) if text not in self.kept]
        asked = self.llm.tokenize([self.imagine.replace("{dialogue}", text).strip() for text in new])
        rows = self.llm.rows([[message] for message in asked], 0)  # the instruction is for the answer, not for this
        for places in in_batches([len(row) for row in rows], BATCH, "imagining"):
            told = self.llm.generate([rows[i] for i in places], None, num_beams=1, max_new_tokens=self.described)
            self.kept |= {new[i]: text for i, text in zip(places, told, strict=True)}
        return [self.kept[text] for text in texts]

    def prompts(self, contexts: list[list[str]]) -> list[list[int]]:
        opened = [turns if len(turns) % 2 else ["", *turns] for turns in turns_of(contexts)]
        told = [
            {"{scene}": scene, "{turn}": turns[0]} for scene, turns in zip(self.scenes(contexts), opened, strict=True)
        ]
        heads = [PLACES.sub(lambda place, said=said: said[place[0]], self.opening).strip() for said in told]
        return super().prompts([[head, *rest] for head, (_, *rest) in zip(heads, opened, strict=True)])


def learner(entry: dict, start: None, places, lora: dict, seed: int):
    raise ValueError("llm_describe is prompted, not tuned: its entry under `baselines` must keep `tuned: false`")


def answerer(entry: dict, product: Path | None, places) -> Describing:
    said = {key: entry[key] for key in ("imagine", "between", "described", "opening", "instruction")}
    return Describing(LLM.load(places.backbones / entry["llm"]), **said)
