"""Run races in a service of their own, on the fake agent or the real one."""

import asyncio
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fake_claude
from fake_claude import verbs
from support.service import Running, key_for, prepare, serving, until

from races.racer import Agent, Racer
from races.tally import Tally
from samovard import standin

SESSIONS = ("default", "other")
TELL_EVERY = 5.0
FAKE = Agent(
    long=lambda canary, pieces: fake_claude.fake(verbs.drip(pieces, 2, size=0, prefix=canary)),
    short=lambda canary: f"Say {canary}",
    word=lambda canary, number: f"{canary}{number}",
)
REAL = Agent(
    long=lambda canary, pieces: standin.script(standin.drip(pieces, 0.005, canary)),
    short=lambda canary: standin.script(standin.text(canary)),
    word=lambda canary, number: f"{canary}{number} ",
)


async def races(
    directory: Path,
    count: int,
    seed: int,
    *,
    fake: bool,
    tenants: int = 3,
    say: Callable[[str], None] = lambda line: None,
) -> Tally:
    """Run that many races in sessions of that many tenants at once, and count.

    `directory` is an empty one for the service's state; `say` is called with the progress.
    """
    tally = Tally(count)
    names = [f"tenant-{number}" for number in range(tenants)]
    racers = [(tenant, session) for tenant in names for session in SESSIONS]
    binary = await prepare(directory, fake=fake)
    keys = {tenant: await key_for(directory, tenant) for tenant in names}
    sections: dict[str, Any] = {"auth": {"methods": ["api_key"]}, "pool": {"slots": len(racers)}}
    async with serving(directory, binary=binary, **sections) as run:
        begin = time.monotonic()
        telling = asyncio.create_task(_tell(tally, say))
        try:
            async with asyncio.TaskGroup() as group:
                for index, name in enumerate(racers):
                    agent = FAKE if fake else REAL
                    draw = random.Random(f"{seed} {name}")
                    racer = Racer(run.stub, name, keys[name[0]], agent, draw, tally)
                    share = range(index, count, len(racers))
                    group.create_task(_all(racer, share))
        finally:
            telling.cancel()
        tally.seconds = time.monotonic() - begin
        await _look(run, tally)
    return tally


async def _all(racer: Racer, share: range) -> None:
    await racer.warm()
    for number in share:
        await racer.race(number)


async def _tell(tally: Tally, say: Callable[[str], None]) -> None:
    while True:
        await asyncio.sleep(TELL_EVERY)
        say(f"{tally.counts['races']} of {tally.races} races, broken: {tally.broken[1:] or 'none'}")


async def _look(run: Running, tally: Tally) -> None:
    """Count what is left in the service when every caller has gone."""
    service = run.service
    try:
        await until(lambda: not (service.sessions.running or leases(run)))
    except TimeoutError:
        tally.counts["turns_left"] = service.sessions.running
    tally.counts["waiters_left"] = service.pool.waiting
    tally.counts["leases_left"] = leases(run)


def leases(run: Running) -> int:
    """Return how many processes are leased."""
    return sum(process.lease is not None for process in run.service.pool)
