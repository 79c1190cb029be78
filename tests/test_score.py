"""`vikdf score`: text files in, every metric with its signature out; what is wrong with a file is one sentence."""

import csv
import io
import json
from contextlib import redirect_stdout

import numpy as np
import pytest
from test_evaluate import answer, vectors  # noqa: F401 - fixture

from vikdf import cli, evaluate, means, metrics, schemas
from vikdf.metrics import vectors as word_vectors

OWN = ["i am fine.", "", "the cat sat on the mat 🙂", "i'm sorry, i am not sure.", "i am fine."]
REAL = ["i am good.", "yes you are", "a cat sat on a mat", "you are fine", "am i ?"]
NLL = ["1 2 3", ".5", "1e0 2", "0.25 0.25", "4"]


@pytest.fixture
def files(tmp_path):
    """Writes a file by name, each text a line; bytes as they are."""

    def write(name, content):
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else "".join(f"{line}\n" for line in content).encode())
        return str(path)

    return write


def said(*words) -> str:
    with redirect_stdout(io.StringIO()) as out:
        cli.main(["score", *map(str, words)])
    return out.getvalue()


def scored(files, *words, own=OWN, real=REAL):
    texts = ("--hypotheses", files("H.txt", own), "--references", files("R.txt", real))
    return json.loads(said(*texts, *words, "--json"))


def values(found):
    return {name: value for name, value in found.items() if name in metrics.METRICS}


def test_the_keys_are_the_metrics_columns_of_table_1_and_bleu_2_to_4(files):
    columns = next(csv.reader(io.StringIO(",".join(means.COLUMNS))))
    measured = [name for name in columns if f"{name}_sd" in columns]
    assert set(scored(files)) == {*measured, "bleu2", "bleu3", "bleu4", "signatures", "missing"}


def test_the_numbers_are_those_of_the_stage_evaluate(files, vectors):  # noqa: F811
    rows = [answer(i, own, real) for i, (own, real) in enumerate(zip(OWN, REAL, strict=True))]
    rows = [row | {"nll": 1.0 + i, "tokens": 2} for i, row in enumerate(rows)]
    wanted = evaluate.written(evaluate.answers_of(rows, word_vectors.load(vectors), "nltk"))
    halves = files("N.txt", [f"{(1 + i) / 2} {(1 + i) / 2}" for i in range(len(rows))])
    found = scored(files, "--vectors", vectors, "--nll", halves)
    assert {each["metric"]: round(each["value"], 9) for each in wanted}.items() <= found.items()
    assert {each["metric"]: each["signature"] for each in wanted} == found["signatures"]


def test_every_number_has_a_signature_and_every_gap_a_reason(files):
    found = scored(files)
    numbers = {name for name, value in values(found).items() if value is not None}
    gaps = set(values(found)) - numbers
    assert numbers == set(found["signatures"]) and gaps == set(found["missing"])
    assert {"ppl", "average", "ppl_per_word"} <= gaps and {"bleu1", "dis2"} <= numbers
    assert "--nll FILE" in found["missing"]["ppl"] and "--vectors FILE" in found["missing"]["greedy"]


def test_the_tokenizer_is_chosen_and_told(files):
    found = scored(files, "--tokenizer", "space")
    assert "tok:space|case:kept" in found["signatures"]["bleu1"] and found["bleu1"] != scored(files)["bleu1"]


def test_several_references_are_given_in_either_way_and_the_best_counts(files):
    more = files("R2.txt", ["i am fine.", "no", "what", "i am not sure", "i am fine."])
    first = files("R.txt", REAL)
    once = json.loads(said("--hypotheses", files("H.txt", OWN), "--references", first, more, "--json"))
    assert once == scored(files, "--references", more)
    assert "|refs:2|" in once["signatures"]["rouge_l"] and once["rouge_l"] > scored(files)["rouge_l"]


def test_a_blank_line_among_several_references_is_no_reference_and_is_counted(files, vectors, capsys):  # noqa: F811
    two = scored(files, "--references", files("R2.txt", ["", "", "", " ", ""]), "--vectors", vectors)
    assert "R2.txt: 5 blank lines: these items have one reference fewer" in capsys.readouterr().err
    assert values(two) == values(scored(files, "--vectors", vectors))
    short = ["i am", "", "", "", ""]  # BLEU asks for the reference closest in length: a blank one would be it
    blank = ("--references", files("R2.txt", [" "] * 5))
    assert values(scored(files, *blank, own=short)) == values(scored(files, own=short))


@pytest.mark.parametrize("form", ["\r\n", "no last end", "bom"])
def test_line_ends_and_marks_of_other_systems_change_nothing(files, form):
    text = "\n".join(OWN) + "\n"
    text = {"\r\n": text.replace("\n", "\r\n"), "no last end": text[:-1], "bom": "\ufeff" + text}[form]
    assert scored(files, own=text.encode()) == scored(files)


def test_only_a_line_end_ends_a_line(files):
    own = ["one\u2028two", "three\x0bfour\x0c", "five\x85six", "seven\x1ceight", "a\rb"]
    assert "|n:5|" in scored(files, own=own)["signatures"]["bleu1"]


def test_the_filtered_figures_stand_beside_those_of_all_with_their_count(files):
    found = scored(files, "--without", "I'm Sorry", "response")
    rest = found.pop("without")
    assert found == scored(files)
    kept = [i for i, text in enumerate(OWN) if "i'm sorry" not in text]
    alone = scored(files, own=[OWN[i] for i in kept], real=[REAL[i] for i in kept])
    assert rest["dropped"] == 1 and values(rest) == values(alone)
    assert "answers:all" not in rest["signatures"]["bleu1"]


def test_examples_are_written_beside_and_the_standard_output_is_the_result_alone(files, tmp_path):
    found = scored(files, "--nll", files("N.txt", NLL), "--examples", tmp_path / "each.parquet", "--seed", 3)
    rows = schemas.read(tmp_path / "each.parquet", schemas.EXAMPLES).to_pylist()
    assert [row["hypothesis"] for row in rows] == OWN and [row["reference"] for row in rows] == REAL
    assert {(row["system"], row["task"], row["data"], row["seed"]) for row in rows} == {("H", "text", "given", 3)}
    assert {row["scored_with"] for row in rows} == {"|".join(found["signatures"]["bleu1"].split("|")[4:6] + ["refs:1"])}
    assert rows[0]["id"] == "line-000000001" and [row["tokens"] for row in rows] == [3, 1, 2, 2, 1]
    assert 100 * np.mean([row["rouge_l"] for row in rows]) == pytest.approx(found["rouge_l"], abs=1e-6)


def test_what_was_scored_with_other_vectors_or_words_cannot_be_compared(files, vectors, tmp_path, capsys):  # noqa: F811
    texts = ("--hypotheses", files("H.txt", OWN), "--references", files("R.txt", REAL))
    made = {"a": (), "b": ("--vectors", vectors), "c": ("--tokenizer", "space")}
    for name, more in made.items():
        said(*texts, *more, "--examples", tmp_path / f"{name}.parquet")
    for other, tools in (("b", "vectors:"), ("c", "tok:space")):
        with pytest.raises(SystemExit):
            cli.main(["compare", "--a", str(tmp_path / "a.parquet"), "--b", str(tmp_path / f"{other}.parquet")])
        told = capsys.readouterr().err.splitlines()[-1]
        assert "was scored with" in told and tools in told


def test_answers_in_texts_are_never_called_the_probe_s(files, tmp_path, capsys):
    with pytest.raises(SystemExit):
        scored(files, "--task", "probe", "--examples", tmp_path / "each.parquet")
    assert "--task probe" in capsys.readouterr().err and not (tmp_path / "each.parquet").exists()


def test_without_json_it_is_a_table_with_signatures_and_with_reasons_in_place_of_what_is_missing(files):
    found = scored(files)
    page = said("--hypotheses", files("H.txt", OWN), "--references", files("R.txt", REAL), "--without", "sorry")
    assert page.startswith("5 answers, 1 reference each\nwithout 'sorry': 1 dropped\n")
    assert f"bleu1 {found['bleu1']:20.4f}" in page and "-  needs --vectors FILE" in page
    assert found["signatures"]["bleu1"] in page.splitlines()


def test_odd_texts_give_numbers(files, vectors):  # noqa: F811
    draw = np.random.default_rng(5)
    words = [
        "a",
        "🙂👍🏽",
        "\u202e",
        "''",
        '"',
        "%s",
        "$",
        "\\",
        "<b>",
        "١٢",
        "ß",
        "İ",
        "cannot",
        ")",
        "fine",
        "\t",
        "x" * 3000,
    ]
    own, real = ([" ".join(draw.choice(words, draw.integers(0, 30))) for _ in range(200)] for _ in range(2))
    found = values(scored(files, "--vectors", vectors, own=own, real=real))
    assert all(value is None or np.isfinite(value) for value in found.values())
    assert found["bleu1"] > 0 and found["greedy"] > 0


SICK = {  # what is wrong -> (the file, what it holds, what is said)
    "fewer lines": ("R", REAL[:-1], "H.txt has 5 lines, but {R} has 4: line n of every file is item n"),
    "another second file": ("R2", [*REAL, "one more"], "H.txt has 5 lines, but {R2} has 6"),
    "empty": ("H", b"", "{H} is empty: expected a text file"),
    "Latin-1": (
        "R",
        "a\nna\u00efve\n".encode("latin1"),
        "{R}, line 2: byte 0xef is not UTF-8; if it is Latin-1",
    ),
    "UTF-16": ("H", "\n".join(OWN).encode("utf-16"), "{H} is UTF-16, expected UTF-8: `iconv"),
    "gzipped": ("R", b"\x1f\x8b\x08\x00rest", "{R} is gzipped, expected text: `gunzip"),
    "NUL": ("H", b"a\nb\0c\nd\n", "{H}, line 2: a NUL character, expected text"),
    "only blank": ("R", [" "] * 5, "{R}: every line is blank: expected a reference for each answer"),
    "NLL of other lines": ("N", NLL[:3], "H.txt has 5 lines, but {N} has 3"),
    "NLL no number": ("N", [*NLL[:4], "1 two"], "{N}, line 5: 'two' is no number"),
    "NLL not finite": ("N", [*NLL[:4], "inf"], "{N}, line 5: 'inf' is no number"),
    "log P": ("N", ["-1.5", *NLL[1:]], "{N}, line 1: -1.5 is below 0, expected -log P"),
    "NLL blank": ("N", [*NLL[:2], "", *NLL[3:]], "{N}, line 3 holds no number"),
    "NLL too large": ("N", ["99999"] * 5, "{N}: the mean of its values is 99999, expected natural logarithms"),
    "vectors": ("V", b"PK\x03\x04\xff\xfe\n", "{V} "),
}


@pytest.mark.parametrize("kind", SICK)
def test_a_file_that_cannot_be_scored_is_named_in_one_sentence(kind, files, tmp_path, capsys):
    name, content, wanted = SICK[kind]
    texts = {"H": OWN, "R": REAL, "N": NLL, "V": ["i 1 2", "am 2 1"]} | {name: content}
    paths = {each: files(f"{each}.txt", text) for each, text in texts.items()}
    flags = {"H": "--hypotheses", "R": "--references", "R2": "--references", "N": "--nll", "V": "--vectors"}
    with pytest.raises(SystemExit) as stop:
        cli.main(["score", "--json", *(word for each in texts for word in (flags[each], paths[each]))])
    out, err = capsys.readouterr()
    assert stop.value.code == 1 and out == ""
    assert wanted.format(**paths) in err and err.startswith("vikdf: ") and err.count("\n") == 1


@pytest.mark.parametrize("flag", ["--hypotheses", "--references", "--nll", "--vectors", "--encoder"])
def test_a_file_that_is_not_there_is_named(flag, files, tmp_path, capsys):
    given = {"--hypotheses": files("H.txt", OWN), "--references": files("R.txt", REAL)} | {flag: tmp_path / "gone"}
    with pytest.raises(SystemExit) as stop:
        cli.main(["score", *(str(word) for pair in given.items() for word in pair)])
    out, err = capsys.readouterr()
    assert (stop.value.code, out) == (1, "") and f"{tmp_path / 'gone'} " in err and err.count("\n") == 1


@pytest.mark.parametrize("name", ["folder.parquet", "H.txt"])
def test_examples_never_take_the_place_of_a_folder_or_of_a_text(name, files, tmp_path, capsys):
    (tmp_path / "folder.parquet").mkdir()
    (tmp_path / "folder.parquet/kept").write_text("x")
    with pytest.raises(SystemExit):
        scored(files, "--examples", tmp_path / name)
    assert f"{name}: expected a file whose name ends in .parquet" in capsys.readouterr().err
    assert (tmp_path / "folder.parquet/kept").exists() and (tmp_path / "H.txt").read_text().splitlines() == OWN


def test_a_filter_that_leaves_no_answer_is_said(files, capsys):
    with pytest.raises(SystemExit):
        scored(files, "--without", "fine", own=["fine"] * 5)
    assert "nothing is left to score" in capsys.readouterr().err
