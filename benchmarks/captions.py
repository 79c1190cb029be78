"""Caption rows in the shape of web captions with their flaws, drawn from a seed: what the filter's benchmark reads.

In: a number of rows and a seed. Out: a parquet of PAIRS without pictures, and the same captions as a plain column.
Most rows are English of 4 to 20 words (lower case as CC3M, or as typed); SHARES says how often each flaw comes.
"""

from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa

from vikdf import schemas

CHUNK = 100_000  # rows drawn at a time: memory stays small, and a row never depends on how many are asked for
SHARES = {
    "typed": 0.35,  # capitals, commas, names
    "accents": 0.03,  # English with letters beyond ASCII
    "file_name": 0.03,
    "page": 0.03,  # texts that tell of the page
    "script": 0.04,
    "foreign": 0.05,
    "popular": 0.05,  # one of few texts, in several spellings
    "short": 0.02,
    "long": 0.01,
    "code": 0.03,  # prices, sizes, hash tags
    "garbled": 0.005,
}
FUNCTION = "a the of and in on with for at is to by from an this his her their its are it my that".split()
CONTENT = (
    "man woman dog cat street city house garden table red blue green small large old young wooden white black photo view "
    "beach mountain river bridge car train bus bicycle horse bird tree flower kitchen room window door wall light night "
    "morning summer winter snow rain sky cloud sun people children family player team football tennis music guitar band "
    "actor premiere festival wedding dress shirt hat shoes bag food pizza cake coffee glass bottle plate bowl fruit apple "
    "walking standing sitting holding looking playing running riding eating wearing smiling waiting flying driving "
    "beautiful modern vintage colorful traditional historic famous popular happy quiet empty busy bright dark "
    "illustration pattern background vector design poster logo map drawing painting sculpture museum church castle tower"
).split()
NAMES = "Anna Peter London Paris Berlin Tokyo Boston Maria Smith Jones Miller Chicago Texas Kyoto Oslo Madrid".split()
ACCENTS = "café naïve façade jalapeño Zoë résumé São Malmö crème piñata".split()
SCRIPTS = [
    "красный предмет на улице дом собака большой город старый мост зима".split(),
    "κόκκινο πράγμα στην κουζίνα σπίτι σκύλος μεγάλη πόλη".split(),
    "红色的东西 厨房 里面 一只狗 房子 城市 冬天 街道".split(),
    "بيت كلب مدينة كبيرة شارع أحمر قديم جسر".split(),
]
LANGUAGES = [
    "ein rotes ding in der küche und das haus mit dem hund auf einer straße ist nicht".split(),
    "un chat sur la table avec les enfants dans le jardin et une maison pour du pain".split(),
    "una foto de un gato en la calle con los niños y el perro por la mañana".split(),
    "een rode fiets op straat van het huis met voor de hond".split(),
]
PAGES = (
    "Click to enlarge the picture|image no longer available|© 2015 all rights reserved|Stock Photo|"
    "see more at https://example.org/page|royalty free image|Photo not available|click here for more|www.example.org"
).split("|")


def _phrases(rng: np.random.Generator, words: list[str], fewest: int, most: int, rows: int) -> pl.Series:
    """One phrase a row, of words drawn from the list."""
    lengths = rng.integers(fewest, most + 1, rows)
    drawn = pl.DataFrame({"row": np.repeat(np.arange(rows), lengths), "word": 0}).with_columns(
        word=pl.Series(words).gather(rng.integers(0, len(words), int(lengths.sum())))
    )
    return drawn.group_by("row", maintain_order=True).agg(pl.col("word").str.join(" "))["word"]


def _of_each(rng: np.random.Generator, lists: list[list[str]], rows: int) -> pl.Series:
    """Phrases of every list, one list after the other: a chunk is shuffled at its end."""
    parts = np.diff(np.linspace(0, rows, len(lists) + 1).astype(int))
    return pl.concat([_phrases(rng, words, 3, 12, part) for words, part in zip(lists, parts, strict=True) if part])


def _english(rng: np.random.Generator, rows: int, fewest: int = 4, most: int = 20) -> pl.Series:
    return _phrases(rng, FUNCTION * 4 + CONTENT, fewest, most, rows)


def _typed(rng: np.random.Generator, rows: int) -> pl.Series:
    names, ends = _phrases(rng, NAMES, 1, 2, rows), pl.Series([".", "!", "", " ..."] * (rows // 4 + 1))[:rows]
    return (
        pl.Series("caption", ["The "] * rows)
        + _english(rng, rows, 3, 9)
        + ", "
        + names
        + "'s "
        + _english(rng, rows, 1, 8)
        + ends
    )


def _file_names(rng: np.random.Generator, rows: int) -> pl.Series:
    numbers = pl.Series(rng.integers(1, 9999, rows)).cast(pl.String).str.zfill(4)
    stems, ends = (
        pl.Series(["IMG_", "DSC-", "photo ", "scan", "holiday at the sea "]),
        pl.Series(["", ".jpg", ".JPEG", ""]),
    )
    return stems.gather(rng.integers(0, 5, rows)) + numbers + ends.gather(rng.integers(0, 4, rows))


def _popular(rng: np.random.Generator, rows: int) -> pl.Series:
    """Texts that stand on thousands of pictures and texts that stand on a few, in several spellings."""
    texts = [f"{view} of the {place}" for view in ("view", "a photo", "a map") for place in CONTENT]
    chosen = (len(texts) * rng.random(rows) ** 4).astype(int)
    spelled = [*texts, *(text.title() for text in texts), *(text.replace(" ", "  ") + " " for text in texts)]
    return pl.Series(spelled).gather(chosen + len(texts) * rng.integers(0, 3, rows))


def _codes(rng: np.random.Generator, rows: int) -> pl.Series:
    prices = pl.Series(rng.integers(1, 99999, rows)).cast(pl.String)
    return (
        _phrases(rng, [*CONTENT, "12", "x", "40%", "2019", "#1", "(2)", "$$"], 2, 5, rows)
        + " $"
        + prices
        + " - 12/07/2019 !!"
    )


KINDS = {
    "plain": lambda rng, rows: _english(rng, rows),
    "typed": _typed,
    "accents": lambda rng, rows: _english(rng, rows, 4, 12) + " " + _phrases(rng, ACCENTS, 1, 2, rows),
    "file_name": _file_names,
    "page": lambda rng, rows: pl.Series(PAGES).gather(rng.integers(0, len(PAGES), rows)),
    "script": lambda rng, rows: _of_each(rng, SCRIPTS, rows),
    "foreign": lambda rng, rows: _of_each(rng, LANGUAGES, rows),
    "popular": _popular,
    "short": lambda rng, rows: _phrases(rng, CONTENT, 1, 2, rows),
    "long": lambda rng, rows: _english(rng, rows, 50, 90),
    "code": _codes,
    "garbled": lambda rng, rows: (
        _english(rng, rows) + pl.Series(["\x00", "\ufffd", " \x1b[0m"]).gather(np.arange(rows) % 3)
    ),
}


def _chunk(number: int, seed: int) -> pl.Series:
    """Rows number * CHUNK and after, the same whatever is asked for besides."""
    rng = np.random.default_rng([seed, number])
    counts = {kind: round(share * CHUNK) for kind, share in SHARES.items()}
    counts["plain"] = CHUNK - sum(counts.values())
    texts = pl.concat([KINDS[kind](rng, count).alias("caption") for kind, count in counts.items()])
    return texts.gather(rng.permutation(CHUNK))


def write(path: Path, rows: int, seed: int = 1) -> None:
    """PAIRS without pictures, and `caption`, the caption once more as a plain column."""
    schema = schemas.PAIRS.append(pa.field("caption", pa.string()))
    with schemas.writer(path, schema) as add:
        for start in range(0, rows, CHUNK):
            table = pl.DataFrame({"caption": _chunk(start // CHUNK, seed)[: rows - start]})
            table = table.with_row_index("row", start).select(
                pl.format("web-{}", pl.col("row").cast(pl.String).str.zfill(9)).alias("key"),
                pl.lit("web").alias("source"),
                pl.format("https://host{}.example/{}.jpg", pl.col("row") % 5000, "row").alias("url"),
                pl.concat_list("caption").alias("captions"),
                pl.lit("ok").alias("status"),
                pl.lit(640, pl.Int32).alias("width"),
                pl.lit(480, pl.Int32).alias("height"),
                pl.lit(None, pl.Binary).alias("image"),
                "caption",
            )
            add(table.to_arrow())
