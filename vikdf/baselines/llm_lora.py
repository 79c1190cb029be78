"""The text-only language model, fine-tuned with LoRA: what VIKDF gains must be gained over this.

Its two functions: `learner` gives the language model with fresh LoRA weights, without picture or knowledge vector;
`answerer` gives the same model with the tuned LoRA weights. Rank and training are those of VIKDF's rows with LoRA.
"""

from pathlib import Path

from vikdf.systems import again


def learner(entry: dict, start: None, backbones: Path, lora: dict, seed: int):
    from vikdf.model.backbone import LLM
    from vikdf.model.respond import Responder

    return Responder(LLM.load(backbones / entry["llm"]), lora_rank=lora["rank"], lora_alpha=lora["alpha"], seed=seed)


def answerer(entry: dict, product: Path, backbones: Path):
    return again(product, backbones)
