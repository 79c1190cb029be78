"""What goes into MLflow after a run has ended: files made of it later, and all that a store did not take.

In: journals of vikdf/tracking.py. Out: the same in the store; nothing is sent twice.

    tracked.add(state / "tables", [report])    # the ended run gets one more file
    tracked.replay(state, store)               # `vikdf track replay`
"""

import contextlib
import sys
from pathlib import Path

from vikdf import files, store, tracking


def add(folder: Path, artifacts: list[Path], address: str | None = None) -> None:
    """Gives an ended run more files; one that was added before with the same bytes is not sent again."""
    lines, address = tracking.read(folder), address or tracking.default_store()
    if not any("end" in line for line in lines):
        names = ", ".join(path.name for path in artifacts)
        print(f"{names}: not in MLflow, since {folder / tracking.JOURNAL} tells of no ended run", file=sys.stderr)
        return
    known = {line["artifact"]: line.get("sha256") for line in lines if "artifact" in line}
    digests = {path: files.sha256(path) for path in artifacts}
    new = [path for path in digests if known.get(str(path)) != digests[path]]
    tracking.append(folder, [{"artifact": str(path), "sha256": digests[path]} for path in new])
    if behind(folder, address):
        tracking.try_send(folder, address)


def replay(folder: Path, address: str) -> int:
    """Sends all journals below `folder` that the store does not have whole; returns how many were sent.

    Runs whose process died without a word end as killed; one that lives sends itself. A journal that the store refuses
    does not hold the others back: all that were refused are named at the end.
    """
    try:
        there = store.runs(address)
    except store.FAILED as error:
        raise OSError(
            f"{store.masked(address)} does not answer ({tracking.reason(error)}): repeat when it does"
        ) from None
    sent, refused = 0, []
    for path in sorted(Path(folder).rglob(tracking.JOURNAL)):
        try:
            sent += _brought(path.parent, address, there)
        except store.FAILED as error:
            refused.append(f"{path} ({tracking.reason(error)})")
    if refused:
        raise OSError(f"{sent} runs sent, but {store.masked(address)} did not take {', '.join(refused)}")
    return sent


def _brought(folder: Path, address: str, there: set[str]) -> bool:
    """Sends what the store lacks of a journal, if anything; no job begins or goes on with it meanwhile."""
    with contextlib.ExitStack() as held:
        try:
            held.enter_context(files.alone(folder / tracking.SENDING, str(folder)))
        except ValueError:  # a job is at work
            return False
        if not _ended(folder) or not behind(folder, address, there):
            return False
        tracking.send(folder, address)
        return True


def behind(folder: Path, address: str, there: set[str] | None = None) -> bool:
    """Whether the store lacks some of a journal: as far as is remembered here, and that the run is among those `there`."""
    sent, lines = store.sent_of(folder), tracking.read(folder)
    lost = sent.get("store") != store.masked(address) or (there is not None and sent["run"] not in there)
    return lost or not sent["ended"] or sent["lines"] < len(lines)


def _ended(folder: Path) -> bool:
    """Whether a journal has an end; one without gets it: its process is dead."""
    lines = tracking.read(folder)
    if not lines or "stage" not in lines[0]:
        print(f"{folder / tracking.JOURNAL} has no first line any more: it is left out", file=sys.stderr)
        return False
    if any("end" in line for line in lines):
        return True
    tracking.append(folder, [{"end": "KILLED", "time": max(line["time"] for line in lines if "time" in line)}])
    return True
