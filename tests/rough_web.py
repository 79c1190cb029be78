"""A web on loopback for the tests of one download: each path is answered by a function that holds the bare socket.

    with rough_web({"/a": lambda line, n: line.sendall(b"HTTP/1.1 200 OK\r\n\r\n")}) as web:
        web.url("/a"); web.asked["/a"]

The function is given the socket and how often the path was asked before. The line is closed when it returns.
"""

import contextlib
import socketserver
import ssl
import threading
import time
from collections import Counter

from vikdf.corpora.addresses import Limits


def said(status: str = "200 OK", body: bytes = b"", **headers: str) -> bytes:
    told = {"Content-Length": str(len(body))} | {key.replace("_", "-"): value for key, value in headers.items()}
    lines = [f"HTTP/1.1 {status}", *(f"{key}: {value}" for key, value in told.items() if value is not None), "", ""]
    return "\r\n".join(lines).encode() + body


def to(location: str, status: str = "302 Found", **headers: str):
    return lambda line, n: line.sendall(said(status, Location=location, **headers))


def drip(first: bytes, again: bytes):
    """Never silent for long, never done."""

    def answer(line, n):
        line.sendall(first)
        for _ in range(400):
            time.sleep(0.05)
            line.sendall(again)

    return answer


class Handler(socketserver.BaseRequestHandler):
    def handle(self):
        with contextlib.suppress(ConnectionError, TimeoutError):
            head = b""
            while b"\r\n\r\n" not in head:
                if not (more := self.request.recv(65536)):
                    return
                head += more
            path = head.split(b" ")[1].decode()
            with self.server.lock:
                before = self.server.asked[path]
                self.server.asked[path] += 1
                self.server.heads.append(head.decode("latin-1"))
            self.server.answers[path](self.request, before)


class Server(socketserver.ThreadingTCPServer):
    daemon_threads, request_queue_size, allow_reuse_address = True, 128, True

    def __init__(self, answers: dict):
        super().__init__(("127.0.0.1", 0), Handler)
        self.answers, self.asked, self.heads, self.lock = answers, Counter(), [], threading.Lock()
        self.port = self.server_address[1]

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.port}{path}"

    def limits(self, **changes) -> Limits:
        settings = {"timeout": 2.0, "deadline": 4.0, "max_bytes": 50_000, "max_pixels": 1_000_000}
        return Limits(**settings | {"loopback_port": self.port} | changes)


@contextlib.contextmanager
def rough_web(answers: dict, tls: ssl.SSLContext | None = None):
    server = Server(answers)
    if tls:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
