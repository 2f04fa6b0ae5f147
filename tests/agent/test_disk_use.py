"""Homes are measured in a thread of their own."""

import asyncio
import threading
from typing import Any

from support.timeouts import BOUND

from samovard.agent.disk_use import DiskUse


class Homes:
    """Homes on a disk that hangs until it is let go."""

    def __init__(self) -> None:
        self.entered, self.leave = threading.Event(), threading.Event()
        self.asked: list[Any] = []

    def used(self, name: str, most: int) -> int:
        self.asked.append((name, most, threading.current_thread().name))
        self.entered.set()
        self.leave.wait(BOUND)
        return 7


def test_a_disk_that_hangs_holds_nobody_up() -> None:
    """Neither the loop nor the end of the service."""
    homes: Any = Homes()

    async def story() -> None:
        with DiskUse(homes) as use:
            asked = asyncio.ensure_future(use.of("home", 9))
            await asyncio.to_thread(homes.entered.wait, BOUND)
            assert not asked.done()
        homes.leave.set()
        assert await asked == 7

    asyncio.run(story())
    ((name, most, thread),) = homes.asked
    assert (name, most) == ("home", 9)
    assert thread.startswith("samovar-disk")
