"""What the end-to-end tests share: a stage's public command line, with the shipped params where a test names no others.

In: a stage's word and the flags that differ. Out: the finished command, and what a person would have seen of it.

    done = run("filter", pairs=[...], output=tmp_path / "filter")
    assert done.returncode == 0, done.stderr
"""

import os
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parent.parent
SHARED = ROOT.parent / "shared/data"
FETCH = {"timeout": 1, "deadline": 3, "max_bytes": 1_000_000, "max_pixels": 4_000_000, "threads": 16, "processes": 1}
FETCH |= {"per_host": 16, "back_off": 0, "preflight": 0, "min_success": 0}  # the web is one host, and most of it is bad


def sample(name: str) -> Path:
    """A real sample beside the project; a test without it is skipped."""
    if not (SHARED / name).exists():
        pytest.skip(f"no real sample here: {SHARED / name}")
    return SHARED / name


def shipped(stage: str) -> dict:
    """The stage's section of params.yaml."""
    return yaml.safe_load((ROOT / "params.yaml").read_text())[stage]


def command(stage: str, **flags) -> list[str]:
    """The command line of a stage, as its rule calls it; `sources` beside a web of failures."""
    from vikdf.params import _text

    run = ["-m", f"vikdf.{stage}"] if stage != "sources" else [str(ROOT / "tests/web_of_failures.py")]
    made = [sys.executable, *run]
    for name, value in (shipped(stage) | flags).items():
        values = value if isinstance(value, list) and value and isinstance(value[0], Path) else [value]
        made += [f"--{name.replace('_', '-')}", *(str(v) if isinstance(v, Path) else _text(v) for v in values)]
    return made


def environment() -> dict:
    """Ours, with the project importable from any folder."""
    return os.environ | {"PYTHONPATH": str(ROOT), "TOKENIZERS_PARALLELISM": "false"}


def run(stage: str, seconds: float = 300, cwd: Path = ROOT, **flags) -> subprocess.CompletedProcess:
    """Runs a stage to its end; one that hangs is an error."""
    asked = command(stage, **flags)
    return subprocess.run(asked, cwd=cwd, env=environment(), capture_output=True, text=True, timeout=seconds)


def vikdf(*words) -> subprocess.CompletedProcess:
    """The command `vikdf` with these words."""
    asked = [sys.executable, "-m", "vikdf.cli", *map(str, words)]
    return subprocess.run(asked, cwd=ROOT, env=environment(), capture_output=True, text=True, timeout=300)


def sources(web, folder: Path, corpora: dict, seconds: float = 300, **flags) -> subprocess.CompletedProcess:
    """Runs `sources` beside this web; what it makes lies in <folder>/sources and <folder>/state."""
    world = {"port": web.port} if web else None
    where = {"output": folder / "sources", "state": folder / "state"}
    return run("sources", seconds, corpora=corpora, world=world, **where, **FETCH | flags)


def sound(done: subprocess.CompletedProcess) -> None:
    """The command ended well, and without a traceback by the way."""
    assert done.returncode == 0, done.stderr[-3000:]
    assert "Traceback" not in done.stderr, done.stderr[-3000:]


def refused(done: subprocess.CompletedProcess, *words: str) -> None:
    """The command ended with one sentence to the user, which names these words, and exit status 1."""
    assert done.returncode == 1, (done.returncode, done.stderr[-3000:])
    assert "Traceback" not in done.stderr, done.stderr[-3000:]
    for word in words:
        assert re.search(word, done.stderr), (word, done.stderr[-3000:])


def tree(folder: Path) -> dict[str, int]:
    """Every file below a folder and its size: what a test compares before and after."""
    return {str(path.relative_to(folder)): path.lstat().st_size for path in folder.rglob("*") if not path.is_dir()}


def counts(values) -> dict:
    return dict(sorted(Counter(values).items()))


def write_captioner(folder: Path, texts: list[str]) -> Path:
    """A random captioner of BLIP's kind whose words are those of the texts: it says something, and soon."""
    import torch

    from vikdf.backbones import captioner

    torch.manual_seed(0)
    processor = captioner.make_processor(texts, 400, 48)
    captioner.make_model(processor.tokenizer, 48, 12, 32, 1, 1).save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder
