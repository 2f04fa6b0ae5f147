"""Draw waterfalls into a file: an SVG, or a page that contains one.

The picture loads nothing from elsewhere, and is readable on light and on dark pages.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from xml.sax.saxutils import escape, quoteattr

from samovard.demo.waterfall import Bar, Stage, Waterfall

WIDTH, MARGIN = 960, 24
LEFT, RIGHT = 304, 850  # of the time axis
ROW, BAR = 22, 14
TITLE, LEGEND, AXIS, STRIP, GAP = 48, 22, 20, 28, 22  # heights
LETTER = 6.3  # about how wide a letter of 12 pixels is
TICKS = 7

STYLE = """\
    .page { fill: #fff } text { fill: #1f2328; font-size: 12px }
    .title { font-size: 15px; font-weight: 600 } .dim { fill: #59636e; font-size: 11px }
    .id { font-family: ui-monospace, monospace; font-size: 11px; fill: #59636e }
    .on { fill: #1f2328; font-size: 11px } .grid { stroke: #d1d9e0; stroke-width: 1 }
    .rule { stroke: #8c959f; stroke-width: 1 } .failed { stroke: #d1242f; stroke-width: 2 }
    .call { fill: #5b8fd6 } .start { fill: #f0a04b } .agent { fill: #a48fdc }
    .model { fill: #2fa394 } .first { fill: #a9ddd4 } .tool { fill: #e083a8 }
    .admit { fill: #aeb8c2 } .process_ready { fill: #f0a04b } .prompt_write { fill: #e3c44f }
    .first_event { fill: #86b4e8 } .first_text { fill: #b9a6ec } .finish { fill: #74c9a0 }
    .deliver { fill: #ec97a6 }
    @media (prefers-color-scheme: dark) {
      .page { fill: #0d1117 } text { fill: #e6edf3 } .dim, .id { fill: #9198a1 }
      .grid { stroke: #2a313b } .rule { stroke: #6e7681 } .on { fill: #1f2328 }
    }"""

_PAGE = """\
<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>samovard: turns, traced</title>
<style>
  :root {{ color-scheme: light dark; background: #fff }}
  body {{ max-width: 1100px; margin: 2em auto; padding: 0 1em }}
  svg {{ width: 100%; height: auto }}
  @media (prefers-color-scheme: dark) {{ :root {{ background: #0d1117 }} }}
</style>
{svg}</html>
"""


class CannotDraw(Exception):
    """Raised if the picture cannot be written; the message is one sentence with the reason."""


def check(path: Path) -> None:
    """Raise `CannotDraw` if a picture cannot be written to the path; leave nothing behind."""
    if path.suffix not in (".svg", ".html"):
        raise CannotDraw(f"--trace: {path}: it must end in .svg or .html")
    there = path.exists()
    try:
        path.open("ab").close()
        if not there:
            path.unlink()
    except OSError as error:
        raise CannotDraw(f"--trace: {path}: {error.strerror}") from error


def write(path: Path, turns: Sequence[Waterfall]) -> None:
    """Write the picture, of the kind that the file's suffix names. Raise `CannotDraw`."""
    drawn = svg(turns)
    try:
        path.write_text(_PAGE.format(svg=drawn) if path.suffix == ".html" else drawn, "utf-8")
    except OSError as error:
        raise CannotDraw(f"--trace: {path}: {error.strerror}") from error


def svg(turns: Sequence[Waterfall]) -> str:
    """Return the picture of some turns, one below another."""
    lines: list[str] = []
    top = GAP
    for turn in turns:
        lines += _turn(turn, top)
        top += TITLE + LEGEND + AXIS + STRIP + ROW * len(turn.bars) + GAP
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {top}" role="img" '
        'font-family="system-ui, sans-serif">'
    )
    body = ["  <title>Turns of samovard, traced</title>", "  <style>", STYLE, "  </style>"]
    body += [f'  <rect class="page" width="{WIDTH}" height="{top}"/>', *lines]
    return "\n".join([head, *body, "</svg>", ""])


def _turn(turn: Waterfall, top: int) -> Iterator[str]:
    end = WIDTH - MARGIN
    told = f"{turn.start_mode}, pid {turn.pid}"
    yield _text(MARGIN, top + 14, turn.title, "title")
    yield _text(end, top + 14, f"{turn.total:.1f} ms", "title", "end")
    yield _text(MARGIN, top + 33, told, "dim")
    yield _text(end, top + 33, f"trace {turn.trace_id}", "id", "end")
    top += TITLE
    yield from _legend(turn, top)
    top += LEGEND
    yield from _axis(turn.total, top, STRIP + ROW * len(turn.bars))
    top += AXIS
    yield _text(MARGIN, top + 15, "stages")
    for stage in turn.stages:
        yield from _stage(stage, turn.total, top)
    top += STRIP
    for number, bar in enumerate(turn.bars):
        yield from _bar(bar, turn.total, top + ROW * number)


def _axis(total: float, top: int, height: int) -> Iterator[str]:
    """Yield the time axis and its labels."""
    step = _step(total)
    for number in range(int(total / step) + 1):
        x = _x(number * step, total)
        yield f'  <path class="grid" d="M{x:.1f} {top + 16}v{height}"/>'
        yield _text(x, top + 10, f"{number * step:g} ms" if number else "0", "dim", "middle")
    yield f'  <path class="rule" d="M{LEFT} {top + 16}H{RIGHT}"/>'


def _step(total: float) -> float:
    """Return the round number of milliseconds between two ticks."""
    step = 0.01
    while True:
        for times in (1, 2, 5):
            if total / (step * times) <= TICKS:
                return step * times
        step *= 10


def _stage(stage: Stage, total: float, top: int) -> Iterator[str]:
    begin, end = _x(stage.begin, total), _x(stage.end, total)
    yield _rect(begin, top + 2, end - begin, BAR + 4, stage.name, _told(stage.name, stage))
    if end - begin > LETTER * len(stage.name):
        yield _text((begin + end) / 2, top + 15, stage.name, "on", "middle")


def _legend(turn: Waterfall, top: int) -> Iterator[str]:
    x = float(MARGIN)
    for stage in turn.stages:
        said = f"{stage.name} {stage.end - stage.begin:.1f} ms"
        yield f'  <rect class="{stage.name}" x="{x:.1f}" y="{top + 3}" width="9" height="9"/>'
        yield _text(x + 14, top + 12, said, "dim")
        x += 14 + LETTER * len(said) + 4


def _bar(bar: Bar, total: float, top: int) -> Iterator[str]:
    begin, end = _x(bar.begin, total), _x(bar.end, total)
    end = max(end, begin + 1)
    kind = f"{bar.kind} failed" if bar.failed else bar.kind
    yield _text(MARGIN + 14 * bar.depth, top + 12, bar.name)
    yield _rect(begin, top + 1, end - begin, BAR, kind, _told(bar.name, bar))
    if bar.first is not None:
        first, note = min(max(_x(bar.first, total), begin), end), f"first token: {bar.ttft}"
        yield _rect(begin, top + 1, first - begin, BAR, "first", note)
        yield _note(note, begin, end, top + 12)
    yield _text(WIDTH - MARGIN, top + 12, f"{bar.end - bar.begin:.1f} ms", "", "end")


def _note(note: str, begin: float, end: float, y: int) -> str:
    """Return a note beside a bar: after it if there is room, else before it."""
    if end + LETTER * len(note) + 6 < RIGHT:
        return _text(end + 6, y, note, "dim")
    return _text(begin - 6, y, note, "dim", "end")


def _told(name: str, span: Stage | Bar) -> str:
    return f"{name}: {span.end - span.begin:.3f} ms, from {span.begin:.3f} ms on"


def _x(time: float, total: float) -> float:
    """Return the x position of a time; an agent's clock may be a little off ours."""
    return LEFT + (RIGHT - LEFT) * min(max(time / total if total else 0.0, 0.0), 1.0)


def _text(x: float, y: int, words: str, kind: str = "", anchor: str = "") -> str:
    given = {"class": kind, "text-anchor": anchor}
    more = "".join(f" {name}={quoteattr(value)}" for name, value in given.items() if value)
    return f'  <text x="{x:.1f}" y="{y}"{more}>{escape(words)}</text>'


def _rect(x: float, y: int, width: float, height: int, kind: str, title: str) -> str:
    return (
        f'  <rect class="{kind}" x="{x:.1f}" y="{y}" width="{max(width, 0.0):.1f}" '
        f'height="{height}"><title>{escape(title)}</title></rect>'
    )
