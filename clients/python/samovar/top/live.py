"""The live view: redrawn for each snapshot, controlled by single keys.

Knows Rich and the terminal. Knows nothing of where snapshots come from.
"""

import asyncio
import os
import sys
import termios
import tty
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager

from rich import live
from rich.console import Console, Group
from rich.text import Text

from samovar.pools import PoolSnapshot
from samovar.top.figures import Change, Changes, Sort, ordered
from samovar.top.screen import draw

SORTS = tuple(Sort)


class Live:
    """A view of one snapshot after another on a screen of its own, until `q` is pressed."""

    def __init__(self, sort: Sort, interval: float, console: Console | None = None) -> None:
        self._console = console or Console(highlight=False)
        self._live = live.Live(console=self._console, screen=True, auto_refresh=False)
        self._sort = sort
        self._interval = interval
        self._reverse = False
        self._changes = Changes()
        self._shown: tuple[PoolSnapshot, Change] | None = None
        self._quit = asyncio.Event()

    async def run(self, first: PoolSnapshot, rest: AsyncIterator[PoolSnapshot]) -> None:
        """Show snapshots until there are no more or the person quits."""
        with self._live, self._keys():
            self._take(first)
            following = asyncio.create_task(self._follow(rest))
            quitting = asyncio.create_task(self._quit.wait())
            try:
                await asyncio.wait({following, quitting}, return_when=asyncio.FIRST_COMPLETED)
            finally:
                quitting.cancel()
                over = following.done()
                following.cancel()
                await asyncio.gather(quitting, following, return_exceptions=True)
        if over:
            following.result()

    async def _follow(self, rest: AsyncIterator[PoolSnapshot]) -> None:
        async for snapshot in rest:
            self._take(snapshot)

    def _take(self, snapshot: PoolSnapshot) -> None:
        self._shown = snapshot, self._changes.take(snapshot)
        self._draw()

    def press(self, key: str) -> None:
        """Execute a key; an unknown one is ignored."""
        if key in ("q", "Q"):
            self._quit.set()
        elif key in ("s", "S"):
            step = 1 if key == "s" else -1
            self._sort = SORTS[(SORTS.index(self._sort) + step) % len(SORTS)]
        elif key == "r":
            self._reverse = not self._reverse
        self._draw()

    def _draw(self) -> None:
        if self._shown is None:
            return
        snapshot, change = self._shown
        rows = ordered(snapshot, self._sort, reverse=self._reverse)
        self._live.update(
            Group(draw(rows, change, self._console.width, self._console.height - 1), self._foot()),
            refresh=True,
        )

    def _foot(self) -> Text:
        names = [Text(name.value, "reverse" if name is self._sort else "dim") for name in SORTS]
        order = ", reversed" if self._reverse else ""
        words = f"{order}  every {self._interval:g} s  q quit  s, S sort  r reverse"
        return Text("by ").append_text(Text(" ").join(names)).append(words, "dim")

    @contextmanager
    def _keys(self) -> Iterator[None]:
        """Read single keys without echo; Ctrl-C stays a signal."""
        terminal = sys.stdin.fileno()
        before = termios.tcgetattr(terminal)
        loop = asyncio.get_running_loop()
        tty.setcbreak(terminal)
        loop.add_reader(terminal, self._typed, terminal)
        try:
            yield
        finally:
            loop.remove_reader(terminal)
            termios.tcsetattr(terminal, termios.TCSADRAIN, before)

    def _typed(self, terminal: int) -> None:
        keys = os.read(terminal, 64).decode(errors="replace")
        if not keys:  # the terminal is gone
            self._quit.set()
        for key in keys:
            self.press(key)
