"""One picture from one address, with care: what img2dataset's workers call in place of its own download and resize.

In: an address of the open web. Out: the bytes as they came with width and height, or a stable name of what was wrong:

    bad_url refused_scheme refused_address     never asked for, or refused at the hop where it turned bad
    dns timeout connection tls broken_answer   the host did not answer, or not in the words of the protocol
    http_<code> opt_out                        the host said no; opt_out is an X-Robots-Tag such as noai
    too_many_bytes too_many_pixels             refused before it is read or decoded whole
    wrong_type broken                          not a picture; a picture that does not decode

Every address is checked where the socket connects: a redirect or a name that leads to a private address is refused too.
"""

import dataclasses
import http.client
import io
import ipaddress
import re
import socket
import ssl
import struct
import time
import urllib.error
import urllib.parse
import urllib.request
import warnings
import zlib

from vikdf import __version__

AGENT = f"vikdf/{__version__} (collects image-text pairs for research; honours X-Robots-Tag)"
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP")
MAGIC = (b"\xff\xd8\xff", b"\x89PNG", b"RIFF", b"GIF8", b"BM")
TRANSIENT = re.compile(
    r"timeout|dns|connection|http_(408|429|5\d\d)"
)  # worth asking again; 404, 410, opt-outs never are
CHUNK = 1 << 16
UNDECODABLE = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    IndexError,
    TypeError,
    OverflowError,
    struct.error,
    zlib.error,
)


@dataclasses.dataclass(frozen=True)
class Limits:
    timeout: float  # seconds a host may be silent
    deadline: float  # seconds one picture may take in all
    max_bytes: int
    max_pixels: int
    loopback_port: int  # the embedded world's; 0 where there is none


class Refused(OSError):
    """An address that no list of the open web has any business with."""


def address_status(url: str, limits: Limits) -> str:
    """Empty for an address that may be asked for; what can be said of the text alone, before any name is looked up."""
    try:
        parts = urllib.parse.urlsplit(url)
        host, port = parts.hostname, parts.port or {"http": 80, "https": 443}.get(parts.scheme)
    except ValueError:
        return "bad_url"
    if not parts.scheme or (parts.scheme in ("http", "https") and not host) or re.search(r"[\s\0]", url):
        return "bad_url"
    if parts.scheme not in ("http", "https"):
        return "refused_scheme"
    try:
        return "" if _open(ipaddress.ip_address(host), port, limits) else "refused_address"
    except ValueError:  # a name: it is checked where it is resolved
        local = host == "localhost" or host.endswith(".localhost")
        return "refused_address" if local and port != limits.loopback_port else ""


def _open(address, port: int, limits: Limits) -> bool:
    address = getattr(address, "ipv4_mapped", None) or address
    return address.is_global and not address.is_multicast or address.is_loopback and port == limits.loopback_port


def _connector(limits: Limits):
    """socket.create_connection, but only to addresses that are open to all."""

    def connect(target, timeout, source_address=None):
        found = socket.getaddrinfo(*target, type=socket.SOCK_STREAM)
        if not all(_open(ipaddress.ip_address(sockaddr[0]), target[1], limits) for *_, sockaddr in found):
            raise Refused(f"{target[0]} is a private address")
        for left, (*_, sockaddr) in zip(reversed(range(len(found))), found, strict=True):
            try:
                return socket.create_connection(sockaddr[:2], timeout)
            except OSError:
                if not left:
                    raise
        raise socket.gaierror(f"{target[0]} has no address")

    return connect


def opener(limits: Limits) -> urllib.request.OpenerDirector:
    """http and https only; redirects are followed, and each hop is connected to by the same careful connector."""

    def careful(kind):
        def connection(host, **settings):
            made = kind(host, **settings)
            made._create_connection = _connector(limits)
            return made

        return connection

    class Http(urllib.request.HTTPHandler):
        def http_open(self, request):
            return self.do_open(careful(http.client.HTTPConnection), request)

    class Https(urllib.request.HTTPSHandler):
        def https_open(self, request):
            return self.do_open(careful(http.client.HTTPSConnection), request, context=self._context)

    made = urllib.request.OpenerDirector()
    for handler in (
        Http(),
        Https(context=ssl.create_default_context()),
        urllib.request.HTTPDefaultErrorHandler(),
        urllib.request.HTTPRedirectHandler(),
        urllib.request.HTTPErrorProcessor(),
        urllib.request.UnknownHandler(),
    ):
        made.add_handler(handler)
    return made


def download(row, timeout, user_agent_token, disallowed_header_directives, *, limits: Limits, web):
    """img2dataset's download_image: (key, url) -> (key, stream or None, status or None)."""
    from img2dataset.downloader import is_disallowed

    key, url = row
    end = time.monotonic() + limits.deadline
    try:
        request = urllib.request.Request(_ascii(url), headers={"User-Agent": AGENT})
        with web.open(request, timeout=timeout) as answer:
            if disallowed_header_directives and is_disallowed(
                answer.headers, user_agent_token, disallowed_header_directives
            ):
                return key, None, "opt_out"
            data = bytearray()
            while chunk := answer.read1(CHUNK):
                data += chunk
                if len(data) > limits.max_bytes:
                    return key, None, "too_many_bytes"
                if time.monotonic() > end:
                    return key, None, "timeout"
        return key, io.BytesIO(data), None
    except (OSError, http.client.HTTPException, ValueError) as error:
        return key, None, _status(error)


def _ascii(url: str) -> str:
    """The address as the protocol wants it: real lists hold letters beyond ASCII."""
    parts = urllib.parse.urlsplit(url)
    host = parts.netloc if parts.netloc.isascii() else parts.netloc.encode("idna").decode()
    return urllib.parse.urlunsplit(
        parts._replace(netloc=host)._replace(
            path=urllib.parse.quote(parts.path, safe="/%:=&?~+!$,;'@()*[]"),
            query=urllib.parse.quote(parts.query, safe="/%:=&?~+!$,;'@()*[]"),
        )
    )


def _status(error: Exception) -> str:
    if isinstance(error, urllib.error.HTTPError):
        return f"http_{error.code}"
    if isinstance(error, urllib.error.URLError):
        return _status(error.reason) if isinstance(error.reason, Exception) else "refused_scheme"
    kinds = [
        (Refused, "refused_address"),
        (socket.gaierror, "dns"),
        (TimeoutError, "timeout"),
        (ssl.SSLError, "tls"),
        (http.client.InvalidURL, "bad_url"),
        (ConnectionError, "connection"),
        (http.client.HTTPException, "broken_answer"),
        (OSError, "connection"),
    ]
    return next((name for kind, name in kinds if isinstance(error, kind)), "bad_url")


def examine(data: bytes, max_pixels: int) -> tuple[str, int | None, int | None]:
    """(ok or what is wrong, width, height); the size is known from the header, before anything is decoded."""
    from PIL import Image, UnidentifiedImageError

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(data), formats=FORMATS) as picture:
                if picture.width * picture.height > max_pixels:
                    return "too_many_pixels", None, None
                picture.load()
                return "ok", picture.width, picture.height
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        return "too_many_pixels", None, None
    except UnidentifiedImageError:
        return ("broken" if data.startswith(MAGIC) else "wrong_type"), None, None
    except UNDECODABLE:
        return "broken", None, None


@dataclasses.dataclass(frozen=True)
class Examiner:
    """In the place of img2dataset's resizer: the bytes stay as they came, only their kind and size are looked at."""

    max_pixels: int

    def __call__(self, stream, boxes=None):
        data = stream.read()
        status, width, height = examine(data, self.max_pixels)
        if status != "ok":
            return None, None, None, None, None, status
        return data, width, height, width, height, None
