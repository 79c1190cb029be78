"""Maria (Liang et al., 2021): a picture is retrieved for a dialogue; its concepts' names and features are read beside the context.

In: what the system learned from image-text pairs (vikdf/baselines/parts/retriever.py: retriever, index, concepts of each
picture), a BERT for the generator to begin with (the original's is a UniLM), dialogues to tune on. Out: answers, and how likely a
given answer is.

Objective, the sum of two means over a step's hidden tokens, 80/10/10 as BERT's:
    masked   cross-entropy of hidden response tokens (70 %, the end among them; the response reads from left to right)
             and hidden context tokens (15 %), with the visual knowledge bias on the logits
    tags     of hidden tags (15 %) whichever order fits best (Hungarian matching): a picture's concepts have none
Answering appends [MASK], predicts, and repeats. The NLL is that of this very reading, exact and in one pass: each response token
stands twice, as itself for those that follow, and as a [MASK] that sees only what stands before it.

Mended, each an error of the published code: the bias is of the dialogue's own picture, not of the batch's mean, and it is
there in answering as in training; the query is the context alone in training too, as in answering (there the response was
added); a context too long loses its beginning, not its tags; slots of one dialogue's tags are never matched with another's.
Shapes: B batch, L context tokens, R regions, T response tokens with [SEP], W width, V vocabulary.
"""

from pathlib import Path

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor
from torch.nn import functional as F

from vikdf.baselines.parts import product
from vikdf.baselines.parts.covers import cover, put
from vikdf.baselines.parts.regions import Concepts
from vikdf.baselines.parts.retriever import Retriever, RetrieverLesson
from vikdf.baselines.parts.told import row_sizes, spoken, told
from vikdf.baselines.parts.visual_bert import Generator, Memory, with_tags
from vikdf.model.answering import Answering, turns_of
from vikdf.model.search import search
from vikdf.model.unified import before, twice
from vikdf.model.words import Words

IMAGES = "retrieved"
KIND = "maria"
NUMBERS = ("context_tokens", "response_tokens", "mask_response", "mask_context", "mask_tags")  # keys of the entry
FROZEN = ("retriever.",)


class Maria(Answering):
    def __init__(
        self,
        generator: Generator,
        retriever: Retriever,
        concepts: Concepts,
        words: Words,
        tags: list[int],
        *,
        folders: dict[str, Path],
        context_tokens: int,
        response_tokens: int,
        mask_response: float,
        mask_context: float,
        mask_tags: float,
    ):
        """
        concepts: of each picture of the retriever's index
        tags: the token of each of the concepts' names
        folders: what it is built from, by name
        context_tokens: of a longer context what was said last is read
        response_tokens: a longer response is learned up to there; all of it is scored
        """
        super().__init__()
        self.generator, self.retriever, self.words, self.folders = generator, retriever, words, folders
        self.concepts, self.tags = concepts, torch.tensor(tags)
        self.settings = {"context_tokens": context_tokens, "response_tokens": response_tokens}
        self.settings |= {"mask_response": mask_response, "mask_context": mask_context, "mask_tags": mask_tags}
        self.regions = concepts.classes.shape[1]

    def frozen(self) -> list[torch.nn.Module]:
        return [self.retriever.text.bert]

    @property
    def device(self) -> torch.device:
        return self.generator.decoder.weight.device

    def retrieve(self, contexts: list[list[str]]) -> list[int]:
        """The picture of each dialogue, by its place in the index."""
        return self.retriever(contexts)

    def prompts(self, contexts: list[list[str]]) -> list[list[int]]:
        joined = self.words.join(turns_of(contexts), self.settings["context_tokens"] - 2)
        return [[self.words.start, *row, self.words.end] for row in joined]

    def lengths(self, contexts: list[list[str]]) -> list[int]:
        return [len(row) for row in self.prompts(contexts)]

    def sizes(self, contexts: list[list[str]], responses: list[str]) -> list[int]:
        return row_sizes(self.words, self.lengths, contexts, responses)

    def remember(self, contexts: list[list[int]], tags: list[list[int]], places: list[int]) -> Memory:
        """contexts and tags as ids, some of them hidden or none; places of the retrieved pictures."""
        ids, real = self.words.pad(contexts, self.device)  # [B, L]
        features = self.concepts.features[places].to(self.device, self.generator.region.weight.dtype)  # [B, R, D]
        return self.generator.remember(ids, real, torch.tensor(tags, device=self.device), features)

    def seen(self, contexts: list[list[str]]) -> Memory:
        """Context, tags and regions with nothing hidden; equal contexts are read once."""
        once = {tuple(turns): place for place, turns in enumerate(dict.fromkeys(map(tuple, contexts)))}
        asked = [list(turns) for turns in once]
        places = self.retrieve(asked)
        memory = self.remember(self.prompts(asked), self.tags_of(places), places)
        return memory if len(once) == len(contexts) else memory.pick([once[tuple(turns)] for turns in contexts])

    def tags_of(self, places: list[int]) -> list[list[int]]:
        return self.tags[self.concepts.classes[places]].tolist()

    def nll(self, contexts: list[list[str]], responses: list[str]) -> tuple[Tensor, Tensor]:
        """Each token behind a [MASK] that sees the response before it (vikdf.model.unified)."""
        memory = self.seen(contexts)
        targets, real = self.words.pad(spoken(self.words, responses), self.device)  # [B, T]
        given = torch.cat([torch.full_like(targets[:, :1], self.words.start), targets[:, :-1]], dim=1)
        ids = torch.cat([given, torch.full_like(targets, self.words.mask)], dim=1)  # [B, 2 T]
        count, places = targets.shape[1], torch.arange(targets.shape[1], device=self.device)
        sees = twice(count, self.device)  # [2 T, 2 T]
        states = self.generator.tell(ids, torch.cat([places, places + 1]), sees, memory)[:, count:]
        bias = self.generator.knowledge(memory, self.regions)  # [B, V]
        of = real.nonzero()[:, 0]  # the row of each token
        return told(states, lambda x: self.generator.logits(x) + bias[of], targets, real)

    @torch.no_grad()
    def answers(self, contexts: list[list[str]], **decoding: int) -> list[str]:
        memory = self.seen(contexts)
        kept = {"real": memory.real, "bias": self.generator.knowledge(memory, self.regions)}
        for number, (keys, values) in enumerate(memory.layers):
            kept |= {f"keys_{number}": keys, f"values_{number}": values}
        ends = {"start": self.words.start, "end": self.words.end}
        return self.words.decode(search(self.next, kept, len(contexts), **ends, **decoding))

    def next(self, prefix: Tensor, *, real: Tensor, bias: Tensor, **kept: Tensor) -> Tensor:
        """Logits [rows, V] of the token that a [MASK] behind the prefix [rows, t] stands for."""
        layers = [(kept[f"keys_{number}"], kept[f"values_{number}"]) for number in range(len(kept) // 2)]
        ids = torch.cat([prefix, torch.full_like(prefix[:, :1], self.words.mask)], dim=1)  # [rows, t + 1]
        places = torch.arange(ids.shape[1], device=ids.device)
        states = self.generator.tell(ids, places, before(len(places), ids.device), Memory(layers, real, bias))
        return (self.generator.logits(states[:, -1]) + bias).float()

    def hidden(self, batch: dict) -> tuple[dict[str, list[list[int]]], dict[str, list[dict]]]:
        """Rows of responses and contexts as ids, and what is hidden of them and of the tags."""
        said = [row[: self.settings["response_tokens"]] for row in spoken(self.words, batch["responses"])]
        rows = {"response": said, "context": self.prompts(batch["contexts"])}
        lengths = {name: [*map(len, part)] for name, part in rows.items()} | {"tags": [self.regions] * len(said)}
        drawn = {"lots": batch["lots"], "words": self.words}
        return rows, {
            name: cover(part, share=self.settings[f"mask_{name}"], least=int(name == "response"), salt=salt, **drawn)
            for salt, (name, part) in enumerate(lengths.items())
        }

    def counts(self, batch: dict) -> dict[str, int]:
        hidden = {name: sum(map(len, part)) for name, part in self.hidden(batch)[1].items()}
        return {"masked": hidden["response"] + hidden["context"], "tags": hidden["tags"]}

    def shares(self, batch: dict, whole: dict[str, float]) -> tuple[Tensor, dict[str, Tensor]]:
        rows, hidden = self.hidden(batch)
        places = self.retrieve(batch["contexts"])
        rows["tags"] = self.tags_of(places)
        given = {name: [*map(put, part, hidden[name])] for name, part in rows.items()}
        memory = self.remember(given["context"], given["tags"], places)
        response = self.told_states(given["response"], memory)  # [B, T, W]
        bias = self.generator.knowledge(memory, self.regions)  # [B, V]
        asked = [(response, "response"), (memory.states, "context")]
        masked = sum(self.guessed(states, rows[name], hidden[name], bias) for states, name in asked) / whole["masked"]
        tags = (
            self.matched(self.generator.tag_states(memory, self.regions), rows["tags"], hidden["tags"]) / whole["tags"]
        )
        return masked + tags, {"masked": masked, "tags": tags}

    def told_states(self, said: list[list[int]], memory: Memory) -> Tensor:
        """[B, T, W] of response tokens, each of which sees those before it, behind [CLS], which is cut off."""
        ids, _ = self.words.pad([[self.words.start, *row] for row in said], self.device)
        places = torch.arange(ids.shape[1], device=self.device)
        return self.generator.tell(ids, places, before(len(places), self.device), memory)[:, 1:]

    def guessed(self, states: Tensor, rows: list[list[int]], hidden: list[dict], bias: Tensor) -> Tensor:
        """Summed cross-entropy of the hidden tokens of rows, whose states [B, .., W] stand at their places."""
        found = [(row, place, rows[row][place]) for row, places in enumerate(hidden) for place in places]
        if not found:
            return states.sum() * 0
        row, place, token = torch.tensor(found, device=states.device).T
        logits = self.generator.logits(states[row, place]) + bias[row]
        return F.cross_entropy(logits.float(), token, reduction="sum")

    def matched(self, states: Tensor, tags: list[list[int]], hidden: list[dict]) -> Tensor:
        """Summed cross-entropy of the hidden tags of each row, in the order that suits the guesses [B, R, W] best."""
        total = states.sum() * 0
        for row, places in enumerate(hidden):
            if not places:
                continue
            at, true = [*places], torch.tensor([tags[row][place] for place in places], device=states.device)
            logits = self.generator.logits(states[row, at]).float()  # [hidden, V]
            slots, order = linear_sum_assignment(-logits.detach().softmax(-1)[:, true].cpu().numpy())
            total = total + F.cross_entropy(logits[slots], true[order], reduction="sum")
        return total

    def save(self, folder, *, trained: dict[str, int] | None = None, run: dict | None = None) -> None:
        about = {"settings": self.settings, "frozen": self.folders, "tokenizer": self.words.tokenizer}
        product.write(folder, KIND, product.own(self, FROZEN), **about, trained=trained, run=run)


def build(entry: dict, places, settings: dict) -> Maria:
    """Retriever, concepts and a generator that begins with the weights of the BERT that the entry names for it."""
    if places.pretrained is None:
        raise ValueError("maria needs what it learned from image-text pairs: give its entry the key `pretrain`")
    bert, begun = (places.backbones / entry[key] for key in ("bert", "generator"))
    retriever, concepts = Retriever.load(places.pretrained, bert), Concepts.load(places.pretrained)
    if len(concepts.classes) != len(retriever.index):
        raise ValueError(
            f"{places.pretrained} holds concepts of {len(concepts.classes)} pictures, its index {len(retriever.index)}: "
            "run the stage pretrain of this system again"
        )
    words, tags = with_tags(begun, concepts.names)
    if words.mask is None:
        raise ValueError(f"the tokenizer in {begun} names no mask_token: expected that of a BERT")
    generator = Generator.begin(begun, words, tags, concepts.features.shape[-1])
    folders = {"bert": bert, "generator": begun, "pretrained": places.pretrained}
    return Maria(generator, retriever, concepts, words, tags, folders=folders, **settings)


def learner(entry: dict, start: Path | None, places, lora: dict, seed: int) -> Maria:
    torch.manual_seed(seed)
    return build(entry, places, {key: entry[key] for key in NUMBERS})


def answerer(entry: dict, tuned: Path, places) -> Maria:
    frozen = {key: places.backbones / entry[key] for key in ("bert", "generator")}
    settings, tensors = product.read(tuned, KIND, frozen | {"pretrained": places.pretrained})
    made = build(entry, places, settings)
    product.load(made, tensors, FROZEN, tuned)
    return made


def pretrainer(entry: dict, places, seed: int) -> RetrieverLesson:
    return RetrieverLesson.make(entry, places.backbones, seed)
