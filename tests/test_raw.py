"""raw: official files are fetched resumably, checked, and there as a whole or not at all; gated ones are asked for by hand."""

import errno
import gzip
import hashlib
import http.server
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import members
import pytest

from vikdf.corpora import raw
from vikdf.corpora.addresses import Limits

BODY = bytes(range(256)) * 4000  # 1,024,000 bytes
SHA256 = hashlib.sha256(BODY).hexdigest()


class Host(http.server.BaseHTTPRequestHandler):
    """A host whose path says how it fails; `asked` is what it was asked for."""

    asked: list[tuple[str, str | None]] = []
    bodies: dict[str, bytes] = {}
    tag = '"one"'

    def do_GET(self):
        what, span = self.path.strip("/"), self.headers.get("Range")
        Host.asked.append((what, span))
        times = [path for path, _ in Host.asked].count(what)
        body = Host.bodies.get(what, BODY)
        if what == "elsewhere":
            return self._say(302, b"", Location="/ranges")
        if what in ("private", "file"):
            return self._say(302, b"", Location={"private": "http://10.0.0.1/", "file": "file:///etc/passwd"}[what])
        if what == "gone" or what == "sick" and times == 1:
            return self._say(404 if what == "gone" else 503, b"")
        begin = int(span[6:-1]) if span and what != "no_ranges" else 0
        if span and self.headers.get("If-Range") not in (None, Host.tag):
            begin = 0
        if begin and begin >= len(body):
            return self._say(416, b"", **{"Content-Range": f"bytes */{len(body)}"})
        sent = body[begin:]
        code = 206 if begin else 200
        ranges = {"Content-Range": f"bytes {begin}-{len(body) - 1}/{len(body)}"} if begin else {}
        once = 300_000 if times == 1 else len(sent)
        cut = {"cut": 300_000, "shy": 300_000, "no_ranges": once, "once": once, "slow": 200_000, "stuck": 0}.get(
            what, len(sent)
        )
        tag = {} if not Host.tag or (what == "shy" and begin) else {"ETag": Host.tag}
        self._say(code, sent[:cut], length=len(sent), **tag, **ranges)
        if what == "slow" and times == 1:
            time.sleep(30)

    def _say(self, code: int, body: bytes, length: int | None = None, **headers):
        self.send_response(code)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body) if length is None else length))
        self.end_headers()
        self.wfile.write(body)
        self.wfile.flush()

    def log_message(self, *_):
        pass


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True


@pytest.fixture
def host(monkeypatch):
    server = Server(("127.0.0.1", 0), Host)
    Host.asked.clear()
    Host.bodies.clear()
    Host.tag = '"one"'
    monkeypatch.setattr(raw, "WAIT", 0.0)
    threading.Thread(target=server.serve_forever, args=[0.02], daemon=True).start()
    yield server.server_address[1]
    server.shutdown()
    server.server_close()


def obtain(tmp_path: Path, port: int, what: str, **entry) -> Path:
    path = tmp_path / "data/list.tsv"
    entry = {"url": f"http://127.0.0.1:{port}/{what}", "bytes": len(BODY)} | entry
    raw.obtain(path, entry, Limits(5, 10, 0, 0, port), tmp_path / "state")
    return path


def refused(tmp_path: Path, port: int, what: str, match: str, **entry) -> None:
    with pytest.raises(ValueError, match=match):
        obtain(tmp_path, port, what, **entry)
    assert not (tmp_path / "data/list.tsv").exists()
    assert not list((tmp_path / "data").glob(".*")) if (tmp_path / "data").exists() else True


def spans(what: str) -> list[str | None]:
    return [span for path, span in Host.asked if path == what]


def test_a_file_comes_whole_with_the_digest_that_was_stated(host, tmp_path):
    assert obtain(tmp_path, host, "ranges", sha256=SHA256).read_bytes() == BODY
    assert [path.name for path in (tmp_path / "data").iterdir()] == ["list.tsv"]


def test_a_cut_connection_is_taken_up_where_it_was_cut(host, tmp_path):
    assert obtain(tmp_path, host, "cut", sha256=SHA256).read_bytes() == BODY
    assert spans("cut") == [None, "bytes=300000-", "bytes=600000-", "bytes=900000-"]


def test_a_host_without_ranges_is_asked_for_the_whole_again(host, tmp_path):
    assert obtain(tmp_path, host, "no_ranges", sha256=SHA256).read_bytes() == BODY
    assert spans("no_ranges") == [None, "bytes=300000-"]


def test_a_file_that_changed_between_two_tries_is_not_patched_together(host, tmp_path, monkeypatch):
    def other_file(_):
        Host.tag, Host.bodies["cut"] = '"two"', BODY[::-1]

    monkeypatch.setattr(raw.time, "sleep", other_file)
    assert obtain(tmp_path, host, "cut").read_bytes() == BODY[::-1]


@pytest.mark.parametrize(("entry", "asked"), [({}, None), ({"sha256": SHA256}, "bytes=300000-")])
def test_what_no_version_and_no_digest_can_hold_together_is_begun_anew(host, tmp_path, entry, asked):
    Host.tag = ""
    assert obtain(tmp_path, host, "once", **entry).read_bytes() == BODY
    assert spans("once") == [None, asked]


@pytest.mark.parametrize(
    ("entry", "next_time", "now"),
    [
        ({}, "it begins anew", "asking for all of it anew"),
        ({"sha256": SHA256}, "it goes on from there", "asking for the rest"),
    ],
)
def test_a_file_that_will_be_begun_anew_says_so(host, tmp_path, monkeypatch, capsys, entry, next_time, now):
    Host.tag = ""
    monkeypatch.setattr(raw, "TRIES", 2)
    refused(tmp_path, host, "stuck", next_time, **entry)
    assert now in capsys.readouterr().err


def test_a_version_is_remembered_though_the_answer_to_a_range_leaves_it_out(host, tmp_path):
    assert obtain(tmp_path, host, "shy").read_bytes() == BODY
    assert spans("shy") == [None, "bytes=300000-", "bytes=600000-", "bytes=900000-"]


def test_a_host_s_own_words_cannot_steer_the_terminal(host, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(Host, "protocol_version", "\x1b[2J")
    refused(tmp_path, host, "ranges", "BadStatusLine")
    assert r"\x1b[2J" in (err := capsys.readouterr().err) and "\x1b" not in err


def test_a_host_that_is_sick_for_a_moment_is_asked_again(host, tmp_path):
    assert obtain(tmp_path, host, "sick").read_bytes() == BODY


def test_a_redirect_is_followed(host, tmp_path):
    assert obtain(tmp_path, host, "elsewhere").read_bytes() == BODY


@pytest.mark.parametrize(("what", "said"), [
    ("private", "refused_address: http://10.0.0.1/"),
    ("file", "refused_scheme"),
    ("gone", "answered 404"),
])  # fmt: skip
def test_what_cannot_be_fetched_is_said_in_one_sentence_and_asked_once(host, tmp_path, what, said):
    refused(tmp_path, host, what, said)
    assert spans(what) == [None]


def test_an_address_that_is_not_open_to_all_is_never_asked(tmp_path):
    with pytest.raises(ValueError, match="refused_address"):
        raw.raw(path=tmp_path / "x", entry={"url": "http://127.0.0.1:8/"}, timeout=1, state=tmp_path / "state")


def test_another_size_than_stated_is_refused_before_it_is_fetched(host, tmp_path):
    refused(tmp_path, host, "ranges", "has 1024000 bytes, expected 7", bytes=7)
    assert not list((tmp_path / "state").rglob("part"))


@pytest.mark.parametrize("kind", ["sha256", "md5"])
def test_another_digest_than_stated_is_refused_and_what_came_is_deleted(host, tmp_path, kind):
    refused(tmp_path, host, "ranges", f"{kind} is .*, expected 00", **{kind: "0" * (64 if kind == "sha256" else 32)})
    assert not list((tmp_path / "state").rglob("part"))


def test_where_no_size_is_known_what_the_host_announces_is_what_must_come(host, tmp_path):
    assert obtain(tmp_path, host, "cut", bytes=None).read_bytes() == BODY


def test_a_fetch_that_was_killed_goes_on_from_what_it_had(host, tmp_path):
    entry = json.dumps({"url": f"http://127.0.0.1:{host}/slow", "bytes": len(BODY), "sha256": SHA256})
    code = (
        "from vikdf.corpora import raw, addresses; import json, pathlib; "
        f"raw.obtain(pathlib.Path('data/list.tsv'), json.loads('''{entry}'''),"
        f" addresses.Limits(20, 20, 0, 0, {host}), pathlib.Path('state'))"
    )
    environment = os.environ | {"PYTHONPATH": str(Path(raw.__file__).parent.parent.parent)}
    process = subprocess.Popen([sys.executable, "-c", code], cwd=tmp_path, env=environment, stderr=subprocess.DEVNULL)
    while not any(path.stat().st_size == 200_000 for path in tmp_path.glob("state/raw/*/part")):
        time.sleep(0.05)
        assert process.poll() is None
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert obtain(tmp_path, host, "slow", sha256=SHA256).read_bytes() == BODY
    assert spans("slow")[:2] == [None, "bytes=200000-"]


def archive_of(kind: str, **files: bytes) -> bytes:
    return members.zipped(files) if kind == "zip" else members.tar(files, "w:gz")


@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_a_list_is_taken_out_of_the_archive_that_holds_it_and_the_archive_is_fetched_once(host, tmp_path, kind):
    Host.bodies["archive"] = archive_of(kind, **{"a/train.json": b"[1]", "../../valid.json": b"[2]"})
    path = obtain(tmp_path, host, "archive", bytes=None, member="a/train.json")
    assert path.read_bytes() == b"[1]"
    path.unlink()
    assert obtain(tmp_path, host, "archive", bytes=None, member="valid.json").read_bytes() == b"[2]"
    assert len(Host.asked) == 1 and not (tmp_path.parent / "valid.json").exists()


@pytest.mark.parametrize(("body", "said"), [
    (archive_of("zip", other=b"x"), "holds no list.json; it holds other"),
    (archive_of("tar", other=b"x")[:-20], "cannot be unpacked"),
    (b"no archive", "cannot be unpacked"),
    (archive_of("zip", **{"list.json": bytes(80_000_000)}), "unpacks to more than"),
    (gzip.compress(b"no tar"), "cannot be unpacked"),
])  # fmt: skip
def test_an_archive_that_does_not_hold_the_list_is_named(host, tmp_path, body, said):
    Host.bodies["archive"] = body
    refused(tmp_path, host, "archive", said, bytes=None, member="list.json")


def test_a_file_for_another_disk_is_copied_there_whole(host, tmp_path, monkeypatch):
    replace = os.replace

    def other_disk(source, target):
        if Path(source).name == "whole":
            raise OSError(errno.EXDEV, "another disk")
        replace(source, target)

    monkeypatch.setattr(raw.os, "replace", other_disk)
    assert obtain(tmp_path, host, "ranges", sha256=SHA256).read_bytes() == BODY
    assert not list((tmp_path / "state").rglob("whole"))
