"""Clients from their making to after their end: closed ones, and event loops that come and go."""

import asyncio
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from support.scripted_server import Hold, Script, finished, playing, said, started
from support.timeouts import BOUND

import samovar
from samovar.compat import BidirectionalStreamingClient, StreamingConfig

Sync = Callable[[samovar.Client], Any]
CALLS: dict[str, Callable[[Any], Any]] = {
    "send": lambda client: client.send("Hello"),
    "ask": lambda client: client.ask("Hello"),
    "attach": lambda client: client.attach("t"),
    "interrupt": lambda client: client.interrupt("t"),
    "allow": lambda client: client.allow("p"),
    "deny": lambda client: client.deny("p"),
    "get_session": lambda client: client.get_session(),
    "list_sessions": lambda client: client.list_sessions(),
    "usage": lambda client: client.usage(),
    "list_usage": lambda operator: operator.list_usage(),
    "close_session": lambda client: client.close_session("s"),
    "list_pools": lambda operator: operator.list_pools(),
    "list_processes": lambda operator: operator.list_processes(),
    "watch": lambda operator: operator.watch(),
    "health": lambda client: client.health(),
    "wait": lambda client: client.wait(),
    "drain": lambda operator: operator.drain("acme"),
    "pause": lambda operator: operator.pause(),
    "resume": lambda operator: operator.resume(),
    "interrupt_session": lambda operator: operator.interrupt_session("acme", "s"),
    "close_tenant_session": lambda operator: operator.close_tenant_session("acme", "s"),
    "unblock_session": lambda operator: operator.unblock_session("acme", "s"),
}
KINDS: list[tuple[Any, Any]] = [
    (samovar.Client, samovar.AsyncClient),
    (samovar.Operator, samovar.AsyncOperator),
]
EVERY = [
    (synchronous, asynchronous, name)
    for synchronous, asynchronous in KINDS
    for name in CALLS
    if hasattr(synchronous, name)
]


async def finish(made: Any) -> None:
    """Await what is awaited, and read what is iterated."""
    if hasattr(made, "__aiter__"):
        async for _ in made:
            pass
    else:
        await made


def test_every_call_is_in_the_table() -> None:
    """No method that calls the service is without a test of what it does when closed."""
    methods = {name for kind, _ in KINDS for name in vars(kind) if not name.startswith("_")}
    assert methods - {"close"} == set(CALLS)


@pytest.mark.parametrize(("kind", "_", "name"), EVERY)
def test_a_closed_client_says_so(kind: Any, _: Any, name: str) -> None:
    """Each call of a closed client, and each iterator of one, raises `ClientClosed`."""
    client = kind("localhost:1")
    before = CALLS[name](client) if name in ("send", "attach", "list_sessions") else None
    client.close()
    client.close()
    for made in (before, client):
        with pytest.raises(samovar.ClientClosed):
            list(CALLS[name](client) if made is client else made or CALLS[name](client))


@pytest.mark.parametrize(("_", "kind", "name"), EVERY)
def test_a_closed_asynchronous_client_says_so(_: Any, kind: Any, name: str) -> None:
    """So does each of the asynchronous one."""

    async def story() -> None:
        client = kind("localhost:1")
        before = CALLS[name](client)
        await client.close()
        await client.close()
        for made in (before, CALLS[name](client)):
            with pytest.raises(samovar.ClientClosed):
                await finish(made)

    asyncio.run(story())


def test_the_hand_written_kind_of_client_says_so() -> None:
    """So does the generator of `samovar.compat`."""
    client = BidirectionalStreamingClient(StreamingConfig(target="localhost:1"))
    client.close()
    with pytest.raises(samovar.ClientClosed):
        list(client.send_message("Hello"))


@contextmanager
def held(*, starts: bool = True) -> Iterator[tuple[str, Script]]:
    """Play a turn that does not end."""
    script = Script([started(), said("a")] if starts else [], hold=True)
    with playing(script) as target:
        yield target, script


def test_a_turn_that_runs_while_the_client_is_closed_says_so() -> None:
    """Whatever reads a turn when its client is closed by another thread gets `ClientClosed`."""
    with held() as (target, script):
        client = samovar.Client(target)
        turn = client.send("Hello")
        next(turn)
        closing = threading.Thread(target=client.close)
        closing.start()
        with pytest.raises(samovar.ClientClosed):
            list(turn)
        closing.join()
        assert script.gone.wait(BOUND)


def test_a_turn_that_runs_while_the_asynchronous_client_is_closed_says_so() -> None:
    """A task that reads gets `ClientClosed`, and no cancellation that nobody asked for."""

    async def story(target: str) -> None:
        client = samovar.AsyncClient(target)
        turn = client.send("Hello")
        await anext(turn)
        reading = asyncio.create_task(finish(turn))
        await asyncio.sleep(0)  # it reads
        await client.close()
        with pytest.raises(samovar.ClientClosed):
            await reading

    with held() as (target, script):
        asyncio.run(story(target))
        assert script.gone.wait(BOUND)


def test_a_turn_that_another_task_closes_is_an_error_of_the_reader() -> None:
    """It gets `CallBroken` as a thread does, and no cancellation that nobody asked for."""

    async def story(target: str) -> None:
        async with samovar.AsyncClient(target) as client:
            turn = client.send("Hello")
            await anext(turn)
            reading = asyncio.create_task(finish(turn))
            await asyncio.sleep(0)
            await turn.aclose()
            with pytest.raises(samovar.CallBroken, match="closed"):
                await reading

    with held() as (target, _):
        asyncio.run(story(target))


def test_a_reader_that_is_cancelled_is_cancelled() -> None:
    """The caller's own cancellation stays one, also if the turn is closed because of it."""

    async def story(target: str) -> None:
        async with samovar.AsyncClient(target) as client:

            async def read() -> None:
                async with client.send("Hello") as turn:
                    await finish(turn)

            reading = asyncio.create_task(read())
            while not script.requests:
                await asyncio.sleep(0)
            reading.cancel()
            with pytest.raises(asyncio.CancelledError):
                await reading

    with held() as (target, script):
        asyncio.run(story(target))


def test_a_client_is_made_outside_a_loop_and_used_in_several() -> None:
    """A global of a program works in each event loop that the program runs."""
    script = Script(*([started(), finished(str(number))] for number in range(3)))
    with playing(script) as target:
        client = samovar.AsyncClient(target, deadline=BOUND)

        async def ask() -> str:
            return (await client.ask("Hello")).text

        assert [asyncio.run(ask()) for _ in range(2)] == ["0", "1"]

        async def last() -> None:
            async with client:
                assert await ask() == "2"

        asyncio.run(last())


def test_two_loops_at_once_use_one_client() -> None:
    """Threads with a loop each do not disturb each other."""
    script = Script(*([[started(), said("a"), finished("a")]] * 20))
    with playing(script) as target:
        client = samovar.AsyncClient(target, deadline=BOUND)
        texts: list[str] = []

        async def ask() -> None:
            for _ in range(10):
                texts.append((await client.ask("Hello")).text)

        threads = [threading.Thread(target=lambda: asyncio.run(ask())) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(BOUND)
        asyncio.run(client.close())
        assert texts == ["a"] * 20


def test_a_turn_is_not_read_in_another_loop() -> None:
    """It says so, and another loop may attach to the turn."""

    async def begin(client: samovar.AsyncClient) -> samovar.AsyncTurn:
        turn = client.send("Hello", turn_id=str(uuid.UUID(int=1)))
        await anext(turn)
        return turn

    async def go_on(client: samovar.AsyncClient, turn: samovar.AsyncTurn) -> list[samovar.Event]:
        with pytest.raises(RuntimeError, match="attach to it from another"):
            await anext(turn)
        return [event async for event in client.attach(turn.turn_id, after_sequence=1)]

    script = Script([started(), Hold()], [finished(sequence=2)])
    with playing(script) as target, asyncio.Runner() as first:
        client = samovar.AsyncClient(target)
        turn = first.run(begin(client))
        with asyncio.Runner() as second:
            assert len(second.run(go_on(client, turn))) == 1
        first.run(client.close())
        with pytest.raises(samovar.ClientClosed):
            first.run(finish(turn))


def test_an_operator_is_made_outside_a_loop(directory: Path) -> None:
    """Its failures are those of the service that is not there, in each loop."""
    operator = samovar.AsyncOperator(f"unix:{directory}/no.sock")

    async def ask() -> None:
        with pytest.raises(samovar.CallBroken):
            await operator.drain("acme")

    for _ in range(2):
        asyncio.run(ask())
    asyncio.run(operator.close())
