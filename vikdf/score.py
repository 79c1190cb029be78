"""`vikdf score`: every metric of anyone's answers, from text files, each with its signature.

In: a file of answers and one or more of references, an item a line; word vectors, the references' token NLLs and an encoder
where there are such. Out: a table to read, or one JSON object whose keys are the metrics' columns of table1.csv and bleu2 to
bleu4; with --examples also the EXAMPLES table that `vikdf compare` takes. Used by vikdf.cli.
"""

import argparse
import json
import math
import shlex
import sys
from pathlib import Path

SCORE = """
Line n of every file is item n. A blank answer is an answer, and scored. A blank line in one of several reference files means
that the item has no reference there. The token NLLs are those of the first file of references.
Nothing is left out: --without shows the figures of the other answers beside those of all.
What a metric needs and was not given is said where its number would stand (null in JSON, the reason below `missing`).

examples
  vikdf score --hypotheses H.txt --references R.txt
  vikdf score --hypotheses H.txt --references R.txt --references R2.txt --vectors glove.6B.200d.txt --json
  vikdf score --hypotheses H.txt --references R.txt --nll NLL.txt           perplexities: a line an item, -log P of each token
  vikdf score --hypotheses H.txt --references R.txt --without "i'm sorry" response     the filter of the paper's script
  vikdf score --hypotheses H.txt --references R.txt --examples H.parquet    what `vikdf compare` reads
"""
NEEDS = {  # what a metric needs -> what to give
    "nll": "needs --nll FILE, the -log P of each token of the references",
    "vectors": "needs --vectors FILE, a table of word vectors",
    "encoder": "needs --encoder FOLDER, a text encoder",
}
DIGITS = 9
LARGEST = 700  # mean NLL: e to more than this is no number any more, and no language model's either


def score(given: argparse.Namespace) -> None:
    from vikdf import metrics
    from vikdf.metrics import similarity, vectors

    if given.examples and (given.examples.suffix != ".parquet" or given.examples.is_dir()):
        raise ValueError(
            f"--examples {given.examples}: expected a file whose name ends in .parquet, as {given.hypotheses.stem}.parquet"
        )
    if given.task == "probe":
        raise ValueError(
            "--task probe: so the questions of the embedded world are called, whose rows are others; name another"
        )
    hypotheses = lines(given.hypotheses)
    columns = references(given.references, given.hypotheses, len(hypotheses))
    nll, tokens = token_nll(given.nll, given.hypotheses, len(hypotheses)) if given.nll else (None, None)
    answers = metrics.Answers(
        hypotheses,
        columns,
        nll=nll,
        tokens=tokens,
        vectors=vectors.load(given.vectors) if given.vectors else None,
        encoder=similarity.load(given.encoder) if given.encoder else None,
        tokenizer=given.tokenizer,
    )
    if given.examples:
        write_examples(answers, given)
    found = told(answers)
    if given.without:
        found["without"] = filtered(answers, given.without)
    print(json.dumps(found, indent=1, ensure_ascii=False, allow_nan=False) if given.json else page(found, answers))


def lines(path: Path) -> list[str]:
    """The lines of a UTF-8 file; only a line end ends one, and the last may lack it."""
    if not path.exists() or path.is_dir():
        what = "is a folder" if path.is_dir() else "is missing"
        raise ValueError(f"{path} {what}: expected a text file, an item a line")
    content = path.read_bytes()
    if not content:
        raise ValueError(f"{path} is empty: expected a text file, an item a line")
    if content.startswith(b"\x1f\x8b"):
        raise ValueError(f"{path} is gzipped, expected text: `gunzip {shlex.quote(str(path))}` unpacks it")
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise ValueError(
            f"{path} is UTF-16, expected UTF-8: `iconv -f UTF-16 -t UTF-8 {shlex.quote(str(path))}` writes it so"
        )
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        cure = f"if it is Latin-1, `iconv -f LATIN1 -t UTF-8 {shlex.quote(str(path))}` writes it so"
        raise ValueError(f"{path}, line {line}: byte 0x{content[error.start]:02x} is not UTF-8; {cure}") from None
    if "\0" in text:
        line = text.count("\n", 0, text.index("\0")) + 1
        raise ValueError(f"{path}, line {line}: a NUL character, expected text: is it a binary file, or UTF-16?")
    return [line.removesuffix("\r") for line in text.removesuffix("\n").split("\n")]


def paired(path: Path, other: Path, wanted: int) -> list[str]:
    """The lines of a file that has one for each line of the answers."""
    found = lines(path)
    if len(found) != wanted:
        said = f"{other} has {wanted} lines, but {path} has {len(found)}"
        raise ValueError(f"{said}: line n of every file is item n, so give files with equally many")
    return found


def references(paths: list[Path], hypotheses: Path, wanted: int) -> list[list[str]]:
    """A column a file; where one has a blank line, the item's first other reference stands in: that changes no metric."""
    columns = [paired(path, hypotheses, wanted) for path in paths]
    first = [next(filter(str.strip, item), "") for item in zip(*columns, strict=True)]
    if not any(first):
        raise ValueError(f"{', '.join(map(str, paths))}: every line is blank: expected a reference for each answer")
    for path, column in zip(paths, columns, strict=True):
        if blank := sum(not text.strip() for text in column):
            what = (
                "these items have one reference fewer"
                if len(paths) > 1
                else "nothing there for an answer to agree with"
            )
            print(f"{path}: {blank:,} blank lines: {what}", file=sys.stderr)
    return [[text if text.strip() else first[i] for i, text in enumerate(column)] for column in columns]


def token_nll(path: Path, hypotheses: Path, wanted: int):
    """[N], [N]: the sum and the number of the values in each line."""
    import numpy as np

    sums, counts = [], []
    for number, line in enumerate(paired(path, hypotheses, wanted), 1):
        values = [_nll(word, f"{path}, line {number}") for word in line.split()]
        if not values:
            said = "expected the -log P of each token, at least that of the end of the sequence"
            raise ValueError(f"{path}, line {number} holds no number: {said}")
        sums.append(math.fsum(values))
        counts.append(len(values))
    if (mean := math.fsum(sums) / sum(counts)) > LARGEST:
        raise ValueError(f"{path}: the mean of its values is {mean:g}, expected natural logarithms of probabilities")
    return np.array(sums), np.array(counts)


def _nll(word: str, where: str) -> float:
    try:
        value = float(word)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise ValueError(f"{where}: {word[:40]!r} is no number, expected the -log P of each token with spaces between")
    if value < -1e-6:  # rounding may leave a hair below 0
        raise ValueError(f"{where}: {word[:40]} is below 0, expected -log P of each token, which is 0 or more")
    return value


def told(answers) -> dict:
    """Metric -> value, or None for one that lacks what it needs; then all signatures, and what is missing."""
    from vikdf import metrics

    scores = metrics.score(answers)
    found = {name: round(scores[name].value, DIGITS) if name in scores else None for name in metrics.METRICS}
    found["signatures"] = {name: each.signature for name, each in scores.items()}
    lost = {name: metric.needs for name, metric in metrics.METRICS.items() if name not in scores}
    return found | {"missing": {name: NEEDS[needs] for name, needs in lost.items()}}


def filtered(answers, words: list[str]) -> dict:
    """The same of the answers that hold none of the words, and how many were dropped."""
    if not all(word.strip() for word in words):
        raise ValueError('--without has an empty word, which every answer holds: name words such as "i\'m sorry"')
    kept, dropped = answers.without(words)
    return {"words": words, "dropped": dropped} | told(kept)


def write_examples(answers, given: argparse.Namespace) -> None:
    from vikdf import examples, schemas

    known = answers.nll is not None
    fixed = {"task": given.task, "system": given.system or given.hypotheses.stem, "data": "given", "seed": given.seed}
    rows = [
        fixed
        | {"id": f"line-{i + 1:09}", "context": [], "reference": answers.references[0][i], "hypothesis": hypothesis}
        | {"nll": float(answers.nll[i]) if known else None, "tokens": int(answers.tokens[i]) if known else None}
        for i, hypothesis in enumerate(answers.hypotheses)
    ]
    schemas.write(examples.written(rows, answers), given.examples, schemas.EXAMPLES)
    print(f"{given.examples}: {len(rows):,} rows", file=sys.stderr)


def page(found: dict, answers) -> str:
    """The table to read: a metric a line, the rest of the answers beside it if some are left out, the signatures below."""
    rest = found.get("without")
    names = [name for name in found if name not in ("signatures", "missing", "without")]
    several = len(answers.references)
    said = [f"{len(answers):,} answers, {several} reference{'s' * (several > 1)} each"]
    said += [f"without {', '.join(map(repr, rest['words']))}: {rest['dropped']:,} dropped"] if rest else []
    head = f"{'metric':14}{'value':>12}" + f"{'without':>12}" * bool(rest)
    body = []
    for name in names:
        cells = [found[name]] + ([rest[name]] if rest else [])
        text = f"{name:14}" + "".join(f"{'-' if cell is None else f'{cell:.4f}':>12}" for cell in cells)
        body.append(text + (f"  {found['missing'][name]}" if name in found["missing"] else ""))
    signed = [*found["signatures"].values(), *(rest["signatures"].values() if rest else ())]
    return "\n".join([*said, "", head, *body, "", "signatures", *signed])


def _flags(one: argparse.ArgumentParser) -> None:
    one.add_argument("--hypotheses", type=Path, required=True, metavar="H.txt", help="the answers, one a line")
    said = "the references, one a line; several files, or the flag several times, for several references an item"
    one.add_argument("--references", type=Path, required=True, nargs="+", action="extend", metavar="R.txt", help=said)
    said = "word vectors for Average, Extrema and Greedy: word2vec or GloVe, text or binary, also .gz, or .npy beside words.txt"
    one.add_argument("--vectors", type=Path, metavar="FILE", help=said)
    said = (
        "for the perplexities: a line an item, -log P (natural) of each token of its reference, end of sequence counted"
    )
    one.add_argument("--nll", type=Path, metavar="FILE", help=said)
    said = "nltk: lower case and NLTK's words, as the paper; space: as it is, cut at white space (default: %(default)s)"
    one.add_argument("--tokenizer", choices=["nltk", "space"], default="nltk", help=said)
    one.add_argument("--encoder", type=Path, metavar="FOLDER", help="a local text encoder, for `similarity`")
    said = "figures of the answers that hold none of these, whatever their case, beside those of all"
    one.add_argument("--without", nargs="+", metavar="WORD", help=said)
    one.add_argument("--examples", type=Path, metavar="OUT.parquet", help="each answer with its own scores and counts")
    for name, kind, usual, meaning in (
        ("system", str, None, "the system's name in --examples (default: the name of the file of answers)"),
        ("task", str, "text", "the task's name there (default: %(default)s)"),
        ("seed", int, 0, "the system's seed there (default: %(default)s)"),
    ):
        one.add_argument(f"--{name}", type=kind, default=usual, metavar=name.upper(), help=meaning)
    one.add_argument("--json", action="store_true", help="one JSON object in place of the table")


COMMANDS = {"score": ("all metrics of answers in text files", SCORE, _flags, score)}  # as in vikdf.use
