"""A real endpoint for tests: transformers' own `serve` over a small model, and a proxy before it that counts and fails.

    with serving(folder) as url:                       # http://127.0.0.1:PORT/v1
        with Proxy(url, fails=lambda n: n % 3 == 2) as proxy:
            ...; proxy.asked == number of requests that came

The proxy passes a request on, or fails it in one of the ways of HOW, in turn; `dies_after` requests it is gone for good.
"""

import contextlib
import http.client
import http.server
import itertools
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from urllib.parse import urlsplit

ROOT = Path(__file__).resolve().parent.parent

HOW = ("error", "overload", "cut")  # status 500; status 429; a connection that ends in the middle of an answer


@contextlib.contextmanager
def serving(folder):
    """The server of `transformers serve FOLDER` in this process: the same classes, without the seconds of a second import."""
    from transformers.cli.serve import Serve

    port = free_port()
    server = Serve(force_model=str(folder), host="127.0.0.1", port=port, device="cpu", non_blocking=True)
    try:
        wait_for(port)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        server.kill_server()


@contextlib.contextmanager
def command_serving(folder, log):
    """The same by the command, in a process of its own. `import vikdf` first: it mends a torchvision of another build."""
    port, code = free_port(), "import vikdf; from transformers.cli.transformers import main; main()"
    words = ["serve", str(folder), "--host", "127.0.0.1", "--port", str(port), "--device", "cpu"]
    with open(log, "w") as said:
        process = subprocess.Popen([sys.executable, "-c", code, *words], cwd=ROOT, stdout=said, stderr=said)
    try:
        wait_for(port)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        process.terminate()
        process.wait()


def free_port() -> int:
    with socket.socket() as asked:
        asked.bind(("127.0.0.1", 0))
        return asked.getsockname()[1]


def wait_for(port: int, seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError:
            if time.monotonic() > end:
                raise
            time.sleep(0.1)


class Proxy:
    def __init__(self, url: str, fails=lambda number: False, dies_after: int | None = None, says=None):
        """fails: number of a request, from 0 -> whether it fails; says: body -> an answer of the proxy's own, or None."""
        self.upstream, self.fails, self.dies_after, self.says = urlsplit(url), fails, dies_after, says
        self.asked, self.failed, self.heads, self.bodies = 0, 0, [], []
        self.times, self.lock, self.ways = [], threading.Lock(), itertools.cycle(HOW)
        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_port}/v1"

    def __enter__(self) -> "Proxy":
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.05})
        self.thread.start()
        return self

    def __exit__(self, *_) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()

    def _handler(proxy):
        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"]))
                self.close_connection = True
                proxy.take(self, body)

            def log_message(self, *_):
                pass

        return Handler

    def take(self, handler, body: bytes) -> None:
        with self.lock:
            number, self.asked = self.asked, self.asked + 1
            self.heads.append(handler.headers)
            self.bodies.append(body)
            self.times.append(time.monotonic())
            dead = self.dies_after is not None and number >= self.dies_after
            how = next(self.ways) if self.fails(number) else ""
            self.failed += bool(how)
        if dead:
            return  # the connection ends without a word
        status, answer = self.says(body) if self.says else self.pass_on(handler.path, body)
        if how == "cut":
            reply(handler, 200, answer[: len(answer) // 2], length=len(answer))
        elif how:
            reply(handler, 500 if how == "error" else 429, b'{"error": {"message": "the key is in here: Bearer"}}')
        else:
            reply(handler, status, answer)

    def pass_on(self, path: str, body: bytes) -> tuple[int, bytes]:
        there = http.client.HTTPConnection(self.upstream.hostname, self.upstream.port, timeout=60)
        there.request("POST", path, body, {"Content-Type": "application/json"})
        came = there.getresponse()
        return came.status, came.read()


def reply(handler, status: int, body: bytes, length: int | None = None) -> None:
    handler.send_response(status)
    handler.send_header("Content-Type", "application/json")
    handler.send_header("Content-Length", str(len(body) if length is None else length))
    handler.send_header("Connection", "close")
    handler.end_headers()
    handler.wfile.write(body)
