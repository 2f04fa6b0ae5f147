"""Draw the chart: an SVG of bars, readable on light and on dark pages."""

from collections.abc import Iterator, Sequence
from xml.sax.saxutils import escape

from bench.figures import Part

WIDTH, LABELS, BARS = 720, 190, 400  # of the whole, of the names, of the longest bar
ROW, HEAD, GAP = 26, 34, 14
OURS = "Samovar"

STYLE = """\
    .page { fill: #fff } text { fill: #222 } .note { fill: #555 }
    .bar { fill: #a9bccb } .ours { fill: #2f6f9f }
    @media (prefers-color-scheme: dark) {
      .page { fill: #1b1f24 } text { fill: #e8e8e8 } .note { fill: #aab2ba }
      .bar { fill: #536778 } .ours { fill: #6fb1e0 }
    }"""


def drawn(parts: Sequence[Part]) -> str:
    """Return the chart of those parts that have bars."""
    lines: list[str] = []
    top = GAP
    for part in parts:
        if part.bars:
            lines += _panel(part, top)
            top += HEAD + ROW * len(part.bars) + GAP
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {top}" role="img" '
        'font-family="sans-serif" font-size="14">'
    )
    body = ["  <title>Samovar beside what one would run instead</title>"]
    body += ["  <style>", STYLE, "  </style>"]
    body += [f'  <rect class="page" width="{WIDTH}" height="{top}"/>', *lines]
    return "\n".join([head, *body, "</svg>", ""])


def _panel(part: Part, top: int) -> Iterator[str]:
    yield f'  <text x="16" y="{top + 16}" font-weight="bold">{escape(part.title)}</text>'
    longest = max(part.bars.values())
    for number, (name, value) in enumerate(part.bars.items()):
        y = top + HEAD + ROW * number
        length = max(BARS * value / longest, 1)
        kind = "bar ours" if name.startswith(OURS) else "bar"
        yield f'  <text x="{LABELS - 10}" y="{y + 14}" text-anchor="end">{escape(name)}</text>'
        yield f'  <rect class="{kind}" x="{LABELS}" y="{y}" width="{length:.1f}" height="18"/>'
        shown = f"{value:,.0f}" if value >= 100 else f"{value:.2f}"
        x = f"{LABELS + length + 8:.1f}"
        yield f'  <text class="note" x="{x}" y="{y + 14}">{shown} {escape(part.unit)}</text>'
