"""Servers: the work goes on while a tracking server or its database is dead, and every server of ours refuses strangers.

Real ones, on 127.0.0.1 and killed: `mlflow server`, PostgreSQL (skipped where this machine has none), `vikdf ui`, the world's web.
"""

import base64
import contextlib
import functools
import importlib.util
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
import stores
import yaml

from vikdf import tracked, tracking
from vikdf.world import web

ROOT = Path(__file__).resolve().parent.parent
STEPS = 200  # more than are sent one by one


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """A real `mlflow server`; `database` is its PostgreSQL, None where this machine has none."""
    with contextlib.ExitStack() as held:
        there = stores.postgres_folder() and importlib.util.find_spec("psycopg2")
        database, folder = held.enter_context(stores.postgres()) if there else None, tmp_path_factory.mktemp("served")
        store = database.database("served") if database else f"sqlite:///{folder}/server.db"
        server = stores.mlflow_server(folder, store).start()
        held.callback(server.kill)
        server.database = database
        yield server


@pytest.fixture
def postgres(served):
    if not served.database:
        pytest.skip("this machine has no PostgreSQL (Debian: apt-get install postgresql), or no psycopg2-binary")
    return served.database


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Runs a job of many steps; `at` names what happens at which step. Each step is sent, so that any may meet a dead store."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(tracking, "INTERVAL", 0)
    (tmp_path / "params.yaml").write_text("seeds: [1]\n")

    def job(name: str, address: str, at: dict | None = None) -> None:
        at = {"start": lambda: None, "end": lambda: None} | (at or {})
        at["start"]()
        with tracking.Run(
            "x", name, {"a": 1, "b": "c"}, tmp_path / "state" / name, {"seed": 1}, address, {"d": "e"}
        ) as run:
            for step in range(STEPS):
                at.get(step, lambda: None)()
                run.next = time.monotonic() + 3600 * (step % 20 > 0)  # every 20th step is sent
                run.log(step, {"loss": 1.0 / (step + 1), "tim": float(step)})
            at["end"]()

    return job


def counted(address: str, name: str) -> dict:
    """What the store has of the one run of this name."""
    from mlflow import MlflowClient

    client = MlflowClient(address)
    [run] = client.search_runs(["1"], f"attributes.run_name = '{name}'")
    points = {
        key: client.get_metric_history(run.info.run_id, key) for key in run.data.metrics if key in ("loss", "tim")
    }
    params = {key: value for key, value in run.data.params.items()}
    said = {
        "status": run.info.status,
        "params": params,
        "data": [each.dataset.name for each in run.inputs.dataset_inputs],
    }
    said["files"] = [file.path for file in client.list_artifacts(run.info.run_id)]
    return said | {key: [(point.step, point.value) for point in found] for key, found in points.items()}


@pytest.mark.parametrize("how", ["its door is shut", pytest.param("it is killed", marks=pytest.mark.long)])
def test_a_server_that_is_down_at_the_start_in_the_middle_or_at_the_end_costs_nothing(
    run, served, tmp_path, capsys, how
):
    server = stores.Door(served.port).start() if how == "its door is shut" else served
    address, name = f"http://127.0.0.1:{server.port}", how.replace(" ", "-")
    run(name, address)
    run(f"start-{name}", address, {"start": server.kill, 150: server.start})
    run(f"middle-{name}", address, {90: server.kill})
    server.start()
    run(f"end-{name}", address, {"end": server.kill})
    assert capsys.readouterr().err.count("vikdf track replay") == 3
    with pytest.raises(OSError, match="does not answer"):
        tracked.replay(tmp_path / "state", address)
    server.start()
    assert tracked.replay(tmp_path / "state", address) == 2  # of the third the server was back in time
    assert tracked.replay(tmp_path / "state", address) == 0
    expected = counted(address, name)
    assert expected["status"] == "FINISHED" and len(expected["loss"]) > 100 and expected["files"] == ["params.yaml"]
    assert [counted(address, f"{when}-{name}") for when in ("start", "middle", "end")] == [expected] * 3


def test_an_mlflow_server_on_postgresql_is_killed_in_the_middle_and_replay_completes_it(
    run, served, postgres, tmp_path
):
    address = f"http://127.0.0.1:{served.port}"
    run("undisturbed", address)
    run("database", address, {70: postgres.kill})
    postgres.start()
    run("both", address, {30: postgres.kill, 50: served.kill})
    with pytest.raises(OSError, match="does not answer"):
        tracked.replay(tmp_path / "state", address)
    postgres.start()
    served.start()
    assert tracked.replay(tmp_path / "state", address) == 2
    assert tracked.replay(tmp_path / "state", address) == 0
    expected = counted(address, "undisturbed")
    assert [counted(address, name) for name in ("database", "both")] == [expected] * 2


@pytest.mark.long
def test_postgresql_without_a_server_is_killed_in_the_middle_and_goes_on(run, postgres, tmp_path):
    address = postgres.database("plain")
    run("undisturbed", address)
    run("killed", address, {70: postgres.kill, 150: postgres.start})
    run("dead", address, {130: postgres.kill})
    with pytest.raises(OSError, match="does not answer"):
        tracked.replay(tmp_path / "state", address)
    postgres.start()
    assert [tracked.replay(tmp_path / "state", address) for _ in range(2)] == [1, 0]
    expected = counted(address, "undisturbed")
    assert [counted(address, name) for name in ("killed", "dead")] == [expected] * 2 and len(expected["tim"]) > 100


SEARCH = "/api/2.0/mlflow/experiments/search?max_results=1"
FOREIGN = [
    "evil.example",
    "127.0.0.1.evil.example",
    "10.0.0.7:{port}",
    "192.168.1.2",
    "0.0.0.0:{port}",
    "127.0.0.1:1",
    "",
]


@pytest.mark.parametrize("path", ["/", SEARCH, "/ajax-api/2.0/mlflow/x", "/static-files/x"])
@pytest.mark.parametrize("host", FOREIGN)
def test_the_ui_refuses_a_foreign_host(ui, host, path):
    assert stores.asked(ui, path, Host=host.format(port=ui))[0] in (400, 403)


@pytest.fixture(scope="module")
def ui(tmp_path_factory):
    """`vikdf ui`, as a person starts it, in an environment that would open it to all."""
    folder, port = tmp_path_factory.mktemp("ui"), stores.free_port()
    open_wide = {"MLFLOW_SERVER_ALLOWED_HOSTS": "*", "MLFLOW_SERVER_CORS_ALLOWED_ORIGINS": "*", "PYTHONPATH": str(ROOT)}
    open_wide |= {"MLFLOW_SERVER_DISABLE_SECURITY_MIDDLEWARE": "true", "MLFLOW_UVICORN_OPTS": "--host 0.0.0.0"}
    words = [sys.executable, "-m", "vikdf.cli", "ui", "--port", str(port)]
    server = stores.Server(words, port, folder, env=os.environ | stores.QUIET | open_wide)
    try:
        yield server.start().port
    finally:
        server.kill()


def test_the_ui_answers_this_machine_and_lets_no_page_frame_it(ui):
    for host in (f"127.0.0.1:{ui}", f"localhost:{ui}"):
        status, headers, _ = stores.asked(ui, "/", Host=host)
        assert (status, headers["X-Frame-Options"], headers["X-Content-Type-Options"]) == (200, "DENY", "nosniff")


def test_the_ui_listens_on_loopback_alone(ui):
    listening = [
        line.split()[1] for line in Path("/proc/net/tcp").read_text().splitlines()[1:] if line.split()[3] == "0A"
    ]
    assert [place for place in listening if place.endswith(f":{ui:04X}")] == [f"0100007F:{ui:04X}"]


@pytest.mark.parametrize("origin", ["http://evil.example", "https://127.0.0.1.evil.example", "null"])
def test_a_page_elsewhere_can_neither_read_nor_change_what_the_ui_shows(ui, origin):
    body, path = b'{"name": "taken"}', "/api/2.0/mlflow/experiments/create"
    assert stores.asked(ui, path, "POST", body, Origin=origin, **{"Content-Type": "application/json"})[0] == 403
    allowed = stores.asked(ui, SEARCH, Origin=origin)[1]
    assert allowed["Access-Control-Allow-Origin"] is None


@pytest.fixture(scope="module")
def world():
    settings = yaml.safe_load((ROOT / "presets/tiny.yaml").read_text())["sources"]["world"] | {
        "port": stores.free_port()
    }
    with web.serve(settings):
        yield settings["port"]


@pytest.mark.parametrize("host", FOREIGN)
def test_the_worlds_web_refuses_a_foreign_host(world, host):
    status, headers, _ = stores.asked(world, "/cc3m/000000.jpg", Host=host.format(port=world))
    assert status == 421 and headers["Content-Type"] == "text/plain"


def test_the_worlds_web_answers_with_headers_that_leave_nothing_to_guess(world):
    for host in (f"127.0.0.1:{world}", f"localhost:{world}"):
        status, headers, _ = stores.asked(world, "/cc3m/none.jpg", Host=host)
        assert (status, headers["X-Content-Type-Options"], headers["Cache-Control"]) == (404, "nosniff", "no-store")
        assert "Python" not in headers["Server"]


def test_the_servers_that_we_write_are_two_and_none_names_every_address():
    """A new one has to be looked at, and to come into this file. torchrun's is PyTorch's: docs/servers.md."""
    files = [*ROOT.glob("vikdf/**/*.py"), ROOT / "Makefile", *ROOT.glob("workflow/**/*.smk")]
    texts = {path.relative_to(ROOT).as_posix(): path.read_text() for path in files}
    assert [name for name, text in texts.items() if "0.0.0.0" in text] == []
    serving = {name for name, text in texts.items() if re.search('HTTPServer|"server", "--|uvicorn|socketserver', text)}
    assert serving == {"vikdf/cli.py", "vikdf/world/web.py"}


@pytest.fixture
def proxied(tmp_path):
    """MLflow behind nginx as docs/servers.md sets both up, with a certificate, a password and ports of the test's own."""
    nginx, openssl = shutil.which("nginx"), shutil.which("openssl")
    if not nginx or not openssl:
        pytest.skip("this machine has no nginx or no openssl (Debian: apt-get install nginx-light openssl)")
    page = (ROOT / "docs/servers.md").read_text()
    key = f"{openssl} req -x509 -newkey rsa:2048 -nodes -days 1 -subj /CN=mlflow.example.org -keyout mlflow.key -out mlflow.pem"
    subprocess.run(key.split(), cwd=tmp_path, check=True, capture_output=True)
    coded = subprocess.run([openssl, "passwd", "-apr1", "secret"], check=True, capture_output=True, text=True).stdout
    (tmp_path / "vikdf.passwords").write_text(f"anna:{coded}")
    flags = shlex.split(re.search(r"mlflow server (--host .*?)```", page, flags=re.S).group(1).replace("\\\n", " "))
    said = dict(zip(flags[::2], flags[1::2], strict=True))
    more = [
        word
        for flag in ("--allowed-hosts", "--cors-allowed-origins", "--x-frame-options")
        for word in (flag, said[flag])
    ]
    server, port = stores.mlflow_server(tmp_path, f"sqlite:///{tmp_path}/server.db", more), stores.free_port()
    text = re.search(r"```nginx\n(.*?)```", page, flags=re.S).group(1)
    text = text.replace("listen 443", f"listen 127.0.0.1:{port}").replace("127.0.0.1:5000", f"127.0.0.1:{server.port}")
    text = text.replace("/etc/ssl", str(tmp_path)).replace("/etc/nginx", str(tmp_path))
    temp = "".join(
        f"{kind}_temp_path {tmp_path}/{kind}; " for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    head = f"daemon off; master_process off; pid {tmp_path}/pid; error_log {tmp_path}/error.log; events {{}}\n"
    (tmp_path / "nginx.conf").write_text(f"{head}http {{ access_log off; {temp}\n{text}}}\n")
    process = subprocess.Popen(
        [nginx, "-p", str(tmp_path), "-c", str(tmp_path / "nginx.conf")], stderr=subprocess.DEVNULL
    )
    try:
        server.start()
        yield port
    finally:
        process.kill()
        process.wait()
        server.kill()


def test_behind_the_documented_proxy_only_who_has_the_password_and_the_name_is_answered(proxied):
    name, create = "mlflow.example.org", "/api/2.0/mlflow/experiments/create"
    right, wrong = ({"Authorization": b"Basic " + base64.b64encode(word)} for word in (b"anna:secret", b"anna:guess"))
    ask = functools.partial(stores.asked, proxied, tls=True)
    assert [ask("/", Host=name, **given)[0] for given in ({}, wrong, right)] == [401, 401, 200]
    assert ask("/", Host=name, **right)[1]["Strict-Transport-Security"]
    assert ask("/", Host="evil.example", **right)[0] == 421
    json = right | {"Host": name, "Content-Type": "application/json"}
    assert ask(create, "POST", b'{"name": "a"}', Origin="https://evil.example", **json)[0] == 403
    assert ask(create, "POST", b'{"name": "a"}', Origin=f"https://{name}", **json)[0] == 200
