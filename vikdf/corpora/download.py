"""One picture from one address, with care: what img2dataset's workers call in place of its own download.

In: an address of the open web. Out: the bytes as they came, or a stable name of what was wrong:

    bad_url refused_scheme refused_port        never asked for, or refused at the hop where it turned bad
    refused_address                            likewise, also where a name leads to it
    dns timeout connection tls broken_answer   the host did not answer, or not in the words of the protocol
    http_<code> opt_out too_many_redirects     the host said no, or never came to the point; opt_out: X-Robots-Tag noai
    too_many_bytes too_many_headers            more than anyone should send

Every hop of a redirect is checked as the first one was, in its text and where its socket connects: neither a name nor a
redirect leads to a private address. A redirect from https down to http is followed: many pictures of the lists are plain
http from the start, and no secret is ever sent. What a picture is, is looked at later: vikdf/corpora/pictures.py.
"""

import email.utils
import http.client
import re
import socket
import ssl
import time
from collections.abc import Callable
from email.message import Message

from vikdf import __version__
from vikdf.corpora.addresses import Limits, address_status, next_url
from vikdf.corpora.hops import Meter, Refused, TooMany, asked

REDIRECTS = 5  # hops after the first; pictures that answer need one or two
MOVED = (301, 302, 303, 307, 308)
TRANSIENT = re.compile(r"timeout|dns|connection|http_(408|429|5\d\d)")  # asked again; 404, 410, opt-outs never are
CHUNK = 1 << 16
OPT_OUT = {"noai", "noimageai", "noindex", "noimageindex", "none"}  # none = noindex, nofollow
VALUED = {"unavailable_after", "max-snippet", "max-image-preview", "max-video-preview"}  # directives with a colon
ROBOT = "vikdf"
# What a host can make this code and Python's own parsers raise. One that got through would cost its whole shard at each try.
OF_A_HOST = (OSError, http.client.HTTPException, ValueError, ArithmeticError, LookupError)


def agent(contact: str) -> str:
    """Who asks, as hosts see it; a contact lets them write instead of blocking."""
    about = f"; {contact}" if contact else ""
    return f"{ROBOT}/{__version__} (collects image-text pairs for research; honours X-Robots-Tag{about})"


def download(
    url: str, limits: Limits, agent: str, go: Callable[[str], float] = lambda url: 0.0
) -> tuple[bytes | None, str]:
    """(bytes, ok) or (None, what was wrong); `go` is told of each further hop, may wait, and says how long it did."""
    meter, url = Meter(limits), url.strip()
    try:
        for _ in range(REDIRECTS + 1):
            if refused := address_status(url, limits):
                return None, refused
            with asked(url, meter, agent) as answer:
                if answer.status < 400 and opted_out(answer.headers):
                    return None, "opt_out"
                where = answer.headers.get("Location")
                if answer.status not in MOVED or where is None:
                    return _body(answer, meter)
            url = next_url(url, where)
            meter.end += go(url)
        return None, "too_many_redirects"
    except OF_A_HOST as error:
        return None, _status(error)


def _body(answer: http.client.HTTPResponse, meter: Meter) -> tuple[bytes | None, str]:
    if not 200 <= answer.status < 300:
        return None, f"http_{answer.status}{_later(answer.headers)}"
    most = meter.limits.max_bytes
    if (answer.length or 0) > most:
        return None, "too_many_bytes"
    meter.allow(2 * most + CHUNK, "too_many_bytes")  # a body in chunks has a line before each
    data = bytearray()
    while chunk := answer.read1(CHUNK):
        data += chunk
        if len(data) > most:
            return None, "too_many_bytes"
    return (None, "connection") if answer.length else (bytes(data), "ok")  # less than was announced: cut on the way


def _later(headers: Message) -> str:
    """How long the host wants to be left alone, behind the status: parted() takes it off again."""
    said = headers.get("Retry-After", "").strip()
    if said.isascii() and said.isdecimal():
        return f" {said[:9]}"
    date = email.utils.parsedate_tz(said) if said else None
    try:
        return f" {max(0, round(email.utils.mktime_tz(date) - time.time()))}" if date else ""
    except (OverflowError, ValueError):  # a day that no calendar has
        return ""


def parted(said: str) -> tuple[str, int]:
    """A status and the seconds after which the host wants to be asked again, 0 where it did not say."""
    status, _, seconds = said.partition(" ")
    return status, int(seconds) if seconds.isdecimal() else 0


def opted_out(headers: Message) -> bool:
    """Whether an X-Robots-Tag forbids the use; img2dataset's own reading misses `noai, unavailable_after: <date>`."""
    for value in headers.get_all("X-Robots-Tag", []):
        robot = ""
        for part in value.lower().split(","):
            name, colon, directive = (text.strip() for text in part.rpartition(":"))
            if colon and name.split(":")[0].strip() not in VALUED:
                robot = name
            if robot in ("", "*", ROBOT) and directive in OPT_OUT:
                return True
    return False


def _status(error: Exception) -> str:
    if type(error) is http.client.HTTPException:  # the one that it raises itself: more than a hundred headers
        return "too_many_headers"
    kinds = [
        (Refused, "refused_address"),
        (TooMany, str(error)),
        (socket.gaierror, "dns"),
        (TimeoutError, "timeout"),
        (ssl.SSLError, "tls"),
        (http.client.InvalidURL, "bad_url"),
        (http.client.IncompleteRead, "connection"),
        (ConnectionError, "connection"),
        (http.client.HTTPException, "broken_answer"),
        (OSError, "connection"),
        ((ArithmeticError, LookupError), "broken_answer"),
    ]
    return next((name for kind, name in kinds if isinstance(error, kind)), "bad_url")
