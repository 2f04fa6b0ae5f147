"""The audit log: each call has one decision, each turn that was allowed an end."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from fake_claude import fake
from fake_claude import verbs as v
from google.protobuf import message_factory
from grpc_health.v1 import health_pb2
from structlog.testing import capture_logs
from support.audit_log import Log
from support.operator_client import reason
from support.service import Running, key_for, raw, serving, simple, until
from support.timeouts import BOUND

import samovar
from samovar.v1 import pool_pb2, session_pb2
from samovard.audit import log as audit_log
from samovard.audit import trail
from samovard.auditing import user
from samovard.reloading import Reload, SettingsFile
from samovard.store import key_file

TURN = "7a4d3d6e-0f6b-4d0c-8a54-0f2c3f1f0a11"
OTHER_TURN = "7a4d3d6e-0f6b-4d0c-8a54-0f2c3f1f0a12"
SERVICES = (
    session_pb2.DESCRIPTOR.services_by_name["Session"],
    pool_pb2.DESCRIPTOR.services_by_name["Pool"],
)
CHECK = health_pb2.DESCRIPTOR.services_by_name["Health"].methods_by_name["Check"]
METHODS = [method for service in SERVICES for method in service.methods]


@pytest.fixture
def log(directory: Path) -> Log:
    return Log(directory)


@asynccontextmanager
async def keyed(directory: Path, log: Log) -> AsyncIterator[tuple[Running, Any]]:
    """Run a service with keys. Yield it, and what calls any method with its default message."""
    auth = {"methods": ["api_key"], **log.auth}
    async with serving(directory, fake=True, auth=auth) as run:
        operator = f"unix:{directory / 'operator.sock'}"
        async with (
            grpc.aio.insecure_channel(run.address) as callers,
            grpc.aio.insecure_channel(operator) as operators,
        ):

            async def call(method: Any, key: str, **fields: Any) -> str:
                channel = operators if method.containing_service.name == "Pool" else callers
                return await answered(channel, method, key, **fields)

            yield run, call


async def answered(channel: Any, method: Any, key: str, **fields: Any) -> str:
    """Return the reason that a call is answered with, empty if it is not refused."""
    name = f"/{method.containing_service.full_name}/{method.name}"
    message = message_factory.GetMessageClass(method.input_type)
    response = message_factory.GetMessageClass(method.output_type)
    kind = channel.unary_stream if method.server_streaming else channel.unary_unary
    call = kind(name, message.SerializeToString, response.FromString)
    metadata = (("authorization", f"Bearer {key}"),) if key else ()
    try:
        made = call(message(**fields), metadata=metadata, timeout=BOUND)
        if method.server_streaming:
            await made.read()
            made.cancel()
        else:
            await made
    except grpc.aio.AioRpcError as error:
        return reason(error)[0]
    return ""


def scope(method: Any) -> str:
    return "" if method.containing_service.name == "Session" else "admin"


async def keys_for(directory: Path, *scopes: str) -> dict[str, str]:
    """Make a key of a tenant for each scope, and for an empty one a caller's."""
    return {name: await key_for(directory, "acme", *filter(None, [name])) for name in scopes}


def test_every_method_has_a_line_for_each_call(directory: Path, log: Log) -> None:
    """Of every service: one decision for a call that is allowed or refused, and without a scope."""

    async def story() -> None:
        async with keyed(directory, log) as (_, call):
            keys = await keys_for(directory, "", "admin", "other")
            for method in METHODS:
                before = len(log.decisions())
                answer = await call(method, keys[scope(method)])
                assert await call(method, keys["other"]) == "SCOPE_MISSING"
                found = log.decisions()[before:]
                assert found[1:] == [(method.name, "deny", "SCOPE_MISSING")]
                assert found[0] in (
                    (method.name, "allow", ""),
                    (method.name, "deny", answer),
                )
                assert answer or found[0][1] == "allow"

    asyncio.run(story())


def test_a_turn_has_a_decision_before_it_and_an_end_behind_it(directory: Path, log: Log) -> None:
    """Whose it is, how it was known, which turn it was, how it ended and what it cost."""

    async def story() -> None:
        auth = {"methods": ["api_key"], **log.auth}
        async with serving(directory, fake=True, auth=auth) as run:
            key = await key_for(directory, "acme")
            async with samovar.AsyncClient(run.address, api_key=key, deadline=BOUND) as client:
                gate = directory / "gate"
                async with client.send(fake(v.gate(gate), v.text("x")), turn_id=TURN) as turn:
                    await anext(turn)
                    (decision,) = log.lines("decision")
                    assert not log.lines("end")
                    gate.touch()
                    *_, report = [event async for event in turn]
                    (end,) = log.lines("end")
            assert key.split("_")[1] == decision["credential"]
        same = {"method": "samovar.v1.Session/Send", "tenant": "acme", "session": "default"}
        for line in (decision, end):
            assert same.items() <= line.items()
            assert (line["turn"], line["call"]) == (TURN, decision["call"])
        known = {"identity": "api_key", "subject": "acme", "peer": "ipv4", "decision": "allow"}
        assert known.items() <= decision.items()
        assert isinstance(report, samovar.TurnFinished)
        assert (end["outcome"], end["cost_usd"]) == ("completed", report.usage.cost_usd)
        assert (end["reason"], end["prompt_written"], end["estimated"]) == ("", True, False)
        assert end["output_tokens"] == report.usage.output_tokens > 0

    asyncio.run(story())


def test_what_becomes_of_calls_is_told(directory: Path, log: Log) -> None:
    """What was refused, what failed when it was allowed, and who left, in the order of calls."""

    async def story() -> None:
        async with serving(directory, fake=True, auth=log.auth) as run:
            client = run.client
            await client.ask("Say one", session="s", turn_id=TURN)
            await client.ask("Say one", session="s", turn_id=TURN)  # joins it
            with pytest.raises(samovar.IdTaken):
                await client.ask("Say two", session="s", turn_id=TURN)
            with pytest.raises(samovar.SessionNotFound):
                await client.get_session("none")
            with pytest.raises(samovar.TurnNotFound):
                await client.interrupt(OTHER_TURN, session="s")
            with pytest.raises(samovar.RequestInvalid):
                await client.get_session("../s")
            async with client.send(fake(v.hang()), session="left") as turn:
                await anext(turn)
            await until(lambda: len(log.lines("end")) == 3)
            with pytest.raises(samovar.TurnLost):
                await client.ask(fake(v.die("mid_text")), session="died")

    asyncio.run(story())
    assert log.decisions() == [
        ("Send", "allow", ""),
        ("Send", "allow", ""),
        ("Send", "deny", "ID_TAKEN"),
        ("GetSession", "deny", "SESSION_NOT_FOUND"),
        ("Interrupt", "allow", ""),
        ("GetSession", "deny", "REQUEST_INVALID"),
        ("Send", "allow", ""),
        ("Send", "allow", ""),
    ]
    assert [(end["outcome"], end["reason"], end["cause"]) for end in log.lines("end")] == [
        ("completed", "", ""),
        ("", "TURN_NOT_FOUND", ""),
        ("interrupted", "", ""),
        ("lost", "TURN_LOST", "process-died"),
    ]


def test_a_caller_that_leaves_the_queue_is_told(directory: Path, log: Log) -> None:
    """Nothing was done for it."""

    async def story() -> None:
        async with serving(directory, fake=True, auth=log.auth, pool={"slots": 1}) as run:
            async with run.client.send(fake(v.hang()), session="busy") as busy:
                await anext(busy)
                waits = run.stub.Send(simple("Say x", session_id="waits", spec={}))
                await until(lambda: run.service.pool.waiters)
                waits.cancel()
                await until(lambda: len(log.decisions()) == 2)
        assert log.decisions()[1] == ("Send", "deny", "CANCELLED")
        assert len(log.lines("end")) == 1

    asyncio.run(story())


def test_no_line_holds_content_or_a_secret(directory: Path, log: Log) -> None:
    """Nothing that a caller sends, an agent answers or a credential is made of."""
    canary = "canary-7f3a9"

    async def story() -> None:
        async with keyed(directory, log) as (run, call):
            (directory / "key").write_text(f"sk-{canary}")
            key = await key_for(directory, "acme")
            spec = {"append_system_prompt": canary, "labels": {"label": canary}}
            metadata = (("authorization", f"Bearer {key}"), ("x-note", canary))
            script = fake(v.text(canary), v.permission("Write", {"text": canary}))
            await raw(run.stub, simple(script, session_id="s", spec=spec), metadata=metadata)
            with pytest.raises(grpc.aio.AioRpcError):
                await raw(run.stub, simple("x", session_id=canary.upper()), metadata=metadata)
            get = SERVICES[0].methods_by_name["GetSession"]
            for wrong in (canary, f"{key[:-5]}wrong", f"samovar_{canary}"):
                assert await call(get, wrong) == "CREDENTIAL_INVALID"
            secrets.append(key.rpartition("_")[2].lower())

    secrets: list[str] = []
    asyncio.run(story())
    text = log.path.read_text().lower()
    assert "end" in {line["event"] for line in log.lines()}
    assert canary not in text
    assert secrets[0] not in text


def test_callers_that_are_not_known_share_a_line(
    directory: Path, log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many they are, of whatever method, also of one that does not exist."""
    monkeypatch.setattr(trail, "SUMMED_EVERY", 3600.0)

    async def story() -> None:
        async with keyed(directory, log) as (run, call):
            for method in 3 * METHODS:
                assert await call(method, "") == "CREDENTIAL_INVALID"
            async with grpc.aio.insecure_channel(run.address) as channel:
                nothing = channel.unary_unary("/samovar.v1.Session/Canary", None, None)
                with pytest.raises(grpc.aio.AioRpcError):
                    await nothing(b"")
            assert [line["count"] for line in log.lines("refused")] == [1]

    asyncio.run(story())
    first, rest = log.lines("refused")
    assert first["methods"] == {"samovar.v1.Session/Send": 1}
    assert rest["count"] == 3 * len(METHODS)
    assert rest["reasons"] == {"CREDENTIAL_INVALID": 3 * len(METHODS)}
    assert rest["methods"]["_OTHER"] == 1
    assert not log.decisions()


def test_a_method_that_does_not_exist_is_refused_in_a_line(directory: Path, log: Log) -> None:
    """Its name is the caller's, and is not repeated."""

    async def story() -> None:
        async with keyed(directory, log) as (run, _):
            key = await key_for(directory, "acme")
            async with grpc.aio.insecure_channel(run.address) as channel:
                nothing = channel.unary_unary("/samovar.v1.Session/Canary", None, None)
                with pytest.raises(grpc.aio.AioRpcError) as error:
                    await nothing(b"", metadata=(("authorization", f"Bearer {key}"),))
                assert error.value.code() is grpc.StatusCode.UNIMPLEMENTED

    asyncio.run(story())
    assert log.decisions() == [("_OTHER", "deny", "UNIMPLEMENTED")]
    assert "Canary" not in log.path.read_text()


def test_while_no_line_can_be_written_every_call_is_refused(
    directory: Path, log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also what only reads; health says so, and all of it goes on by itself."""
    monkeypatch.setattr(audit_log, "RETRY_EVERY", 0.05)

    async def story() -> None:
        async with keyed(directory, log) as (run, call):
            health = run.service.maintenance.health
            keys = await keys_for(directory, "", "admin")
            await until(lambda: health.serves)
            log.breaks()
            for method in METHODS:
                assert await call(method, keys[scope(method)]) == "NO_PROCESS", method.name
            await until(lambda: not health.serves)
            assert await call(CHECK, keys[""]) == ""
            assert "audit-down" in run.service.maintenance.readiness.obstacles()
            log.mends()
            await until(lambda: health.serves)
            assert await call(METHODS[0], keys[""]) == "REQUEST_INVALID"

    with capture_logs() as told:
        asyncio.run(story())
    assert [line["event"] for line in told].count("audit.down") == 1
    (resumed,) = log.lines("resumed")
    assert resumed["refused"] == len(METHODS)
    assert log.decisions() == [("Send", "deny", "REQUEST_INVALID")]


def test_a_turn_that_runs_ends_while_no_line_can_be_written(
    directory: Path, log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its caller is told as ever; its end is written before anything else once that is possible."""
    monkeypatch.setattr(audit_log, "RETRY_EVERY", 0.05)

    async def story() -> None:
        async with serving(directory, fake=True, auth=log.auth) as run:
            gate = directory / "gate"
            async with run.client.send(fake(v.gate(gate), v.text("x")), turn_id=TURN) as turn:
                await anext(turn)
                log.breaks()
                for _ in range(2):  # the first finds out
                    assert await refused(run, "new") == ("NO_PROCESS", {"cause": "audit-down"})
                gate.touch()
                *_, last = [event async for event in turn]
                assert isinstance(last, samovar.TurnFinished)
            assert await missing(run, "new") == "NO_PROCESS"
            log.mends()
            # The client repeats what was refused.
            assert (await run.client.ask("Say yes", session="new")).text == "yes"

    asyncio.run(story())
    found = [(line["event"], line.get("turn")) for line in log.lines()]
    assert found[:4] == [("started", None), ("decision", TURN), ("end", TURN), ("resumed", None)]
    assert log.decisions() == [("Send", "allow", ""), ("Send", "allow", "")]


async def refused(run: Running, session: str) -> tuple[str, dict[str, str]]:
    """Return what a turn that would make a session is answered with."""
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await raw(run.stub, simple("Say no", session_id=session, spec={}))
    return reason(error.value)


async def missing(run: Running, session: str) -> str:
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await run.stub.GetSession(session_pb2.GetSessionRequest(session_id=session))
    return reason(error.value)[0]


def test_a_thousand_calls_at_once_have_a_line_each(directory: Path, log: Log) -> None:
    """Allowed or beyond the tenant's bound, none is missing and none is there twice."""

    async def story() -> None:
        async with serving(directory, fake=True, auth=log.auth) as run:
            await run.client.ask("Say one", session="s")
            request = session_pb2.GetSessionRequest(session_id="s")

            async def get() -> str:
                while True:
                    try:
                        await run.stub.GetSession(request)
                    except grpc.aio.AioRpcError as error:
                        if (answer := reason(error)[0]) != "UNAVAILABLE":
                            return answer
                        continue  # gRPC refused the stream before the service saw it
                    return ""

            answers = await asyncio.gather(*(get() for _ in range(1000)))
            found = [answer for name, _, answer in log.decisions() if name == "GetSession"]
            assert sorted(found) == sorted(answers)
            assert len({line["call"] for line in log.lines("decision")}) == 1001

    asyncio.run(story())


def test_keys_that_a_reload_takes_are_told(directory: Path, log: Log) -> None:
    """Before they are; where that cannot be written nothing is taken."""

    async def story() -> None:
        async with serving(directory, fake=True, auth=log.auth) as run:
            work, file = run.service.maintenance, directory / "keys"
            file.write_text(key_file.text([]))
            none = SettingsFile(None, None, run.service.settings, run.service.tenants)
            parts = none, file, work.database, None, None, work.recorder, work.trail
            reload = Reload(*parts)
            await reload.run()
            log.breaks()
            await reload.run()
            log.mends()

    with capture_logs() as told:
        asyncio.run(story())
    read = [line["read"] for line in told if line["event"] == "reload.finished"]
    assert read == [["keys"], []]
    (act,) = log.lines("act")
    assert (act["act"], act["count"], act["user"]) == ("keys.take", 0, user())


def test_off_writes_nothing(directory: Path) -> None:
    """And refuses nothing."""

    async def story() -> None:
        async with serving(directory, fake=True, auth={"audit_sink": "off"}) as run:
            assert (await run.client.ask("Say one")).text == "one"

    asyncio.run(story())
    assert not (directory / "audit.jsonl").exists()
