"""Resumable work: state/<stage>/<key>/, where the key is what the work is, its params and the digests of its inputs.

In: a stage's params and inputs. Out: a folder to work in, and the finished product to copy to the stage's output.
A folder holds work.json (what it is, and the digest of the code that began it), checkpoints/ while it runs, the
journal, and product/ with product.json when it is done. Finished work of the same key and code is copied out, never
done twice; finished by other code, it is done again; begun by other code, it goes on only when someone says so:

    python -m vikdf.state --go-on state/pretrain/0123456789abcdef
"""

import ast
import contextlib
import fcntl
import os
import shutil
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from vikdf import files, flags, tracking
from vikdf.code import ROOT, code

SHOWN = {
    "bar",
    "flops",
    "journal",
    "tracking",
    "tqdm",
}  # names whose calls only show something: they never change a product


class _Bare(ast.NodeTransformer):
    """The tree without what never changes a product: docstrings, and calls that only show progress or track."""

    def _without_docstring(self, node):
        self.generic_visit(node)
        if ast.get_docstring(node, clean=False) is not None:
            node.body = node.body[1:]
        return node

    visit_Module = visit_FunctionDef = visit_AsyncFunctionDef = visit_ClassDef = _without_docstring

    def visit_Expr(self, node):
        return None if _shows(node.value) else self.generic_visit(node)

    def visit_ImportFrom(self, node):
        node.names = [alias for alias in node.names if alias.name not in SHOWN]
        return node if node.names else None

    def visit_withitem(self, node):
        return ast.withitem(ast.Constant(None), None) if _shows(node.context_expr) else self.generic_visit(node)


def _shows(node: ast.AST) -> bool:
    """True for a call such as `bar.update(1)` or `tracking.Run(...)`."""
    while isinstance(node, ast.Call | ast.Attribute):
        node = node.func if isinstance(node, ast.Call) else node.value
    return isinstance(node, ast.Name) and node.id in SHOWN


def bare(text: str) -> str:
    """A module's code as its syntax tree says it: the same for another comment, docstring or progress line."""
    return ast.dump(_Bare().visit(ast.parse(text)))


def code_digest(modules: list[str], root: Path = ROOT) -> str:
    """The digest of the code of these modules below vikdf, and of what they import of ours."""
    paths = sorted({path for module in modules for path in code(module, root)})
    return files.digest([[path, bare((root / path).read_text())] for path in paths])


class Work:
    """One piece of work in its folder; `finished` when its product is there, whole, and made by this code."""

    def __init__(self, folder: Path, finished: bool, inputs: dict[str, str]):
        self.folder, self.finished, self.inputs = folder, finished, inputs
        self.checkpoints, self.product = folder / "checkpoints", folder / "product"

    @contextlib.contextmanager
    def finish(self) -> Iterator[Path]:
        """Gives a folder to write the product to; when the block ends well, the work is finished."""
        with files.whole(self.product) as aside:
            aside.mkdir()
            yield aside
        files.write_json(self.folder / "product.json", {"sha256": files.sha256(self.product)})
        shutil.rmtree(self.checkpoints, ignore_errors=True)
        self.finished = True

    @contextlib.contextmanager
    def tracked(self, name: str, params: dict, tags: dict) -> Iterator[tracking.Run | None]:
        """The work's run in the tracking store, from where the checkpoint stands; None in the other processes."""
        if not main_process():
            yield None
            return
        step = max((int(path.stem) for path in self.checkpoints.glob("*") if path.stem.isdigit()), default=-1)
        with tracking.Run(
            self.folder.parent.name, name, params, self.folder, tags, data=self.inputs, start=step + 1
        ) as run:
            yield run
            for path in sorted(self.product.glob("*.json*")):
                run.artifact(path)

    def asked_as(self, run: str) -> None:
        """Keeps by which names of a run the work was asked for, and when last: vikdf/costs.py lists it by a row's."""
        path = self.folder / tracking.ASKED
        if main_process():
            files.write_json(path, (files.read_json(path) if path.exists() else {}) | {run: int(time.time() * 1000)})

    def export(self, output: Path, name: str = "") -> None:
        """Copies the product (or one file of it) to the stage's output."""
        if not main_process():
            return
        source = self.product / name if name else self.product
        with files.whole(output) as aside:
            shutil.copytree(source, aside) if source.is_dir() else shutil.copyfile(source, aside)


@contextlib.contextmanager
def claim(root: Path, stage: str, modules: list[str], params: dict, inputs: dict[str, Path]) -> Iterator[Work]:
    """The work that these params and inputs define, held by this process (and its ranks) until the block ends."""
    inputs = {name: _digest(path) for name, path in inputs.items()}
    folder = Path(root) / stage / files.digest({"params": params, "inputs": inputs})[:16]
    work = {"stage": stage, "modules": modules, "params": params, "inputs": inputs, "code": code_digest(modules)}
    if int(os.environ.get("WORLD_SIZE", 1)) == 1:
        with _lock(folder):
            yield Work(folder, _finished(folder, work), inputs)
        return
    from vikdf import place

    with contextlib.ExitStack() as stack:
        with place.process().main_process_first():
            if main_process():
                stack.enter_context(_lock(folder))
            made = Work(folder, _finished(folder, work), inputs)
        yield made


def _finished(folder: Path, work: dict) -> bool:
    """Whether the product is there; what other code finished is cleared, what other code began is refused."""
    begun = files.read_json(folder / "work.json") if (folder / "work.json").exists() else work
    if (folder / "product.json").exists():
        if begun["code"] != work["code"]:
            print(f"{folder} was finished by other code: it is done again", file=sys.stderr)
        elif files.read_json(folder / "product.json")["sha256"] != files.sha256(folder / "product"):
            print(f"{folder}/product is damaged: it is made again", file=sys.stderr)
        else:
            shutil.rmtree(folder / "checkpoints", ignore_errors=True)  # of a run that was killed as it took them away
            return True
        for path in folder.iterdir():
            if path.name != "lock":
                shutil.rmtree(path) if path.is_dir() else path.unlink()
    elif begun["code"] != work["code"] and (folder / "checkpoints").exists():
        raise ValueError(
            f"{folder} holds unfinished work that other code began. If the change does not touch what was done so far, "
            f"say `python -m vikdf.state --go-on {folder}` and repeat; else delete that folder to begin anew"
        )
    files.write_json(folder / "work.json", work)
    return False


def _digest(path: Path) -> str:
    """The digest of an input; a folder's manifest, where there is one, names the digest of everything in it."""
    manifest = Path(path) / "manifest.json"
    return files.sha256(manifest if manifest.exists() else path)


def main_process() -> bool:
    """True in the one process that writes."""
    return int(os.environ.get("RANK", 0)) == 0


@contextlib.contextmanager
def _lock(folder: Path) -> Iterator[None]:
    """One process at a time; the lock dies with its process, so none is ever stale."""
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / "lock", "w") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ValueError(
                f"{folder} is being worked on by another process: wait until it ends, or stop it"
            ) from None
        yield


def go_on(*, go_on: Path) -> None:
    """Unfinished work that other code began may go on with the code as it is now.

    go_on: the folder of the work, as the refusal named it
    """
    if not (go_on / "work.json").exists():
        raise ValueError(f"{go_on} holds no work: expected a folder such as state/pretrain/0123456789abcdef")
    work = files.read_json(go_on / "work.json")
    files.write_json(go_on / "work.json", work | {"code": code_digest(work["modules"])})
    print(f"{go_on} goes on with the code as it is now: repeat the command that was refused")


if __name__ == "__main__":
    flags.main(go_on)
