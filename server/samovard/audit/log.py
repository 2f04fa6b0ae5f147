"""Writes audit lines in order, off the event loop, and knows whether it can.

A line that allows something must be in the log before it is done. Lines that wait while others
are written go out together, as one write. Lines of what is done already are kept while nothing
can be written. Knows nothing of what a line says.

A turn writes two lines, each beside a transaction of the store. To wake a thread costs more than
to write a line, so these ride with the transaction, to the store's thread, if it is idle. And the
loop is woken only if somebody waits for what is written; else it takes what is done with the next
thing that it does here.
"""

import asyncio
import contextlib
import threading
import time
from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from functools import partial
from queue import SimpleQueue
from types import TracebackType
from typing import Any, Protocol, Self

from samovard.audit.sink import Sink, Written
from samovard.core.errors import NoProcess
from samovard.telemetry.incidents import incident
from samovard.telemetry.recorder import Recorder

PATIENCE = 5.0  # seconds that a write may take
RETRY_EVERY = 1.0  # seconds from one attempt to the next while nothing can be written
CLOSE_TIMEOUT = 1.0  # seconds for the lines that are left at the end

Line = Callable[[], bytes]


class Carrier(Protocol):
    """A thread that has other work to do, soon. See `OneThread`."""

    @property
    def idle(self) -> bool:
        """True if it does nothing."""

    def ride(self, work: Callable[[], None]) -> None:
        """Do something at the head of what is asked for next."""

    def set_out(self) -> bool:
        """Do what rides, and wait for nothing to be asked for. False if nothing does."""


def audit_down() -> NoProcess:
    """Return why a call is refused whose line cannot be written."""
    return NoProcess("the audit log cannot be written", cause="audit-down", retry_after=1.0)


@dataclass(eq=False, slots=True)
class Entry:
    """A line. One with `undo` is a call's, which is refused if it cannot be written.

    `undo` is the line that follows if the call was refused and it was written all the same.
    `told` is how many refused calls it tells of, None unless it says that writing goes on.
    Awaiting it waits until its caller may go on, and raises `NoProcess` (audit-down) if the call
    is refused.
    """

    log: "AuditLog"
    line: bytes
    undo: Line | None = None
    told: int | None = None
    settled: bool = False  # its caller may go on
    failed: bool = False  # its call is refused
    _waiting: list["asyncio.Future[None]"] = field(default_factory=list)

    @property
    def kept(self) -> bool:
        """True if it is kept until it is written."""
        return self.undo is None and self.told is None

    @property
    def awaited(self) -> bool:
        """True if somebody has begun to wait for it."""
        return bool(self._waiting)

    def settle(self) -> None:
        """Let its caller go on."""
        self.settled = True
        for waiting in self._waiting:
            if not waiting.done():
                waiting.set_result(None)

    def __await__(self) -> Generator[Any, None, None]:
        if not self.settled and not self.log.collect() and not self.settled:
            waiting = asyncio.get_running_loop().create_future()
            self._waiting.append(waiting)
            yield from waiting
        if self.failed:
            raise audit_down()


@dataclass(eq=False)
class AuditLog:
    """The audit log of a running service. `resumed` makes the line that says it can be written
    again, of the number of calls that were refused meanwhile. `carrier` is a thread that may
    write lines, too: one of the same disk, since it stands still while a write does.
    """

    sink: Sink
    recorder: Recorder
    resumed: Callable[[int], bytes]
    patience: float = PATIENCE
    carrier: Carrier | None = None
    down: bool = False
    refused: int = 0  # calls, since it went down
    _since: float = 0.0
    _queue: list[Entry] = field(default_factory=list)
    _writing: list[Entry] = field(default_factory=list)
    _busy: bool = False  # the thread has an order, or what it did was not collected yet
    _lock: threading.Lock = field(default_factory=threading.Lock)  # of the next two
    _done: Written | None = None
    _wakes: bool = False  # the thread is to wake the loop with what it has done
    _ends: bool = False
    _rests: asyncio.Event = field(default_factory=asyncio.Event)  # no write is under way
    _handed: float = 0.0  # when the thread got it
    _late: asyncio.TimerHandle | None = None  # looks whether a write takes too long
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
        self._ends = True
        if self.collect() and self.down:
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

    def write(self, line: bytes, undo: Line, *, rides: bool = False) -> Entry:
        """Write a line, or fail. If it `rides`, the carrier is about to be asked for something."""
        entry = Entry(self, line, undo)
        self._take()
        if self.down:
            self._fail(entry)
        else:
            self._put(entry, rides=rides)
        return entry

    def keep(self, line: bytes, *, rides: bool = False) -> Entry:
        """Write a line, now or once that is possible. Awaiting it waits for no more than now."""
        entry = Entry(self, line)
        self._take()
        if self.down:
            self._queue.append(entry)
            entry.settle()
        else:
            self._put(entry, rides=rides)
        return entry

    def reopen(self) -> None:
        """Look now whether the sink's file was renamed, and not at the next line."""
        self._take()
        if not self.down and not self._busy:
            self._next(look=True)

    def collect(self) -> bool:
        """Take what the thread has done, or have it wake the loop. True if nothing is left."""
        if self._busy and self.carrier is not None:
            self.carrier.set_out()
        while self._busy:
            with self._lock:
                self._wakes = self._done is None
            if self._wakes:
                return False
            self._take()
        return True

    def _take(self) -> None:
        """Take what the thread has done, if it has."""
        if self._busy:
            with self._lock:
                done, self._done = self._done, None
            if done is not None:
                self._written(done)

    def _put(self, entry: Entry, *, rides: bool) -> None:
        self._queue.append(entry)
        if self._busy:
            self.collect()
        else:
            self._next(rides=rides)

    def _next(self, *, look: bool = False, rides: bool = False) -> None:
        """Hand over all that waits, as one write; with `look` also nothing."""
        self._writing, self._queue = self._queue, []
        if not self._writing and not look:
            self._rests.set()
            return
        self._busy = True
        self._wakes = self.down or self._ends or any(entry.awaited for entry in self._writing)
        self._rests.clear()
        self._handed = self._loop.time()
        if self._late is None:  # one timer for many writes: each would cost two of its own
            self._late = self._loop.call_later(self.patience, self._look)
        lines = [entry.line for entry in self._writing]
        if rides and self.carrier is not None and self.carrier.idle:
            self.carrier.ride(partial(self._do, lines))
        else:
            self._orders.put(lines)

    def _run(self) -> None:
        while (lines := self._orders.get()) is not None:
            self._do(lines)
        self.sink.close()

    def _do(self, lines: list[bytes]) -> None:
        """Write lines, in a thread; nothing else is written meanwhile."""
        try:
            written = self.sink.write(lines)
        except Exception as error:  # whatever it is, the next attempt follows
            written = Written(0, OSError(type(error).__name__))
        with self._lock:
            self._done = written
            wakes, self._wakes = self._wakes or written.error is not None, False
        if wakes:
            with contextlib.suppress(RuntimeError):  # the loop has ended
                self._loop.call_soon_threadsafe(self._take)

    def _written(self, written: Written) -> None:
        self._busy = False
        group, self._writing = self._writing, []
        done, left = group[: written.lines], group[written.lines :]
        undone = [Entry(self, entry.undo()) for entry in done if entry.undo and entry.failed]
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

    def _look(self) -> None:
        """Refuse calls while a write takes too long: it may still end, or never."""
        self._late = None
        self._take()
        if not self._busy:
            return
        if self.carrier is not None and self.carrier.set_out():
            self._handed = self._loop.time()  # nothing was asked for, after all
        left = self._handed + self.patience - self._loop.time()
        if left > 0:
            self._late = self._loop.call_later(left, self._look)
            return
        for entry in self._writing:
            self._fail(entry)
        self._goes_down(f"a write did not end in {self.patience:g} s")
        self.collect()

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

    def _fail(self, entry: Entry) -> None:
        """Refuse the call of a line. One that waits for a line that is kept may go on."""
        if entry.undo is not None and not entry.settled:
            self.refused += 1
            entry.failed = True
        entry.settle()

    def _try_again(self) -> None:
        """Write what was kept, and behind it that writing goes on."""
        if self._retry is not None:
            self._retry.cancel()
        refused = self.refused
        self._queue.append(Entry(self, self.resumed(refused), told=refused))
        self._next()

    def _comes_up(self) -> None:
        seconds = round(time.monotonic() - self._since, 3)
        incident(self.recorder, "audit.up", seconds=seconds)
        self.down = False
        self._rests.set()
        if self.refused:  # while the last line was written
            refused, self.refused = self.refused, 0
            self.keep(self.resumed(refused))
