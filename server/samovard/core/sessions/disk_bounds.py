"""The bounds on what sessions take of the disk.

Knows which turns and processes to stop. Knows nothing of directories.
"""

from collections.abc import Awaitable, Callable

from samovard.core.pool.pool import Pool
from samovard.core.pool.states import ProcessState
from samovard.core.sessions.directory import Directory
from samovard.core.sessions.session import Session
from samovard.core.turn.turn import Phase

#: Returns the bytes that a session's home takes; a count above the given one need not be exact.
Usage = Callable[[str, int], Awaitable[int]]


class DiskBounds:
    """The job that stops agents whose session takes more of the disk than its profile allows."""

    def __init__(self, directory: Directory, pool: Pool, usage: Usage) -> None:
        self._directory = directory
        self._pool = pool
        self._usage = usage

    async def run(self) -> None:
        """Look at every session with a process, since only a process can make files."""
        for session in self._directory:
            most = session.conversation.profile.max_disk
            if most is None or session.process() is None:
                continue
            if await self._usage(session.record.home, most) > most:
                self._reached(session, most)

    def _reached(self, session: Session, most: int) -> None:
        """Interrupt the running turn, or stop a process that idles: something of it may write.

        A turn that is about to run may free what is too much; the next look is for it.
        """
        for runner in session.unended():
            if runner.turn.phase is Phase.RUNNING:
                runner.interrupt(limit=f"{most} bytes of disk")
                return
        process = session.process()
        if process is not None and process.state is ProcessState.IDLE:
            self._pool.stop(process, "disk-limit")
