"""What became of a fault: recovered by itself, recovered by the one documented command, or lost.

After the fault: plain `snakemake`. It ended well, with the products of the undisturbed run and no harmed file left as it
was: recovered by itself. Else `vikdf recover`, once, and the same has to hold. A harmed file that nothing read again has to be
named by `vikdf verify` in between. All else is lost, and so is a run that ends well with other bytes in a file that nobody
harmed, whatever mends it later: nobody would have known.
"""

import re
from pathlib import Path

from chaos import table, trees
from chaos.trial import Trial
from vikdf import files

NOTICED = re.compile(r"damaged|harmed|(has|was) changed|is missing|made again|not valid|cannot be read|vikdf recover")
ECHO = (
    "Shell command",
    "    input",
    "    output",
    "    reason",
    "$ ",
)  # Snakemake's lines that name files for other reasons


def mended(trial: Trial) -> tuple[str, str]:
    """(verdict, how the harm was noticed)."""
    tree = trial.tree
    rc, said = tree.call(trees.snakemake(tree.cores))
    if rc == 0:
        trial.ended_well()
    other, left = tree.unequal(), unread(trial)
    how = noticed(trial, said, rc)
    if rc == 0 and not other and not left:
        return (table.COMMAND if trial.by_command else table.ITSELF), how
    if rc == 0 and left:
        if passed := [path for path in left if path.exists() and _inputs(said) & {*names_of(trial, path)}]:
            raise trees.Lost(f"{name_of(trial, passed[0])} was read, and nobody noticed")
        said = tree.call(trees.verify())[1]
        if unnamed := [path for path in left if not any(name in said for name in names_of(trial, path))]:
            raise trees.Lost(f"`vikdf verify` did not name {name_of(trial, unnamed[0])}")
        how = table.BY_VERIFY
    rc, said = tree.call(trees.recover(tree.cores))
    if rc != 0:
        raise trees.Lost(f"`vikdf recover` ended with {rc}")
    if other := sorted({*tree.unequal(), *(name_of(trial, path) for path in unread(trial))}):
        raise trees.Lost(f"after `vikdf recover` not as undisturbed: {', '.join(other[:5])}")
    return table.COMMAND, how


def unread(trial: Trial) -> list[Path]:
    """Harmed files that are still as the harm left them, and that count: sqlite's pages and journals hold no product."""
    left = []
    for path, digest in trial.harms.items():
        now = files.sha256(path) if path.exists() else None
        counts = digest is not None or name_of(trial, path) in trial.tree.measure
        if now == digest and counts and not path.name.endswith(table.UNSEALED):
            left.append(path)
    return left


def _inputs(said: str) -> set[str]:
    """What the jobs of a run have read, by Snakemake's own lines; of shards not: a job reads those samples that it draws."""
    listed = {name for line in re.findall(r"^    input: (.+)$", said, flags=re.M) for name in line.split(", ")}
    return {name for name in listed if not name.startswith("data/shards")}


def noticed(trial: Trial, said: str, rc: int) -> str:
    """Whether the words of a run tell of a harmed file."""
    told = [line for line in said.splitlines() if NOTICED.search(line) and not line.startswith(ECHO)]
    named = [name for path in trial.harms for name in names_of(trial, path)]
    if any(name in line for name in named for line in told):
        return table.AS_READ
    return (table.STOPPED if rc else table.UNSAID) if trial.harms else ""


def name_of(trial: Trial, path: Path) -> str:
    return path.relative_to(trial.tree.folder).as_posix()


def names_of(trial: Trial, path: Path) -> list[str]:
    """By which a file may be called: its own, or that of the folder that is one product with it."""
    inside = [each for each in (path, *path.parents[:2]) if trial.tree.folder in each.parents]
    return [name for each in inside if "/" in (name := name_of(trial, each))]
