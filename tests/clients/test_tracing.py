"""A call belongs to the trace of the span that is active in its caller's program."""

import asyncio
import sys
import types
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from opentelemetry import context, propagate, trace
from support.optional_tools import passes
from support.program import environ
from support.scripted_server import Break, Script, finished, playing, said, started
from support.timeouts import BOUND

import samovar
from samovar import tracing
from samovar.v1 import session_pb2 as pb

PARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
OTHER = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00"
TURN = [started(), finished(sequence=2)]


@contextmanager
def within(parent: str) -> Iterator[None]:
    """Make a span of another program the active one."""
    token = context.attach(propagate.extract({"traceparent": parent}))
    try:
        yield
    finally:
        context.detach(token)


def parents(script: Script) -> list[Any]:
    return [metadata.get("traceparent") for metadata in script.metadata]


class Control(Script):
    """A script that answers one call beside turns."""

    def GetSession(self, request: pb.GetSessionRequest, context: Any) -> pb.GetSessionResponse:
        self.metadata.append(dict(context.invocation_metadata()))
        return pb.GetSessionResponse()


def test_calls_are_below_the_active_span() -> None:
    """Turns and calls beside them are, and those without an active span have no parent."""
    script = Control(TURN, TURN)
    with playing(script) as target, samovar.Client(target) as client:
        with within(PARENT):
            client.ask("Hello")
        with within(OTHER):
            client.get_session()
        client.ask("Hello")
    assert parents(script) == [PARENT, OTHER, None]


def test_asynchronous_calls_are_below_the_active_span() -> None:
    """Those of each task are below the task's own span."""
    script = Control(TURN, TURN)

    async def ask(client: samovar.AsyncClient, parent: str) -> None:
        with within(parent):
            await client.ask("Hello")

    async def story(target: str) -> None:
        async with samovar.AsyncClient(target) as client:
            await asyncio.gather(ask(client, PARENT), ask(client, OTHER))
            await client.get_session()

    with playing(script) as target:
        asyncio.run(story(target))
    *turns, last = parents(script)
    assert sorted(turns) == sorted([PARENT, OTHER])
    assert last is None


def test_a_turn_belongs_to_the_span_that_it_was_begun_in() -> None:
    """Wherever its events are read, and also when its stream is joined again."""
    script = Script([started(), said("a"), Break()], [finished()])
    with playing(script) as target, samovar.Client(target, deadline=BOUND) as client:
        with within(PARENT):
            turn = client.send("Hello")
        with within(OTHER):
            assert len(list(turn)) == 3
    assert parents(script) == [PARENT, PARENT]


def test_without_a_span_there_is_no_trace(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor while the API is being imported by another thread, or where it never was."""
    assert tracing.metadata() == ()
    with within(PARENT):
        assert tracing.metadata() == (("traceparent", PARENT),)
        monkeypatch.setitem(sys.modules, "opentelemetry.trace", types.ModuleType("halfway"))
        assert tracing.metadata() == ()
        monkeypatch.delitem(sys.modules, "opentelemetry.trace")
        assert tracing.metadata() == ()
    assert trace.get_current_span() is trace.INVALID_SPAN


def test_the_client_does_not_import_the_api() -> None:
    """It needs no package for that, and a program that records no spans does not wait for one."""
    script = Script(TURN)
    program = "import samovar, sys; samovar.ask('x', target=sys.argv[1]); print(*sys.modules)"
    with playing(script) as target:
        modules = passes(sys.executable, "-c", program, target, **environ()).split()
    assert "samovar.tracing" in modules
    assert not [name for name in modules if name.startswith("opentelemetry")]
