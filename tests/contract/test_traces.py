"""Traces of turns, on the real CLI and against a real collector."""

import asyncio
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from support.otlp_collector import Collector, Span, collecting
from support.service import Running, raw, serving, simple, until

import samovar
from samovar.v1 import session_pb2 as pb
from samovard.standin import delay, drip, script, text, tool

SEND = "samovar.v1.Session/Send"
CALLER = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


def carrier(trace_id: str = CALLER[0], *, sampled: bool = True) -> tuple[tuple[str, str], ...]:
    return (("traceparent", f"00-{trace_id}-{CALLER[1]}-{'01' if sampled else '00'}"),)


@asynccontextmanager
async def traced(
    directory: Path, *, fake: bool = False, **sections: Any
) -> AsyncIterator[tuple[Running, Collector]]:
    """Runs a service that exports to a collector."""
    with collecting() as collector:
        telemetry = {"endpoint": collector.grpc_url} | sections.pop("telemetry", {})
        async with serving(directory, fake=fake, telemetry=telemetry, **sections) as run:
            yield run, collector


def events(responses: list[Any]) -> list[Any]:
    return [event for response in responses for event in response.events]


def test_a_cold_turn_is_a_tree_below_its_caller(directory: Path) -> None:
    """The call's span has the caller's as its parent, the start and the agent are below it,
    and what is known of each is on it."""

    async def story() -> None:
        async with traced(directory) as (run, collector):
            request = simple("Say hello", session_id="s", spec=pb.SessionSpec())
            told = events(await raw(run.stub, request, metadata=carrier()))
            await collector.until(lambda: collector.named(SEND))
            send, start = collector.one(SEND), collector.one("samovar.process.start")
            agent = collector.one("invoke_agent default")
            assert (send.trace_id, send.parent) == CALLER
            assert {start.trace_id, agent.trace_id} == {CALLER[0]}
            assert (start.parent, agent.parent) == (send.span_id, send.span_id)
            assert (send.kind, start.kind, agent.kind) == ("SERVER", "INTERNAL", "CLIENT")
            assert {send.status, start.status, agent.status} == {"UNSET"}
            assert send.resource["service.name"] == "samovard"
            _check_send(run, send, told)
            _check_agent(agent, start, told)

    asyncio.run(story())


def _check_send(run: Running, send: Span, told: list[Any]) -> None:
    host, _, port = run.address.rpartition(":")
    begun = told[0].turn_started
    parts = {name for name in send.attributes if name.startswith("samovar.part.")}
    expected = {
        "rpc.system.name": "grpc",
        "rpc.method": SEND,
        "server.address": host,
        "server.port": int(port),
        "rpc.status_code": "OK",
        "samovar.tenant.id": "local",
        "samovar.session.id": "s",
        "samovar.turn.id": begun.turn_id,
        "samovar.start_mode": "cold",
        "samovar.prompt_written": True,
        "samovar.rpc_attempt": 0,
        "samovar.events": len(told),
    }
    assert expected.items() <= send.attributes.items()
    assert not {"user_agent.original", "network.peer.address"} & set(send.attributes)
    assert parts >= {"samovar.part.start", "samovar.part.record", "samovar.part.commit"}
    assert send.attributes["samovar.responses"] >= 1
    assert send.attributes["samovar.bytes"] > len("hello")
    assert 0 < send.attributes["samovar.write_blocked"] < send.duration / 1e9


def _check_agent(agent: Span, start: Span, told: list[Any]) -> None:
    begun, finished = told[0].turn_started, told[-1].turn_finished
    assert str(uuid.UUID(agent.attributes.pop("gen_ai.conversation.id")))
    assert agent.attributes == {
        "gen_ai.operation.name": "invoke_agent",
        "gen_ai.provider.name": "anthropic",
        "gen_ai.agent.name": "default",
        "gen_ai.agent.version": "2.1.330",
        "samovar.session.id": "s",
        "gen_ai.request.model": "haiku",
        "gen_ai.usage.input_tokens": finished.usage.input_tokens,
        "gen_ai.usage.output_tokens": finished.usage.output_tokens,
        "gen_ai.response.model": next(iter(finished.usage_by_model)),
        "gen_ai.response.finish_reasons": ["end_turn"],
        "samovar.outcome": "completed",
        "samovar.steps": 1,
        "samovar.cost_usd": finished.usage.cost_usd,
        "samovar.process.id": begun.process_id,
    }
    # How long the CLI's answer took depends on the machine.
    assert isinstance(start.attributes.pop("samovar.start.waited"), bool)
    assert start.attributes == {
        "samovar.start.reason": "turn",
        "samovar.profile": "default",
        "samovar.resumed": False,
        "samovar.isolation": "none",
        "process.executable.name": "claude",
        "process.pid": begun.pid,
        "samovar.process.id": begun.process_id,
    }
    assert start.end <= agent.begin


def test_stages_are_events_and_the_same_in_the_timings(directory: Path) -> None:
    """Every stage that the caller is told is an event of the span, at the same nanosecond."""

    async def story() -> None:
        async with traced(directory) as (run, collector):
            told = events(await raw(run.stub, simple("Say hello")))
            await collector.until(lambda: collector.named(SEND))
            send = collector.one(SEND)
            timings = told[-1].turn_finished.timings
            stamps = {
                field.name.removesuffix("_time"): value.ToNanoseconds()
                for field, value in timings.ListFields()
                if field.name.endswith("_time")
            }
            assert list(stamps) == [name for name, _ in send.events][:-1]
            assert stamps.items() <= dict(send.events).items()
            assert send.events[0] == ("receive", send.begin)
            assert send.events[-1] == ("deliver", send.end)

    asyncio.run(story())


def test_a_warm_turn_links_to_the_start_of_its_process(directory: Path) -> None:
    """Lifetimes are linked, never nested: the second turn has no start of its own."""

    async def story() -> None:
        async with traced(directory) as (run, collector):
            await raw(run.stub, simple("Say one"))
            await raw(run.stub, simple("Say two"))
            await collector.until(lambda: len(collector.named(SEND)) == 2)
            start = collector.one("samovar.process.start")
            first, second = collector.named("invoke_agent default")
            assert first.links == []
            assert second.links == [(start.trace_id, start.span_id)]
            assert second.trace_id != start.trace_id

    asyncio.run(story())


def test_a_resumed_turn_links_to_the_turn_before(directory: Path) -> None:
    """A turn on a process started with the transcript links to the session's last one."""

    async def story() -> None:
        async with traced(directory, pool={"slots": 1}) as (run, collector):
            await raw(run.stub, simple("Say one"))
            await raw(run.stub, simple("Say other", session_id="o", spec=pb.SessionSpec()))
            await raw(run.stub, simple("Say two"))
            await collector.until(lambda: len(collector.named(SEND)) == 3)
            first, _, third = collector.named("invoke_agent default")
            assert third.links == [(first.trace_id, first.span_id)]
            resumed = collector.named("samovar.process.start")[-1]
            assert resumed.attributes["samovar.resumed"] is True

    asyncio.run(story())


def test_a_joined_call_links_to_the_turn_and_makes_none(directory: Path) -> None:
    """A second `Send` of a turn, and an `Attach`, have spans of their own and one link."""

    async def story() -> None:
        async with traced(directory) as (run, collector):
            request = simple("Say hello", turn_id=str(uuid.uuid4()))
            told = await raw(run.stub, request)
            again = await raw(run.stub, request)
            assert events(again) == events(told)
            attach = pb.AttachRequest(turn_id=request.turn_id)
            assert [r async for r in run.stub.Attach(attach)]
            await collector.until(lambda: collector.named("samovar.v1.Session/Attach"))
            agent = collector.one("invoke_agent default")
            link = [(agent.trace_id, agent.span_id)]
            assert [span.links for span in collector.named(SEND)] == [[], link]
            assert collector.one("samovar.v1.Session/Attach").links == link

    asyncio.run(story())


def test_a_turn_that_waits_has_a_span_of_its_wait(directory: Path) -> None:
    """Behind another turn of its session a turn waits for that, and is told why."""

    async def story() -> None:
        async with traced(directory) as (run, collector):
            long = asyncio.create_task(raw(run.stub, simple(script([delay(0.3), text("a")]))))
            await until(lambda: run.stand_in.requests)
            await raw(run.stub, simple("Say b"), metadata=carrier())
            await long
            await collector.until(lambda: len(collector.named(SEND)) == 2)
            wait, send = collector.one("samovar.wait"), collector.named(SEND)[-1]
            assert (wait.trace_id, wait.parent) == (CALLER[0], send.span_id)
            assert wait.attributes == {
                "samovar.wait.reason": "session_busy",
                "samovar.wait.result": "granted",
                "samovar.queue.depth": 1,
            }
            assert wait.duration == round(send.attributes["samovar.part.wait"] * 1e9)

    asyncio.run(story())


def test_a_tool_has_a_span_while_the_agent_makes_none(directory: Path) -> None:
    """Each call of a tool is below the agent's span, from its call to its result."""

    async def story() -> None:
        async with traced(directory) as (run, collector):
            prompt = script(
                tool("Bash", {"command": "echo secret-input"}),
                tool("Bash", {"command": "exit 3"}),
                text("done"),
            )
            request = simple(prompt, session_id="t", spec=pb.SessionSpec(profile="tools"))
            told = events(await raw(run.stub, request))
            await collector.until(lambda: collector.named(SEND))
            well, failed = collector.named("execute_tool Bash")
            agent = collector.one("invoke_agent tools")
            assert (well.parent, failed.parent) == (agent.span_id, agent.span_id)
            assert (well.status, failed.status) == ("UNSET", "ERROR")
            assert failed.attributes["error.type"] == "tool_error"
            ids = [e.tool_use.tool_use_id for e in told if e.HasField("tool_use")]
            assert [s.attributes["gen_ai.tool.call.id"] for s in (well, failed)] == ids
            assert b"secret-input" not in b"".join(collector.bodies)

    asyncio.run(story())


def test_an_interrupted_turn_is_no_error_but_its_open_tool_is(directory: Path) -> None:
    """An interrupt leaves the agent's span unset; a tool that was cut is `interrupted`."""

    async def story() -> None:
        async with traced(directory) as (run, collector):
            prompt = script(tool("Bash", {"command": "sleep 60"}), text("never"))
            turn_id = str(uuid.uuid4())
            sent = run.client.send(prompt, session="t", profile="tools", turn_id=turn_id)
            async with sent as turn:
                async for event in turn:
                    if isinstance(event, samovar.ToolUse):
                        await run.client.interrupt(turn_id, "t")
            await collector.until(lambda: collector.named(SEND))
            agent, used = collector.one("invoke_agent tools"), collector.one("execute_tool Bash")
            assert (agent.status, agent.attributes["samovar.outcome"]) == ("UNSET", "interrupted")
            # The CLI may tell the result of what it cut, as an error.
            assert used.attributes["error.type"] in ("interrupted", "tool_error")

    asyncio.run(story())


def test_an_unsampled_caller_gets_no_spans(directory: Path) -> None:
    """Whoever says that the trace is not recorded is obeyed; the next is not affected."""

    async def story() -> None:
        async with traced(directory) as (run, collector):
            await raw(run.stub, simple("Say one"), metadata=carrier(sampled=False))
            await raw(run.stub, simple("Say two"))
            await collector.until(lambda: collector.named(SEND))
            assert CALLER[0] not in {span.trace_id for span in collector.spans}
            assert len(collector.named("invoke_agent default")) == 1
            # Its process was started for the first, whose trace nobody keeps.
            assert collector.one("invoke_agent default").links == []

    asyncio.run(story())


@pytest.mark.parametrize("value", ["", "00-x-y-01", "ff-" + "0" * 32, "00-" + "0" * 32 + "-1-01"])
def test_a_malformed_traceparent_is_ignored(directory: Path, value: str) -> None:
    """Such a call is the root of a trace of its own."""

    async def story() -> None:
        async with traced(directory, fake=True) as (run, collector):
            await raw(run.stub, simple("Say hello"), metadata=(("traceparent", value),))
            await collector.until(lambda: collector.named(SEND))
            assert collector.one(SEND).parent == ""

    asyncio.run(story())


def test_others_state_in_the_trace_is_kept(directory: Path) -> None:
    """`tracestate` goes on to every span, and to nobody else; baggage is not read."""

    async def story() -> None:
        async with traced(directory) as (run, collector):
            extra = (("tracestate", "vendor=1"), ("baggage", "user=canary"))
            await raw(run.stub, simple("Say hello"), metadata=(*carrier(), *extra))
            await collector.until(lambda: collector.named(SEND))
            assert {span.state for span in collector.spans} == {"vendor=1"}
            assert b"canary" not in b"".join(collector.bodies)

    asyncio.run(story())


def test_fifty_turns_at_once_do_not_mix(directory: Path) -> None:
    """Each of 50 concurrent turns has its own spans in its own caller's trace."""

    async def story() -> None:
        async with traced(directory, fake=True, pool={"slots": 50}) as (run, collector):
            traces = [uuid.uuid4().hex for _ in range(50)]

            async def one(trace_id: str) -> str:
                request = simple("Say hi", session_id=trace_id, spec=pb.SessionSpec())
                told = events(await raw(run.stub, request, metadata=carrier(trace_id)))
                return str(told[0].turn_started.process_id)

            processes = await asyncio.gather(*(one(trace_id) for trace_id in traces))
            await collector.until(lambda: len(collector.named(SEND)) == 50)
            for trace_id, process_id in zip(traces, processes, strict=True):
                send = collector.one(SEND, trace_id)
                agent = collector.one("invoke_agent default", trace_id)
                start = collector.one("samovar.process.start", trace_id)
                assert send.attributes["samovar.session.id"] == trace_id
                assert {agent.parent, start.parent} == {send.span_id}
                for span in (agent, start):
                    assert span.attributes["samovar.process.id"] == process_id

    asyncio.run(story())


def test_spans_of_a_turn_that_was_cut_by_its_caller(directory: Path) -> None:
    """A caller who leaves ends the call's span as CANCELLED; the agent's ends with the turn."""

    async def story() -> None:
        async with traced(directory) as (run, collector):
            call = run.stub.Send(simple(script(drip(200, 0.02))))
            await call.read()
            call.cancel()
            with pytest.raises((asyncio.CancelledError, grpc.aio.AioRpcError)):
                await call.read()
            await collector.until(lambda: collector.named("invoke_agent default"))
            send, agent = collector.one(SEND), collector.one("invoke_agent default")
            assert send.attributes["rpc.status_code"] == "CANCELLED"
            assert (send.status, agent.status) == ("UNSET", "UNSET")
            assert agent.attributes["samovar.outcome"] == "interrupted"
            assert agent.parent == send.span_id
            assert agent.end >= send.end

    asyncio.run(story())
