"""Remove homes in the background: move them away at once and erase them later.

Erasing has threads of its own, because a disk may be slow and a home large, and no turn may wait
for that. What is not erased when the service ends is erased by its next start. Knows nothing of
sessions or of how a home is erased.
"""

import asyncio
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from types import TracebackType
from typing import Protocol, Self

from samovard.agent.gone import Stopped, home_of
from samovard.agent.home import Homes

MOVERS = 4  # a disk that hangs under one home does not block the others
RETRY, MAX_RETRY = 1.0, 5 * 60.0  # seconds before another attempt at what could not be erased
NEVER = float("inf")
EXIT = 0.5  # seconds that the end waits for a file that is being erased


class NotErased(Protocol):
    """Called for a failure to erase."""

    def __call__(self, *, home: str, error: str) -> None:
        """Called on the event loop with a home that could not be erased, once per round."""


class Removal:
    """Background remover of homes; active while it is entered."""

    def __init__(self, homes: Homes, failed: NotErased) -> None:
        self._homes = homes
        self._failed = failed
        self._movers = ThreadPoolExecutor(MOVERS, "samovar-move")
        # A daemon thread: a disk that hangs does not keep the service from ending.
        self._eraser = threading.Thread(target=self._run, name="samovar-erase", daemon=True)
        self._wanted = threading.Event()
        self._stop = threading.Event()
        self.pending = 0  # entries to erase: homes, and directories found in them so far

    def __enter__(self) -> Self:
        self._loop = asyncio.get_running_loop()
        self._gone = self._homes.gone.copy()
        self._homes.on_gone = self._wanted.set
        self._wanted.set()  # an earlier service may have left something
        self._eraser.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stop.set()
        self._wanted.set()
        self._movers.shutdown(wait=False, cancel_futures=True)
        self._eraser.join(EXIT)

    async def remove(self, home: str) -> None:
        """Remove a home. Return once it is moved away, so that its name is free. Idempotent.

        Raise `OSError` or `Misconfigured` if it stays. A cancellation does not stop the removal.
        """
        await self._loop.run_in_executor(self._movers, self._homes.discard, home)

    # In the thread that erases.

    def _run(self) -> None:
        failed: set[str] = set()
        due, pause = NEVER, RETRY  # when the failed ones are tried again
        while not self._stop.is_set():
            self._wanted.wait(min(max(due - time.monotonic(), 0.0), MAX_RETRY))
            self._wanted.clear()
            if again := time.monotonic() >= due:
                failed.clear()
            failed |= self._erase(failed)
            if not failed:
                due, pause = NEVER, RETRY
            elif again or due == NEVER:
                due, pause = time.monotonic() + pause, min(2 * pause, MAX_RETRY)
        self._gone.close()

    def _erase(self, spared: set[str]) -> set[str]:
        """Erase every entry except some. Return the ones that cannot be erased."""
        failed: set[str] = set()
        with suppress(Stopped):
            pending = [entry for entry in self._gone.entries() if entry not in spared]
            while pending:
                self.pending = len(pending) + len(spared) + len(failed)
                entry = pending.pop()
                try:
                    pending += self._gone.erase(entry, self._goes_on)
                except OSError as error:
                    if not failed:
                        self._tell(home_of(entry), error)
                    failed.add(entry)
            self.pending = len(spared) + len(failed)
        return failed

    def _goes_on(self) -> bool:
        return not self._stop.is_set()

    def _tell(self, home: str, error: OSError) -> None:
        # The loop is closed: there is no listener left.
        with suppress(RuntimeError):
            told = partial(self._failed, home=home, error=repr(error))
            self._loop.call_soon_threadsafe(told)
