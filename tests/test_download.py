"""download: one address of the open web, with hosts that drip, loop, lie, never end or lead to private addresses."""

import email.message
import email.utils
import random
import re
import shutil
import socket
import ssl
import subprocess
import time
from collections import Counter, defaultdict

import pytest
from hostile_hosts import answer
from rough_web import drip, rough_web, said, to

from vikdf.corpora import addresses, hops
from vikdf.corpora.addresses import Limits, address_status
from vikdf.corpora.download import TRANSIENT, agent, download, opted_out, parted

LIMITS = Limits(timeout=1, deadline=2, max_bytes=1000, max_pixels=1000, loopback_port=0)
BODY = b"these bytes"


def one(answer, path: str = "/x", **limits) -> tuple:
    """What a download says of a host that answers so."""
    with rough_web({path: answer}) as web:
        return download(web.url(path), web.limits(**limits), agent(""))


def at_once(*sent: bytes):
    return lambda line, n: [line.sendall(some) for some in sent]


@pytest.mark.parametrize(
    "url,status",
    {
        "http://example.org:8080/a.jpg": "",
        "http://example.org:81/a.jpg": "",
        "http://example.org:25/a.jpg": "refused_port",
        "https://example.org:22/a.jpg": "refused_port",
        "http://example.org:6667/a.jpg": "refused_port",
        "http://[2606:4700::1]:25/a.jpg": "refused_port",
        "http://127.0.0.1:25/a.jpg": "refused_address",
        "http://example.org:0/a.jpg": "refused_port",
        "  http://example.org/a.jpg\r\n": "",
        "http://example.org/a b.jpg?c d": "",
        "http://example.org/a\u00a0b.jpg": "",
        "http://a b/c.jpg": "bad_url",
        "http://a\u00a0b/c.jpg": "bad_url",
        "http://example.org /c.jpg": "bad_url",
        "http://example.org/a\tb.jpg": "bad_url",
        "http://example.org/a\x00b.jpg": "bad_url",
        "http://example.org/a\x85b.jpg": "bad_url",
        "http://example.org:99999/a.jpg": "bad_url",
        "http://user:word@example.org/a.jpg": "bad_url",
        "http://example.org\\@127.0.0.1/a.jpg": "bad_url",
        "http://2130706433/a.jpg": "refused_address",
        "http://0x7f000001/a.jpg": "refused_address",
        "http://0x7f.1/a.jpg": "refused_address",
        "http://0177.0.0.1/a.jpg": "refused_address",
        "http://127.1/a.jpg": "refused_address",
        "http://127.000.000.001/a.jpg": "refused_address",
        "http://127.0.0.1./a.jpg": "refused_address",
        "http://①②⑦.⓪.⓪.①/a.jpg": "refused_address",
        "http://0/a.jpg": "refused_address",
        "http://134744072/a.jpg": "",  # 8.8.8.8: open to all, however it is written
        "http://300.1.1.1/a.jpg": "bad_url",
        "http://100.64.0.1/a.jpg": "refused_address",
        "http://224.0.0.1/a.jpg": "refused_address",
        "http://255.255.255.255/a.jpg": "refused_address",
        "http://[::]/a.jpg": "refused_address",
        "http://[::127.0.0.1]/a.jpg": "refused_address",
        "http://[::ffff:127.0.0.1]/a.jpg": "refused_address",
        "http://[::ffff:8.8.8.8]/a.jpg": "",
        "http://[2002:7f00:1::]/a.jpg": "refused_address",
        "http://[2002:a00:1::1]/a.jpg": "refused_address",
        "http://[64:ff9b::a00:1]/a.jpg": "refused_address",
        "http://[64:ff9b::808:808]/a.jpg": "",
        "http://[fe80::1%25eth0]/a.jpg": "refused_address",
        "http://[2606:4700::1%25eth0]/a.jpg": "refused_address",
        "http://[2606:4700::1]/a.jpg": "",
        "http://[fc00::1]/a.jpg": "refused_address",
        "http://[fec0::1]/a.jpg": "refused_address",
        "http://[feff::1]/a.jpg": "refused_address",
        "http://[3fff::1]/a.jpg": "refused_address",
        "http://[3fff:fff::1]/a.jpg": "refused_address",
        "http://[3fff:1000::1]/a.jpg": "",
        "http://[ff02::1]/a.jpg": "refused_address",
        "http://localhost./a.jpg": "refused_address",
        "data:image/png;base64,AAAA": "refused_scheme",
        "javascript:alert(1)": "refused_scheme",
        "gopher://example.org/": "refused_scheme",
        "//example.org/a.jpg": "bad_url",
        "http://example.org/\r\nHost: other": "bad_url",
        "http://example.org/" + "a" * 10_000: "bad_url",
        "http://" + "a" * 64 + "ä.example.org/": "bad_url",
    }.items(),
)
def test_the_text_of_an_address_says_whether_it_may_be_asked(url, status):
    assert address_status(url, LIMITS) == status


@pytest.mark.parametrize("found", ["10.0.0.1", "127.0.0.1", "::1", "fe80::1%2", "64:ff9b::7f00:1", "2002:a00:1::"])
def test_a_name_that_leads_to_a_private_address_is_refused_where_it_connects(found, monkeypatch):
    family = socket.AF_INET6 if ":" in found else socket.AF_INET
    both = [(socket.AF_INET, 0, 0, "", ("8.8.8.8", 80)), (family, 0, 0, "", (found, 80))]
    monkeypatch.setattr(hops.socket, "getaddrinfo", lambda *_, **__: both)
    assert download("http://innocent.example/a.jpg", LIMITS, agent("")) == (None, "refused_address")


def test_a_lookup_that_hangs_ends_with_the_deadline(monkeypatch):
    monkeypatch.setattr(hops.socket, "getaddrinfo", lambda *_, **__: time.sleep(1))
    limits = Limits(timeout=1, deadline=0.2, max_bytes=1, max_pixels=1, loopback_port=0)
    assert download("http://slow.example/a.jpg", limits, agent("")) == (None, "dns")


@pytest.mark.parametrize(
    "answer",
    {
        "headers": drip(b"HTTP/1.1 200 OK\r\nX-A: ", b"a"),
        "status": drip(b"H", b"T"),
        "body": drip(b"HTTP/1.1 200 OK\r\n\r\n", b"a"),
        "chunks": drip(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"1\r\na\r\n"),
        "continue": drip(b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
        "silent": lambda line, n: line.recv(1),
    }.items(),
    ids=lambda item: item[0],
)
def test_the_deadline_covers_headers_and_body_dripped_a_byte_at_a_time(answer):
    assert one(answer[1], deadline=0.4) == (None, "timeout")


def test_the_deadline_covers_a_chain_of_slow_redirects():
    def slow(line, n):
        time.sleep(0.3)
        line.sendall(said("302 Found", Location="/x"))

    assert one(slow, deadline=0.8) == (None, "timeout")


def test_the_deadline_covers_a_handshake_that_never_ends():
    with socket.create_server(("127.0.0.1", 0)) as silent:
        limits = Limits(2, 0.4, 1000, 1000, loopback_port=silent.getsockname()[1])
        url = f"https://127.0.0.1:{limits.loopback_port}/a.jpg"
        assert download(url, limits, agent("")) == (None, "timeout")


def test_a_host_that_speaks_no_tls_is_named():
    with rough_web({}) as web:
        assert download(f"https://127.0.0.1:{web.port}/x", web.limits(timeout=0.5), agent(""))[1] in ("tls", "timeout")


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    """(what a server shows, who trusts it): made anew, for 127.0.0.1."""
    if not shutil.which("openssl"):
        pytest.skip("openssl, which makes the certificate, is not installed")
    key, made = (tmp_path_factory.mktemp("tls") / name for name in ("key.pem", "made.pem"))
    about = ["-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1", "-days", "2"]
    new = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    subprocess.run([*new, "-keyout", key, "-out", made, *about], check=True, capture_output=True)
    shown, trusting = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.create_default_context(cafile=made)
    shown.load_cert_chain(made, key)
    trusting.sslsocket_class = hops.Secure
    return shown, trusting


def test_https_is_read_as_http_is_and_its_redirects_are_checked_as_well(certificate, monkeypatch):
    monkeypatch.setattr(hops, "tls", lambda: certificate[1])
    slow = drip(b"HTTP/1.1 200 OK\r\nX-A: ", b"a")
    with rough_web({"/x": at_once(said(body=BODY)), "/slow": slow}, certificate[0]) as web:
        url = web.url("/x").replace("http:", "https:")
        assert download(url, web.limits(), agent("")) == (BODY, "ok")
        assert download(url.replace("/x", "/slow"), web.limits(deadline=0.5), agent("")) == (None, "timeout")
        web.answers["/down"] = to("http://10.0.0.1/a.jpg")
        assert download(url.replace("/x", "/down"), web.limits(), agent("")) == (None, "refused_address")
        assert "host: 127.0.0.1" in web.heads[0].lower()


def test_a_certificate_that_nobody_vouches_for_is_refused(certificate):
    with rough_web({"/x": at_once(said(body=BODY))}, certificate[0]) as web:
        assert download(web.url("/x").replace("http:", "https:"), web.limits(), agent("")) == (None, "tls")


@pytest.mark.parametrize(
    "sent,status",
    [
        ([b"HTTP/1.1 200 OK\r\n", *[b"X-A: " + b"a" * 1000 + b"\r\n"] * 90], "too_many_headers"),
        ([b"HTTP/1.1 200 OK\r\nX-A: " + b"a" * 70_000], "too_many_headers"),
        ([b"HTTP/1.1 100 Continue\r\n\r\n"] * 5000, "too_many_headers"),
        ([b"HTTP/1.1 200 OK\r\n", *[b"X-A: a\r\n"] * 200, b"\r\n"], "too_many_headers"),
        ([said(body=BODY, Content_Length="999999999")], "too_many_bytes"),
        ([said(body=bytes(60_000), Content_Length=None)], "too_many_bytes"),
        ([said(body=b"1\r\na\r\n" * 60_000, Content_Length=None, Transfer_Encoding="chunked")], "too_many_bytes"),
        ([said(body=b"1;" + b"a" * 200_000, Content_Length=None, Transfer_Encoding="chunked")], "broken_answer"),
        ([said(body=BODY)[:-3]], "connection"),
        ([said(body=b"a\r\nabc", Content_Length=None, Transfer_Encoding="chunked")], "connection"),
        ([], "connection"),
        ([b"\x00\x01 garbage \xff\r\n\r\n"], "broken_answer"),
        ([said("999 What", BODY)], "http_999"),
        ([said("204 No Content")], "ok"),
        ([said(body=BODY, Content_Length=None)], "ok"),
    ],
)
def test_what_a_host_sends_is_bounded_and_named(sent, status):
    assert one(at_once(*sent))[1] == status


@pytest.mark.parametrize(
    "location,status",
    {
        "http://10.0.0.1/a.jpg": "refused_address",
        "http://169.254.169.254/latest/meta-data": "refused_address",
        "http://127.0.0.1:22/": "refused_address",
        "http://[::1]/": "refused_address",
        "//2130706433/": "refused_address",
        "file:///etc/passwd": "refused_scheme",
        "ftp://example.org/a.jpg": "refused_scheme",
        "http://example.org:25/": "refused_port",
        "http://user@example.org/": "bad_url",
        "http://[broken/": "bad_url",
        "/x": "too_many_redirects",
    }.items(),
)
def test_a_redirect_leads_nowhere_that_a_list_may_not(location, status):
    assert one(to(location)) == (None, status)


def test_redirects_are_followed_to_a_bound_and_say_who_asks_and_nothing_else(monkeypatch):
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:9")
    answers = {f"/{n}": to(f"/{n + 1}", Set_Cookie="a=b; Path=/") for n in range(7)}
    answers |= {"/7": at_once(said(body=BODY)), "/b%C3%A4": at_once(said(body=BODY)), "/a": to("/b\xc3\xa4")}
    with rough_web(answers) as web:
        assert download(web.url("/2"), web.limits(), agent("me@example.org")) == (BODY, "ok")
        assert download(web.url("/1"), web.limits(), agent("")) == (None, "too_many_redirects")
        assert web.asked["/1"] == 1 and web.asked["/7"] == 1
        heads = "".join(web.heads).lower()
        assert "cookie" not in heads and "authorization" not in heads and "referer" not in heads
        assert "user-agent: vikdf/" in heads and "me@example.org" in heads


def test_a_redirect_of_utf8_letters_is_followed():
    utf8 = b"HTTP/1.1 301 Moved\r\nLocation: /\xc3\xa4\r\nContent-Length: 0\r\n\r\n"
    with rough_web({"/x": at_once(utf8), "/%C3%A4": at_once(said(body=BODY))}) as web:
        assert download(web.url("/x"), web.limits(), agent("")) == (BODY, "ok")


def test_white_space_in_a_path_or_query_is_asked_for_as_browsers_do():
    with rough_web({"/a%20b/%C2%A0c.jpg?d%20e": at_once(said(body=BODY))}) as web:
        assert download(f" {web.url('/a b/')}\u00a0c.jpg?d e\n", web.limits(), agent("")) == (BODY, "ok")
        web.answers["/x"] = to("/a b/\u00a0c.jpg?d e")
        assert download(web.url("/x"), web.limits(), agent("")) == (BODY, "ok")


def test_the_ports_of_other_services_are_all_those_that_browsers_refuse():
    assert len(addresses.BAD_PORTS) == 83 and not addresses.BAD_PORTS & {80, 81, 443, 8000, 8080}


def headers_of(*values: str):
    message = email.message.Message()
    for value in values:
        message["X-Robots-Tag"] = value
    return message


@pytest.mark.parametrize(
    "values,out",
    [
        (["noai"], True),
        (["NoImageAI"], True),
        (["all"], False),
        (["nofollow, noindex"], True),
        (["none"], True),
        (["otherbot: noai, noindex"], False),
        (["vikdf: noai"], True),
        (["noai, unavailable_after: 25 Jun 2030 15:00:00 GMT"], True),
        (["unavailable_after: 25 Jun 2030 15:00:00 GMT, noai"], True),
        (["max-image-preview: large"], False),
        (["otherbot: noai", "noindex"], True),
    ],
)
def test_an_opt_out_is_honoured_where_it_is_meant_for_all_or_for_us(values, out):
    assert opted_out(headers_of(*values)) == out


def test_a_redirect_may_opt_out_too():
    assert one(to("/elsewhere", X_Robots_Tag="noai")) == (None, "opt_out")


NO_DAYS = [("Thu, 01 Dec 99999999999 16:00:00 GMT", 0), ("1 Dec 9 9:9:9", 0)]


@pytest.mark.parametrize("value,seconds", [("120", 120), ("", 0), ("soon", 0), ("-5", 0), ("٣", 0), *NO_DAYS])
def test_a_host_that_says_when_to_come_back_is_heard(value, seconds):
    data, status = one(at_once(said("503 Busy", Retry_After=value.encode().decode("latin-1"))))
    assert data is None and parted(status) == ("http_503", seconds)


def test_nothing_that_a_host_says_escapes_as_an_error(monkeypatch):
    def nowhere(*_, **__):
        raise socket.gaierror("no name is known here")

    monkeypatch.setattr(hops.socket, "getaddrinfo", nowhere)
    draw, found, answers = random.Random(3), Counter(), defaultdict(lambda: at_once(said(body=BODY)))
    with rough_web(answers) as web:
        for _ in range(600):
            sent = answer(draw)
            answers["/x"] = at_once(sent)
            data, status = download(web.url("/x"), web.limits(timeout=0.5), agent(""))
            assert (data is not None) == (status == "ok") and re.fullmatch(r"[a-z_]+(\d+( \d+)?)?", status), (
                sent,
                status,
            )
            found[parted(status)[0]] += 1
    assert len(found) > 12, "the answers are not all refused at their first line"


def test_a_date_to_come_back_is_read_as_seconds():
    status = one(at_once(said("429 Slow", Retry_After=email.utils.formatdate(time.time() + 100, usegmt=True))))[1]
    assert parted(status)[0] == "http_429" and 90 <= parted(status)[1] <= 100


@pytest.mark.parametrize("status", ["timeout", "dns", "connection", "http_408", "http_429", "http_500", "http_599"])
def test_what_may_pass_is_transient(status):
    assert TRANSIENT.fullmatch(status)


@pytest.mark.parametrize("status", ["ok", "http_404", "http_410", "http_403", "opt_out", "tls", "refused_address"])
def test_what_a_host_meant_is_final(status):
    assert not TRANSIENT.fullmatch(status)


def test_a_public_ipv4_inside_ipv6_is_judged_by_itself():
    assert addresses.is_open(addresses.literal("64:ff9b::808:808"), 80, LIMITS)
    assert not addresses.is_open(addresses.literal("2002:7f00:1::"), 80, LIMITS)
