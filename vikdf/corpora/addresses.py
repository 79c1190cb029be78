"""Which addresses of the web may be asked for.

In: the text of a url, or an address that a name was resolved to. Out: whether it is open to all, and what is wrong if not.

Refused are other schemes than http and https; private, link-local, site-local, loopback, multicast, documentation's and
reserved addresses, in every
way of writing them (one number, hexadecimal, octal, IPv4 inside IPv6, an IPv6 zone); ports that belong to other services,
as browsers refuse them; and urls that carry a user or a password, which are tricks or secrets.

White space around a url goes, and inside its path or query it is percent-encoded when it is asked for, as browsers do;
in a host it is no address, and control characters are none anywhere.
"""

import dataclasses
import ipaddress
import re
import socket
import urllib.parse

PORTS = {"http": 80, "https": 443}
# The "bad ports" of the WHATWG's Fetch Standard (fetch.spec.whatwg.org/#port-blocking), where mail, printers and the like
# listen: a request there could be taken for a command. All browsers refuse these, and no others.
BAD_PORTS = frozenset(
    map(
        int,
        """
    0 1 7 9 11 13 15 17 19 20 21 22 23 25 37 42 43 53 69 77 79 87 95 101 102 103 104 109 110 111 113 115 117 119 123 135
    137 139 143 161 179 389 427 465 512 513 514 515 526 530 531 532 540 548 554 556 563 587 601 636 989 990 993 995 1719
    1720 1723 2049 3659 4045 4190 5060 5061 6000 6566 6665 6666 6667 6668 6669 6679 6697 10080
    """.split(),
    )
)
LONGEST = 8192  # characters: no server has to read more of an address
NUMBERS = re.compile(r"(0x[0-9a-f]*|\d+)(\.(0x[0-9a-f]*|\d+)){0,3}\.?", re.IGNORECASE)
NAT64 = ipaddress.ip_network("64:ff9b::/96")  # IPv4 as hosts that only speak IPv6 see it
IPV4_COMPATIBLE = ipaddress.ip_network("::/96")
# Python 3.11 calls these two global: what came before fc00::/7, and the second block for documentation (RFC 9637).
NOT_OPEN = (ipaddress.ip_network("fec0::/10"), ipaddress.ip_network("3fff::/20"))


@dataclasses.dataclass(frozen=True)
class Limits:
    timeout: float  # seconds a host may be silent
    deadline: float  # seconds one picture may take in all, from the name's lookup to the last byte, redirects included
    max_bytes: int
    max_pixels: int
    loopback_port: int  # the embedded world's; 0 where there is none


def address_status(url: str, limits: Limits) -> str:
    """Empty for an address that may be asked for; what can be said of the text alone, before any name is looked up."""
    url = url.strip()
    try:
        return _status(urllib.parse.urlsplit(url), limits) if _sound(url) else "bad_url"
    except ValueError:  # no port, no name that the protocol knows, a bracket too few
        return "bad_url"


def _sound(url: str) -> bool:
    return len(url) <= LONGEST and not re.search(r"[\x00-\x1f\x7f-\x9f]", url)


def _status(parts: urllib.parse.SplitResult, limits: Limits) -> str:
    if parts.scheme and parts.scheme not in PORTS:
        return "refused_scheme"
    if not parts.scheme or not parts.hostname or "@" in parts.netloc:
        return "bad_url"
    host, port = host_of(parts), port_of(parts)
    if re.search(r"\s", parts.netloc + host):  # the second: letters that the protocol writes as a space
        return "bad_url"
    return _host_status(host, port, limits) or ("refused_port" if port in BAD_PORTS else "")


def _host_status(host: str, port: int, limits: Limits) -> str:
    if address := literal(host):
        return "" if is_open(address, port, limits) else "refused_address"
    if NUMBERS.fullmatch(host):
        return "bad_url"
    name = host.rstrip(".")
    local = name == "localhost" or name.endswith(".localhost")
    return "refused_address" if local and port != limits.loopback_port else ""


def host_of(parts: urllib.parse.SplitResult) -> str:
    """The host in the letters of the protocol: real lists hold names beyond ASCII."""
    return parts.hostname if parts.hostname.isascii() else parts.hostname.encode("idna").decode()


def port_of(parts: urllib.parse.SplitResult) -> int:
    return PORTS[parts.scheme] if parts.port is None else parts.port


def literal(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """The address that a host spells out, also in the forms that only the C library knows; None for a name."""
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        pass
    try:
        return ipaddress.IPv4Address(socket.inet_aton(host.rstrip("."))) if NUMBERS.fullmatch(host) else None
    except OSError:
        return None


def is_open(address: ipaddress.IPv4Address | ipaddress.IPv6Address, port: int, limits: Limits) -> bool:
    """Whether all the world may ask this address; loopback is open at the embedded world's own port only."""
    address = getattr(address, "ipv4_mapped", None) or address
    if address.is_loopback:
        return port == limits.loopback_port != 0
    if getattr(address, "scope_id", None) is not None:
        return False
    inner = _inside(address)
    if any(inner in network for network in NOT_OPEN):
        return False
    return inner.is_global and not (inner.is_multicast or inner.is_reserved or inner.is_loopback)


def _inside(address):
    """The IPv4 address that a gateway would make of an IPv6 one, else the address."""
    if address.version == 6 and (address in NAT64 or address in IPV4_COMPATIBLE):
        return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    return getattr(address, "sixtofour", None) or address


def target(parts: urllib.parse.SplitResult) -> str:
    """Path and query as the request line wants them: real lists hold letters beyond ASCII."""
    path, query = (urllib.parse.quote(part, safe="/%:=&?~+!$,;'@()*[]") for part in (parts.path, parts.query))
    return (path or "/") + (f"?{query}" if query else "")


def next_url(url: str, location: str) -> str:
    """Where a redirect leads; its bytes come as Latin-1, whatever they were."""
    return urllib.parse.urljoin(url, urllib.parse.quote(location, safe="/%:=&?~+!$,;'@()*[]#", encoding="latin-1"))
