"""A service in the test's own process, for scenarios that need settings of their own.

Knows `support.service`. What talks to the service is in a thread, so that its loop is free.
"""

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from support.service import Running, serving

T = TypeVar("T")


@dataclass(frozen=True)
class Beside:
    """A service, as a thread beside its loop sees it."""

    run: Running
    loop: asyncio.AbstractEventLoop

    @property
    def address(self) -> str:
        return self.run.address

    def ask(self, work: Coroutine[Any, Any, T]) -> T:
        """Return the result of what runs in the service's loop."""
        return asyncio.run_coroutine_threadsafe(work, self.loop).result()


def talking(
    directory: Path, talk: Callable[[Beside], object], *, fake: bool = True, **sections: Any
) -> None:
    """Run a service, and talk to it in a thread."""

    async def story() -> None:
        async with serving(directory, fake=fake, **sections) as run:
            await asyncio.to_thread(talk, Beside(run, asyncio.get_running_loop()))

    asyncio.run(story())
