"""The text-only language model, fine-tuned with LoRA: what VIKDF gains must be gained over this. Table 4's second row too.

In: an entry {kind: llm_lora, llm: a language model's name}; rank and alpha are `finetune.lora`. Out: `learner` gives the
language model with fresh LoRA weights, without picture or knowledge vector; `answerer` the same with the tuned ones.
The paper names neither rank nor training of its LoRA rows: rank and training are those of VIKDF's rows with LoRA.
"""

from pathlib import Path


def learner(entry: dict, start: None, places, lora: dict, seed: int):
    from vikdf.model.backbone import LLM
    from vikdf.model.respond import Responder

    llm = LLM.load(places.backbones / entry["llm"])
    return Responder(llm, lora_rank=lora["rank"], lora_alpha=lora["alpha"], seed=seed)


def answerer(entry: dict, product: Path, places):
    from vikdf.model.respond import Responder

    return Responder.load(product, backbones=places.backbones)
