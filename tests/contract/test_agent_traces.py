"""The agent's own spans, of the real CLI, in the trace of the turn that they are of."""

import asyncio
import json
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from fake_claude import fake, write_start
from fake_claude import verbs as v
from support.behind import walls
from support.otlp_collector import Collector, Span, collecting
from support.service import OPEN, Running, prepare, raw, serving, simple, until

from samovar.v1 import session_pb2 as pb
from samovard.agent.isolation.walls import Mechanism
from samovard.core.pool.states import ProcessState
from samovard.standin import drip, script, text, tool

SEND = "samovar.v1.Session/Send"
INTERACTION, REQUEST, TOOL = (
    "claude_code.interaction",
    "claude_code.llm_request",
    "claude_code.tool",
)


@asynccontextmanager
async def traced(
    directory: Path,
    *,
    binary: Path | None = None,
    isolation: dict[str, Any] = OPEN,
    **telemetry: Any,
) -> AsyncIterator[tuple[Running, Collector]]:
    """Runs a service that exports by gRPC, and whose agents export by HTTP, to one collector."""
    with collecting() as collector:
        given = {"endpoint": collector.grpc_url, "agent_endpoint": collector.http_url}
        async with serving(
            directory, binary=binary, telemetry=given | telemetry, isolation=isolation
        ) as run:
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


def test_spans_leave_an_agent_that_has_no_network(directory: Path) -> None:
    """By way of the broker, into the turn's trace."""
    walls(Mechanism.BUBBLEWRAP)

    async def story() -> None:
        isolation = {"mechanism": Mechanism.BUBBLEWRAP.value}
        async with traced(directory, isolation=isolation) as (run, collector):
            assert run.service.overview.server.network == "held"
            trace_id = uuid.uuid4().hex
            await turn(run, "Say OK", trace_id)
            await arrived(collector, trace_id)
            agent = collector.one("invoke_agent tools", trace_id)
            assert collector.one(INTERACTION, trace_id).parent == agent.span_id

    asyncio.run(story())


def test_two_callers_of_one_process_have_a_whole_trace_each(directory: Path) -> None:
    """One pid, two trace ids: each has its call, acquisition, agent, model request and tool.

    The agent's resource is its process, its session the conversation of the service's span.
    """

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
                interaction = collector.one(INTERACTION, trace_id)
                assert interaction.parent == agent.span_id
                assert interaction.resource["service.instance.id"] == first.process_id
                assert interaction.resource["samovar.tenant.id"] == "local"
                conversation = agent.attributes["gen_ai.conversation.id"]
                assert interaction.attributes["session.id"] == conversation
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


async def tools_of_ours(collector: Collector, trace_id: str, count: int = 1) -> list[Span]:
    """Return the spans of tools that the service made of a turn, once there are so many.

    With none to wait for, once the turn's trace is there.
    """
    name = "execute_tool Bash" if count else SEND
    await collector.until(partial(collector.named, name, trace_id))
    return collector.named("execute_tool Bash", trace_id)


def test_tools_of_a_cli_that_refuses_contexts_have_spans_of_ours(directory: Path) -> None:
    """From the turn on whose context is refused, which keeps its process, and never before."""
    prompt = fake(v.tool(), v.text("done"))

    async def story() -> None:
        binary = await prepare(directory, fake=True)
        write_start(directory, v.no_settings())
        async with traced(directory, binary=binary) as (run, collector):
            silent, refused, later = (uuid.uuid4().hex for _ in range(3))
            first = await turn(run, prompt, silent, sampled=False)
            second = await turn(run, prompt, refused)
            third = await turn(run, prompt, later)
            assert first.pid == second.pid == third.pid
            assert len(await tools_of_ours(collector, refused)) == 1
            assert len(await tools_of_ours(collector, later)) == 1
            assert not collector.named("execute_tool Bash", silent)  # which came before

    asyncio.run(story())


def test_a_refusal_that_is_read_with_the_report_is_a_refusal(directory: Path) -> None:
    """A service that is busy reads both at once."""
    done = directory / "done"
    prompt = fake(v.tool(), v.text("done"), v.touch(done))

    async def story() -> None:
        binary = await prepare(directory, fake=True)
        write_start(directory, v.no_settings())
        async with traced(directory, binary=binary) as (run, collector):
            await turn(run, prompt, uuid.uuid4().hex, sampled=False)
            done.unlink()
            (process,) = run.service.pool
            await until(lambda: process.state is ProcessState.IDLE)  # else its end would be missed
            pipes: Any = process.handle
            pipes._child.pipes.pause()
            waits = asyncio.ensure_future(turn(run, prompt, refused := uuid.uuid4().hex))
            await until(done.exists)
            pipes._child.pipes.resume()
            await waits
            assert len(await tools_of_ours(collector, refused)) == 1

    asyncio.run(story())


def test_a_cli_that_cannot_be_parked_is_started_without_spans(directory: Path) -> None:
    """One process is given up for it: that had its first turn's context from its start."""
    prompt = fake(v.tool(), v.text("done"))

    async def story() -> None:
        binary = await prepare(directory, fake=True)
        write_start(directory, v.no_settings())
        async with traced(directory, binary=binary) as (run, collector):
            first, second, third = (uuid.uuid4().hex for _ in range(3))
            cold = await turn(run, prompt, first)
            resumed = await turn(run, prompt, second)
            warm = await turn(run, prompt, third)
            assert cold.pid != resumed.pid == warm.pid
            counts = {first: 0, second: 1, third: 1}
            for trace, count in counts.items():
                assert len(await tools_of_ours(collector, trace, count)) == count

    asyncio.run(story())


@pytest.mark.parametrize("contexts", ["taken", "refused"])
def test_the_self_test_says_who_makes_the_spans(directory: Path, contexts: str) -> None:
    """What was found once is known from the first turn on: never twice, never not at all."""
    prompt = fake(v.tool(), v.text("done"))

    async def story() -> None:
        binary = await prepare(directory, fake=True)
        notes = directory / "self-test.json"
        passed = json.loads(notes.read_text())
        notes.write_text(json.dumps(passed | {f"{key} traces": contexts for key in passed}))
        async with traced(directory, binary=binary) as (run, collector):
            await turn(run, prompt, trace_id := uuid.uuid4().hex)
            count = int(contexts == "refused")
            assert len(await tools_of_ours(collector, trace_id, count)) == count

    asyncio.run(story())


def test_the_real_cli_takes_contexts(directory: Path) -> None:
    """The self-test at the start has tried it, and noted what it found."""
    asyncio.run(prepare(directory))
    notes = json.loads((directory / "self-test.json").read_text())
    assert [found for key, found in notes.items() if key.endswith(" traces")] == ["taken"]


def test_an_interrupted_turn_leaves_its_trace_before_the_next(directory: Path) -> None:
    """After an interrupt with proof the process is parked, and the next turn is its own."""

    async def story() -> None:
        async with traced(directory) as (run, collector):
            one, two = uuid.uuid4().hex, uuid.uuid4().hex
            spec, partial = pb.SessionSpec(profile="tools"), pb.EventOptions(partial=True)
            prompt = script(drip(200, 0.05))
            request = simple(prompt, session_id="s", spec=spec, event_options=partial)
            call = run.stub.Send(request, metadata=carrier(one))
            pid = (await call.read()).events[0].turn_started.pid
            # What was answered is not asked again: a message cut before goes with the next.
            while not (await call.read()).events[-1].HasField("text_delta"):
                pass
            call.cancel()
            second = await turn(run, "Say two", two)
            assert second.pid == pid
            await arrived(collector, two)
            agent = collector.one("invoke_agent tools", two)
            assert collector.one(INTERACTION, two).parent == agent.span_id

    asyncio.run(story())
