"""Dialogues in, responses out (section 3.4): P(R|C,K) of an LLM, with or without knowledge K, with or without LoRA.

    responder = Responder.load("results/pretrain/vikdf-s1")                          # VIKDF: IQ-Former tuned, LLM frozen
    responder = Responder(LLM.load("data/backbones/llm"), lora_rank=8)              # text-only LLM with LoRA
    responder = Responder(LLM.load("data/backbones/llm"), instruction="Answer ...")  # the LLM, prompted
    loss = responder.loss(contexts, responses); answers = responder.generate(contexts)

A context is a list of turns, the last one is what is answered. Shapes: B batch, L positions, n queries, H LLM width.
"""

import torch
from torch import Tensor, nn

from vikdf.model import checkpoint
from vikdf.model.answering import Answering, turns_of
from vikdf.model.backbone import LLM
from vikdf.model.distill import TAMIM
from vikdf.model.encoders import CLIP
from vikdf.model.vikdf import KnowledgeSource, VIKDFForPretraining


class Responder(Answering):
    FROZEN = ("source.clip.", "llm.")

    def __init__(
        self,
        llm: LLM,
        source: KnowledgeSource | None = None,
        tamim: TAMIM | None = None,
        *,
        tune_iqformer: bool = True,
        lora_rank: int = 0,
        lora_alpha: int = 0,
        instruction: str = "",
        describe: str = "",
        seed: int = 1,
    ):
        """
        tamim: draws what K shows; it stays as pretraining left it
        tune_iqformer: false keeps the IQ-Former as it is; the layer into the LLM is tuned in any case
        lora_rank: 0 keeps the LLM frozen; else every linear layer gets a LoRA of this rank
        lora_alpha: LoRA's scale; 0 means twice the rank
        instruction: for a model that is prompted and not tuned: its template's system message, or said before the first turn
        describe: the prompt under which the LLM puts K alone into words (one of IACI's)
        seed: of LoRA's new weights
        """
        super().__init__()
        self.settings = {"tune_iqformer": tune_iqformer, "lora_rank": lora_rank, "lora_alpha": lora_alpha}
        self.settings |= {"instruction": instruction, "describe": describe, "seed": seed}
        self.llm, self.source, self.instruction, self.describe = llm, source, instruction, describe
        self.tamim = tamim.requires_grad_(False) if tamim else None
        self.tune_iqformer = tune_iqformer
        if source is not None:
            if source.into_llm.out_features != llm.width:
                raise ValueError(
                    f"the knowledge source gives vectors of {source.into_llm.out_features}, the LLM in {llm.folder} "
                    f"reads {llm.width}: it was trained for another LLM; give llm=FOLDER of that one"
                )
            source.iqformer.requires_grad_(tune_iqformer)
        if lora_rank:
            add_lora(llm, lora_rank, lora_alpha or 2 * lora_rank, seed)

    def frozen(self) -> list[nn.Module]:
        return [self.llm] if self.source is None else [self.llm, self.source.clip]

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
        # the user speaks first and last
        opened = [turns if len(turns) % 2 else ["", *turns] for turns in turns_of(contexts)]
        system = self.instruction if self.llm.takes_system else ""
        before = self.instruction if not system else ""
        opened = [[f"{before}\n{first}".strip(), *rest] for first, *rest in opened]
        coded = iter(self.llm.tokenize([turn for turns in opened for turn in turns]))
        dialogues = [[next(coded) for _ in turns] for turns in opened]
        return self.llm.rows(dialogues, self.source.queries if self.source else 0, system)

    def rows(self, contexts: list[list[str]], responses: list[str]) -> tuple[list[list[int]], list[int]]:
        """Whole rows as the LLM reads them, and how many tokens at their ends are the response's, its end token too."""
        said = [[*answer, self.llm.end] for answer in self.llm.tokenize(responses)]
        rows = [prompt + answer for prompt, answer in zip(self.prompts(contexts), said, strict=True)]
        return rows, [len(answer) for answer in said]

    def sizes(self, contexts: list[list[str]], responses: list[str]) -> list[int]:
        """Tokens of each whole row, K among them: rows of like size are computed together."""
        parts = [
            slice(start, start + 4096) for start in range(0, len(contexts), 4096)
        ]  # a million rows at once fill the memory
        return [len(row) for part in parts for row in self.rows(contexts[part], responses[part])[0]]

    def nll(self, contexts: list[list[str]], responses: list[str], side: str = "right") -> tuple[Tensor, Tensor]:
        """Negative log-likelihood and token count of each response [B]; its end-of-sequence token counts."""
        rows, said = self.rows(contexts, responses)
        ids, mask = self.llm.pad(rows, side)  # [B, L]
        scored = self.llm.pad_tail(rows, said, side)
        states = self.llm.states(
            self.llm.embed(ids[:, :-1], self.project(contexts)), mask[:, :-1] if side == "left" else None
        )
        tokens = scored.sum(1)
        owner = torch.repeat_interleave(torch.arange(len(rows), device=ids.device), tokens, output_size=sum(said))
        nll = self.llm.nll(states, ids, scored)
        return nll.new_zeros(len(rows)).index_add(0, owner, nll), tokens

    def counts(self, batch: dict) -> dict[str, int]:
        return {"nll": sum(len(ids) + 1 for ids in self.llm.tokenize(batch["responses"]))}

    def lengths(self, contexts: list[list[str]]) -> list[int]:
        return [len(prompt) for prompt in self.prompts(contexts)]

    def answers(self, contexts: list[list[str]], **decoding: int) -> list[str]:
        decoding = {checkpoint.NAMES[name]: value for name, value in decoding.items()}
        return self.llm.generate(self.prompts(contexts), self.project(contexts), **decoding)

    def save(
        self, folder, *, trained: dict | None = None, run: dict | None = None, decoding: dict | None = None
    ) -> None:
        """What answering needs beside the frozen CLIP and LLM: IQ-Former (also if kept), layer into the LLM, LoRA, TAMIM.

        trained: parameters that any stage trained, by name (else all that require a gradient)
        run: the run's facts for the model card, see vikdf.model.card
        """
        config = {"kind": "Responder", "settings": self.settings, "run": run}
        config["trained"] = checkpoint.parts(checkpoint.trainable(self) if trained is None else trained)
        config["source"] = self.source.config() if self.source else None
        config["tamim"] = self.tamim.shape if self.tamim else None
        config["frozen"] = {"llm": checkpoint.name_part(self.llm.folder)}
        if self.source is not None:
            config["frozen"]["clip"] = checkpoint.name_part(self.source.clip.folder)
        tensors = checkpoint.trained_tensors(self, self.FROZEN)
        checkpoint.write(folder, tensors, config, self.llm.tokenizer, decoding or checkpoint.DECODING)

    @classmethod
    def load(cls, folder, *, clip=None, llm=None, backbones=None, **settings) -> "Responder":
        """From a fine-tuned folder, or from a pretrained one, whose `settings` then say what is tuned."""
        config = checkpoint.read_config(folder)
        found = checkpoint.find_parts(folder, {"clip": clip, "llm": llm}, backbones)
        tuned, weights = config["kind"] == "Responder", checkpoint.read_weights(folder)
        with checkpoint.described(folder):
            said = checkpoint.arguments(Responder if tuned else VIKDFForPretraining, config["settings"], "settings")
            ranks = {len(value) for name, value in weights.items() if ".lora_A." in name}
            if tuned and ranks != {said["lora_rank"]} - {0}:
                raise ValueError(
                    f"lora_rank is {said['lora_rank']}, but the weights hold LoRAs of the ranks {[*ranks]}"
                )
        settings = (said if tuned else {"describe": said["iaci_prompts"][0]}) | settings
        if not tuned:  # of the heads of the five losses, only TAMIM's is of use without them
            kept = ("source.", "tamim.") if config["tamim"] else ("source.",)
            weights = {name: value for name, value in weights.items() if name.startswith(kept)}
        clip = CLIP.load(found["clip"]) if config["source"] else None
        parts = checkpoint.build(lambda: knowing(config, clip), config, weights, cls.FROZEN, folder)
        made = cls(LLM.load(found["llm"]), parts["source"], parts["tamim"], **settings)
        checkpoint.load_trained(made, weights, cls.FROZEN, folder, lora=tuned)
        return made


def knowing(config: dict, clip: CLIP | None) -> nn.ModuleDict:
    """What a config.json describes beside the LLM, untrained: source and tamim, None where there is none."""
    made = nn.ModuleDict({"source": None, "tamim": None})
    if config["source"]:
        made["source"] = KnowledgeSource.from_config(config["source"], clip)
    if config["tamim"]:
        shape = checkpoint.arguments(TAMIM, config["tamim"], "tamim")
        if (shape["pixels"], shape["patch"]) != (clip.pixels, clip.patch):
            raise ValueError(f"tamim has pixels {shape['pixels']} and patch {shape['patch']}, unlike CLIP")
        made["tamim"] = TAMIM(**shape)
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
