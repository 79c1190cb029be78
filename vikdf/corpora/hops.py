"""One request to one host, by http.client over a socket of our own: checked where it connects, bounded as it reads.

In: a url that may be asked for, and a Meter of what the whole picture may still take. Out: http.client's answer.

Python's timeout bounds one silence; a host that drips a byte a second is never silent. Here every read, of headers and
handshake too, gets what is left of the deadline, and every byte read is counted. No cookie, no password, no proxy of the
environment: http.client knows none of them. Certificates are checked.
"""

import concurrent.futures
import contextlib
import functools
import http.client
import ipaddress
import socket
import ssl
import time
import urllib.parse
from collections.abc import Iterator

from vikdf.corpora import addresses
from vikdf.corpora.addresses import Limits

HEADER_BYTES = (
    64 << 10
)  # of one hop, with every "100 Continue" before it; browsers allow some 256 kB, servers send some 1
LOOKUPS = 64  # names looked up at a time in a process: the C library cannot be interrupted


class Refused(OSError):
    """An address that no list of the open web has any business with."""


class TooMany(OSError):
    """More bytes than were allowed for; the message is the status."""


class Meter:
    """What one picture may still take: seconds till its deadline, and bytes of the hop at hand."""

    def __init__(self, limits: Limits):
        self.limits, self.end = limits, time.monotonic() + limits.deadline
        self.bytes, self.status = 0, ""

    def seconds(self) -> float:
        """How long the next wait may be; the host's silence or the deadline, what comes first."""
        left = min(self.limits.timeout, self.end - time.monotonic())
        if left <= 0:
            raise TimeoutError
        return left

    def allow(self, number: int, status: str) -> None:
        self.bytes, self.status = number, status

    def spend(self, number: int) -> None:
        self.bytes -= number
        if self.bytes < 0:
            raise TooMany(self.status)


class _Metered:
    meter: Meter

    def recv_into(self, *into):  # all that http.client reads with
        self.settimeout(self.meter.seconds())
        got = super().recv_into(*into)
        self.meter.spend(got)
        return got


class Plain(_Metered, socket.socket):
    pass


class Secure(_Metered, ssl.SSLSocket):
    pass


@functools.cache
def tls() -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.sslsocket_class = Secure
    return context


@functools.cache
def _lookups() -> concurrent.futures.ThreadPoolExecutor:
    return concurrent.futures.ThreadPoolExecutor(LOOKUPS)


def _resolved(host: str, port: int, meter: Meter) -> list[tuple]:
    """(family, socket address) of the host; a lookup that takes too long is left to itself."""
    if address := addresses.literal(host):
        return [(socket.AF_INET6 if address.version == 6 else socket.AF_INET, (str(address), port))]
    try:
        left = max(meter.end - time.monotonic(), 0)  # several servers may be asked in turn: not one silence
        found = _lookups().submit(socket.getaddrinfo, host, port, type=socket.SOCK_STREAM).result(left)
    except concurrent.futures.TimeoutError:
        raise socket.gaierror(f"{host} was not resolved in time") from None
    return [(family, sockaddr) for family, *_, sockaddr in found]


def _connected(host: str, port: int, meter: Meter) -> Plain:
    found = _resolved(host, port, meter)
    if not all(addresses.is_open(ipaddress.ip_address(to[0]), port, meter.limits) for _, to in found):
        raise Refused(f"{host} is not open to all")
    for left, (family, sockaddr) in zip(reversed(range(len(found))), found, strict=True):
        made = Plain(family, socket.SOCK_STREAM)
        made.meter = meter
        try:
            made.settimeout(meter.seconds())
            made.connect(sockaddr)  # the very address that was checked: a name is never resolved twice
            return made
        except OSError:
            made.close()
            if not left:
                raise
    raise socket.gaierror(f"{host} has no address")


@contextlib.contextmanager
def asked(url: str, meter: Meter, agent: str, more: dict | None = None) -> Iterator[http.client.HTTPResponse]:
    """The host's answer, its headers read, its body not yet."""
    parts = urllib.parse.urlsplit(url)
    host, port = addresses.host_of(parts), addresses.port_of(parts)
    line = http.client.HTTPConnection(host, port)
    meter.allow(HEADER_BYTES, "too_many_headers")
    try:
        line.sock = _connected(host, port, meter)
        line.sock.settimeout(meter.seconds())
        if parts.scheme == "https":
            line.sock = tls().wrap_socket(line.sock, server_hostname=host)
            line.sock.meter = meter
        line.request(
            "GET", addresses.target(parts), headers={"Host": _named(host, parts)} | _headers(agent) | (more or {})
        )
        with line.getresponse() as answer:
            yield answer
    finally:
        line.close()


def _headers(agent: str) -> dict[str, str]:
    return {"User-Agent": agent, "Accept-Encoding": "identity", "Connection": "close"}


def _named(host: str, parts: urllib.parse.SplitResult) -> str:
    host = f"[{host}]" if ":" in host else host
    return host if parts.port is None else f"{host}:{parts.port}"
