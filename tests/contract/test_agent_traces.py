"""The agent's own spans, of the real CLI, in the trace of the turn that they are of."""

import asyncio
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from collector import Collector, Span, collecting
from service import Running, raw, serving, simple

from samovar.v1 import session_pb2 as pb
from samovard.standin import drip, script, text, tool

SEND = "samovar.v1.Session/Send"
INTERACTION, REQUEST, TOOL = (
    "claude_code.interaction",
    "claude_code.llm_request",
    "claude_code.tool",
)


@asynccontextmanager
async def traced(
    directory: Path, *, fake: bool = False, **telemetry: Any
) -> AsyncIterator[tuple[Running, Collector]]:
    """Runs a service that exports by gRPC, and whose agents export by HTTP, to one collector."""
    with collecting() as collector:
        given = {"endpoint": collector.grpc_url, "agent_endpoint": collector.http_url}
        async with serving(directory, fake=fake, telemetry=given | telemetry) as run:
            yield run, collector


def carrier(trace_id: str, *, sampled: bool = True) -> tuple[tuple[str, str], ...]:
    return (("traceparent", f"00-{trace_id}-00f067aa0ba902b7-{'01' if sampled else '00'}"),)


async def turn(run: Running, prompt: str, trace_id: str, *, sampled: bool = True) -> Any:
    """Runs a turn in a caller's trace, and gives its `turn_started`."""
    request = simple(prompt, session_id="s", spec=pb.SessionSpec(profile="tools"))
    responses = await raw(run.stub, request, metadata=carrier(trace_id, sampled=sampled))
    return responses[0].events[0].turn_started


def below(collector: Collector, span: Span) -> set[str]:
    """Gives the names of all spans below one, however deep."""
    ids, names = {span.span_id}, set()
    while found := [s for s in collector.spans if s.parent in ids and s.span_id not in ids]:
        ids |= {s.span_id for s in found}
        names |= {s.name for s in found}
    return names


async def arrived(collector: Collector, trace_id: str) -> None:
    """Waits until both the service and the agent have told of a turn."""
    await collector.until(lambda: collector.named(SEND, trace_id))
    await collector.until(lambda: collector.named(INTERACTION, trace_id))


def test_two_callers_of_one_process_have_a_whole_trace_each(directory: Path) -> None:
    """One pid, two trace ids: each has its call, acquisition, agent, model request and tool."""

    async def story() -> None:
        async with traced(directory) as (run, collector):
            one, two = uuid.uuid4().hex, uuid.uuid4().hex
            prompt = script(tool("Bash", {"command": "true"}), text("done"))
            first, second = await turn(run, prompt, one), await turn(run, prompt, two)
            assert (first.pid, first.process_turn) == (second.pid, 1)
            assert second.process_turn == 2
            for trace_id in (one, two):
                await arrived(collector, trace_id)
                send = collector.one(SEND, trace_id)
                agent = collector.one("invoke_agent tools", trace_id)
                assert agent.parent == send.span_id
                assert collector.one(INTERACTION, trace_id).parent == agent.span_id
                assert {INTERACTION, REQUEST, TOOL} <= below(collector, agent)
                stages = [name for name, _ in send.events]
                assert {"process_ready", "first_event", "finish", "deliver"} <= set(stages)
                (request, *_) = collector.named(REQUEST, trace_id)
                assert any("ttft" in name for name in request.attributes), request.attributes
                # Their own are there: ours would tell the same again.
                assert not collector.named("execute_tool Bash")
            start = collector.one("samovar.process.start")
            assert start.trace_id == one
            links = collector.one("invoke_agent tools", two).links
            assert links == [(start.trace_id, start.span_id)]

    asyncio.run(story())


def test_an_unrecorded_turn_is_in_nobodys_trace(directory: Path) -> None:
    """Between two recorded turns one that is not exports nothing, and the model is told so."""

    async def story() -> None:
        async with traced(directory) as (run, collector):
            one, silent, two = (uuid.uuid4().hex for _ in range(3))
            await turn(run, "Say one", one)
            await turn(run, "Say nothing", silent, sampled=False)
            seen = run.stand_in.requests[-1].traceparent
            await turn(run, "Say two", two)
            await arrived(collector, one)
            await arrived(collector, two)
            traces = {span.trace_id for span in collector.spans}
            assert traces == {one, two}
            assert seen.endswith("-00")
            assert len(collector.named(INTERACTION)) == 2

    asyncio.run(story())


def test_an_interrupted_turn_leaves_its_trace_before_the_next(directory: Path) -> None:
    """After an interrupt with proof the process is parked, and the next turn is its own."""

    async def story() -> None:
        async with traced(directory) as (run, collector):
            one, two = uuid.uuid4().hex, uuid.uuid4().hex
            request = simple(
                script(drip(200, 0.05)), session_id="s", spec=pb.SessionSpec(profile="tools")
            )
            call = run.stub.Send(request, metadata=carrier(one))
            pid = (await call.read()).events[0].turn_started.pid
            call.cancel()
            second = await turn(run, "Say two", two)
            assert second.pid == pid
            await arrived(collector, two)
            agent = collector.one("invoke_agent tools", two)
            assert collector.one(INTERACTION, two).parent == agent.span_id

    asyncio.run(story())
