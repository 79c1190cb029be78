"""Keeps the pairs that are worth learning from; what is dropped is counted under the rule that dropped it.

In: the sources' tables (PAIRS, with rows that have no picture).
Out: <output>/pairs.parquet (PAIRS: kept rows, captions that survive), report.parquet and report.txt (counts by reason).
Run: python -m vikdf.filter --pairs data/sources/coco.parquet --output data/filter ... (--help names all)

A rule is an expression, true for what it drops; the tables below hold them in the order in which they are asked. The
first one that holds is the reason. Captions go first: of two equal pictures the one with a usable caption stays.
"""

import hashlib
import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
from tqdm import tqdm

from vikdf import files, flags, schemas

ENGLISH = "the|of|and|is|are|at|to|for|from|by|with|it|this|that|here|there|my|your|you|what|an|in|on|a"
FOREIGN = (  # words of German, French, Spanish, Italian, Portuguese and Dutch that are none in English
    "der|das|und|ein|eine|einem|einen|einer|mit|auf|im|ist|dem|den|zum|zur|von|vom|für|bei|nicht|"
    "le|la|les|un|une|des|du|dans|sur|avec|est|et|au|aux|pour|"
    "el|los|las|una|del|con|por|para|una|uno|está|muy|y|"
    "il|lo|gli|della|dello|nel|nella|sono|di|"
    "os|uma|um|em|não|na|"
    "het|een|op|van|voor"
)
REPORT = pa.schema([("source", pa.string()), ("unit", pa.string()), ("reason", pa.string()), ("count", pa.int64())])
THUMBNAIL = 6  # side of the colours that two near duplicates must share
COLOUR_STEP = 6  # of 255: recompression and another size move a colour of the thumbnail by less


def _words(alternatives: str) -> pl.Expr:
    return pl.col("caption").str.count_matches(rf"(?i)\b(?:{alternatives})\b")


def _share(part: str, whole: str) -> pl.Expr:
    """Share of the characters of one class among those of another."""
    return pl.col("caption").str.count_matches(part) / pl.col("caption").str.count_matches(whole).clip(1)


# Rules of a row and its picture: name -> expression of the params. A status other than ok comes before all of them.
PICTURE_RULES: dict[str, Callable[[dict], pl.Expr]] = {
    "no_caption": lambda p: pl.col("captions").list.len() == 0,
    "small": lambda p: pl.min_horizontal("width", "height") < p["min_side"],
    "narrow": lambda p: pl.max_horizontal("width", "height") > p["max_aspect"] * pl.min_horizontal("width", "height"),
}

# Rules of one caption.
CAPTION_RULES: dict[str, Callable[[dict], pl.Expr]] = {
    "garbled": lambda p: pl.col("caption").str.contains(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x{FFFD}]"),
    "boilerplate": lambda p: pl.col("caption").str.contains(
        "(?i)" + "|".join(f"(?:{each})" for each in p["boilerplate"])
    ),
    "other_script": lambda p: _share(r"[\p{L}--\p{Latin}]", r"\p{L}") > 0.3,
    "other_language": lambda p: _words(FOREIGN) > _words(ENGLISH),
    "few_words": lambda p: pl.col("caption").str.count_matches(r"\S+") < p["min_words"],
    "many_words": lambda p: pl.col("caption").str.count_matches(r"\S+") > p["max_words"],
    "few_letters": lambda p: _share(r"\p{L}", r"\S") < p["min_letters"],
}

# Rules that look at all that is left so far, one after the other: captions, then pictures.
SHARED_CAPTION_RULES: dict[str, Callable[[dict], pl.Expr]] = {
    "same_caption_again": lambda p: ~pl.struct("key", "normal").is_first_distinct(),
    "on_many_pictures": lambda p: pl.len().over("normal") > p["max_pictures_a_caption"],
}
SHARED_PICTURE_RULES: dict[str, Callable[[dict], pl.Expr]] = {
    "same_picture_again": lambda p: ~pl.col("sha256").is_first_distinct(),
    "near_picture_again": lambda p: pl.struct("hash", "colours").map_batches(
        lambda column: near_again(column.struct["hash"], column.struct["colours"], p["near_picture_bits"]), pl.Boolean
    ),
}


def _first_reason(rules: dict, params: dict) -> pl.Expr:
    """The name of the first rule that holds; null where none does."""
    return pl.coalesce([pl.when(rule(params)).then(pl.lit(name)) for name, rule in rules.items()])


def judge_captions(pictures: pl.DataFrame, params: dict) -> pl.DataFrame:
    """One row a caption (key, source, caption, reason) of pictures that are left; reason is null for what stays."""
    said = pictures.select("key", "source", caption="captions").explode("caption")
    said = said.with_columns(
        reason=_first_reason(CAPTION_RULES, params),
        normal=pl.col("caption").str.to_lowercase().str.replace_all(r"\s+", " ").str.strip_chars(),
    )
    return _one_by_one(said, SHARED_CAPTION_RULES, params)


def judge_pictures(rows: pl.DataFrame, params: dict) -> pl.DataFrame:
    """The rows with their reason, from their status, width, height and captions."""
    broken = pl.when(pl.col("status") != "ok").then(pl.col("status"))
    return rows.with_columns(reason=pl.coalesce(broken, _first_reason(PICTURE_RULES, params)))


def _one_by_one(table: pl.DataFrame, rules: dict, params: dict) -> pl.DataFrame:
    """Each rule sees only what the rules before it left."""
    table = table.with_row_index("at")
    for name, rule in rules.items():
        left = table.filter(pl.col("reason").is_null())
        dropped = left.filter(rule(params)).select("at", now=pl.lit(name))
        table = table.join(dropped, on="at", how="left", maintain_order="left")
        table = table.with_columns(reason=pl.coalesce("reason", "now")).drop("now")
    return table.drop("at")


def look(image: bytes | None) -> tuple[str, int, bytes] | tuple[None, None, None]:
    """(sha256, 64-bit difference hash, thumbnail's colours): what tells two pictures apart."""
    if image is None:
        return None, None, None
    from PIL import Image

    picture = Image.open(io.BytesIO(image)).convert("RGB")
    grey = np.asarray(picture.convert("L").resize((9, 8), Image.Resampling.BOX))  # [8, 9]
    bits = np.packbits(grey[:, 1:] > grey[:, :-1])
    colours = picture.resize((THUMBNAIL, THUMBNAIL), Image.Resampling.BOX).tobytes()
    return hashlib.sha256(image).hexdigest(), int.from_bytes(bits.tobytes(), "big"), colours


def near_again(hashes: pl.Series, colours: pl.Series, bits: int) -> pl.Series:
    """True for a picture that an earlier one nearly equals: hashes differ in at most `bits` bits, colours hardly.

    Of bits + 1 bands of the hash at least one is then equal, so only pictures that share a band are compared.
    """
    edges = np.linspace(0, 64, bits + 2).astype(int)
    bands = [((1 << int(high - low)) - 1, int(low)) for low, high in zip(edges, edges[1:], strict=False)]
    shared: dict[tuple, list[int]] = {}
    values, looks = hashes.to_list(), [np.frombuffer(each, np.uint8).astype(np.int16) for each in colours]
    again = []
    for number, value in enumerate(values):
        buckets = [shared.setdefault((band, value >> low & mask), []) for band, (mask, low) in enumerate(bands)]
        near = any(
            (values[other] ^ value).bit_count() <= bits and np.abs(looks[other] - looks[number]).max() <= COLOUR_STEP
            for bucket in buckets
            for other in bucket
        )
        again.append(near)
        if not near:
            for bucket in buckets:
                bucket.append(number)
    return pl.Series(again, dtype=pl.Boolean)


def read_rows(pairs: list[Path]) -> pl.DataFrame:
    """All rows of all sources, in order, with what their pictures look like in their pictures' place."""
    parts = []
    for path in pairs:
        for batch in tqdm(schemas.batches(path, schemas.PAIRS), desc=f"look at {path}", unit=" batch", mininterval=1):
            seen = [look(image) for image in batch["image"].to_pylist()]
            schema = {"sha256": pl.String, "hash": pl.UInt64, "colours": pl.Binary}
            looks = pl.DataFrame(seen, schema=schema, orient="row")
            parts.append(pl.from_arrow(batch.drop_columns("image")).hstack(looks))
    return pl.concat(parts)


def judge(rows: pl.DataFrame, params: dict) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Rows and captions, each with its reason or null; a row whose captions all went has the first one's reason."""
    rows = judge_pictures(rows, params)
    captions = judge_captions(rows.filter(pl.col("reason").is_null()), params)
    firsts = captions.group_by("key").agg(
        lost=pl.when(pl.col("reason").is_not_null().all()).then(pl.col("reason").first())
    )
    rows = rows.join(firsts, on="key", how="left", maintain_order="left")
    rows = rows.with_columns(reason=pl.coalesce("reason", "lost")).drop("lost")
    return _one_by_one(rows, SHARED_PICTURE_RULES, params), captions


def count(rows: pl.DataFrame, captions: pl.DataFrame) -> pl.DataFrame:
    """(source, unit, reason, count); `kept` is what stays. Captions are those of pictures that could be judged."""
    gone = rows.filter(pl.col("reason").is_not_null()).select("key", picture=pl.concat_str(pl.lit("with_its_picture")))
    captions = captions.join(gone, on="key", how="left").with_columns(reason=pl.coalesce("reason", "picture"))
    units = {"picture": rows, "caption": captions}
    return pl.concat(
        table.with_columns(pl.col("reason").fill_null("kept"))
        .group_by("source", "reason")
        .agg(count=pl.len().cast(pl.Int64))
        .select("source", pl.lit(unit).alias("unit"), "reason", "count")
        for unit, table in units.items()
    ).sort("unit", "source", "reason")


def written(report: pl.DataFrame) -> str:
    """The report as a table for people: a row a reason, a column a source; kept first, then the heaviest."""
    parts = [(unit, report.filter(unit=unit)) for unit in ("picture", "caption")]
    return "\n".join(_aligned(unit, part) for unit, part in parts if len(part))


def _aligned(unit: str, report: pl.DataFrame) -> str:
    wide = report.pivot("source", index="reason", values="count", sort_columns=True).fill_null(0)
    sources = [name for name in wide.columns if name not in ("reason", "unit")]
    wide = wide.select("reason", pl.sum_horizontal(sources).alias("all"), *sources)
    wide = wide.sort(pl.col("reason") != "kept", -pl.col("all"), "reason")
    rows = [[f"{unit}s", *wide.columns[1:]], *wide.rows(), ["in all", *wide.drop("reason").sum().row(0)]]
    width = max(len(row[0]) for row in rows)
    return "".join("  ".join([row[0].ljust(width), *(f"{cell:>9}" for cell in row[1:])]) + "\n" for row in rows)


def filter_pairs(
    *,
    min_words: int,
    max_words: int,
    min_letters: float,
    boilerplate: list,
    max_pictures_a_caption: int,
    min_side: int,
    max_aspect: float,
    near_picture_bits: int,
    pairs: list[Path],
    output: Path,
) -> None:
    """Keeps the pairs that are worth learning from and counts what is dropped, by rule and source.

    min_words: fewest words of a caption
    max_words: most words of a caption
    min_letters: smallest share of letters among a caption's characters
    boilerplate: patterns of texts that tell of the page, not of the picture
    max_pictures_a_caption: a text on more pictures tells of none of them
    min_side: pixels of a picture's shorter side
    max_aspect: a picture's longer side by its shorter
    near_picture_bits: bits in which the hashes of near duplicates may differ
    pairs: the sources' tables, the first ones first when pictures repeat
    output: folder of the kept pairs and the report
    """
    params = locals()
    rows, captions = judge(read_rows(pairs), params)
    left = captions.filter(pl.col("reason").is_null()).group_by("key", maintain_order=True).agg("caption")
    left = dict(zip(left["key"], left["caption"].to_list(), strict=True))
    kept = set(rows.filter(pl.col("reason").is_null())["key"])
    report = count(rows, captions)
    if not kept:
        raise ValueError(
            f"no pair is left, loosen the rules of `filter` in params.yaml; what dropped them:\n{written(report)}"
        )
    with schemas.writer(output / "pairs.parquet", schemas.PAIRS) as add:
        for path in pairs:
            for batch in schemas.batches(path, schemas.PAIRS):
                chosen = [row for row in batch.to_pylist() if row["key"] in kept]
                add([row | {"captions": left[row["key"]]} for row in chosen])
    schemas.write(report.to_arrow(), output / "report.parquet", REPORT)
    with files.whole(output / "report.txt") as aside:
        aside.write_text(written(report))
    print(written(report))


if __name__ == "__main__":
    flags.main(filter_pairs)
