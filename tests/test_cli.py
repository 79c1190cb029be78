"""The `vikdf` command: each answers at once or says in one sentence what is wrong."""

import argparse
import io
import shlex
import socket

import numpy as np
import pytest
from PIL import Image
from test_finetune import pretrained  # noqa: F401 - fixture

import vikdf
from vikdf import cli, files, kept, recover, verify


def fails(words, capsys) -> str:
    with pytest.raises(SystemExit) as stop:
        cli.main(words)
    assert stop.value.code == 1
    return capsys.readouterr().err


def test_the_shipped_params_are_valid(capsys):
    cli.main(["validate", "params.yaml"])
    assert "params.yaml" in capsys.readouterr().out


def test_a_missing_params_file_is_named_with_its_cure(capsys):
    assert "nowhere.yaml is missing: copy one from presets/" in fails(["validate", "nowhere.yaml"], capsys)


def test_verify_names_the_file_that_is_missing_and_the_one_that_changed(tmp_path, capsys):
    (tmp_path / "00000.tar").write_bytes(b"one")
    (tmp_path / "00001.tar").write_bytes(b"two")
    digests = {path.name: {"sha256": files.sha256(path)} for path in tmp_path.glob("*.tar")}
    files.write_json(tmp_path / "manifest.json", {"files": digests})
    cli.main(["verify", str(tmp_path)])
    (tmp_path / "00000.tar").unlink()
    (tmp_path / "00001.tar").write_bytes(b"twO")
    message = fails(["verify", str(tmp_path)], capsys)
    assert "00000.tar is missing" in message and "00001.tar has changed" in message and "cure: rm" in message


def test_verify_reads_the_manifest_of_a_model_and_of_tables(tmp_path, capsys):
    model, tables = tmp_path / "clip", tmp_path / "sources"
    for folder in (model, tables):
        folder.mkdir()
    (model / "weights.safetensors").write_bytes(b"weights")
    files.write_json(model / "manifest.json", {"form": "clip", "sha256": files.sha256(model)})
    (tables / "coco.parquet").write_bytes(b"rows")
    digest = files.sha256(tables / "coco.parquet")
    files.write_json(tables / "manifest.json", {"sources": {"coco": {"rows": 1, "sha256": digest}}})
    cli.main(["verify", str(tmp_path)])
    (model / "weights.safetensors").write_bytes(b"other")
    (tables / "coco.parquet").unlink()
    message = fails(["verify", str(tmp_path)], capsys)
    assert f"{model} has changed" in message and "coco.parquet is missing" in message


@pytest.mark.parametrize("text", [
    "[]", "5", "null", '"x"', "{}", "{", '{"files": null}', '{"files": ["00000.tar"]}', '{"files": 5, "sha256": {}}',
    '{"sha256": null}', '{"sha256": 5}', '{"sha256": []}', '{"files": "index.parquet"}', '{"files": {"index.parquet": null}}',
])  # fmt: skip
def test_verify_names_a_manifest_that_is_none_and_looks_at_the_others(text, tmp_path, capsys):
    (tmp_path / "a").mkdir()
    (tmp_path / "a/manifest.json").write_text(text)
    files.write_json(tmp_path / "b/manifest.json", {"sha256": {"gone.txt": "0"}})
    message = fails(["verify", str(tmp_path)], capsys)
    assert message.count(f"  {tmp_path / 'a/manifest.json'} ") == 1 and "b/gone.txt is missing" in message
    (tmp_path / "b/manifest.json").unlink()
    assert fails(["verify", str(tmp_path)], capsys).count("\n") == 3  # a heading, the sentence and the cure


def test_verify_of_an_empty_folder_says_what_to_run(tmp_path, capsys):
    assert "snakemake --cores all" in fails(["verify", str(tmp_path)], capsys)


@pytest.mark.parametrize("command", ["verify", "index"])
def test_a_folder_that_is_not_there_is_named(tmp_path, capsys, command):
    assert f"{tmp_path / 'none'} is missing" in fails([command, str(tmp_path / "none")], capsys)
    (tmp_path / "file").touch()
    assert f"{tmp_path / 'file'} is no folder" in fails([command, str(tmp_path / "file")], capsys)


def test_a_busy_port_is_one_sentence(capsys):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        message = fails(["ui", "--port", str(port)], capsys)
    assert message.count("\n") == 1 and f"port {port} of 127.0.0.1 is in use" in message


@pytest.fixture
def use(pretrained, backbones):  # noqa: F811
    """(command, *words) -> the command line over a saved model, and the model itself."""
    root = str(backbones["llm"].parent)

    def used(command: str, *words: str) -> vikdf.VIKDF:
        cli.main([command, str(pretrained), *words, "--backbones", root])
        return vikdf.VIKDF.from_pretrained(pretrained, backbones=root)

    return used


def test_reply_and_textualize_print_what_the_model_says(use, capsys):
    model = use("reply", "hello there", "what colour is it ?")
    assert capsys.readouterr().out == model.reply(["hello there", "what colour is it ?"]) + "\n"
    use("textualize", "hello there", "what colour is it ?")
    assert capsys.readouterr().out == model.textualize(["hello there", "what colour is it ?"]) + "\n"


def test_without_a_text_reply_is_a_chat_and_an_empty_line_begins_a_new_dialogue(use, capsys, monkeypatch):
    monkeypatch.setattr("sys.stdin", io.StringIO("hello there\nwhat is it ?\n\nwhat is it ?\n"))
    model = use("reply")
    first = model.reply("hello there")
    said = [first, model.reply(["hello there", first, "what is it ?"]), model.reply("what is it ?")]
    assert capsys.readouterr().out == "".join(f"{text}\n" for text in said)


def test_a_long_chat_forgets_its_oldest_exchanges_and_goes_on(use, capsys, monkeypatch):
    monkeypatch.setattr("sys.stdin", io.StringIO("what colour is the kettle and the vase ?\n" * 12))
    use("reply")
    assert capsys.readouterr().out.count("\n") == 12  # 12 turns and answers are more than its 256 positions


def test_a_line_that_is_too_long_for_a_chat_is_told_and_dropped_and_the_dialogue_goes_on(use, capsys, monkeypatch):
    monkeypatch.setattr("sys.stdin", io.StringIO(f"hello there\n{'red ' * 300}\nwhat is it ?\n"))
    model = use("reply")
    first, shown = model.reply("hello there"), capsys.readouterr()
    assert shown.out == f"{first}\n{model.reply(['hello there', first, 'what is it ?'])}\n"
    assert shown.err.count("too long") == 1 and "shorten it" in shown.err


def test_draw_writes_a_png_of_clips_size_and_nothing_beside_it(use, tmp_path, capsys):
    model = use("draw", "hello there", "a vase", "--output", str(tmp_path / "new/vase.png"))
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["vase.png"]
    with Image.open(tmp_path / "new/vase.png") as picture:
        assert (picture.format, picture.mode, picture.size) == ("PNG", "RGB", (48, 48))
        assert np.array_equal(np.asarray(picture), np.asarray(model.draw(["hello there", "a vase"])))
    assert "vase.png: 48 x 48 pixels" in capsys.readouterr().out


def test_draw_refuses_a_name_that_is_no_png(tmp_path, capsys):
    message = fails(["draw", str(tmp_path), "hello", "--output", "kettle.jpg"], capsys)
    assert message == "vikdf: --output is kettle.jpg: expected a name that ends in .png\n"


@pytest.mark.parametrize("command", ["reply", "textualize", "draw"])
def test_a_folder_without_a_model_or_without_its_frozen_parts_is_one_sentence(command, pretrained, tmp_path, capsys):  # noqa: F811
    more = ["hello", *(["--output", str(tmp_path / "k.png")] if command == "draw" else [])]
    message = fails([command, str(tmp_path), *more], capsys)
    assert message.count("\n") == 1 and "holds no checkpoint" in message
    message = fails([command, str(pretrained), *more, "--backbones", str(tmp_path)], capsys)
    assert message.count("\n") == 1 and f"{tmp_path} has no folder" in message and "--backbones FOLDER" in message
    assert not (tmp_path / "k.png").exists()


@pytest.mark.parametrize(("command", "given"), [
    ("reply", "results/finetune/vikdf-zero-s1"), ("textualize", "results/finetune/vikdf-zero-s1"),
    ("draw", "results/pretrain/vikdf-s1"), ("plan", "presets/paper.yaml --gpu rtx4090 --micro-batch 4"),
])  # fmt: skip
def test_the_help_of_a_command_shows_it_in_use(command, given, capsys):
    with pytest.raises(SystemExit):
        cli.main([command, "--help"])
    assert f"examples\n  vikdf {command} {given}" in capsys.readouterr().out


def parsers(one: argparse.ArgumentParser) -> list[argparse.ArgumentParser]:
    below = [each for action in one._actions if isinstance(action.choices, dict) for each in action.choices.values()]
    return [one, *(found for each in below for found in parsers(each))]


@pytest.mark.parametrize("one", parsers(cli.parser()), ids=lambda one: one.prog)
def test_every_word_and_flag_of_a_command_is_told_in_its_help(one):
    silent = [action.dest for action in one._actions if not action.help and not isinstance(action.choices, dict)]
    assert silent == []


@pytest.mark.parametrize("text", [cli.EXAMPLES, cli.INDEX, cli.PLAN, kept.MORE, verify.MORE, recover.MORE])
def test_every_example_of_the_help_can_be_typed(text):
    lines = [line for line in text.splitlines() if line.startswith("  vikdf ")]
    assert lines and [cli.parser().parse_args(shlex.split(line.strip().split("   ")[0])[1:]) for line in lines]


@pytest.mark.parametrize("command,told", [("verify", "Every file is read once"), ("index", "They are not changed")])
def test_the_help_says_what_a_command_does_to_the_files(command, told, capsys):
    with pytest.raises(SystemExit):
        cli.main([command, "--help"])
    assert told in capsys.readouterr().out


def test_the_help_of_index_says_what_it_writes(capsys):
    with pytest.raises(SystemExit):
        cli.main(["index", "--help"])
    said = capsys.readouterr().out
    assert "index.parquet" in said and "manifest.json" in said and "vikdf index images/" in said


@pytest.mark.parametrize("command", ["verify", "state"])
def test_the_help_of_what_looks_around_has_an_example(command, capsys):
    with pytest.raises(SystemExit):
        cli.main([command, "--help"])
    assert f"examples\n  vikdf {command} " in capsys.readouterr().out
