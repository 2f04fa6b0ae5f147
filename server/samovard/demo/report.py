"""The results of the demonstration, and how they are shown.

Knows numbers and words; takes no measurement itself.
"""

import statistics
from dataclasses import dataclass, field

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from samovard.demo.waterfall import Waterfall

#: The speedup over spawning of a hand-written client that kept one process alive, as its author
#: measured it.
BY_HAND = 2.1


@dataclass(frozen=True, slots=True)
class Warm:
    """One turn through the service; times in seconds from the call."""

    question: str
    answer: str
    expected: str
    pid: int
    start_mode: str
    first_event: float
    total: float


@dataclass(slots=True)
class Findings:
    """Everything that was measured."""

    warm: list[Warm] = field(default_factory=list)
    busy: list[float] = field(default_factory=list)
    spawned: list[tuple[str, float]] = field(default_factory=list)
    idle: float = 0.0
    whole_conversation: bool = False
    traced: list[Waterfall] | None = None

    @property
    def correct(self) -> bool:
        """True if every answer was right, including those of spawned processes."""
        expected = [turn.expected for turn in self.warm]
        spawned = [answer for answer, _ in self.spawned]
        return [turn.answer for turn in self.warm] == expected == spawned

    @property
    def one_process(self) -> bool:
        """True if one process answered everything."""
        return len({turn.pid for turn in self.warm}) == 1

    @property
    def passed(self) -> bool:
        """True if the demonstration shows what it claims."""
        traced = self.traced is None or (self.traced and all(turn.whole for turn in self.traced))
        return self.one_process and self.correct and self.whole_conversation and bool(traced)

    @property
    def warm_ms(self) -> float:
        """The median of the turns after the first, in milliseconds."""
        return 1000 * statistics.median(turn.total for turn in self.warm[1:])

    @property
    def spawn_ms(self) -> float:
        """The median of the spawned processes, in milliseconds."""
        return 1000 * statistics.median(seconds for _, seconds in self.spawned)

    @property
    def busy_ms(self) -> float:
        """The median of turns sent directly one after another, in milliseconds."""
        return 1000 * statistics.median(self.busy)

    @property
    def speedup(self) -> float:
        """The speedup of a warm turn over a spawned process after the same idle time."""
        return self.spawn_ms / self.warm_ms

    @property
    def busy_speedup(self) -> float:
        """The speedup for turns sent directly one after another."""
        return self.spawn_ms / self.busy_ms

    def as_json(self) -> dict[str, object]:
        """Return the figures for machines, beside those of a hand-written client."""
        return {
            "answers": [turn.answer for turn in self.warm],
            "pids": [turn.pid for turn in self.warm],
            "idle_s": self.idle,
            "warm_ms": round(self.warm_ms, 1),
            "spawn_ms": round(self.spawn_ms, 1),
            "speedup": round(self.speedup, 1),
            "busy_warm_ms": round(self.busy_ms, 1),
            "busy_speedup": round(self.busy_speedup, 1),
            "by_hand_speedup": BY_HAND,
            "one_process": self.one_process,
            "correct": self.correct,
            "whole_conversation": self.whole_conversation,
            **({} if self.traced is None else {"traces": [t.as_json() for t in self.traced]}),
        }


def show_turn(console: Console, turn: Warm) -> None:
    """Show one turn as it happens."""
    console.print(
        f"  [bold]{turn.question}[/] → [green]{escape(turn.answer)}[/]   "
        f"pid {turn.pid}, {turn.start_mode}, first event {1000 * turn.first_event:.1f} ms, "
        f"total {1000 * turn.total:.1f} ms",
        highlight=False,
        soft_wrap=True,
    )


def show_spawned(console: Console, question: str, answer: str, seconds: float) -> None:
    """Show one spawned process."""
    console.print(
        f"  [bold]{question}[/] → [green]{escape(answer)}[/]   total {1000 * seconds:.1f} ms",
        highlight=False,
        soft_wrap=True,
    )


def show_table(console: Console, findings: Findings) -> None:
    """Show the table of results."""
    table = Table(show_header=False, title="What happened", title_justify="left")
    pids = ", ".join(str(turn.pid) for turn in findings.warm)
    table.add_row("same pid", f"{_mark(findings.one_process)} ({pids})")
    table.add_row("idle between turns", f"{findings.idle:g} s")
    table.add_row("answers correct", _mark(findings.correct))
    table.add_row("third turn saw the whole conversation", _mark(findings.whole_conversation))
    table.add_section()
    table.add_row("a process for each message, median", _ms(findings.spawn_ms))
    table.add_row(
        f"a warm turn, {findings.idle:g} s after the last",
        f"{_ms(findings.warm_ms)}, {findings.speedup:.1f} times faster",
    )
    table.add_row(
        "a warm turn, right behind the last",
        f"{_ms(findings.busy_ms)}, {findings.busy_speedup:.1f} times faster",
    )
    table.add_row("a process kept alive by hand, as reported", f"{BY_HAND} times faster")
    console.print(table)


def _ms(milliseconds: float) -> str:
    return f"{milliseconds:.1f} ms"


def _mark(true: bool) -> str:
    return "[green]yes[/]" if true else "[red]no[/]"
