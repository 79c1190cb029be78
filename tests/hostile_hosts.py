"""Answers of a host that means harm or is broken, drawn by a seed: odd dates, numbers, addresses and bodies in odd places.

In: a random.Random. Out: the bytes of one answer.
"""

import random

HEADERS = [
    "Retry-After",
    "Retry-After",
    "Retry-After",
    "Location",
    "X-Robots-Tag",
    "Content-Length",
    "Transfer-Encoding",
    "Connection",
    "Date",
    "X",
]
STATUSES = [
    "200 OK",
    "200",
    "204 N",
    "301",
    "302 F",
    "308 x",
    "408",
    "429 S",
    "503 B",
    "101 S",
    "999",
    "99999",
    "-1",
    "?",
]
PROTOCOLS = ["HTTP/1.1"] * 30 + ["HTTP/1.0", "HTTP/0.9", "HTTP/2", "ICY", "HTTP/?"]
PIECES = [
    "0",
    "1",
    "-1",
    "99",
    "99999999999",
    "9" * 5000,
    "1e9",
    "0x10",
    "nan",
    "",
    "\u00b2",
    "\u0663",
    "\0",
    "\x1b[2J",
]
PIECES += ["\xff\xfe", "%00", " ", "\t", "a" * 3000, "+9999", "-0000", "chunked", ",", ";", ":", "noai", "none"]
DATES = [
    "Thu, 01 Dec ? 16:00:00 GMT",
    "1 Dec 9999999999? 1:1:1",
    "01 Dec 2030 ?:00:00 GMT",
    "Thu, ? Dec 2030 16:00:00 +?",
    "?",
    "? ? ? ? ?",
]
DATES += ["Thu, 01-Dec-? 1:?:?", "Dec ?, ?:?", "? ?:?.?", "Mon ? Foo", '"?" (?', "?/?/?"]
PLACES = ["http://?/", "http://[?]/", "//?", "//?:?/", "http://?:?@?/", "http://a?b/", "ht?tp://x", "http://xn--?/"]
PLACES += ["http://127.0.0.1:?/", "http://[::?%25?]/"]
VALUES = ["?", "?,?", "?: ?", "?;?=?"]
BODIES = [b"", b"abc", b"5\r\nabcde\r\n0\r\n\r\n", b"-5\r\nabc", b"f" * 30 + b"\r\nabc", b"\xff\r\n", bytes(200)]


def _filled(draw: random.Random, form: str) -> str:
    while "?" in form:
        form = form.replace("?", draw.choice(PIECES), 1)
    return form


def answer(draw: random.Random) -> bytes:
    lines = [_filled(draw, f"{draw.choice(PROTOCOLS)} {draw.choice(STATUSES)}").replace("\n", "")]
    for name in draw.choices(HEADERS, k=draw.randrange(1, 5)):
        forms = {"Retry-After": DATES, "Date": DATES, "Location": PLACES}.get(name, VALUES)
        lines.append(f"{name}{draw.choice([': ', ': ', ': ', ':', ' : ', ' '])}{_filled(draw, draw.choice(forms))}")
    head = draw.choice(["\r\n"] * 20 + ["\n", "\r"]).join([*lines, "", ""])
    return head.encode(draw.choice(["utf-8", "latin-1"]), "replace") + draw.choice(BODIES)
