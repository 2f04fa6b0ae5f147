"""Try attacks one after another, and count.

Knows the arenas and the oracle. Shows nothing.
"""

import asyncio
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from security import controls
from security.arena import KINDS, Arena, standing
from security.catalog import Attack
from security.oracle import Oracle, Verdict

LIMIT = 900.0  # seconds that one attack may take
FEWER = 4  # quiet turns before an attack on a service that lacks a control

Tell = Callable[[str], None]


@dataclass
class Tried:
    """An attack on a kind of service, with or without its control."""

    attack: Attack
    kind: str
    verdict: Verdict
    without: str = ""


@dataclass
class Tally:
    """All that was tried. `p99` is the quiet victim's turn by kind, in seconds."""

    tried: list[Tried] = field(default_factory=list)
    p99: dict[str, float] = field(default_factory=dict)
    user: int = 0


@contextmanager
def made() -> Any:
    """Make a short directory that another user may go through."""
    with tempfile.TemporaryDirectory(prefix="sv-", dir="/tmp") as name:
        Path(name).chmod(0o711)
        (Path(name) / "d").mkdir(mode=0o700)
        yield Path(name) / "d"


async def run(
    chosen: Iterable[Attack], tally: Tally, tell: Tell = lambda line: None, *, long: bool = False
) -> None:
    """Try attacks on a service of each kind that they are for."""
    chosen = [one for one in chosen if long or not one.long]
    for kind in KINDS:
        these = [one for one in chosen if kind in one.on]
        if not these or (kind == "real" and not long):
            continue
        tell(f"{kind}: starting")
        async with _ready(kind, long=long) as (arena, oracle):
            tally.p99[kind] = oracle.p99
            tally.user = (await arena.stats())["uid"]
            for one in these:
                tell(f"{kind}: {one.name}")
                verdict = await attempt(one, arena, oracle)
                tally.tried.append(Tried(one, kind, verdict))
                if not verdict.blocked:
                    tell(f"{kind}: {one.name}: {verdict.why}")
                if not arena.alive:
                    break


async def run_without(
    chosen: Iterable[Attack], tally: Tally, tell: Tell = lambda line: None, *, long: bool = False
) -> None:
    """Try each attack on a service that lacks its control."""
    for kind in KINDS:
        these = [one for one in chosen if one.on[0] == kind and one.without]
        these = [one for one in these if long or not one.long]
        for one in (one for one in these if controls.at_start(one.without)):
            tell(f"without {one.control}: {one.name}")
            async with _ready(kind, lacking=True, without=one.without, long=long) as ready:
                _noted(one, await attempt(one, *ready), tally, tell)
        rest = [one for one in these if not controls.at_start(one.without)]
        while rest:
            async with _ready(kind, lacking=True, long=long) as ready:
                await _one_by_one(rest, *ready, tally, tell)


async def _one_by_one(
    rest: list[Attack], arena: Arena, oracle: Oracle, tally: Tally, tell: Tell
) -> None:
    """Try attacks until none is left, or until one has left a service that is not as before."""
    while rest:
        one = rest.pop(0)
        tell(f"without {one.control}: {one.name}")
        await arena.ask("take_out", name=one.without)
        verdict = await attempt(one, arena, oracle)
        _noted(one, verdict, tally, tell)
        if verdict.crash or verdict.growth:
            return
        await arena.ask("put_back")


def _noted(one: Attack, verdict: Verdict, tally: Tally, tell: Tell) -> None:
    tally.tried.append(Tried(one, one.on[0], verdict, one.without))
    tell(f"{one.name}: {verdict.why or 'UNNOTICED'}")


@asynccontextmanager
async def _ready(
    kind: str, *, lacking: bool = False, without: str = "", long: bool
) -> AsyncIterator[tuple[Arena, Oracle]]:
    with made() as directory:
        async with standing(kind, directory, lacking=lacking, without=without, long=long) as arena:
            oracle = Oracle(arena)
            await (oracle.prepare(FEWER) if lacking else oracle.prepare())
            yield arena, oracle


async def attempt(one: Attack, arena: Arena, oracle: Oracle) -> Verdict:
    """Try an attack and look at the service after it."""
    verdict, begin = Verdict(), time.monotonic()
    try:
        async with asyncio.timeout(LIMIT):
            await one.story(arena)
    except AssertionError as error:
        verdict.missed = f"not blocked: {error or 'another outcome'}"
    except Exception as error:
        verdict.missed = f"not blocked: {error!r}"
    verdict.seconds = time.monotonic() - begin
    await oracle.judge(verdict)
    return verdict
