"""Resumable work: state/<stage>/<key>/, where the key is what the work is, its params and the digests of its inputs.

In: a stage's params and inputs. Out: a folder to work in, and the finished product to copy to the stage's output.
A folder holds work.json (what it is, and the digest of the code that began it) and a copy of it, checkpoints/ while it
runs, the journal, and product/ with product.json (its digest, and that of the code that made it) when it is done.
Finished work of the same key and code is copied out, never done twice; finished by other code, or harmed, it is done
again; begun by other code, it goes on only when someone says so:

    vikdf state --go-on state/pretrain/0123456789abcdef
"""

import ast
import contextlib
import os
import shutil
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from vikdf import files, seals, tracking
from vikdf.code import ROOT, code

SHOWN = {
    "bar",
    "flops",
    "journal",
    "seals",
    "space",
    "tracking",
    "tqdm",
}  # names whose calls only show something: they never change a product
WORK = ("work.json", ".work.json")  # the same twice: what began the work is known though one of them is harmed


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

    def __init__(self, folder: Path, work: dict):
        self.folder, self.code, self.inputs = folder, work["code"], work["inputs"]
        self.checkpoints, self.product = folder / "checkpoints", folder / "product"
        self.finished = _finished(folder, work)

    @contextlib.contextmanager
    def finish(self) -> Iterator[Path]:
        """Gives a folder to write the product to; when the block ends well, the work is finished."""
        with files.whole(self.product) as aside:
            aside.mkdir()
            yield aside
        made = {"sha256": files.sha256(self.product), "code": self.code}
        files.write_checked(self.folder / "product.json", made)
        shutil.rmtree(self.checkpoints, ignore_errors=True)
        self.finished = True

    @contextlib.contextmanager
    def tracked(self, name: str, params: dict, tags: dict) -> Iterator[tracking.Run | None]:
        """The work's run in the tracking store, from where the checkpoint stands; None in the other processes."""
        if not main_process():
            yield None
            return
        pieces = [int(path.stem) for path in self.checkpoints.glob("*.json") if path.stem.isdigit()]
        step = max(pieces, default=newest(self.checkpoints)[1].get("step", -1))
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
            files.write_json(path, tracking.asked(self.folder) | {run: int(time.time() * 1000)})

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
    seals.check(*inputs.values())
    paths = {name: str(path) for name, path in inputs.items()}  # for people: nothing compares them
    inputs = {name: digest_of(path) for name, path in inputs.items()}
    folder = Path(root) / stage / files.digest({"params": params, "inputs": inputs})[:16]
    work = {"stage": stage, "modules": modules, "params": params, "inputs": inputs, "paths": paths}
    work["code"] = code_digest(modules)
    if int(os.environ.get("WORLD_SIZE", 1)) == 1:
        with files.alone(folder / "lock", str(folder)):
            yield Work(folder, work)
        return
    from vikdf import place

    with contextlib.ExitStack() as stack:
        with place.process().main_process_first():
            if main_process():
                stack.enter_context(files.alone(folder / "lock", str(folder)))
            made = Work(folder, work)
        yield made


def _finished(folder: Path, work: dict) -> bool:
    """Whether the product is there; what other code finished is cleared, what other code began is refused."""
    before = begun(folder)
    if (folder / "product.json").exists():
        wrong = _wrong(folder, work)
        if not wrong:
            shutil.rmtree(folder / "checkpoints", ignore_errors=True)  # of a run that was killed as it took them away
            return True
        _clear(folder, wrong)
    elif (folder / "checkpoints").exists() and not before:
        _clear(folder, "does not tell any more what began it: it is begun anew")
    elif (folder / "checkpoints").exists() and before["code"] != work["code"]:
        raise ValueError(
            f"{folder} holds unfinished work that other code began. If the change does not touch what was done so far, "
            f"say `vikdf state --go-on {folder}` and repeat; else delete that folder to begin anew"
        )
    begin(folder, work)
    return False


def begin(folder: Path, work: dict) -> None:
    """Writes what begins the work."""
    for name in WORK:
        files.write_checked(folder / name, work)


def begun(folder: Path) -> dict:
    """What began the work, as work.json says or, where that is harmed, its copy; {} where nothing tells."""
    for name in WORK:
        try:
            return files.read_checked(folder / name)
        except FileNotFoundError:
            pass
        except ValueError:
            print(f"{folder / name} is damaged: its copy serves, if it has one", file=sys.stderr)
    return {}


def _wrong(folder: Path, work: dict) -> str:
    """Why a product does not serve; empty where it is whole, and made by this code."""
    try:
        made = files.read_checked(folder / "product.json")
        if made["code"] != work["code"]:
            return "was finished by other code: it is done again"
        return "" if made["sha256"] == files.sha256(folder / "product") else "has a damaged product: it is made again"
    except (ValueError, FileNotFoundError) as error:
        return f"has a damaged product ({error}): it is made again"


def _clear(folder: Path, why: str) -> None:
    print(f"{folder} {why}", file=sys.stderr)
    for path in folder.iterdir():
        if path.name != "lock":
            shutil.rmtree(path) if path.is_dir() else path.unlink()


def standing(checkpoints: Path) -> list[Path]:
    """The folders of a training's checkpoints, the newest first."""
    return sorted((path for path in checkpoints.glob("*") if path.name.isdigit()), reverse=True)


def newest(checkpoints: Path) -> tuple[Path | None, dict]:
    """The newest whole checkpoint and its state.json; a damaged one is named, and the one before it serves, if there is one.

    Any other error of the disk may pass: what it hides must stay, so it ends the run.
    """
    for path in standing(checkpoints):
        try:
            state = files.read_checked(path / "state.json")
            for name, digest in state.pop("sha256").items():
                if files.sha256(path / name) != digest:
                    raise ValueError(f"{name} has changed since it was written")
            return path, state
        except (ValueError, FileNotFoundError) as error:
            serves = "the one before it serves, and without one the run begins anew"
            print(f"the checkpoint {path} is damaged ({error}): {serves}", file=sys.stderr)
        except OSError as error:
            told = f"the checkpoint {path} cannot be read ({error}): repeat the command, or delete it where that does not help"
            raise OSError(error.errno, told) from None
    return None, {}


def digest_of(path: Path) -> str:
    """The digest of an input; a folder's manifest, where there is one, names the digest of everything in it."""
    manifest = Path(path) / "manifest.json"
    return files.sha256(manifest if manifest.exists() else path)


def main_process() -> bool:
    """True in the one process that writes."""
    return int(os.environ.get("RANK", 0)) == 0
