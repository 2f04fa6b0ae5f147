"""Measure what homes take of the disk, in a thread of its own: a disk may be slow.

Knows homes. Knows nothing of sessions or of what they may take.
"""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Self

from samovard.agent.home import Homes


class DiskUse:
    """Measurer of homes, one after another; active while it is entered."""

    def __init__(self, homes: Homes) -> None:
        self._homes = homes
        self._thread = ThreadPoolExecutor(1, "samovar-disk")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        # Without waiting: a disk that hangs does not keep the service from ending.
        self._thread.shutdown(wait=False, cancel_futures=True)

    async def of(self, home: str, most: int) -> int:
        """Return the bytes that a home takes; see `Homes.used`."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._thread, self._homes.used, home, most)
