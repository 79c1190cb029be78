"""`vikdf <command>`: what a person does around a run. The run itself is Snakemake's: snakemake --cores all

In: the folder that holds Snakefile and params.yaml. Out: one line or a short table; exit status 1 on any fault.
Heavy libraries are imported by the command that needs them, so that --help answers at once.
"""

import argparse
import contextlib
import os
import socket
import sys
from collections.abc import Callable
from pathlib import Path

from vikdf import compare, files, kept, recover, score, turns, use, validate, verify
from vikdf.flags import printable
from vikdf.human import commands as human

EXAMPLES = """
examples
  vikdf validate                       is params.yaml right? names the key, what was found and what is expected
  vikdf validate presets/paper.yaml    the same for another file
  vikdf validate talks.jsonl           what is wrong in pairs or dialogues of your own, line by line, before anything runs
  vikdf plan presets/paper.yaml        what a run would train, compute and need, before it is started
  vikdf plan --gpu rtx4090 --micro-batch 8 --processes 4
  vikdf recover                        whatever stopped a run, bring it to its end
  vikdf verify                         are all products, and what is kept of work, there and unharmed?
  vikdf index images/                  shards of img2dataset: index them, so that they are read as ours are
  vikdf state                          what work is kept, finished or half done, and how large it is; --clean says what may go
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
INDEX = """
The tars hold samples as webdataset has them: a picture and a .json or .txt under one key. They are not changed; FOLDER gets
index.parquet, where each sample lies, and manifest.json, with counts, what was left out by reason, and the sha256 of each tar.
Afterwards `vikdf verify FOLDER` checks them, and vikdf.samples.Shards reads any sample by its number.
A folder of tars that the pipeline shall learn from needs no index: name it in params.yaml as a corpus of the form webdataset.

example
  vikdf index images/          images/ is what img2dataset wrote with --output_format webdataset
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


def index(folder: Path) -> None:
    from vikdf import index as indexes

    _check_folder(folder)
    indexes.index(folder)


def _check_folder(folder: Path) -> None:
    if not folder.is_dir():
        what = "is no folder" if folder.exists() else "is missing"
        raise ValueError(f"{folder} {what}: expected a folder that was made or copied before")


def state(given: argparse.Namespace) -> None:
    from vikdf import unwanted

    if given.yes and not given.clean:
        raise ValueError("--yes was given without --clean: there is nothing to agree to")
    if given.explain:
        said = kept.explain(given.explain)
    elif given.go_on:
        said = kept.go_on(given.go_on)
    elif given.clean:
        turn = files.alone(turns.LOCK, str(Path.cwd())) if given.yes else contextlib.nullcontext()
        with turn:  # a run's plan may still ask for what others have forgotten
            said = unwanted.clean(given.folder, Path("data/backbones"), [Path("data"), Path("results")], given.yes)
    else:
        said = kept.listed(given.folder)
    print(printable(said))


def replay(folder: Path, store: str) -> None:
    from vikdf import tracked, tracking

    print(f"{tracked.replay(folder, store or tracking.default_store())} runs sent")


def ui(host: str, port: int) -> None:
    """MLflow for this machine's own browsers: on loopback, for no other name, in no other page's frame."""
    from vikdf import store, tracking

    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            raise ValueError(f"port {port} of {host} is in use: take another, `make ui PORT={port + 1}`") from None
    address = tracking.default_store()
    with store.opened(address) as (_, experiment):
        pass
    page = f"#/experiments/{experiment}/runs?workflowType=machine_learning"  # MLflow's other pages are for traces
    print(f"MLflow shows {store.masked(address)} at http://{host}:{port}/{page}  (Ctrl-C ends it)", flush=True)
    server = ["server", "--backend-store-uri", address, "--host", host, "--port", str(port), "--workers", "1"]
    server += ["--allowed-hosts", f"{host}:{port},localhost:{port}", "--x-frame-options", "DENY"]
    opening = ("MLFLOW_SERVER_", "MLFLOW_UVICORN_", "MLFLOW_GUNICORN_")  # what would open it further than these flags
    kept = {name: value for name, value in os.environ.items() if not name.startswith(opening)}
    os.execve(sys.executable, [sys.executable, "-m", "mlflow", *server], kept)


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
    said = "bring a run to its end, whatever stopped it"
    recover.add_flags(_command(commands, "recover", said, recover.run, recover.MORE))
    said = "are all products, and what is kept of work, as they were made?"
    verify.add_flags(_command(commands, "verify", said, verify.run, verify.MORE))
    said = "index tar shards that another tool wrote, such as img2dataset"
    one = _command(commands, "index", said, lambda given: index(given.folder), INDEX)
    one.add_argument("folder", type=Path, metavar="FOLDER", help="the folder that holds the .tar files")
    one = _command(commands, "state", "the work that is kept: list, explain or clean it", state, kept.MORE)
    _folder(one, "the work", Path("state"))
    kept.add_flags(one)
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
