"""Politeness: at most so many connections to one host at a time, and no slow host holds up the urls of the others.

In: the urls of a shard and the bound. Out: turns(), each a url to ask now.

img2dataset's threads would take the urls in their order; a thread that waited for a busy host would be lost to all others.
So a thread that is free takes the next url whose host is free, host by host in turn, and waits only where every host
that is left is at its bound. The bound holds in one process: over all it is `per_host` times the processes (or the
tasks that run at once on a cluster). A hop of a redirect waits for its own host, and gives the first one back before.
"""

import contextlib
import threading
import time
import urllib.parse
from collections import Counter, deque
from collections.abc import Iterator


def host_of(url: str) -> str:
    """Whom a url asks; empty where it has no host, which is then nobody's business."""
    try:
        return (urllib.parse.urlsplit(url).hostname or "").rstrip(".")
    except ValueError:
        return ""


class Turn:
    """One url to ask, by its number in the shard, while a connection to its host is kept free for it."""

    def __init__(self, turns: "Turns", number: int, url: str):
        self.turns, self.number, self.url, self.host = turns, number, url, host_of(url)

    def go(self, url: str) -> float:
        """Moves on to the host of a redirect; gives the seconds that it had to wait."""
        host, start = host_of(url), time.monotonic()
        if host != self.host:
            self.turns.give_back(self.host)
            self.host = ""  # holds none while it waits: two that wait for each other's host do not block
            self.turns.wait_for(host)
            self.host = host
        return time.monotonic() - start


class Turns:
    def __init__(self, urls: list[str], per_host: int):
        self.per_host, self.busy = per_host, Counter()
        self.waiting: dict[str, deque] = {}
        for number, url in enumerate(urls):
            self.waiting.setdefault(host_of(url), deque()).append((number, url))
        self.free = deque(self.waiting)  # hosts that may have a url waiting and a connection free
        self.listed = set(self.free)
        self.changed = threading.Condition()

    @contextlib.contextmanager
    def turn(self) -> Iterator[Turn]:
        """As many times as there are urls; which one it is, depends on who is free."""
        turn = Turn(self, *self._next())
        try:
            yield turn
        finally:
            self.give_back(turn.host)

    def _next(self) -> tuple[int, str]:
        with self.changed:
            while True:
                while self.free:
                    host = self.free.popleft()
                    self.listed.discard(host)
                    if self.waiting[host] and self._has_room(host):
                        self._take(host)
                        found = self.waiting[host].popleft()
                        self._list(host)
                        return found
                self.changed.wait()

    def _has_room(self, host: str) -> bool:
        return not host or self.busy[host] < self.per_host

    def _take(self, host: str) -> None:
        self.busy[host] += 1

    def _list(self, host: str) -> None:
        if self.waiting.get(host) and self._has_room(host) and host not in self.listed:
            self.free.append(host)
            self.listed.add(host)

    def give_back(self, host: str) -> None:
        with self.changed:
            self.busy[host] -= 1
            self._list(host)
            self.changed.notify_all()

    def wait_for(self, host: str) -> None:
        with self.changed:
            self.changed.wait_for(lambda: self._has_room(host))
            self._take(host)
