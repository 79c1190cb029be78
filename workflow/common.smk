"""What the stages share: params and raw files checked before the first job, and helpers. Nothing runs by itself here.

code(stage)             the stage's files of code, as inputs: editing a module re-runs exactly its stages
raw_flags(path)         the flags that fetch a raw file; RAW: the pattern of those that are missing and can be fetched
flags(section, *names)  a section of params.yaml as the stage's flags (only those names, if any are given);
                        flags("pretrain", **overrides) puts other values in place, as an ablation does
runs(seed)              "<system>-<fraction>-s<seed>" of every row of table 1
core_runs(seed)         the same for the rows of `tables.core` alone
evidence_runs(seed)     those at zero data of the systems that a contrast of `evidence` names: what it repeats over seeds
ablated_runs(names)     "<system>-zero-s<seed>" of the rows of table 3 or 4 or the points of figure 7, every seed
LEFT_OUT                baselines that cannot be asked from here (no key), and why: no rule knows them, table 1 says so below
ABLATED                 the systems that only table 3 and figure 7 ask for: the paper's setting on another variant of pretrain
ON_KNOWING, ON_ALONE    the systems that only table 4 asks for: VIKDF's setting, and the LLM alone with LoRA, on another language
                        model; ON_VARIANTS: their variants of pretrain
EXTRA                   what else was made that the report shows, with its bytes' digest: evidence, tables 2 to 4, figures 5 to 7
launch(section)         how the stage's training starts: in one process, or in as many as the section says
take_turn()             before the first job: nobody else works in this folder
"""

import re
import sys
from pathlib import Path

sys.path.insert(0, workflow.basedir)

from vikdf import endpoints as _endpoints
from vikdf import params as _params
from vikdf.code import code
from vikdf.files import sha256
from vikdf.turns import take_turn

# What a job says goes to the screen and to its log. Ctrl-C, and whoever stops a whole group, signal `tee` too: it must not die
# before the job has said its last words.
shell.prefix("set -euo pipefail; keep() {{ trap '' INT TERM; tee \"$1\"; }}; ")


try:
    if config:
        raise ValueError(f"--config {', '.join(config)}: settings stand in params.yaml alone, where they are checked")
    # Not `configfile:`, which may run code that a file from elsewhere holds, and reads it before it is checked.
    config.update(_params.load(Path("params.yaml")))
    _params.check_files(config)
    config["baselines"], LEFT_OUT = _endpoints.usable(config["baselines"])
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


def core_runs(seed):
    return [run for run in runs(seed) if run.split("-")[0] in config["tables"]["core"]]


def evidence_runs(seed):
    try:
        _endpoints.check_contrasts(config["evidence"]["contrasts"], LEFT_OUT)
    except ValueError as error:
        sys.exit(f"\n{error}\nNothing was run.")
    named = {pair[side] for pair in config["evidence"]["contrasts"].values() for side in ("a", "b")}
    return [run for run in runs(seed) if run.split("-")[0] in named and "-zero-" in run]


ABLATED = {
    name: config["finetune"]["systems"]["vikdf"] | {"pretrain": name, "fractions": ["zero"]}
    for name in [*config["tables"]["table3"].values(), *config["tables"]["figure7"]]
    if name not in config["finetune"]["systems"]
}


# Table 4: the LLM alone with LoRA and VIKDF's setting, each on the other language models; differ in that alone.
OTHER_LLMS = [name for name in dict.fromkeys(config["tables"]["table4"].values()) if name != config["pretrain"]["llm"]]
ON_VARIANTS = {f"on_{llm}": {"llm": llm} for llm in OTHER_LLMS}
ON_KNOWING = {
    f"vikdf_on_{llm}": config["finetune"]["systems"]["vikdf"] | {"pretrain": f"on_{llm}", "fractions": ["zero"]}
    for llm in OTHER_LLMS
}
ON_ALONE = {
    f"llm_lora_on_{llm}": config["baselines"]["llm_lora"] | {"llm": llm, "fractions": ["zero"]} for llm in OTHER_LLMS
}


def ablated_runs(names):
    return [f"{name}-zero-s{seed}" for name in dict.fromkeys(names) for seed in config["seeds"]]


# Read, never asked for: an input would make `table1` ask for hours of work again when a number changed.
_OTHERS = ["evidence.csv", "evidence.svg", *(f"table{number}.csv" for number in (2, 3, 4))]
_OTHERS += [f"figure{number}.{form}" for number in (5, 6, 7) for form in ("csv", "svg")]
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
