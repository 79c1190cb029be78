"""flags: what a stage says of its own files and of strangers' ends in one readable sentence."""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from vikdf import flags

ROOT = Path(__file__).resolve().parent.parent


def stage(*, word: str) -> None:
    """Refuses a word.

    word: any
    """
    raise ValueError(f"the column is called {word}")


def test_a_stranger_s_words_in_an_error_cannot_steer_the_terminal(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["stage", "--word", "\x1b[2Jred\r\u202e\x9b\x07"])
    with pytest.raises(SystemExit):
        flags.main(stage)
    assert r"the column is called \x1b[2Jred\r\u202e\x9b\x07" in capsys.readouterr().err


@pytest.mark.parametrize("text", ["ein Hündchen\n\tund 猫", "", "a\\b"])
def test_a_sentence_of_any_language_stays_as_it_is(text):
    assert flags.printable(text) == text


def test_where_one_line_is_meant_a_line_end_is_its_code():
    assert flags.printable("a\nb\ud800", keep="") == r"a\nb\ud800"


STAGE = """
import os, signal, sys, time
from vikdf import flags
signal.signal(signal.SIGINT, signal.default_int_handler)  # whoever runs these tests in the background may have it ignored
def train(*, how: str) -> None:
    read, write = os.pipe()
    if not how.endswith("with a child") or not os.fork():
        os.write(write, b"1")  # a child's Python forgets a signal that comes while it is being born
        if how.endswith("with a child"):
            time.sleep(600)
    os.read(read, 1)
    print("begun", flush=True)
    time.sleep(600)
train.__module__ = "stage"
flags.main(train)
"""


@pytest.mark.parametrize("how", ["SIGTERM alone", "SIGTERM with a child", "SIGINT alone"])
def test_a_signal_in_any_stage_is_one_sentence_and_no_traceback(how):
    number = signal.Signals[how.split()[0]]
    asked = [sys.executable, "-c", STAGE, "--how", how]
    with subprocess.Popen(asked, stdout=-1, stderr=-1, text=True, start_new_session=True) as process:
        assert process.stdout.readline() == "begun\n"
        os.killpg(process.pid, number)
        said = process.communicate(timeout=60)[1]
    sentence = f"stopped by {number.name}; nothing that was finished is lost: the same command goes on"
    assert said == f"\npython -m stage: {sentence}\n" and process.returncode == 128 + number


def test_every_stage_of_the_workflow_starts_by_flags():
    """So that signals, refusals and full disks end in a sentence in each."""
    rules = "".join(path.read_text() for path in (ROOT / "workflow").rglob("*.smk"))
    modules = sorted(set(re.findall(r"python -m vikdf\.([a-z_.]+)", rules)) | {"pretrain", "finetune", "features"})
    assert len(modules) > 12
    for module in modules:
        path = ROOT / "vikdf" / module.replace(".", "/")
        path = path / "__main__.py" if path.is_dir() else path.with_suffix(".py")
        assert re.search(r"^    flags\.main\(\w+\)$", path.read_text(), flags=re.MULTILINE), path
