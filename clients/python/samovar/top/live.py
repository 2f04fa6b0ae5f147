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

from samovar.errors import SamovarError
from samovar.operating import AsyncOperator
from samovar.pools import PoolSnapshot, ProcessInfo
from samovar.top.actions import ACTIONS, Action
from samovar.top.figures import Change, Changes, Sort, ordered
from samovar.top.screen import draw
from samovar.words import clean_line

SORTS = tuple(Sort)


class Live:
    """A view of one snapshot after another on a screen of its own, until `q` is pressed."""

    def __init__(
        self,
        sort: Sort,
        interval: float,
        operator: AsyncOperator,
        console: Console | None = None,
    ) -> None:
        self._operator = operator
        self._console = console or Console(highlight=False)
        self._live = live.Live(console=self._console, screen=True, auto_refresh=False)
        self._sort = sort
        self._interval = interval
        self._reverse = False
        self._changes = Changes()
        self._shown: tuple[PoolSnapshot, Change] | None = None
        self._quit = asyncio.Event()
        self._chosen = ""  # the id of a process
        self._asked: Action | None = None  # the action that waits for a yes
        self._said = ""  # what the last action did
        self._acting: set[asyncio.Task[None]] = set()

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
                await asyncio.gather(quitting, following, *self._acting, return_exceptions=True)
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
        asked, self._asked = self._asked, None
        if asked is not None:
            self._said = ""
            if key in ("y", "Y"):
                self._act(asked)
        elif key in ACTIONS:
            self._choose(ACTIONS[key])
        elif key in ("j", "k"):
            self._step(1 if key == "j" else -1)
        elif key in ("q", "Q"):
            self._quit.set()
        elif key in ("s", "S"):
            step = 1 if key == "s" else -1
            self._sort = SORTS[(SORTS.index(self._sort) + step) % len(SORTS)]
        elif key == "r":
            self._reverse = not self._reverse
        self._draw()

    def _rows(self) -> tuple[ProcessInfo, ...]:
        """Return the processes in the order in which they are shown."""
        if self._shown is None:
            return ()
        return ordered(self._shown[0], self._sort, reverse=self._reverse).processes

    def _step(self, by: int) -> None:
        """Choose the next row down or up; at first the first or the last one."""
        ids = [row.process_id for row in self._rows()]
        if self._chosen in ids:
            self._chosen = ids[min(max(ids.index(self._chosen) + by, 0), len(ids) - 1)]
        elif ids:
            self._chosen = ids[0 if by > 0 else -1]

    def _choose(self, action: Action) -> None:
        row = self._row()
        if row is None:
            self._said = "choose a process with j and k first"
        elif action.asks:
            self._asked = action
            self._said = action.asks.format(session=row.session_id, tenant=row.tenant_id)
        else:
            self._act(action)

    def _row(self) -> ProcessInfo | None:
        return next((row for row in self._rows() if row.process_id == self._chosen), None)

    def _act(self, action: Action) -> None:
        row = self._row()
        if row is None or self._shown is None:
            self._said = "the process is gone"
            return
        task = asyncio.create_task(self._done(action, row, self._shown[0]))
        self._acting.add(task)
        task.add_done_callback(self._acting.discard)

    async def _done(self, action: Action, row: ProcessInfo, shown: PoolSnapshot) -> None:
        try:
            self._said = await action.do(self._operator, row, shown)
        except SamovarError as error:
            self._said = str(error)
        self._draw()

    def _draw(self) -> None:
        if self._shown is None:
            return
        snapshot, change = self._shown
        rows = ordered(snapshot, self._sort, reverse=self._reverse)
        self._live.update(
            Group(
                draw(rows, change, self._console.width, self._console.height - 2, self._chosen),
                Text(clean_line(self._said), "bold"),
                self._foot(),
            ),
            refresh=True,
        )

    def _foot(self) -> Text:
        names = [Text(name.value, "reverse" if name is self._sort else "dim") for name in SORTS]
        order = ", reversed" if self._reverse else ""
        acts = "  ".join(f"{key} {action.word}" for key, action in ACTIONS.items())
        words = (
            f"{order}  every {self._interval:g} s  q quit  s, S sort  r reverse  j, k row  {acts}"
        )
        foot = Text("by ", no_wrap=True, overflow="ellipsis")
        return foot.append_text(Text(" ").join(names)).append(words, "dim")

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
