"""The events of a whole turn, run through the client, and their content."""

from collections.abc import Sequence
from typing import Any, TypeVar

from support.service import Running

import samovar
from samovar.requests import Block

Kind = TypeVar("Kind", bound=samovar.Event)


async def ask(
    run: Running, content: Block | Sequence[Block], **options: Any
) -> list[samovar.Event]:
    """Run a turn to its end."""
    async with run.client.send(content, **options) as turn:
        return [event async for event in turn]


def started(events: list[samovar.Event]) -> samovar.TurnStarted:
    """Return a turn's first event."""
    assert isinstance(events[0], samovar.TurnStarted)
    return events[0]


def finished(events: list[samovar.Event]) -> samovar.TurnFinished:
    """Return a turn's last event."""
    assert isinstance(events[-1], samovar.TurnFinished)
    return events[-1]


def of(kind: type[Kind], events: list[samovar.Event]) -> list[Kind]:
    """Return the events of one kind."""
    return [event for event in events if isinstance(event, kind)]


def text_of(events: list[samovar.Event]) -> str:
    """Return the text of all deltas."""
    return "".join(event.text for event in of(samovar.TextDelta, events))
