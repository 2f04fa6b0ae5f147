"""Stories of the core: tests that are told in a world of their own."""

from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from support.world import World, run, world

from samovard.core.errors import SamovarError
from samovard.core.events import Event, TurnFinished, TurnStarted
from samovard.core.turn.replay import Stream


def started(events: list[Event]) -> TurnStarted:
    assert isinstance(events[0], TurnStarted)
    return events[0]


def finished(events: list[Event]) -> TurnFinished:
    assert isinstance(events[-1], TurnFinished)
    return events[-1]


async def collect(stream: Stream) -> list[Event]:
    async with stream:
        return [e async for batches in stream for batch in batches for e in batch.events]


async def fails(stream: Stream) -> SamovarError:
    with pytest.raises(SamovarError) as caught:
        await collect(stream)
    return caught.value


Story = Callable[[World], Coroutine[Any, Any, None]]


def story(**settings: Any) -> Callable[[Story], Callable[[], None]]:
    """Return a test of a story, which runs in a world of its own."""

    def decorate(function: Story) -> Callable[[], None]:
        def test() -> None:
            async def told() -> None:
                async with world(**settings) as w:
                    await function(w)

            run(told())

        test.__name__, test.__doc__ = function.__name__, function.__doc__
        return test

    return decorate
