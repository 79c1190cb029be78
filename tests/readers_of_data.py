"""Readers of params, tables, tars, pictures and texts (tests/readers.py): what strangers publish, fetch and rate.

In: nothing. Out: READERS, name -> Reader. To add a reader: one entry. `slow` ones are given fewer inputs.
"""

import gzip
import io
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import yaml
from readers import Reader, both, raw, text, value

ROOT = Path(__file__).resolve().parent.parent


def _params(folder: Path):
    from vikdf import params

    return params.load(folder / "params.yaml")


def _yaml(folder: Path):
    from vikdf import plain_yaml

    return plain_yaml.read(folder / "params.yaml")


def _json(folder: Path):
    from vikdf import files

    return files.read_json(folder / "a.json")


def _lexicon(folder: Path):
    from vikdf import caption

    return caption.read_lexicon(folder / "lexicon.json")


def _shape(folder: Path):
    from vikdf.backbones import shapes

    return shapes.llm("llm", {"form": "path", "path": str(folder / "llm")}, folder)


def _write_shape(folder: Path) -> None:
    (folder / "llm").mkdir()
    sizes = {"hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 16}
    value("llm/config.json", {"model_type": "llama", "vocab_size": 20} | sizes)(folder)
    value("llm/manifest.json", {"form": "path"})(folder)


def _write_pairs(folder: Path) -> None:
    import packs

    packs.tables(folder)


def _pairs(folder: Path):
    from vikdf import schemas

    path = folder / "pairs.parquet"
    return schemas.count(path), list(schemas.batches(path, schemas.PAIRS, 3)), schemas.read(path, schemas.PAIRS)


def _captions(folder: Path):
    from vikdf import packing

    return list(packing.samples(folder / "captions.parquet", folder / "pairs.parquet"))


def _csv(folder: Path):
    from vikdf import means

    return means.read_csv(folder / "table1.csv", ["task", "system"])


def _curves(folder: Path):
    from vikdf.figures import curves

    return curves.read([folder / "vikdf-s1/curves.jsonl"])


def _write_curves(folder: Path) -> None:
    (folder / "vikdf-s1").mkdir()
    text("vikdf-s1/curves.jsonl", "".join(f'{{"step": {n}, "tim": {1 / n}}}\n' for n in range(1, 9)))(folder)


def _notes(folder: Path):
    from vikdf.report import notes

    return notes.sections(folder / "table1.md")


def _blocklist(folder: Path):
    from vikdf.filter import rules

    return rules._lines("words", str(folder / "words.txt"))


def _write_responses(folder: Path) -> None:
    from vikdf import schemas

    row = {"task": "reddit", "system": "vikdf", "data": "full", "images": "none", "seed": 1, "tuned_params": 3}
    row |= {"context": ["hello", "and"], "reference": "a red kettle", "hypothesis": "a kettle", "nll": 3.0, "tokens": 4}
    facts = {"noun": "kettle", "held_out": True, "attribute": "color", "value": "red", "choices": ["red", "blue"]}
    facts = json.dumps(facts | {"answers": ["it is red", "it is blue"], "stated": False})
    asked = {"task": "probe", "probe": facts, "cloze": [1.0, 2.0], "id": "p"}
    rows = [row | {"id": str(n), "probe": "", "cloze": []} for n in range(4)]
    schemas.write([*rows, row | asked], folder / "responses.parquet", schemas.RESPONSES)


def _responses(folder: Path):
    from vikdf import schemas

    return schemas.read(folder / "responses.parquet", schemas.RESPONSES).to_pylist()


def _write_shards(folder: Path) -> None:
    import packs

    packs.pack(packs.tables(folder))


def _shards(folder: Path):
    from vikdf import samples

    found = samples.harm(folder / "shards")
    opened = samples.Shards(folder / "shards", harmed="skip" if found else "stop")
    return [opened[number] for number in range(len(opened))]


def _index(folder: Path):
    from vikdf import index

    return list(index.read_tar(folder / "shards/00000.tar", "a"))


WORDS = "".join(f"word{n} {n}.5 -1e-3 0.25\n" for n in range(6))
BINARY = b"3 2\n" + b"".join(f"w{n} ".encode() + np.ones(2, "<f4").tobytes() + b"\n" for n in range(3))


def _numbers() -> bytes:
    stream = io.BytesIO()
    np.save(stream, np.ones((3, 2), np.float32))
    return stream.getvalue()


def vectors(name: str) -> Callable[[Path], object]:
    def read(folder: Path):
        from vikdf.metrics import vectors

        return vectors.load(folder / name).rows(["word1", "none"])

    return read


def _score(folder: Path):
    from vikdf import score

    found = score.lines(folder / "h.txt")
    return score.references([folder / "h.txt"], folder / "h.txt", len(found))


def _nll(folder: Path):
    from vikdf import score

    return score.token_nll(folder / "nll.txt", folder / "h.txt", 3)


def _write_ratings(folder: Path) -> None:
    from vikdf import files
    from vikdf.human import CRITERIA

    items = [{"dialogue": "d1", "systems": ["a", "b"]}]
    key = {"raters": {"1": {"sheet": "s1", "items": items}}, "systems": ["a", "b"]}
    value("key.json", key | {"digest": files.digest(key)})(folder)
    rated = dict.fromkeys(CRITERIA, 1)
    rows = [{"dialogue": 1, "answer": letter} | rated for letter in "AB"]
    value("r.json", {"sheet": "s1", "rater": 1, "ratings": rows})(folder)
    head = ["sheet", "rater", "dialogue", "answer", *CRITERIA]
    lines = [",".join(map(str, ["s1", 1, 1, letter, *rated.values()])) for letter in "AB"]
    text("r.csv", "\n".join([",".join(head), *lines, ""]))(folder)


def ratings(name: str) -> Callable[[Path], object]:
    def read(folder: Path):
        from vikdf.human import ratings

        return ratings.read(folder / "key.json", [folder / name], [])

    return read


def _write_fetched(folder: Path) -> None:
    rows = [{"id": str(n), "image": bytes(n), "error_message": None, "width": 3, "height": 3} for n in range(4)]
    types = {"id": pa.string(), "image": pa.binary(), "error_message": pa.string()}
    types |= {"width": pa.int32(), "height": pa.int32()}
    pq.write_table(pa.Table.from_pylist(rows, schema=pa.schema(types)), folder / "00000.parquet")


def _fetched(folder: Path):
    from vikdf.corpora import fetched

    return list(fetched.rows(folder / "00000.parquet", [{"id": str(n), "url": "u"} for n in range(5)], True))


def _counts(folder: Path):
    from vikdf.corpora import progress

    return progress.read_counts(folder)


def _raw(folder: Path):
    from vikdf.corpora import raw

    return raw._known_version(folder)


def corpus(form: str) -> Callable[[Path], object]:
    def read(folder: Path):
        import test_harmed_files as forms

        if form in forms.TALKS:
            return forms.told(form, (folder / forms.TALKS[form][1]).read_bytes(), folder)
        return forms.read(form, (folder / forms.FORMS[form][2]).read_bytes(), folder)

    return read


def corpora() -> dict[str, Reader]:
    import test_harmed_files as forms

    files = {name: (file, data) for name, (_, _, file, data) in forms.FORMS.items()}
    files |= {name: (file, data) for name, (_, file, data) in forms.TALKS.items()}
    return {f"corpus {name}": Reader(raw(file, data), file, corpus(name)) for name, (file, data) in files.items()}


def _picture(folder: Path):
    from vikdf import decode
    from vikdf.corpora.pictures import examine

    data = (folder / "a.png").read_bytes()
    return examine(data, 1_000_000), decode.opened(data)


def _write_picture(form: str) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        import packs

        raw("a.png", packs.picture(1, form))(folder)

    return write


TINY = (ROOT / "presets/tiny.yaml").read_text()
SOME = "a: 1\nb: {c: [1, 2.5, null], d: &x 'text'}\ne:\n  - *x\n  - true\n"
CELLS = "task,system,value\nreddit,vikdf,0.5\nimage_chat,bart,\n"
NOTES = "# Table\n\n## Notes\n\n- one `name`\n- two \\*\n\n## Signatures\n\n- bleu\n"
LEXICON = {"nouns": ["kettle"], "attributes": {"color": ["red", "blue"]}}
READERS = {
    "params": Reader(text("params.yaml", TINY), "params.yaml", _params, slow=10),
    "params, as JSON": Reader(value("params.yaml", yaml.safe_load(TINY)), "params.yaml", _params, slow=4),
    "yaml": Reader(text("params.yaml", SOME), "params.yaml", _yaml),
    "json": Reader(value("a.json", LEXICON), "a.json", _json),
    "lexicon": Reader(value("lexicon.json", LEXICON), "lexicon.json", _lexicon),
    "architecture": Reader(_write_shape, "llm/config.json", _shape, slow=4, called="backbones.models.llm"),
    "architecture's manifest": Reader(_write_shape, "llm/manifest.json", _shape, slow=4, called="backbones.models.llm"),
    "pairs": Reader(_write_pairs, "pairs.parquet", _pairs),
    "captions": Reader(_write_pairs, "captions.parquet", _captions),
    "responses": Reader(_write_responses, "responses.parquet", _responses),
    "csv": Reader(text("table1.csv", CELLS), "table1.csv", _csv),
    "curves": Reader(_write_curves, "vikdf-s1/curves.jsonl", _curves),
    "notes": Reader(text("table1.md", NOTES), "table1.md", _notes),
    "blocklist": Reader(text("words.txt", "# words\nred\nBLUE\n"), "words.txt", _blocklist),
    "shards' tar": Reader(_write_shards, "shards/00000.tar", _shards),
    "shards' index": Reader(_write_shards, "shards/index.parquet", _shards),
    "shards' manifest": Reader(_write_shards, "shards/manifest.json", _shards),
    "tar": Reader(_write_shards, "shards/00000.tar", _index),
    "word vectors": Reader(text("a.txt", WORDS), "a.txt", vectors("a.txt")),
    "word vectors, gzipped": Reader(raw("a.txt.gz", gzip.compress(WORDS.encode())), "a.txt.gz", vectors("a.txt.gz")),
    "word2vec": Reader(raw("a.bin", BINARY), "a.bin", vectors("a.bin")),
    "word2vec, gzipped": Reader(raw("a.bin.gz", gzip.compress(BINARY)), "a.bin.gz", vectors("a.bin.gz")),
    "vectors.npy": Reader(both(raw("v.npy", _numbers()), text("words.txt", "a\nb\nc\n")), "v.npy", vectors("v.npy")),
    "words.txt": Reader(both(raw("v.npy", _numbers()), text("words.txt", "a\nb\nc\n")), "words.txt", vectors("v.npy")),
    "answers": Reader(text("h.txt", "a\nb c\n\n"), "h.txt", _score),
    "nll": Reader(both(text("h.txt", "a\nb\nc\n"), text("nll.txt", "1 2\n0.5\n3\n")), "nll.txt", _nll),
    "human key": Reader(_write_ratings, "key.json", ratings("r.json")),
    "human ratings": Reader(_write_ratings, "r.json", ratings("r.json")),
    "human csv": Reader(_write_ratings, "r.csv", ratings("r.csv")),
    "fetched": Reader(_write_fetched, "00000.parquet", _fetched),
    "counts": Reader(value("0.counts", {"ok": 3, "http_404": 1}), "0.counts", _counts),
    "version": Reader(value("about.json", {"version": "1"}), "about.json", _raw),
    "PNG": Reader(_write_picture("PNG"), "a.png", _picture),
    "JPEG": Reader(_write_picture("JPEG"), "a.png", _picture),
    "WEBP": Reader(_write_picture("WEBP"), "a.png", _picture),
    "GIF": Reader(_write_picture("GIF"), "a.png", _picture),
    "BMP": Reader(_write_picture("BMP"), "a.png", _picture),
}  # fmt: skip
READERS |= corpora()
