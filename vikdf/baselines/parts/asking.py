"""Asks a model behind an OpenAI-compatible endpoint, each question once: what was answered is kept by content and costs nothing.

    asking = Asking(address, key, folder, limits)
    answers = asking.ask([{"messages": [...], "temperature": 0, "max_tokens": 32}, ...])   # in the order given

<folder>/<digest of address and model>/<2 hex>/<digest>.json holds an answer with its request, what ended it and its tokens.
The digest is of address, model, messages and decoding: the same name elsewhere is another model. Never in it: the key.

The openai package retries with back-off (lost connections, time-outs, 408, 409, 429, 5xx; it heeds Retry-After). Ours, since
it has none: the even spacing of requests, tries among them; the cap on costs. Before a request is sent, the most that it can
cost is set aside: a byte is at least a token, and the answer is as long as it may be. A request that would pass the cap is
not sent. What the kept answers of this model cost counts, whoever asked; a try that failed is taken for not billed.
A signal to stop is heard before each try: what is under way is kept, no more is sent.
One process asks a model at a time: another one that wants the same waits, and finds the answers.
"""

import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from vikdf import files
from vikdf.endpoints import KEY
from vikdf.signals import Signals

TEMPLATE, HEAD = 64, 16  # tokens that a chat template puts around all messages, and around each: both rather too many
DAMAGED = ".damaged"  # in place of .json
REFUSED = ("content_filter", "content_policy_violation")  # of errors that refuse to answer


@dataclass(frozen=True)
class Limits:
    """Keys of the entry, see the schema of params.yaml."""

    parallel: int
    requests_per_minute: float
    timeout: float
    retries: int
    price: dict[str, float]  # input, output: for a million tokens
    cost_cap: float


class Pace:
    """Spaces requests evenly, from however many threads, until there is a signal to stop."""

    def __init__(self, a_minute: float):
        self.gap, self.next, self.lock = 60 / a_minute, 0.0, threading.Lock()

    def wait(self, *_) -> None:
        with self.lock:
            now = time.monotonic()
            at = max(self.next, now)
            self.next = at + self.gap
        while now < at and not Signals.name:
            time.sleep(min(at - now, 1.0))
            now = time.monotonic()
        if Signals.name:
            raise Stopped(Signals.name)


class Budget:
    """What may still be spent. A request that might pass the cap waits for those under way: they cost less than set aside."""

    def __init__(self, cap: float, spent: float):
        self.cap, self.spent, self.aside, self.change = cap, spent, [], threading.Condition()

    @contextmanager
    def set_aside(self, most: float) -> Iterator[list[float]]:
        """Gives a list for what it really cost; after an error that is nothing."""
        with self.change:
            while self.spent + sum(self.aside) + most > self.cap:
                if not self.aside:
                    raise TooDear
                self.change.wait()
            self.aside.append(most)
        cost: list[float] = []
        try:
            yield cost
        finally:
            with self.change:
                self.aside.remove(most)
                self.spent += sum(cost)
                self.change.notify_all()

    def stop(self) -> None:
        """Nothing more is spent: those that wait give up when what is under way has ended."""
        with self.change:
            self.cap = -1.0
            self.change.notify_all()


class Stopped(BaseException):
    """A request was not sent, since there was a signal to stop; no Exception: openai would take it for a lost connection."""


class TooDear(ValueError):
    """A request was not sent, since it might have passed the cap."""


class Asking:
    def __init__(self, url: str, model: str, key: str, folder: Path, limits: Limits):
        import openai

        self.url, self.model, self.key, self.limits = url, model, key, limits
        self.folder = folder / files.digest([url, model])[:16]
        pace = Pace(limits.requests_per_minute)
        wire = openai.DefaultHttpxClient(event_hooks={"request": [pace.wait]})  # a hook hears every try
        self.client = openai.OpenAI(
            api_key=key, base_url=url, timeout=limits.timeout, max_retries=limits.retries, http_client=wire
        )

    def ask(self, requests: list[dict]) -> list[dict]:
        """{answer, finish, tokens} of each request; those that are kept are not asked."""
        places = [self._place(request) for request in requests]
        with self._alone():
            missing = {
                place: request for place, request in zip(places, requests, strict=True) if not _kept(place)
            }  # each once
            if missing:
                self._fetch(missing)
        return [files.read_checked(place) for place in places]

    def _place(self, request: dict) -> Path:
        name = files.digest({"url": self.url, "model": self.model, "request": request})
        return self.folder / name[:2] / f"{name}.json"

    @contextmanager
    def _alone(self) -> Iterator[None]:
        wait = f"waiting for another process that asks {self.model}"
        with files.alone(self.folder / "lock", self.model, wait=wait):
            if not (self.folder / "about.json").exists():
                files.write_json(self.folder / "about.json", {"url": self.url, "model": self.model})
            yield

    def _fetch(self, missing: dict[Path, dict]) -> None:
        """Asks in parallel; each answer is kept at once. After the first failure no more is sent, and what is under way is kept.

        A damaged answer was paid for too: where its request is known, the most that it can have cost counts.
        """
        kept = {place: answer for place in self.folder.glob("*/*.json") if (answer := _kept(place))}
        known = missing | {place: answer["request"] for place, answer in kept.items()}
        lost = [self._most(request) for place, request in known.items() if place.with_suffix(DAMAGED).exists()]
        budget = Budget(self.limits.cost_cap, sum(map(self._cost, kept.values())) + sum(lost))
        pool = ThreadPoolExecutor(self.limits.parallel)
        try:
            asked = [pool.submit(self._keep, place, request, budget) for place, request in missing.items()]
            with tqdm(total=len(asked), desc="asking", unit="answer", mininterval=5) as bar:
                for done in as_completed(asked):
                    if failed := done.exception():
                        budget.stop()
                        pool.shutdown(cancel_futures=True)  # waits for what is under way
                        raise self._said(failed, asked, budget) from None
                    bar.update()
        finally:
            pool.shutdown(cancel_futures=True)

    def _keep(self, place: Path, request: dict, budget: Budget) -> None:
        with budget.set_aside(self._most(request)) as cost:
            answer = self._send(request) | {"request": request}
            files.write_checked(place, answer)
            cost.append(self._cost(answer))

    def _send(self, request: dict) -> dict:
        import openai

        try:
            made = self.client.chat.completions.create(model=self.model, **request)
        except openai.BadRequestError as error:
            if error.code in REFUSED:
                return {"answer": "", "finish": error.code, "tokens": None}
            raise
        try:
            [choice, *_], used = made.choices, made.usage
            text, finish = choice.message.content or "", choice.finish_reason
            tokens = {"input": int(used.prompt_tokens), "output": int(used.completion_tokens)} if used else None
            text = text.encode("utf-8", "replace").decode().strip()  # half a character is no text
        except (
            AttributeError,
            TypeError,
            ValueError,
        ):  # the package does not check what came: a page of a proxy, for one
            raise ValueError("what came is no chat completion") from None
        return {"answer": text, "finish": finish, "tokens": tokens}

    def _cost(self, answer: dict) -> float:
        """Of a kept answer; where the endpoint told no tokens, the most that it can have cost."""
        used = answer["tokens"]
        return self._price(used["input"], used["output"]) if used else self._most(answer["request"])

    def _most(self, request: dict) -> float:
        return self._price(bound(request["messages"]), longest(request))

    def _price(self, read: int, written: int) -> float:
        return (read * self.limits.price["input"] + written * self.limits.price["output"]) / 1e6

    def _said(self, error: BaseException, asked: list[Future], budget: Budget) -> BaseException:
        """One sentence for the user; a fault of ours stays what it is."""
        import openai

        if not isinstance(error, openai.OpenAIError | ValueError | Stopped):
            return error
        kept = sum(each.done() and not each.cancelled() and each.exception() is None for each in asked)
        there = f"{kept} of {len(asked)} answers that were missing came and are kept in {self.folder}"
        if isinstance(error, Stopped):
            return InterruptedError(f"stopped by {error}; {there}: the same command goes on from there")
        if isinstance(error, TooDear):
            return ValueError(
                f"{self.model} at {self.url} cost {budget.spent:.6g} so far, and the next request might pass the cap of "
                f"{self.limits.cost_cap:g}: it was not sent; {there}. To go on, raise cost_cap of its entry under `baselines` "
                "and repeat"
            )
        status = getattr(error, "status_code", None)
        said = f" {error.response.text}" if status else f": {error.__cause__ or error}"
        what = f"{status or type(error).__name__}{said}".replace(self.key, "***")[:300]
        what = f"{status}: it does not take the key; see {KEY}" if status in (401, 403) else what  # may echo half of it
        return ValueError(
            f"{self.model} at {self.url} did not answer ({what}), after {self.limits.retries} retries where one may help; "
            f"{there}: the same command goes on from there"
        )


def _kept(place: Path) -> dict | None:
    """An answer as it was kept; None where there is none. A damaged one is set aside, and asked for again."""
    try:
        return files.read_checked(place)
    except FileNotFoundError:
        return None
    except ValueError:
        print(f"{place} is damaged: it is asked for again", file=sys.stderr)
        place.replace(place.with_suffix(DAMAGED))  # it was paid for
        return None


def bound(messages: list[dict]) -> int:
    """The most tokens that messages can have: tokenizers of bytes never make more tokens than bytes."""
    return TEMPLATE + sum(HEAD + len(message["content"].encode()) for message in messages)


def longest(request: dict) -> int:
    """The most tokens of the answer, under either of the names that endpoints know."""
    return request.get("max_tokens") or request["max_completion_tokens"]
