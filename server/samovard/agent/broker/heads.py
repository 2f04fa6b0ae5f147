"""What a tool asks its address for as a proxy, and in which form that is sent on.

Decides on bytes alone. Knows nothing of connections or hosts that may be reached.
"""

import base64
import hmac
import re
from dataclasses import dataclass

from samovard.agent.broker.hosts import place_of, written

MAX_HEAD = 8 << 10
MAX_ANSWER_HEAD = 16 << 10
END = b"\r\n\r\n"
USER = "samovar"

_LINE = re.compile(r"([A-Z]{1,16}) ([\x21-\x7e]+) (HTTP/1\.[01])")
_TARGET = re.compile(r"[hH][tT][tT][pP]://([^/?#@]+)(/[^#]*)?(\?[^#]*)?")
_HEADER = re.compile(r"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*([^\x00-\x08\x0a-\x1f\x7f]*)")
_STATUS = re.compile(r"HTTP/1\.[01] ([0-9]{3})( [^\x00-\x08\x0a-\x1f\x7f]*)?")
_LENGTH = re.compile(r"[0-9]{1,18}")
_CHUNK = re.compile(rb"([0-9A-Fa-f]{1,8})[ \t]*(;[\x20-\x7e\t]*)?\r\n")
# What is between two neighbours, not between the ends.
_HOPS = {"connection", "keep-alive", "te", "trailer", "upgrade"}
_FRAMING = {"content-length", "transfer-encoding", "host"}

Headers = list[tuple[str, str]]


def asks_a_proxy(first: bytes) -> bool | None:
    """True if what begins so is for a proxy; None if more of it is needed to know."""
    method, space, target = first[:32].partition(b" ")
    if not method.isalpha() or len(method) > 16:
        return False
    if not space:
        return None
    if method == b"CONNECT":
        return True
    scheme, begin = b"http://", target[:7].lower()
    return True if begin == scheme else None if scheme.startswith(begin) else False


@dataclass(frozen=True, slots=True)
class Ask:
    """What is asked for. `onward` is the request to send on; None asks for a tunnel."""

    host: str
    port: int
    credentials: str
    onward: bytes | None = None
    body: "Body | None" = None


def ask_of(head: bytes) -> Ask:
    """Return what a head, with the empty line at its end, asks for. Raise `ValueError`."""
    first, *lines = head.decode("latin-1").removesuffix("\r\n\r\n").split("\r\n")
    line = _LINE.fullmatch(first)
    if line is None:
        raise ValueError("no request")
    method, target, version = line.groups()
    headers = _headers(lines)
    credentials = ",".join(_all(headers, "proxy-authorization"))
    if method == "CONNECT":
        return Ask(*place_of(target), credentials)
    found = _TARGET.fullmatch(target)
    if found is None:
        raise ValueError("no target")
    host, port = place_of(found[1], 80)
    hosts = _all(headers, "host")
    if len(hosts) > 1 or (version == "HTTP/1.1" and not hosts):
        raise ValueError("not one host")
    if hosts and place_of(hosts[0], 80) != (host, port):
        raise ValueError("another host")
    body = _body(headers, version)
    onward = [
        f"{method} {found[2] or '/'}{found[3] or ''} {version}",
        f"Host: {written(host, port).removesuffix(':80')}",
        *(f"{name}: {value}" for name, value in _ends(headers) if name.lower() != "host"),
        "Connection: close\r\n\r\n",
    ]
    return Ask(host, port, credentials, "\r\n".join(onward).encode("latin-1"), body)


def may(credentials: str, token: str) -> bool:
    """True if these are the credentials that the address was given with."""
    kind, _, value = credentials.partition(" ")
    known = base64.b64encode(f"{USER}:{token}".encode())
    same = hmac.compare_digest(value.strip().encode(errors="replace"), known)
    return same and kind.lower() == "basic"


def _headers(lines: list[str]) -> Headers:
    found = []
    for line in lines:
        header = _HEADER.fullmatch(line)
        if header is None:
            raise ValueError("no header")
        found.append((header[1], header[2].rstrip(" \t")))
    return found


def _all(headers: Headers, name: str) -> list[str]:
    return [value for key, value in headers if key.lower() == name]


def _ends(headers: Headers) -> Headers:
    """Return the headers that are for the other end."""
    listed = ",".join(_all(headers, "connection")).lower().split(",")
    hops = _HOPS | {name.strip() for name in listed}
    if hops & _FRAMING:
        raise ValueError("a length for one hop")
    return [
        (name, value)
        for name, value in headers
        if name.lower() not in hops and not name.lower().startswith("proxy-")
    ]


def _body(headers: Headers, version: str) -> "Body":
    lengths, codings = _all(headers, "content-length"), _all(headers, "transfer-encoding")
    if codings:
        if codings[0].lower() != "chunked" or len(codings) > 1 or lengths or version != "HTTP/1.1":
            raise ValueError("two lengths")
        return Body(None)
    if len(lengths) > 1 or not all(_LENGTH.fullmatch(length) for length in lengths):
        raise ValueError("no length")
    return Body(int(lengths[0]) if lengths else 0)


class Body:
    """The body of a request as it passes. What follows it is another request, and does not."""

    def __init__(self, length: int | None) -> None:
        self._chunked = length is None
        self._left = length or 0
        self._line = b""
        self._after = False  # a chunk, whose line end has not come yet
        self._last = False
        self._trailers = 0
        self.done = length == 0

    def take(self, data: bytes) -> bytes:
        """Return what of the data is the body's. Raise `ValueError` if it is no body."""
        place = 0
        while place < len(data) and not self.done:
            if self._left:
                step = min(self._left, len(data) - place)
                self._left -= step
                self.done = not self._left and not self._chunked
            else:
                step = self._lines(data[place:])
            place += step
        return data[:place]

    def _lines(self, data: bytes) -> int:
        step = data.find(b"\n") + 1 or len(data)
        self._line += data[:step]
        if len(self._line) > MAX_HEAD:
            raise ValueError("a long line")
        if self._line.endswith(b"\n"):
            line, self._line = self._line, b""
            self._ended(line)
        return step

    def _ended(self, line: bytes) -> None:
        if self._last:
            self._trailers += len(line)
            if self._trailers > MAX_HEAD:
                raise ValueError("long trailers")
            self.done = line == b"\r\n"
        elif self._after:
            if line != b"\r\n":
                raise ValueError("a chunk that is too long")
            self._after = False
        else:
            size = _CHUNK.fullmatch(line)
            if size is None:
                raise ValueError("no chunk")
            self._left = int(size[1], 16)
            self._last, self._after = not self._left, bool(self._left)


class Answer:
    """An answer as it passes: the connection ends with it, whatever its sender says."""

    def __init__(self) -> None:
        self._head: bytes | None = b""

    def take(self, data: bytes) -> bytes:
        """Return what of the data may be sent on by now. Raise `ValueError` if it is no answer."""
        if self._head is None:
            return data
        self._head += data
        passed = b""
        while self._head is not None and END in self._head:
            head, _, rest = self._head.partition(END)
            status, onward = _answered(head)
            passed += onward
            self._head = rest
            if status >= 200:
                self._head, passed = None, passed + rest
        if self._head is not None and len(self._head) > MAX_ANSWER_HEAD:
            raise ValueError("a long head")
        return passed


def _answered(head: bytes) -> tuple[int, bytes]:
    first, *lines = head.decode("latin-1").split("\r\n")
    status = _STATUS.fullmatch(first)
    if status is None or status[1] == "101":
        raise ValueError("no answer")
    headers = [f"{name}: {value}" for name, value in _ends(_headers(lines))]
    if int(status[1]) >= 200:
        headers.append("Connection: close")
    return int(status[1]), "\r\n".join([first, *headers, "", ""]).encode("latin-1")
