"""Turns that ask for permission: a profile that makes them ask, and their output."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from support.service import TOOLS, Running, serving

import samovar
from samovard.standin import tool

ASKS = {"model": "haiku", "tools": TOOLS, "permission_policy": "ask", "allow_rewrite": True}


@asynccontextmanager
async def asking(directory: Path, **profile: Any) -> AsyncIterator[Running]:
    """Run a service whose default profile asks."""
    async with serving(directory, profiles={"default": ASKS | profile}) as run:
        yield run


def writes(name: str = "note.txt", content: str = "hello") -> dict[str, Any]:
    return tool("Write", {"file_path": name, "content": content})


def written(directory: Path, name: str = "note.txt") -> str | None:
    """Return the content of a file of the only session, None if there is no such file."""
    (work,) = directory.glob("s/*/work")
    return (work / name).read_text() if (work / name).exists() else None


async def until_asked(
    turn: samovar.AsyncTurn, count: int = 1
) -> tuple[list[samovar.Event], list[samovar.PermissionRequested]]:
    """Read a turn until it has asked `count` times."""
    events: list[samovar.Event] = []
    asked: list[samovar.PermissionRequested] = []
    async for event in turn:
        events.append(event)
        if isinstance(event, samovar.PermissionRequested):
            asked.append(event)
            if len(asked) == count:
                break
    return events, asked


async def rest(turn: samovar.AsyncTurn) -> list[samovar.Event]:
    return [event async for event in turn]


def finished(events: list[samovar.Event]) -> samovar.TurnFinished:
    assert isinstance(events[-1], samovar.TurnFinished)
    return events[-1]


def result(events: list[samovar.Event]) -> samovar.ToolResult:
    (found,) = (event for event in events if isinstance(event, samovar.ToolResult))
    return found


def resolutions(events: list[samovar.Event]) -> list[tuple[str, samovar.Resolution]]:
    return [
        (event.permission_id, event.resolution)
        for event in events
        if isinstance(event, samovar.PermissionResolved)
    ]
