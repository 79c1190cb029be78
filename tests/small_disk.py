"""A disk of a few kilobytes for tests: mounted where this user may mount, else the test is skipped with the reason."""

import contextlib
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

PAGE = 4096  # bytes: a disk in memory is counted in these


@contextlib.contextmanager
def mounted(folder: Path, size: int) -> Iterator[Path]:
    folder.mkdir(parents=True, exist_ok=True)
    try:
        done = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder], capture_output=True, text=True
        )
    except FileNotFoundError:
        pytest.skip("there is no `mount` here")
    if done.returncode:
        pytest.skip(f"no disk can be mounted here: {done.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


def changed(folder: Path, options: str) -> None:
    """Makes the disk larger (`size=...`), read-only (`ro`) or writable (`rw`)."""
    subprocess.run(["mount", "-o", f"remount,{options}", folder], check=True)


def whole_files(folder: Path) -> dict[str, bytes]:
    """What others would read: every file that is not hidden, nor in a hidden folder."""
    found = {path.relative_to(folder): path for path in folder.rglob("*") if path.is_file()}
    return {
        name.as_posix(): path.read_bytes()
        for name, path in sorted(found.items())
        if not any(part.startswith(".") for part in name.parts)
    }
