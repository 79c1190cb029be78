"""The large language model (section 3.1.3): any causal LM of transformers, by folder, frozen.

    llm = LLM.load("data/backbones/llm")
    rows = llm.rows([[llm.tokenize(["what colour is the kettle?"])[0]]], knowledge=8)
    ids, mask = llm.pad(rows)
    states = llm.states(llm.embed(ids, K))

A row is a list of token ids in the model's own chat template; KNOWLEDGE in a row is a place for one knowledge vector.
Knowledge stands at the start of the first user message. User text can hold no control token. Models without a template
get PLAIN. No family of models has code of its own here: what a model does between states and logits, it does itself.

Shapes: B batch, L positions, n knowledge vectors, H LLM width, V vocabulary.
"""

import copy
import functools
import os
import re
import warnings
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers.modeling_outputs import BaseModelOutputWithPast

from vikdf.model import pretrained

KNOWLEDGE = -1

# For models without a chat template. New lines, not spaces, stand around the text: a space would merge with a word.
PLAIN = (
    "{{ bos_token }}{% for message in messages %}{{ message['role'].title() + ':\n' + message['content'] + '\n' }}"
    "{% if message['role'] == 'assistant' %}{{ eos_token }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'Assistant:\n' }}{% endif %}"
)
SLOT = re.compile("⟦([0-9]+)⟧")  # where a turn stands in a rendered template
CONTROL_WORD = re.compile(r"<[^\s<>]+>|\[[^\s\[\]]+\]")  # "[INST]", "<<SYS>>": control words that are plain text
SYSTEM = "a system message"  # to ask a template whether it shows one
DATE = "26 Jul 2024"  # for templates that name the day: the same prompt every day (the default of Llama 3.1's template)


class LLM(nn.Module):
    def __init__(self, model, tokenizer, folder: Path | None = None):
        super().__init__()
        self.model, self.tokenizer, self.folder = model.eval().requires_grad_(False), tokenizer, folder
        if not tokenizer.chat_template:
            tokenizer.chat_template = PLAIN
        self.width = model.get_input_embeddings().embedding_dim
        self.end = tokenizer.eos_token_id
        if self.end is None:
            raise ValueError(f"the tokenizer in {folder} names no eos_token: expected one, since it ends every answer")
        self.body = next(name for name, module in model.named_modules() if module is model.get_decoder())
        self.ends = ends_of(model, self.end)
        special = {i for i, token in tokenizer.added_tokens_decoder.items() if token.special}
        special |= set(tokenizer.all_special_ids)
        named = {tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id}
        self.control = special - ({tokenizer.unk_token_id} - named)  # an unknown word is text, not control
        first = tokenizer.convert_ids_to_tokens(tokenizer.encode("a", add_special_tokens=False)[:1])[0]
        self.adds_space = first[0] in "▁Ġ"  # then the template's own space before a text would stand twice

    @classmethod
    def load(cls, folder, dtype: torch.dtype | None = None) -> "LLM":
        """dtype: of the frozen weights; None keeps the one that they were saved in."""
        from transformers import AutoModelForCausalLM, AutoTokenizer

        folder = Path(folder)
        if not (folder / "config.json").exists():
            raise ValueError(f"{folder} holds no language model: expected a transformers folder with config.json")
        model = pretrained.load(AutoModelForCausalLM, folder, dtype)
        return cls(model, pretrained.read(AutoTokenizer, folder), folder)

    def train(self, mode: bool = True) -> "LLM":
        return super().train(False)  # frozen: no dropout, also while others train

    @functools.cached_property
    def control_words(self) -> re.Pattern | None:
        """Control words that are not special tokens: of the template, and of the tokenizer ("<think>"); None if none."""
        shown = self._render(3) + (self._render(1, SYSTEM) if self.takes_system else "")
        words = set(CONTROL_WORD.findall(SLOT.sub(" ", shown)))
        added = [token.content for token in self.tokenizer.added_tokens_decoder.values() if not token.special]
        words = sorted(words | set(filter(CONTROL_WORD.fullmatch, added)))
        return re.compile("|".join(map(re.escape, words))) if words else None

    def tokenize(self, texts: list[str]) -> list[list[int]]:
        """Token ids of people's texts. A control token inside is read as the characters that it is written with."""
        if not texts:
            return []
        if self.control_words:
            texts = [self.control_words.sub(lambda word: f"{word[0][0]} {word[0][1:]}", text) for text in texts]
        coded = self.tokenizer(texts, add_special_tokens=False, split_special_tokens=True).input_ids
        return [[i for i in row if i not in self.control] for row in coded]

    @functools.cached_property
    def takes_system(self) -> bool:
        """Whether the template shows a system message, once."""
        from jinja2.exceptions import TemplateError

        try:
            return self._render(1, SYSTEM).count(SYSTEM) == 1
        except (TemplateError, ValueError):
            return False

    def _render(self, turns: int, system: str = "") -> str:
        """The template around marked messages. One that refuses to go without a system message gets an empty one."""
        from jinja2.exceptions import TemplateError

        roles = ["user", "assistant"] * (turns // 2 + 1)
        messages = [{"role": roles[i], "content": f"⟦{i}⟧"} for i in range(turns + 1)]
        messages = ([{"role": "system", "content": system}] if system else []) + messages
        render = functools.partial(self.tokenizer.apply_chat_template, tokenize=False, date_string=DATE)
        try:
            return render(messages)
        except TemplateError as refused:
            try:
                return render([{"role": "system", "content": ""}, *messages])
            except TemplateError:
                raise ValueError(
                    f"the chat template of {self.folder} refuses messages of user and assistant in turns ({refused}): "
                    "expected one that takes them, with or without a system message"
                ) from None

    @functools.lru_cache(maxsize=64)  # noqa: B019 - one LLM lives as long as the process
    def frame(self, turns: int, system: str = "") -> list[list[int]]:
        """The template's own tokens before each of `turns` texts (odd; the last is the user's) and the answer; a system
        message, if there is one, stands where the template puts it."""
        pieces = SLOT.split(self._render(turns, system))
        if pieces[1::2] != [str(i) for i in range(turns + 1)]:
            raise ValueError(
                f"the chat template of {self.folder} does not show {turns + 1} messages once each, in order"
            )
        pieces = pieces[0:-1:2]
        if self.adds_space:
            pieces = [piece.removesuffix(" ") for piece in pieces]
            pieces = pieces[:1] + [piece.removeprefix(" ") for piece in pieces[1:]]
        return self.tokenizer(pieces, add_special_tokens=False, split_special_tokens=False).input_ids

    def rows(self, dialogues: list[list[list[int]]], knowledge: int, system: str = "") -> list[list[int]]:
        """Prompts up to where the answer begins; `knowledge` vectors stand at the start of the first user message.

        The last turn is the user's and roles alternate. A dialogue that would open with the assistant gets an empty
        user message before it, since many templates refuse it otherwise.
        """
        rows = []
        for turns in dialogues:
            turns = turns if len(turns) % 2 else [[], *turns]
            first, *between, last = self.frame(len(turns), system)
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

        The rows hold no vector that is trained, so their keys and values need no graph; and what all of them begin with
        (template and prompt) is read once. (Not for an LLM with LoRA.)
        """
        same = min(len(os.path.commonprefix(rows)), min(map(len, rows)) - 1)  # a row's last token is always its own
        if getattr(self.model.config.get_text_config(), "sliding_window", None):
            same = 0  # a window counts places: padding between the start and the rest would shift it
        ids, mask = self.pad([row[same:] for row in rows], "left")  # [B, L - same]
        whole = torch.cat([mask.new_ones(len(rows), same), mask], dim=1)  # [B, L]
        places = (whole.cumsum(1) - 1).clamp(min=0)
        with torch.no_grad():
            known = {"past_key_values": self._read_once(rows[0][:same], len(rows))} if same else {}
            own = {"attention_mask": whole, "position_ids": places[:, same:]}
            read = self.model.base_model(ids, **own, **known, use_cache=True)
        if not x.shape[1]:
            return read.last_hidden_state[:, -1:]
        whole = torch.cat([whole, mask.new_ones(x.shape[:2])], dim=1)  # [B, L + n]
        states = self.model.base_model(
            inputs_embeds=x.to(read.last_hidden_state.dtype),
            attention_mask=whole,
            position_ids=places[:, -1:] + 1 + torch.arange(x.shape[1], device=x.device),
            past_key_values=read.past_key_values,
            use_cache=True,
        ).last_hidden_state
        return torch.cat([read.last_hidden_state[:, -1:], states], dim=1)

    def _read_once(self, start: list[int], rows: int):
        """Keys and values of tokens that so many rows begin with."""
        ids = torch.tensor([start], device=next(self.model.parameters()).device)
        cache = self.model.base_model(ids, use_cache=True).past_key_values
        cache.batch_repeat_interleave(rows)
        return cache

    def nll(self, states: Tensor, ids: Tensor, scored: Tensor) -> Tensor:
        """-log P of the tokens marked in scored [B, L], row after row: [tokens]. The head runs at these places only.

        states [B, L - 1, H] or more: nothing follows the last token, so its state need not be computed.
        """
        at = scored[:, 1:].bool()
        return F.cross_entropy(self.logits(states[:, : at.shape[1]][at]).float(), ids[:, 1:][at], reduction="none")

    def logits(self, states: Tensor) -> Tensor:
        """Last hidden states [tokens, H] -> [tokens, V], by the model's own forward: some scale or cap what the head gives."""
        return self._given_states()(inputs_embeds=states[None], use_cache=False).logits[0]

    def _given_states(self):
        """The model, all its parts shared, but with a body that takes its input for the last hidden states."""
        top = place = _twin(self.model)
        for name in self.body.split("."):
            inner = place._modules[name] = _twin(place._modules[name])
            place = inner
        place.forward = lambda *_, inputs_embeds, **__: States(last_hidden_state=inputs_embeds)
        return top

    @torch.no_grad()
    def generate(self, rows: list[list[int]], K: Tensor | None, **decoding) -> list[str]:
        """Answers to prompts, one batch, padded on the left; `decoding` as in transformers' GenerationConfig."""
        from transformers import GenerationConfig

        ids, mask = self.pad(rows, "left")
        config = GenerationConfig(do_sample=False, pad_token_id=self.end, eos_token_id=self.ends, **decoding)
        with warnings.catch_warnings():  # n-grams are counted in the answer alone: that is what is meant
            warnings.filterwarnings("ignore", message=".*no_repeat_ngram_size.*")
            made = self.model.generate(inputs_embeds=self.embed(ids, K), attention_mask=mask, generation_config=config)
        return [text.strip() for text in self.tokenizer.batch_decode(made, skip_special_tokens=True)]


class States(BaseModelOutputWithPast):
    """What a body gives, where only its last hidden states are known: the rest (attentions, router losses) is None."""

    def __getattr__(self, name: str):
        if name.startswith("__"):
            raise AttributeError(name)


def _twin(module: nn.Module) -> nn.Module:
    """The same module, whose parts can be exchanged without changing it."""
    made = copy.copy(module)
    made._modules = dict(module._modules)
    return made


def ends_of(model, end: int) -> list[int]:
    """The tokens that end an answer. All else that the checkpoint says of decoding is dropped: `generate` decides that."""
    from transformers import GenerationConfig

    ends = model.generation_config.eos_token_id
    model.generation_config = GenerationConfig()
    return sorted({end, *(ends if isinstance(ends, list) else [ends] if ends is not None else [])})
