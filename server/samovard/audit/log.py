"""Writes audit lines in order, off the event loop, and knows whether it can.

A line that allows something must be in the log before it is done. Lines that wait while others
are written go out together, as one write. Lines of what is done already are kept while nothing
can be written. Knows nothing of what a line says.
"""

import asyncio
import contextlib
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from queue import SimpleQueue
from types import TracebackType
from typing import Self

from samovard.audit.sink import Sink, Written
from samovard.core.errors import NoProcess
from samovard.telemetry.incidents import incident
from samovard.telemetry.recorder import Recorder

PATIENCE = 5.0  # seconds that a write may take
RETRY_EVERY = 1.0  # seconds from one attempt to the next while nothing can be written
CLOSE_TIMEOUT = 1.0  # seconds for the lines that are left at the end

Line = Callable[[], bytes]


def audit_down() -> NoProcess:
    """Return why a call is refused whose line cannot be written."""
    return NoProcess("the audit log cannot be written", cause="audit-down", retry_after=1.0)


@dataclass(eq=False, slots=True)
class _Entry:
    """A line. One with `undo` is a call's, which is refused if it cannot be written.

    `undo` is the line that follows if the call was refused and it was written all the same.
    `told` is how many refused calls it tells of, None unless it says that writing goes on.
    """

    line: bytes
    done: "asyncio.Future[None]"
    undo: Line | None = None
    told: int | None = None

    @property
    def kept(self) -> bool:
        """True if it is kept until it is written."""
        return self.undo is None and self.told is None

    @property
    def failed(self) -> bool:
        """True if its call was refused."""
        done = self.done
        return done.done() and not done.cancelled() and done.exception() is not None

    def settle(self) -> None:
        """Let its caller go on."""
        if not self.done.done():
            self.done.set_result(None)


@dataclass(eq=False)
class AuditLog:
    """The audit log of a running service. `resumed` makes the line that says it can be written
    again, of the number of calls that were refused meanwhile.
    """

    sink: Sink
    recorder: Recorder
    resumed: Callable[[int], bytes]
    patience: float = PATIENCE
    down: bool = False
    refused: int = 0  # calls, since it went down
    _since: float = 0.0
    _queue: list[_Entry] = field(default_factory=list)
    _writing: list[_Entry] = field(default_factory=list)
    _busy: bool = False  # the thread has an order
    _rests: asyncio.Event = field(default_factory=asyncio.Event)  # no write is under way
    _late: asyncio.TimerHandle | None = None
    _retry: asyncio.TimerHandle | None = None
    _orders: "SimpleQueue[list[bytes] | None]" = field(default_factory=SimpleQueue)

    def __repr__(self) -> str:
        return f"<AuditLog {'down' if self.down else 'up'} pending={self.pending}>"

    @property
    def pending(self) -> int:
        """Return how many lines are not written yet."""
        return len(self._queue) + len(self._writing)

    async def __aenter__(self) -> Self:
        self._loop = asyncio.get_running_loop()
        # A daemon: a write that never returns must not keep the process from exiting.
        self._thread = threading.Thread(target=self._run, name="audit", daemon=True)
        self._thread.start()
        self._rests.set()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Write what is left, once more if that failed, but wait no longer than a second."""
        if self.down and not self._busy:
            self._try_again()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(CLOSE_TIMEOUT):
                await self._rests.wait()
        for timer in (self._late, self._retry):
            if timer is not None:
                timer.cancel()
        if self.pending:
            incident(self.recorder, "audit.lost", count=self.pending)
        self._orders.put(None)
        if not self._busy:  # it ends at once
            self._thread.join()

    def write(self, line: bytes, undo: Line) -> "asyncio.Future[None]":
        """Write a line. The future raises `NoProcess` (audit-down) if it could not be written."""
        entry = self._entry(line, undo)
        if self.down:
            self._fail(entry)
        else:
            self._put(entry)
        return entry.done

    def keep(self, line: bytes) -> "asyncio.Future[None]":
        """Write a line, now or once that is possible. The future waits for no more than now."""
        entry = self._entry(line)
        if self.down:
            self._queue.append(entry)
            entry.settle()
        else:
            self._put(entry)
        return entry.done

    def reopen(self) -> None:
        """Look now whether the sink's file was renamed, and not at the next line."""
        if not self.down and not self._busy:
            self._next(look=True)

    def _entry(self, line: bytes, undo: Line | None = None, told: int | None = None) -> _Entry:
        entry = _Entry(line, self._loop.create_future(), undo, told)
        entry.done.add_done_callback(_seen)
        return entry

    def _put(self, entry: _Entry) -> None:
        self._queue.append(entry)
        if not self._busy:
            self._next()

    def _next(self, *, look: bool = False) -> None:
        """Hand over all that waits, as one write; with `look` also nothing."""
        self._writing, self._queue = self._queue, []
        if not self._writing and not look:
            self._rests.set()
            return
        self._busy = True
        self._rests.clear()
        self._late = self._loop.call_later(self.patience, self._hangs)
        self._orders.put([entry.line for entry in self._writing])

    def _run(self) -> None:
        while (lines := self._orders.get()) is not None:
            try:
                written = self.sink.write(lines)
            except Exception as error:  # whatever it is, the next attempt follows
                written = Written(0, OSError(type(error).__name__))
            with contextlib.suppress(RuntimeError):  # the loop has ended
                self._loop.call_soon_threadsafe(self._written, written)
        self.sink.close()

    def _written(self, written: Written) -> None:
        if self._late is not None:
            self._late.cancel()
        self._busy = False
        group, self._writing = self._writing, []
        done, left = group[: written.lines], group[written.lines :]
        undone = [self._entry(entry.undo()) for entry in done if entry.undo and entry.failed]
        for entry in done:
            entry.settle()
            self.refused -= entry.told or 0
        self._queue = left + undone + self._queue
        if written.error is not None:
            self._goes_down(written.error.strerror or str(written.error))
        elif not self.down:
            self._next()
        elif self._queue or not any(entry.told is not None for entry in done):
            self._try_again()
        else:
            self._comes_up()

    def _hangs(self) -> None:
        """Refuse calls while a write takes too long: it may still end, or never."""
        for entry in self._writing:
            self._fail(entry)
        self._goes_down(f"a write did not end in {self.patience:g} s")

    def _goes_down(self, error: str) -> None:
        """Refuse what waits and what comes; keep the lines of what is done already."""
        for entry in self._queue:
            self._fail(entry)
        self._queue = [entry for entry in self._queue if entry.kept]
        if not self.down:
            self.down, self._since = True, time.monotonic()
            incident(self.recorder, "audit.down", error=error)
        if not self._busy:
            self._rests.set()
            self._retry = self._loop.call_later(RETRY_EVERY, self._try_again)

    def _fail(self, entry: _Entry) -> None:
        """Refuse the call of a line. One that waits for a line that is kept may go on."""
        if entry.undo is not None and not entry.done.done():
            self.refused += 1
            entry.done.set_exception(audit_down())
        entry.settle()

    def _try_again(self) -> None:
        """Write what was kept, and behind it that writing goes on."""
        if self._retry is not None:
            self._retry.cancel()
        refused = self.refused
        self._queue.append(self._entry(self.resumed(refused), told=refused))
        self._next()

    def _comes_up(self) -> None:
        seconds = round(time.monotonic() - self._since, 3)
        incident(self.recorder, "audit.up", seconds=seconds)
        self.down = False
        self._rests.set()
        if self.refused:  # while the last line was written
            refused, self.refused = self.refused, 0
            self.keep(self.resumed(refused))


def _seen(done: "asyncio.Future[None]") -> None:
    # The work that waited for it may have ended in another way.
    if not done.cancelled():
        done.exception()
