"""The tables that pass between stages, as pyarrow schemas; read and write check them and name the wrong file."""

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from vikdf import files

# One row an image of a source, obtained or not (sources, filter).
PAIRS = pa.schema(
    [
        ("key", pa.string()),  # <source>-<row number, 9 digits>: the same at every fetch
        ("source", pa.string()),
        ("url", pa.string()),  # empty for local images
        ("captions", pa.list_(pa.string())),  # the published captions: COCO has several, the lists one
        ("status", pa.string()),  # ok | missing | broken | timeout | http_404 | ...: sources says why
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("image", pa.binary()),  # the encoded picture as it came; null when there is none
    ]
)

# One row a box in a picture of a PAIRS table (the world's boxes.parquet): what stands where, like Visual Genome without attributes.
BOXES = pa.schema(
    [
        ("key", pa.string()),  # of the picture
        ("label", pa.string()),  # one class: an object's noun, or the place, whose box is the whole picture
        ("left", pa.int32()),  # pixels; right and bottom are the first beyond the box
        ("top", pa.int32()),
        ("right", pa.int32()),
        ("bottom", pa.int32()),
    ]
)

# One row a caption candidate of an image (caption). All candidates and scores stay; `used` marks the best k.
CAPTIONS = pa.schema(
    [
        ("key", pa.string()),
        ("source", pa.string()),
        ("caption", pa.string()),
        ("origin", pa.string()),  # web | synthetic
        ("score", pa.float32()),  # CLIP cosine of picture and caption; null where the picture could not be read
        ("rank", pa.int32()),  # 0 = best of its image
        ("used", pa.bool_()),
        ("dropped", pa.string()),  # empty, or the rule that dropped it
    ]
)

# One row a sample of the shards: where it lies (shards/index.parquet).
INDEX = pa.schema(
    [
        ("key", pa.string()),
        ("source", pa.string()),
        ("shard", pa.string()),
        ("image_offset", pa.int64()),
        ("image_bytes", pa.int64()),
        ("image_sha256", pa.string()),
        ("text_offset", pa.int64()),  # of the member that holds the captions
        ("text_bytes", pa.int64()),
        ("text_sha256", pa.string()),
        ("captions", pa.list_(pa.string())),
    ]
)

# One row a dialogue with its response (dialogues). `position` is its place in the seeded order of its split:
# a fraction f of n rows is the rows with position < f * n, so fractions are nested.
DIALOGUES = pa.schema(
    [
        ("id", pa.string()),
        ("task", pa.string()),  # reddit | image_chat | probe
        ("split", pa.string()),  # train | valid | test
        ("position", pa.int64()),
        ("context", pa.list_(pa.string())),  # turns, oldest first
        ("response", pa.string()),
        ("probe", pa.string()),  # JSON {noun, held_out, attribute, value, choices, answers} or empty
        ("picture", pa.string()),  # train only: the scene's picture by its name in pictures.parquet, or empty
    ]
)

# One row a picture that dialogues of train are about (dialogues, pictures.parquet).
PICTURES = pa.schema(
    [
        ("name", pa.string()),  # <task>/<name in the corpus>
        ("image", pa.binary()),  # the encoded picture as it came
    ]
)

# One row an answer of a system (generate).
RESPONSES = pa.schema(
    [
        ("id", pa.string()),
        ("task", pa.string()),
        ("system", pa.string()),
        ("data", pa.string()),  # full | quarter | eighth | zero
        ("images", pa.string()),  # none | retrieved | given
        ("seed", pa.int32()),
        ("tuned_params", pa.int64()),
        ("context", pa.list_(pa.string())),
        ("reference", pa.string()),
        ("hypothesis", pa.string()),
        ("nll", pa.float64()),  # summed over the reference's tokens, end of sequence counted
        ("tokens", pa.int32()),
        ("probe", pa.string()),
        ("cloze", pa.list_(pa.float64())),  # probe rows: NLL of each choice put into the answer; else empty
    ]
)

# One row a metric of a system (evaluate).
SCORES = pa.schema(
    [
        ("task", pa.string()),
        ("system", pa.string()),
        ("data", pa.string()),
        ("images", pa.string()),
        ("seed", pa.int32()),
        ("tuned_params", pa.int64()),
        ("n_test", pa.int32()),
        ("metric", pa.string()),
        ("value", pa.float64()),
        ("signature", pa.string()),
    ]
)

# One row an answer, with what every metric is made of (evaluate, examples/): sums of counts over any rows give their corpus score.
EXAMPLES = pa.schema(
    [
        ("id", pa.string()),
        ("task", pa.string()),
        ("system", pa.string()),
        ("data", pa.string()),
        ("seed", pa.int32()),
        ("scored_with", pa.string()),  # tokenizer, vectors, encoder, number of references; null in the probe
        ("context", pa.list_(pa.string())),
        ("reference", pa.string()),
        ("hypothesis", pa.string()),  # Dis-n and EAD are counted from it
        ("nll", pa.float64()),  # null, as tokens, of a system that tells none
        ("tokens", pa.int32()),
        ("words", pa.int32()),  # white-space words of the reference, for ppl_per_word
        ("correct", pa.list_(pa.int32())),  # clipped matches of 1- to 4-grams
        ("guess", pa.list_(pa.int32())),  # 1- to 4-grams of the hypothesis
        ("hypothesis_words", pa.int32()),
        ("reference_words", pa.int32()),  # of the reference closest in length
        ("rouge_l", pa.float64()),  # this and the next: 0 to 1, each example's own
        ("rouge_l_f1", pa.float64()),
        ("average", pa.float64()),  # null without word vectors
        ("extrema", pa.float64()),
        ("greedy", pa.float64()),
        ("similarity", pa.float64()),  # null without an encoder
        ("noun", pa.string()),  # from here: rows of the probe only, else null; there the scores above are null
        ("attribute", pa.string()),
        ("held_out", pa.bool_()),
        ("stated", pa.bool_()),
        ("right", pa.bool_()),
        ("cloze_rank", pa.float64()),  # null where no cloze was asked
    ]
)

UNREADABLE = (pa.ArrowException, OSError, UnicodeDecodeError)  # the last: names of columns that are no text
_CURE = "delete it and run `snakemake --cores all {path}` to make it again"


def write(table: pa.Table | list[dict], path: Path, schema: pa.Schema) -> None:
    """Writes the table whole, always the same bytes for the same rows."""
    with writer(path, schema) as add:
        add(table)


@contextlib.contextmanager
def writer(path: Path, schema: pa.Schema) -> Iterator[Callable[[pa.Table | list[dict]], None]]:
    """Gives a function that adds rows, for tables larger than memory; the file appears when the block ends well."""
    kept = {"compression": "zstd", "store_schema": False, "write_page_checksum": True}  # which every read compares
    with files.whole(path) as aside, pq.ParquetWriter(aside, schema, **kept) as stream:

        def add(table: pa.Table | list[dict]) -> None:
            if isinstance(table, list):
                table = pa.Table.from_pylist(table, schema=schema)
            stream.write_table(table.select(schema.names).cast(schema).replace_schema_metadata(None))

        yield add


def read(path: Path, schema: pa.Schema, columns: list[str] | None = None) -> pa.Table:
    """Reads the table; a damaged file or another schema is named, with its cure."""
    _assert_there(path)
    wanted = [name for name in schema.names if columns is None or name in columns]
    try:
        found = pq.read_schema(path).names
        if set(wanted) <= set(found):
            table = pq.read_table(path, columns=columns, page_checksum_verification=True)
    except UNREADABLE as error:
        raise ValueError(_damaged(path, error)) from None
    _assert_columns(path, found, wanted)
    return table.select(wanted).cast(pa.schema([schema.field(name) for name in wanted]))


def batches(path: Path, schema: pa.Schema, rows: int = 1000, start: int = 0) -> Iterator[pa.Table]:
    """Reads the table a few rows at a time, with the same sentences for what is wrong; a schema of some columns will do.

    Row groups that end before row `start` are not read.
    """
    _assert_there(path)
    try:
        # With pre_buffer it keeps all that was read until it is closed.
        with pq.ParquetFile(path, pre_buffer=False, page_checksum_verification=True) as stream:
            _assert_columns(path, stream.schema_arrow.names, schema.names)
            groups = list(range(stream.num_row_groups))
            while groups and start >= stream.metadata.row_group(groups[0]).num_rows:
                start -= stream.metadata.row_group(groups.pop(0)).num_rows
            left = sum(stream.metadata.row_group(number).num_rows for number in groups)
            for batch in stream.iter_batches(batch_size=rows, row_groups=groups, columns=schema.names):
                left -= batch.num_rows
                if start < batch.num_rows:
                    yield pa.Table.from_batches([batch.slice(start)]).select(schema.names).cast(schema)
                start = max(start - batch.num_rows, 0)
            if left:  # pyarrow ends without a word where a page's header no longer says how long it is
                raise pa.ArrowInvalid(f"{left} rows cannot be read")
    except UNREADABLE as error:
        raise ValueError(_damaged(path, error)) from None


def count(path: Path) -> int:
    """Rows of the table, as its last bytes tell: nothing else is read."""
    _assert_there(path)
    try:
        return pq.read_metadata(path).num_rows
    except UNREADABLE as error:
        raise ValueError(_damaged(path, error)) from None


def _assert_there(path: Path) -> None:
    if not Path(path).is_file():
        what = "is no file" if Path(path).exists() else "is missing"
        raise ValueError(
            f"{path} {what}: give the right file; if it is a product, `snakemake --cores all {path}` makes it"
        )


def _assert_columns(path: Path, found: list[str], wanted: list[str]) -> None:
    if lost := [name for name in wanted if name not in found]:
        there = f"{', '.join(found[:8])}{' ...' if len(found) > 8 else ''}"
        cure = f"give the right file; if it is this one, {_CURE.format(path=path)}"
        raise ValueError(f"{path} has no column {', '.join(lost)}; it has {there}: {cure}")


def _damaged(path: Path, error: Exception) -> str:
    return f"{path} is damaged ({str(error).splitlines()[0]}): {_CURE.format(path=path)}"
