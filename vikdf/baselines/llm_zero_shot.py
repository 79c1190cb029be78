"""The language model as it is, prompted: nothing is tuned.

In: an entry {kind: llm_zero_shot, llm: a language model's name, instruction: text}. Out: `learner` refuses, since there is
nothing to tune; `answerer` gives the frozen model. As in the paper's kind of prompt (the published one of Llama-2-chat), the
instruction is the system message of the model's own chat template, and the turns are user's and assistant's in turns; a model
whose template has no place for a system message hears it before the first turn. The paper's own wording is unknown.
"""

from pathlib import Path


def learner(entry: dict, start: None, places, lora: dict, seed: int):
    raise ValueError("llm_zero_shot is prompted, not tuned: its entry under `baselines` must keep `tuned: false`")


def answerer(entry: dict, product: Path | None, places):
    from vikdf.model.backbone import LLM
    from vikdf.model.respond import Responder

    return Responder(LLM.load(places.backbones / entry["llm"]), instruction=entry["instruction"])
