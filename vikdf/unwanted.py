"""What of the kept work nobody will ask for any more: `vikdf state --clean`.

In: a folder of state, the backbones as they are now, folders of products. Out: a line for all that may go, and its size; with
`--yes` it goes, piece by piece, each held by this process as it goes.
"""

import re
import shutil
import uuid
from pathlib import Path

from vikdf import files, kept, store, tracking
from vikdf.flags import printable

PART = re.compile(r"\.(.+)\.[0-9a-f]{8}\.part")  # of vikdf.files.whole
FEATURES = "features"


def unwanted(root: Path, backbones: Path) -> list[tuple[kept.Kept, str]]:
    """(a piece of work, why nobody will ask for it)."""
    found = kept.pieces(root)
    newest: dict[tuple[str, str], kept.Kept] = {}
    for one in sorted(found, key=lambda one: one.asked):
        if one.status == kept.FINISHED:
            newest |= {(one.stage, name): one for name in one.names}
    if any(one.status == kept.HELD for one in found):  # a training may read features, and holds its own work alone
        found = [one for one in found if one.stage != FEATURES]
    reasons = [(one, _reason(one, newest, backbones)) for one in found]
    return [(one, why) for one, why in reasons if why]


def _reason(one: kept.Kept, newest: dict[tuple[str, str], kept.Kept], backbones: Path) -> str:
    if one.status == kept.HELD or one.stage in kept.BOUGHT:
        return ""
    if one.stage == FEATURES:
        there = _encoder_is_there(one.folder, backbones)
        return "" if there else f"no encoder below {backbones} makes these features any more"
    if one.status == kept.FINISHED and one.work and not kept.same_code(one):
        return "finished by other code: it would be done again"
    newer = [newest.get((one.stage, name)) for name in one.names]
    if newer and all(other and other.asked > one.asked for other in newer):
        return f"{newer[0].folder.name} was finished later under the same name"
    return ""


def _encoder_is_there(folder: Path, backbones: Path) -> bool:
    """Whether a folder below `backbones` has the files that made these features, by this code; or there is none to compare."""
    told, there = kept.told(folder / "encoder.json"), [path for path in backbones.glob("*/") if path.is_dir()]
    own = {name.removeprefix("the file "): digest for name, digest in told.items() if name.startswith("the file ")}
    same = bool(own) and told.get("the encoder's code") == kept.code(("model.encoders",))
    return not there or (same and any(own == files.contents(path) for path in there if _alike(path, own)))


def _alike(folder: Path, named: dict[str, str]) -> bool:
    """Has the same names: only then its files are read."""
    return all((folder / name).exists() for name in named)


def parts(roots: list[Path]) -> list[Path]:
    """Folders that killed writers left."""
    found = [path for root in roots for path in sorted(root.rglob(".*.part")) if PART.fullmatch(path.name)]
    return [path for path in found if path.is_dir() and not files.holder(path / files.LOCK)]


def clean(root: Path, backbones: Path, products: list[Path], sure: bool) -> str:
    """What may go, or went."""
    lines, size, behind, going = [], 0, [], unwanted(root, backbones)
    for one, why in going:
        if tracking.read(one.folder) and not store.sent_of(one.folder).get("ended"):
            behind.append(f"{one.folder}: stays, since MLflow does not have all of it; `vikdf track replay` sends it")
        elif not sure or _gone(one.folder):
            lines.append(f"{kept.mb(one.size):>12}  {one.stage} {' '.join(one.names)}: {why}; {one.folder}")
            size += one.size
    for path in parts([root, *products]):
        if any(one.folder in path.parents for one, _ in going):
            continue
        size += (own := kept.size(path))
        lines.append(f"{kept.mb(own):>12}  left by a writer that was killed; {path}")
        if sure:
            files.clear(path.parent / PART.fullmatch(path.name)[1])
    if not lines:
        return "\n".join([*behind, f"nothing in {root} may go"])
    did = "went" if sure else "would go; nothing was deleted: `vikdf state --clean --yes` does it"
    return "\n".join([*lines, *behind, f"{len(lines)} folders, {kept.mb(size)} {did}"])


def _gone(folder: Path) -> bool:
    """Takes a folder away in one step; False where a process has begun to work on it."""
    aside = folder.with_name(f".{folder.name}.{uuid.uuid4().hex[:8]}.part")
    try:
        with files.alone(folder / "lock", str(folder)):
            (folder / files.LOCK).touch()  # a kill leaves what a killed writer leaves
            folder.rename(aside)
            shutil.rmtree(aside)
    except ValueError as error:
        print(printable(error))
        return False
    return True
