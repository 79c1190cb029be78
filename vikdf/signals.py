"""SIGTERM and Ctrl-C wait for the end of a piece of work that can be kept; a second one does not wait.

with Signals() as signals:
    for piece in work:
        ...
        stop(signals.name, f"piece {piece} of 12", folder)

What has no `signals` at hand, as a thread that waits to ask, looks at `Signals.name`: a signal is its whole process's.

A loader's workers get `worker_init_fn=unheard`: Ctrl-C and torchrun signal them too, and a worker that dies in the middle of
a step would take the step with it. The process that trains decides when they end.
"""

import signal
from pathlib import Path


class Signals:
    """SIGTERM and Ctrl-C wait for the end of the step; a second one does not wait."""

    name = ""  # of the first one that came: "SIGTERM" or "SIGINT"

    def __enter__(self) -> "Signals":
        self.before = {}
        for number in (signal.SIGTERM, signal.SIGINT):
            self.before[number] = signal.signal(number, self._note)
        return self

    def _note(self, number: int, frame) -> None:
        Signals.name = signal.Signals(number).name
        signal.signal(number, self.before[number])

    def __exit__(self, *_) -> None:
        Signals.name = ""
        for number, handler in self.before.items():
            signal.signal(number, handler)


def stop(name: str, after: str, folder: Path) -> None:
    """Ends the work here if a signal of that name came; `after`: the last piece that is kept in `folder`."""
    if name:
        said = f"stopped by {name} after {after}; nothing is lost: the same command goes on from there ({folder})"
        raise InterruptedError(said)


def unheard(worker: int) -> None:
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
