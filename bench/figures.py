"""Figures, each beside its bound, and how they are shown."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field

from rich.console import Console
from rich.table import Table

from bench.about import About
from bench.rounds import Sample

PERCENTILES = (50, 95, 99)


@dataclass(frozen=True, slots=True)
class Figure:
    """A number with its unit; a bound is the least or the most that it may be."""

    name: str
    value: float
    unit: str = ""
    least: float | None = None
    most: float | None = None

    @property
    def reached(self) -> bool | None:
        """True if the bound is kept, None if there is none."""
        if self.least is not None:
            return self.value >= self.least
        return None if self.most is None else self.value <= self.most

    @property
    def bound(self) -> str:
        """The bound in words, empty if there is none."""
        if self.least is not None:
            return f"at least {self.least:,g}"
        return "" if self.most is None else f"at most {self.most:,g}"

    @property
    def shown(self) -> str:
        """The value with its unit, for people."""
        digits = 0 if abs(self.value) >= 1000 else 2
        return f"{self.value:,.{digits}f} {self.unit}".rstrip()


@dataclass(slots=True)
class Row:
    """A contender in a table: its name and its cells."""

    name: str
    cells: Sequence[str]


@dataclass(slots=True)
class Part:
    """One part of a run: a table, and the figures that result from it."""

    title: str
    columns: Sequence[str]
    rows: list[Row] = field(default_factory=list)
    figures: list[Figure] = field(default_factory=list)
    bars: dict[str, float] = field(default_factory=dict)  # for the chart, in `unit`
    unit: str = ""
    wrong: int = 0


def milliseconds(seconds: float) -> str:
    """Return a time for a table."""
    return f"{1000 * seconds:.2f}"


def timed(title: str, samples: Mapping[str, Sample]) -> Part:
    """Return a part from the times of turns, its figures still to be added."""
    part = Part(title, ["", "p50 ms", "p95 ms", "p99 ms", "rounds' medians, ms", "turns"])
    for name, sample in samples.items():
        spread = f"{milliseconds(min(sample.medians))} to {milliseconds(max(sample.medians))}"
        cells = [milliseconds(sample.percentile(percent)) for percent in PERCENTILES]
        part.rows.append(Row(name, [*cells, spread, str(len(sample.all))]))
        part.wrong += sample.wrong
    return part


def show(part: Part, console: Console) -> None:
    """Show a part's table and figures."""
    table = Table(title=part.title, title_justify="left")
    for number, column in enumerate(part.columns):
        table.add_column(column, justify="right" if number else "left")
    for row in part.rows:
        table.add_row(row.name, *row.cells)
    console.print(table)
    for figure in part.figures:
        console.print("  " + _said(figure), highlight=False)
    if part.wrong:
        console.print(f"  [red]{part.wrong} wrong answers[/]")
    console.print()


def _said(figure: Figure) -> str:
    if figure.reached is None:
        return f"{figure.name}: {figure.shown}"
    word = "[green]reached[/]" if figure.reached else "[yellow]missed[/]"
    return f"{figure.name}: {figure.shown} ({figure.bound}: {word})"


def report(parts: Sequence[Part], left: Sequence[str], about: About) -> str:
    """Return everything as one line for machines; `left` are processes that were not ended."""
    figures = [figure for part in parts for figure in part.figures]
    figures.append(Figure("wrong answers", sum(part.wrong for part in parts), most=0))
    figures.append(Figure("processes left", len(left), most=0))
    return json.dumps({"figures": [_fields(figure) for figure in figures], **asdict(about)})


def _fields(figure: Figure) -> dict[str, object]:
    return asdict(figure) | {"value": round(figure.value, 6), "reached": figure.reached}
