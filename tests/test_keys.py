"""The same seed gives the same sequence of samples out of shards on disk, for any number of loader workers and processes."""

import json
import subprocess
import sys
from pathlib import Path

import keys_seen
import packs
import pytest

pytestmark = pytest.mark.filterwarnings("ignore:This DataLoader will create")  # four workers on fewer cores, on purpose
SCRIPT = Path(__file__).with_name("keys_seen.py")
TWO = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
ROWS = 43  # of a batch of 8: an epoch is five batches, so nine steps end in the second
ALONE = {"processes": 1, "micro_batch": 4, "accumulate": 2}
PAIR = {"processes": 2, "micro_batch": 2, "accumulate": 2}
RUNS = {  # name -> how it runs; rows of a process are counted in `stop_at`, so that 24 or 12 is the end of the third step
    "1 process, no worker": ALONE | {"workers": 0},
    "1 process, 1 worker": ALONE | {"workers": 1},
    "1 process, 2 workers": ALONE | {"workers": 2},
    "1 process, 4 workers": ALONE | {"workers": 4},
    "1 process, 2 workers, stopped": ALONE | {"workers": 2, "stop_at": 24},
    "1 process, 4 workers, stopped": ALONE | {"workers": 4, "stop_at": 48},
    "2 processes, no worker": PAIR | {"workers": 0},
    "2 processes, 2 workers": PAIR | {"workers": 2},
    "2 processes, 2 workers, stopped": PAIR | {"workers": 2, "stop_at": 12},
    "like sizes, 1 process": ALONE | {"workers": 2, "sizes": True},
    "like sizes, 2 processes": PAIR | {"workers": 1, "sizes": True},
    "another seed": ALONE | {"workers": 0, "seed": 4},
}


@pytest.fixture(scope="module")
def seen(tmp_path_factory) -> dict[str, list[list[str]]]:
    """The samples of each step; of two processes first one's, then the other's."""
    folder = tmp_path_factory.mktemp("keys")
    shards = packs.pack(packs.tables(folder, ROWS), rows_per_shard=10)
    pair = [{"name": name, **run} for name, run in RUNS.items() if run["processes"] == 2]
    command = [sys.executable, *TWO, str(SCRIPT), str(shards), str(folder), json.dumps(pair)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    for name, run in RUNS.items():
        if run["processes"] == 1:
            keys_seen.see(shards, folder, name, **run)
    made = {}
    for name, run in RUNS.items():
        shares = [json.loads((folder / f"{name}-{rank}.json").read_text()) for rank in range(run["processes"])]
        made[name] = [sum(parts, []) for parts in zip(*shares, strict=True)]
    return made


def test_nine_steps_of_eight_samples_cross_an_epoch_and_draw_other_captions_then(seen):
    steps = seen["1 process, no worker"]
    assert [len(step) for step in steps] == [8] * 9
    first, second = ([row.split()[0] for step in part for row in step] for part in (steps[:5], steps[5:]))
    assert len(set(first)) == 40 and len(set(second)) == 32 and first[:32] != second
    assert {row for step in steps[:5] for row in step} != {row for step in steps[5:] for row in step}


@pytest.mark.parametrize("name", [name for name in RUNS if name[0] in "12"][1:])
def test_the_sequence_is_that_of_one_process_without_workers(seen, name):
    assert seen[name] == seen["1 process, no worker"]


def test_with_batches_of_like_size_two_processes_see_what_one_sees(seen):
    assert seen["like sizes, 2 processes"] == seen["like sizes, 1 process"] != seen["1 process, no worker"]


def test_another_seed_gives_another_sequence(seen):
    assert seen["another seed"] != seen["1 process, no worker"]
