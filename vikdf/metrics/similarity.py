"""`similarity`: F of the best cosines between contextual word pieces, as BERTScore (Zhang et al., ICLR 2020), over a local encoder.

In: a folder of a text encoder in Hugging Face's form (config.json, *.safetensors, tokenizer). Out: 0 to 1 for each answer.
    answers = Answers(hypotheses, [references], encoder=similarity.load(Path("data/backbones/bert")))
The last layer's states; every piece but the special ones counts the same (no idf), no rescaling; the best over the
references; an empty text scores 0. Nothing is downloaded, no code from the folder is run, no pickle is read. The package
bert-score fetches its models and knows layers by their names, which is why it is not used.

Shapes: n texts of a batch, L pieces, H width.
"""

from array import array
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vikdf import files
from vikdf.metrics.registry import Answers, Block, metric, piece
from vikdf.metrics.words import Ragged

BATCH = 64  # pairs at a time, by length
LONGEST = 512  # pieces of a text, where the encoder has room for as many


@dataclass(frozen=True)
class Encoder:
    name: str
    sha256: str
    model: Any
    tokenizer: Any
    room: int  # pieces of a text, special ones counted: what is longer is cut, and the signature tells how often

    @property
    def signature(self) -> str:
        return f"encoder:{self.name}@{self.sha256}"

    def pieces(self, texts: list[str]) -> Ragged:
        """Ids of the pieces of each text, special ones among them."""
        flat, starts = array("i"), [0]
        for row in self.tokenizer(texts, return_attention_mask=False, verbose=False)["input_ids"]:
            flat.fromlist(row)
            starts.append(len(flat))
        return Ragged(np.array(flat, dtype=np.int32), np.array(starts, dtype=np.int64))


def load(folder: Path) -> Encoder:
    import torch
    from transformers import AutoModel, AutoTokenizer

    from vikdf.model import pretrained  # nothing is made up or run: what the folder lacks is an error

    folder = Path(folder)
    if not (folder / "config.json").is_file() or not any(folder.glob("*.safetensors")):
        raise ValueError(f"{folder} is no text encoder: expected config.json, *.safetensors and a tokenizer in it")
    try:
        tokenizer = pretrained.read(AutoTokenizer, folder, local_files_only=True)
    except (OSError, KeyError) as error:
        told = " ".join(str(error).split())[:200]
        raise ValueError(f"{folder} holds no tokenizer that can be read: {told}") from None
    model, lost = pretrained.weights(AutoModel, folder, torch.float32)
    lost = [name for name in lost if "pooler" not in name]  # the pooler is not read
    if lost:
        raise ValueError(
            f"{folder} lacks {len(lost)} weights that its config.json asks for, as {lost[0]}: copy it anew"
        )
    return _checked(folder, model.eval(), tokenizer)


def _checked(folder: Path, model, tokenizer) -> Encoder:
    if model.config.is_encoder_decoder or not hasattr(model.config, "hidden_size"):
        raise ValueError(
            f"{folder} is no text encoder: expected a model as BERT or RoBERTa, found {model.config.model_type}"
        )
    if tokenizer.pad_token_id is None:
        raise ValueError(f"{folder}: its tokenizer has no padding token, which texts of unequal length need")
    places = getattr(model.config, "max_position_embeddings", LONGEST)
    if model.config.model_type in ("roberta", "xlm-roberta", "camembert"):
        places -= model.config.pad_token_id + 1  # their places are counted from behind the padding's
    return Encoder(folder.resolve().name, files.sha256(folder), model, tokenizer, min(places, LONGEST))


def _states(encoder: Encoder, rows: list[list[int]]) -> list[np.ndarray]:
    """Per text [L, H] unit vectors of its pieces, special ones left out."""
    import torch

    special, room = set(encoder.tokenizer.all_special_ids), encoder.room
    rows = [row if len(row) <= room else [*row[: room - 1], row[-1]] for row in rows]
    longest = max(map(len, rows))
    ids = torch.tensor([row + [encoder.tokenizer.pad_token_id] * (longest - len(row)) for row in rows])  # [n, L]
    mask = torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in rows])
    with torch.inference_mode():
        states = encoder.model(input_ids=ids, attention_mask=mask).last_hidden_state
        states = torch.nn.functional.normalize(states, dim=-1).numpy()
    unknown = encoder.tokenizer.unk_token_id  # a piece of the text like any other
    told = [[place for place, id in enumerate(row) if id not in special or id == unknown] for row in rows]
    return [state[places] for state, places in zip(states, told, strict=True)]


def _f(own: np.ndarray, other: np.ndarray) -> float:
    if not len(own) or not len(other):
        return 0.0
    cosines = own @ other.T
    precision, recall = cosines.max(axis=1).mean(dtype=np.float64), cosines.max(axis=0).mean(dtype=np.float64)
    return min(1.0, 2 * precision * recall / (precision + recall)) if min(precision, recall) > 0 else 0.0


@piece(needs="encoder")
def similar(block: Block) -> dict[str, np.ndarray]:
    """F of each item, the best over its references; how many of its texts were cut."""
    answers, encoder = block.answers, block.answers.encoder
    columns = [encoder.pieces(list(column[block.cut])) for column in (answers.hypotheses, *answers.references)]
    hypotheses, *references = columns
    best = np.zeros(len(hypotheses))
    for column in references:
        order = np.lexsort([hypotheses.lengths, column.lengths])
        for first in range(0, len(order), BATCH):
            items = order[first : first + BATCH]
            sides = [_states(encoder, [side.row(item) for item in items]) for side in (hypotheses, column)]
            best[items] = np.maximum(best[items], [_f(own, other) for own, other in zip(*sides, strict=True)])
    return {"similarity": best, "cut": np.sum([column.lengths > encoder.room for column in columns], axis=0)}


@metric(
    "similarity",
    needs="encoder",
    words=False,
    mean="items",
    layer="last",
    idf="no",
    rescaled="no",
    special="left-out",
    cut=lambda answers: answers.sum("cut"),
)
def similarity(answers: Answers) -> float:
    return 100 * answers.mean("similarity")
