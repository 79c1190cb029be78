"""Rows of a table in any of the forms in which people publish lists: what is wrong with a row is said, not mended.

In: .tsv .csv .jsonl .json (a list of objects) .parquet, each text form also with .gz; files may be larger than memory.
Out: rows(path) -> (number, row): the 1-based line (the row, for .parquet and .json) and either {column: value} or, in its
place, the name of what is wrong with the row, after which the next row goes on:

    not_utf8 nul_bytes too_long empty      bytes that are no text; a line above LONGEST; nothing
    wrong_columns open_quote               another number of columns than the header's; a quote that nobody closes
    not_json not_an_object too_deep        .jsonl and .json only
    bad_value                              .parquet only: a time or date beyond the calendar, or in no known zone

A file that is missing, cut or in another form is a ValueError. Run: vikdf validate FILE
"""

import codecs
import csv
import gzip
import itertools
import zlib
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from vikdf.corpora import jsons
from vikdf.corpora.bounds import bound

LONGEST = 1 << 20  # bytes of a line; no caption, url or dialogue comes near
QUOTED_LINES = 100  # lines that one quoted field may span: a stray quote must not swallow the file
UTF16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
# What pyarrow raises for a value that Python has no word for: a text that is none, a day after the year 9999, a time zone
# that nobody knows.
NO_VALUE = (ArithmeticError, LookupError, ValueError)
FORMS = ("tsv", "csv", "jsonl", "json", "parquet")
PARTS = (".parquet", ".tsv", ".csv", ".jsonl")  # of a list that is a folder
Row = tuple[int, dict | str]


def form_of(path: Path) -> str:
    """tsv, csv, jsonl, json or parquet, by the file's name."""
    name = Path(path).name.lower().removesuffix(".gz")
    form = name.rpartition(".")[2]
    if form not in FORMS or (form == "parquet" and str(path).lower().endswith(".gz")):
        raise ValueError(f"{path} has no known ending: expected .tsv .csv .jsonl .json (each also .gz) or .parquet")
    return form


def rows(
    path: Path, columns: list[str] | None = None, *, wanted: list[str] | None = None, form: str = ""
) -> Iterator[Row]:
    """The rows of a table, in order.

    columns: the names of the columns of a .tsv or .csv without a header; [] = "0", "1" ... as in its first sound line
    wanted: columns that must be there; of a .parquet only these are read
    form: what the file is where its name does not say it, as the published lists are tsv whatever they are called
    """
    path, form = Path(path), form or form_of(path)
    if not path.is_file():
        what = "is a folder, not a table" if path.is_dir() else "is missing"
        raise ValueError(f"{path} {what}: put the file there, or change the entry of params.yaml that names it")
    if form == "parquet":
        return _parquet(path, wanted)
    if form == "json":
        return jsons.objects(path, LONGEST)
    found = _json_lines(path) if form == "jsonl" else _separated(path, columns, form, wanted)
    return _named(path, found)


def of_parts(path: Path, columns: list[str] | None, wanted: list[str], form: str) -> Iterator[Row]:
    """The rows of a table, or of a folder of part files in the order of their names, as one table."""
    parts = [path]
    if path.is_dir():
        parts = [each for each in sorted(path.iterdir()) if each.name.lower().removesuffix(".gz").endswith(PARTS)]
        if not parts:
            raise ValueError(f"{path} is a folder without a list in it: expected part files, {' '.join(PARTS)}")
    before = 0
    for part in parts:
        line = 0
        for line, found in rows(part, columns, wanted=wanted, form=form):
            yield before + line, found
        before += line


def _named(path: Path, found: Iterator[Row]) -> Iterator[Row]:
    """What the decompressor says, as one sentence."""
    try:
        yield from found
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise ValueError(f"{path} is no whole gzip file ({error}): fetch it again") from None


def _texts(path: Path) -> Iterator[tuple[int, str, str]]:
    """(line, text, what is wrong): no more than one line is in memory, and of a line too long only its beginning."""
    with gzip.open(path) if str(path).lower().endswith(".gz") else open(path, "rb") as stream:
        check_size = bound(path) if isinstance(stream, gzip.GzipFile) else None
        for number in itertools.count(1):
            line = stream.readline(LONGEST + 1)
            if not line:
                return
            if number == 1:
                line = _without_mark(path, line)
            wrong = "too_long" if len(line) > LONGEST and not line.endswith(b"\n") else ""
            while wrong and line and not line.endswith(b"\n"):
                line = stream.readline(LONGEST)
                if check_size:
                    check_size(stream.tell())
            if check_size:
                check_size(stream.tell())
            yield number, *(("", wrong) if wrong else _decoded(line))


def _without_mark(path: Path, line: bytes) -> bytes:
    if line.startswith(UTF16):
        raise ValueError(f"{path} is UTF-16, expected UTF-8: `iconv -f UTF-16 -t UTF-8` makes it so")
    return line.removeprefix(codecs.BOM_UTF8)


def _decoded(line: bytes) -> tuple[str, str]:
    line = line.removesuffix(b"\n").removesuffix(b"\r")
    if not line:
        return "", "empty"
    if b"\0" in line:
        return "", "nul_bytes"
    try:
        return line.decode(), ""
    except UnicodeDecodeError:
        return "", "not_utf8"


def _json_lines(path: Path) -> Iterator[Row]:
    for number, text, wrong in _texts(path):
        yield number, wrong or jsons.sound_object(text)


def _separated(path: Path, columns: list[str] | None, form: str, wanted: list[str] | None) -> Iterator[Row]:
    """Tab-separated lines have no quotes: a tab or a line end is never part of a field."""
    texts = _texts(path)
    cells = _quoted(texts) if form == "csv" else ((n, wrong or text.split("\t")) for n, text, wrong in texts)
    if columns is None:
        columns = _header(path, next(cells, None))
    if columns:
        check_columns(path, columns, wanted)
    for number, found in cells:
        if not columns and not isinstance(found, str):
            columns = [str(place) for place in range(len(found))]
            check_columns(path, columns, wanted)
        if isinstance(found, str):
            yield number, found
        elif len(found) != len(columns):
            yield number, "wrong_columns"
        else:
            yield number, dict(zip(columns, found, strict=True))


def _header(path: Path, first: tuple[int, list[str] | str] | None) -> list[str]:
    if first is None:
        raise ValueError(f"{path} is empty: expected a header and rows")
    names = first[1]
    if isinstance(names, str):
        raise ValueError(f"{path} has no header, its first line is {names}: expected the names of its columns")
    names = [name.strip() for name in names]
    if len(set(names)) < len(names):
        raise ValueError(f"{path} names a column twice in its first line ({_shown(names)}): expected a header")
    return names


def check_columns(path: Path, columns: list[str], wanted: list[str] | None) -> None:
    """Raises a ValueError for a wanted column that the file has not."""
    if lost := [name for name in wanted or [] if name not in columns]:
        raise ValueError(
            f"{path} has no column {lost[0]}; it has: {_shown(columns)}. Name one of these in the corpus's entry"
        )


def _shown(names: list[str]) -> str:
    return " ".join(", ".join(names)[:300].split())


def _quoted(texts: Iterator[tuple[int, str, str]]) -> Iterator[tuple[int, list[str] | str]]:
    """CSV's records. A record that no quote closes costs its first line only: the lines after it are read again."""
    again: list[tuple[int, str, str]] = []
    while line := again.pop() if again else next(texts, None):
        number, text, wrong = line
        if wrong or '"' not in text:
            yield number, wrong or text.split(",")
            continue
        taken: list[tuple[int, str, str]] = []
        record = _record(_spanned(text, again, texts, taken))
        if isinstance(record, str):
            again += reversed(taken)
        yield number, record


def _spanned(text: str, again: list, texts: Iterator, taken: list) -> Iterator[str]:
    """The line and those after it, as far as a quoted field may reach; `taken` tells which were asked for."""
    yield text + "\n"
    while len(taken) < QUOTED_LINES and (line := again.pop() if again else next(texts, None)):
        taken.append(line)
        if line[2] not in ("", "empty"):
            return
        yield line[1] + "\n"


def _record(lines: Iterator[str]) -> list[str] | str:
    try:
        return next(csv.reader(lines, strict=True))
    except csv.Error as error:
        return "too_long" if "limit" in str(error) else "open_quote"


def _parquet(path: Path, wanted: list[str] | None) -> Iterator[Row]:
    number = 0
    try:
        with pq.ParquetFile(path, pre_buffer=False) as table:  # else all that was read is kept until it is closed
            check_columns(path, table.schema_arrow.names, wanted)
            for batch in table.iter_batches(batch_size=256, columns=wanted):
                for row in _batch(batch):
                    number += 1
                    yield number, row
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:  # the last: of a column's name
        said = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(f"{path} is a damaged parquet file, after row {number} ({said}): fetch it again") from None


def _batch(batch: pa.RecordBatch) -> list[dict | str]:
    try:
        return [_fits(row) for row in batch.to_pylist()]
    except NO_VALUE as error:  # one of its rows is to blame: find which
        if batch.num_rows == 1:
            return ["not_utf8" if isinstance(error, UnicodeDecodeError) else "bad_value"]
        half = batch.num_rows // 2
        return _batch(batch.slice(0, half)) + _batch(batch.slice(half))


def _fits(row: dict) -> dict | str:
    return "too_long" if any(isinstance(value, str) and len(value) > LONGEST for value in row.values()) else row
