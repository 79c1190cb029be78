"""Any model behind an OpenAI-compatible endpoint, such as ChatGPT: prompted, not tuned, and known by its answers alone.

Where it is asked: `url` and `model` of the entry, or OPENAI_BASE_URL and OPENAI_MODEL in their place; the key is
OPENAI_API_KEY. Without all three the row is left out, and a note below the table says so (vikdf/endpoints.py).

What is sent: the entry's instruction as system message, where there is one, then the turns, the last one as the user's; an
even number of turns opens with an empty one of the user, as for the other prompted models. Neither VIKDF nor ZRIGF publish
their wording. Temperature is the entry's, the longest answer that of all systems; beams and n-grams cannot be asked for.

What comes: an answer as it is, without the spaces around it. An empty or refused one is the answer "", and is scored as such.
How likely a given answer is, no chat endpoint tells: NLL and tokens are unknown, and with them PPL and cloze.
Every answer is kept below state/ (vikdf/baselines/parts/asking.py), so that all seeds have the same, and asking again is free.
"""

import os
from pathlib import Path

from vikdf.baselines.parts.asking import Asking, Limits
from vikdf.endpoints import KEY, lacking
from vikdf.model.answering import Answering, turns_of

LIMITS = ("parallel", "requests_per_minute", "timeout", "retries", "price", "cost_cap")


class Endpoint(Answering):
    def __init__(self, entry: dict, key: str, folder: Path):
        super().__init__()
        self.entry = entry
        limits = Limits(**{name: entry[name] for name in LIMITS})
        self.asking = Asking(entry["url"], entry["model"], key, folder, limits)

    def answers(self, contexts: list[list[str]], *, beams: int, no_repeat_ngram: int, max_new_tokens: int) -> list[str]:
        how = {"temperature": self.entry["temperature"], self.entry["length_as"]: max_new_tokens}
        how = {name: value for name, value in how.items() if value is not None}
        asked = [{"messages": messages(turns, self.entry["instruction"])} | how for turns in turns_of(contexts)]
        return [found["answer"] for found in self.asking.ask(asked)]

    def generate(self, contexts: list[list[str]], *, batch: int = 64, **decoding: int) -> list[str]:
        return self.answers(contexts, **decoding)  # all at once: in batches the slowest answer would hold up the rest

    def score(self, contexts: list[list[str]], responses: list[str], batch: int = 64) -> tuple[list[None], list[None]]:
        return [None] * len(contexts), [None] * len(contexts)

    def cloze(self, contexts: list[list[str]], candidates: list[list[str]], batch: int = 64) -> list[list[float]]:
        return [[] for _ in contexts]


def messages(turns: list[str], instruction: str) -> list[dict[str, str]]:
    """A dialogue as a chat: the user speaks first and last."""
    opened = turns if len(turns) % 2 else ["", *turns]
    said = [{"role": ("user", "assistant")[i % 2], "content": turn} for i, turn in enumerate(opened)]
    return [{"role": "system", "content": instruction}] * bool(instruction) + said


def learner(entry: dict, start, places, lora: dict, seed: int):
    raise ValueError("an endpoint is prompted, not tuned: its entry under `baselines` must keep `tuned: false`")


def answerer(entry: dict, product, places) -> Endpoint:
    if lost := lacking(entry):
        raise ValueError(f"the endpoint cannot be asked, {lost}: set it, or leave the system out")
    return Endpoint(entry, key_of(os.environ[KEY]), places.answers)


def key_of(text: str) -> str:
    """The key, without the line end of the file it came from: what cannot be sent would be told whole by the error."""
    key = text.strip()
    if not key or not key.isascii() or not key.isprintable() or " " in key:
        raise ValueError(f"{KEY} holds what no key has (a space, a line end, a letter with an accent): copy it anew")
    return key
