"""What the tools of one agent reach: who may, where to, and how it is told when they may not.

Nothing of what passes is kept or looked at. Knows rules and ways. Knows nothing of the socket that
tools come to.
"""

import asyncio
import enum
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from samovard.agent.broker.heads import Answer, Ask, ask_of, may
from samovard.agent.broker.proxy import Access
from samovard.agent.broker.tunnel import Tunnel
from samovard.agent.broker.ways import Barred, Ways

MAX_PASSAGES = 32  # of one agent at once
AGREED = b"HTTP/1.1 200 Connection established\r\n\r\n"


class Verdict(enum.Enum):
    """What became of a connection: a word for a record, a status, and a sentence for its tool."""

    PASSED = "passed", "", ""
    ENDED = "ended", "", ""  # with its agent, before the host was reached
    MALFORMED = "malformed", "400 Bad Request", ""
    TOO_LARGE = "too_large", "431 Request Header Fields Too Large", ""
    UNKNOWN = "unauthenticated", "407 Proxy Authentication Required", ""
    CLOSED = "closed", "403 Forbidden", "No turn is running."
    NO_HOSTS = (
        "no_hosts",
        "403 Forbidden",
        'No host may be reached: profiles.{profile}.network = "hosts" would allow those that '
        "profiles.{profile}.hosts lists.",
    )
    NOT_LISTED = (
        "not_listed",
        "403 Forbidden",
        "{host} with port {port} may not be reached: profiles.{profile}.hosts does not list it.",
    )
    BARRED = "barred", "403 Forbidden", "{host} has no public address, so it may not be reached."
    TOO_MANY = "too_many", "503 Service Unavailable", "Too many connections at once."
    UNREACHED = "unreached", "502 Bad Gateway", "{host} with port {port} was not reached."
    LATE = "late", "504 Gateway Timeout", "{host} with port {port} was not reached in time."

    def __init__(self, word: str, status: str, sentence: str) -> None:
        self.word = word
        self.status = status
        self.sentence = sentence

    def answer(self, host: str, port: int, profile: str) -> bytes:
        """Return the answer of a tool that is refused."""
        said = self.sentence.format(host=host, port=port, profile=profile)
        body = f"{said}\n".encode() if said else b""
        headers = [f"HTTP/1.1 {self.status}", "Connection: close", f"Content-Length: {len(body)}"]
        if body:
            headers.append("Content-Type: text/plain; charset=utf-8")
        if self is Verdict.UNKNOWN:
            headers.append('Proxy-Authenticate: Basic realm="samovar"')
        if self is Verdict.TOO_MANY:
            headers.append("Retry-After: 1")
        return "\r\n".join([*headers, "", ""]).encode() + body


@dataclass(frozen=True, slots=True)
class Passage:
    """One connection of a tool as it went, told once it is over.

    `verdict` is a word of `Verdict`. `host` is a name or an address, in lower case and of at most
    253 printable characters, or empty if none was understood. `sent` and `received` are bytes as
    they passed to the host and from it.
    """

    tenant: str
    profile: str
    session: str
    host: str
    port: int
    sent: int
    received: int
    verdict: str


OnPassage = Callable[[Passage], None]


class Near(Protocol):
    """A connection of a tool that has asked for a host and is not read from until it is there."""

    transport: asyncio.Transport

    def refuse(self, answer: bytes) -> None:
        """Answer, and end the connection."""


@dataclass(eq=False, slots=True)
class _Running:
    near: Near
    task: asyncio.Task[None] | None = None
    tunnel: Tunnel | None = None

    def abort(self) -> None:
        if self.tunnel is not None:
            self.tunnel.abort()
        elif self.task is not None:
            self.task.cancel()
            self.near.transport.abort()


@dataclass(slots=True)
class Passages:
    """The connections of one agent's tools. Used on the broker's loop."""

    access: Access
    ways: Ways
    told: OnPassage
    _running: set[_Running] = field(default_factory=set)
    _gone: asyncio.Event = field(default_factory=asyncio.Event)

    def judged(self, head: bytes) -> Ask | bytes:
        """Return what a request for a proxy asks for, or the answer of one that is refused."""
        try:
            ask = ask_of(head)
        except ValueError:
            return self.refused(Verdict.MALFORMED)
        if (verdict := self._why_not(ask)) is not None:
            return self.refused(verdict, ask)
        return ask

    def _why_not(self, ask: Ask) -> Verdict | None:
        access = self.access
        if not may(ask.credentials, access.token):
            return Verdict.UNKNOWN
        if not access.open or not access.tenant:
            return Verdict.CLOSED
        if not access.hosts:
            return Verdict.NO_HOSTS
        if not access.hosts.has(ask.host, ask.port):
            return Verdict.NOT_LISTED
        return Verdict.TOO_MANY if len(self._running) >= MAX_PASSAGES else None

    def refused(self, verdict: Verdict, ask: Ask | None = None) -> bytes:
        """Tell of a connection that is refused, and return its answer."""
        host, port = (ask.host, ask.port) if ask else ("", 0)
        self._tell(host, port, 0, 0, verdict)
        return verdict.answer(host, port, self.access.profile)

    def start(self, near: Near, ask: Ask, rest: bytes) -> None:
        """Lead a connection to the host that it asks for; `rest` came behind its request."""
        running = _Running(near)
        self._running.add(running)
        running.task = asyncio.create_task(self._reach(running, ask, rest))
        running.task.add_done_callback(lambda _: self._reached(running, ask))

    async def _reach(self, running: _Running, ask: Ask, rest: bytes) -> None:
        try:
            far, early = await self.ways.to(ask.host, ask.port)
        except (Barred, OSError) as error:
            self._running.discard(running)
            running.near.refuse(self.refused(_verdict(error), ask))
            return
        near = running.near.transport
        if near.is_closing() or far.is_closing():
            near.abort()
            far.abort()
            return
        onward = ask.onward or b""

        def ended(sent: int, received: int) -> None:
            self._end(running)
            self._tell(ask.host, ask.port, sent + len(onward), received, Verdict.PASSED)

        if ask.body is None:
            running.tunnel = Tunnel(near, far, ended)
            near.write(AGREED)
        else:
            answer = Answer().take
            running.tunnel = Tunnel(near, far, ended, request=ask.body.take, answer=answer)
            far.write(onward)
        running.tunnel.start(rest, early)

    def _reached(self, running: _Running, ask: Ask) -> None:
        if running.tunnel is not None:
            return
        # Cancelled, or its tool has left: there is nothing to answer.
        ended = running in self._running
        self._end(running)
        if ended:
            running.near.transport.abort()
            self._tell(ask.host, ask.port, 0, 0, Verdict.ENDED)

    def _end(self, running: _Running) -> None:
        self._running.discard(running)
        if not self._running:
            self._gone.set()

    def _tell(self, host: str, port: int, sent: int, received: int, verdict: Verdict) -> None:
        of = self.access
        passage = Passage(
            of.tenant, of.profile, of.session, host, port, sent, received, verdict.word
        )
        self.told(passage)

    async def end(self) -> None:
        """End every connection, and wait until they have gone."""
        while self._running:
            self._gone.clear()
            for running in [*self._running]:
                running.abort()
            await self._gone.wait()


def _verdict(error: Exception) -> Verdict:
    if isinstance(error, Barred):
        return Verdict.BARRED
    return Verdict.LATE if isinstance(error, TimeoutError) else Verdict.UNREACHED
