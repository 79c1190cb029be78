"""fetch: passes, resumption, bounds a host, a look beforehand and a stop; what becomes of every url is counted."""

import collections
import dataclasses
import io
import os
import signal
import subprocess
import sys
import threading
import time
import types
import xml.etree.ElementTree
from collections import Counter
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from PIL import Image
from rough_web import rough_web, said, to

from vikdf import schemas
from vikdf.corpora import failures, fetch, lists, preflight, progress
from vikdf.corpora.fetch import FETCHED, URLS, List, Manner, Worker, answers
from vikdf.corpora.hosts import Turns


def picture() -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (8, 8), "red").save(stream, "PNG")
    return stream.getvalue()


def sound(line, n):
    line.sendall(said(body=picture()))


def later(times: int, status: str = "503 Busy", **headers):
    """Refuses so many times, then gives a picture."""
    return lambda line, n: line.sendall(said(status, **headers) if n < times else said(body=picture()))


def given(web, folder: Path, paths: list[str], per_shard: int = 4, name: str = "list") -> List:
    rows = [{"id": f"{number:03d}", "url": web.url(path)} for number, path in enumerate(paths)]
    schemas.write(rows, folder / f"{name}.parquet", URLS)
    return List(name, folder / f"{name}.parquet", folder / name, per_shard)


def worker(web, threads: int = 4, per_host: int = 4, **limits) -> Worker:
    return Worker(web.limits(**limits), threads, 4, per_host, "me@example.org")


MANNER = Manner("multiprocessing", processes=1, back_off=0, min_success=0)


@pytest.fixture
def in_process(monkeypatch):
    """img2dataset's workers without a process of their own, which takes three CPU seconds to start."""
    import img2dataset.distributor

    monkeypatch.setattr(
        img2dataset.distributor, "multiprocessing_distributor", lambda _, work, rows, *__: [work(row) for row in rows]
    )


@pytest.fixture(autouse=True)
def as_it_was(monkeypatch):
    """A worker replaces these in its process, which here is also that of the next test."""
    import img2dataset.distributor
    import img2dataset.downloader

    for module, name in ((img2dataset.downloader, "download_image"), (img2dataset.distributor, "tqdm")):
        monkeypatch.setattr(module, name, getattr(module, name))


def test_only_what_may_pass_is_asked_again_and_pass_after_pass(tmp_path, monkeypatch, in_process):
    waited = []
    monkeypatch.setattr(fetch.time, "sleep", waited.append)
    answered = {
        "/ok": sound,
        "/once": later(1),
        "/twice": later(2, "429 Slow", Retry_After="7"),
        "/never": later(9, "500 Sick"),
        "/tired": later(1, "503 Busy", Retry_After="86400"),
        "/gone": later(1, "404 Not Found"),
        "/past": later(1, "410 Gone"),
        "/no": lambda line, n: line.sendall(said(body=picture(), X_Robots_Tag="noai")),
    }
    with rough_web(answered) as web:
        one = given(web, tmp_path, list(answered))
        fetch.fetch([one], worker(web), 3, dataclasses.replace(MANNER, back_off=5))
        table = list(answers(one, 3))
        times = dict(web.asked)
    assert [(row["id"], row["status"], row["pass"]) for row in table] == [
        ("000", "ok", 1),
        ("001", "ok", 2),
        ("002", "ok", 3),
        ("003", "http_500", 3),
        ("004", "http_503", 1),
        ("005", "http_404", 1),
        ("006", "http_410", 1),
        ("007", "opt_out", 1),
    ]
    assert times == {"/ok": 1, "/once": 2, "/twice": 3, "/never": 3, "/tired": 1, "/gone": 1, "/past": 1, "/no": 1}
    assert waited == [7, 10], "what the host asked for, then the doubled pause"
    assert table[0]["image"] == picture() and list(table[0]) == FETCHED.names


def test_finished_shards_that_are_harmed_are_fetched_again_and_no_others(tmp_path, capfd):
    paths = [f"/{number}" for number in range(16)]
    with rough_web(dict.fromkeys(paths, sound)) as web:
        one = given(web, tmp_path, paths)
        fetch.fetch([one], worker(web), 1, MANNER)
        before = list(answers(one, 1))
        hit, gone, doubted = (one.of(1)[1] / f"0000{number}.parquet" for number in range(3))
        kept = bytearray(hit.read_bytes())
        kept[len(kept) // 2] ^= 1
        hit.write_bytes(kept)
        gone.unlink()
        doubted.with_suffix(".sha256").write_bytes(b"\xff")
        fetch.fetch([one], worker(web), 1, MANNER)
        assert [web.asked[path] for path in paths] == [2] * 12 + [1] * 4
    assert list(answers(one, 1)) == before
    assert capfd.readouterr().err.count("is damaged: it is fetched again") == 3


@pytest.mark.parametrize("killed_at", [None, 0, 1, 2])
def test_a_harmed_shard_takes_the_later_passes_with_it_wherever_a_kill_comes(
    tmp_path, monkeypatch, in_process, killed_at
):
    """What failed at first is sound when it is asked again, and the other way round: the old second pass is another list's."""
    with rough_web({"/once": later(1), "/swapped": lambda line, n: later(n == 1)(line, 0), "/ok": sound}) as web:
        one = given(web, tmp_path, ["/once", "/swapped", "/ok"])
        fetch.fetch([one], worker(web), 2, MANNER)
        assert [row["pass"] for row in answers(one, 2)] == [2, 1, 1]
        shard = one.of(1)[1] / "00000.parquet"
        shard.write_bytes(shard.read_bytes()[:-9])
        if killed_at is not None:
            with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
                kill_at(killed_at, patch)
                one.drop_harmed(2)
        fetch.fetch([one], worker(web), 2, MANNER)
        last = [(row["id"], row["pass"]) for row in answers(one, 2) if row["image"]]
        assert last == [("000", 1), ("001", 2), ("002", 1)]
        one.of(2)[0].write_bytes(one.of(2)[0].read_bytes()[:-9])
        before = dict(web.asked)
        fetch.fetch([one], worker(web), 2, MANNER)  # the list alone was cut: it is written anew, and nobody is asked
        assert web.asked == before and [row["pass"] for row in answers(one, 2)] == [1, 2, 1]


def kill_at(which: int, patch) -> None:
    """The process dies as it is about to delete for the so many-th time."""
    left = iter([False] * which + [True])
    for module, name in ((lists.shutil, "rmtree"), (Path, "unlink")):
        real = getattr(module, name)

        def deletes(*given, real=real, **how):
            if next(left):
                raise KeyboardInterrupt
            real(*given, **how)

        patch.setattr(module, name, deletes)


STEP = """
import pathlib, sys
from vikdf.corpora.addresses import Limits
from vikdf.corpora import fetch
if __name__ == "__main__":
    port, folder = int(sys.argv[1]), pathlib.Path(sys.argv[2])
    one = fetch.List("list", folder / "list.parquet", folder / "list", 4)
    worker = fetch.Worker(Limits(2.0, 4.0, 50_000, 1_000_000, port), 2, 4, 4, "")
    fetch.fetch([one], worker, 1, fetch.Manner("multiprocessing", 1, 0, 0))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_killed_fetch_goes_on_and_asks_no_finished_shard_again(tmp_path):
    held = threading.Event()
    paths = [f"/{number}" for number in range(12)]

    def last(line, n):
        if n == 0:
            held.wait(20)
        sound(line, n)

    with rough_web(dict.fromkeys(paths, sound) | {"/6": last}) as web:
        one = given(web, tmp_path, paths)
        (tmp_path / "step.py").write_text(STEP)
        step = subprocess.Popen([sys.executable, tmp_path / "step.py", str(web.port), str(tmp_path)])
        while not (one.done(1) and web.asked["/6"]):
            assert step.poll() is None
            time.sleep(0.05)
        os.kill(step.pid, signal.SIGKILL)
        step.wait()
        finished = {number * 4 + at for number in one.done(1) for at in range(4)}
        before = dict(web.asked)
        held.set()
        fetch.fetch([one], worker(web), 1, MANNER)
        assert finished and all(web.asked[f"/{number}"] == 1 for number in finished)
        assert web.asked["/6"] == 2 and sum(before.values()) < 12
        fetch.fetch([one], worker(web), 1, MANNER)  # nothing is left
        assert web.asked["/6"] == 2
    assert [(row["id"], row["status"]) for row in answers(one, 1)] == [(f"{n:03d}", "ok") for n in range(12)]
    assert not (one.of(1)[1] / "_tmp").exists()


def test_too_few_pictures_stop_the_fetch_and_what_is_whole_is_kept(tmp_path, monkeypatch, request):
    monkeypatch.setattr(progress, "ENOUGH", 6)
    monkeypatch.setattr(progress, "EVERY", 0.05)
    paths = [f"/gone{number}" for number in range(8)] + ["/slow"] * 8
    over = threading.Event()
    with rough_web(dict.fromkeys(paths, later(99, "403 No")) | {"/slow": lambda line, n: over.wait(20)}) as web:
        one = given(web, tmp_path, paths)
        with pytest.raises(ValueError) as stopped:
            fetch.fetch([one], worker(web, timeout=4.0), 1, dataclasses.replace(MANNER, min_success=0.4))
        sentence = str(stopped.value)
        assert sentence.startswith("list: 0 of ") and "http_403" in sentence and "sources.min_success = 0.4" in sentence
        assert web.asked["/slow"] < 8 and 0 in one.done(1) and 3 not in one.done(1)
        over.set()
        request.getfixturevalue("in_process")
        fetch.fetch([one], worker(web), 1, MANNER)
        assert all(web.asked[f"/gone{number}"] == 1 for number in range(4))
    assert Counter(row["status"] for row in answers(one, 1)) == {"http_403": 8, "connection": 8}


def test_an_orphan_of_an_earlier_run_spoils_nothing(tmp_path):
    """Another run began: the worker of the earlier one asks for nothing more and its shard is nobody's."""
    with rough_web({"/ok": sound}) as web:
        one = given(web, tmp_path, ["/ok"] * 4)
        run = fetch._new_run(one, 1)
        (row,) = fetch._shards([one], 1, {"list": run})
        web.answers["/ok"] = lambda line, n: [(run / "go").unlink(missing_ok=True), sound(line, n)]
        assert worker(web, threads=1)(row) == (True, row)
        assert web.asked["/ok"] == 1 and one.done(1) == set()
        assert worker(web)(row) == (True, row) and web.asked["/ok"] == 1


class Busy:
    """Counts the lines that are open at once, by path."""

    def __init__(self):
        self.lock, self.now, self.most = threading.Lock(), Counter(), Counter()

    def __call__(self, path: str, seconds: float = 0.05):
        def answer(line, n):
            with self.lock:
                self.now[path] += 1
                self.most[path] = max(self.most[path], self.now[path])
            time.sleep(seconds)
            with self.lock:
                self.now[path] -= 1
            sound(line, n)

        return answer


def test_a_host_is_never_asked_for_more_than_its_bound_at_a_time():
    busy = Busy()
    with rough_web({"/a": busy("/a")}) as web:
        one = Worker(web.limits(), 12, 100, 3, "")
        found = preflight.ask([web.url("/a")] * 24, one)
    assert found["said"] == {"ok": 24} and busy.most["/a"] == 3


def test_a_redirect_to_a_busy_host_waits_for_it_and_holds_no_other(tmp_path):
    """localhost leads to 127.0.0.1 and back: two hosts, each of them the other's next hop."""
    busy = Busy()
    with rough_web({"/end": busy("/end")}) as web:
        other = f"http://localhost:{web.port}"
        web.answers |= {"/a": to(f"{other}/end"), "/b": to(web.url("/end"))}
        found = preflight.ask([web.url("/a"), f"{other}/b"] * 8, Worker(web.limits(), 8, 100, 1, ""))
    assert found["said"] == {"ok": 16} and busy.most["/end"] <= 2


def test_one_slow_host_leaves_the_threads_to_the_others():
    """The slow host's urls come first, more than there are threads; yet all others are taken before its third."""
    turns = Turns([f"http://slow.example/{n}" for n in range(9)] + [f"http://{n}.example/" for n in range(20)], 2)
    held, order = [], []
    for _ in range(22):
        turn = turns.turn()
        got = turn.__enter__()
        order.append(got.host)
        if got.host == "slow.example":
            held.append(turn)
        else:
            turn.__exit__(None, None, None)
    assert collections.Counter(order)["slow.example"] == 2 and len(set(order)) == 21
    for turn in held:
        turn.__exit__(None, None, None)
    rest = []
    for _ in range(7):
        with turns.turn() as got:
            rest.append(got.number)
    assert rest == list(range(2, 9)), "none is lost, none comes twice"


def test_the_sample_is_the_same_at_each_look_and_of_the_list_s_own(tmp_path):
    with rough_web({}) as web:
        one, other = (given(web, tmp_path, [f"/{n}" for n in range(500)], name=name) for name in ("one", "other"))
    assert preflight.sample(one, 20) == preflight.sample(one, 20) != preflight.sample(other, 20)
    assert len(set(preflight.sample(one, 20))) == 20 and len(preflight.sample(one, 9999)) == 500


def test_a_list_that_is_harmed_is_named_before_it_is_sampled(tmp_path):
    one = List("list", tmp_path / "list.parquet", tmp_path / "list", 4)
    schemas.write([{"id": str(number), "url": f"http://example.org/{number}"} for number in range(500)], one.urls, URLS)
    data = one.urls.read_bytes()
    one.urls.write_bytes(data[:4] + bytes(2000) + data[2004:])
    with pytest.raises(ValueError, match="list.parquet is damaged .* to make it again"):
        preflight.sample(one, 3)


def test_a_bad_sample_stops_the_step_before_the_big_fetch_and_a_good_one_is_not_repeated(tmp_path, capsys):
    with rough_web({"/ok": sound, "/no": later(99, "403 No")}) as web:
        good = given(web, tmp_path, ["/ok"] * 9 + ["/no"], name="good")
        bad = given(web, tmp_path, ["/no"] * 40, name="bad")
        strict = dataclasses.replace(MANNER, min_success=0.5)
        with pytest.raises(
            ValueError, match=r"^preflight of bad: 0 of 10 .*less than sources.min_success = 0.5.*403 10"
        ):
            preflight.foretell([good, bad], worker(web), strict, 10)
        told = capsys.readouterr().err
        assert "preflight of good: 9 of 10 sampled urls gave a picture: 90.0% (95 % between 59.6% and 98.2%)" in told
        assert f"{len(picture())} B each" in told and "Failures: http_403 1" in told
        asked = web.asked["/ok"]
        preflight.foretell([good], worker(web), strict, 10)
        preflight.foretell([bad], worker(web), strict, 0)
        assert asked == web.asked["/ok"] == 9 and web.asked["/no"] == 11


@pytest.mark.parametrize(
    "ok,asked,told",
    [(0, 10, (0, 0.27753)), (5, 10, (0.23659, 0.76341)), (10, 10, (0.72247, 1)), (970, 1000, (0.95748, 0.97892))],
)
def test_the_interval_is_the_one_that_scipy_gives(ok, asked, told):
    """scipy.stats.binomtest(ok, asked).proportion_ci(0.95, "wilson")"""
    assert preflight.interval(ok, asked) == pytest.approx(told, abs=1e-4)


COUNTS = {
    "cc3m": Counter({("ok", 1): 90, ("ok", 2): 3, ("http_404", 1): 5, ("timeout", 3): 2}),
    "coco": Counter({("ok", 0): 10}),
    "empty": Counter(),
}


def test_failures_add_up_to_the_rows_and_are_the_same_bytes_again(tmp_path):
    for folder in ("a", "b"):
        failures.write(tmp_path / folder, COUNTS)
    table = pq.read_table(tmp_path / "a/failures.parquet")
    assert table.schema.equals(failures.FAILURES)
    rows = table.to_pylist()
    assert sum(row["count"] for row in rows if row["corpus"] == "cc3m") == 100
    assert [row["reason"] for row in rows if row["transient"]] == ["timeout"] and rows[-1]["share"] == 1
    text = (tmp_path / "a/failures.txt").read_text()
    assert "cc3m: 100 rows, 93 pictures (93.00%)" in text and "pictures that pass 2 brought: 3" in text
    xml.etree.ElementTree.parse(tmp_path / "a/failures.svg")
    for name in ("failures.parquet", "failures.txt", "failures.svg"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


@pytest.mark.parametrize("name", ["pyspark", "ray"])
def test_a_distributor_that_is_not_installed_is_named_with_its_command(name, monkeypatch):
    monkeypatch.setattr(fetch.importlib.util, "find_spec", lambda _: None)
    with pytest.raises(ValueError, match=f"sources.distributor is {name}, .* `pip install {name}`, or set it"):
        fetch.check(name)


def test_an_unknown_distributor_is_refused_with_the_known_ones():
    with pytest.raises(ValueError, match="'dask': expected one of multiprocessing, pyspark, ray"):
        fetch.check("dask")


def test_ray_s_workers_are_given_what_must_be_set_before_any_import(monkeypatch):
    """Those of a cluster that runs already inherit nothing from here, and import img2dataset first."""
    given = {}
    ray = types.SimpleNamespace(init=lambda **about: given.update(about))
    monkeypatch.setitem(sys.modules, "ray", ray)
    fetch._prepare("ray")
    assert given["runtime_env"]["env_vars"]["NO_ALBUMENTATIONS_UPDATE"] == "1" and given["ignore_reinit_error"]


def test_img2dataset_asks_for_no_newer_version_in_a_new_process():
    code = (
        "import socket, vikdf.corpora.fetch; asked = []; socket.getaddrinfo = lambda *to, **_: asked.append(to) or [];"
    )
    code += "import img2dataset.distributor; assert not asked, asked"
    env = {name: value for name, value in os.environ.items() if name != "NO_ALBUMENTATIONS_UPDATE"}
    subprocess.run([sys.executable, "-c", code], env=env, check=True)


@pytest.mark.long
@pytest.mark.parametrize("name", ["pyspark", "ray"])
def test_a_cluster_s_distributor_gives_the_same_answers(name, tmp_path):
    pytest.importorskip(name, reason=f"{name} is optional: pip install {name}")
    with rough_web({"/ok": sound, "/once": later(1), "/no": later(99, "404 No")}) as web:
        one = given(web, tmp_path, ["/ok"] * 6 + ["/once", "/no"])
        fetch.fetch([one], worker(web), 2, dataclasses.replace(MANNER, distributor=name))
    assert [row["status"] for row in answers(one, 2)] == ["ok"] * 7 + ["http_404"]
