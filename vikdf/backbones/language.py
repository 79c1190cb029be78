"""A small language model from scratch: documents in, a Llama folder of transformers with tokenizer and chat template out.

A document is a line `hint<TAB>turn<TAB>turn ...`. The hint stands where knowledge stands later, at the head of the first
user message; it is read but never predicted, since its words are drawn at random.
"""

from pathlib import Path

from vikdf.backbones import tokenizer as tokenizers
from vikdf.backbones.optimise import optimise

SPECIALS = {"pad_token": "<|pad|>", "bos_token": "<|start|>", "eos_token": "<|end|>"}
ROLES = {"user": "<|user|>", "assistant": "<|assistant|>", "system": "<|system|>"}
CHAT_TEMPLATE = (
    "<|start|>{% for message in messages %}"
    "{{ '<|' + message['role'] + '|>' + message['content'] + '<|end|>' }}"
    "{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


def encode(tokenizer, document: str) -> tuple[list[int], list[int]]:
    """Token ids of a document in the chat template, and its labels: -100 on the hint and on the template's own tokens."""
    hint, *turns = document.split("\t")
    said = [tokenizer.encode(turn, add_special_tokens=False) for turn in turns]
    if len(said) % 2:  # the last turn is the assistant's: an odd dialogue opens with an empty user turn
        said.insert(0, [])
    start, end = tokenizer.bos_token_id, tokenizer.eos_token_id
    ids, labels = [start], [-100]
    for i, turn in enumerate(said):
        role = tokenizer.convert_tokens_to_ids(ROLES["assistant" if i % 2 else "user"])
        head = tokenizer.encode(hint, add_special_tokens=False) if i == 0 and hint else []
        ids += [role, *head, *turn, end]
        labels += [-100] * (1 + len(head)) + [*turn, end]
    return ids, labels


def pad(rows: list[list[int]], value: int):
    import torch

    return torch.nn.utils.rnn.pad_sequence([torch.tensor(row) for row in rows], batch_first=True, padding_value=value)


def reads(model, tokenizer, documents: list[str]) -> dict[str, float]:
    """How well the answer's words that stand in the hint are predicted: the skill that makes knowledge of use."""
    import torch

    right = count = 0
    for first in range(0, len(documents), 100):
        rows = documents[first : first + 100]
        coded = [encode(tokenizer, row) for row in rows]
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


def config(width: int, layers: int, vocabulary: int) -> dict:
    """The keys of LlamaConfig that decide its shape and its start."""
    return {
        "vocab_size": vocabulary,
        "hidden_size": width,
        "intermediate_size": 3 * width,
        "num_hidden_layers": layers,
        "num_attention_heads": width // 32,
        "max_position_embeddings": 512,
        "initializer_range": 0.07,  # with the usual 0.02 copying did not emerge in some hundred steps
        "tie_word_embeddings": True,
    }


def make_model(tokenizer, width: int, layers: int):
    from transformers import LlamaConfig, LlamaForCausalLM

    shape = LlamaConfig(
        **config(width, layers, len(tokenizer)),
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    return LlamaForCausalLM(shape)


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
) -> dict:
    """Trains, checks on held-back documents that the model reads its prompt (at least `must_read` of the words), saves."""
    import numpy as np
    import torch

    documents = texts.read_text().splitlines()
    specials = SPECIALS | {"extra_special_tokens": list(ROLES.values())}
    tokenizer = tokenizers.train((doc.replace("\t", " ") for doc in documents), vocabulary, specials)
    tokenizer.chat_template = CHAT_TEMPLATE
    coded = [encode(tokenizer, document) for document in documents]
    held = len(coded) // 20
    torch.manual_seed(seed)
    model = make_model(tokenizer, width, layers)
    rng = np.random.default_rng(seed)

    def loss():
        rows = [coded[row] for row in rng.integers(held, len(coded), batch)]
        ids = pad([ids for ids, _ in rows], tokenizer.pad_token_id)  # [B, L]
        labels = pad([labels for _, labels in rows], -100)
        hidden = model.model(ids).last_hidden_state[:, :-1]  # causal, padded on the right: no mask is needed
        at = labels[:, 1:] != -100
        return torch.nn.functional.cross_entropy(model.lm_head(hidden[at]), labels[:, 1:][at])

    model.train()
    final = optimise(model, loss, steps=steps, learning_rate=learning_rate, name=output.name)
    model.eval()
    scores = {"loss": final, "held_back": held, **reads(model, tokenizer, documents[:held])}
    if scores["read_accuracy"] < must_read:
        raise ValueError(
            f"the language model cannot read its prompt: {scores['read_accuracy']:.2f} of the words that stand in the hint were "
            f"answered, {must_read} is needed. A frozen model that cannot read makes no use of knowledge: "
            "raise its steps below backbones.models in params.yaml"
        )
    model.generation_config.do_sample = False
    model.save_pretrained(output)
    tokenizer.save_pretrained(output)
    return scores
