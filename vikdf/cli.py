"""`vikdf <command>`: what a person does around a run. The run itself is Snakemake's: snakemake --cores all

In: the folder that holds Snakefile and params.yaml. Out: one line or a short table; exit status 1 on any fault.
Heavy libraries are imported by the command that needs them, so that --help answers at once.
"""

import argparse
import json
import os
import socket
import sys
from collections.abc import Callable
from pathlib import Path

from vikdf import compare, files, score, use, validate
from vikdf.flags import printable
from vikdf.human import commands as human

EXAMPLES = """
examples
  vikdf validate                       is params.yaml right? names the key, what was found and what is expected
  vikdf validate presets/paper.yaml    the same for another file
  vikdf validate talks.jsonl           what is wrong in pairs or dialogues of your own, line by line, before anything runs
  vikdf plan presets/paper.yaml        what a run would train, compute and need, before it is started
  vikdf plan --gpu rtx4090 --micro-batch 8 --processes 4
  vikdf verify                         are all products there and unharmed? reads every manifest.json below data/
  vikdf index images/                  shards of img2dataset: index them, so that they are read as ours are
  vikdf state                          what work is kept, finished or half done, and how large it is
  vikdf track replay                   send to MLflow what it missed while it was away
  vikdf ui --port 5001                 every run in the browser
  vikdf human sheet --responses results/generate/{llm_lora,vikdf}-zero-s1.parquet     pages on which people rate, blinded
  vikdf human table ratings-*.json     Table 2 from what the raters sent back
  vikdf reply results/finetune/vikdf-zero-s1 "what colour is the kettle?"
  vikdf textualize results/finetune/vikdf-zero-s1 "what colour is the kettle?"
  vikdf draw results/finetune/vikdf-zero-s1 "what colour is the kettle?" --output kettle.png
  vikdf score --hypotheses H.txt --references R.txt --json       all metrics of anyone's answers
  vikdf compare --a A.parquet --b B.parquet                      is A better than B, or is it chance?
"""
VERIFY = """
FOLDER and all below it are looked through for manifest.json, which each step writes last, with the sha256 of its files.
Every file is read once. Exit status 1 if one is missing or was changed; each line then says how to get it back. Nothing is mended.

examples
  vikdf verify                 all of data/
  vikdf verify data/shards     the shards alone, and which samples a harmed tar costs
"""
INDEX = """
The tars hold samples as webdataset has them: a picture and a .json or .txt under one key. They are not changed; FOLDER gets
index.parquet, where each sample lies, and manifest.json, with counts, what was left out by reason, and the sha256 of each tar.
Afterwards `vikdf verify FOLDER` checks them, and vikdf.samples.Shards reads any sample by its number.
A folder of tars that the pipeline shall learn from needs no index: name it in params.yaml as a corpus of the form webdataset.

example
  vikdf index images/          images/ is what img2dataset wrote with --output_format webdataset
"""
STATE = """
A line a piece of work: finished or half done, its size, its folder. What is finished is not done again while its inputs and code
are the same; what is half done goes on when its step is run again. A folder that is deleted is done anew.

examples
  vikdf state                  all work in state/
  vikdf state /disk/state      another folder
"""
PLAN = """
Read the page from its end: whether each stage fits into the GPU, then the hours; the memory's parts, above, say what to change.
A smaller --micro-batch takes less memory, and more --processes less time: a step keeps its rows, in more or fewer micro-batches.

examples
  vikdf plan presets/paper.yaml --gpu rtx4090 --micro-batch 4
  vikdf plan presets/paper.yaml --processes 8 --gpu h100 --utilisation 0.35
"""


def plan(given: argparse.Namespace) -> None:
    from vikdf import plan as plans
    from vikdf.model.cost import Lengths

    shortest, longest = given.caption
    if not 1 <= shortest <= longest:
        raise ValueError(f"--caption is {shortest} {longest}: expected the shortest and the longest, such as 12 20")
    lengths = {"caption": longest, "caption_mean": (shortest + longest) / 2, "prompt": given.prompt}
    lengths |= {"template": given.template, "context": given.context, "response": given.response}
    counts = {name: getattr(given, name) for name in ("gpu", "utilisation", "micro_batch", "processes", "rows", "disk")}
    options = plans.Options(
        **counts, picture_bytes=given.picture_bytes, backbones=given.backbones, lengths=Lengths(**lengths)
    )
    print("\n\n\n".join(plans.plan(path, options) for path in given.paths))


def verify(folder: Path) -> None:
    """Every file that a manifest names is there with the sha256 that the manifest gives."""
    _check_folder(folder)
    manifests = sorted(folder.rglob("manifest.json"))
    if not manifests:
        raise ValueError(f"no manifest.json below {folder}: nothing has been made yet; run `snakemake --cores all`")
    wrong = [line for path in manifests for line in _harmed(path)]
    if wrong:
        raise ValueError("\n".join([f"below {folder} not all is as its manifest says:", *wrong]))
    print(f"{len(manifests)} manifests below {folder}: every file they name is whole")


def index(folder: Path) -> None:
    from vikdf import index as indexes

    _check_folder(folder)
    indexes.index(folder)


def _check_folder(folder: Path) -> None:
    if not folder.is_dir():
        what = "is no folder" if folder.exists() else "is missing"
        raise ValueError(f"{folder} {what}: expected a folder that was made or copied before")


def _harmed(manifest: Path) -> list[str]:
    try:
        return _harms(manifest, _told(manifest))
    except ValueError as error:  # the manifest itself is harmed; the others are looked at all the same
        return [f"  {error}"]


def _told(manifest: Path) -> dict:
    """What a manifest says; a ValueError for one that names nothing: it would be true whatever became of the files."""
    said = files.read_json(manifest)
    cure = "delete it and run the step that makes it again, or copy the folder anew"
    if not isinstance(said, dict):
        raise ValueError(f"{manifest} is no manifest, expected an object that names files: {cure}")
    for name, kinds in {"files": dict, "sha256": (dict, str)}.items():
        if name in said and not isinstance(said[name], kinds):
            raise ValueError(f"{manifest} is no manifest, its `{name}` is {json.dumps(said[name])[:40]}: {cure}")
    if not isinstance(said.get("sha256"), str) and not _digests(said):
        raise ValueError(f"{manifest} is no manifest, it names no file with its sha256: {cure}")
    return said


def _harms(manifest: Path, said: dict) -> list[str]:
    lines, target = [], manifest
    if "index.parquet" in said.get("files", {}):
        from vikdf import samples

        found = samples.harm(manifest.parent)
        alone = {each.path.name for each in found} == {"index.parquet"}
        cure = f"  cure: {samples.cure(manifest.parent, alone)}"
        return [*(f"  {each}" for each in found), cure] if found else []
    for name, digest in sorted(_digests(said).items()):
        path = manifest.parent / name
        if not path.exists():
            lines.append(f"  {path} is missing")
        elif files.sha256(path) != digest:
            lines.append(f"  {path} has changed since it was made")
    whole = isinstance(said.get("sha256"), str)  # a model: one folder, one digest
    if whole and files.digest([*files.contents(manifest.parent).items()]) != said["sha256"]:
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


def state(folder: Path) -> None:
    rows = []
    for path in sorted(folder.glob("*/*/")):
        if (path / "journal.jsonl").exists() and not (path / "work.json").exists():
            continue  # of a job that keeps no work, only what MLflow shows of it
        size = sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
        kept = {"product.json": "finished", "about.json": "answers"}  # these of an endpoint
        done = next((said for name, said in kept.items() if (path / name).exists()), "half done")
        rows.append(f"{done:10} {size / 1e6:9.1f} MB  {path}")
    print("\n".join(rows) if rows else f"no work is kept in {folder}")


def replay(folder: Path, store: str) -> None:
    from vikdf import tracked, tracking

    print(f"{tracked.replay(folder, store or tracking.default_store())} runs sent")


def ui(host: str, port: int) -> None:
    from vikdf import tracking

    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            raise ValueError(f"port {port} of {host} is in use: take another, `make ui PORT={port + 1}`") from None
    store = tracking.default_store()
    experiment = tracking.client_of(store)[1]
    page = f"#/experiments/{experiment}/runs?workflowType=machine_learning"  # MLflow's other pages are for traces
    print(f"MLflow shows {store} at http://{host}:{port}/{page}  (Ctrl-C ends it)", flush=True)
    server = ["server", "--backend-store-uri", store, "--host", host, "--port", str(port), "--workers", "1"]
    os.execv(sys.executable, [sys.executable, "-m", "mlflow", *server])


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        prog="vikdf",
        description="What a person does around a run of VIKDF; `vikdf COMMAND --help` tells more of each.\n"
        "The run itself: snakemake --cores all",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = made.add_subparsers(title="commands", metavar="COMMAND", required=True)
    said = "check params files, and files of pairs or dialogues line by line"
    one = _command(commands, "validate", said, validate.run)
    said = "params files, data files or folders (default: params.yaml)"
    one.add_argument("paths", nargs="*", type=Path, default=[Path("params.yaml")], metavar="FILE", help=said)
    validate.add_flags(one)
    _plan_flags(_command(commands, "plan", "parameters, FLOPs, memory, storage and hours of a params file", plan, PLAN))
    said = "check every product against its manifest"
    one = _command(commands, "verify", said, lambda given: verify(given.folder), VERIFY)
    _folder(one, "what was made", Path("data"))
    said = "index tar shards that another tool wrote, such as img2dataset"
    one = _command(commands, "index", said, lambda given: index(given.folder), INDEX)
    one.add_argument("folder", type=Path, metavar="FOLDER", help="the folder that holds the .tar files")
    one = _command(commands, "state", "list the work that is kept in state/", lambda given: state(given.folder), STATE)
    _folder(one, "the work", Path("state"))
    track = commands.add_parser("track", help="MLflow: send what it missed")
    track = track.add_subparsers(title="commands", metavar="COMMAND", required=True)
    one = _command(
        track, "replay", "send every journal that MLflow lacks", lambda given: replay(given.folder, given.store)
    )
    _folder(one, "the work, with its journals", Path("state"))
    one.add_argument("--store", default="", help="MLflow's address (default: $MLFLOW_TRACKING_URI or ./mlflow.db)")
    one = _command(commands, "ui", "open MLflow on this machine", lambda given: ui("127.0.0.1", given.port))
    one.add_argument("--port", type=int, default=5000, metavar="N", help="where it listens (default: %(default)s)")
    for name, (meaning, more, flags, does) in (use.COMMANDS | score.COMMANDS | compare.COMMANDS).items():
        flags(_command(commands, name, meaning, does, more))
    people = commands.add_parser("human", help="people rate answers: pages for raters, Table 2 of what they send back")
    people = people.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for name, (meaning, more, flags, does) in human.COMMANDS.items():
        flags(_command(people, name, meaning, does, more), Path("results"))
    return made


def _plan_flags(one: argparse.ArgumentParser) -> None:
    one.description += ".\nNothing is fetched and nothing held in memory: works for any size on any machine."
    said = "params file (default: params.yaml)"
    one.add_argument("paths", nargs="*", type=Path, default=[Path("params.yaml")], metavar="FILE", help=said)
    said = "folder of backbones already made; their own config counts (default: %(default)s)"
    one.add_argument("--backbones", type=Path, default=Path("data/backbones"), metavar="FOLDER", help=said)
    one.add_argument(
        "--gpu", default="", metavar="NAME", help="such as rtx4090, a100-80 or h100; else all that are known"
    )
    for name, kind, value, meaning in (
        ("utilisation", float, 0.4, "share of the GPU's peak that the run reaches"),
        ("micro-batch", int, 0, "rows at once in a process (default: the file's)"),
        ("processes", int, 0, "GPUs, one process each; a step keeps its rows (default: the file's)"),
        ("rows", int, 0, "pictures in all (default: what data/README.md expects of the corpora)"),
        ("picture-bytes", int, 150_000, "of one picture: COCO's mean"),
        ("disk", float, 1.0, "gigabytes a second that the disk of the cached features reads, rows in any order"),
        ("prompt", int, 12, "tokens of the prompts of IACI and IAKR"),
        ("template", int, 8, "tokens that the LLM's chat template puts around one question"),
        ("context", int, 40, "tokens of a dialogue's turns"),
        ("response", int, 16, "tokens of a response"),
    ):
        said = f"{meaning} (default: %(default)s)" if value else meaning
        one.add_argument(f"--{name}", type=kind, default=value, metavar="N", help=said)
    said = "tokens of captions: the shortest and the longest (default: 12 20)"
    one.add_argument("--caption", type=int, nargs=2, default=[12, 20], metavar=("MIN", "MAX"), help=said)


def _folder(one: argparse.ArgumentParser, meaning: str, usual: Path) -> None:
    said = f"{meaning} (default: {usual})"
    one.add_argument("folder", nargs="?", type=Path, default=usual, metavar="FOLDER", help=said)


def _command(group, name: str, meaning: str, does: Callable, more: str = "") -> argparse.ArgumentParser:
    form = argparse.RawDescriptionHelpFormatter
    command = group.add_parser(name, help=meaning, description=meaning, epilog=more, formatter_class=form)
    command.set_defaults(does=does)
    return command


def main(words: list[str] | None = None) -> None:
    given = parser().parse_args(words)
    try:
        given.does(given)
        sys.stdout.flush()
    except BrokenPipeError:  # who reads has seen enough, as `head`; Python's own last flush shall not complain either
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except (ValueError, OSError) as error:
        print(f"vikdf: {printable(error)}", file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    main()
