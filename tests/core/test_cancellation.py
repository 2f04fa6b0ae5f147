"""A cancel, and whatever else may happen, at every await of the begin, run and end of a turn.

Each test plays a scene again and again, and something happens at the first, the second,
the n-th await of the caller or of the service. What must be true then, `send_scenarios` says.
With SAMOVAR_LONG=1 the schedules drawn at random are 100,000.
"""

import asyncio
import functools
import os
import random
from collections.abc import Callable

import pytest
from support.await_points import Shuffled
from support.send_scenarios import CALL, SCENES, SERVICE, TENANT, Play, happens

from samovard.core.process import Broken
from samovard.core.records import SessionKey

SCHEDULES = 100_000 if os.environ.get("SAMOVAR_LONG") else 150
KEY = SessionKey(TENANT, "a")


def cancel(play: Play) -> None:
    """The caller leaves."""
    play.call.cancel()


def die(play: Play) -> None:
    """Every process is killed."""
    for performer in play.company.living:
        performer.die()


def break_protocol(play: Play) -> None:
    """Every process writes what cannot be read."""
    for performer in play.company.living:
        performer.listener.on_broken(Broken.UNPARSABLE)


def say_foreign_words(play: Play) -> None:
    """Every process writes a line of another session."""
    for performer in play.company.living:
        performer.listener.on_broken(Broken.FOREIGN)


def go_deaf(play: Play) -> None:
    """Every process stops taking its input, and dies when it is noticed."""
    for performer in play.company.living:
        performer.deaf = True


def lose_the_store(play: Play) -> None:
    """The store is down for a while."""
    play.w.shelf.down = True
    asyncio.get_running_loop().call_later(0.3, setattr, play.w.shelf, "down", False)


def interrupt(play: Play) -> None:
    """Somebody interrupts the turn."""
    play.meanwhile(play.w.sessions.interrupt(KEY, "t"))


def close(play: Play) -> None:
    """Somebody closes the session."""
    play.meanwhile(play.w.sessions.close(KEY))


def drain(play: Play) -> None:
    """The server goes away."""
    play.w.sessions.refuse_new()


def shut_down(play: Play) -> None:
    """The server goes away and has no more time."""
    play.w.sessions.refuse_new()
    play.w.pool.kill()


FAULTS = (
    die,
    break_protocol,
    say_foreign_words,
    go_deaf,
    lose_the_store,
    interrupt,
    close,
    drain,
    shut_down,
)


@pytest.mark.parametrize("name", SCENES)
def test_a_cancel_at_every_await_of_a_call(name: str) -> None:
    """A caller who leaves at any await of his call leaves nothing behind."""
    for woken in (False, True):
        at = 0
        while happens(SCENES[name], cancel, (CALL,), at, woken=woken):
            at += 1
        assert at > 1


@pytest.mark.parametrize("name", SCENES)
def test_a_cancel_at_every_await_of_the_service(name: str) -> None:
    """A caller who leaves while anything of the service waits leaves nothing behind."""
    for woken in (False, True):
        at = 0
        while happens(SCENES[name], cancel, SERVICE, at, woken=woken):
            at += 1
        assert at > 1


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: str(fault.__name__))
@pytest.mark.parametrize("name", SCENES)
def test_a_fault_at_every_await(name: str, fault: Callable[[Play], None]) -> None:
    """Whatever happens at any await of a turn: one true end, and nothing is left."""
    for woken in (False, True):
        at = 0
        while happens(SCENES[name], fault, (CALL, *SERVICE), at, woken=woken):
            at += 1
        assert at > 1


@pytest.mark.timeout(24 * 3600)
def test_no_order_of_what_is_ready_matters() -> None:
    """Whatever happens, at any await, and in whatever order the loop runs what is ready."""
    for seed in range(SCHEDULES):
        draw = random.Random(seed)
        scene, strike = draw.choice(list(SCENES)), draw.choice((cancel, *FAULTS))
        at, woken = draw.randrange(60), draw.random() < 0.5
        loop = functools.partial(Shuffled, seed)
        try:
            happens(SCENES[scene], strike, (CALL, *SERVICE), at, woken=woken, loop=loop)
        except Exception as error:
            error.add_note(f"seed {seed}: {scene}, {strike.__name__} at {at}, woken={woken}")
            raise
