"""files: what is written appears whole; what a killed writer left goes, what a living one writes stays."""

import contextlib
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from vikdf import files

WRITER = """
import sys
from pathlib import Path
from vikdf import files
with files.whole(Path(sys.argv[1])) as aside:
    if sys.argv[2] == "folder":
        aside.mkdir()
    (aside / "part" if aside.is_dir() else aside).write_text("of the other process")
    print("begun", flush=True)
    sys.stdin.read()
"""


@contextlib.contextmanager
def other(path: Path, kind: str = "file"):
    """A process that has begun to write the path, and ends well when its input is closed."""
    asked = [sys.executable, "-c", WRITER, str(path), kind]
    with subprocess.Popen(asked, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"begun\n"
        yield process


def write(path: Path, text: str) -> None:
    with files.whole(path) as aside:
        aside.write_text(text)


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_what_a_killed_writer_left_goes_when_the_path_is_written_again(tmp_path, kind):
    with other(tmp_path / "[a].txt", kind) as process:
        os.kill(process.pid, signal.SIGKILL)
    (tmp_path / ".[a].txt.0123abcd.part").mkdir()  # of one that was killed before it had its lock
    assert len(os.listdir(tmp_path)) == 2
    write(tmp_path / "other.txt", "another path")
    assert len(os.listdir(tmp_path)) == 3
    write(tmp_path / "[a].txt", "again")
    assert sorted(os.listdir(tmp_path)) == ["[a].txt", "other.txt"]


def test_what_a_living_writer_writes_stays_and_its_file_appears_when_it_ends(tmp_path):
    path = tmp_path / "a.txt"
    with other(path) as process:
        write(path, "ours")
        assert path.read_text() == "ours" and len(os.listdir(tmp_path)) == 2
        process.stdin.close()
        assert process.wait(60) == 0
    assert path.read_text() == "of the other process" and os.listdir(tmp_path) == ["a.txt"]


def test_many_writers_of_one_path_take_nothing_from_each_other(tmp_path):
    failed = []

    def work(name: str) -> None:
        try:
            for number in range(60):
                write(tmp_path / "a.txt", f"{name} {number}" * 100)
        except OSError as error:
            failed.append(error)

    threads = [threading.Thread(target=work, args=(name,)) for name in "abcdef"]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert failed == [] and os.listdir(tmp_path) == ["a.txt"]


def test_a_block_that_fails_leaves_the_old_file_and_nothing_else(tmp_path):
    write(tmp_path / "a.txt", "old")
    with pytest.raises(ZeroDivisionError), files.whole(tmp_path / "a.txt") as aside:
        aside.write_text("new")
        raise ZeroDivisionError
    assert os.listdir(tmp_path) == ["a.txt"] and (tmp_path / "a.txt").read_text() == "old"


@pytest.mark.parametrize("name", ["../../evil", "/evil", "a/b", "..", ".hidden", "", "a\0", "a\n", "C:\\x", "-x"])
def test_a_name_that_leads_out_of_a_folder_is_no_name(name):
    with pytest.raises(ValueError, match=r"sources.corpora has the name .*expected letters"):
        files.check_name(name, "sources.corpora")


@pytest.mark.parametrize("name", ["my.corpus", "a" * 61, "größe", "two words"])
def test_a_name_with_which_a_tar_s_member_cannot_begin_is_no_name(name):
    with pytest.raises(ValueError, match="expected letters from a to z, digits, underscores and dashes, at most 60"):
        files.check_name(name, "sources.corpora")


def test_a_name_that_is_taken_is_no_name_in_capitals_either():
    for name in ("all", "ALL"):
        with pytest.raises(ValueError, match="which the reports use themselves: give it another one"):
            files.check_name(name, "sources.corpora", ("all",))
    files.check_name("all", "dialogues.corpora")


def test_a_file_never_takes_the_place_of_a_folder(tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/kept.txt").write_text("old")
    with pytest.raises(ValueError, match="mine is a folder, expected the name of a file"):
        files.write_json(tmp_path / "mine", {})
    assert (tmp_path / "mine/kept.txt").read_text() == "old" and os.listdir(tmp_path) == ["mine"]
