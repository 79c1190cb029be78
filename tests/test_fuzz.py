"""No reader crashes, hangs or swells, whatever bytes it is given: it returns, or raises one error that names the file.

In: tests/readers_of_data.py and readers_of_work.py. Inputs are drawn by hypothesis: the sound bytes flipped, cut, spliced and
swollen, and in JSON other values in the places of its own. Out: nothing.
Run: pytest tests/test_fuzz.py (60 inputs a reader, fewer for slow ones); 2,000 with `pytest -m long tests/test_fuzz.py`.
"""

import gzip
import json
import resource
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import readers_of_data
import readers_of_work
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from test_harmed_files import in_time

READERS = readers_of_data.READERS | readers_of_work.READERS
SHORT, LONG = 60, 2000  # inputs a reader
FIRST = 20  # of them, after which what a reader holds for good is there
GROWTH = 100 << 20  # bytes that all others together may leave in memory
ROOM = (
    4 << 30
)  # bytes of address space above what is in use: a size that a file lies about is an error, and not a dead machine

SAID = [0, 1, -1, 2**31, 10**9, "", "..", "/etc/passwd", "a\0b", "\ud800", "NaN", "x" * 300]
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats()
    | st.sampled_from(SAID)
    | st.text(max_size=20)
)
VALUES = st.recursive(
    SCALARS,
    lambda some: st.lists(some, max_size=3) | st.dictionaries(st.text(max_size=6), some, max_size=3),
    max_leaves=6,
)
DEEP = [b"[" * 3000, b'{"a":' * 3000]
STRANGE = st.binary(min_size=1, max_size=20) | st.sampled_from([*DEEP, b"\n", b"\0", b"9" * 5000, b"\xff\xfe", b'"'])
NUMBERS = st.sampled_from([0, 1, 2**31 - 1, 2**31, 2**32 - 1, 2**62, 2**64 - 1])


@st.composite
def edited(draw, sound: bytes) -> bytes:
    """The bytes after some edits."""
    data = bytearray(sound)
    for _ in range(draw(st.sampled_from([1, 1, 1, 2, 5, 20]))):
        at, other = (draw(st.integers(0, max(0, len(data) - 1))) for _ in range(2))
        length = draw(st.sampled_from([1, 2, 4, 8, 50, 500]))
        what = draw(st.sampled_from(["flip", "cut", "insert", "number", "repeat", "move", "end"]))
        if what == "flip" and data:
            data[at] ^= 1 << draw(st.integers(0, 7))
        elif what == "insert":
            data[at:at] = draw(STRANGE)
        elif what == "number":
            data[at : at + length] = (draw(NUMBERS) % 2 ** (8 * length)).to_bytes(
                length, draw(st.sampled_from(["little", "big"]))
            )
        elif what == "repeat":
            data[at:at] = data[at : at + length] * draw(st.sampled_from([1, 3, 100]))
        elif what == "move":
            data[at : at + length] = data[other : other + length]
        else:
            del data[at : at + length if what == "cut" else None]
    return bytes(data)


@st.composite
def changed(draw, lines: list[str]) -> bytes:
    """Lines of JSON with another value in one place of one of them."""
    lines = list(lines)
    which = draw(st.integers(0, len(lines) - 1))
    whole = [json.loads(lines[which])]
    at, key = whole, 0
    while isinstance(at[key], dict | list) and at[key] and draw(st.integers(0, 4)):
        at = at[key]
        key = draw(st.sampled_from(sorted(at) if isinstance(at, dict) else range(len(at))))
    what = draw(st.sampled_from(["other", "gone", "more"]))
    if what == "gone" and at is not whole:
        del at[key]
    elif what == "more" and isinstance(at[key], dict):
        at[key][draw(st.text(max_size=6))] = draw(VALUES)
    elif what == "more" and isinstance(at[key], list):
        at[key].append(draw(VALUES))
    else:
        at[key] = draw(VALUES)
    return "\n".join([*lines[:which], json.dumps(whole[0]), *lines[which + 1 :]]).encode()


def inputs(sound: bytes) -> st.SearchStrategy[bytes]:
    """What a reader is given in place of these bytes."""
    found = [edited(sound), edited(sound), st.binary(max_size=200)]
    if sound[:1] in (b"{", b"["):
        lines = sound.decode().splitlines()
        found.append(
            changed(lines if all(line[-1:] in "}]" and line[:1] in "{[" for line in lines) else [sound.decode()])
        )
    if sound[:2] == b"\x1f\x8b":
        found.append(edited(gzip.decompress(sound)).map(lambda data: gzip.compress(data, 1, mtime=0)))
    return st.one_of(found)


@pytest.fixture
def bounded():
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (used(0) + ROOM, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_AS, before)


def used(which: int) -> int:
    """Bytes of address space (0) or of memory (1) of this process."""
    return int(Path("/proc/self/statm").read_text().split()[which]) * resource.getpagesize()


def opened(name: str, folder: Path) -> tuple[Path, Callable[[bytes | None], object]]:
    """The file of a reader, in a sound folder, and the reader of a copy of that folder with other bytes in the file."""
    reader, sound, work = READERS[name], folder / "sound", folder / "work"
    sound.mkdir()
    reader.make(sound)
    [file] = sound.glob(reader.file)

    def read(data: bytes | None):
        shutil.rmtree(work, ignore_errors=True)
        shutil.copytree(sound, work)
        if data is not None:
            (work / file.relative_to(sound)).write_bytes(data)
        with in_time():
            return reader.read(work)

    return file, read


def fuzz(name: str, folder: Path, count: int) -> None:
    file, read = opened(name, folder)
    read(None)
    names, memory = [str(folder), file.name, *filter(None, [READERS[name].called])], []

    @settings(max_examples=count, deadline=None, database=None, derandomize=True, phases=[Phase.generate],
              suppress_health_check=list(HealthCheck))  # fmt: skip
    @given(inputs(file.read_bytes()))
    def survives(data: bytes) -> None:
        memory.append(used(1))
        try:
            read(data)
        except (ValueError, OSError) as error:
            said = str(error)
            assert any(each in said for each in names), f"{type(error).__name__} names no file: {said}"
            assert len(said) < 2000

    survives()
    assert used(1) - memory[min(FIRST, len(memory) - 1)] < GROWTH


def test_the_page_tells_how_many_readers_and_inputs_there_are():
    page = (Path(__file__).parent.parent / "docs/reliability.md").read_text()
    inputs_in_all = sum(LONG // reader.slow for reader in READERS.values())
    assert f"each of the {len(READERS)} readers" in page and f" {inputs_in_all:,} in all" in page


@pytest.mark.parametrize("name", READERS)
def test_no_reader_crashes_hangs_or_swells(name, tmp_path, bounded):
    fuzz(name, tmp_path, SHORT // READERS[name].slow)


@pytest.mark.long
@pytest.mark.parametrize("name", READERS)
def test_no_reader_crashes_hangs_or_swells_with_thirty_times_the_inputs(name, tmp_path, bounded):
    fuzz(name, tmp_path, LONG // READERS[name].slow)
