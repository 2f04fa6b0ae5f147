"""Try to get out of the walls: the program that the probe runs in an agent's place.

Run as `python -I -S attack.py`. Reads one attempt per line on standard input, a word and what it is
about, and prints each word of a row of the matrix with `reached` or `denied`. Imports little of the
standard library, because every start of the service waits for it. Leaves nothing changed that a
wall did not let it reach.
"""

import _socket
import os
import select
import sys

_SECONDS = 0.5
_LASTS = 30_000  # milliseconds


def read(path: str) -> bool:
    """Read a file or list a directory, by its path and by way of other processes."""
    return any(map(_opens, (path, f"/proc/{os.getppid()}/root{path}", f"/proc/1/root{path}")))


def _opens(path: str) -> bool:
    try:
        os.close(os.open(path, os.O_RDONLY | os.O_NONBLOCK))
    except OSError:
        return False
    return True


def make(path: str) -> bool:
    """Make a file in a directory, by writing, by a link and by moving one there."""
    with open("made", "w"):
        pass
    made = os.path.join(path, "made")
    ways = (
        lambda: os.close(os.open(made, os.O_WRONLY | os.O_CREAT, 0o600)),
        lambda: os.link("made", made),
        lambda: os.symlink("/", made),
        lambda: os.mkdir(made),
        lambda: os.rename("made", made),
    )
    return any(map(_works, ways))


def change(path: str) -> bool:
    """Change a file: open it to write, cut it, link to it, move it, and unlink it."""
    ways = (
        lambda: os.close(os.open(path, os.O_WRONLY)),
        lambda: os.truncate(path, 0),
        lambda: os.link(path, "linked"),
        lambda: os.rename(path, "moved"),
        lambda: os.unlink(path),
    )
    return any(map(_works, ways))


def _works(attempt: "object") -> bool:
    try:
        attempt()  # type: ignore[operator]
    except OSError:
        return False
    return True


def environ(target: str) -> bool:
    """Read the environment of a process, given its pid and start, or of any with its canary."""
    pid, ticks, canary = target.split()
    if _is(pid, ticks) and _content(f"/proc/{pid}/environ"):
        return True
    others = (name for name in os.listdir("/proc") if name.isdigit() and int(name) != os.getpid())
    return any(canary.encode() in _content(f"/proc/{name}/environ") for name in others)


def memory(target: str) -> bool:
    """Open the memory, the directory and a descriptor of a process, given its pid and start."""
    pid, ticks = target.split()
    names = ("mem", "maps", "cwd", "fd/0", "fd/1")
    return _is(pid, ticks) and any(_opens(f"/proc/{pid}/{name}") for name in names)


def signal(target: str) -> bool:
    """Send a signal to a process, given its pid, its start and the signal's number."""
    pid, ticks, number = target.split()
    return _is(pid, ticks) and _works(lambda: os.kill(int(pid), int(number)))


def _is(pid: str, ticks: str) -> bool:
    """True if a pid is the process that was meant, and not one of a namespace of its own."""
    fields = _content(f"/proc/{pid}/stat").rpartition(b")")[2].split()
    return len(fields) > 19 and fields[19] == ticks.encode()


def _content(path: str) -> bytes:
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except OSError:
        return b""
    try:
        return os.read(descriptor, 65536)
    except OSError:
        return b""
    finally:
        os.close(descriptor)


def unix(path: str) -> bool:
    """Connect to a unix socket by its path."""
    return _connects(_socket.AF_UNIX, path)


def abstract(name: str) -> bool:
    """Connect to an abstract unix socket."""
    return _connects(_socket.AF_UNIX, f"\0{name}")


def tcp(address: str) -> bool:
    """Connect to a TCP port."""
    host, port = address.split()
    return _connects(_socket.AF_INET, (host, int(port)))


def udp(address: str) -> bool:
    """Send a datagram."""
    host, port = address.split()
    sender = _socket.socket(_socket.AF_INET, _socket.SOCK_DGRAM)
    return _works(lambda: sender.sendto(b"samovar", (host, int(port))))


def _connects(family: int, address: "object") -> bool:
    caller = _socket.socket(family, _socket.SOCK_STREAM)
    caller.settimeout(_SECONDS)
    try:
        return _works(lambda: caller.connect(address))  # type: ignore[arg-type]
    finally:
        caller.close()


def daemon(descriptor: str) -> bool:
    """Leave a process behind that holds an end of a pipe; whether it lives is for others to see."""
    if os.fork() == 0:
        os.setsid()
        for number in range(3):
            os.close(number)
        held = select.poll()
        held.register(int(descriptor), 0)
        held.poll(_LASTS)  # until the other end is closed, at the latest
        os._exit(0)
    return True


def own(path: str) -> bool:
    """Write and read in one of the agent's own directories, which must work."""
    name = os.path.join(path, "own")
    return _works(lambda: os.close(os.open(name, os.O_RDWR | os.O_CREAT, 0o600))) and _opens(path)


#: By their names.
ATTEMPTS = {
    each.__name__: each
    for each in (
        read,
        make,
        change,
        environ,
        memory,
        signal,
        unix,
        abstract,
        tcp,
        udp,
        daemon,
        own,
    )
}


def main() -> None:
    """Try each line, and print how it went."""
    for line in sys.stdin:
        row, attempt, target = line.rstrip("\n").split("\t")
        word = "reached" if ATTEMPTS[attempt](target) else "denied"
        print(row, attempt, word, sep="\t", flush=True)


if __name__ == "__main__":
    main()
