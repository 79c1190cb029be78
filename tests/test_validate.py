"""validate: what is wrong in a file of pairs or dialogues, line by line, and the exit status that follows."""

import gc
import io
import json
import shlex
import subprocess
import sys
import tarfile
import warnings
from pathlib import Path

import pytest
from PIL import Image

from vikdf import cli, validate
from vikdf.corpora import guess, pairs, talks

SHARED = Path(__file__).resolve().parent.parent.parent / "shared/data"
GOOD = {"context": ["hi", "hello"], "response": "how are you?"}
LIST = "a red kettle on a table\thttp://example.com/1.jpg\na blue vase\thttps://example.org/2.jpg\n"


def sample(name: str) -> str:
    if not (SHARED / name).exists():
        pytest.skip(f"no real sample here: {SHARED / name}")
    return str(SHARED / name)


def asked(capsys, *words) -> tuple[int, str, str]:
    """(exit status, what was printed, what was said of errors) of the command."""
    status = 0
    try:
        cli.main(["validate", *map(str, words)])
    except SystemExit as stop:
        status = stop.code
    printed = capsys.readouterr()
    return status, printed.out, printed.err


def write(path: Path, rows: list) -> Path:
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return path


def picture() -> bytes:
    made = io.BytesIO()
    Image.new("RGB", (40, 40), "red").save(made, "PNG")
    return made.getvalue()


def test_a_bad_row_is_shown_with_its_file_line_reason_and_value(tmp_path, capsys):
    path = write(tmp_path / "a.jsonl", [GOOD, {"context": ["hi", ""], "response": "x"}, "no json", GOOD])
    status, out, err = asked(capsys, path)
    assert status == 1
    assert f'{path}:2: empty_turn: ["hi", "", "x"]' in out
    assert f"{path}:3: not_json: no json" in out
    assert "4 rows, 2 good, 2 bad" in out
    assert "2 of 4 rows are bad (50.00%), more than --tolerance 0 allows" in err


def test_a_sound_file_says_how_many_turns_its_contexts_have(tmp_path, capsys):
    path = write(tmp_path / "a.jsonl", [GOOD, GOOD, GOOD | {"context": ["hi"]}])
    status, out, _ = asked(capsys, path)
    assert status == 0 and "read as `reddit` (guessed: its columns are context, response" in out
    assert "turns of context  1: 1, 2: 2" in out and "longest turn  12 characters" in out


@pytest.mark.parametrize("tolerance,status", [("0.1", 0), ("0.09", 1), ("1", 0)])
def test_the_exit_status_follows_the_tolerance(tmp_path, capsys, tolerance, status):
    path = write(tmp_path / "a.jsonl", [GOOD] * 9 + ["no json"])
    assert asked(capsys, path, "--tolerance", tolerance)[0] == status


def test_no_more_bad_rows_are_shown_than_asked_for_but_all_are_counted(tmp_path, capsys):
    path = write(tmp_path / "a.jsonl", [GOOD] + ["no json"] * 50)
    _, out, _ = asked(capsys, path, "--show", "3")
    assert out.count(": not_json: ") == 3 and "47 more bad rows are not shown" in out and "50 not_json" in out


def test_what_is_shown_is_short_and_cannot_steer_a_terminal(tmp_path, capsys):
    evil = {"context": ["\x1b[31m \x9b2J \u202e" + "x" * 9000, ""], "response": "c"}
    _, out, _ = asked(capsys, write(tmp_path / "a.jsonl", [GOOD, evil]))
    line = next(line for line in out.splitlines() if "empty_turn" in line)
    assert line.isprintable() and "u001b[31m" in line and len(line) < len(str(tmp_path)) + 200


def test_several_files_are_all_read_before_the_exit_status_is_given(tmp_path, capsys):
    bad, good = write(tmp_path / "bad.jsonl", [GOOD, "x"]), write(tmp_path / "good.jsonl", [GOOD])
    status, out, err = asked(capsys, bad, good, tmp_path / "none.jsonl")
    assert status == 1 and f"{good}: 1 rows, 1 good, 0 bad" in out
    assert f"{bad}: 1 of 2" in err and "none.jsonl is missing" in err


@pytest.mark.parametrize(
    "rows,form",
    [
        ([GOOD], {"form": "reddit"}),
        ([{"dialog": [["Happy", "a"], ["Sad", "b"]]}], {"form": "image_chat"}),
        ([GOOD | {"probe": {"noun": "vase"}}], {"form": "probe"}),
        ([{"id": 3, "turns": ["a", "b", "c"]}], {"form": "turns", "columns": "turns"}),
        ([{"turn_1": "a", "turn_2": "b"}], {"form": "turns", "columns": ["turn_1", "turn_2"]}),
        ([{"question": "a", "answer": "b"}], {"form": "turns", "columns": ["question", "answer"]}),
        ([{"URL": "http://a.org/b.jpg", "TEXT": "a"}], {"form": "list", "url": "URL", "caption": "TEXT"}),
    ],
)
def test_the_form_of_a_table_is_guessed_from_its_columns(tmp_path, rows, form):
    entry, _ = guess.entry_of(write(tmp_path / "a.jsonl", rows))
    assert {name: value for name, value in entry.items() if name != "list"} == form


@pytest.mark.parametrize(
    "name,text,form",
    [
        ("a.tsv", LIST, "cc3m"),
        ("a.tsv", "http://example.com/1.jpg\ta red kettle\n", "cc12m"),
        ("a.csv", "http://example.com/1.jpg,a red kettle\n", "list"),
        ("a.json", '{"image_urls": ["http://a.org/1.jpg"], "captions": ["a"]}', "sbu"),
        ("a.json", '{"images": [], "annotations": []}', "coco"),
        ("a.csv", "context,response\nhi,hello\n", "turns"),
    ],
)
def test_the_form_of_a_published_file_is_guessed_from_its_beginning(tmp_path, name, text, form):
    (tmp_path / name).write_text(text)
    assert guess.entry_of(tmp_path / name)[0]["form"] == form


@pytest.mark.parametrize("text", ["x\ty\n1\t2\n", "\x01\x02\n\x03\n"])
def test_what_cannot_be_guessed_names_the_flags_that_settle_it(tmp_path, capsys, text):
    (tmp_path / "a.tsv").write_text(text)
    status, _, err = asked(capsys, tmp_path / "a.tsv")
    assert status == 1 and "--form" in err and "--columns" in err


def test_columns_may_be_said(tmp_path, capsys):
    (tmp_path / "a.tsv").write_text("hi EOS hello\tbye\n")
    status, out, _ = asked(capsys, tmp_path / "a.tsv", "--columns", "0,1", "--separator", " EOS ")
    assert status == 0 and "turns of context  2: 1" in out


@pytest.mark.parametrize(
    "words,said",
    [
        (["--form", "reddit", "--turns", "all"], "the form `reddit` does not know --turns"),
        (["--form", "turns"], "the form `turns` needs --columns"),
        (["--form", "list"], "the form `list` needs --url"),
        (["--form", "chat"], "unknown form 'chat': expected one of reddit"),
        (["--tolerance", "5"], "--tolerance is 5.0, expected a share from 0 to 1"),
    ],
)
def test_a_flag_that_does_not_fit_is_named(tmp_path, capsys, words, said):
    status, _, err = asked(capsys, write(tmp_path / "a.jsonl", [GOOD]), *words)
    assert status == 1 and said in err


def test_a_flag_before_the_file_does_not_swallow_it(tmp_path, capsys):
    (tmp_path / "a.tsv").write_text("hi\tbye\n")
    status, out, _ = asked(capsys, "--columns", "0,1", "--context-turns", "1", tmp_path / "a.tsv")
    assert status == 0 and "a.tsv: 1 rows, 1 good" in out


def test_addresses_are_checked_and_not_asked_for(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("socket.socket.connect", lambda *_: pytest.fail("nothing may be asked for"))
    monkeypatch.setattr("socket.getaddrinfo", lambda *_, **__: pytest.fail("no name may be looked up"))
    bad = "a cat\tftp://example.com/3.jpg\na dog\thttp://127.0.0.1/4.jpg\na cow\tnowhere\n \thttp://example.com/5.jpg\n"
    (tmp_path / "a.tsv").write_text(LIST + bad)
    status, out, _ = asked(capsys, tmp_path / "a.tsv")
    assert status == 1 and "6 rows, 2 good, 4 bad" in out and "may be asked for: 3" in out
    for line, reason in enumerate(["refused_scheme", "refused_address", "bad_url", "no_caption"], 3):
        assert f"a.tsv:{line}: {reason}: " in out


def test_the_lists_of_the_embedded_world_are_good_at_the_port_of_its_web_alone(tmp_path, capsys):
    (tmp_path / "a.tsv").write_text("a cat\thttp://127.0.0.1:8765/1.jpg\na dog\thttp://127.0.0.1:8766/2.jpg\n")
    status, out, _ = asked(capsys, tmp_path / "a.tsv")
    assert status == 1 and "0 good, 2 bad" in out and "those of the embedded world are good with --port" in out
    status, out, _ = asked(capsys, tmp_path / "a.tsv", "--port", "8765")
    assert status == 1 and "1 good, 1 bad" in out and "a.tsv:2: refused_address: http://127.0.0.1:8766/2.jpg" in out


def test_the_file_whose_lines_are_shown_is_closed(tmp_path, capsys):
    path = write(tmp_path / "a.jsonl", [GOOD, "no json"])
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", ResourceWarning)
        assert "2: not_json: no json" in asked(capsys, path)[1]
        gc.collect()
    assert [str(each.message) for each in caught if each.category is ResourceWarning] == []


def test_pictures_of_a_folder_and_of_a_tar_are_read(tmp_path, capsys):
    folder = tmp_path / "pictures"
    folder.mkdir()
    for name, data, text in (("a.png", picture(), "a red square"), ("b.png", picture()[:60], "broken")):
        (folder / name).write_bytes(data)
        (folder / name.replace("png", "txt")).write_text(text)
    with tarfile.open(tmp_path / "shard.tar", "w") as tar:
        for path in sorted(folder.iterdir()):
            tar.add(path, path.name)
    for path in (folder, tmp_path / "shard.tar"):
        status, out, _ = asked(capsys, path)
        assert status == 1 and "2 rows, 1 good, 1 bad" in out and ": broken: broken" in out and "here: 1" in out


def test_hostile_bytes_are_counted_and_never_a_traceback(tmp_path, capsys):
    lines = [json.dumps(GOOD).encode()] * 30 + [
        b"\0\0",
        b"\xff\xfe",
        b"[" * 200_000,
        b'"' + b"x" * 10_000_000 + b'"',
        b"",
    ]
    (tmp_path / "a.jsonl").write_bytes(b"\n".join(lines) + b"\n")
    status, out, _ = asked(capsys, tmp_path / "a.jsonl")
    assert status == 1 and "35 rows, 30 good, 5 bad" in out
    for reason in ("nul_bytes", "not_utf8", "too_deep", "too_long", "empty"):
        assert f" 1 {reason}" in out


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="only Linux tells what a process took at most")
def test_a_file_larger_than_the_memory_that_it_may_take_is_read(tmp_path):
    row = json.dumps({"context": ["x" * 4000, "hi"], "response": "y"}) + "\n"
    with open(tmp_path / "large.jsonl", "w") as stream:
        for _ in range(20):
            stream.write(row * 1000)  # 80 MB in all
    code = (
        "import sys; from pathlib import Path; from vikdf.validate import validate;"
        "validate([Path(sys.argv[1])], {'form': 'reddit'});"
        "print(Path('/proc/self/status').read_text().split('VmHWM:')[1].split()[0])"
    )
    words = [sys.executable, "-c", code, str(tmp_path / "large.jsonl")]
    done = subprocess.run(words, capture_output=True, text=True, check=True).stdout
    assert "20000 rows, 20000 good" in done
    assert int(done.split()[-1]) < 150_000  # KiB; a process that only imports the modules takes some 65,000


def test_the_real_lists_and_dialogues_are_what_they_say(capsys):
    names = {
        "image_chat/valid.json": 5000,
        "reddit_stylefusion/train.json": 7652,
        "img2dataset_sample/test_1000.parquet": 1000,
    }
    names |= {"cc3m/Validation_GCC-1.1.0-Validation.tsv": 15833, "cc12m_sample/cc12m.tsv": 5}
    status, out, err = asked(capsys, *[sample(name) for name in names], "--tolerance", "0.01")
    assert status == 0, err
    for name, count in names.items():
        assert f"{name}: {count} rows, " in out


@pytest.mark.parametrize("header", ["\x1b[2J,x", "url,caption,\x1b[2J\u202e", '"url","caption","\n\x1b[2J"'])
def test_what_a_header_says_cannot_steer_the_terminal(header, tmp_path, capsys):
    (tmp_path / "a.csv").write_text(header + "\n" + "a,b,c\n"[: 2 * header.count(",") + 1] + "\n")
    for flags in ([], ["--url", "lost", "--caption", "x"]):
        _, out, err = asked(capsys, tmp_path / "a.csv", *flags)
        assert r"\x1b[2J" in out + err and "\x1b" not in out + err and "\u202e" not in out + err


def test_every_form_is_named_in_the_help(capsys):
    with pytest.raises(SystemExit):
        cli.main(["validate", "--help"])
    said = capsys.readouterr().out
    assert [form for form in {**talks.FORMS, **pairs.FORMS} if form not in said] == []


@pytest.mark.parametrize("example", [line for line in validate.HELP.splitlines() if line.startswith("  vikdf ")])
def test_the_examples_of_the_help_can_be_typed(example):
    words = shlex.split(example.split("   ")[0].strip())
    assert cli.parser().parse_args(words[1:]).does is validate.run


def album(folder: Path) -> Path:
    """A folder of two pictures and the table that captions them, as data/README.md has it."""
    folder.mkdir()
    for name in "ab":
        (folder / f"{name}.png").write_bytes(picture())
    (folder / "captions.csv").write_text("file_name,text\na.png,a red square\nb.png,the same again\n")
    return folder


def test_a_folder_with_a_table_of_other_columns_is_read_as_the_flags_say(tmp_path, capsys):
    folder = album(tmp_path / "album")
    words = ["--captions", folder / "captions.csv", "--file", "file_name", "--caption", "text"]
    status, out, err = asked(capsys, folder, *words)
    assert status == 0 and "read as `folder`" in out and "2 rows, 2 good, 0 bad" in out, err


def test_a_folder_without_captions_and_with_a_table_hints_at_the_flags(tmp_path, capsys):
    folder = album(tmp_path / "album")
    status, out, _ = asked(capsys, folder)
    hint = f"vikdf validate {folder} --captions {folder}/captions.csv --file COLUMN --caption COLUMN"
    assert status == 1 and "2 no_caption" in out and hint in out
    (folder / "captions.csv").unlink()
    assert "--captions" not in asked(capsys, folder)[1]


TURNS, CHAT = {"turns": ["a", "b"]}, {"dialog": [["Happy", "a"], ["Sad", "b"]]}


@pytest.mark.parametrize("bad", [{"oops": 1}, {"turns": "no list", "dialog": "none"}, "no json"])
@pytest.mark.parametrize(
    "good,form", [(TURNS, "turns"), (CHAT, "image_chat"), (GOOD | {"probe": {"noun": "v"}}, "probe")]
)
def test_a_few_bad_rows_at_the_beginning_do_not_spoil_the_guess(tmp_path, good, bad, form):
    assert guess.entry_of(write(tmp_path / "a.jsonl", [bad] + [good] * 4))[0]["form"] == form


def test_a_list_whose_first_line_is_endless_is_guessed_by_its_next_or_names_the_flag(tmp_path):
    path = write(tmp_path / "a.tsv", ["x" * 10_000_000, *LIST.splitlines()])
    assert guess.entry_of(path)[0]["form"] == "cc3m"
    with pytest.raises(ValueError, match="its first line is too_long.*--form"):
        guess.entry_of(write(tmp_path / "b.tsv", ["x" * 10_000_000]))


@pytest.mark.parametrize("name", ["x.tar.gz", "x.tgz", "x.tar.zst"])
def test_a_packed_tar_is_refused_with_what_unpacks_it(tmp_path, capsys, name):
    (tmp_path / name).write_bytes(b"x")
    status, _, err = asked(capsys, tmp_path / name)
    assert status == 1 and "unpack it into a new folder, `tar -xf" in err


@pytest.mark.parametrize(
    "words,said", [("--context-turns a", "'a' is no list of numbers"), ("--show=-1", "'-1' is no number")]
)
def test_a_number_that_is_none_is_named(capsys, words, said):
    with pytest.raises(SystemExit):
        cli.main(["validate", *words.split()])
    assert said in capsys.readouterr().err
