"""A small language model from scratch: documents in, a folder of transformers with tokenizer and chat template out.
It is a Llama, or of another family (vikdf.backbones.family), with that family's kind of template.

A document is a line `hint<TAB>turn<TAB>turn ...`. The hint stands where knowledge stands later, at the head of the first
user message; it is read but never predicted, since its words are drawn at random.
"""

from pathlib import Path

from vikdf.backbones import family as families
from vikdf.backbones import tokenizer as tokenizers
from vikdf.backbones.optimise import optimise


def encode(tokenizer, document: str, family: str = "llama") -> tuple[list[int], list[int]]:
    """Token ids of a document in the chat template, and its labels: -100 on the hint and on the template's own tokens,
    but for the one that ends a turn."""
    hint, *turns = document.split("\t")
    turns = turns if len(turns) % 2 == 0 else ["", *turns]  # the last turn is the assistant's, the first the user's
    said = tokenizer(turns, add_special_tokens=False).input_ids
    first, *rest = tokenizer(families.named(family).around(len(turns)), add_special_tokens=False).input_ids
    head = tokenizer.encode(hint, add_special_tokens=False) if hint else []
    ids, labels = [*first, *head], [-100] * len(first + head)
    for turn, (end, *behind) in zip(said, rest, strict=True):
        ids += [*turn, end, *behind]
        labels += [*turn, end] + [-100] * len(behind)
    return ids[: len(ids) - len(behind)], labels[: len(labels) - len(behind)]  # nothing follows the last end


def pad(rows: list[list[int]], value: int):
    import torch

    return torch.nn.utils.rnn.pad_sequence([torch.tensor(row) for row in rows], batch_first=True, padding_value=value)


def reads(model, tokenizer, documents: list[str], family: str = "llama") -> dict[str, float]:
    """How well the answer's words that stand in the hint are predicted: the skill that makes knowledge of use."""
    import torch

    right = count = 0
    for first in range(0, len(documents), 100):
        rows = documents[first : first + 100]
        coded = [encode(tokenizer, row, family) for row in rows]
        ids = pad([ids for ids, _ in coded], tokenizer.pad_token_id)  # [B, L]
        with torch.no_grad():
            guessed = model(ids, attention_mask=(ids != tokenizer.pad_token_id).long()).logits.argmax(-1)
        for i, row in enumerate(rows):
            hint, *_, answer = row.split("\t")
            hinted = set(tokenizer.encode(hint, add_special_tokens=False))
            spoken = tokenizer.encode(answer, add_special_tokens=False)
            place = len(coded[i][0]) - 1 - len(spoken)
            for j, token in enumerate(spoken):
                if token in hinted:
                    right += int(guessed[i, place + j - 1] == token)
                    count += 1
    return {"read_accuracy": right / count, "read_words": count}


def config(width: int, layers: int, vocabulary: int, family: str = "llama") -> dict:
    """The keys of the family's configuration that decide its shape and its start."""
    shared = families.named(family).share
    return {
        "vocab_size": vocabulary,
        "hidden_size": width,
        "intermediate_size": 3 * width,
        "num_hidden_layers": layers,
        "num_attention_heads": width // 32,
        "max_position_embeddings": 512,
        "initializer_range": 0.07,  # with the usual 0.02 copying did not emerge in some hundred steps
        "tie_word_embeddings": True,
    } | ({"num_key_value_heads": max(1, width // 32 // shared)} if shared > 1 else {})


def make_tokenizer(documents: list[str], vocabulary: int, family: str):
    kind = families.named(family)
    specials = kind.specials | {"extra_special_tokens": kind.extra}
    made = tokenizers.train((document.replace("\t", " ") for document in documents), vocabulary, specials)
    made.chat_template = kind.template
    return made


def as_read(tokenizer, output: Path, width: int, layers: int, family: str):
    """The tokenizer as the folder will give it back: some families' own class cuts texts in another way (Qwen2: no space before
    the first word), and a model that learned other tokens than it is asked with answers nothing."""
    from transformers import AutoTokenizer

    from vikdf.model import pretrained

    tokenizer.save_pretrained(output)
    configuration(tokenizer, width, layers, family).save_pretrained(output)
    return pretrained.read(AutoTokenizer, output)


def configuration(tokenizer, width: int, layers: int, family: str):
    from transformers import AutoConfig

    ids = {key: getattr(tokenizer, key) for key in ("pad_token_id", "bos_token_id", "eos_token_id")}
    return AutoConfig.for_model(family, **config(width, layers, len(tokenizer), family), **ids)


def make_model(tokenizer, width: int, layers: int, family: str):
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_config(configuration(tokenizer, width, layers, family))


def train(
    *,
    texts: Path,
    output: Path,
    seed: int,
    steps: int,
    batch: int,
    learning_rate: float,
    width: int,
    layers: int,
    vocabulary: int,
    must_read: float,
    family: str = "llama",
) -> dict:
    """Trains, checks on held-back documents that the model reads its prompt (at least `must_read` of the words), saves."""
    import numpy as np
    import torch

    documents = texts.read_text().splitlines()
    made = make_tokenizer(documents, vocabulary, family)
    tokenizer = as_read(made, output, width, layers, family)
    coded = [encode(tokenizer, document, family) for document in documents]
    held = len(coded) // 20
    torch.manual_seed(seed)
    model = make_model(tokenizer, width, layers, family)
    rng = np.random.default_rng(seed)

    def loss():
        rows = [coded[row] for row in rng.integers(held, len(coded), batch)]
        ids = pad([ids for ids, _ in rows], tokenizer.pad_token_id)  # [B, L]
        labels = pad([labels for _, labels in rows], -100)
        hidden = model.model(ids).last_hidden_state[:, :-1]  # causal, padded on the right: no mask is needed
        at = labels[:, 1:] != -100
        return torch.nn.functional.cross_entropy(model.lm_head(hidden[at]), labels[:, 1:][at])

    final = optimise(model, loss, steps=steps, learning_rate=learning_rate, name=output.name)
    scores = {"loss": final, "held_back": held, **reads(model, tokenizer, documents[:held], family)}
    if scores["read_accuracy"] < must_read:
        raise ValueError(
            f"the language model cannot read its prompt: {scores['read_accuracy']:.2f} of the words that stand in the hint were "
            f"answered, {must_read} is needed. A frozen model that cannot read makes no use of knowledge: "
            "raise its steps below backbones.models in params.yaml"
        )
    model.generation_config.do_sample = False
    model.save_pretrained(output)
    made.save_pretrained(output)  # as read it would say where it was read from
    return scores
