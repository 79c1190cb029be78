"""`vikdf <command>`: what a person does around a run. The run itself is Snakemake's: snakemake --cores all

In: the folder that holds Snakefile and params.yaml. Out: one line or a short table; exit status 1 on any fault.
Heavy libraries are imported by the command that needs them, so that --help answers at once.
"""

import argparse
import os
import socket
import sys
from collections.abc import Callable
from pathlib import Path

from vikdf import files

EXAMPLES = """
examples
  vikdf validate                       is params.yaml right? names the key, what was found and what is expected
  vikdf validate presets/paper.yaml    the same for another file
  vikdf verify                         are all products there and unharmed? reads every manifest.json below data/
  vikdf state                          what work is kept, finished or half done, and how large it is
  vikdf track replay                   send to MLflow what it missed while it was away
  vikdf ui --port 5001                 every run in the browser
"""


def validate(paths: list[Path]) -> None:
    from vikdf import params

    for path in paths:
        params.load(path)
        print(f"{path}: every key is known and has a value of its type")


def verify(folder: Path) -> None:
    """Every file that a manifest names is there with the sha256 that the manifest gives."""
    manifests = sorted(folder.rglob("manifest.json"))
    if not manifests:
        raise ValueError(f"no manifest.json below {folder}: nothing has been made yet; run `snakemake --cores all`")
    wrong = [line for path in manifests for line in _harmed(path)]
    if wrong:
        raise ValueError("\n".join(["these are not as their manifests say:", *wrong]))
    print(f"{len(manifests)} manifests below {folder}: every file they name is whole")


def _harmed(manifest: Path) -> list[str]:
    said, lines, target = files.read_json(manifest), [], manifest
    for name, digest in sorted(_digests(said).items()):
        path = manifest.parent / name
        if not path.exists():
            lines.append(f"  {path} is missing")
        elif files.sha256(path) != digest:
            lines.append(f"  {path} has changed since it was made")
    if (
        isinstance(said.get("sha256"), str) and _folder(manifest.parent) != said["sha256"]
    ):  # a model: one folder, one digest
        lines, target = [f"  {manifest.parent} has changed since it was made"], manifest.parent
    return [*lines, f"  cure: rm -r {target} and run `snakemake --cores all {target}`"] if lines else []


def _digests(manifest: dict) -> dict[str, str]:
    """File -> sha256 of a manifest: {"sha256": {file: ...}}, or entries {"sha256": ...} by file or by table."""
    found = dict(manifest["sha256"]) if isinstance(manifest.get("sha256"), dict) else {}
    for group in manifest.values():
        for name, entry in group.items() if isinstance(group, dict) else []:
            if isinstance(entry, dict) and "sha256" in entry:
                found[name if "." in name else f"{name}.parquet"] = entry["sha256"]
    return found


def _folder(folder: Path) -> str:
    """The digest of a folder as it was before its manifest was written (and Snakemake's time stamp)."""
    inside = sorted(path for path in folder.rglob("*") if path.is_file())
    inside = [path for path in inside if path.name not in ("manifest.json", ".snakemake_timestamp")]
    return files.digest([[path.relative_to(folder).as_posix(), files.sha256(path)] for path in inside])


def state(folder: Path) -> None:
    rows = []
    for path in sorted(folder.glob("*/*/")):
        size = sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
        done = "finished" if (path / "product.json").exists() else "half done"
        rows.append(f"{done:10} {size / 1e6:9.1f} MB  {path}")
    print("\n".join(rows) if rows else f"no work is kept in {folder}")


def replay(folder: Path, store: str) -> None:
    from vikdf import tracking

    print(f"{tracking.replay(folder, store or tracking.default_store())} runs sent")


def ui(host: str, port: int) -> None:
    from vikdf import tracking

    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            raise ValueError(f"port {port} of {host} is in use: take another, `make ui PORT={port + 1}`") from None
    store = tracking.default_store()
    print(f"MLflow shows {store} at http://{host}:{port}  (Ctrl-C ends it)", flush=True)
    server = ["server", "--backend-store-uri", store, "--host", host, "--port", str(port), "--workers", "1"]
    os.execv(sys.executable, [sys.executable, "-m", "mlflow", *server])


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        prog="vikdf",
        description="Around a run of VIKDF. The run itself: snakemake --cores all",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = made.add_subparsers(title="commands", metavar="", required=True)
    one = _command(commands, "validate", "check params files against the schema", lambda given: validate(given.paths))
    one.add_argument("paths", nargs="*", type=Path, default=[Path("params.yaml")], metavar="FILE")
    one = _command(commands, "verify", "check every product against its manifest", lambda given: verify(given.folder))
    one.add_argument("folder", nargs="?", type=Path, default=Path("data"), metavar="FOLDER")
    one = _command(commands, "state", "list the work that is kept in state/", lambda given: state(given.folder))
    one.add_argument("folder", nargs="?", type=Path, default=Path("state"), metavar="FOLDER")
    track = commands.add_parser("track", help="MLflow: send what it missed").add_subparsers(metavar="", required=True)
    one = _command(
        track, "replay", "send every journal that MLflow lacks", lambda given: replay(given.folder, given.store)
    )
    one.add_argument("folder", nargs="?", type=Path, default=Path("state"), metavar="FOLDER")
    one.add_argument("--store", default="", help="MLflow's address (default: $MLFLOW_TRACKING_URI or ./mlflow.db)")
    one = _command(commands, "ui", "open MLflow on this machine", lambda given: ui("127.0.0.1", given.port))
    one.add_argument("--port", type=int, default=5000)
    return made


def _command(group, name: str, meaning: str, does: Callable) -> argparse.ArgumentParser:
    command = group.add_parser(name, help=meaning, description=meaning)
    command.set_defaults(does=does)
    return command


def main(words: list[str] | None = None) -> None:
    given = parser().parse_args(words)
    try:
        given.does(given)
    except (ValueError, OSError) as error:
        print(f"vikdf: {error}", file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    main()
