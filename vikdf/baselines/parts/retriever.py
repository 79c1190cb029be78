"""Maria's retriever: a text finds its picture, by what frozen BERT and a frozen picture encoder make of the two.

In: image-text pairs. Out: retriever.safetensors (the two heads), retriever.json, an index over all pictures
(vikdf/baselines/parts/index.py) and their concepts (vikdf/baselines/parts/regions.py); then, for texts, unit vectors.

Each side: frozen features -> linear -> ReLU -> linear -> ReLU -> linear, dropout between, length 1. A text's features are
[CLS] of BERT's last four layers (or, `pool: mean`, the mean of the tokens: a BERT that was taught no sentences tells nothing in
[CLS]), a picture's what its encoder pools; it is shown as it is, where Maria crops and mirrors it at random.
Objective: max(0, margin - s(text, picture) + s(text, wrong picture)), s the cosine; here the mean of a step, where Maria sums.
A text's wrong picture is that of one other pair, half a batch on (`wrong: one`, Maria's), or of each other pair in turn, of
which the mean counts (`wrong: all`: it learns more from as many pairs, where there are few steps).

Shapes: B batch, S side of the picture, J joint width.
"""

from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vikdf import files, place
from vikdf.baselines.parts import berts, regions
from vikdf.baselines.parts.index import Index, chosen
from vikdf.baselines.parts.sights import Eye
from vikdf.model import checkpoint, pretrained
from vikdf.model.lesson import Lesson
from vikdf.model.words import Words

WEIGHTS, ABOUT = "retriever.safetensors", "retriever.json"
LAYERS = 4  # of BERT, whose [CLS] are read
AT_ONCE = 64  # pictures, while the index is made


def head(width: int, hidden: int, joint: int, dropout: float) -> nn.Sequential:
    between = [nn.ReLU(), nn.Dropout(dropout)]
    return nn.Sequential(
        nn.Linear(width, hidden), *between, nn.Linear(hidden, hidden), *between, nn.Linear(hidden, joint)
    )


class TextSide(nn.Module):
    """Texts -> unit vectors [B, J]."""

    def __init__(self, bert, words: Words, *, hidden: int, joint: int, dropout: float, tokens: int, pool: str):
        super().__init__()
        self.bert, self.words, self.tokens, self.pool = bert.eval().requires_grad_(False), words, tokens, pool
        self.layers = min(LAYERS, bert.config.num_hidden_layers)
        self.head = head(self.layers * bert.config.hidden_size, hidden, joint, dropout)

    @classmethod
    def make(cls, folder: Path, settings: dict) -> "TextSide":
        return cls(berts.load(folder)[0], Words.load(folder), **settings)

    def train(self, mode: bool = True) -> "TextSide":
        super().train(mode)
        self.bert.eval()  # frozen: no dropout
        return self

    def forward(self, contexts: list[list[str]]) -> Tensor:
        """Of a dialogue too long what was said last is read."""
        words = self.words
        rows = [[words.start, *row, words.end] for row in words.join(contexts, self.tokens - 2)]
        ids, mask = words.pad(rows, self.head[0].weight.device)
        with torch.no_grad():
            states = self.bert(ids, attention_mask=mask, output_hidden_states=True).hidden_states
        features = torch.cat([self.pooled(state, mask) for state in states[-self.layers :]], dim=-1)
        return F.normalize(self.head(features), dim=-1)

    def pooled(self, states: Tensor, mask: Tensor) -> Tensor:
        """[B, L, W] -> [B, W]."""
        if self.pool == "cls":
            return states[:, 0]
        real = mask[..., None].to(states.dtype)
        return (states * real).sum(1) / real.sum(1)


class PictureSide(nn.Module):
    """Prepared pictures [B, 3, S, S], in bytes -> unit vectors [B, J]."""

    def __init__(self, encoder, eye: Eye, *, hidden: int, joint: int, dropout: float):
        super().__init__()
        self.encoder, self.eye = encoder.eval().requires_grad_(False), eye
        self.head = head(encoder.config.hidden_size, hidden, joint, dropout)

    @classmethod
    def make(cls, folder: Path, settings: dict) -> "PictureSide":
        from transformers import AutoModel

        return cls(pretrained.load(AutoModel, folder), Eye.load(folder), **settings)

    def train(self, mode: bool = True) -> "PictureSide":
        super().train(mode)
        self.encoder.eval()
        return self

    def forward(self, pictures: Tensor) -> Tensor:
        with torch.no_grad():
            seen = self.eye.normal(pictures).to(self.encoder.dtype)
            pooled = self.encoder(seen).pooler_output.flatten(1)
        return F.normalize(self.head(pooled.float()), dim=-1)


class RetrieverLesson(Lesson):
    """What Maria learns from image-text pairs, and the index that comes of it."""

    def __init__(self, text: TextSide, pictures: PictureSide, entry: dict, folders: dict[str, Path]):
        super().__init__()
        self.text, self.picture, self.entry, self.folders = text, pictures, entry, folders

    @classmethod
    def make(cls, entry: dict, backbones: Path, seed: int) -> "RetrieverLesson":
        torch.manual_seed(seed)
        folders = {key: backbones / entry[key] for key in ("bert", "vit", "detector")}
        shape = {key: entry["retriever"][key] for key in ("hidden", "joint", "dropout")}
        text = TextSide.make(folders["bert"], shape | {key: entry["retriever"][key] for key in ("tokens", "pool")})
        return cls(text, PictureSide.make(folders["vit"], shape), entry, folders)

    def frozen(self) -> list[nn.Module]:
        return [self.text.bert, self.picture.encoder]

    def prepare(self, picture) -> Tensor:
        return self.picture.eye.prepare(picture)

    def counts(self, batch: dict) -> dict[str, int]:
        return {"match": len(batch["captions"])}

    def forward(self, batch: dict, whole: dict[str, float]) -> tuple[Tensor, dict[str, Tensor]]:
        texts, pictures = self.text([[text] for text in batch["captions"]]), self.picture(batch["pictures"])
        share = self.mismatch(texts, pictures).sum() / whole["match"]
        return share, {"match": share}

    def mismatch(self, texts: Tensor, pictures: Tensor) -> Tensor:
        return mismatch(texts, pictures, self.entry["retriever"]["margin"], self.entry["retriever"]["wrong"])

    def judge(self, batches: Iterator[dict]) -> dict[str, float]:
        """The objective, and how often a text's own picture is the first of all, or among the first ten."""
        seen = [
            (self.text([[text] for text in batch["captions"]]), self.picture(batch["pictures"])) for batch in batches
        ]
        texts, pictures = (torch.cat(side).float().cpu() for side in zip(*seen, strict=True))  # [held back, J] both
        index = Index.build([*map(str, range(len(pictures)))], pictures)
        places, _ = index.search(texts, top=min(10, len(index)))
        own = torch.from_numpy(places) == torch.arange(len(texts))[:, None]  # [held back, 10]
        loss = self.mismatch(texts, pictures).mean().item()
        scores = {"recall_at_1": own[:, :1], "recall_at_10": own}
        scores = {name: hit.any(dim=1).float().mean().item() for name, hit in scores.items()}
        return {"validation": loss, "held_back": len(texts), "recall_at_1_by_chance": 1 / len(texts)} | scores

    @torch.no_grad()
    def write(self, folder: Path, shards) -> None:
        """Heads, index and concepts of the pictures of the shards."""
        folder, device = Path(folder), place.process().device
        rows, names, settings = chosen(shards, self.entry["index"])
        detector = regions.Detector.load(self.folders["detector"], self.entry["regions"]).to(device)
        self.eval()

        def opened() -> Iterator[list]:
            for start in range(0, len(rows), AT_ONCE):
                yield [shards[row]["image"] for row in rows[start : start + AT_ONCE]]

        vectors = [self.picture(torch.stack([*map(self.prepare, part)]).to(device)).float().cpu() for part in opened()]
        Index.build(names, torch.cat(vectors), **settings).save(folder)
        regions.Concepts.of(detector, opened()).save(folder)
        heads = {name: value.cpu() for name, value in self.state_dict().items() if ".head." in name}
        with files.whole(folder / WEIGHTS) as aside:
            files.save_tensors(heads, aside)
        frozen = {key: checkpoint.name_part(path) for key, path in self.folders.items()}
        files.write_json(folder / ABOUT, {"retriever": self.entry["retriever"], "frozen": frozen})


def mismatch(texts: Tensor, pictures: Tensor, margin: float, wrong: str) -> Tensor:
    """The hinge of each pair [B]."""
    own = (texts * pictures).sum(-1)
    if wrong == "one":
        return F.relu(margin - own + (texts * pictures.roll(len(pictures) // 2, dims=0)).sum(-1))
    each = F.relu(margin - own[:, None] + texts @ pictures.T)  # [B, B]
    return (each.sum(1) - each.diagonal()) / max(1, len(texts) - 1)


class Retriever(nn.Module):
    """Dialogues -> places of their nearest pictures; nothing in it is trained any more."""

    def __init__(self, text: TextSide, index: Index):
        super().__init__()
        self.text, self.index, self.known = text.requires_grad_(False), index, {}

    @classmethod
    def load(cls, folder: Path, bert: Path) -> "Retriever":
        """From what `write` left in the folder, with the BERT that it was trained on."""
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        folder = Path(folder)
        if lost := [name for name in (ABOUT, WEIGHTS) if not (folder / name).is_file()]:
            raise ValueError(
                f"{folder} holds no retriever, {lost[0]} is missing: run the stage pretrain of this system"
            )
        about = files.read_json(folder / ABOUT)
        if changed := checkpoint.differences(bert, about["frozen"]["bert"]):
            raise ValueError(
                f"{bert} is not the BERT that {folder} was trained with: {changed}; train the retriever again"
            )
        text = TextSide.make(
            bert, {key: value for key, value in about["retriever"].items() if key not in ("margin", "wrong")}
        )
        try:
            weights = load_file(folder / WEIGHTS)
            text.head.load_state_dict(_of(weights, "text.head."))
        except (SafetensorError, RuntimeError) as error:
            raise ValueError(
                f"{folder / WEIGHTS} does not fit ({error}): copy the folder anew, or train it again"
            ) from None
        return cls(text, Index.load(folder))

    def train(self, mode: bool = True) -> "Retriever":
        return super().train(False)  # frozen: no dropout, also while the generator learns

    @torch.no_grad()
    def forward(self, contexts: list[list[str]]) -> list[int]:
        """The nearest picture of each dialogue; a dialogue that was asked before is known, since nothing here changes."""
        keys = ["\n".join(turns) for turns in contexts]
        new = {key: turns for key, turns in zip(keys, contexts, strict=True) if key not in self.known}
        if new:
            places, _ = self.index.search(self.text([*new.values()]).float().cpu())
            self.known |= dict(zip(new, places[:, 0].tolist(), strict=True))
        return [self.known[key] for key in keys]


def _of(weights: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in weights.items() if name.startswith(prefix)}
