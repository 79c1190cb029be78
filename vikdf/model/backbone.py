"""The large language model (section 3.1.3): any causal LM of transformers, by folder, frozen.

    llm = LLM.load("data/backbones/llm")
    rows = llm.rows([[llm.tokenize(["what colour is the kettle?"])[0]]], knowledge=8)
    ids, mask = llm.pad(rows)
    states = llm.states(llm.embed(ids, K))

A row is a list of token ids in the model's own chat template; KNOWLEDGE in a row is a place for one knowledge vector.
Knowledge stands at the start of the first user message. User text can hold no control token. Models without a template
get PLAIN.

Shapes: B batch, L positions, n knowledge vectors, H LLM width, V vocabulary.
"""

import functools
import re
import warnings
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

KNOWLEDGE = -1

# For models without a chat template. New lines, not spaces, stand around the text: a space would merge with a word.
PLAIN = (
    "{{ bos_token }}{% for message in messages %}{{ message['role'].title() + ':\n' + message['content'] + '\n' }}"
    "{% if message['role'] == 'assistant' %}{{ eos_token }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'Assistant:\n' }}{% endif %}"
)
SLOT = re.compile("⟦([0-9]+)⟧")  # where a turn stands in a rendered template
CONTROL_WORD = re.compile(r"<[^\s<>]+>|\[[^\s\[\]]+\]")  # "[INST]", "<<SYS>>": control words that are plain text


class LLM(nn.Module):
    def __init__(self, model, tokenizer, folder: Path | None = None):
        super().__init__()
        self.model, self.tokenizer, self.folder = model.eval().requires_grad_(False), tokenizer, folder
        if not tokenizer.chat_template:
            tokenizer.chat_template = PLAIN
        self.width = model.get_input_embeddings().embedding_dim
        self.end = tokenizer.eos_token_id
        special = {i for i, token in tokenizer.added_tokens_decoder.items() if token.special}
        special |= set(tokenizer.all_special_ids)
        named = {tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id}
        self.control = special - ({tokenizer.unk_token_id} - named)  # an unknown word is text, not control
        first = tokenizer.convert_ids_to_tokens(tokenizer.encode("a", add_special_tokens=False)[:1])[0]
        self.adds_space = first[0] in "▁Ġ"  # then the template's own space before a text would stand twice

    @classmethod
    def load(cls, folder) -> "LLM":
        from transformers import AutoModelForCausalLM, AutoTokenizer
        from transformers.utils import logging

        logging.disable_progress_bar()
        folder = Path(folder)
        if not (folder / "config.json").exists():
            raise ValueError(f"{folder} holds no language model: expected a transformers folder with config.json")
        return cls(AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder), folder)

    def train(self, mode: bool = True) -> "LLM":
        return super().train(False)  # frozen: no dropout, also while others train

    @functools.cached_property
    def control_words(self) -> re.Pattern | None:
        """Control words of the template that its tokenizer reads as plain text; None where there are none."""
        rendered = SLOT.sub(" ", self._render(3))
        words = sorted({word for word in CONTROL_WORD.findall(rendered)})
        return re.compile("|".join(map(re.escape, words))) if words else None

    def tokenize(self, texts: list[str]) -> list[list[int]]:
        """Token ids of people's texts. A control token inside is read as the characters that it is written with."""
        if not texts:
            return []
        if self.control_words:
            texts = [self.control_words.sub(lambda word: f"{word[0][0]} {word[0][1:]}", text) for text in texts]
        coded = self.tokenizer(texts, add_special_tokens=False, split_special_tokens=True).input_ids
        return [[i for i in row if i not in self.control] for row in coded]

    def _render(self, turns: int) -> str:
        roles = ["user", "assistant"] * (turns // 2 + 1)
        messages = [{"role": roles[i], "content": f"⟦{i}⟧"} for i in range(turns + 1)]
        return self.tokenizer.apply_chat_template(messages, tokenize=False)

    @functools.lru_cache(maxsize=64)  # noqa: B019 - one LLM lives as long as the process
    def frame(self, turns: int) -> list[list[int]]:
        """The template's own tokens before each of `turns` texts (odd; the last is the user's) and the answer."""
        pieces = SLOT.split(self._render(turns))
        if pieces[1::2] != [str(i) for i in range(turns + 1)]:
            raise ValueError(
                f"the chat template of {self.folder} does not show {turns + 1} messages once each, in order"
            )
        pieces = pieces[0:-1:2]
        if self.adds_space:
            pieces = [piece.removesuffix(" ") for piece in pieces]
            pieces = pieces[:1] + [piece.removeprefix(" ") for piece in pieces[1:]]
        return self.tokenizer(pieces, add_special_tokens=False, split_special_tokens=False).input_ids

    def rows(self, dialogues: list[list[list[int]]], knowledge: int) -> list[list[int]]:
        """Prompts up to where the answer begins; `knowledge` vectors stand at the start of the first user message.

        The last turn is the user's and roles alternate. A dialogue that would open with the assistant gets an empty
        user message before it, since many templates refuse it otherwise.
        """
        rows = []
        for turns in dialogues:
            turns = turns if len(turns) % 2 else [[], *turns]
            first, *between, last = self.frame(len(turns))
            row = [*first, *[KNOWLEDGE] * knowledge, *turns[0]]
            for template, turn in zip(between, turns[1:], strict=True):
                row += template + turn
            rows.append(row + last)
        return rows

    def pad(self, rows: list[list[int]], side: str = "right") -> tuple[Tensor, Tensor]:
        """ids [B, L] and mask [B, L] (1 = real)."""
        device = next(self.model.parameters()).device
        longest = max(map(len, rows))
        fill = [[0] * (longest - len(row)) for row in rows]
        real = [[1] * len(row) for row in rows]
        joined = [row + gap if side == "right" else gap + row for row, gap in zip(rows, fill, strict=True)]
        mask = [row + gap if side == "right" else gap + row for row, gap in zip(real, fill, strict=True)]
        return torch.tensor(joined, device=device), torch.tensor(mask, device=device)

    def pad_tail(self, rows: list[list[int]], tails: list[int], side: str = "right") -> Tensor:
        """[B, L]: 1 on the last `tails` tokens of each row."""
        marks = [[0] * (len(row) - tail) + [1] * tail for row, tail in zip(rows, tails, strict=True)]
        return self.pad(marks, side)[0]

    def embed(self, ids: Tensor, K: Tensor | None) -> Tensor:
        """Input embeddings [B, L, H]; K [B, n, H] in the places of KNOWLEDGE."""
        x = self.model.get_input_embeddings()(ids.clamp(min=0))
        return x if K is None else x.masked_scatter((ids == KNOWLEDGE)[..., None], K.to(x.dtype))

    def states(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Last hidden states [B, L, H]. Rows padded on the right need no mask: no position sees what follows it."""
        extra = {}
        if mask is not None:
            extra = {"attention_mask": mask, "position_ids": (mask.cumsum(1) - 1).clamp(min=0)}
        return self.model.base_model(inputs_embeds=x, use_cache=False, **extra).last_hidden_state

    def states_behind(self, rows: list[list[int]], x: Tensor) -> Tensor:
        """Last hidden states [B, 1 + n, H] of the last token of each row and of x [B, n, H] that follows it.

        The rows hold no vector that is trained, so their keys and values need no graph. (Not for an LLM with LoRA.)
        """
        ids, mask = self.pad(rows, "left")  # [B, L]
        places = (mask.cumsum(1) - 1).clamp(min=0)
        with torch.no_grad():
            read = self.model.base_model(ids, attention_mask=mask, position_ids=places, use_cache=True)
        whole = torch.cat([mask, mask.new_ones(x.shape[:2])], dim=1)  # [B, L + n]
        states = self.model.base_model(
            inputs_embeds=x.to(read.last_hidden_state.dtype),
            attention_mask=whole,
            position_ids=places[:, -1:] + 1 + torch.arange(x.shape[1], device=x.device),
            past_key_values=read.past_key_values,
            use_cache=True,
        ).last_hidden_state
        return torch.cat([read.last_hidden_state[:, -1:], states], dim=1)

    def nll(self, states: Tensor, ids: Tensor, scored: Tensor) -> Tensor:
        """-log P of the tokens marked in scored [B, L], row after row: [tokens]. The head runs at these places only."""
        at = scored[:, 1:].bool()
        logits = self.model.get_output_embeddings()(states[:, :-1][at]).float()  # [tokens, V]
        return F.cross_entropy(logits, ids[:, 1:][at], reduction="none")

    @torch.no_grad()
    def generate(self, rows: list[list[int]], K: Tensor | None, **decoding) -> list[str]:
        """Answers to prompts, one batch, padded on the left; `decoding` as in transformers' GenerationConfig."""
        from transformers import GenerationConfig

        ids, mask = self.pad(rows, "left")
        ends = self.model.generation_config.eos_token_id
        ends = sorted({self.end, *(ends if isinstance(ends, list) else [ends] if ends is not None else [])})
        config = GenerationConfig(do_sample=False, pad_token_id=self.end, eos_token_id=ends, **decoding)
        with warnings.catch_warnings():  # n-grams are counted in the answer alone: that is what is meant
            warnings.filterwarnings("ignore", message=".*no_repeat_ngram_size.*")
            made = self.model.generate(inputs_embeds=self.embed(ids, K), attention_mask=mask, generation_config=config)
        return [text.strip() for text in self.tokenizer.batch_decode(made, skip_special_tokens=True)]
