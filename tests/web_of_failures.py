"""A web on loopback that fails the way the web fails, for the end-to-end tests; what it was asked for is counted.

In: nothing; the first word of a path says what becomes of it. Out: answers on 127.0.0.1 while the block runs.

    with web_of_failures.serve() as web:
        web.url("404", "a.jpg")  # answers 404; "200" or "ok" answer with a picture that is the path's own
        web.asked["/404/a.jpg"]  # how often it was asked for

Run beside such a web: python tests/web_of_failures.py --corpora '{...}' --world '{"port": 4711}' ... (flags of vikdf.sources).
That is the stage's own command line; only the world's web is not served in it, since this one stands at its port.
"""

import asyncio
import contextlib
import functools
import gzip
import io
import random
import socket
import struct
import threading
import urllib.parse
import zlib
from collections import Counter
from collections.abc import Iterator

CUT = 0.6  # of a picture's bytes that come before it is cut
LONG = 3_000_000  # bytes of an answer without end in sight: more than a test's max_bytes
GARBAGE = bytes(random.Random(1).randbytes(400))

# What a path's first word leads to, by the status that `sources` gives it. A code leads to http_<code>.
OUTCOMES = {
    "ok": "ok",
    "slow": "ok",
    "hop": "ok",
    "once": "ok",
    "empty": "wrong_type",
    "html": "wrong_type",
    "zipped": "wrong_type",
    "truncated": "broken",
    "bomb": "too_many_pixels",
    "long": "too_many_bytes",
    "endless": "too_many_bytes",
    "optout": "opt_out",
    "silent": "timeout",
    "drip": "timeout",
    "hangup": "connection",
    "cut": "connection",
    "loop": "too_many_redirects",
    "garbage": "broken_answer",
    "headers": "too_many_headers",
}


@functools.lru_cache(maxsize=4096)
def picture(name: str, side: int = 64, form: str = "JPEG") -> bytes:
    """A small picture of coloured fields, the name's own: no two names give near duplicates."""
    from PIL import Image

    fields = Image.frombytes("RGB", (8, 8), random.Random(name).randbytes(192))
    stream = io.BytesIO()
    fields.resize((side, side), Image.Resampling.BICUBIC).save(stream, form)
    return stream.getvalue()


@functools.cache
def bomb(side: int = 14_000) -> bytes:
    """A PNG of side x side pixels in some 24 kB, written by hand: Pillow would need memory for every pixel."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    lines = zlib.compress(bytes((side // 8 + 1) * side), 9)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", lines) + chunk(b"IEND", b"")


def answer(status: str, body: bytes, kind: str = "image/jpeg", **headers: str) -> bytes:
    said = {"Content-Type": kind, "Content-Length": str(len(body)), "Connection": "close"}
    said |= {name.replace("_", "-"): value for name, value in headers.items()}
    return (
        f"HTTP/1.1 {status}\r\n".encode() + "".join(f"{k}: {v}\r\n" for k, v in said.items()).encode() + b"\r\n" + body
    )


class Web:
    """The answers, and the count of what was asked for."""

    def __init__(self, delay: float):
        self.delay, self.asked, self.agents, self.port = delay, Counter(), Counter(), 0

    def url(self, what: str, name: str, target: str = "") -> str:
        """An address of this web; `target` is where "to" redirects."""
        query = f"?{urllib.parse.quote(target, safe='')}" if target else ""
        return f"http://127.0.0.1:{self.port}/{what}/{name}{query}"

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            path = head.split(" ", 2)[1]
            self.asked[path] += 1
            self.agents[next((line for line in head.split("\r\n") if line.lower().startswith("user-agent:")), "")] += 1
            await asyncio.sleep(self.delay)
            await self._tell(path, reader, writer)
            await writer.drain()
        writer.close()

    async def _tell(self, path: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        what, _, name = path.strip("/").partition("/")
        if what == "silent":
            await reader.read()  # until the other side hangs up
        elif what in ("drip", "endless", "headers"):
            await self._without_end(what, writer)
        elif what == "slow":
            await asyncio.sleep(0.05)
            writer.write(answer("200 OK", picture(name)))
        elif what == "once" and self.asked[path] == 1:
            writer.write(answer("503 Busy", b"later", "text/plain"))
        elif what == "hangup":
            pass
        else:
            writer.write(self._at_once(what, name, path))

    def _at_once(self, what: str, name: str, path: str) -> bytes:
        said = {
            "html": lambda: answer("200 OK", b"<!doctype html><html>please log in</html>"),
            "empty": lambda: answer("200 OK", b""),
            "zipped": lambda: answer("200 OK", gzip.compress(bytes(10_000_000)), Content_Encoding="gzip"),
            "truncated": lambda: answer("200 OK", picture(name)[: int(CUT * len(picture(name)))]),
            "cut": lambda: answer("200 OK", picture(name))[: -len(picture(name)) // 2],
            "bomb": lambda: answer("200 OK", bomb(), "image/png"),
            "long": lambda: answer("200 OK", picture(name) + bytes(LONG)),
            "optout": lambda: answer("200 OK", picture(name), X_Robots_Tag="noai"),
            "garbage": lambda: GARBAGE,
            "hop": lambda: answer("302 Found", b"", Location=f"/ok/{name}"),
            "loop": lambda: answer("302 Found", b"", Location=path),
            "to": lambda: answer("302 Found", b"", Location=urllib.parse.unquote(path.partition("?")[2])),
        }
        if what.isdecimal() and what != "200":
            return answer(f"{what} No", b"" if what in ("204", "304") else b"no picture here", "text/plain")
        return said.get(what, lambda: answer("200 OK", picture(name)))()

    async def _without_end(self, what: str, writer: asyncio.StreamWriter) -> None:
        """What goes on until the other side has enough of it."""
        if what == "endless":
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: image/jpeg\r\n\r\n\xff\xd8\xff")
        if what in ("drip", "headers"):
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: image/jpeg\r\n" + (b"\r\n" if what == "drip" else b""))
        for number in range(100_000):
            if what == "endless":
                writer.write(bytes(1 << 16))
            if what == "headers":
                writer.write(f"X-{number}: {'x' * 1000}\r\n".encode())
            if what == "drip":
                await asyncio.sleep(0.05)
                writer.write(b".")
            await writer.drain()


@contextlib.contextmanager
def serve(delay: float = 0.0) -> Iterator[Web]:
    """Serves from a thread of its own while the block runs; `delay` seconds before each answer make a fetch last."""
    web, ready, loop = Web(delay), threading.Event(), asyncio.new_event_loop()
    held = {}

    async def run() -> None:
        server = await asyncio.start_server(web, "127.0.0.1", 0, backlog=512, limit=1 << 20)
        web.port, held["stop"] = server.sockets[0].getsockname()[1], asyncio.Event()
        ready.set()
        await held["stop"].wait()
        server.close()

    def work() -> None:
        loop.run_until_complete(run())
        for task in asyncio.all_tasks(loop):
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                loop.run_until_complete(task)
        loop.close()

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    ready.wait()
    try:
        yield web
    finally:
        loop.call_soon_threadsafe(held["stop"].set)
        thread.join()


@contextlib.contextmanager
def forbidden() -> Iterator[tuple[int, list]]:
    """A port of loopback that nobody may knock at: (its port, the list of who did, filled when the block ends)."""
    knocked = []
    with socket.create_server(("127.0.0.1", 0), backlog=64) as listening:
        listening.setblocking(False)
        yield listening.getsockname()[1], knocked
        with contextlib.suppress(BlockingIOError):
            while True:
                knocked.append(listening.accept()[1])


def main() -> None:
    """vikdf.sources' command line; the web at the world's port is the caller's."""
    from vikdf import flags
    from vikdf.sources import sources
    from vikdf.world import web

    web.serve = lambda world: contextlib.nullcontext()
    flags.main(sources)


if __name__ == "__main__":
    main()
