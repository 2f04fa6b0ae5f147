"""The walls around one agent: the rungs of the ladder, and how a spawn puts each of them up.

Knows bubblewrap's arguments and the launcher's rules of Landlock. Does not decide which rung is
used, and tries none.
"""

import enum
import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from samovard.agent.home import Home

#: Where a session's directories are inside bubblewrap, the same for all: the model's prompt names
#: the working directory, and is cached by what it says.
SESSION = Path("/session")
TMP = Path("/tmp")

_PROGRAMS = tuple(map(Path, ("/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32")))
_USR = Path("/usr")
#: Certificates, the resolver, the locale, names of users and services, and the linker's cache.
_ETC = tuple(
    Path("/etc") / name
    for name in (
        "alternatives",
        "ca-certificates",
        "ca-certificates.conf",
        "crypto-policies",
        "gai.conf",
        "group",
        "host.conf",
        "hosts",
        "ld.so.cache",
        "ld.so.conf",
        "ld.so.conf.d",
        "locale.alias",
        "locale.conf",
        "localtime",
        "nsswitch.conf",
        "passwd",
        "pki/ca-trust/extracted",
        "pki/tls/cert.pem",
        "pki/tls/certs",
        "protocols",
        "resolv.conf",
        "services",
        "ssl/cert.pem",
        "ssl/certs",
        "ssl/openssl.cnf",
        "timezone",
    )
)
_DEVICES = ("null", "zero", "full", "random", "urandom", "tty")
#: Where an agent reaches the broker, in a network of its own. The port is the same for all.
PORT = 4180
_NAMESPACES = ("--unshare-user", "--unshare-pid", "--unshare-ipc", "--die-with-parent")


class Level(enum.Enum):
    """What walls keep apart, from nothing to everything that shares a kernel and a network."""

    NONE = "none"
    BASIC = "basic"
    STRONG = "strong"


class Mechanism(enum.Enum):
    """A rung of the ladder."""

    BUBBLEWRAP = "bubblewrap"
    LANDLOCK = "landlock"
    NONE = "none"


LEVELS = {
    Mechanism.BUBBLEWRAP: Level.STRONG,
    Mechanism.LANDLOCK: Level.BASIC,
    Mechanism.NONE: Level.NONE,
}


@dataclass(frozen=True, slots=True)
class Enclosure:
    """The walls of one spawn: what the launcher is run by, and the descriptors of their rules.

    `listening` is where the launcher passes a socket to that listens inside, and the socket's port.
    """

    before: tuple[str, ...] = ()
    rules: int | None = None
    descriptors: tuple[int, ...] = ()
    listening: tuple[int, int] | None = None
    nested: bool = False  # the child's main process is not the agent, but a parent of it

    @property
    def python(self) -> str:
        """The interpreter of the launcher; inside a namespace an environment's own is not seen."""
        return os.path.realpath(sys.executable) if self.nested else sys.executable


OPEN = Enclosure()


@dataclass(frozen=True, slots=True)
class Walls:
    """How agents are held, and the paths that they may read besides the system's.

    Those that are `offline` reach nothing but the broker, as far as the rung can hold that.
    """

    mechanism: Mechanism = Mechanism.NONE
    seen: tuple[Path, ...] = ()
    bubblewrap: Path | None = None  # where it is installed
    offline: bool = False

    @property
    def level(self) -> Level:
        """What the walls keep apart."""
        return LEVELS[self.mechanism]

    @property
    def nested(self) -> bool:
        """True if an agent has a PID namespace, so that a process of bubblewrap's is above it."""
        return self.mechanism is Mechanism.BUBBLEWRAP

    @property
    def alone(self) -> bool:
        """True if an agent has a network of its own, in which only its launcher can listen."""
        return self.offline and self.nested

    def inside(self, home: Home) -> Home:
        """Return a session's directories as its agent sees them."""
        return Home(SESSION) if self.nested else home

    @contextmanager
    def around(
        self, home: Home, port: int = PORT, passed: int | None = None
    ) -> Iterator[Enclosure]:
        """Prepare the walls of one spawn, which must happen inside the `with` block.

        `port` is that of the broker's address. `passed` is the descriptor that a socket is passed
        to which listens on it in an agent's own network; None if it is not wanted.
        """
        if self.mechanism is Mechanism.NONE:
            yield OPEN
        elif self.mechanism is Mechanism.LANDLOCK:
            ports = [f"t{port}"] if self.offline else []
            with _held([*rules(self.seen, home), *ports]) as descriptor:
                yield Enclosure((), descriptor, (descriptor,))
        else:
            given = bubblewrap_arguments(self.seen, home, offline=self.offline)
            with _held(given) as options, _held(()) as descriptor:
                before = (str(self.bubblewrap), "--args", str(options), "--")
                kept = (options, descriptor) if passed is None else (options, descriptor, passed)
                listening = None if passed is None else (passed, port)
                yield Enclosure(before, descriptor, kept, listening, nested=True)


def covers(above: Iterable[Path], path: Path) -> bool:
    """True if a path is one of others or below one, links followed."""
    found = path.resolve()
    return any(found.is_relative_to(each.resolve()) for each in above)


def system() -> tuple[Path, ...]:
    """Return the directories of the system's programs that are there."""
    return tuple(path for path in (_USR, *_PROGRAMS) if path.exists())


def rules(seen: Iterable[Path], home: Home) -> list[str]:
    """Return the launcher's rules of Landlock for an agent with this home."""
    readable = (*system(), *_ETC, Path("/proc"), *seen)
    return [
        *(f"r{path}" for path in readable),
        *(f"d/dev/{name}" for name in _DEVICES),
        *(f"w{part}" for part in home.parts),
    ]


def bubblewrap_arguments(seen: Iterable[Path], home: Home, *, offline: bool = False) -> list[str]:
    """Return bubblewrap's arguments for an agent with this home.

    The network stays the machine's unless the agent is `offline`. There is no `--new-session`: the
    spawn has made one, and its process group is what a signal to the agent goes to.
    """
    ours = sorted(path for path in seen if not covers(system(), path))
    network = ["--unshare-net"] if offline else []
    result = [*_NAMESPACES, *network, "--cap-drop", "ALL", "--ro-bind", str(_USR), str(_USR)]
    for path in _PROGRAMS:
        if path.is_symlink():
            result += ["--symlink", os.readlink(path), str(path)]
        elif path.is_dir():
            result += ["--ro-bind", str(path), str(path)]
    # Before what is seen below the machine's /tmp, whose mount points are then made in this one.
    # An agent has put no links there, because a used one is replaced before each start.
    result += ["--proc", "/proc", "--dev", "/dev", "--bind", str(home.tmp), str(TMP)]
    for path in (*_ETC, *ours):
        result += ["--ro-bind-try", str(path), str(path)]
    for part in home.parts:
        result += ["--bind", str(part), str(SESSION / part.name)]
    return [*result, "--remount-ro", "/", "--chdir", str(Home(SESSION).work)]


@contextmanager
def _held(lines: Iterable[str]) -> Iterator[int]:
    """Yield a descriptor of lines that end in NUL. What it refers to has no name on any disk."""
    descriptor = os.memfd_create("samovar")
    try:
        os.write(descriptor, b"".join(os.fsencode(line) + b"\0" for line in lines))
        os.lseek(descriptor, 0, os.SEEK_SET)
        yield descriptor
    finally:
        os.close(descriptor)
