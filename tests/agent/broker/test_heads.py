"""What is asked of a proxy, which bytes of it are sent on, and what is no plain request."""

import base64
from itertools import pairwise

import pytest

from samovard.agent.broker.heads import MAX_HEAD, Answer, Ask, Body, ask_of, asks_a_proxy, may

TUNNEL = b"CONNECT files.example:443 HTTP/1.1\r\nHost: files.example:443\r\n\r\n"


@pytest.mark.parametrize(
    "first", [TUNNEL, b"GET http://a/ HTTP/1.1\r\n", b"POST HTTP://a/ HTTP/1.1"]
)
def test_a_proxys_request_is_known_by_its_first_bytes(first: bytes) -> None:
    """However few come at once: never taken for another before that."""
    known = [asks_a_proxy(first[:length]) for length in range(1, len(first))]
    assert known[-1] is True
    assert set(known) == {None, True}
    assert sorted(known, key=bool) == known


@pytest.mark.parametrize(
    "first",
    [
        *(b"POST /token/v1/messages HTTP/1.1", b"GET https://a/ HTTP/1.1", b"OPTIONS * HTTP/1.1"),
        *(b"\r\nCONNECT a:443 HTTP/1.1", b"connect a:443 HTTP/1.1", b"\x16\x03\x01", b"GET //a/ "),
        *(b"P" * 17, b"GET http:/a", b" ", b"\0", b"PRI * HTTP/2.0"),
    ],
)
def test_all_else_is_the_apis(first: bytes) -> None:
    """It is led there as soon as that is sure."""
    assert asks_a_proxy(first) is False


def test_a_tunnel_is_asked_for() -> None:
    """By its first line alone."""
    assert ask_of(TUNNEL) == Ask("files.example", 443, "")
    assert ask_of(b"CONNECT [2606:4700::1]:443 HTTP/1.0\r\n\r\n") == Ask("2606:4700::1", 443, "")


def test_a_request_is_sent_on_without_what_is_for_the_proxy() -> None:
    """And asks for the end of its connection."""
    ask = ask_of(
        b"GET http://Files.Example/a%20b?c=d HTTP/1.1\r\nhost: files.example:80\r\n"
        b"Proxy-Authorization: Basic eA==\r\nProxy-Connection: keep-alive\r\nX-Hop: 1\r\n"
        b"Connection: keep-alive, X-Hop\r\nKeep-Alive: 5\r\nTE: trailers\r\nUpgrade: h2c\r\n"
        b"Trailer: x\r\nAccept: */*\r\nCookie: a=b\xe9\r\n\r\n"
    )
    assert (ask.host, ask.port, ask.credentials) == ("files.example", 80, "Basic eA==")
    assert ask.onward == (
        b"GET /a%20b?c=d HTTP/1.1\r\nHost: files.example\r\nAccept: */*\r\nCookie: a=b\xe9\r\n"
        b"Connection: close\r\n\r\n"
    )
    assert ask.body is not None
    assert ask.body.done


@pytest.mark.parametrize(
    ("target", "line", "host"),
    [
        (b"http://a.example", b"/", b"a.example"),
        (b"http://a.example?x", b"/?x", b"a.example"),
        (b"hTTp://a.example:8080/", b"/", b"a.example:8080"),
        (b"http://[2606:4700::1]:8080/x", b"/x", b"[2606:4700::1]:8080"),
        (b"http://[2606:4700::1]/http://b.example/", b"/http://b.example/", b"[2606:4700::1]"),
    ],
)
def test_the_host_is_that_of_the_address(target: bytes, line: bytes, host: bytes) -> None:
    """In its usual form, whatever its header said of the same."""
    ask = ask_of(b"GET %b HTTP/1.1\r\nHost: %b\r\n\r\n" % (target, host))
    assert ask.onward == b"GET %b HTTP/1.1\r\nHost: %b\r\nConnection: close\r\n\r\n" % (line, host)


GET = b"GET http://a.example/ HTTP/1.1\r\nHost: a.example\r\n"
POST = GET.replace(b"GET", b"POST")
CHUNKED = b"Transfer-Encoding: chunked\r\n"


@pytest.mark.parametrize(
    "head",
    [
        b"CONNECT a.example HTTP/1.1\r\n\r\n",
        b"CONNECT http://a.example:443 HTTP/1.1\r\n\r\n",
        b"CONNECT a.example:443/x HTTP/1.1\r\n\r\n",
        b"CONNECT  a.example:443 HTTP/1.1\r\n\r\n",
        b"CONNECT a.example:443 HTTP/2.0\r\n\r\n",
        b"CONNECT a.example:443 HTTP/1.1 \r\n\r\n",
        b"CONNECT a.example:443\r\n\r\n",
        b"CONNECT a.example:443 HTTP/1.1\r\n folded: x\r\n\r\n",
        b"CONNECT a.example:443 HTTP/1.1\r\n: x\r\n\r\n",
        b"CONNECT a.example:443 HTTP/1.1\r\nname : x\r\n\r\n",
        b"CONNECT a.example:443 HTTP/1.1\r\nname: x\ny: z\r\n\r\n",
        b"CONNECT a.example:443 HTTP/1.1\r\nname: x\ry: z\r\n\r\n",
        b"CONNECT a.example:443 HTTP/1.1\r\nname: \0\r\n\r\n",
        b"CONNECT a.example:443 HTTP/1.1\nname: x\r\n\r\n",
        GET.replace(b"Host", b"X") + b"\r\n",
        GET + b"Host: a.example\r\n\r\n",
        GET.replace(b"Host: a", b"Host: b") + b"\r\n",
        GET.replace(b"Host: a.example", b"Host: a.example:8080") + b"\r\n",
        GET.replace(b"Host: a.example", b"Host: ") + b"\r\n",
        GET.replace(b"http://", b"http://me@") + b"\r\n",
        GET.replace(b"http://", b"http://b.example\\@") + b"\r\n",
        GET.replace(b"example/", b"example/#x") + b"\r\n",
        GET.replace(b"a.example/", b"/") + b"\r\n",
        GET.replace(b"example/", b"example/\xff") + b"\r\n",
        GET + b"Connection: host\r\n\r\n",
        POST + b"Connection: Content-Length\r\nContent-Length: 1\r\n\r\n",
        POST + b"Connection: x, transfer-encoding\r\n" + CHUNKED + b"\r\n",
        POST + b"Content-Length: 1\r\nContent-Length: 1\r\n\r\n",
        POST + b"Content-Length: 1, 1\r\n\r\n",
        POST + b"Content-Length: -1\r\n\r\n",
        POST + b"Content-Length: 1_0\r\n\r\n",
        POST + b"Content-Length: \r\n\r\n",
        POST + b"Content-Length: 1\r\n" + CHUNKED + b"\r\n",
        POST + CHUNKED + CHUNKED + b"\r\n",
        POST + b"Transfer-Encoding: gzip, chunked\r\n\r\n",
        POST.replace(b"1.1", b"1.0") + CHUNKED + b"\r\n",
        b"\r\n\r\n",
    ],
)
def test_what_two_readers_may_read_in_two_ways_is_refused(head: bytes) -> None:
    """Where it leads to, or where it ends."""
    with pytest.raises(ValueError, match=r".+"):
        ask_of(head)


def basic(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def test_the_password_is_the_token() -> None:
    """Of its user, in its usual form, once."""
    assert may(f"Basic {basic('samovar:token')}", "token")
    assert may(f"bAsIc  {basic('samovar:token')}", "token")
    for wrong in (
        "",
        "Basic",
        "Basic token",
        f"Bearer {basic('samovar:token')}",
        f"Basic {basic('samovar:token2')}",
        f"Basic {basic('samovar:')}",
        f"Basic {basic('me:token')}",
        f"Basic {basic('samovar:token')},Basic {basic('samovar:token')}",
        "Basic \xff",
    ):
        assert not may(wrong, "token")


def taken(body: Body, data: bytes, step: int) -> bytes:
    """Return what a body takes of data that comes in pieces."""
    ends = [*range(0, len(data), step), len(data)]
    return b"".join(body.take(data[begin:end]) for begin, end in pairwise(ends))


CHUNKS = b"3\r\nabc\r\nA;x=y\r\n0123456789\r\n0\r\nTrailer: x\r\n\r\n"


@pytest.mark.parametrize("step", [1, 2, 3, 7, 100])
def test_a_body_ends_where_it_says(step: int) -> None:
    """In whichever pieces it comes; the next request stays behind."""
    for body, data in ((Body(5), b"abcde"), (Body(None), CHUNKS), (Body(None), b"0\r\n\r\n")):
        assert taken(body, data + TUNNEL, step) == data
        assert body.done
    assert Body(0).take(TUNNEL) == b""


@pytest.mark.parametrize(
    "data",
    [
        *(b"x\r\n", b"\r\n", b"-1\r\n", b"0x1\r\n", b"1\n", b"1\r\nab\r\n", b"1\r\na\n"),
        *(b"123456789\r\n", b"1" * MAX_HEAD + b"1", b"0\r\n" + b"a: b\r\n" * MAX_HEAD),
    ],
)
def test_chunks_that_are_none_are_refused(data: bytes) -> None:
    """Nothing is guessed."""
    with pytest.raises(ValueError, match=r".+"):
        Body(None).take(data)


@pytest.mark.parametrize("step", [1, 5, 1000])
def test_an_answer_passes_and_ends_its_connection(step: int) -> None:
    """What is between two neighbours is the proxy's own; its body is as it was."""
    answer, data = (
        Answer(),
        (
            b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n"
            b"HTTP/1.1 200 OK\r\nKeep-Alive: 5\r\nConnection: keep-alive, x-hop\r\nX-Hop: 1\r\n"
            b"Transfer-Encoding: chunked\r\nProxy-Authenticate: x\r\nSet-Cookie: a\r\n\r\n"
            b"1\r\na\r\n0\r\n\r\n"
        ),
    )
    ends = [*range(0, len(data), step), len(data)]
    passed = b"".join(answer.take(data[begin:end]) for begin, end in pairwise(ends))
    assert passed == (
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n"
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nSet-Cookie: a\r\nConnection: close\r\n"
        b"\r\n1\r\na\r\n0\r\n\r\n"
    )


@pytest.mark.parametrize(
    "data",
    [
        *(b"SSH-2.0-x\r\n\r\n", b"HTTP/1.1 101 Switching\r\n\r\n", b"HTTP/2 200\r\n\r\n"),
        *(b"HTTP/1.1 200 OK\r\n folded: x\r\n\r\n", b"HTTP/1.1 200 OK\r\nx: " + b"y" * 20_000),
    ],
)
def test_what_is_no_answer_does_not_pass(data: bytes) -> None:
    """Another protocol is no way out of a request."""
    with pytest.raises(ValueError, match=r".+"):
        Answer().take(data)
