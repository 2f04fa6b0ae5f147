"""A search for a secret in all that an agent's processes have: what an agent could find itself."""

import base64
import os
import struct
from collections.abc import Iterator
from contextlib import nullcontext, suppress
from pathlib import Path
from urllib.parse import quote

PAGE = os.sysconf("SC_PAGE_SIZE")
SPAN = 1 << 20  # bytes of the page map that are read at once
PRESENT = 3 << 62  # in memory, or swapped out


def spellings(secret: str) -> list[bytes]:
    """Return the ways in which a secret may be written down."""
    raw = secret.encode()
    whole = base64.b64encode(raw).rstrip(b"=")[:-1]
    return [
        raw,
        whole,
        quote(secret, safe="").encode(),
        raw.hex().encode(),
        secret.encode("utf-16-le"),
    ]


def tree(pid: int) -> Iterator[int]:
    """Yield a process and all its descendants, but for those that end meanwhile."""
    yield pid
    with suppress(OSError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            for child in (task / "children").read_text().split():
                yield from tree(int(child))


def places(pid: int, home: Path, secret: str) -> set[str]:
    """Return the kinds of places in which a process tree and its home have a secret."""
    wanted = spellings(secret)
    found: set[str] = set()
    for each in tree(pid):
        # A short-lived tool may end meanwhile; the process itself does not.
        with nullcontext() if each == pid else suppress(OSError):
            found |= of_process(Path(f"/proc/{each}"), wanted)
    if any(holds(os.fsencode(path) + content(path), wanted) for path in files(home)):
        found.add("file")
    return found


def files(directory: Path) -> Iterator[Path]:
    """Yield all below a directory. What a running CLI removes meanwhile is passed over."""
    for above, inner, names in os.walk(directory):
        yield from (Path(above, name) for name in (*inner, *names))


def content(path: Path) -> bytes:
    """Return what a file holds; nothing if it is no file, or has gone."""
    try:
        return path.read_bytes() if path.is_file() else b""
    except OSError:
        return b""


def of_process(process: Path, wanted: list[bytes]) -> set[str]:
    found = {
        name for name in ("environ", "cmdline") if holds((process / name).read_bytes(), wanted)
    }
    if any(holds(part, wanted) for part in memory(process)):
        found.add("memory")
    if any(holds(opened(link), wanted) for link in (process / "fd").iterdir()):
        found.add("descriptor")
    return found


def holds(data: bytes, wanted: list[bytes]) -> bool:
    return any(spelling in data for spelling in wanted)


def opened(link: Path) -> bytes:
    """Return the name of what a descriptor is open on, and what a file of it holds."""
    try:
        target = os.readlink(link)
        content = link.read_bytes() if target.startswith("/") and link.is_file() else b""
    except OSError:  # closed meanwhile, or open for writing alone
        return b""
    return os.fsencode(target) + content


def memory(process: Path) -> Iterator[bytes]:
    """Yield all memory of a process that is in use."""
    with (
        open(process / "mem", "rb", buffering=0) as memory,
        open(process / "pagemap", "rb", buffering=0) as pages,
    ):
        for line in (process / "maps").read_text().splitlines():
            ends, rights = line.split()[:2]
            begin, end = (int(text, 16) for text in ends.split("-"))
            if "r" in rights and "[v" not in line:
                for first, count in used(pages, begin // PAGE, end // PAGE):
                    yield read(memory, first * PAGE, count * PAGE)


def read(memory: object, begin: int, size: int) -> bytes:
    try:
        return os.pread(memory.fileno(), size, begin)  # type: ignore[attr-defined]  # a file
    except OSError:  # unmapped meanwhile
        return b""


def used(pages: object, begin: int, end: int) -> Iterator[tuple[int, int]]:
    """Yield runs of pages that are in use, each as its first page and its length."""
    for start in range(begin, end, SPAN // 8):
        count = min(SPAN // 8, end - start)
        data = os.pread(pages.fileno(), count * 8, start * 8)  # type: ignore[attr-defined]
        if not data.strip(b"\0"):
            continue
        run = None
        for number, (entry,) in enumerate(struct.iter_unpack("=Q", data), start):
            if entry & PRESENT:
                run = number if run is None else run
            elif run is not None:
                yield run, number - run
                run = None
        if run is not None:
            yield run, start + len(data) // 8 - run
