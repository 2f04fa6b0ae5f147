"""Draw a turn's waterfall in the terminal."""

from rich.console import Console
from rich.text import Text

from samovard.demo.waterfall import Bar, Stage, Waterfall

NAME, TIME = 40, 11  # columns for names and for durations
LEAST, MOST = 20, 100  # columns for the bars
COLOURS = {
    "admit": "bright_black",
    "process_ready": "yellow",
    "prompt_write": "bright_yellow",
    "first_event": "blue",
    "first_text": "magenta",
    "finish": "green",
    "deliver": "red",
    "call": "blue",
    "start": "yellow",
    "agent": "magenta",
    "model": "cyan",
    "tool": "green",
}


def show(console: Console, turn: Waterfall) -> None:
    """Show a turn: its stages on one line, then every span."""
    room = min(max(console.width - NAME - TIME, LEAST), MOST)
    console.print(f"\n[bold]{turn.title}[/]", highlight=False)
    console.print(
        f"  pid {turn.pid}, {turn.start_mode}, {turn.total:.1f} ms, trace {turn.trace_id}",
        highlight=False,
        soft_wrap=True,
        style="dim",
    )
    lines = [_stages(turn, room), _durations(turn)]
    lines += [_bar(bar, turn.total, room) for bar in turn.bars]
    for line in lines:
        console.print(line, soft_wrap=True)


def _stages(turn: Waterfall, room: int) -> Text:
    line = Text("  stages".ljust(NAME))
    for number, stage in enumerate(turn.stages):
        begin, end = _columns(stage, turn.total, room)
        line.append("▓█"[number % 2] * (end - begin), COLOURS.get(stage.name, ""))
    return line


def _durations(turn: Waterfall) -> Text:
    told = Text()
    for stage in turn.stages:
        told.append(f"  {stage.name}", COLOURS.get(stage.name, ""))
        told.append(f" {stage.end - stage.begin:.1f}")
    return told


def _bar(bar: Bar, total: float, room: int) -> Text:
    begin, end = _columns(bar, total, room)
    end = max(end, begin + 1)
    first = begin if bar.first is None else min(max(_column(bar.first, total, room), begin), end)
    before, after, behind = _noted(bar.ttft and f"ttft {bar.ttft}", begin, room - end)
    line = Text(f"  {' ' * bar.depth}{bar.name}"[: NAME - 1].ljust(NAME))
    line.append(before, "dim")
    line.append("░" * (first - begin) + "█" * (end - first), _colour(bar))
    line.append(after, "dim")
    line.append(f"{bar.end - bar.begin:8.1f} ms")
    line.append(behind, "dim")
    return line


def _noted(note: str, before: int, after: int) -> tuple[str, str, str]:
    """Return the texts before a bar, after it and behind the line; the first with room has the
    note.
    """
    if before > len(note):
        return f"{note:>{before - 1}} ", " " * after, ""
    if after > len(note):
        return " " * before, f" {note:<{after - 1}}", ""
    return " " * before, " " * after, f"  {note}".rstrip()


def _colour(bar: Bar) -> str:
    return "red" if bar.failed else COLOURS[bar.kind]


def _columns(span: Stage | Bar, total: float, room: int) -> tuple[int, int]:
    begin = min(_column(span.begin, total, room), room - 1)
    return begin, max(_column(span.end, total, room), begin)


def _column(time: float, total: float, room: int) -> int:
    """Return the column of a time; the agent's clock may be a little off ours."""
    return round(room * min(max(time / total if total else 0.0, 0.0), 1.0))
