"""A turn on a terminal: Markdown that grows, a line for each tool, a last line in dim.

Knows Rich, which the extra `chat` installs.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager

from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.live import Live
from rich.markdown import Markdown
from rich.segment import Segment
from rich.text import Text

from samovar import listing
from samovar.chat.conversation import Take
from samovar.chat.parts import Part, Parts, Said
from samovar.chat.plain import INTERRUPTING, failure
from samovar.events import Event, Notice, Outcome, TurnFinished, TurnStarted
from samovar.turns import Session
from samovar.words import clean, clean_line

#: The most redraws of a turn per second.
RATE = 10
HINT = "Ctrl-C interrupts"
Clock = Callable[[], float]


class Screen:
    """Drawer on a console. `clock` returns seconds."""

    def __init__(self, console: Console, clock: Clock) -> None:
        self._console = console
        self._clock = clock
        self._hint = HINT  # of the running turn
        self._turn: _Turn | None = None

    def tell(self, line: str) -> None:
        """Show a line about the conversation."""
        self._console.print(Text(line, style="dim"))

    def list(self, sessions: Iterable[Session], current: str) -> None:
        """Show sessions as a table."""
        self._console.print(listing.table(sessions, current))

    @contextmanager
    def turn(self) -> Iterator[Take]:
        """Draw a turn while it grows, and leave all of it on the screen."""
        self._hint = HINT
        turn = self._turn = _Turn(self._console, self._clock, lambda: self._hint)
        turn.draw()
        try:
            yield turn.take
        finally:
            turn.end()

    @contextmanager
    def asking(self) -> Iterator[None]:
        """Draw nothing while the block runs."""
        if self._turn is not None:
            self._turn.pause()
        try:
            yield
        finally:
            if self._turn is not None:
                self._turn.draw()

    def interrupting(self) -> None:
        """Show how to stop at once."""
        self._hint = INTERRUPTING


class _Turn:
    """One turn. Rich draws `growing` from a thread of its own, which therefore only reads."""

    def __init__(self, console: Console, clock: Clock, hint: Callable[[], str]) -> None:
        self._console = console
        self._clock = clock
        self._hint = hint
        self._begin = clock()
        self._parts = Parts()
        self._shown: Part | None = None
        self._mode = ""
        self._live: Live | None = None

    def draw(self) -> None:
        """Begin to draw the parts that may still change, below the final ones."""
        self._live = Live(
            get_renderable=self.growing,
            console=self._console,
            refresh_per_second=RATE,
            transient=True,
            redirect_stdout=False,
            redirect_stderr=False,
        )
        self._live.start()

    def pause(self) -> None:
        """Stop drawing, and leave the parts so far on the screen."""
        self._stop()
        self._show(self._parts.lead())

    def _stop(self) -> None:
        if self._live is not None:
            self._live.stop()

    def take(self, event: Event) -> None:
        self._parts.take(event)
        match event:
            case TurnStarted():
                self._mode = event.start_mode.name.lower()
            case Notice():
                self._leave([Text(clean_line(event.message), style="yellow")])
            case TurnFinished():
                self._show(self._parts.end())
                self._leave([self._last_line(event)])
                return
        self._show(self._parts.settle())

    def end(self) -> None:
        """Leave the parts of a broken turn on the screen."""
        self._stop()
        self._show(self._parts.end())

    def growing(self) -> RenderableType:
        """Return the parts that may still change, and the time so far."""
        passed = self._clock() - self._begin
        drawn = _drawn(self._parts.open(), self._shown)
        return _Tail(Group(*drawn, Text(f"{passed:.0f} s, {self._hint()}", style="dim")))

    def _show(self, parts: Sequence[Part]) -> None:
        if parts:
            self._leave(_drawn(parts, self._shown))
            self._shown = parts[-1]

    def _leave(self, drawn: Iterable[RenderableType]) -> None:
        for renderable in drawn:
            self._console.print(renderable)

    def _last_line(self, event: TurnFinished) -> Text:
        usage, passed = event.usage, self._clock() - self._begin
        read = usage.input_tokens + usage.cache_read_input_tokens
        read += usage.cache_creation_input_tokens
        cells = [self._mode, f"{passed:.1f} s", f"{read} in, {usage.output_tokens} out"]
        cells.append(f"{usage.cost_usd:.4f} USD")
        line = Text(" · ".join(cell for cell in cells if cell), style="dim")
        if event.outcome is Outcome.COMPLETED:
            return line
        style = "yellow" if event.outcome is Outcome.INTERRUPTED else "red"
        return Text.assemble((failure(event), style), (" · ", "dim"), line)


def _drawn(parts: Iterable[Part], before: Part | None) -> list[RenderableType]:
    """Return the parts as Rich draws them, with a blank line around each text except the first."""
    drawn: list[RenderableType] = []
    for part in parts:
        if isinstance(part, Said) and not part.text.strip():
            continue
        if before is not None and (isinstance(part, Said) or isinstance(before, Said)):
            drawn.append(Text())
        drawn.append(_draw(part))
        before = part
    return drawn


def _draw(part: Part) -> RenderableType:
    if isinstance(part, Said):
        # No links, whose text may differ from their target.
        return Markdown(clean(part.text), hyperlinks=False)
    style = "red" if part.result is not None and part.result.is_error else "green"
    ending = part.ending() or "…"
    return Text.assemble((part.line(), "cyan"), "  ", (ending, style if part.whole else "dim"))


class _Tail:
    """The last lines of a renderable, as many as the screen has."""

    def __init__(self, whole: RenderableType) -> None:
        self._whole = whole

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        room = max(console.height - 1, 1)
        lines = console.render_lines(self._whole, options.update(height=None), pad=False)
        for number, line in enumerate(lines[-room:]):
            if number:
                yield Segment.line()
            yield from line
