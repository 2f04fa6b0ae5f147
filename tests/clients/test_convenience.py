"""What makes the client handy: one-liners, callbacks for permission, and reprs."""

import asyncio
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fake_claude import fake
from fake_claude import verbs as v
from support.scripted_server import Script, finished, playing, said, started
from support.service import Running, serving
from support.timeouts import BOUND

import samovar
from samovar.requests import Decision

TURN = str(uuid.UUID(int=1))


def test_one_line_asks(monkeypatch: pytest.MonkeyPatch) -> None:
    """`samovar.ask` needs no client, and finds the service as the command line does."""
    script = Script(*[[started(), finished("hi")]] * 2)
    with playing(script) as target:
        assert samovar.ask("Hello", target=target, api_key="a", session="s").text == "hi"
        monkeypatch.setenv("SAMOVAR_TARGET", target)
        monkeypatch.setenv("SAMOVAR_API_KEY", "k")
        assert samovar.ask("Hello").text == "hi"
    assert [m["authorization"] for m in script.metadata] == ["Bearer a", "Bearer k"]
    assert [request.session_id for request in script.requests] == ["s", ""]


#: What is decided, and what the tool then says.
DECISIONS: list[tuple[Decision, str]] = [
    (True, '{"file_path": "note.txt"}'),
    (samovar.Allow(), '{"file_path": "note.txt"}'),
    (samovar.Allow({"b": 1}), '{"b": 1}'),
    (samovar.Deny("not that"), "not that"),
]


INTERRUPT = samovar.Deny(interrupt=True)


def always(decision: Decision) -> Callable[[samovar.PermissionRequested], Decision]:
    return lambda _: decision


def test_permission_is_decided_by_a_function(directory: Path) -> None:
    """`send` and `ask` of both clients answer with what `on_permission` returns."""

    def synchronous(address: str) -> None:
        with samovar.Client(address, deadline=BOUND) as client:
            for decision, result in DECISIONS:
                with client.send(PROMPT, on_permission=always(decision), **ASKS) as turn:
                    assert results(list(turn)) == [result]
            assert client.ask(PROMPT, on_permission=always(True), **ASKS).outcome == 1
            denied = client.ask(PROMPT, on_permission=always(False), **ASKS)
            stopped = client.ask(PROMPT, on_permission=always(INTERRUPT), **ASKS)
        assert denied.outcome is samovar.Outcome.COMPLETED
        assert stopped.outcome is samovar.Outcome.INTERRUPTED

    async def asynchronous(run: Running) -> None:
        for decision, result in DECISIONS:

            async def later(_: samovar.PermissionRequested, d: Decision = decision) -> Decision:
                await asyncio.sleep(0)
                return d

            for decide in (later, always(decision)):
                async with run.client.send(PROMPT, on_permission=decide, **ASKS) as turn:
                    assert results([event async for event in turn]) == [result]
            answer = await run.client.ask(PROMPT, on_permission=later, **ASKS)
            assert answer.outcome is samovar.Outcome.COMPLETED

    async def served() -> None:
        async with serving(directory, fake=True, profiles={"default": PROFILE}) as run:
            await asyncio.to_thread(synchronous, run.address)
            await asynchronous(run)

    asyncio.run(served())


def test_a_function_that_fails_ends_the_turn(directory: Path) -> None:
    """What it raises is raised, as is a TypeError for no decision, and the turn is interrupted."""

    def fails(_: Any) -> bool:
        raise KeyError("mine")

    def undecided(_: Any) -> Any:
        return None

    def synchronous(address: str, decide: Callable[[Any], bool], error: type[Exception]) -> None:
        with samovar.Client(address, deadline=BOUND) as client:
            turn = client.send(PROMPT, on_permission=decide, **ASKS)
            with pytest.raises(error):
                list(turn)
            after(list(client.attach(turn.turn_id, turn.session)))
            assert "closed" in repr(turn)

    async def asynchronous(run: Running, decide: Any, error: type[Exception]) -> None:
        turn = run.client.send(PROMPT, on_permission=decide, **ASKS)
        with pytest.raises(error):
            [event async for event in turn]
        after([event async for event in run.client.attach(turn.turn_id, turn.session)])

    def after(events: list[samovar.Event]) -> None:
        last = events[-1]
        assert isinstance(last, samovar.TurnFinished)
        assert last.outcome is samovar.Outcome.INTERRUPTED

    async def served() -> None:
        async with serving(directory, fake=True, profiles={"default": PROFILE}) as run:
            for case in ((fails, KeyError), (undecided, TypeError)):
                await asyncio.to_thread(synchronous, run.address, *case)
                await asynchronous(run, *case)

    asyncio.run(served())


def test_a_decision_that_comes_too_late_is_no_error(directory: Path) -> None:
    """Another client was first: the turn goes on with what that one said."""

    def story(address: str) -> None:
        with samovar.Client(address, deadline=BOUND) as client:

            def second(asked: samovar.PermissionRequested) -> bool:
                client.deny(asked.permission_id, "s", message="first")
                return True

            with client.send(PROMPT, on_permission=second, **ASKS) as turn:
                assert results(list(turn)) == ["first"]

    async def served() -> None:
        async with serving(directory, fake=True, profiles={"default": PROFILE}) as run:
            await asyncio.to_thread(story, run.address)

    asyncio.run(served())


PROMPT = fake(v.permission())
PROFILE = {"model": "haiku", "allow_ask": True, "allow_rewrite": True}
ASKS: samovar.SendOptions = {"session": "s", "permission_policy": "ask"}


def results(events: list[samovar.Event]) -> list[str]:
    return [event.text for event in events if isinstance(event, samovar.ToolResult)]


@pytest.mark.parametrize("kind", [samovar.Client, samovar.Operator])
def test_a_client_tells_where_it_leads(kind: Any) -> None:
    """Its target and whether it is closed, and never the key."""
    client = kind("localhost:1", api_key="secret")
    assert repr(client) == f"<samovar.{kind.__name__} localhost:1>"
    client.close()
    assert repr(client) == f"<samovar.{kind.__name__} localhost:1, closed>"


@pytest.mark.parametrize("kind", [samovar.AsyncClient, samovar.AsyncOperator])
def test_an_asynchronous_client_tells_where_it_leads(kind: Any) -> None:
    """So do those of asyncio."""
    client = kind("localhost:1", api_key="secret")
    assert repr(client) == f"<samovar.{kind.__name__} localhost:1>"
    asyncio.run(client.close())
    assert repr(client) == f"<samovar.{kind.__name__} localhost:1, closed>"


def test_a_turn_tells_its_state() -> None:
    """Which turn, of which session, and how far it is."""
    script = Script([started(), said("a"), finished()], [started(), said("a")], hold=True)
    name = f"{TURN} of 's'"
    with playing(script) as target, samovar.Client(target) as client:
        turn = client.send("Hello", session="s", turn_id=TURN)
        assert repr(turn) == f"<samovar.Turn {name}, not begun>"
        next(turn)
        assert repr(turn) == f"<samovar.Turn {name}, running>"
        next(turn)
        assert isinstance(next(turn), samovar.TurnFinished)
        assert repr(turn) == f"<samovar.Turn {name}, finished>"
        with client.send("Hello", turn_id=TURN) as turn:
            next(turn)
        assert repr(turn) == f"<samovar.Turn {TURN} of 'default', closed>"


def test_an_asynchronous_turn_tells_its_state() -> None:
    """As the synchronous one."""

    async def story(target: str) -> None:
        async with samovar.AsyncClient(target) as client:
            turn = client.send("Hello", session="s", turn_id=TURN)
            assert repr(turn) == f"<samovar.AsyncTurn {TURN} of 's', not begun>"
            await anext(turn)
            assert repr(turn) == f"<samovar.AsyncTurn {TURN} of 's', running>"
            await turn.aclose()
            assert repr(turn) == f"<samovar.AsyncTurn {TURN} of 's', closed>"

    with playing(Script([started(), said("a")], hold=True)) as target:
        asyncio.run(story(target))


def test_content_and_keys_are_not_in_a_repr() -> None:
    """A log of a call holds neither megabytes nor a private key."""
    shown = repr([samovar.Image(b"abc"), samovar.Document(b"abc"), samovar.Tls(private_key=b"abc")])
    assert "abc" not in shown
