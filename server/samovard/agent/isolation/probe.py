"""The probe: an attacker and a victim behind the same walls, through the real launcher.

Knows what is attacked, and where. Which level forbids what is in the matrix.
"""

import asyncio
import os
import secrets
import select
import shutil
import socket
import sys
import uuid
from collections.abc import Iterator
from contextlib import AsyncExitStack, ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

from samovard.agent import launch, process_tree, procfs
from samovard.agent.child import Child
from samovard.agent.home import Home, Homes
from samovard.agent.isolation import matrix
from samovard.agent.isolation.matrix import Attempt, Finding
from samovard.agent.isolation.walls import PORT, Level, Mechanism, Walls
from samovard.core.errors import SamovarError
from samovard.core.process import Exit
from samovard.settings.checks import MAX_SOCKET, length

ATTACK = Path(__file__).with_name("attack.py")
TIMEOUT = 10.0  # seconds for a rung; a tenth of one is usual
DAEMON_TIMEOUT = 2.0
WRITE_TIMEOUT = 5.0
HOST, OTHER_HOST = "127.0.0.1", "127.0.0.2"  # a network may be allowed by port alone
METADATA = "169.254.169.254 80"  # the clouds' address for the credentials of a machine
_CANARY = "SAMOVAR_CANARY"
_COMMAND = (os.path.realpath(sys.executable), "-I", "-S", str(ATTACK))


@dataclass(frozen=True, slots=True)
class Target:
    """What is attacked besides the victim: the service's state, and files of its elsewhere."""

    state: Path
    files: tuple[Path, ...] = ()


class _Died(Exception):
    """Raised if the attacker or its victim ends before it has done its part."""


async def probe(walls: Walls, homes: Homes, target: Target, *, metadata: bool = False) -> Finding:
    """Try to get out of walls, and return what was reached.

    Must be called on the main thread. `metadata`: try the clouds' metadata address too, which may
    take half a second. Leaves no process and no file.
    """
    if walls.mechanism is Mechanism.BUBBLEWRAP and walls.bubblewrap is None:
        return Finding(walls, fault="bubblewrap is not installed")
    seen = replace(walls, seen=(*walls.seen, ATTACK))
    try:
        async with asyncio.timeout(TIMEOUT):
            return Finding(walls, await _attacked(seen, homes, target, metadata=metadata))
    except TimeoutError:
        return Finding(walls, fault="the probe did not end in time")
    except (_Died, OSError, SamovarError) as error:
        return Finding(walls, fault=f"the probe could not be run: {error}")


async def _attacked(
    walls: Walls, homes: Homes, target: Target, *, metadata: bool
) -> tuple[Attempt, ...]:
    canary = secrets.token_hex(8)
    async with AsyncExitStack() as stack:
        attackers, victims = (stack.enter_context(_home(homes)) for _ in range(2))
        ours = stack.enter_context(_state(target.state, canary))
        (victims.work / "secret").write_text(canary)
        sockets = stack.enter_context(_listening(victims, ours))
        victim = _Behind(walls, homes, victims, ("/bin/cat",), {_CANARY: canary})
        await stack.enter_async_context(victim)
        reading, writing = stack.enter_context(_pipe())
        attacker = _Behind(walls, homes, attackers, _COMMAND, {}, (writing.fileno(),), sockets.port)
        await stack.enter_async_context(attacker)
        victim.write("ready\n")
        await victim.lines(1)
        tasks = [f"own\town\t{part}" for part in walls.inside(attackers).parts]
        tasks += _files(victims, ours, target)
        tasks += _processes(victim.agent, canary)
        tasks += sockets.tasks
        if metadata:
            tasks.append(f"metadata address\ttcp\t{METADATA}")
        lasting = walls.level is Level.STRONG
        if lasting:
            tasks.append(f"daemon\tdaemon\t{writing.fileno()}")
        attacker.write("".join(f"{task}\n" for task in tasks), last=True)
        found = matrix.attempts(await attacker.lines(len(tasks)))
        # In a network of its own a datagram can be sent, and arrives nowhere.
        found += (Attempt("UDP", "arrived", sockets.heard()),)
        await attacker.ended()
        writing.close()
        if lasting:
            found += (Attempt("daemons", "left", await _is_held(reading.fileno())),)
        secret = [victims.work / "secret", ours / "secret"]
        changed = not all(path.is_file() and path.read_text() == canary for path in secret)
        return (*found, Attempt("files", "changed", changed))


def _files(victims: Home, ours: Path, target: Target) -> list[str]:
    """Return the attempts on the victim's files and the service's."""
    state = [path for path in target.state.iterdir() if path.is_file()]
    read = [victims.path, victims.work, victims.work / "secret", ours / "secret", target.state]
    read += [*state, *(path for path in target.files if path.exists())]
    return [
        *(f"files\tread\t{path}" for path in read),
        *(f"files\tmake\t{path}" for path in (victims.work, victims.path, ours)),
        *(f"files\tchange\t{path}" for path in (victims.work / "secret", ours / "secret")),
    ]


def _processes(victim: int, canary: str) -> list[str]:
    """Return the attempts on the victim and on this process, the signal that kills last."""
    others = [f"{pid} {procfs.start_ticks(pid)}" for pid in (os.getpid(), victim)]
    return [
        *(f"environ\tenviron\t{other} {_CANARY}={canary}" for other in others),
        *(f"memory\tmemory\t{other}" for other in others),
        f"signals\tsignal\t{others[0]} 0",
        f"signals\tsignal\t{others[1]} 9",
    ]


@contextmanager
def _home(homes: Homes) -> Iterator[Home]:
    """Make the directories of a session that lasts as long as the block."""
    name = uuid.uuid4().hex
    try:
        yield homes.prepare(name)
    finally:
        homes.remove(name)


@contextmanager
def _state(state: Path, canary: str) -> Iterator[Path]:
    """Make a directory beside the service's own files, for attempts that would change them."""
    path = state / f"probe-{canary}"
    path.mkdir(0o700)
    try:
        (path / "secret").write_text(canary)
        yield path
    finally:
        shutil.rmtree(path)


@contextmanager
def _pipe() -> Iterator[tuple[BinaryIO, BinaryIO]]:
    """Yield the ends of a pipe, the one to read first."""
    reading, writing = os.pipe()
    with open(reading, "rb", buffering=0) as first, open(writing, "wb", buffering=0) as second:
        yield first, second


@dataclass(frozen=True, slots=True)
class _Sockets:
    """What the attacker may reach: its attempts, and whether a datagram of it has come.

    `port` is one that it may connect to, on another host than the one it attempts.
    """

    tasks: list[str]
    datagrams: socket.socket
    port: int

    def heard(self) -> bool:
        """True if a datagram has come."""
        return bool(select.select([self.datagrams], [], [], 0)[0])


@contextmanager
def _listening(victims: Home, ours: Path) -> Iterator[_Sockets]:
    """Listen for the attacker."""
    with ExitStack() as stack:

        def bound(family: int, kind: int, address: str | tuple[str, int]) -> socket.socket:
            listener = stack.enter_context(socket.socket(family, kind))
            listener.bind(address)
            if kind == socket.SOCK_STREAM:
                listener.listen()
            return listener

        name = f"samovar-{ours.name}"
        paths = [path / "s" for path in (victims.tmp, ours) if length(path / "s") <= MAX_SOCKET]
        for address in (*map(str, paths), f"\0{name}"):
            bound(socket.AF_UNIX, socket.SOCK_STREAM, address)
        stream, datagrams = socket.SOCK_STREAM, socket.SOCK_DGRAM
        tcp, other, udp = (
            bound(socket.AF_INET, kind, (host, 0))
            for kind, host in ((stream, HOST), (stream, OTHER_HOST), (datagrams, HOST))
        )
        ports = [each.getsockname()[1] for each in (tcp, other, udp)]
        tasks = [
            *(f"unix sockets\tunix\t{path}" for path in paths),
            f"abstract sockets\tabstract\t{name}",
            f"TCP\ttcp\t{HOST} {ports[0]}",
            f"TCP\ttcp\t{OTHER_HOST} {ports[1]}",
            f"sent\tudp\t{HOST} {ports[2]}",
        ]
        yield _Sockets(tasks, udp, ports[1])


async def _is_held(descriptor: int) -> bool:
    """True if something keeps the other end of a pipe open."""
    readable, _, _ = await asyncio.to_thread(select.select, [descriptor], [], [], DAEMON_TIMEOUT)
    return not readable


class _Behind:
    """A program behind walls, in the directories of a session; an async context manager."""

    def __init__(
        self,
        walls: Walls,
        homes: Homes,
        home: Home,
        command: tuple[str, ...],
        variables: dict[str, str],
        kept: tuple[int, ...] = (),
        port: int = PORT,
    ) -> None:
        self._received = b""
        self._exit: Exit | None = None
        self._changed = asyncio.Event()
        marker = process_tree.marker("probe", home.path.name)
        environ = {"PATH": os.defpath, process_tree.MARKER: marker, **variables}
        directory = homes.open_work(home.path.name)
        try:
            with walls.around(home, port) as enclosure:
                spawned = launch.spawn(
                    Path(command[0]),
                    command[1:],
                    environ,
                    directory=directory,
                    descriptors=kept,
                    enclosure=enclosure,
                )
        finally:
            os.close(directory)
        self._child = Child(
            spawned,
            marker,
            self._take,
            lambda: None,
            self._exited,
            WRITE_TIMEOUT,
            nested=walls.nested,
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._child.kill()
        await self._child.end(suspect=True)

    @property
    def agent(self) -> int:
        """The pid of the program."""
        return self._child.agent

    def _take(self, data: bytes) -> None:
        self._received += data
        self._changed.set()

    def _exited(self, exit: Exit) -> None:
        self._exit = exit
        self._changed.set()

    def write(self, text: str, *, last: bool = False) -> None:
        """Write to its standard input, and close it after the last text."""
        self._child.pipes.write(text.encode())
        if last:
            self._child.pipes.close_input()

    async def lines(self, count: int) -> list[list[str]]:
        """Return the fields of this many lines. Raise `_Died` if it ends before they are there."""
        while self._received.count(b"\n") < count:
            await self._change()
        return [line.split("\t") for line in self._received.decode().splitlines()]

    async def ended(self) -> None:
        """Wait until it has ended."""
        while self._exit is None:
            await self._change()

    async def _change(self) -> None:
        if self._exit is not None:
            said = self._child.pipes.stderr.strip().splitlines()
            raise _Died(": ".join([str(self._exit), *said[-1:]]))
        await self._changed.wait()
        self._changed.clear()
