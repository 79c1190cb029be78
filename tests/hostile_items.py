"""Hostile items from a seed, for tests/test_hostile_data.py: addresses, lines of lists, members of archives.

In: a seed, a web of failures, a port that nobody may knock at. Out: items with the statuses that `sources` may give them;
"*" stands for any reason but ok. An address of the open internet is never among them.
"""

import io
import json
import random
import struct
import tarfile
import zipfile
from pathlib import Path

import web_of_failures
from web_of_failures import OUTCOMES, picture

REFUSED = {"refused_address", "bad_url", "refused_scheme", "dns"}  # never asked for, under whichever name
SLOW = {"silent", "drip", "endless", "headers", "long"}  # few of these: they take time, not thought
CODES = [400, 401, 403, 404, 405, 410, 418, 429, 451, 500, 502, 503, 520, 599]

# Addresses that no list has any business with; {port} is where somebody listens who must not be asked.
PRIVATE = """
http://127.0.0.1:{port}/a.jpg http://localhost:{port}/a.jpg http://LOCALHOST:{port}/a.jpg http://x.localhost:{port}/a.jpg
http://localhost.:{port}/a.jpg http://127.0.0.1.:{port}/a.jpg http://0:{port}/a.jpg http://0.0.0.0:{port}/a.jpg
http://127.1:{port}/a.jpg http://2130706433:{port}/a.jpg http://0x7f000001:{port}/a.jpg http://0177.0.0.1:{port}/a.jpg
http://017700000001:{port}/a.jpg http://127.0.0.2:{port}/a.jpg http://127.255.255.254:{port}/a.jpg http://[::1]:{port}/a.jpg
http://[::]:{port}/a.jpg http://[::ffff:127.0.0.1]:{port}/a.jpg http://[::ffff:7f00:1]:{port}/a.jpg
http://[64:ff9b::7f00:1]:{port}/a.jpg http://[2002:7f00:1::]:{port}/a.jpg http://[::127.0.0.1]:{port}/a.jpg
http://１２７.０.０.１:{port}/a.jpg http://①②⑦.⓪.⓪.①:{port}/a.jpg http://127。0。0。1:{port}/a.jpg
http://ｌｏｃａｌｈｏｓｔ:{port}/a.jpg http://127.0.0.1:{web}@127.0.0.1:{port}/a.jpg http://user:word@127.0.0.1:{port}/a.jpg
http://127.0.0.1:{port}#@127.0.0.1:{web}/ok/a.jpg http://127.0.0.1:{port}?@127.0.0.1:{web}/ok/a.jpg
HTTP://127.0.0.1:{port}/a.jpg https://127.0.0.1:{port}/a.jpg https://localhost:{port}/a.jpg http://127.0.0.1:00{port}/a.jpg
http://10.0.0.1/a.jpg http://10.255.255.255:8080/a.jpg http://172.16.0.1/a.jpg http://172.31.9.9/a.jpg http://192.168.0.1/a.jpg
http://169.254.169.254/latest/meta-data http://169.254.0.1/a.jpg http://100.64.0.1/a.jpg http://192.0.0.1/a.jpg
http://192.0.2.1/a.jpg http://198.18.0.1/a.jpg http://203.0.113.9/a.jpg http://224.0.0.1/a.jpg http://240.0.0.1/a.jpg
http://255.255.255.255/a.jpg http://[fe80::1]/a.jpg http://[fc00::1]/a.jpg http://[fd00:ec2::254]/a.jpg http://[ff02::1]/a.jpg
http://[2001:db8::1]/a.jpg http://0xa9fea9fe/a.jpg http://169.254.43518/a.jpg http://127.0.0.1:22/a.jpg http://127.0.0.1/a.jpg
"""
SCHEMES = """
file:///etc/passwd file://127.0.0.1/etc/passwd file:/etc/passwd file:{folder}/secret.jpg FILE:///etc/passwd ftp://127.0.0.1:{port}/a.jpg
gopher://127.0.0.1:{port}/_x dict://127.0.0.1:{port}/d data:image/png;base64,iVBORw0KGgo= javascript:alert(1) s3://bucket/a.jpg
gs://bucket/a.jpg ldap://127.0.0.1:{port}/ jar:http://127.0.0.1:{port}!/a ws://127.0.0.1:{port}/ about:blank blob:x unix:/run/x
mailto:a@b.c ssh://127.0.0.1:{port} tel:1 urn:isbn:1 view-source:http://127.0.0.1:{port}/ localfile:///etc/passwd netdoc:///etc/passwd
"""
BAD = [
    "",
    " ",
    "http:",
    "http://",
    "http:///a.jpg",
    "://",
    "//",
    "//127.0.0.1:{port}/a.jpg",
    "/a.jpg",
    "a.jpg",
    "http://[",
]
BAD += [
    "http://]/",
    "http://[::1",
    "http://[v1.x]/",
    "http://[127.0.0.1]:{port}/",
    "http://127.0.0.1:99999/",
    "http://127.0.0.1:b/",
]
BAD += [
    "http://127.0.0.1:-1/",
    "http://127.0.0.1:0/",
    "http://a b/",
    "http://127.0.0.1:{port}/a b.jpg",
    "http://..../",
    "http://a..b/",
]
BAD += [
    f"http://{'a' * 300}.invalid/",
    f"http://{'a.' * 200}invalid/",
    "http://xn--/",
    "http://-.invalid/",
    "http://\u202e.invalid/",
]
BAD += [
    "http://127.0.0.1:{port}\\@127.0.0.1/",
    "http:\\\\127.0.0.1:{port}\\a",
    "http:/127.0.0.1:{port}/",
    "http:127.0.0.1:{port}/",
]
BAD += [
    "http://%31%32%37.0.0.1:{port}/",
    "http://127.0.0.1%00.invalid:{port}/",
    "http://\udcff.invalid/",
    "𝔥𝔱𝔱𝔭://127.0.0.1:{port}/",
]
BAD += [
    "http://127.0.0.1:{port}/\x01",
    "http://\x7f/",
    "\ufeffhttp://127.0.0.1:{port}/",
    "http://127.0.0.1:१२३/",
    "h" * 9_000,
]


class Hostile:
    """Draws items; every draw is a function of the seed and of the draws before it."""

    def __init__(self, seed: int, web, port: int, folder: Path):
        self.random, self.web, self.number, self.slow = random.Random(seed), web, 0, 1
        about = {"port": port, "web": web.port, "folder": folder}
        self.private, self.schemes = PRIVATE.format(**about).split(), SCHEMES.format(**about).split()
        self.bad = [text.replace("{port}", str(port)) for text in BAD]

    def name(self) -> str:
        self.number += 1
        return f"{self.number}.jpg"

    def url(self) -> tuple[str, set[str]]:
        """(address, the statuses it may end with)"""
        draw = self.random.choices(
            ["web", "slow", "code", "private", "scheme", "bad", "to"], [30, self.slow, 8, 20, 10, 20, 11]
        )[0]
        if draw == "web":
            what = self.random.choice(sorted(OUTCOMES.keys() - SLOW - {"once"}))
            return self.web.url(what, self.name()), {OUTCOMES[what]}
        if draw == "slow":
            what = self.random.choice(sorted(SLOW))
            return self.web.url(what, self.name()), {OUTCOMES[what]}
        if draw == "code":
            code = self.random.choice(CODES)
            return self.web.url(str(code), self.name()), {f"http_{code}"}
        if draw == "to":
            return self._redirect()
        drawn = self.random.choice({"private": self.private, "scheme": self.schemes, "bad": self.bad}[draw])
        return drawn, REFUSED | ({"connection"} if draw == "bad" else set())

    def _redirect(self) -> tuple[str, set[str]]:
        """To where nobody may go, at the first hop or the second."""
        target = self.random.choice([*self.private, *self.schemes])
        if not target.isascii():
            target = self.private[0]
        if self.random.random() < 0.3:
            target = self.web.url("to", self.name(), target)
        return self.web.url("to", self.name(), target), REFUSED

    def line(self, caption_first: bool = True) -> tuple[bytes, set[str]]:
        """A line of a two-column list, without its end."""
        url, statuses = self.url()
        caption = self.random.choice(
            [f"a red kettle on a table {self.name()}", 'a "quoted" thing, "', "'; drop table x; --", "=1+1"]
        )
        if self.random.random() < 0.5 or "\t" in url:
            cells = [caption, url] if caption_first else [url, caption]
            return "\t".join(cells).encode("utf-8", "surrogatepass"), {"*", "ok"} if not _plain(url) else statuses
        good = [caption.encode(), self.web.url("ok", self.name()).encode()]
        if not caption_first:
            good.reverse()
        return self._spoilt(good)

    def _spoilt(self, cells: list[bytes]) -> tuple[bytes, set[str]]:
        """A sound line, spoilt: the address is well, so that only the line itself decides."""
        whole, draw = b"\t".join(cells), self.random.randrange(12)
        noise = self.random.randbytes(self.random.randrange(1, 300)).replace(b"\n", b"").replace(b"\t", b"")
        wrong = {
            0: (cells[0], {"*"}),
            1: (whole + b"\tone more", {"*"}),
            2: (b"\t".join([*cells, *cells, *cells]), {"*"}),
            3: (b"\xff\xfe" + noise, {"*"}),
            4: (noise + b"\xff\t" + noise, {"*"}),
            5: (cells[0] + b"\0\t" + cells[1], {"*"}),
            6: (b"\0" * self.random.randrange(1, 50), {"*"}),
            7: ("Gr\xfc\xdfe \xe9\t".encode("latin-1") + cells[1], {"*"}),
            8: ("two\tparts".encode("utf-16"), {"*"}),
            9: (b"", {"*"}),
            10: (b"\xc0\xaf\xed\xa0\x80\t" + cells[1], {"*"}),
            11: (b"a line\x85of\x0bmany\x0cends \xe2\x80\xa8 \xc2\x85 \x1c\x1d \r in one\t" + cells[1], {"*", "ok"}),
        }
        return wrong[draw]

    def row(self) -> tuple[object, set[str]]:
        """An object of a JSON list with url and caption, or what stands in its place."""
        url, statuses = self.url()
        sound = {"url": url, "caption": f"a blue boat {self.name()}"}
        if self.random.random() < 0.6:
            return sound, statuses if _plain(url) else {"*", "ok"}
        odd = [
            None,
            1,
            -0.0,
            "text",
            [],
            {},
            True,
            [sound],
            {"url": url},
            {"caption": "alone"},
            {"url": [url], "caption": "x"},
        ]
        odd += [{"url": url, "caption": other} for other in (None, 5, {}, "\0", "\ud800", "x" * 20_000)]
        odd += [{"url": None, "caption": "x"}, {"url": 7, "caption": "x"}, {"url": {"a": [1]}, "caption": "x"}]
        odd += [
            {"__class__": "os.system", "url": "", "caption": "x"},
            sound | {"url": "", "$ref": "file:///etc/passwd"},
        ]
        return self.random.choice(odd), {"*"}

    def talk(self) -> bytes:
        """A line of a dialogue set in JSONL, sound in a third of the draws."""
        sound = {"context": [f"what is it {self.name()}", "look"], "response": "a kettle"}
        odd = [None, 1, [], {}, "text", {"context": "no list", "response": "x"}, {"context": [], "response": "x"}]
        odd += [sound | {"response": other} for other in (None, 7, "", " \u3000 ", ["x"], "x" * 20_000)]
        odd += [sound | {"context": [[["deep"]]]}, sound | {"context": ["\0", "\x1b[2J\x1b]0;owned\x07"]}]
        odd += [sound | {"context": ["x"] * 5000}, sound | {"context": ["\ud800"]}, {"response": "alone"}]
        raw = [b"", b"{", b"\0\0", b"\xff\xfe{}", b"[" * 5000, b"{" * 5000, b'{"context": 1e999}', b"NaN", b"9" * 6000]
        raw += [self.random.randbytes(80).replace(b"\n", b""), b'{"context": ["a"], "response": "\x1b[31m\xc3"}']
        draw = self.random.randrange(3)
        return (
            json.dumps(sound).encode()
            if draw == 0
            else self.random.choice(raw if draw == 1 else [_line(o) for o in odd])
        )

    def image(self) -> tuple[bytes, set[str]]:
        """A picture, or what calls itself one."""
        whole = picture(self.name(), form=self.random.choice(["JPEG", "PNG", "GIF", "WEBP", "BMP"]))
        draw = self.random.choice(["ok", "cut", "bomb", "noise", "html", "empty", "svg", "exe", "zip", "lies"])
        bodies = {
            "ok": whole,
            "cut": whole[: len(whole) // 2],
            "bomb": web_of_failures.bomb(),
            "noise": self.random.randbytes(500),
            "html": b"<html><script>alert(1)</script>",
            "empty": b"",
            "svg": b'<svg xmlns="http://www.w3.org/2000/svg"><image href="file:///etc/passwd"/></svg>',
            "exe": b"MZ" + bytes(600),
            "zip": b"PK\x03\x04" + bytes(600),
            "lies": whole[:4] + self.random.randbytes(400),
        }
        return bodies[draw], {"ok"} if draw == "ok" else {"*"}


def _line(value) -> bytes:
    return json.dumps(value).encode()


def _plain(url: str) -> bool:
    """Nothing in it that a list's own form (lines, columns, UTF-8) would stumble over first."""
    return url.isascii() and url.isprintable() and url == url.strip() and len(url) < 2000


EVIL = [
    "../../sentinel/{n}.jpg",
    "/{root}/sentinel/{n}.jpg",
    "a/../../../sentinel/{n}.jpg",
    "..\\..\\sentinel\\{n}.jpg",
]
EVIL += [
    "C:\\{n}.jpg",
    "./../{n}.jpg",
    "{n}.jpg/../../../sentinel/x{n}.jpg",
    "{n}" + "x" * 300 + ".jpg",
    "\u202e{n}gpj.exe.jpg",
]


def write_tar(path: Path, hostile: Hostile, items: int, captions: bool = True) -> int:
    """A tar of `items` pictures, evil in name, kind or bytes, each with its caption; gives the number of its files."""
    files = 0
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as tar:
        for number in range(items):
            data, _ = hostile.image()
            name = _name(hostile, number, path.parent)
            kind = hostile.random.choices([b"0", b"1", b"2", b"3", b"4", b"6"], [20, 1, 1, 1, 1, 1])[0]
            member = tarfile.TarInfo(name)
            member.type, member.linkname = kind, "/etc/passwd" if kind in b"12" else ""
            member.size = len(data) if kind == b"0" else 0
            tar.addfile(member, io.BytesIO(data))
            files += 1
            if captions and kind == b"0":
                text = json.dumps({"caption": f"a green tree {number}"}).encode()
                member = tarfile.TarInfo(name.rpartition(".")[0] + ".json")
                member.size = len(text)
                tar.addfile(member, io.BytesIO(text))
                files += 1
    return files


def _name(hostile: Hostile, number: int, root: Path) -> str:
    if hostile.random.random() < 0.7:
        return f"{number:06d}.jpg"
    return hostile.random.choice(EVIL).format(n=number, root=str(root).strip("/"))


def write_zip(path: Path, hostile: Hostile, items: int) -> list[str]:
    """A zip of pictures, some under evil names, one a bomb of a gigabyte; gives the names."""
    names = []
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for number in range(items):
            name = _name(hostile, number, path.parent)
            member = zipfile.ZipInfo(name)
            if hostile.random.random() < 0.05:
                member.external_attr = 0o120777 << 16  # a symbolic link
            archive.writestr(member, hostile.image()[0])
            names.append(name)
        with archive.open("bomb.jpg", "w", force_zip64=True) as bomb:
            for _ in range(100):
                bomb.write(bytes(1_000_000))
    return [*names, "bomb.jpg"]


def harmed(data: bytes, random: random.Random) -> bytes:
    """The bytes with some flipped, cut, doubled or swollen: what a bad disk or a bad joke makes of a file."""
    data = bytearray(data)
    for _ in range(random.choice([1, 1, 3, 30])):
        at = random.randrange(max(1, len(data)))
        draw = random.randrange(5)
        if draw == 0 and data:
            data[at] ^= 1 << random.randrange(8)
        elif draw == 1:
            del data[at : at + random.randrange(1, 100)]
        elif draw == 2:
            data[at:at] = random.randbytes(random.randrange(1, 50))
        elif draw == 3:
            data[at : at + 4] = struct.pack("<I", random.choice([0, 1, 2**31 - 1, 2**32 - 1]))
        elif random.random() < 0.2:
            del data[at:]
    return bytes(data)
