"""Draw `docs/rooms.svg`: the rooms of the server, and which room imports which.

Reads the imports in the files below `server/samovard`, those for types included. Where a box
stands is written down here; the arrows come from the imports alone.
"""

import ast
import functools
import sys
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.sax.saxutils import escape

ROOT = Path(__file__).parent.parent
SERVER = ROOT / "server" / "samovard"
PICTURE = ROOT / "docs" / "rooms.svg"
NAME = "samovard"  # of the package
TOP = "the modules at the top"
#: Rooms that are drawn as a part of another one.
INSIDE = {
    "agent/broker": "agent",
    "agent/isolation": "agent",
    "agent/selftest": "agent",
    "store/sqlite": "store",
    "demo": TOP,
}
#: The modules at the top that rooms import: each is a room of its own, below them.
BELOW = {"quantities"}

WIDTH, MARGIN, GAP = 960, 24, 34
LINE, CHARACTER = 16, 6.1  # pixels
APART = 18  # between two arrows that run beside each other

STYLE = """\
    .page { fill: #fff } text { fill: #1f2328; font-size: 12px } .note { fill: #59636e }
    .name { font-weight: 600; font-size: 13px }
    .box { fill: #eef2f6; stroke: #8c959f } .core { fill: #d9e8f7; stroke: #5b8fd6 }
    .down, .up { fill: none; stroke: #59636e; stroke-width: 1.2 }
    .up { stroke: #d1242f; stroke-dasharray: 4 3 } .tip { fill: #59636e }
    @media (prefers-color-scheme: dark) {
      .page { fill: #0d1117 } text { fill: #e6edf3 } .note { fill: #9198a1 }
      .box { fill: #1b222b; stroke: #6e7681 } .core { fill: #16324f; stroke: #5b8fd6 }
      .down { stroke: #9198a1 } .tip { fill: #9198a1 } .up { stroke: #ff7b72 }
    }"""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a room stands: its layer, 0 at the top, and its edges in pixels."""

    layer: int
    left: int
    right: int


#: From the top to the bottom: a room may import what stands in a layer below its own.
PLACES = {
    TOP: Place(0, 24, 936),
    "edge": Place(1, 300, 936),
    "core/operator": Place(2, 300, 620),
    "core/sessions": Place(3, 300, 620),
    "core/pool": Place(4, 300, 620),
    "core/turn": Place(5, 300, 620),
    "agent": Place(6, 24, 330),
    "store": Place(6, 420, 660),
    "audit": Place(6, 690, 936),
    "core": Place(7, 380, 850),
    "settings": Place(8, 24, 250),
    "standin": Place(9, 140, 286),
    "telemetry": Place(9, 302, 936),
    "quantities": Place(9, 24, 120),
}


class NoPlace(Exception):
    """A room stands nowhere yet."""


@dataclass(frozen=True, slots=True)
class Box:
    """A room as it is drawn."""

    name: str
    lines: Sequence[str]
    left: int
    right: int
    top: int
    bottom: int


def room_of(path: Path) -> str:
    """Return the room of a file below the package, given relative to it."""
    parts = path.with_suffix("").parts
    if len(parts) == 1:
        return parts[0] if parts[0] in BELOW else TOP
    room = "/".join(parts[:2]) if len(parts) > 2 else parts[0]
    return INSIDE.get(room, INSIDE.get(parts[0], room))


def files() -> list[Path]:
    """Return the server's files, relative to the package, in order."""
    return sorted(path.relative_to(SERVER) for path in SERVER.rglob("*.py"))


@functools.cache
def imported(text: str) -> tuple[str, ...]:
    """Return the names below the package that a file imports, wherever and whatever for."""
    found: list[str] = []
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            found += [f"{node.module}.{alias.name}" for alias in node.names]
    return tuple(name.partition(".")[2] for name in found if name.startswith(f"{NAME}."))


def file_of(name: str) -> Path | None:
    """Return the file that an import's name stands for, None for a name of the package."""
    path = Path(*name.split("."))
    for found in (path, path.parent):
        for file in (found.with_suffix(".py") if found.name else found, found / "__init__.py"):
            if file != Path("__init__.py") and (SERVER / file).is_file():
                return file
    return None


def imports() -> dict[str, dict[str, list[str]]]:
    """Return for each room the rooms that it imports, and for those the files that do it."""
    found: dict[str, dict[str, list[str]]] = {room: {} for room in PLACES}
    for path in files():
        room = room_of(path)
        if room not in PLACES:
            raise NoPlace(f"{path}: give its room, {room}, a place in tools/rooms.py")
        for name in imported((SERVER / path).read_text("utf-8")):
            target = file_of(name)
            if target is not None and (other := room_of(target)) != room:
                by = found[room].setdefault(other, [])
                by += [] if str(path) in by else [str(path)]
    return found


def upward(found: Mapping[str, Mapping[str, Sequence[str]]]) -> dict[tuple[str, str], list[str]]:
    """Return the imports that go up or sideways, with the files that make them."""
    return {
        (room, other): list(by)
        for room, others in found.items()
        for other, by in others.items()
        if PLACES[other].layer <= PLACES[room].layer
    }


def drawn_arrows(found: Mapping[str, Mapping[str, Sequence[str]]]) -> list[tuple[str, str]]:
    """Return the arrows to draw: no arrow where others already lead down to the same room."""
    up = upward(found)
    down = {room: [o for o in others if (room, o) not in up] for room, others in found.items()}

    def below(room: str) -> set[str]:
        return {further for other in down[room] for further in (other, *below(other))}

    arrows = []
    for room in PLACES:
        for other in PLACES:
            if other in down[room] and not any(other in below(o) for o in down[room]):
                arrows.append((room, other))
    return arrows + sorted(up)


def boxes() -> dict[str, Box]:
    """Return the box of each room."""
    lines = {name: _lines(name, place) for name, place in PLACES.items()}
    found: dict[str, Box] = {}
    top = MARGIN
    for layer in sorted({place.layer for place in PLACES.values()}):
        rooms = {name: place for name, place in PLACES.items() if place.layer == layer}
        bottom = top + 16 + LINE * max(1 + len(lines[name]) for name in rooms)
        for name, place in rooms.items():
            found[name] = Box(name, lines[name], place.left, place.right, top, bottom)
        top = bottom + GAP
    return found


def _lines(name: str, place: Place) -> list[str]:
    """Return what a box says below its name: its modules, or the room's own first line."""
    if name == TOP:
        modules = [path.stem for path in files() if len(path.parts) == 1 and room_of(path) == TOP]
        text = ", ".join(sorted({*modules, "demo"} - {"__init__", "__main__"}))
    elif name == "core":
        modules = [path.stem for path in files() if path.parts[:-1] == ("core",)]
        text = ", ".join(sorted({*modules} - {"__init__"}))
    else:
        file = SERVER / f"{name}.py" if name in BELOW else SERVER / name / "__init__.py"
        text = (ast.get_docstring(ast.parse(file.read_text("utf-8"))) or "").partition("\n")[0]
    return textwrap.wrap(text.replace("`", ""), int((place.right - place.left - 20) / CHARACTER))


def picture() -> str:
    """Return the picture."""
    standing = boxes()
    height = max(box.bottom for box in standing.values()) + MARGIN + 2 * LINE
    said = (
        "An arrow: imports, for types or else. Left out where other arrows lead to the same room.",
        "No arrow goes up.",
    )
    arrows = drawn_arrows(imports())
    if any(PLACES[other].layer <= PLACES[room].layer for room, other in arrows):
        said = (said[0], "Dashed: an arrow that goes up and should not.")
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img" '
            'font-family="system-ui, sans-serif">',
            "  <title>The rooms of samovard, and which imports which</title>",
            "  <style>",
            STYLE,
            "  </style>",
            f'  <rect class="page" width="{WIDTH}" height="{height}"/>',
            *_arrows(arrows, standing),
            *(line for box in standing.values() for line in _box(box)),
            *(
                f'  <text class="note" x="{MARGIN}" y="{height - 30 + LINE * row}">{text}</text>'
                for row, text in enumerate(said)
            ),
            "</svg>",
            "",
        ]
    )


def _box(box: Box) -> Iterator[str]:
    kind = "core" if box.name.startswith("core") else "box"
    size = f'width="{box.right - box.left}" height="{box.bottom - box.top}"'
    yield f'  <rect class="{kind}" x="{box.left}" y="{box.top}" {size} rx="6"/>'
    x, y = box.left + 10, box.top + 19
    parts = [part.rpartition("/")[2] for part, room in INSIDE.items() if room == box.name != TOP]
    name = ", with ".join([box.name, *parts])
    yield f'  <text class="name" x="{x}" y="{y}">{escape(name)}</text>'
    for row, line in enumerate(box.lines, 1):
        yield f'  <text class="note" x="{x}" y="{y + LINE * row}">{escape(line)}</text>'


def _arrows(arrows: Sequence[tuple[str, str]], standing: Mapping[str, Box]) -> Iterator[str]:
    """Yield each arrow: straight down where nothing is in its way, else aslant."""
    taken: list[tuple[int, int, int]] = []  # x, from y, to y
    for room, other in arrows:
        begin, end = standing[room], standing[other]
        down = begin.bottom < end.top
        upper, lower = (begin, end) if down else (end, begin)
        x = _clear(upper, lower, standing, taken)
        if x is None:
            left = upper.left > lower.right - APART
            ends = (upper.left + APART, lower.right - APART)
            at, to = ends if left else (upper.right - APART, max(lower.left, upper.right) + APART)
        else:
            at = to = x
            taken.append((x, upper.bottom, lower.top))
        first, last = (at, upper.bottom), (to, lower.top)
        if not down:
            first, last = last, first
        kind, tip = ("down", -6) if down else ("up", 6)
        yield f'  <path class="{kind}" d="M{first[0]} {first[1]}L{last[0]} {last[1] + tip}"/>'
        yield f'  <path class="tip" d="M{last[0]} {last[1]}l-4 {tip}h8z"/>'


def _clear(
    upper: Box, lower: Box, standing: Mapping[str, Box], taken: Sequence[tuple[int, int, int]]
) -> int | None:
    """Return where an arrow may go straight down, nearest to the middle of the lower box."""
    between = [
        box for box in standing.values() if upper.bottom < box.top and box.bottom < lower.top
    ]
    middle = (max(upper.left, lower.left) + min(upper.right, lower.right)) // 2
    fits = [
        x
        for x in range(max(upper.left, lower.left) + 12, min(upper.right, lower.right) - 11)
        if not any(box.left - 8 < x < box.right + 8 for box in between)
        and not any(
            abs(x - other) < APART and top < lower.top and upper.bottom < bottom
            for other, top, bottom in taken
        )
    ]
    return min(fits, key=lambda x: abs(x - middle), default=None)


def stale() -> list[str]:
    """Return what is wrong with the committed picture: nothing, or that it is not fresh."""
    try:
        fresh = PICTURE.is_file() and PICTURE.read_text("utf-8") == picture()
    except NoPlace as error:
        return [str(error)]
    return [] if fresh else [f"{PICTURE.relative_to(ROOT)} is stale"]


def main() -> int:
    """Write the picture."""
    try:
        PICTURE.write_text(picture(), "utf-8")
    except NoPlace as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
