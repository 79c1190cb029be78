"""The language model as it is, prompted: nothing is tuned.

Its two functions: `learner` refuses, since there is nothing to tune; `answerer` gives the frozen model, which hears the
entry's instruction before the first turn.
"""

from pathlib import Path


def learner(entry: dict, start: None, backbones: Path, lora: dict, seed: int):
    raise ValueError("llm_zero_shot is prompted, not tuned: its entry under `baselines` must keep `tuned: false`")


def answerer(entry: dict, product: None, backbones: Path):
    from vikdf.model.backbone import LLM
    from vikdf.model.respond import Responder

    return Responder(LLM.load(backbones / entry["llm"]), instruction=entry["instruction"])
