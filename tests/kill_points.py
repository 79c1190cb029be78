"""Pieces of work that are struck down where the test says and begun again, in real processes: for tests/test_matrix.py.

    python tests/kill_points.py FOLDER CASES.json
A case is {name, stage, flags, processes, kills: [[signal, nth call, of what], ...]}, where "" is the stage's inner step: as many
tries end by these signals, one more ends well. FOLDER/<name>.json tells how each process of each try ended,
FOLDER/<name>-<try>.log what it said. A try is forked from this process, which has imported all that stages need and
computed nothing, so it begins at once; when one of its processes dies the others are killed, as torchrun does.
"""

import importlib
import itertools
import json
import os
import signal
import socket
import sys
import traceback
from pathlib import Path

import vikdf  # noqa: F401 - before torch

STEPS = {  # the inner step of each stage
    "pretrain": "vikdf.loop:_step",
    "finetune": "vikdf.loop:_step",
    "caption": "vikdf.sampling:candidates_of",
    "generate": "vikdf.generate:answer",
}


def prepared() -> None:
    """Imports what a try needs, and leaves out what costs time and is tested elsewhere."""
    import open_clip  # noqa: F401 - of the CLIP
    import torch

    from vikdf import features, generate, loop, sampling, state, store, systems, tracking  # noqa: F401
    from vikdf.baselines import seq2seq  # noqa: F401
    from vikdf.model import captioner, distill, encoders, respond  # noqa: F401

    torch.set_num_threads(1)
    sampling.CHUNK, generate.CHUNK = 10, 4
    tracking.Run._send, store.close = lambda self: None, lambda *given: None
    state.code_digest = lambda modules: "the code"


def struck(what: str, number: int, at: int) -> None:
    """The call of that number ends in the signal."""
    module, name = what.split(":")
    *inside, name = name.split(".")
    owner, calls = importlib.import_module(module), itertools.count(1)
    for part in inside:
        owner = getattr(owner, part)
    real = getattr(owner, name)

    def strike(*given, **named):
        if next(calls) == at:
            os.kill(os.getpid(), number)
        return real(*given, **named)

    setattr(owner, name, strike)


def work(case: dict, rank: int, kill: list | None) -> int:
    """The stage's own command line in this process; its exit status."""
    from vikdf import flags

    number, at, what = kill or ("", 0, "")
    if kill and rank == (0 if what else case["processes"] - 1):  # of two, the first is the one that writes
        struck(what or STEPS[case["stage"]], signal.Signals[number], at)
    sys.argv = [case["stage"], *case["flags"]]
    try:
        flags.main(getattr(importlib.import_module(f"vikdf.{case['stage']}"), case["stage"]))
    except SystemExit as ended:
        return ended.code
    except BaseException:  # whatever it is, the test sees it
        traceback.print_exc()
        return 70
    return 0


def begun(case: dict, rank: int, kill: list | None, log: Path, port: int) -> int:
    """A process that works; its id."""
    if pid := os.fork():
        return pid
    said = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(said, 1)
    os.dup2(said, 2)
    if case["processes"] > 1:
        world = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": case["processes"], "MASTER_PORT": port}
        world |= {"MASTER_ADDR": "127.0.0.1", "LOCAL_WORLD_SIZE": case["processes"]}
        os.environ.update({name: str(value) for name, value in world.items()})
    code = work(case, rank, kill)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def tried(case: dict, kill: list | None, log: Path) -> list[int]:
    """How the processes of a try ended, the first that did first."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    left, codes = {begun(case, rank, kill, log, port) for rank in range(case["processes"])}, []
    while left:
        pid, status = os.wait()
        left.discard(pid)
        codes.append(os.waitstatus_to_exitcode(status))
        if codes[-1] < 0:
            for other in left:
                os.kill(other, signal.SIGKILL)
    return codes


if __name__ == "__main__":
    prepared()
    for one in json.loads(Path(sys.argv[2]).read_text()):
        ended = [
            tried(one, kill, Path(sys.argv[1], f"{one['name']}-{number}.log"))
            for number, kill in enumerate([*one["kills"], None])
        ]
        Path(sys.argv[1], f"{one['name']}.json").write_text(json.dumps(ended))
