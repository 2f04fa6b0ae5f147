"""How the service goes away: in which order, within which time, and what it leaves."""

import asyncio
import itertools
import json
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from fake_claude import fake, install, write_start
from fake_claude import verbs as v
from grpc_health.v1 import health_pb2, health_pb2_grpc
from hypothesis import given
from hypothesis import strategies as st
from support.otlp_collector import collecting
from support.program import (
    Program,
    config_of,
    environ,
    processes_of,
    read_until,
    sending,
    serve,
    served,
)
from support.service import prepare
from support.timeouts import BOUND
from support.world import Stage, passes, world
from support.world import run as told

import samovar
from samovard.agent import binary
from samovard.edge.health import SESSION
from samovard.shutdown import Times
from samovard.standin import StandIn, drip, script

#: What fits into the ten seconds that Cloud Run gives, turns having less than they might.
BUDGET: dict[str, Any] = {"drain_wait": "500 ms", "drain_grace": "1 s", "stop_budget": "4 s"}
#: What a state directory keeps from one start to the next; SQLite removes its own others.
KEPT = {
    "audit.jsonl",
    "claude",
    "key",
    "lock",
    "page_key",
    "s",
    "samovar.db",
    "samovard.toml",
    "self-test.json",
} | {
    "samovar.db-reserve"  # for a disk that is full when the next one starts
}


@given(st.floats(0.01, 600.0))
def test_steps_follow_each_other_within_the_budget(budget: float) -> None:
    """Each has some time, and a part is left for what is told last."""
    times = Times.within(budget)
    steps = (0.0, times.interrupt, times.terminate, times.reap, times.tell, budget)
    assert all(before < after for before, after in itertools.pairwise(steps))


def test_steps_of_ten_seconds_end_in_time() -> None:
    """With Cloud Run's budget processes are killed, reaped and spoken of in good time."""
    assert Times.within(4.0) == Times(interrupt=1.0, terminate=2.0, reap=2.5, tell=2.75)
    assert Times.within(10.0) == Times(interrupt=2.5, terminate=8.0, reap=8.5, tell=8.75)


def left_in(directory: Path) -> set[str]:
    """Gives what lies in a state directory and should not."""
    names = {path.name for path in directory.iterdir()}
    return {name for name in names if not name.startswith("cli-")} - KEPT


def ended(program: Program) -> int:
    """Ends a service; gives its exit code."""
    program.child.send_signal(signal.SIGTERM)
    return program.child.wait(BOUND)


def exporting(url: str) -> dict[str, str]:
    """Gives the variables of a service that exports over HTTP."""
    protocol = {"SAMOVAR_TELEMETRY__PROTOCOL": "http/protobuf"}
    return {"SAMOVAR_TELEMETRY__ENDPOINT": url, **protocol}


def test_all_at_once_ends_and_leaves_nothing(directory: Path) -> None:
    """A turn that ends by itself, one that does not, one whose process obeys nothing and has
    a child of its own, idle processes, a collector that takes what is sent and answers
    nothing: each would be waited for without end. Exit code 0, and nothing is left."""
    gate = directory / "gate"
    with ExitStack() as stack:
        deaf = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        variables = exporting(f"http://127.0.0.1:{deaf.getsockname()[1]}")
        program = stack.enter_context(served(directory, variables=variables, **BUDGET))
        for name in ("idle-1", "idle-2"):
            samovar.ask("Say x", target=program.address, session=name)
        scripts = {
            "ends": fake(v.gate(gate), v.text("whole")),
            "hangs": fake(v.hang()),
            "stubborn": fake(
                v.ignore("eof", "term", "int"),
                v.grandchild(setsid=True),
                v.ack_only(),
                v.hang(),
            ),
        }
        turns = {
            name: stack.enter_context(sending(program.address, text, "--session", name))
            for name, text in scripts.items()
        }
        program.child.send_signal(signal.SIGTERM)
        read_until(program.child, "shutting down")
        gate.touch()
        assert "whole" in turns["ends"].communicate(timeout=BOUND)[0]
        cut = turns["hangs"].communicate(timeout=BOUND)[0]
        assert '"code": "draining"' in cut
        assert '"outcome": "interrupted"' in cut
        assert "drained" in turns["stubborn"].communicate(timeout=BOUND)[0]
        assert program.child.wait(BOUND) == 0
        said = program.child.stderr.read().decode() if program.child.stderr else ""
        assert "telemetry.lost" in said or "telemetry.unflushed" in said
    assert processes_of(directory) == []
    gate.unlink()
    assert left_in(directory) == set()


def test_telemetry_is_flushed_last(directory: Path) -> None:
    """What the end itself has cut, stopped and reported is exported before it is over."""
    with collecting() as collector:
        given = exporting(collector.http_url)
        with served(directory, variables=given, drain_grace="0 s", stop_budget="4 s") as program:
            samovar.ask("Say x", target=program.address, session="idle")
            with sending(program.address, fake(v.hang())) as turn:
                assert program.end() == 0
                turn.communicate(timeout=BOUND)
        outcomes = [
            span.attributes["samovar.outcome"] for span in collector.named("invoke_agent default")
        ]
        assert outcomes == ["completed", "interrupted"]
        incidents = {
            point.labels["event"]: point.value
            for point in collector.points.values()
            if point.name == "samovar.incidents"
        }
        assert (incidents["turn.interrupted"], incidents["drain.finished"]) == (1, 1)
        ends = [
            point.value
            for point in collector.points.values()
            if point.name == "samovar.process.transitions" and point.labels["to"] == "exited"
        ]
        assert sum(ends) == 2


def test_an_idle_process_that_ignores_its_end_is_terminated(directory: Path) -> None:
    """Without any turn it takes a part of the stop budget, not a whole ladder."""
    with served(directory, **BUDGET) as program:
        samovar.ask(fake(v.text("x"), v.ignore("eof")), target=program.address)
        assert ended(program) == 0
        assert '"killed": 0' in read_until(program.child, "drain.finished")
    assert processes_of(directory) == []


def test_a_service_without_work_ends_at_once(directory: Path) -> None:
    """No step takes time for which there is no reason."""
    with served(directory, drain_grace="1 h", stop_budget="1 h") as program:
        samovar.ask("Say x", target=program.address)
        assert ended(program) == 0


def test_turns_are_still_taken_while_routers_look_elsewhere(directory: Path) -> None:
    """For `drain_wait` it says that it does not serve, and serves: whoever was refused would
    come back here."""
    with served(directory, drain_wait="1 h") as program:
        program.child.send_signal(signal.SIGTERM)
        read_until(program.child, "shutting down")
        assert asyncio.run(_health(program.address)) == health_pb2.HealthCheckResponse.NOT_SERVING
        assert samovar.ask("Say late", target=program.address).text == "late"
        assert program.end() == 0  # a second signal waits for nobody


async def _health(address: str) -> int:
    async with grpc.aio.insecure_channel(address) as channel:
        request = health_pb2.HealthCheckRequest(service=SESSION)
        return int((await health_pb2_grpc.HealthStub(channel).Check(request)).status)


def test_a_second_signal_asks_nobody_any_more(directory: Path) -> None:
    """It goes straight to ending processes: the hour that a turn was given is not waited for,
    nor the quarter of one for interrupts."""
    with served(directory, drain_grace="1 h", stop_budget="1 h") as program:
        with sending(program.address, fake(v.never_ack(), v.hang())) as turn:
            program.child.send_signal(signal.SIGTERM)
            read_until(program.child, "shutting down")
            assert ended(program) == 0
            assert "drained" in turn.communicate(timeout=BOUND)[0]
    assert processes_of(directory) == []


def test_a_signal_before_it_serves_ends_it(directory: Path) -> None:
    """In the middle of a self-test that would take long; the agent under test ends with it."""
    config = config_of(directory, install(directory))
    write_start(directory, v.never_init())
    with subprocess.Popen(serve(config), env=environ(), stderr=subprocess.PIPE) as child:
        read_until(child, "self_test.started")
        assert ended(Program(child, "", "")) == 0
        assert child.stderr is not None
        assert b"stopped before it served" in child.stderr.read()
    assert processes_of(directory) == []


@contextmanager
def served_for_real(directory: Path, upstream: str) -> Iterator[Program]:
    config = config_of(directory, binary.find(None, "").path, **BUDGET)
    upstreamed = environ(SAMOVAR_CREDENTIALS__UPSTREAM=upstream)
    with subprocess.Popen(serve(config), env=upstreamed, stderr=subprocess.PIPE) as child:
        try:
            said = read_until(child, "try: ")
            yield Program(child, said.partition("listens on ")[2].split()[0], said)
        finally:
            if child.poll() is None:
                child.kill()


def test_the_real_cli_in_mid_answer_is_interrupted_and_resumes(directory: Path) -> None:
    """The turn is told as interrupted; the next server goes on with the conversation."""

    asyncio.run(prepare(directory))

    async def story() -> None:
        async with StandIn() as stand_in:
            await asyncio.to_thread(_interrupted_and_resumed, directory, stand_in.url)
            assert any("Say first" in text for text in stand_in.requests[-1].texts)

    asyncio.run(story())


def _interrupted_and_resumed(directory: Path, upstream: str) -> None:
    with served_for_real(directory, upstream) as program:
        assert samovar.ask("Say first", target=program.address, session="s").text == "first"
        with sending(program.address, script(drip(600, 0.05)), "--session", "s") as turn:
            assert turn.stdout is not None
            while "TextDelta" not in turn.stdout.readline():
                pass
            assert ended(program) == 0
            last = json.loads(turn.communicate(timeout=BOUND)[0].splitlines()[-1])
            assert (last["event"], last["outcome"]) == ("TurnFinished", "interrupted")
    assert processes_of(directory) == []
    with served_for_real(directory, upstream) as program:
        answer = samovar.ask("Say again", target=program.address, session="s")
        assert answer.started.start_mode is samovar.StartMode.RESUMED
        assert program.end() == 0


@pytest.mark.parametrize("abandoned", [False, True])
def test_a_process_that_does_not_die_does_not_keep_the_service(abandoned: bool) -> None:
    """It is let go of, for the next start to find in the ledger: by itself after 20 s, at once
    at the end of a service that goes away in order."""

    async def story() -> None:
        loop = asyncio.get_running_loop()
        async with world(stage=Stage(undead=True)) as w:
            await w.turn()
            w.pool.stop(next(iter(w.pool)), "closed")
            await passes(14.0)
            assert "quarantined=1" in repr(w.pool)
            if abandoned:
                assert w.pool.abandon() == 1
            begin = loop.time()
        assert loop.time() - begin == (0.0 if abandoned else 20.0)

    told(story())
