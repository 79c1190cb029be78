"""Runs the campaign and prints its table: fault, times tried, recovered by itself, by the one command, lost.

In: --faults, --seed, the preset. Out: the table, and in --out what each fault was, with its log; a campaign that is
stopped goes on from there, a chain begins anew. An undisturbed run comes first: its products are what every other run
has to end with. What counts as recovered: chaos/verdict.py.

    python -m chaos --faults 60 --seed 1
    python -m chaos --preset demo --chain --faults 10      # one run from clean, struck again and again on its way
    python -m chaos --only "disk full" --faults 3
"""

import argparse
import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

from tqdm import tqdm

from chaos import faults, table, trees
from chaos.trial import TRIES, Missed, Trial
from chaos.verdict import mended
from vikdf import files


def struck(tree: trees.Tree, name: str, lot: random.Random, within: float, whole: Path) -> dict:
    """One fault in a copy of the finished tree, and what came of it."""
    start = time.monotonic()
    done = {"kind": name, "what": "", "verdict": table.UNTRIED, "noticed": ""}
    for _ in range(TRIES):
        trees.copied(whole, tree.folder)
        tree.env = {}
        trial = Trial(tree, lot, within)
        try:
            done["what"] = faults.KINDS[name].strike(trial)
            done["verdict"], done["noticed"] = mended(trial)
            break
        except Missed:
            continue
        except trees.Lost as error:
            done |= {"verdict": table.LOST, "noticed": str(error)}
            break
        finally:
            tree.end()
    return done | {"seconds": time.monotonic() - start}


def chained(tree: trees.Tree, names: list[str], lot: random.Random, within: float) -> list[dict]:
    """All faults in one tree on its way from clean: each is judged by the command that goes on after it, all by the end."""
    trial, done = Trial(tree, lot, within), []
    try:
        for number, name in enumerate(tqdm(names, desc="faults", unit=" fault")):
            trial.chained, trial.by_command, start = len(names) - number, False, time.monotonic()
            done.append({"kind": name, "what": "", "verdict": table.UNTRIED, "noticed": "", "seconds": 0.0})
            for _ in range(TRIES):
                with contextlib.suppress(Missed):
                    done[-1] |= {"what": faults.KINDS[name].strike(trial), "verdict": table.ITSELF}
                    break
            if trial.by_command:
                _needed_the_command(done[:-1])
            done[-1]["seconds"] = time.monotonic() - start
            tqdm.write(f"{number + 1:3d} {name}: {done[-1]['what'] or done[-1]['verdict']}")
        start, trial.by_command = time.monotonic(), False
        verdict, _ = mended(trial)
        done[-1]["seconds"] += time.monotonic() - start
    except trees.Lost as error:
        return [each | {"verdict": table.LOST, "noticed": str(error)} for each in done]
    finally:
        tree.end()
    if verdict == table.COMMAND:
        _needed_the_command(done)
    return done


def _needed_the_command(done: list[dict]) -> None:
    """The last fault that did strike is the one that the plain command could not go on from."""
    if tried := [each for each in done if each["verdict"] != table.UNTRIED]:
        tried[-1]["verdict"] = table.COMMAND


def undisturbed(place: Path, given: argparse.Namespace) -> Path:
    """The finished tree of a run that nobody disturbed, made once for this code and preset; measure.json: its products."""
    whole, tree = place / "undisturbed", trees.Tree(place / "tree", place / "undisturbed.log", given.cores)
    tree.end()  # what a campaign that was killed has left
    if given.measure:
        if not given.chain:
            raise ValueError(
                "--measure goes with --chain alone: else the finished tree itself is copied for each fault"
            )
        found = trees.products(given.measure)
        if missing := [str(out) for out in trees.outs(given.measure) if not out.exists()]:
            raise ValueError(f"{given.measure} is no finished run: it has no {missing[0]}")
        shutil.copy(given.measure / "params.yaml", place / "params.yaml")
        files.write_json(place / "measure.json", found)
    elif not (place / "measure.json").exists():
        shutil.rmtree(tree.folder, ignore_errors=True)
        trees.planted(tree.folder, given.preset)
        shutil.copy(tree.folder / "params.yaml", place / "params.yaml")
        print(f"first the undisturbed run, whose bytes are the measure; its words: {tree.log}", flush=True)
        try:
            if tree.call(trees.snakemake(given.cores))[0] != 0:
                raise ValueError(f"the undisturbed run did not end well: its words are in {tree.log}")
        finally:
            tree.end()
        trees.copied(tree.folder, whole)
        files.write_json(place / "measure.json", trees.products(whole))
    return whole


def campaign(given: argparse.Namespace) -> list[dict]:
    """What every fault came to; those of an earlier start of the same campaign are not tried again."""
    place = given.out / f"{given.preset}-{trees.of_what()}{'-measured' * bool(given.measure)}"
    place.mkdir(parents=True, exist_ok=True)
    names = faults.drawn(given.faults, given.seed, given.only, given.chain)
    whole = undisturbed(place, given)
    measure = files.read_json(place / "measure.json")
    if "disk full" in names and os.geteuid():
        raise ValueError("filling a disk mounts a small one, which takes root: be root, or choose by --only")
    how = [given.only, given.within, given.cores, *map(files.sha256, sorted(Path(__file__).parent.glob("*.py")))]
    logs = place / f"{'chain' if given.chain else 'faults'}-{given.faults}-s{given.seed}-{files.digest(how)[:6]}"
    logs.mkdir(exist_ok=True)
    kept = logs / "results.jsonl"
    lines = kept.read_text().splitlines(keepends=True) if kept.exists() else []
    done = [json.loads(line) for line in lines if line.endswith("\n")]  # one that a kill cut short is tried again
    kept.write_text("".join(lines[: len(done)]))
    if given.chain and not done:
        shutil.rmtree(place / "tree", ignore_errors=True)
        trees.planted(place / "tree", given.preset)
        shutil.copy(place / "params.yaml", place / "tree/params.yaml")  # with the port of the undisturbed run
        tree = trees.Tree(place / "tree", logs / "chain.log", given.cores, measure)
        done = chained(tree, names, random.Random(f"{given.seed} chain"), given.within)
        kept.write_text("".join(json.dumps(each) + "\n" for each in done))
    left = range(len(done), len(names))  # none of a chain
    for number in tqdm(left, initial=len(done), total=len(names), desc="faults", unit=" fault"):
        name, log = names[number], logs / f"{number + 1:03d}.log"
        log.unlink(missing_ok=True)
        tree = trees.Tree(place / "tree", log, given.cores, measure)
        done.append(struck(tree, name, random.Random(f"{given.seed} {number} {name}"), given.within, whole))
        with open(kept, "a") as stream:
            stream.write(json.dumps(done[-1]) + "\n")
        tqdm.write(f"{number + 1:3d} {done[-1]['verdict']:15} {name}: {done[-1]['what']} {done[-1]['noticed']}")
    (logs / "table.md").write_text(table.markdown(done, given))
    return done


def parser() -> argparse.ArgumentParser:
    form = argparse.RawDescriptionHelpFormatter
    made = argparse.ArgumentParser(prog="python -m chaos", description=__doc__, formatter_class=form)
    made.add_argument("--faults", type=int, default=60, metavar="N", help="how many (default: %(default)s)")
    made.add_argument("--seed", type=int, default=1, metavar="N", help="decides each fault and its place")
    made.add_argument("--only", default="", metavar="WORDS", help="kinds of fault with these words in their name alone")
    made.add_argument("--preset", default="tiny", choices=["tiny", "demo"], help="of the run (default: %(default)s)")
    made.add_argument("--chain", action="store_true", help="all faults in one run from clean, one after the other")
    said = "a moment is drawn in so many after the end of a job (default: %(default)s)"
    made.add_argument("--within", type=float, default=4, metavar="SECONDS", help=said)
    made.add_argument("--cores", type=int, default=os.cpu_count(), metavar="N", help="of each run (default: all)")
    made.add_argument("--out", type=Path, default=trees.ROOT / ".chaos", metavar="FOLDER", help="trees, logs, results")
    said = "a finished `make table1` of the same code and params, in place of an undisturbed one (with --chain)"
    made.add_argument("--measure", type=Path, metavar="FOLDER", help=said)
    made.add_argument("--page", type=Path, metavar="FILE", help="a page that keeps the table, between its marks")
    return made


def main(words: list[str] | None = None) -> None:
    given = parser().parse_args(words)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # begun in a shell's background it is ignored, by runs too
    try:
        done = campaign(given)
        print(table.markdown(done, given))
        if given.page:
            table.put(given.page, table.markdown(done, given), "chain" if given.chain else "faults")
    except (ValueError, OSError, trees.Lost, subprocess.CalledProcessError) as error:
        sys.exit(f"chaos: {error}")
    sys.exit(any(each["verdict"] == table.LOST for each in done))


if __name__ == "__main__":
    main()
