"""What the stages share: params and raw files checked before the first job, and helpers. Nothing runs by itself here.

code(stage)             the stage's files of code, as inputs: editing a module re-runs exactly its stages
raw_flags(path)         the flags that fetch a raw file; RAW: the pattern of those that are missing and can be fetched
flags(section, *names)  a section of params.yaml as the stage's flags (only those names, if any are given);
                        flags("pretrain", **overrides) puts other values in place, as an ablation does
runs(seed)              "<system>-<fraction>-s<seed>" of every row of table 1
zero_runs(seed)         the same for the rows at zero data: the ones that `evidence` repeats over seeds
ablated_runs(names)     "<variant>-zero-s<seed>" of the rows of table 3 or the points of figure 7, every seed
ABLATED                 the systems that only table 3 and figure 7 ask for: the paper's setting on another variant of pretrain
EXTRA                   what else was made that the report shows, with its bytes' digest: evidence, table 3, figure 7, people's ratings
launch(section)         how the stage's training starts: in one process, or in as many as the section says
"""

import re
import sys
from pathlib import Path

sys.path.insert(0, workflow.basedir)

from vikdf import params as _params
from vikdf.code import code
from vikdf.files import sha256

shell.prefix("set -euo pipefail; ")


try:
    _params.load(Path("params.yaml"))
    _params.check_files(config)
except ValueError as error:
    sys.exit(f"\n{error}\nNothing was run.")


def flags(section, *names, **overrides):
    values = _params.section(config, section) or {}  # `sources.world: null`: no world, no flags
    values = {name: values[name] for name in names or values}
    for name, value in overrides.items():  # of a key that holds keys, those that are not named stay
        values[name] = values[name] | value if isinstance(values.get(name), dict) else value
    return _params.as_flags(values)


def raw_flags(path):
    return _params.as_flags(
        {"path": path, "entry": config["sources"]["raw"][path], "timeout": config["sources"]["timeout"]}
    )


# Raw files that can be fetched and are not there yet: one that is there is nobody's to make again, or to delete.
MISSING_RAW = [path for path, entry in config["sources"]["raw"].items() if "url" in entry and not Path(path).exists()]
RAW = "|".join(map(re.escape, MISSING_RAW)) or "(?!)"


def runs(seed):
    systems = config["finetune"]["systems"] | config["baselines"]
    return [f"{name}-{fraction}-s{seed}" for name, entry in systems.items() for fraction in entry["fractions"]]


def zero_runs(seed):
    return [run for run in runs(seed) if "-zero-" in run]


ABLATED = {
    name: config["finetune"]["systems"]["vikdf"] | {"pretrain": name, "fractions": ["zero"]}
    for name in [*config["tables"]["table3"].values(), *config["tables"]["figure7"]]
    if name not in config["finetune"]["systems"]
}


def ablated_runs(names):
    return [f"{name}-zero-s{seed}" for name in dict.fromkeys(names) for seed in config["seeds"]]


# Read, never asked for: an input would make `table1` ask for hours of work again when a number changed.
_OTHERS = ["evidence.csv", "evidence.svg", "table2.csv", "table3.csv", "figure7.csv", "figure7.svg"]
EXTRA = {str(path): sha256(path) for path in map(Path("results").joinpath, _OTHERS) if path.is_file()}


def launch(section):
    """python, or torchrun on this machine alone, whose processes find each other without asking for the host's name."""
    processes = config[section]["training"]["processes"]
    several = f" -m torch.distributed.run --standalone --local-addr 127.0.0.1 --nproc-per-node {processes}"
    return "python" + (several if processes > 1 else "")


def how_to_repeat(log):
    """The command that repeats the failed steps alone, read from Snakemake's own log."""
    failed = re.findall(r"^Error in rule\s(\w+):.*?^    output: ([^\n,]+)", Path(log).read_text(), flags=re.M | re.S)
    commands = [f"    snakemake --cores all --allowed-rules {rule} -- {path}" for rule, path in failed]
    return "\n".join(["", "To repeat only what failed:", *commands, ""]) if commands else ""
