"""Promises of permission requests that wait: who sees them, and how they end unanswered."""

import asyncio
import json
import os
import signal
from pathlib import Path
from typing import Any

import grpc
import pytest
from support.permission_turns import (
    ASKS,
    asking,
    finished,
    resolutions,
    rest,
    result,
    until_asked,
    writes,
    written,
)
from support.service import key_for, serving, until

import samovar
from samovar.v1 import session_pb2 as pb
from samovar.v1 import session_pb2_grpc
from samovard.standin import script, text, tool


def test_an_unanswered_request_expires_into_a_denial(directory: Path) -> None:
    """Nobody answers: the tool is denied and the turn goes on to its own end."""

    async def story() -> None:
        async with asking(directory, permission_timeout="200 ms") as run:
            events = await rest(run.client.send(script(writes(), text("went on"))))
            (asked,) = (e for e in events if isinstance(e, samovar.PermissionRequested))
            assert resolutions(events) == [(asked.permission_id, samovar.Resolution.EXPIRED)]
            assert result(events).is_error
            assert finished(events).result == "went on"
            assert written(directory) is None
            with pytest.raises(samovar.PermissionNotFound):
                await run.client.allow(asked.permission_id)

    asyncio.run(story())


def test_an_interrupt_withdraws_what_is_asked(directory: Path) -> None:
    """An interrupted turn's request is over: its answer comes too late and does nothing."""

    async def story() -> None:
        async with asking(directory) as run:
            async with run.client.send(script(writes(), text("never"))) as turn:
                events, (asked,) = await until_asked(turn)
                assert await run.client.interrupt(turn.turn_id)
                with pytest.raises(samovar.PermissionNotFound):
                    await run.client.allow(asked.permission_id)
                events += await rest(turn)
            assert resolutions(events) == [(asked.permission_id, samovar.Resolution.WITHDRAWN)]
            assert finished(events).outcome is samovar.Outcome.INTERRUPTED
            assert written(directory) is None
            assert isinstance(events[0], samovar.TurnStarted)
            assert (await run.client.ask("Say on")).started.pid == events[0].pid

    asyncio.run(story())


def test_another_client_may_answer(directory: Path) -> None:
    """Any client of the tenant finds the session that waits, and answers it."""

    async def story() -> None:
        async with asking(directory) as run, samovar.AsyncClient(run.address) as second:
            async with run.client.send(script(writes(), text("x")), session="far") as turn:
                _, (asked,) = await until_asked(turn)
                request = pb.ListSessionsRequest(state=pb.SessionInfo.STATE_INPUT_REQUIRED)
                waiting = await run.stub.ListSessions(request)
                assert [session.session_id for session in waiting.sessions] == ["far"]
                assert (await second.get_session("far")).state == "input_required"
                await second.allow(asked.permission_id, "far")
                events = await rest(turn)
                assert not (await run.stub.ListSessions(request)).sessions
            assert resolutions(events) == [(asked.permission_id, samovar.Resolution.ALLOWED)]
            assert written(directory) == "hello"

    asyncio.run(story())


def test_requests_that_are_open_at_once_are_kept_apart(directory: Path) -> None:
    """Tools that run side by side ask at once, and are answered in any order."""

    async def story() -> None:
        async with asking(directory, tools=["Bash", "Read", "Write"]) as run:
            names = ("hostname", "passwd", "group")
            reads = [tool("Read", {"file_path": f"/etc/{name}"}) for name in names]
            async with run.client.send(script(reads, text("read"))) as turn:
                events, asked = await until_asked(turn, 3)
                assert not resolutions(events)
                for request in reversed(asked):
                    name = json.loads(request.input_json)["file_path"]
                    await run.client.deny(request.permission_id, message=f"no {name}")
                events += await rest(turn)
            told = {e.tool_use_id: e.text for e in events if isinstance(e, samovar.ToolResult)}
            wanted = {
                e.tool_use_id: f"no {json.loads(e.input_json)['file_path']}"
                for e in events
                if isinstance(e, samovar.ToolUse)
            }
            assert told == wanted
            assert asked[0].reason
            assert len(resolutions(events)) == 3

    asyncio.run(story())


def test_each_request_is_resolved_once_before_the_end(directory: Path) -> None:
    """A replayed turn has each `permission_requested` once, and behind it, before
    `turn_finished`, one `permission_resolved` that names it."""

    async def story() -> None:
        async with asking(directory) as run:
            three = [writes(f"{name}.txt", name) for name in ("a", "b", "c")]
            prompt = script(three, text("x"))
            turn = run.client.send(prompt)
            for _ in three:
                _, (asked,) = await until_asked(turn)
                await run.client.allow(asked.permission_id)
            await rest(turn)
            events = await rest(run.client.send(prompt, turn_id=turn.turn_id))
            open_: set[str] = set()
            seen: set[str] = set()
            for event in events:
                if isinstance(event, samovar.PermissionRequested):
                    assert event.permission_id not in seen
                    open_.add(event.permission_id)
                    seen.add(event.permission_id)
                elif isinstance(event, samovar.PermissionResolved):
                    open_.remove(event.permission_id)
                elif isinstance(event, samovar.TurnFinished):
                    assert not open_
            assert len(seen) == 3

    asyncio.run(story())


def test_an_open_request_is_among_what_is_replayed(directory: Path) -> None:
    """Whoever joins a turn that waits sees what it waits for, and can answer it."""

    async def story() -> None:
        async with asking(directory) as run:
            prompt = script(writes(), text("x"))
            first = run.client.send(prompt)
            before, (asked,) = await until_asked(first)
            async with run.client.send(prompt, turn_id=first.turn_id) as second:
                again, (same,) = await until_asked(second)
                assert same == asked
                assert [e.sequence for e in again] == [e.sequence for e in before]
                await run.client.allow(same.permission_id)
                await rest(second)
            await first.aclose()
            assert written(directory) == "hello"

    asyncio.run(story())


def test_another_tenants_permission_cannot_be_told_from_none(directory: Path) -> None:
    """The same bytes come back for another's session or request and for one that is not."""

    async def story() -> None:
        keys = {name: await key_for(directory, name) for name in ("acme", "globex")}
        sections: dict[str, Any] = {"auth": {"methods": ["api_key"]}, "profiles": {"default": ASKS}}
        async with (
            serving(directory, **sections) as run,
            samovar.AsyncClient(run.address, api_key=keys["acme"]) as acme,
            samovar.AsyncClient(run.address, api_key=keys["globex"]) as globex,
            grpc.aio.insecure_channel(run.address) as channel,
        ):
            stub = session_pb2_grpc.SessionStub(channel)
            metadata = (("authorization", f"Bearer {keys['globex']}"),)

            async def told(session: str, permission: str) -> tuple[object, ...]:
                allow = pb.RespondRequest.Allow()
                request = pb.RespondRequest(
                    session_id=session, permission_id=permission, allow=allow
                )
                with pytest.raises(grpc.aio.AioRpcError) as caught:
                    await stub.Respond(request, metadata=metadata)
                error = caught.value
                return error.code(), error.details(), tuple(error.trailing_metadata() or ())

            await globex.ask("Say x", session="own")
            async with acme.send(script(writes(), text("x")), session="theirs") as turn:
                _, (asked,) = await until_asked(turn)
                assert await told("theirs", asked.permission_id) == await told("none", "none")
                assert await told("own", asked.permission_id) == await told("own", "none")
                await acme.allow(asked.permission_id, "theirs")
                assert finished(await rest(turn)).result == "x"

    asyncio.run(story())


def test_closing_the_session_ends_a_turn_that_asks(directory: Path) -> None:
    """What waits for a person does not keep a session open."""

    async def story() -> None:
        async with asking(directory) as run:
            async with run.client.send(script(writes(), text("never")), session="s") as turn:
                events, (asked,) = await until_asked(turn)
                assert await run.client.close_session("s")
                events += await rest(turn)
            assert resolutions(events) == [(asked.permission_id, samovar.Resolution.WITHDRAWN)]
            assert finished(events).outcome is samovar.Outcome.INTERRUPTED
            await until(lambda: not len(run.service.pool))

    asyncio.run(story())


def test_a_process_that_dies_while_it_asks_is_told(directory: Path) -> None:
    """The request is withdrawn, the turn is lost, and the next one resumes and may ask."""

    async def story() -> None:
        async with asking(directory) as run:
            events: list[samovar.Event] = []
            with pytest.raises(samovar.TurnLost) as lost:
                async with run.client.send(script(writes(), text("never"))) as turn:
                    events, (asked,) = await until_asked(turn)
                    assert isinstance(events[0], samovar.TurnStarted)
                    os.kill(events[0].pid, signal.SIGKILL)
                    async for event in turn:
                        events.append(event)
            assert lost.value.cause == "process-died"
            assert resolutions(events) == [(asked.permission_id, samovar.Resolution.WITHDRAWN)]
            with pytest.raises(samovar.PermissionNotFound):
                await run.client.allow(asked.permission_id)
            async with run.client.send(script(writes(), text("x"))) as turn:
                _, (asked,) = await until_asked(turn)
                await run.client.allow(asked.permission_id)
                assert finished(await rest(turn)).result == "x"
            assert written(directory) == "hello"

    asyncio.run(story())
