"""Connections that break, and a service that is killed: what a caller of a client notices."""

import asyncio
import uuid
from collections.abc import AsyncIterator
from contextlib import AbstractContextManager, ExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

import pytest
from fake_claude import fake
from fake_claude import verbs as v
from support.faulty_proxy import Proxy
from support.program import Program, sending, served
from support.service import Running, serving, until
from support.timeouts import BOUND

import samovar
from samovard.standin import drip, script

T = TypeVar("T")
WORDS = 60
EVENTS = 60_000
LONG = script(drip(WORDS, 0.02))


@asynccontextmanager
async def proxied(
    directory: Path, **settings: Any
) -> AsyncIterator[tuple[Running, Proxy, samovar.AsyncClient]]:
    """Runs a service with a proxy before it, and a client that goes through the proxy."""
    async with serving(directory, **settings) as run, Proxy(run.address) as proxy:
        async with samovar.AsyncClient(proxy.address, deadline=BOUND) as client:
            yield run, proxy, client


def check_whole(events: list[samovar.Event]) -> None:
    """Every event came once, from the first to the last."""
    assert [event.sequence for event in events] == [*range(1, len(events) + 1)]
    assert isinstance(events[0], samovar.TurnStarted)
    assert isinstance(events[-1], samovar.TurnFinished)


def text_of(events: list[samovar.Event]) -> str:
    return "".join(event.text for event in events if isinstance(event, samovar.TextDelta))


def ticks(events: list[samovar.Event]) -> None:
    """The answer to `LONG` is whole."""
    check_whole(events)
    assert text_of(events).split() == [f"tick{number}" for number in range(WORDS)]


def test_a_connection_that_is_cut_loses_and_repeats_nothing(directory: Path) -> None:
    """A turn that is to run on comes whole through a connection that is cut five times."""

    async def story() -> None:
        async with proxied(directory) as (run, proxy, client):
            events: list[samovar.Event] = []
            async for event in client.send(LONG, keep_running=True):
                events.append(event)
                if len(events) % 10 == 5 and len(events) < 50:
                    proxy.cut()
            ticks(events)
            assert proxy.connections == 6
            assert len(run.stand_in.requests) == 1

    asyncio.run(story())


def test_the_synchronous_client_goes_on_too(directory: Path) -> None:
    """The same from a thread, with `ask`."""

    async def story() -> None:
        async with proxied(directory) as (run, proxy, _):
            with samovar.Client(proxy.address, deadline=BOUND) as client:
                asked = asyncio.create_task(
                    asyncio.to_thread(client.ask, LONG, keep_running=True, session="s")
                )
                for number in range(1, 4):
                    await until(lambda n=number: has_said(run, 10 * n))  # type: ignore[misc]
                    proxy.cut()
                answer = await asked
                assert answer.text.split() == [f"tick{number}" for number in range(WORDS)]
                assert answer.started.turn_id == answer.turn_id
            assert len(run.stand_in.requests) == 1
            assert proxy.connections > 3

    asyncio.run(story())


def has_said(run: Running, count: int) -> bool:
    """Tells whether any turn has so many events by now."""
    sessions = run.service.sessions._directory._sessions.values()
    return any(c.turn.last_sequence >= count for s in sessions for c in s.runners.values())


def test_a_cut_turn_that_is_not_to_run_on_is_told_as_interrupted(directory: Path) -> None:
    """By default a lost stream interrupts its turn; the client hears that, without a gap."""

    async def story() -> None:
        async with proxied(directory) as (_, proxy, client):
            events: list[samovar.Event] = []
            async for event in client.send(script(drip(500, 0.02))):
                events.append(event)
                if len(events) == 10:
                    proxy.cut()
            check_whole(events)
            assert isinstance(events[-1], samovar.TurnFinished)
            assert events[-1].outcome is samovar.Outcome.INTERRUPTED

    asyncio.run(story())


def test_a_turn_that_waits_is_sent_again(directory: Path) -> None:
    """Cut before its first event, it is sent again with the same id and runs once."""

    async def story() -> None:
        async with proxied(directory) as (run, proxy, client):
            async with run.client.send(script(drip(500, 0.02))) as busy:
                while not isinstance(await anext(busy), samovar.TextDelta):
                    pass
                turn = client.send("Say once")
                events = asyncio.create_task(collect(turn))
                await until(lambda: run.service.sessions.running == 2)
                proxy.cut()
                await until(lambda: proxy.connections == 2)
            told = await events
            check_whole(told)
            assert text_of(told) == "once"
            assert sum("Say once" in str(asked) for asked in run.asked()) == 1

    asyncio.run(story())


async def collect(turn: samovar.AsyncTurn) -> list[samovar.Event]:
    return [event async for event in turn]


def test_a_turn_is_followed_by_another_client(directory: Path) -> None:
    """`attach` gives what another client's stream gives, from any event on."""

    async def story() -> None:
        async with proxied(directory) as (run, _, client):
            turn = client.send(LONG, session="s")
            first = await anext(turn)
            whole, later = (
                run.client.attach(turn.turn_id, "s"),
                run.client.attach(turn.turn_id, "s", 1),
            )
            told = await asyncio.gather(*map(collect, (turn, whole, later)))
            ticks([first, *told[0]])
            assert told[1] == [first, *told[0]]
            assert told[2] == told[0]
            assert (later.turn_id, later.session) == (turn.turn_id, "s")
            with pytest.raises(samovar.TurnNotFound):
                await collect(run.client.attach(str(uuid.uuid4()), "s"))

    asyncio.run(story())


def test_a_reader_who_was_too_slow_comes_back(directory: Path) -> None:
    """It was dropped while it did something else; it misses nothing."""
    bounds = {"reader_bytes": "64 KiB", "reader_timeout": "300 ms", "event_hold_bytes": "200 MiB"}

    async def story() -> None:
        async with serving(directory, fake=True, server=bounds) as run:
            count = 0
            flood = fake(v.events(EVENTS, size=300))
            async with run.client.send(flood, keep_running=True) as turn:
                async for event in turn:
                    count += 1
                    assert event.sequence == count
                    if count == 1:
                        await until(lambda: not followed(run))
            assert isinstance(event, samovar.TurnFinished)
            assert count > EVENTS

    asyncio.run(story())


def followed(run: Running) -> bool:
    """Tells whether any turn has a stream."""
    sessions = run.service.sessions._directory._sessions.values()
    return any(c.turn.followed for s in sessions for c in s.runners.values())


# A service that is killed and started again, behind the same address.


@asynccontextmanager
async def beside(program: AbstractContextManager[T]) -> AsyncIterator[T]:
    """Runs a program without keeping this loop from its work."""
    with ExitStack() as stack:
        try:
            yield await asyncio.to_thread(stack.enter_context, program)
        finally:
            await asyncio.to_thread(stack.close)


@asynccontextmanager
async def before(program: Program) -> AsyncIterator[tuple[Proxy, samovar.AsyncClient]]:
    """A proxy before a program, and a client that goes through it."""
    async with Proxy(program.address) as proxy:
        async with samovar.AsyncClient(proxy.address, deadline=BOUND) as client:
            yield proxy, client


def kill(program: Program) -> None:
    program.child.kill()
    program.child.wait(BOUND)


def test_a_turn_that_ran_when_the_service_died_is_lost(directory: Path) -> None:
    """The client waits for the service and is told what became of its turn: not run again,
    whether it had heard of it or not."""

    async def story() -> None:
        async with beside(served(directory)) as program:
            async with before(program) as (proxy, client):
                turn = client.send(fake(v.text("half"), v.hang()), keep_running=True)
                while not isinstance(await anext(turn), samovar.TextDelta):
                    pass
                proxy.freeze()
                unheard = client.send(fake(v.hang()), session="b", keep_running=True)
                first = asyncio.create_task(collect(unheard))
                async with samovar.AsyncClient(program.address) as other:
                    await until_running(other, "b")
                kill(program)
                rest = asyncio.create_task(collect(turn))
                proxy.cut()
                async with beside(served(directory)) as next_one:
                    proxy.to(next_one.address)
                    for lost in (rest, first):
                        with pytest.raises(samovar.TurnLost) as error:
                            await lost
                        assert error.value.cause == "server-restarted"
                        assert error.value.prompt_written
                    assert (await client.ask("Say on")).started.start_mode.name == "RESUMED"
                    assert next_one.end() == 0

    asyncio.run(story())


async def until_running(client: samovar.AsyncClient, session: str) -> None:
    async with asyncio.timeout(BOUND):
        while True:
            try:
                if (await client.get_session(session)).active_turn_id:
                    return
            except samovar.SessionNotFound:
                pass
            await asyncio.sleep(0.01)


def test_a_turn_that_waited_when_the_service_died_runs_after_it(directory: Path) -> None:
    """Nothing of it was written: sent again with the same id, it runs, once."""

    async def story() -> None:
        async with beside(served(directory)) as program:
            async with before(program) as (proxy, client):
                busy = client.send(fake(v.hang()))
                assert isinstance(await anext(busy), samovar.TurnStarted)
                turn_id = str(uuid.uuid4())
                waiting = asyncio.create_task(client.ask("Say late", turn_id=turn_id))
                await until_waiting(client, turn_id)
                kill(program)
                proxy.cut()
                async with beside(served(directory)) as next_one:
                    proxy.to(next_one.address)
                    answer = await waiting
                    assert answer.text == "late"
                    with pytest.raises(samovar.TurnLost):
                        await collect(busy)
                    assert (await client.get_session()).turn_count == 2
                    assert next_one.end() == 0

    asyncio.run(story())


async def until_waiting(client: samovar.AsyncClient, turn_id: str) -> None:
    """Waits until a turn can be followed, though it says nothing yet."""
    async with asyncio.timeout(BOUND):
        while True:
            try:
                await collect(client.attach(turn_id, deadline=0.2))
            except samovar.TurnNotFound:
                continue
            except samovar.DeadlineExceeded:
                return


def test_the_last_event_is_had_from_the_next_service(directory: Path) -> None:
    """A client that missed nothing but `turn_finished` gets it after a restart."""
    gate = directory / "gate"

    async def story() -> None:
        async with beside(served(directory)) as program:
            async with before(program) as (proxy, client):
                turn = client.send(fake(v.gate(gate), v.api_error()), keep_running=True)
                events = [await anext(turn), await anext(turn)]
                proxy.freeze()
                gate.touch()
                async with samovar.AsyncClient(program.address) as other:
                    *_, last = await collect(other.attach(turn.turn_id))
                assert last.sequence == 3
                kill(program)
                proxy.cut()
                async with beside(served(directory)) as next_one:
                    proxy.to(next_one.address)
                    events += await collect(turn)
                    check_whole(events)
                    assert events[-1] == last
                    assert next_one.end() == 0

    asyncio.run(story())


def test_a_person_is_told_that_the_stream_broke(directory: Path) -> None:
    """`samovar send` says in one line that it joins the turn again, and prints the answer."""
    gate = directory / "gate"

    async def story() -> None:
        async with serving(directory, fake=True) as run, Proxy(run.address) as proxy:
            prompt = fake(v.text("whole"), v.gate(gate))
            async with beside(sending(proxy.address, prompt)) as child:
                proxy.cut()
                out, said = await asyncio.to_thread(child.communicate, timeout=BOUND)
            assert '"event": "TurnFinished", ' in out
            assert said.startswith("samovar: the stream broke: joining the turn again")
            assert said.count("\n") == 1

    asyncio.run(story())
