"""Sessions over a real channel: get, list, close, and tenants beside each other."""

import asyncio
from pathlib import Path
from typing import Any

import grpc
import pytest
from fake_claude import fake
from fake_claude import verbs as v
from support.service import Running, key_for, prepare, serving, until
from support.timeouts import BOUND

import samovar
from samovar.v1 import session_pb2 as pb


def test_a_session_is_shown_as_it_is(directory: Path) -> None:
    """`GetSession` tells name, state, profile, turns and usage."""

    async def story() -> None:
        async with serving(directory, fake=True) as run:
            await run.client.ask("Say a", session="s", model="opus")
            session = await run.client.get_session("s")
            assert (session.session_id, session.state) == ("s", "warm")
            assert (session.profile, session.model, session.turn_count) == ("default", "opus", 1)
            assert session.create_time <= session.update_time < session.expire_time

    asyncio.run(story())


def test_sessions_are_listed_by_pages(directory: Path) -> None:
    """Pages hold every session once, most recently used first."""

    async def story() -> None:
        async with serving(directory, fake=True) as run:
            for name in ("a", "b", "c", "a"):
                await run.client.ask("Say x", session=name)
            names, token = [], ""
            for _ in range(3):
                request = pb.ListSessionsRequest(page_size=1, page_token=token)
                page = await run.stub.ListSessions(request)
                names += [session.session_id for session in page.sessions]
                token = page.next_page_token
            assert names == ["a", "c", "b"]
            rest = await run.stub.ListSessions(pb.ListSessionsRequest(page_token=token))
            assert not rest.sessions
            assert [s.session_id async for s in run.client.list_sessions()] == names

    asyncio.run(story())


def test_a_forged_page_token_is_refused(directory: Path) -> None:
    """A token that the service did not make is REQUEST_INVALID."""

    async def story() -> None:
        async with serving(directory, fake=True) as run:
            with pytest.raises(grpc.aio.AioRpcError) as error:
                await run.stub.ListSessions(pb.ListSessionsRequest(page_token="x"))
            assert error.value.code() is grpc.StatusCode.INVALID_ARGUMENT

    asyncio.run(story())


def test_close_leaves_nothing_of_a_session(directory: Path) -> None:
    """After `CloseSession` there is no process and no directory; the name is free, and a
    new conversation knows nothing of the old one. Done twice, it equals once."""

    async def story() -> None:
        async with serving(directory) as run:
            await run.client.ask("Say canary")
            assert [*directory.glob("s/*/work")]
            assert await run.client.close_session("default")
            assert len(run.service.pool) == 0
            assert not [*directory.glob("s/*/work")]
            assert not await run.client.close_session("default")
            with pytest.raises(samovar.SessionNotFound):
                await run.client.get_session()
            again = await run.client.ask("Say new")
            assert again.started.start_mode is samovar.StartMode.COLD
            assert "canary" not in str(run.asked()[-1])

    asyncio.run(story())


def test_close_needs_a_name(directory: Path) -> None:
    """`CloseSession` never takes an empty name for `default`."""

    async def story() -> None:
        async with serving(directory, fake=True) as run:
            with pytest.raises(samovar.RequestInvalid):
                await run.client.close_session("")

    asyncio.run(story())


async def conversation(client: samovar.AsyncClient, tenant: str, session: str) -> list[str]:
    """Runs three turns with canaries and gives what was answered, deltas and all."""
    said = []
    for turn in range(3):
        canary = f"{tenant}/{session}/{turn}"
        async with client.send(f"Say {canary}", session=session) as stream:
            events = [event async for event in stream]
        deltas = "".join(e.text for e in events if isinstance(e, samovar.TextDelta))
        assert deltas == canary
        said.append(deltas)
    return said


def test_tenants_side_by_side_never_meet(directory: Path) -> None:
    """Three tenants use the same session names at once: each stream has its own canaries,
    and each conversation upstream holds its own tenant's words and no others."""

    async def story() -> None:
        binary = await prepare(directory)
        keys = {name: await key_for(directory, name) for name in ("acme", "blue", "coral")}
        auth = {"methods": ["api_key"]}
        async with serving(directory, binary=binary, auth=auth) as run:
            clients = {
                name: samovar.AsyncClient(run.address, api_key=key, deadline=BOUND)
                for name, key in keys.items()
            }
            try:
                async with asyncio.TaskGroup() as group:
                    for name, client in clients.items():
                        for session in ("default", "other"):
                            group.create_task(conversation(client, name, session))
            finally:
                for client in clients.values():
                    await client.close()
            for words in map(str, run.asked()):
                owners = {f"{t}/{s}" for t in keys for s in ("default", "other")}
                assert len([owner for owner in owners if owner in words]) == 1

    asyncio.run(story())


def test_another_tenants_session_is_as_one_that_does_not_exist(directory: Path) -> None:
    """Every call about another tenant's session answers with the same bytes as about none."""

    async def told(run: Running, key: str, session: str) -> list[tuple[object, ...]]:
        metadata = (("authorization", f"Bearer {key}"),)
        turn_id = "0af76519-16cd-43dd-8448-eb211c80319c"
        calls = (
            run.stub.GetSession(pb.GetSessionRequest(session_id=session), metadata=metadata),
            run.stub.Interrupt(
                pb.InterruptRequest(session_id=session, turn_id=turn_id), metadata=metadata
            ),
            run.stub.CloseSession(pb.CloseSessionRequest(session_id=session), metadata=metadata),
        )
        answers: list[tuple[object, ...]] = []
        for call in calls:
            try:
                answers.append((await call,))
            except grpc.aio.AioRpcError as error:
                trailing = tuple(error.trailing_metadata())
                answers.append((error.code(), error.details(), trailing))
        return answers

    async def story() -> None:
        binary = await prepare(directory, fake=True)
        acme, blue = [await key_for(directory, name) for name in ("acme", "blue")]
        auth = {"methods": ["api_key"]}
        async with serving(directory, binary=binary, auth=auth) as run:
            async with samovar.AsyncClient(run.address, api_key=acme) as client:
                await client.ask("Say x", session="secret")
                assert await told(run, blue, "secret") == await told(run, blue, "absent")
                assert (await client.get_session("secret")).turn_count == 1

    asyncio.run(story())


def test_a_call_without_credential_is_refused(directory: Path) -> None:
    """With API keys no call is served without one; a revoked one ends."""

    async def story() -> None:
        binary = await prepare(directory, fake=True)
        key = await key_for(directory, "acme")
        async with serving(directory, binary=binary, auth={"methods": ["api_key"]}) as run:
            for credential in (None, key[:-1] + ("a" if key[-1] != "a" else "b")):
                async with samovar.AsyncClient(run.address, api_key=credential) as client:
                    with pytest.raises(samovar.CredentialInvalid) as error:
                        await client.ask("Say x", deadline=BOUND)
                    assert error.value.code is grpc.StatusCode.UNAUTHENTICATED
            async with samovar.AsyncClient(run.address, api_key=key) as client:
                assert (await client.ask("Say x")).text == "x"

    asyncio.run(story())


def test_a_waiting_turn_leaves_with_its_caller(directory: Path) -> None:
    """A stream that is lost before the prompt leaves no turn, no lease and nothing waiting."""

    async def story() -> None:
        from samovard.standin import drip, script

        async with serving(directory, pool={"slots": 1}) as run:
            async with run.client.send(script(drip(500, 0.02)), session="busy") as busy:
                await anext(busy)
                with pytest.raises(samovar.DeadlineExceeded):
                    await run.client.ask("Say x", session="late", deadline=0.2)
                await until(lambda: run.service.pool.waiting == 0)
                with pytest.raises(samovar.SessionNotFound):
                    await run.client.get_session("late")

    asyncio.run(story())


def test_sessions_are_listed_by_their_state(directory: Path) -> None:
    """A page of one state holds no other, and its token goes on with nothing else."""
    warm, suspended = pb.SessionInfo.STATE_WARM, pb.SessionInfo.STATE_SUSPENDED

    async def story() -> None:
        async with serving(directory, fake=True) as run:
            for name in ("a", "b", "c"):
                await run.client.ask("Say x", session=name)
            await run.client.ask(fake(v.text("x"), v.die("idle")), session="b")
            await until(lambda: len(run.service.pool) == 2)

            async def names(state: Any, **page: Any) -> tuple[list[str], str]:
                listed = await run.stub.ListSessions(pb.ListSessionsRequest(state=state, **page))
                return [session.session_id for session in listed.sessions], listed.next_page_token

            assert await names(suspended) == (["b"], "")
            first, token = await names(warm, page_size=1)
            second, _ = await names(warm, page_size=1, page_token=token)
            assert (first, second) == (["c"], ["a"])
            with pytest.raises(grpc.aio.AioRpcError) as error:
                await names(suspended, page_size=1, page_token=token)
            assert error.value.code() is grpc.StatusCode.INVALID_ARGUMENT

    asyncio.run(story())


def test_close_ends_what_runs_and_withdraws_what_waits(directory: Path) -> None:
    """The running turn is OUTCOME_INTERRUPTED, the waiting one CANCELLED, and the session that is
    told is closed; its turns are gone with it."""

    async def story() -> None:
        async with serving(directory, fake=True) as run:
            await run.client.ask("Say warm")
            running = run.client.send(fake(v.text("x"), v.hang()))
            events = [await anext(running), await anext(running)]
            waiting = asyncio.create_task(run.client.ask("Say y"))
            await until(lambda: run.service.sessions.running == 2)
            closed = await run.stub.CloseSession(pb.CloseSessionRequest(session_id="default"))
            assert closed.session.state == pb.SessionInfo.STATE_CLOSED
            events += [event async for event in running]
            assert isinstance(events[-1], samovar.TurnFinished)
            assert events[-1].outcome is samovar.Outcome.INTERRUPTED
            with pytest.raises(samovar.TurnWithdrawn) as withdrawn:
                await waiting
            assert not withdrawn.value.prompt_written
            assert len(run.service.pool) == 0
            await run.client.ask("Say new")
            with pytest.raises(samovar.TurnNotFound):
                await run.client.interrupt(running.turn_id)

    asyncio.run(story())
