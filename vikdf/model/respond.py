"""Dialogues in, responses out (section 3.4): P(R|C,K) of an LLM, with or without knowledge K, with or without LoRA.

    source = KnowledgeSource.load("results/pretrain/vikdf-s1", clip="data/backbones/clip")
    responder = Responder(LLM.load("data/backbones/llm"), source)                   # VIKDF: IQ-Former tuned, LLM frozen
    responder = Responder(LLM.load("data/backbones/llm"), lora_rank=8)              # text-only LLM with LoRA
    responder = Responder(LLM.load("data/backbones/llm"), instruction="Answer ...")  # the LLM, prompted
    loss = responder.loss(contexts, responses); answers = responder.generate(contexts)

A context is a list of turns, the last one is what is answered. Shapes: B batch, L positions, n queries, H LLM width.
"""

from pathlib import Path

import torch
from torch import Tensor, nn
from tqdm import tqdm

from vikdf.model import checkpoint
from vikdf.model.backbone import LLM
from vikdf.model.encoders import CLIP
from vikdf.model.vikdf import KnowledgeSource


class Responder(nn.Module):
    FROZEN = ("source.clip.", "llm.")

    def __init__(
        self,
        llm: LLM,
        source: KnowledgeSource | None = None,
        *,
        tune_iqformer: bool = True,
        lora_rank: int = 0,
        lora_alpha: int = 0,
        instruction: str = "",
        seed: int = 1,
    ):
        """
        tune_iqformer: false keeps the IQ-Former as it is; the layer into the LLM is tuned in any case
        lora_rank: 0 keeps the LLM frozen; else every linear layer gets a LoRA of this rank
        lora_alpha: LoRA's scale; 0 means twice the rank
        instruction: said before the first turn, for a model that is prompted and not tuned
        seed: of LoRA's new weights
        """
        super().__init__()
        self.settings = {"tune_iqformer": tune_iqformer, "lora_rank": lora_rank, "lora_alpha": lora_alpha}
        self.settings |= {"instruction": instruction, "seed": seed}
        self.llm, self.source, self.instruction = llm, source, instruction
        self.tune_iqformer = tune_iqformer
        if source is not None:
            if source.into_llm.out_features != llm.width:
                raise ValueError(
                    f"the knowledge source gives vectors of {source.into_llm.out_features}, the LLM in {llm.folder} "
                    f"reads {llm.width}: it was trained for another LLM"
                )
            source.iqformer.requires_grad_(tune_iqformer)
        if lora_rank:
            add_lora(llm, lora_rank, lora_alpha or 2 * lora_rank, seed)

    def trained_parameters(self) -> list[nn.Parameter]:
        return [parameter for parameter in self.parameters() if parameter.requires_grad]

    def project(self, contexts: list[list[str]]) -> Tensor | None:
        """K of each dialogue in the LLM's width [B, n, H]; equal contexts are computed once."""
        if self.source is None:
            return None
        texts = [" ".join(turns) for turns in contexts]
        once = list(dict.fromkeys(texts))
        with torch.set_grad_enabled(torch.is_grad_enabled() and self.tune_iqformer):
            K = self.source.knowledge(once)  # [texts, n, D]
        place = {text: i for i, text in enumerate(once)}
        return self.source.into_llm(K)[[place[text] for text in texts]]

    def prompts(self, contexts: list[list[str]]) -> list[list[int]]:
        if not all(contexts):
            raise ValueError("a dialogue has no turn to answer: expected at least one")
        opened = [turns if len(turns) % 2 else ["", *turns] for turns in contexts]  # the user speaks first and last
        opened = [[f"{self.instruction}\n{first}".strip(), *rest] for first, *rest in opened]
        coded = iter(self.llm.tokenize([turn for turns in opened for turn in turns]))
        dialogues = [[next(coded) for _ in turns] for turns in opened]
        return self.llm.rows(dialogues, self.source.queries if self.source else 0)

    def nll(self, contexts: list[list[str]], responses: list[str], side: str = "right") -> tuple[Tensor, Tensor]:
        """Negative log-likelihood and token count of each response [B]; its end-of-sequence token counts."""
        said = [[*answer, self.llm.end] for answer in self.llm.tokenize(responses)]
        rows = [prompt + answer for prompt, answer in zip(self.prompts(contexts), said, strict=True)]
        ids, mask = self.llm.pad(rows, side)  # [B, L]
        scored = self.llm.pad_tail(rows, [len(answer) for answer in said], side)
        states = self.llm.states(self.llm.embed(ids, self.project(contexts)), mask if side == "left" else None)
        tokens = scored.sum(1)
        owner = torch.repeat_interleave(torch.arange(len(rows), device=ids.device), tokens)
        nll = self.llm.nll(states, ids, scored)
        return nll.new_zeros(len(rows)).index_add(0, owner, nll), tokens

    def loss(self, contexts: list[list[str]], responses: list[str]) -> Tensor:
        """Per response token, over the whole batch: exp of it is the paper's PPL."""
        nll, tokens = self.nll(contexts, responses)
        return nll.sum() / tokens.sum()

    @torch.no_grad()
    def score(self, contexts: list[list[str]], responses: list[str], batch: int = 64) -> tuple[list[float], list[int]]:
        """NLL and token count of any number of responses, in batches of like length, in the order given."""
        nll, tokens = [0.0] * len(contexts), [0] * len(contexts)
        size = [len(" ".join([*turns, answer])) for turns, answer in zip(contexts, responses, strict=True)]
        for places in in_batches(size, batch, "scoring"):
            part = self.nll([contexts[i] for i in places], [responses[i] for i in places])
            for i, value, count in zip(places, *(x.tolist() for x in part), strict=True):
                nll[i], tokens[i] = value, count
        return nll, tokens

    def cloze(self, contexts: list[list[str]], candidates: list[list[str]], batch: int = 64) -> list[list[float]]:
        """NLL of each candidate response of each dialogue."""
        flat = [(turns, answer) for turns, answers in zip(contexts, candidates, strict=True) for answer in answers]
        nll = iter(self.score([turns for turns, _ in flat], [answer for _, answer in flat], batch)[0])
        return [[next(nll) for _ in answers] for answers in candidates]

    @torch.no_grad()
    def generate(
        self,
        contexts: list[list[str]],
        *,
        beams: int = 3,
        no_repeat_ngram: int = 3,
        max_new_tokens: int = 32,
        batch: int = 64,
    ) -> list[str]:
        """One response a dialogue, in batches of like length, in the order given."""
        prompts, answers = self.prompts(contexts), [""] * len(contexts)
        decoding = {"num_beams": beams, "no_repeat_ngram_size": no_repeat_ngram, "max_new_tokens": max_new_tokens}
        for places in in_batches([len(prompt) for prompt in prompts], batch, "answering"):
            K = self.project([contexts[i] for i in places])
            for i, answer in zip(places, self.llm.generate([prompts[i] for i in places], K, **decoding), strict=True):
                answers[i] = answer
        return answers

    def save(self, folder) -> None:
        """What answering needs beside the frozen CLIP and LLM: IQ-Former (also if kept), layer into the LLM, LoRA."""
        config = {"kind": "Responder", "settings": self.settings, "source": None}
        config["frozen"] = {"llm": checkpoint.name_part(self.llm.folder)}
        if self.source is not None:
            config["source"] = self.source.config()
            config["frozen"]["clip"] = checkpoint.name_part(self.source.clip.folder)
        checkpoint.write(folder, checkpoint.trained_tensors(self, self.FROZEN), config)

    @classmethod
    def load(cls, folder, *, llm, clip=None) -> "Responder":
        config = checkpoint.read_config(folder)
        if config["kind"] != "Responder":
            raise ValueError(f"{folder} holds a {config['kind']}, expected a Responder: fine-tune it first")
        for part, expected in config["frozen"].items():
            checkpoint.check_part(part, {"clip": clip, "llm": llm}[part], expected, Path(folder))
        source = KnowledgeSource.from_config(config["source"], CLIP.load(clip)) if config["source"] else None
        made = cls(LLM.load(llm), source, **config["settings"])
        checkpoint.load_trained(made, checkpoint.read_weights(folder), cls.FROZEN, folder)
        return made


def add_lora(llm: LLM, rank: int, alpha: int, seed: int) -> None:
    """Puts a LoRA beside every linear layer of the LLM, in place; only these are trained."""
    from peft import LoraConfig, inject_adapter_in_model

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        inject_adapter_in_model(LoraConfig(r=rank, lora_alpha=alpha, target_modules="all-linear"), llm.model)
    for name, parameter in llm.model.named_parameters():
        parameter.requires_grad_(".lora_" in name)
        if ".lora_" in name:
            parameter.data = (
                parameter.data.float()
            )  # an LLM kept in half precision would have it too: too coarse to train


def in_batches(sizes: list[int], batch: int, what: str):
    """Batches of places, longest first: like lengths together, and a batch too large for the memory fails at once."""
    order = sorted(range(len(sizes)), key=lambda i: (-sizes[i], i))
    batches = [order[i : i + batch] for i in range(0, len(order), batch)]
    return tqdm(batches, desc=what, unit="batch", disable=len(batches) < 2)
