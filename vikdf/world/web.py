"""The world's web: a small HTTP server on 127.0.0.1 that draws the picture asked for, with the flaw of its row.

In: params.yaml's sources.world. Out: http://127.0.0.1:<port>/cc3m/000000.jpg answers while the block runs.

    with web.serve(settings):
        ...

No file is read: every answer is a function of the settings and the path.
"""

import contextlib
import http.server
import struct
import sys
import threading
import time
import zlib
from collections.abc import Iterator

from vikdf.world import flaws
from vikdf.world.draw import draw, jpeg
from vikdf.world.nouns import make_nouns

LISTS = ("cc3m", "cc12m", "sbu")
SLOW = 0.3  # seconds: far below any timeout, so that the outcome does not depend on load
BOMB = 14_000  # pixels a side: more than Pillow decodes, in some 24 kB
POLL = 0.05  # seconds that stopping may take
PAGE = b"<html><body>please log in</body></html>"


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_version, sys_version = "vikdf", ""  # a stranger need not know whose faults to try
    timeout = 60  # seconds that a connection may be idle

    def do_GET(self) -> None:
        if self.headers["Host"] not in self.server.names:  # a page elsewhere that has its name point at this machine
            self.close_connection = True
            self.answer(421, b"this is another host", "text/plain")
            return
        row = self.server.rows.get(self.path)
        flaw = row["flaw"] if row else "gone"
        if flaw == "silent":
            self.server.closing.wait()
            self.close_connection = True
            return
        if flaw == "slow":
            time.sleep(SLOW)
        refused = {"gone": 410 if row and row["number"] % 2 else 404, "forbidden": 403, "failing": 500}
        if flaw in refused:
            self.answer(refused[flaw], b"no picture", "text/plain")
        elif flaw == "html":
            self.answer(200, PAGE, "image/jpeg")
        elif flaw == "huge":
            self.answer(200, self.server.bomb, "image/png")
        else:
            self.answer(200, self.picture(row), "image/jpeg")

    def picture(self, row: dict) -> bytes:
        settings, flaw = self.server.settings, row["flaw"]
        scene = flaws.scene_of(self.server.nouns, settings, self.path.split("/")[1], row["shown"])
        image = draw(scene, settings["pixels"])
        if flaw == "near_picture" and row["number"] % 2:
            return jpeg(image, quality=75)
        if flaw in ("near_picture", "tiny"):
            side = {"near_picture": image.width * 4 // 3, "tiny": image.width // 4}[flaw]
            image = image.resize((side, side))
        data = jpeg(image)
        return data[: len(data) // 2] if flaw == "truncated" else data

    def answer(self, code: int, body: bytes, kind: str) -> None:
        row = self.server.rows.get(self.path)
        self.send_response(code)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("X-Content-Type-Options", "nosniff")
        self.send_header("Cache-Control", "no-store")
        if row and row["flaw"] == "opt_out":
            self.send_header("X-Robots-Tag", "noai")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_) -> None:
        """The fetch reports; the web is silent."""


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True  # no thread outlives the process
    request_queue_size = 128  # a full queue looks like a silent host

    def __init__(self, settings: dict):
        self.settings, self.nouns = settings, make_nouns(settings["seed"], settings["nouns"], settings["held_out"])
        self.rows = {
            row["url"].removeprefix(f"http://127.0.0.1:{settings['port']}"): row
            for corpus in LISTS
            for row in flaws.rows(self.nouns, settings, corpus)
            if row["flaw"] != "same_row"  # its address is an earlier row's
        }
        self.names = {f"{name}:{settings['port']}" for name in ("127.0.0.1", "localhost")}
        self.closing = threading.Event()
        self.bomb = _black_png(BOMB)
        super().__init__(("127.0.0.1", settings["port"]), Handler)

    def handle_error(self, request, client_address) -> None:
        if not isinstance(sys.exception(), ConnectionError):  # a client may leave: that is its right
            super().handle_error(request, client_address)


def _black_png(side: int) -> bytes:
    """A black picture of one bit a pixel, written by hand: Pillow would need memory for every pixel."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    lines = zlib.compress(bytes((side // 8 + 1) * side))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", lines) + chunk(b"IEND", b"")


@contextlib.contextmanager
def serve(settings: dict) -> Iterator[None]:
    """Serves the lists' pictures while the block runs, in a thread that cannot outlive this process."""
    try:
        server = Server(settings)
    except OSError as error:
        raise ValueError(
            f"port {settings['port']} of 127.0.0.1 cannot be used ({error.strerror}): perhaps another run of `sources`"
            " holds it; wait until it ends, or set another sources.world.port in params.yaml"
        ) from None
    threading.Thread(target=server.serve_forever, args=(POLL,), daemon=True).start()
    try:
        yield
    finally:
        server.closing.set()
        server.shutdown()
        server.server_close()
