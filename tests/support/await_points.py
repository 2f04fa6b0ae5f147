"""Count every point at which a task waits, and make something happen at one of them.

A `Fate` is put on an event loop. It counts the awaits of the tasks whose names it watches and, at
the n-th, does what it was told to: while the task waits, or at the moment at which the awaited
thing has come and the task does not know yet.
"""

import asyncio
import random
from collections.abc import Callable, Coroutine, Generator
from typing import Any

from support.virtual_clock import Loop


class Fate:
    """Count awaits and strike once, at the await number `at`, from 0.

    `names` are prefixes of the names of watched tasks. `woken` strikes when the wait is over.
    """

    def __init__(
        self, at: int, names: tuple[str, ...], strike: Callable[[], object], *, woken: bool = False
    ) -> None:
        self.at = at
        self.awaits = 0
        self.struck = ""  # the name of the task at whose await it struck
        self.begun = False  # True while awaits are counted
        self._names = names
        self._strike = strike
        self._woken = woken

    def watch(self, loop: asyncio.AbstractEventLoop) -> None:
        """Watch every task that is made from now on; its awaits count once it has begun."""

        def watched(loop: asyncio.AbstractEventLoop, work: Any, **more: Any) -> "asyncio.Task[Any]":
            return asyncio.Task(_Watched(work, self), loop=loop, **more)

        loop.set_task_factory(watched)

    def seen(self, waits_for: object) -> None:
        """Called when the current task begins to wait."""
        task = asyncio.current_task()
        assert task is not None
        if not self.begun or not task.get_name().startswith(self._names):
            return
        now, self.awaits = self.awaits, self.awaits + 1
        if now != self.at:
            return
        if self._woken and isinstance(waits_for, asyncio.Future):
            # The task itself comes next: it has not asked to be told of the end yet.
            waits_for.add_done_callback(lambda _: self._do(task))
        else:
            self._do(task)

    def _do(self, task: "asyncio.Task[Any]") -> None:
        self.struck = task.get_name()
        self._strike()


class _Watched(Coroutine[Any, Any, Any]):
    """A coroutine that reports each of its awaits."""

    def __init__(self, work: Coroutine[Any, Any, Any], fate: Fate) -> None:
        self._work = work
        self._fate = fate

    def send(self, value: Any) -> Any:
        return self._told(self._work.send(value))

    def throw(self, *error: Any) -> Any:
        return self._told(self._work.throw(*error))

    def close(self) -> None:
        self._work.close()

    def __await__(self) -> Generator[Any, Any, Any]:
        raise AssertionError("only a task runs this")

    def _told(self, waits_for: Any) -> Any:
        self._fate.seen(waits_for)
        return waits_for


class Shuffled(Loop):
    """A loop that runs ready callbacks in an order of its own, drawn from a seed."""

    def __init__(self, seed: int) -> None:
        self._order = random.Random(seed)
        super().__init__()

    def _run_once(self) -> None:
        ready: Any = self._ready  # type: ignore[attr-defined]  # asyncio's own
        shuffled = list(ready)
        self._order.shuffle(shuffled)
        ready.clear()
        ready.extend(shuffled)
        super()._run_once()  # type: ignore[misc]  # as above
