"""The files that an agent wrote of its conversations, found without following a link.

They belong to the agent, which may plant links, pipes and endless files. All of this blocks.
"""

import os
import stat
from collections.abc import Iterator

from samovard.agent.gone import held

DEPTH = 8  # directories inside each other
MAX_BYTES = 1 << 30  # of a file
_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


def walk(directory: int, above: str = "", depth: int = DEPTH) -> Iterator[tuple[str, int | None]]:
    """Yield each file below a directory: its path, and a descriptor that is open until the next
    one.

    The descriptor is None for what must not be read: a link, a file with a second name or of more
    than 1 GiB, a directory nested too deep, and anything that is neither file nor directory.
    """
    with os.scandir(directory) as entries:
        names = sorted(entry.name for entry in entries)
    for name in names:
        try:
            descriptor = os.open(name, _FLAGS, dir_fd=directory)
        except OSError:
            yield above + name, None
            continue
        with held(descriptor):
            found = os.fstat(descriptor)
            if stat.S_ISDIR(found.st_mode) and depth:
                yield from walk(descriptor, f"{above}{name}/", depth - 1)
            else:
                yield above + name, descriptor if _plain(found) else None


def _plain(found: os.stat_result) -> bool:
    return stat.S_ISREG(found.st_mode) and found.st_nlink == 1 and found.st_size <= MAX_BYTES
