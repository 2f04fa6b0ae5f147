"""One CLI that is spoken to line by line; its output is kept as it came.

Starts the CLI as every agent is started. Knows the wire's JSON and nothing of turns; for tests of
the CLI itself, never for a session.
"""

import asyncio
import os
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from subprocess import Popen
from types import TracebackType
from typing import Any

import msgspec

from samovard.agent import launch, process_tree
from samovard.agent.binary import Cli
from samovard.agent.child import Child
from samovard.agent.credentials import Credential, Kind, Secret
from samovard.agent.home import Homes
from samovard.core.process import Exit, Launch

WAIT = 30.0
WRITE_TIMEOUT = 5.0

#: A line of the wire, decoded.
Json = dict[str, Any]


class Silent(Exception):
    """Raised when the CLI did not write what was waited for."""


@dataclass(frozen=True, slots=True)
class Site:
    """Where and how a CLI is run: the binary, the directory of homes, and what it is given.

    `upstream` is the API's address, `credential` an invalid API key.
    """

    cli: Cli
    homes: Homes
    how: launch.Delivery
    upstream: str
    credential: str


@dataclass(frozen=True, slots=True)
class Row:
    """A line, the time when it was written or read, and its direction: `in` or `out`."""

    time: float
    way: str
    line: Json


class RawCli:
    """One running CLI; an async context manager that leaves nothing of it.

    With `resume`, `home` and `session` are those of an earlier CLI.
    """

    def __init__(
        self,
        site: Site,
        profile: launch.LaunchOptions,
        *,
        home: str = "",
        session: str = "",
        resume: bool = False,
        ask: bool = False,
        variables: Mapping[str, str] | None = None,
    ) -> None:
        self._site = site
        self._profile = profile
        self._variables = dict(variables or {})
        self.launch = Launch(
            process_id=uuid.uuid4().hex,
            tenant="probe",
            profile="probe",
            home=home or uuid.uuid4().hex,
            agent_session=session or str(uuid.uuid4()),
            resume=resume,
            ask=ask,
        )
        self.rows: list[Row] = []
        self.exit: Exit | None = None
        self._partial = b""
        self._seen = 0  # rows that were waited for
        self._changed = asyncio.Event()
        self._child: Child

    async def __aenter__(self) -> None:
        server_id = "probe"
        home = await asyncio.to_thread(self._site.homes.prepare, self.launch.home)
        directory = self._site.homes.open_work(self.launch.home)
        credential = Credential(Kind.API_KEY, Secret(self._site.credential), "")
        try:
            with launch.handed_over(credential, self._site.how) as handover:
                environ = launch.environment(
                    self._profile,
                    self.launch,
                    home,
                    handover.variables,
                    server_id=server_id,
                    base_url=self._site.upstream,
                )
                spawned = self._spawn(environ | self._variables, directory, handover.descriptors)
        finally:
            os.close(directory)
        marker = process_tree.marker(server_id, self.launch.process_id)
        self._child = Child(spawned, marker, self._take, _ignore, self._exited, WRITE_TIMEOUT)

    def _spawn(
        self, environ: Mapping[str, str], directory: int, descriptors: tuple[int, ...]
    ) -> Popen[bytes]:
        return launch.spawn(
            self._site.cli.path,
            launch.arguments(self._profile, self.launch),
            environ,
            directory=directory,
            descriptors=descriptors,
        )

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._child.end(suspect=True)

    @property
    def pid(self) -> int:
        """The operating system's process id of the CLI."""
        return self._child.pid

    # In.

    def write(self, *lines: Json) -> None:
        """Write lines in one write."""
        now = time.monotonic()
        self.rows += [Row(now, "in", line) for line in lines]
        self._child.pipes.write(b"".join(msgspec.json.encode(line) + b"\n" for line in lines))

    def request(self, subtype: str, **fields: object) -> str:
        """Write a control request and return its id."""
        name = f"probe-{len(self.rows)}"
        body = {"subtype": subtype, **fields}
        self.write({"type": "control_request", "request_id": name, "request": body})
        return name

    def message(self, text: str, turn_id: str = "") -> str:
        """Write a user's message and return its id."""
        turn_id = turn_id or str(uuid.uuid4())
        self.write(message(text, turn_id))
        return turn_id

    def end_input(self) -> None:
        """Close its stdin."""
        self._child.pipes.close_input()

    def kill(self) -> None:
        """Kill it and its process tree."""
        self._child.kill()

    # Out.

    async def until(self, condition: Callable[[Json], object], what: str) -> Json:
        """Return the next line that meets a condition, after those that were waited for before.

        Raise `Silent` if it does not come.
        """
        try:
            async with asyncio.timeout(WAIT):
                while True:
                    while self._seen < len(self.rows):
                        row = self.rows[self._seen]
                        self._seen += 1
                        if row.way == "out" and condition(row.line):
                            return row.line
                    if self.exit is not None:
                        raise Silent(f"{what}: the CLI ended ({self.exit})")
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            raise Silent(f"{what}: nothing came in {WAIT:.0f} s") from None

    async def answer(self, request_id: str) -> Json:
        """Return the body of the answer to a control request."""
        line = await self.until(
            lambda line: line.get("response", {}).get("request_id") == request_id, "an answer"
        )
        body: Json = line["response"]
        return body

    async def turn(self, text: str, turn_id: str = "") -> list[Json]:
        """Run a whole turn and return its lines, up to the one that says that the CLI is idle."""
        begin = len(self.rows)
        self.message(text, turn_id)
        await self.until(idle, "the end of a turn")
        return [row.line for row in self.rows[begin:] if row.way == "out"]

    async def ended(self) -> Exit:
        """Wait for its end."""
        async with asyncio.timeout(WAIT):
            while self.exit is None:
                self._changed.clear()
                await self._changed.wait()
        return self.exit

    def _take(self, data: bytes) -> None:
        now = time.monotonic()
        *lines, self._partial = (self._partial + data).split(b"\n")
        self.rows += [Row(now, "out", decoded(line)) for line in lines if line.startswith(b"{")]
        self._changed.set()

    def _exited(self, exit: Exit) -> None:
        self.exit = exit
        self._changed.set()


def decoded(line: bytes) -> Json:
    """Return a decoded line; one that is not JSON has no type."""
    try:
        return msgspec.json.decode(line, type=Json)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return {}


def message(text: str, turn_id: str) -> Json:
    """Return the line of a user's message."""
    content = [{"type": "text", "text": text}]
    return {
        "type": "user",
        "uuid": turn_id,
        "client_composed": True,
        "message": {"role": "user", "content": content},
    }


def idle(line: Json) -> bool:
    """True if a line says that the CLI is idle."""
    return line.get("subtype") == "session_state_changed" and line.get("state") == "idle"


def _ignore() -> None:
    """Do nothing: a CLI that does not read is noticed by the answers that it does not write."""
