"""files: what is written appears whole; what a killed writer left goes, what a living one writes stays."""

import contextlib
import errno
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


HELD = """
import os, sys, time
from pathlib import Path
from vikdf import files
with files.alone(Path(sys.argv[1]), "the work", folder=Path(sys.argv[1]).is_dir()):
    if os.fork() == 0:  # a loader's worker, for one, which a kill of its parent leaves behind
        print("begun", flush=True)
        time.sleep(600)
    time.sleep(600)
"""


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_a_lock_refuses_a_second_process_and_dies_with_the_first_whatever_children_it_left(tmp_path, kind):
    lock = tmp_path if kind == "folder" else tmp_path / "a/lock"
    ours = {"what": "the work", "folder": kind == "folder"}
    asked = [sys.executable, "-c", HELD, str(lock)]
    with subprocess.Popen(asked, stdout=subprocess.PIPE, start_new_session=True) as process:
        try:
            assert process.stdout.readline() == b"begun\n"
            said = "the work is being worked on by another process.*: wait until it ends, or stop it"
            with pytest.raises(ValueError, match=said), files.alone(lock, **ours):
                pass
            os.kill(process.pid, signal.SIGKILL)
            process.wait()
            with files.alone(lock, **ours):
                pass
        finally:
            os.killpg(process.pid, signal.SIGKILL)


def test_who_may_wait_says_so_and_goes_on_when_the_other_ends(tmp_path, capfd):
    with other(tmp_path / "a.txt"), contextlib.ExitStack() as held:
        held.enter_context(files.alone(tmp_path / "lock", "it", shared=True))
        with files.alone(tmp_path / "lock", "it", shared=True):  # together with others of its kind
            pass
        ours = []

        def wait() -> None:
            with files.alone(tmp_path / "lock", "it", wait="waiting for the other"):
                ours.append("came")

        waiting = threading.Thread(target=wait)
        waiting.start()
        waiting.join(1.5)
        assert waiting.is_alive() and not ours and "waiting for the other" in capfd.readouterr().err
        held.close()
        waiting.join(60)
        assert ours == ["came"]


def test_a_folder_that_its_holder_renames_is_not_made_a_file_by_who_waits_for_it(tmp_path, capfd):
    folder, told = tmp_path / ".shards.part", []
    folder.mkdir()

    def wait() -> None:
        with pytest.raises(ValueError, match="taken away by another process just now: repeat the command") as error:
            with files.alone(folder, "it", wait="waiting for the other", folder=True):
                pass
        told.append(error)

    waiting = threading.Thread(target=wait)
    with files.alone(folder, "it", folder=True):
        waiting.start()
        waiting.join(1.5)
        assert waiting.is_alive() and "waiting for the other" in capfd.readouterr().err
        folder.rename(tmp_path / "shards")
    waiting.join(60)
    assert told and os.listdir(tmp_path) == ["shards"]


def test_a_file_system_without_locks_is_one_sentence(tmp_path, monkeypatch):
    def none(*_) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("fcntl.flock", none)
    for work in (lambda: files.alone(tmp_path / "lock", "it"), lambda: files.whole(tmp_path / "a.txt")):
        with pytest.raises(ValueError, match="lies on a file system without locks .*: two processes"), work():
            pass


def test_every_changed_bit_of_checked_json_is_noticed(tmp_path):
    said = {"numbers": [1, 2.5, None, True], "text": "größe", "more": {"sha256": "0f"}}
    files.write_checked(tmp_path / "a.json", said)
    assert files.read_checked(tmp_path / "a.json") == said
    kept, other = (tmp_path / "a.json").read_bytes(), 0
    for bit in range(8 * len(kept)):
        harmed = bytearray(kept)
        harmed[bit // 8] ^= 1 << bit % 8
        (tmp_path / "a.json").write_bytes(harmed)
        try:
            assert files.read_checked(tmp_path / "a.json") == said  # another kind of blank
            other += 1
        except ValueError as error:
            assert "a.json" in str(error)
    assert other < 30


def test_a_kill_between_two_renames_leaves_the_old_folder_or_the_new_one(tmp_path, monkeypatch):
    def put(text: str) -> None:
        with files.whole(tmp_path / "a") as aside:
            aside.mkdir()
            (aside / "part").write_text(text)

    put("old")
    rename, calls = os.replace, []

    def killed(*given) -> None:
        calls.append(given)
        if len(calls) == 2:
            os._exit(9)
        rename(*given)

    if not (process := os.fork()):
        os.replace = killed
        put("new")
    assert os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) == 9
    assert not (tmp_path / "a").exists()
    with pytest.raises(ZeroDivisionError), files.whole(tmp_path / "a"):
        raise ZeroDivisionError  # who comes next puts it back, even if nothing new is made
    assert (tmp_path / "a/part").read_text() == "old"
    put("new")
    assert (tmp_path / "a/part").read_text() == "new" and os.listdir(tmp_path) == ["a"]


def test_files_and_the_folder_that_names_them_are_flushed_to_the_disk(tmp_path, monkeypatch):
    flush, flushed = os.fsync, []
    monkeypatch.setattr(os, "fsync", lambda stream: flushed.append(os.fstat(stream).st_ino) or flush(stream))
    with files.whole(tmp_path / "a") as aside:
        (aside / "inner").mkdir(parents=True)
        (aside / "inner/part").write_text("part")
    wanted = [tmp_path / "a/inner/part", tmp_path / "a/inner", tmp_path / "a", tmp_path]
    assert {path.stat().st_ino for path in wanted} <= set(flushed) and flushed[-1] == tmp_path.stat().st_ino


def test_tensors_come_back_and_a_full_disk_is_an_os_error(tmp_path):
    import numpy as np
    import torch
    from safetensors.torch import load_file

    files.save_tensors({"a": torch.ones(3)}, tmp_path / "a.safetensors", format="pt")
    files.save_tensors({"a": np.ones(3, np.float32)}, tmp_path / "b.safetensors")
    assert torch.equal(load_file(tmp_path / "a.safetensors")["a"], load_file(tmp_path / "b.safetensors")["a"])
    with pytest.raises(OSError, match="cannot be written .*: is the disk full"):
        files.save_tensors({"a": torch.ones(3)}, tmp_path / "no folder/a.safetensors")
