"""Write audit lines in order, off the event loop, and know whether they can be written.

A line that allows something must be in the log before it is done. Lines that queue up during a
write go out together, as the next write. Lines about what is done already are kept while nothing
can be written. Knows nothing of what a line says.

A turn writes two lines, each beside a transaction of the store. Waking a thread costs more than
writing a line, so the lines are written on the store's thread, together with the transaction, if
that thread is idle. The event loop is woken only if a call waits for the result; otherwise it takes
the result with its next call here.
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
    """A thread that has other work to do soon. See `OneThread`."""

    def ride(self, work: Callable[[], None]) -> bool:
        """Run `work` in front of the thread's next work. Return False unless the thread is idle."""

    def set_out(self) -> bool:
        """Start the deferred work without waiting for more. Return False if there is none."""


def audit_down() -> NoProcess:
    """Return the error of a call whose line cannot be written."""
    return NoProcess("the audit log cannot be written", cause="audit-down", retry_after=1.0)


@dataclass(eq=False, slots=True)
class Entry:
    """A line. One with `undo` belongs to a call, which is refused if the line cannot be written.

    `undo` is the line that follows if the call was refused but the first line was written all the
    same. `told` is the number of refused calls that the line reports; None unless it reports that
    the log works again. Awaiting the entry waits until the caller may go on, and raises `NoProcess`
    (audit-down) if the call is refused.
    """

    log: "AuditLog"
    line: bytes
    undo: Line | None = None
    told: int | None = None
    settled: bool = False  # the caller may go on
    failed: bool = False  # the call is refused
    _waiting: list["asyncio.Future[None]"] = field(default_factory=list)

    @property
    def kept(self) -> bool:
        """True if the line is kept until it is written."""
        return self.undo is None and self.told is None

    def settle(self) -> None:
        """Let the caller go on."""
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
    """The audit log of a running service.

    `resumed` makes the line that reports the end of an outage, from the number of calls that were
    refused in it. `carrier` is a thread that may write lines too; it must work on the same disk,
    because it stands still during a write.
    """

    sink: Sink
    recorder: Recorder
    resumed: Callable[[int], bytes]
    patience: float = PATIENCE
    carrier: Carrier | None = None
    down: bool = False
    refused: int = 0  # number of calls, since the log went down
    _since: float = 0.0
    _queue: list[Entry] = field(default_factory=list)
    _writing: list[Entry] = field(default_factory=list)
    _busy: bool = False  # the thread has an order, or its result was not collected yet
    _lock: threading.Lock = field(default_factory=threading.Lock)  # guards the next two
    _done: Written | None = None
    _wakes: bool = False  # the thread must wake the loop with its result
    _awaited: bool = False  # a call waits for a line, of these or of the queue
    _ends: bool = False
    _rests: asyncio.Event = field(default_factory=asyncio.Event)  # no write is under way
    _handed: float = 0.0  # when the thread was given the lines
    _late: asyncio.TimerHandle | None = None  # checks whether a write takes too long
    _retry: asyncio.TimerHandle | None = None
    _orders: "SimpleQueue[list[Entry] | None]" = field(default_factory=SimpleQueue)

    def __repr__(self) -> str:
        return f"<AuditLog {'down' if self.down else 'up'} pending={self.pending}>"

    @property
    def pending(self) -> int:
        """The number of lines that are not written yet."""
        return len(self._queue) + len(self._writing)

    async def __aenter__(self) -> Self:
        self._loop = asyncio.get_running_loop()
        # A daemon thread: a write that never returns must not keep the process from exiting.
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
        """Write what is left, with one more attempt if that failed, but wait at most a second."""
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
        if not self._busy:  # the thread ends at once
            self._thread.join()

    def write(self, line: bytes, undo: Line, *, rides: bool = False) -> Entry:
        """Write a line, or fail. It `rides` if the carrier is about to be given work."""
        entry = Entry(self, line, undo)
        if self._busy:
            self._take()
        if self.down:
            self._fail(entry)
        else:
            self._put(entry, rides=rides)
        return entry

    def keep(self, line: bytes, *, rides: bool = False) -> Entry:
        """Write a line, now or once that is possible.

        Awaiting it waits for the first attempt only.
        """
        entry = Entry(self, line)
        if self._busy:
            self._take()
        if self.down:
            self._queue.append(entry)
            entry.settle()
        else:
            self._put(entry, rides=rides)
        return entry

    def reopen(self) -> None:
        """Check now, and not with the next line, whether the sink's file was renamed."""
        self._take()
        if not self.down and not self._busy:
            self._next(look=True)

    def collect(self) -> bool:
        """Take the thread's result, or have the thread wake the loop. True if nothing is left."""
        if self._busy and self.carrier is not None:
            self.carrier.set_out()
        while self._busy:
            with self._lock:
                self._wakes = self._done is None
            if self._wakes:
                self._awaited = True
                return False
            self._take()
        return True

    def _take(self) -> None:
        """Take the thread's result, if there is one."""
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
        """Write all queued lines at once; with `look` also if there are none."""
        self._writing, self._queue = self._queue, []
        if not self._writing and not look:
            self._rests.set()
            return
        self._busy = True
        self._wakes = self.down or self._ends or self._awaited
        self._rests.clear()
        self._handed = self._loop.time()
        if self._late is None:  # one timer for many writes: one for each would cost two calls more
            self._late = self._loop.call_later(self.patience, self._look)
        entries = self._writing
        if not rides or self.carrier is None or not self.carrier.ride(partial(self._do, entries)):
            self._orders.put(entries)

    def _run(self) -> None:
        while (entries := self._orders.get()) is not None:
            self._do(entries)
        self.sink.close()

    def _do(self, entries: list[Entry]) -> None:
        """Write lines, in a thread; there is one such write at a time."""
        try:
            written = self.sink.write([entry.line for entry in entries])
        except Exception as error:  # after any error the next attempt follows
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
        undone = []
        for entry in done:
            entry.settle()
            self.refused -= entry.told or 0
            if entry.undo is not None and entry.failed:
                undone.append(Entry(self, entry.undo()))
        self._queue = left + undone + self._queue
        self._awaited = self._awaited and bool(self._queue)
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
            self._handed = self._loop.time()  # the carrier had been given no other work
        left = self._handed + self.patience - self._loop.time()
        if left > 0:
            self._late = self._loop.call_later(left, self._look)
            return
        for entry in self._writing:
            self._fail(entry)
        self._goes_down(f"a write did not end in {self.patience:g} s")
        self.collect()

    def _goes_down(self, error: str) -> None:
        """Refuse waiting and new calls; keep the lines of what is done already."""
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
        """Refuse the call of a line. The caller of a line that is kept may go on."""
        if entry.undo is not None and not entry.settled:
            self.refused += 1
            entry.failed = True
        entry.settle()

    def _try_again(self) -> None:
        """Write the lines that were kept, and then one that reports the end of the outage."""
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
