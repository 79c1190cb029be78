"""Which files a stage's code consists of: the module and, along its imports, every module of ours that it needs.

In: a module's name below vikdf (`filter`, `baselines.llm_lora`). Out: its files, sorted, as paths relative to the root.
The Snakefile makes them inputs of the stage's rule, so that editing a module re-runs exactly its stages.
"""

import ast
import functools
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = "vikdf"
SHOWS_ONLY = {
    f"vikdf/{name}.py" for name in ("tracking", "store", "shown", "flops", "seals", "space")
}  # touch no product: editing them re-runs nothing


def code(module: str, root: Path = ROOT) -> list[str]:
    """The files of `vikdf.<module>` and of what it imports of ours, imports inside functions included."""
    name = f"{PACKAGE}.{module}"
    waiting, found = _files(root, name, whole=True), set()
    if not waiting:
        raise ValueError(f"there is no module {name}: expected {name.replace('.', '/')}.py below {root}")
    while waiting:
        path = waiting.pop()
        if path not in found:
            found.add(path)
            waiting += [file for imported, whole in _imports(path, root) for file in _files(root, imported, whole)]
    names = {path.relative_to(root).as_posix() for path in found}
    return sorted(names - SHOWS_ONLY)


def _files(root: Path, name: str, whole: bool) -> list[Path]:
    """The files of a dotted name, its parents' __init__ included; of a package that is used whole, all of it."""
    folder = root / name.replace(".", "/")
    parents = [parent / "__init__.py" for parent in folder.parents if root in parent.parents]
    if folder.is_dir():
        own = sorted(folder.rglob("*.py")) if whole else [folder / "__init__.py"]
    else:
        own = [folder.with_suffix(".py")]
    if not any(path.exists() for path in own):
        return []  # not a module: a name inside one
    return [path for path in [*own, *parents] if path.exists()]


@functools.cache
def _imports(path: Path, root: Path) -> list[tuple[str, bool]]:
    """Names of ours that a file imports; True where a package is taken as a whole (`from vikdf import metrics`)."""
    found = []
    for node in ast.walk(ast.parse(path.read_text(), filename=str(path))):
        if isinstance(node, ast.Import):
            found += [(alias.name, True) for alias in node.names if alias.name.split(".")[0] == PACKAGE]
        elif isinstance(node, ast.ImportFrom):
            base = _base(node, path, root)
            if base and base.split(".")[0] == PACKAGE:
                found.append((base, False))
                found += [(f"{base}.{alias.name}", True) for alias in node.names]
    return found


def _base(node: ast.ImportFrom, path: Path, root: Path) -> str | None:
    if not node.level:
        return node.module
    package = path.parent.relative_to(root).parts
    parts = package[: len(package) - node.level + 1]
    return ".".join([*parts, *([node.module] if node.module else [])])
