"""What goes into MLflow after a run has ended: files made of it later, and all that a store did not take.

In: journals of vikdf/tracking.py. Out: the same in the store; nothing is sent twice.

    tracked.add(state / "tables", [report])    # the ended run gets one more file
    tracked.replay(state, store)               # `vikdf track replay`
"""

import json
import sys
from pathlib import Path

from vikdf import files, tracking


def add(folder: Path, artifacts: list[Path], store: str | None = None) -> None:
    """Gives an ended run more files; one that was added before with the same bytes is not sent again."""
    lines = tracking.read(folder)
    if not any("end" in line for line in lines):
        names = ", ".join(path.name for path in artifacts)
        print(f"{names}: not in MLflow, since {folder / tracking.JOURNAL} tells of no ended run", file=sys.stderr)
        return
    known = {line["artifact"]: line.get("sha256") for line in lines if "artifact" in line}
    digests = {path: files.sha256(path) for path in artifacts}
    new = [path for path in digests if known.get(str(path)) != digests[path]]
    with open(folder / tracking.JOURNAL, "a") as journal:
        journal.writelines(json.dumps({"artifact": str(path), "sha256": digests[path]}) + "\n" for path in new)
    if behind(folder, store or tracking.default_store()):
        tracking.try_send(folder, store or tracking.default_store())


def replay(folder: Path, store: str) -> int:
    """Sends all journals below `folder` that the store does not have whole; returns how many were sent."""
    waiting = [path.parent for path in sorted(folder.rglob(tracking.JOURNAL)) if behind(path.parent, store)]
    for run in waiting:
        tracking.send(run, store)
    return len(waiting)


def behind(folder: Path, store: str) -> bool:
    """Whether the store lacks some of a journal. Of a run that was sent before lines were counted, it has all."""
    sent, lines = tracking.sent_of(folder), tracking.read(folder)
    return sent.get("store") != store or not sent["ended"] or sent.get("lines", len(lines)) < len(lines)
