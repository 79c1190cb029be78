"""The `vikdf` command: each answers at once or says in one sentence what is wrong."""

import socket

import pytest

from vikdf import cli, files


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


def test_verify_of_an_empty_folder_says_what_to_run(tmp_path, capsys):
    assert "snakemake --cores all" in fails(["verify", str(tmp_path)], capsys)


def test_a_busy_port_is_one_sentence(capsys):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        message = fails(["ui", "--port", str(port)], capsys)
    assert message.count("\n") == 1 and f"port {port} of 127.0.0.1 is in use" in message


def test_state_lists_finished_and_half_done_work(tmp_path, capsys):
    for name in ("a", "b"):
        (tmp_path / "pretrain" / name).mkdir(parents=True)
    files.write_json(tmp_path / "pretrain/a/product.json", {})
    cli.main(["state", str(tmp_path)])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("finished") and lines[1].startswith("half done")
