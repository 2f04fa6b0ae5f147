"""Write the measured figures into the documentation."""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from bench import chart
from bench.about import About
from bench.figures import Figure, Part

DOCS = Path(__file__).parent.parent / "docs"
PAGE, CHART = DOCS / "performance.md", DOCS / "performance.svg"
BEGIN = "<!-- written by `make bench ARGS=--write`, from here -->"
END = "<!-- to here -->"


def write(parts: Sequence[Part], about: About) -> None:
    """Write the page's part between its marks, and the chart."""
    page = put(PAGE.read_text("utf-8"), "\n".join(_lines(parts, about)))
    PAGE.write_text(page, "utf-8")
    CHART.write_text(chart.drawn(parts), "utf-8")


def put(page: str, made: str) -> str:
    """Return a page with new text between its marks. Raise `ValueError` without them."""
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise ValueError(f"{PAGE.name} lacks its marks")
    return f"{before}{BEGIN}\n\n{made}\n{END}{after}"


def _lines(parts: Sequence[Part], about: About) -> Iterator[str]:
    yield f"![Turns and events, Samovar beside what one would run instead]({CHART.name})"
    yield ""
    yield from _made_with(about)
    yield from _table(
        ("Figure", "Measured", "Bound", ""),
        (_row(figure) for part in parts for figure in part.figures),
    )
    for part in parts:
        yield f"### {part.title}"
        yield ""
        yield from _table(part.columns, ((row.name, *row.cells) for row in part.rows))


def _made_with(about: About) -> Iterator[str]:
    sizes, (before, after) = about.sizes, about.load
    yield (
        f"`{about.command}` on {about.cores} {about.architecture} cores, CPython {about.python}, "
        f"grpcio {about.versions['grpcio']}, claude {about.claude} of claude-agent-sdk "
        f"{about.versions['claude-agent-sdk']}: {sizes.rounds} rounds of {sizes.turns} turns or "
        f"{sizes.events:,} events; {about.seconds} s; load {before} before and {after} after."
    )
    yield ""


def _row(figure: Figure) -> tuple[str, ...]:
    reached = {True: "reached", False: "**missed**", None: ""}[figure.reached]
    return figure.name, figure.shown, figure.bound, reached


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    for cells in (head, ["---", *["---:"] * (len(head) - 1)], *rows):
        yield f"| {' | '.join(cells)} |"
    yield ""
