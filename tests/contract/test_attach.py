"""Promises of `Attach` and of a repeated `Send`, on the real CLI and a stand-in."""

import asyncio
import os
import signal
import uuid
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2
from support.service import Running, key_for, prepare, raw, serving, simple, until

import samovar
from samovar.v1 import session_pb2 as pb
from samovard.standin import drip, script

LONG = script(drip(500, 0.02))
CONTINUE = pb.DISCONNECT_POLICY_CONTINUE
EOF: Any = grpc.aio.EOF  # type: ignore[attr-defined]  # its stubs lack it


def attach(run: Running, turn_id: str, after: int = 0, **options: Any) -> Any:
    request = pb.AttachRequest(turn_id=turn_id, after_sequence=after)
    return run.stub.Attach(request, **options)


async def events_of(call: Any) -> list[pb.Event]:
    events: list[pb.Event] = []
    while (response := await call.read()) is not EOF:
        assert response.events
        events += response.events
    return events


async def error_of(call: Any) -> grpc.aio.AioRpcError:
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await events_of(call)
    return error.value


def info(error: grpc.aio.AioRpcError) -> error_details_pb2.ErrorInfo:
    trailing: Any = error.trailing_metadata()
    status = status_pb2.Status.FromString(dict(trailing)["grpc-status-details-bin"])
    found = error_details_pb2.ErrorInfo()
    (packed,) = (d for d in status.details if d.Is(found.DESCRIPTOR))
    packed.Unpack(found)
    return found


def text_of(events: list[pb.Event]) -> str:
    return "".join(event.text_delta.text for event in events)


def numbers(events: list[pb.Event]) -> list[int]:
    return [event.sequence for event in events]


async def read_some(call: Any, least: int = 5) -> list[pb.Event]:
    """Reads a call until it has given a few events."""
    events: list[pb.Event] = []
    while len(events) < least:
        events += (await call.read()).events
    return events


def test_a_broken_stream_goes_on_without_gap_or_repeat(directory: Path) -> None:
    """With CONTINUE the turn runs on while nobody listens; `Attach` after the last event
    that was read gives the rest, each event once."""

    async def story() -> None:
        async with serving(directory) as run:
            turn_id = str(uuid.uuid4())
            prompt = script(drip(60, 0.02))
            options = pb.EventOptions(partial=True)
            request = simple(prompt, turn_id=turn_id, on_disconnect=CONTINUE, event_options=options)
            call = run.stub.Send(request)
            before = await read_some(call)
            call.cancel()
            await until(lambda: not any(c.turn.followed for c in turns(run)))
            assert run.service.sessions.running == 1
            rest = await events_of(attach(run, turn_id, before[-1].sequence))
            events = before + rest
            assert numbers(events) == [*range(1, len(events) + 1)]
            assert events[-1].turn_finished.outcome == pb.TurnFinished.OUTCOME_COMPLETED
            assert text_of(events).split() == [f"tick{n}" for n in range(60)]
            assert len(run.stand_in.requests) == 1

    asyncio.run(story())


def turns(run: Running) -> list[Any]:
    return [
        c for s in run.service.sessions._directory._sessions.values() for c in s.runners.values()
    ]


def test_all_streams_of_a_turn_see_the_same_events(directory: Path) -> None:
    """`Send`, a repeated `Send` and `Attach`, early, late and after the end: one sequence."""

    async def story() -> None:
        async with serving(directory) as run:
            turn_id = str(uuid.uuid4())
            request = simple(script(drip(20, 0.02)), turn_id=turn_id)
            own = run.stub.Send(request)
            first = await read_some(own, 1)
            again, joined = run.stub.Send(request), attach(run, turn_id)
            told = await asyncio.gather(*map(events_of, (own, again, joined)))
            late = [await events_of(run.stub.Send(request)), await events_of(attach(run, turn_id))]
            assert all(events == first + told[0] for events in (*told[1:], *late))

    asyncio.run(story())


def test_attach_behind_the_last_event_is_ok_and_empty(directory: Path) -> None:
    """`Attach` ends with OK, without a response, after the last event of a finished turn."""

    async def story() -> None:
        async with serving(directory) as run:
            turn_id = str(uuid.uuid4())
            events = await events_of(run.stub.Send(simple("Say x", turn_id=turn_id)))
            for after in range(len(events)):
                assert await events_of(attach(run, turn_id, after)) == events[after:]
            call = attach(run, turn_id, len(events))
            assert await events_of(call) == []
            assert await call.code() is grpc.StatusCode.OK

    asyncio.run(story())


def test_no_headers_leave_before_the_prompt_for_any_stream(directory: Path) -> None:
    """A joined `Send` and an `Attach` of a waiting turn have sent nothing, not even headers."""

    async def story() -> None:
        async with serving(directory, pool={"slots": 1}) as run:
            busy = run.stub.Send(simple(LONG))
            await read_some(busy, 1)
            turn_id = str(uuid.uuid4())
            request = simple("Say no", turn_id=turn_id)
            calls = [run.stub.Send(request)]
            await until(lambda: len(turns(run)) == 2)
            calls += [run.stub.Send(request), attach(run, turn_id)]
            await until(lambda: len(turns(run)[1].turn._followers) == 3)
            await run.client.interrupt(turn_id)
            for call in calls:
                error = await error_of(call)
                assert info(error).reason == "TURN_WITHDRAWN"
                # A status without headers comes as trailers alone.
                assert not await call.initial_metadata()
            busy.cancel()

    asyncio.run(story())


def test_the_last_send_stream_alone_keeps_a_turn_running(directory: Path) -> None:
    """An older `Send` stream may be lost without effect; with the last one the turn is
    interrupted, though an `Attach` follows it, which is told the end."""

    async def story() -> None:
        async with serving(directory) as run:
            turn_id = str(uuid.uuid4())
            request = simple(LONG, turn_id=turn_id, event_options=pb.EventOptions(partial=True))
            older = run.stub.Send(request)
            await read_some(older)
            last, joined = run.stub.Send(request), attach(run, turn_id)
            await read_some(last)
            await read_some(joined)
            older.cancel()
            await read_some(last)
            assert run.service.sessions.running == 1
            last.cancel()
            events = await events_of(joined)
            assert events[-1].turn_finished.outcome == pb.TurnFinished.OUTCOME_INTERRUPTED

    asyncio.run(story())


def test_attach_ends_with_the_status_of_the_turn(directory: Path) -> None:
    """A turn whose process was killed is TURN_LOST for every stream, held or stored."""

    async def story() -> None:
        async with serving(directory, server={"event_hold": "100 ms"}) as run:
            turn_id = str(uuid.uuid4())
            own = run.stub.Send(simple(LONG, turn_id=turn_id))
            (started, *_) = await read_some(own, 1)
            joined = attach(run, turn_id)
            await read_some(joined, 1)
            os.kill(started.turn_started.pid, signal.SIGKILL)
            errors = [await error_of(own), await error_of(joined)]
            assert info(errors[0]) == info(errors[1])
            await until(lambda: not turns(run))
            errors += [await error_of(attach(run, turn_id, 1))]
            for error in errors:
                assert error.code() is grpc.StatusCode.ABORTED
                told = info(error)
                assert (told.reason, told.metadata["cause"]) == ("TURN_LOST", "process-died")
                assert told.metadata["promptWritten"] == "true"

    asyncio.run(story())


def test_the_latest_report_outlives_its_events_and_the_server(directory: Path) -> None:
    """After a restart the latest turn's `turn_finished` can be had, as it was; no earlier
    event can, and nothing of an older turn."""

    async def story() -> None:
        older, latest = str(uuid.uuid4()), str(uuid.uuid4())
        async with serving(directory) as run:
            past = await events_of(run.stub.Send(simple("Say one", turn_id=older)))
            events = await events_of(run.stub.Send(simple("Say two", turn_id=latest)))
        last = events[-1].sequence
        async with serving(directory) as run:
            assert await events_of(attach(run, latest, last - 1)) == events[-1:]
            assert await events_of(attach(run, latest, last)) == []
            expired = await error_of(attach(run, latest, last - 2))
            assert expired.code() is grpc.StatusCode.OUT_OF_RANGE
            assert info(expired).reason == "EVENTS_EXPIRED"
            assert info(expired).metadata["oldestSequence"] == str(last)
            assert info(expired).metadata["lastSequence"] == str(last)
            expired = await error_of(attach(run, older, past[-1].sequence - 1))
            assert info(expired).reason == "EVENTS_EXPIRED"
            assert "oldestSequence" not in info(expired).metadata
            assert run.asked() == []

    asyncio.run(story())


BAD = {
    "no turn": (pb.AttachRequest(), ["turn_id"]),
    "two fields": (
        pb.AttachRequest(session_id="No Name", turn_id="x", after_sequence=-1),
        ["session_id", "turn_id", "after_sequence"],
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_attach_names_every_field(directory: Path, name: str) -> None:
    """What cannot be followed is REQUEST_INVALID, and says all that is wrong."""
    request, fields = BAD[name]

    async def story() -> None:
        async with serving(directory, fake=True) as run:
            error = await error_of(run.stub.Attach(request))
            assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
            trailing: Any = error.trailing_metadata()
            status = status_pb2.Status.FromString(dict(trailing)["grpc-status-details-bin"])
            bad = error_details_pb2.BadRequest()
            (packed,) = (d for d in status.details if d.Is(bad.DESCRIPTOR))
            packed.Unpack(bad)
            assert [violation.field for violation in bad.field_violations] == fields

    asyncio.run(story())


def test_another_tenants_turn_cannot_be_told_from_none(directory: Path) -> None:
    """`Attach` to a turn of another tenant gives the same bytes as to one that nobody has."""

    async def story() -> None:
        binary = await prepare(directory, fake=True)
        acme, blue = [await key_for(directory, tenant) for tenant in ("acme", "blue")]
        auth = {"methods": ["api_key"]}
        theirs, nobodys = str(uuid.uuid4()), str(uuid.uuid4())
        async with serving(directory, binary=binary, auth=auth) as run:

            def metadata(key: str) -> Any:
                return (("authorization", f"Bearer {key}"),)

            request = simple("Say x", turn_id=theirs)
            await raw(run.stub, request, metadata=metadata(acme))
            for _ in range(2):
                told = [
                    await error_of(attach(run, turn_id, metadata=metadata(blue)))
                    for turn_id in (theirs, nobodys)
                ]
                assert told[0].trailing_metadata() == told[1].trailing_metadata()
                assert (told[0].code(), told[0].details()) == (told[1].code(), told[1].details())
                # Once more with a session of that name.
                await raw(run.stub, simple("Say y"), metadata=metadata(blue))
            assert info(told[0]).reason == "TURN_NOT_FOUND"

    asyncio.run(story())


def test_a_repeated_send_of_a_lost_stream_runs_nothing_again(directory: Path) -> None:
    """A stream that broke before its first event is sent again: the prompt is written once."""

    async def story() -> None:
        async with serving(directory) as run:
            turn_id = str(uuid.uuid4())
            request = simple("Say once", turn_id=turn_id, on_disconnect=CONTINUE)
            call = run.stub.Send(request)
            await until(lambda: any(c.turn.last_sequence for c in turns(run)))
            call.cancel()
            events = await events_of(run.stub.Send(request))
            assert events[-1].turn_finished.result == "once"
            assert numbers(events) == [*range(1, len(events) + 1)]
            assert len(run.stand_in.requests) == 1
            assert (await run.client.get_session()).turn_count == 1

    asyncio.run(story())


def test_attach_needs_a_session_that_exists(directory: Path) -> None:
    """Without the session it is SESSION_NOT_FOUND, without the turn TURN_NOT_FOUND."""

    async def story() -> None:
        async with serving(directory, fake=True) as run:
            turn_id = str(uuid.uuid4())
            assert info(await error_of(attach(run, turn_id))).reason == "SESSION_NOT_FOUND"
            await run.client.ask("Say x")
            assert info(await error_of(attach(run, turn_id))).reason == "TURN_NOT_FOUND"
            with pytest.raises(samovar.TurnNotFound):
                await run.client.interrupt(turn_id)

    asyncio.run(story())


def test_whoever_may_read_may_attach_and_no_more(directory: Path) -> None:
    """With the scope `session.read` a turn is followed; it is not sent, stopped or answered."""

    async def story() -> None:
        binary = await prepare(directory, fake=True)
        sender = await key_for(directory, "acme")
        reader = await key_for(directory, "acme", "session.read")
        stranger = await key_for(directory, "acme", "session.send", "session.control")
        turn_id = str(uuid.uuid4())

        def by(key: str) -> Any:
            return {"metadata": (("authorization", f"Bearer {key}"),)}

        async with serving(directory, binary=binary, auth={"methods": ["api_key"]}) as run:
            sent = await events_of(run.stub.Send(simple("Say x", turn_id=turn_id), **by(sender)))
            assert await events_of(attach(run, turn_id, **by(reader))) == sent
            interrupt = pb.InterruptRequest(turn_id=turn_id)
            respond = pb.RespondRequest(permission_id="p", allow=pb.RespondRequest.Allow())
            refused = {
                "session.send": [run.stub.Send(simple("Say y"), **by(reader)).read()],
                "session.control": [
                    run.stub.Interrupt(interrupt, **by(reader)),
                    run.stub.Respond(respond, **by(reader)),
                    run.stub.CloseSession(pb.CloseSessionRequest(session_id="x"), **by(reader)),
                ],
                "session.read": [attach(run, turn_id, **by(stranger)).read()],
            }
            for scope, calls in refused.items():
                for call in calls:
                    with pytest.raises(grpc.aio.AioRpcError) as error:
                        await call
                    assert info(error.value).reason == "SCOPE_MISSING"
                    assert info(error.value).metadata["scope"] == scope
            assert (await run.stub.GetSession(pb.GetSessionRequest(), **by(reader))).session

    asyncio.run(story())
