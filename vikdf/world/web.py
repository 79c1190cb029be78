"""The world's web: a small HTTP server on 127.0.0.1 that draws the picture asked for, with the flaws of its row.

    with web.serve(settings):          # settings = params.yaml's sources.world
        ...                            # http://127.0.0.1:<port>/cc3m/000000.jpg answers
"""

import contextlib
import http.server
import io
import threading
import time
from collections.abc import Iterator

from PIL import Image

from vikdf.world import flaws
from vikdf.world.draw import draw, jpeg
from vikdf.world.nouns import make_nouns

LISTS = ("cc3m", "cc12m", "sbu")
BOMB = 12000  # pixels a side: a few hundred kilobytes that would decode to 400 MB
DEAD = (404, 410, 403)


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        row = self.server.rows.get(self.path)
        if row is None:
            return self.answer(404, b"nothing is here", "text/plain")
        corpus = self.path.split("/")[1]
        flaw, number = row["flaw"], row["number"]
        if flaw == "silent":
            self.server.closing.wait()
            self.close_connection = True
            return None
        if flaw == "slow":
            time.sleep(flaws.SLOW)
        if flaw == "dead":
            return self.answer(DEAD[number % len(DEAD)], b"gone", "text/plain")
        if flaw == "failing":
            return self.answer(503, b"try later", "text/plain")
        if flaw == "html":
            return self.answer(200, b"<html><body>please log in</body></html>", "image/jpeg")
        if flaw == "huge":
            return self.answer(200, self.server.bomb, "image/png")
        data = self.picture(corpus, row)
        extra = {"X-Robots-Tag": "noai"} if flaw == "opt_out" else {}
        return self.answer(200, data[: len(data) // 2] if flaw == "truncated" else data, "image/jpeg", extra)

    def picture(self, corpus: str, row: dict) -> bytes:
        settings = self.server.settings
        scene = flaws.scene_of(self.server.nouns, settings, corpus, row["shown"])
        image = draw(scene, settings["pixels"])
        if row["flaw"] == "tiny":
            image = image.resize((12, 12))
        return jpeg(image, quality=80 if row["flaw"] == "duplicate" else 92)

    def answer(self, code: int, body: bytes, kind: str, headers: dict[str, str] | None = None) -> None:
        self.send_response(code)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.end_headers()
        with contextlib.suppress(ConnectionError):  # a client may leave: that is its right
            self.wfile.write(body)

    def log_message(self, *_) -> None:
        """The fetch reports; the web is silent."""


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    allow_reuse_address = True
    request_queue_size = 128

    def __init__(self, settings: dict):
        self.settings, self.nouns = settings, make_nouns(settings["seed"], settings["nouns"], settings["held_out"])
        self.rows = {
            f"/{corpus}/{row['number']:06d}.jpg": row
            for corpus in LISTS
            for row in flaws.rows(self.nouns, settings, corpus)
        }
        self.closing = threading.Event()
        self.bomb = _bomb()
        super().__init__(("127.0.0.1", settings["port"]), Handler)


def _bomb() -> bytes:
    stream = io.BytesIO()
    Image.new("1", (BOMB, BOMB)).save(stream, "PNG")
    return stream.getvalue()


@contextlib.contextmanager
def serve(settings: dict) -> Iterator[None]:
    """Serves the lists' pictures while the block runs, in a thread that cannot outlive this process."""
    try:
        server = Server(settings)
    except OSError as error:
        raise ValueError(
            f"port {settings['port']} of 127.0.0.1 is busy ({error.strerror}): another run of `sources` may use it; wait for it, "
            "or set another sources.world.port in params.yaml"
        ) from None
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield
    finally:
        server.closing.set()
        server.shutdown()
        server.server_close()
