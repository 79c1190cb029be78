"""EXAMPLES of several systems and seeds -> counts of each unit, and every metric from sums of counts.

    tables = load([paths])                        {(task, system, data): {seed: table}}
    corpus = written("reddit", {row: {seed: table}})      one unit an example
    corpora = probed("probe", {row: {seed: table}})       one unit a noun; seen and held-out nouns apart
    corpus.values()                               [R, S, M]: each row's value of each seed and metric

Shapes: R rows of a table, S seeds, N units, K counts, M metrics, V n-grams, B draws; `sums` are counts summed over units.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
from scipy.sparse import csr_matrix

from vikdf import schemas
from vikdf.means import MEASURED, METRICS, PER_WORD
from vikdf.metrics.bleu import ORDERS, SMALL, TINY
from vikdf.metrics.distinct import ngrams
from vikdf.metrics.ead import expected
from vikdf.probe import GROUPS

Row = tuple[str, str]  # system, data
Seeds = dict[int, pa.Table]

MEANS = ["rouge_l", "rouge_l_f1", "average", "extrema", "greedy", "similarity"]
GRAMS = {"dis1": 1, "dis2": 2}
EAD = {"ead1": "dis1", "ead2": "dis2"}  # from the same counts
SUBSAMPLED = [*GRAMS, *EAD]
COUNTS = ["items", "nll", "tokens", "words", "hypothesis_words", "reference_words", *MEANS, "empty"]
COUNTS += [f"{kind}{order}" for kind in ("correct", "guess") for order in range(1, ORDERS + 1)]
COUNTS += [f"{name}_{kind}" for name in GRAMS for kind in ("grams", "distinct")]  # distinct: n-grams of no other unit
WRITTEN = ["ppl", *(f"bleu{order}" for order in range(1, ORDERS + 1)), *MEANS, *GRAMS, "ppl_per_word"]
WRITTEN += [*EAD, "mean_length", "empty"]
TESTED = [*METRICS, PER_WORD]
ASKED = ["items", "stated", "right", "ranked", "first", "rank"]  # counts of the probe, for each attribute
PROBE = ["noun", "attribute", "held_out", "stated", "right", "cloze_rank"]
COLUMNS = ["id", "task", "system", "data", "seed", "scored_with", "reference", "hypothesis", "nll", "tokens", "words"]
COLUMNS += ["correct", "guess", "hypothesis_words", "reference_words", *MEANS, *PROBE]


@dataclass(frozen=True)
class Corpus:
    task: str
    rows: list[Row]
    seeds: list[int]
    metrics: list[str]
    counts: np.ndarray  # [R, S, N, K]
    measure: Callable[[np.ndarray], np.ndarray]  # sums [..., K] -> values [..., M]
    grams: dict[str, list[list[csr_matrix]]] = field(
        default_factory=dict
    )  # metric -> [R][S] of [N, V]: n-grams of several units
    unit: str = "examples"

    @property
    def size(self) -> int:
        return self.counts.shape[2]

    def sums(self) -> np.ndarray:
        """[R, S, K] of all units."""
        sums = self.counts.sum(axis=2)
        for name, place in self.places().items():
            for row, seeds in enumerate(self.grams[name]):
                sums[row, :, place] += [np.count_nonzero(np.bincount(matrix.indices)) for matrix in seeds]
        return sums

    def values(self) -> np.ndarray:
        """[R, S, M]"""
        return self.measure(self.sums())

    def places(self) -> dict[str, int]:
        """Dis-n -> the place among the counts of its distinct n-grams."""
        return {name: COUNTS.index(f"{name}_distinct") for name in self.grams}


def load(paths: list[Path]) -> dict[tuple[str, str, str], Seeds]:
    """The tables of each task, system and fraction by seed; one that comes twice is an error."""
    found: dict[tuple[str, str, str], Seeds] = {}
    seen = {}
    for path in paths:
        table = schemas.read(path, schemas.EXAMPLES, COLUMNS)
        heads = table.select(["task", "system", "data", "seed"])
        for head in heads.group_by(heads.column_names, use_threads=False).aggregate([]).to_pylist():
            key = tuple(head.values())
            if key in seen:
                raise ValueError(f"{path} and {seen[key]} both hold {', '.join(map(str, key))}: leave one of them out")
            seen[key] = path
            part = table.filter(_same(heads, head)).sort_by("id")
            found.setdefault(key[:3], {})[head["seed"]] = part
    return found


def _same(table: pa.Table, head: dict) -> pa.ChunkedArray:
    import pyarrow.compute as pc

    masks = [pc.equal(table[name], value) for name, value in head.items()]
    return pc.and_(pc.and_(masks[0], masks[1]), pc.and_(masks[2], masks[3]))


def check(task: str, tables: dict[Row, Seeds]) -> list[int]:
    """The seeds, the same for every row; a ValueError where two rows have other seeds, ids, references or scorers."""
    (first, firsts), *others = tables.items()
    for row, seeds in others:
        if set(seeds) != set(firsts):
            raise ValueError(
                f"{task}: {_seeds(first, firsts)} but {_seeds(row, seeds)}: expected the same seeds of both"
            )
    _check_scored_with(task, tables)
    wanted = next(iter(firsts.values()))
    ids = wanted["id"].to_pylist()
    if len(set(ids)) < len(ids):
        raise ValueError(f"{task}, {_name(first)}: an id stands twice: expected one row an example")
    for row, seeds in tables.items():
        for seed, table in seeds.items():
            where = f"{task}: {_name(first)} and {_name(row)} (seed {seed})"
            if table["id"].to_pylist() != ids:
                raise ValueError(
                    f"{where} answered other examples ({len(ids)} and {len(table)} ids): expected the same"
                )
            if table["reference"] != wanted["reference"]:
                raise ValueError(
                    f"{where} have the same ids but other references: expected answers to the same examples"
                )
    return sorted(firsts)


def _check_scored_with(task: str, tables: dict[Row, Seeds]) -> None:
    """Scores that were made with other tokenizers, word vectors or encoders are not compared."""
    told: dict[str | None, str] = {}
    for row, seeds in tables.items():
        for seed, table in seeds.items():
            for with_what in table["scored_with"].unique().to_pylist():
                told.setdefault(with_what, f"{_name(row)} (seed {seed})")
    if len(told) > 1:
        (one, a), (other, b), *_ = ((set((text or "").split("|")), where) for text, where in told.items())
        apart = [
            ", ".join(sorted(part for part in parts if part)) or "none of it" for parts in (one - other, other - one)
        ]
        cure = "score both again with the same tokenizer, word vectors, encoder and number of references"
        raise ValueError(f"{task}: {a} was scored with {apart[0]}, but {b} with {apart[1]}: {cure}")


def _name(row: Row) -> str:
    return f"{row[0]} ({row[1]})"


def _seeds(row: Row, seeds: Seeds) -> str:
    return f"{_name(row)} has seed{'s' * (len(seeds) > 1)} {', '.join(map(str, sorted(seeds)))}"


def written(task: str, tables: dict[Row, Seeds]) -> Corpus:
    """A task that is scored by what was written: a unit is an example."""
    seeds = check(task, tables)
    flat = [table[seed] for table in tables.values() for seed in seeds]
    counts = np.stack([_counts(table) for table in flat])  # [R * S, N, K]
    grams = {name: [[] for _ in tables] for name in GRAMS}
    for name, order in GRAMS.items():
        for first in range(len(seeds)):  # only rows of one seed change answers, so that only they share n-grams
            here = slice(first, None, len(seeds))
            matrices, totals, own = _incidence([table["hypothesis"].to_pylist() for table in flat[here]], order)
            counts[here, :, COUNTS.index(f"{name}_grams")] = totals
            counts[here, :, COUNTS.index(f"{name}_distinct")] = own
            for row, matrix in zip(grams[name], matrices, strict=True):
                row.append(matrix)
    references = flat[0]["reference"].to_pylist()
    words = len(np.unique(ngrams(references, 1).flat))
    single = (flat[0]["scored_with"][0].as_py() or "refs:1").endswith(
        "refs:1"
    )  # of several EXAMPLES has the first alone
    sizes = {name: words**order for name, order in GRAMS.items()} if single else {}
    measure = partial(_written_values, sizes)
    return Corpus(task, list(tables), seeds, WRITTEN, _by_unit(counts, len(seeds)), measure, grams)


def _by_unit(counts: np.ndarray, seeds: int) -> np.ndarray:
    """[R * S, N, K] -> [R, S, N, K] that lies in memory unit by unit, as the draws read it."""
    flat = np.ascontiguousarray(counts.transpose(1, 0, 2))  # [N, R * S, K]
    return flat.reshape(len(flat), -1, seeds, counts.shape[2]).transpose(1, 2, 0, 3)


def _counts(table: pa.Table) -> np.ndarray:
    """[N, K]; what a system does not tell (nll) is not a number, nor is what is made of it."""
    counts = np.zeros((len(table), len(COUNTS)))
    counts[:, 0] = 1
    for place, name in enumerate(COUNTS[1 : COUNTS.index("empty")], 1):
        counts[:, place] = table[name].cast(pa.float64()).to_numpy()
    counts[:, COUNTS.index("empty")] = counts[:, COUNTS.index("hypothesis_words")] == 0
    for kind in ("correct", "guess"):
        first = COUNTS.index(f"{kind}1")
        counts[:, first : first + ORDERS] = np.array(table[kind].to_pylist(), dtype=float).reshape(-1, ORDERS)
    return counts


def _incidence(texts: list[list[str]], order: int) -> tuple[list[csr_matrix], np.ndarray, np.ndarray]:
    """For each list: [N, V] with a 1 where the text has the n-gram; [lists, N] n-grams of each text; [lists, N] those among
    them, each once, that no text of another unit has: they are a sum like any other, and most of a large corpus.
    """
    size = len(texts[0])
    every = ngrams([text for column in texts for text in column], order)
    text = np.repeat(np.arange(len(every)), every.lengths)
    width = int(every.flat.max(initial=0)) + 1
    text, gram = np.divmod(np.unique(text * width + every.flat), width)  # each n-gram of a text once
    units = np.bincount(np.unique(gram * size + text % size) // size, minlength=width)  # units that have the n-gram
    alone = units[gram] == 1
    own = np.bincount(text[alone], minlength=len(every)).reshape(len(texts), size)
    names, places = np.unique(gram[~alone], return_inverse=True)
    ends = np.concatenate([[0], np.cumsum(np.bincount(text[~alone], minlength=len(every)))])
    matrices = []
    for first in range(0, len(every), size):
        part = ends[first : first + size + 1]
        held = places[part[0] : part[-1]].astype(np.int32)
        ones = np.ones(len(held), dtype=np.float32)
        matrices.append(csr_matrix((ones, held, part - part[0]), shape=(size, max(len(names), 1))))
    return matrices, every.lengths.reshape(len(texts), size), own


def _written_values(sizes: dict[str, int], sums: np.ndarray) -> np.ndarray:
    """The same formulas as vikdf/metrics, over any leading axes; `sizes`: EAD's V, where it is known."""
    at = dict(zip(COUNTS, np.moveaxis(sums, -1, 0), strict=True))
    values = {name: 100 * at[name] / at["items"] for name in [*MEANS, "empty"]}
    values["mean_length"] = at["hypothesis_words"] / at["items"]
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        values["ppl"] = np.exp(at["nll"] / at["tokens"])
        values["ppl_per_word"] = np.exp(at["nll"] / at["words"])
        ratio = (at["hypothesis_words"] + TINY) / (at["reference_words"] + SMALL)
        brevity = np.exp(np.minimum(1 - 1 / ratio, 0))
        product = np.ones_like(ratio)
        for order in range(1, ORDERS + 1):
            product = product * (at[f"correct{order}"] + TINY) / (at[f"guess{order}"] + SMALL)
            values[f"bleu{order}"] = 100 * product ** (1 / order) * brevity
        for name in GRAMS:
            values[name] = np.where(at[f"{name}_grams"] > 0, 100 * at[f"{name}_distinct"] / at[f"{name}_grams"], 0.0)
        for name, base in EAD.items():
            total = at[f"{base}_grams"]
            share = 100 * at[f"{base}_distinct"] / expected(total, sizes[base]) if base in sizes else total * np.nan
            values[name] = np.where(total > 0, share, 0.0 if base in sizes else np.nan)
    return np.stack([values[name] for name in WRITTEN], axis=-1)


def probed(task: str, tables: dict[Row, Seeds]) -> list[Corpus]:
    """The probe: a unit is a noun, the unit of fact; several questions about one noun rise and fall together."""
    seeds = check(task, tables)
    flat = [table[seed].select(PROBE).to_pylist() for table in tables.values() for seed in seeds]
    made = []
    for held_out, group in GROUPS.items():
        asked = [[item for item in items if item["held_out"] == held_out] for items in flat]
        nouns = sorted({item["noun"] for item in asked[0]})
        looks = sorted({item["attribute"] for item in asked[0]})
        if nouns:
            counts = np.stack([_asked(items, nouns, looks) for items in asked])
            counts = _by_unit(counts, len(seeds))
            names = [f"{look}_{name}_{group}" for look in looks for name in MEASURED]
            made.append(Corpus(task, list(tables), seeds, names, counts, _probed_values, unit="nouns"))
    return made


def _asked(items: list[dict], nouns: list[str], looks: list[str]) -> np.ndarray:
    """[nouns, looks * counts]"""
    counts = np.zeros((len(nouns), len(looks), len(ASKED)))
    for item in items:
        stated, rank = item["stated"], item["cloze_rank"]
        row = [1, stated, item["right"], rank is not None, rank == 1, rank or 0]
        counts[nouns.index(item["noun"]), looks.index(item["attribute"])] += row
    return counts.reshape(len(nouns), -1)


def _probed_values(sums: np.ndarray) -> np.ndarray:
    parts = sums.reshape(*sums.shape[:-1], -1, len(ASKED))
    at = dict(zip(ASKED, np.moveaxis(parts, -1, 0), strict=True))
    with np.errstate(divide="ignore", invalid="ignore"):
        values = [at["stated"] / at["items"], at["right"] / at["stated"], at["right"] / at["items"]]
        values += [at["first"] / at["ranked"], at["rank"] / at["ranked"]]
    return np.stack(values, axis=-1).reshape(*sums.shape[:-1], -1)
