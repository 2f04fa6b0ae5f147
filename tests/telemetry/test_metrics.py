"""Metrics of turns, calls and processes: by OTLP and as Prometheus fetches them."""

import asyncio
import socket
from pathlib import Path

import grpc
import pytest
from support.otlp_collector import Collector, Point, collecting, fetched, free
from support.service import Running, raw, serving, simple
from support.timeouts import BOUND

from samovar.v1 import session_pb2 as pb
from samovard.standin import script, text, tool
from samovard.state_lock import CannotStart
from samovard.telemetry import names
from samovard.telemetry.instruments import BUCKETS

CALLER = "4bf92f3577b34da6a3ce929d0e0e4736"
METADATA = (("traceparent", f"00-{CALLER}-00f067aa0ba902b7-01"),)
#: Names that would grow without bound as labels.
FORBIDDEN = ("tenant", "session", "turn", "process_id", "pid", "path", "peer")


def points(collector: Collector, name: str) -> list[Point]:
    return [point for point in collector.points.values() if point.name == name]


async def two_turns(run: Running) -> None:
    """Runs a cold turn with a tool and a warm one, and has one refused."""
    spec = pb.SessionSpec(profile="tools")
    prompt = script(tool("Bash", {"command": "true"}), text("done"))
    await raw(run.stub, simple(prompt, session_id="s", spec=spec), metadata=METADATA)
    await raw(run.stub, simple("Say two", session_id="s"))
    with pytest.raises(grpc.aio.AioRpcError):
        await raw(run.stub, simple("Say no", session_id="none"))


def test_a_turn_is_counted_with_all_that_is_known_of_it(directory: Path) -> None:
    """Stages, outcome, tokens, tools, starts and transitions arrive, with exemplars."""

    async def story() -> None:
        with collecting() as collector:
            telemetry = {"endpoint": collector.grpc_url}
            async with serving(directory, telemetry=telemetry) as run:
                await two_turns(run)
            turns = points(collector, names.TURN_DURATION)
            assert {p.labels["start_mode"] for p in turns} == {"cold", "warm"}
            assert all(p.labels["outcome"] == "completed" and p.count == 1 for p in turns)
            cold = next(p for p in turns if p.labels["start_mode"] == "cold")
            assert cold.exemplars == [CALLER]
            stages = points(collector, names.STAGE_DURATION)
            for turn in turns:
                mode = turn.labels["start_mode"]
                mine = [p.value for p in stages if p.labels["start_mode"] == mode]
                assert sum(mine) == pytest.approx(turn.value, abs=1e-9)
            (refused,) = points(collector, names.TURN_REFUSED)
            assert (refused.labels["reason"], refused.value) == ("SESSION_NOT_FOUND", 1)
            (used,) = points(collector, names.EXECUTE_TOOL_DURATION)
            assert used.labels == {names.GEN_AI_TOOL_NAME: "Bash"}
            (started,) = points(collector, names.START_DURATION)
            assert started.labels == {"reason": "turn", "resumed": False, "result": "ready"}
            moves = {
                (p.labels["from"], p.labels["to"]) for p in points(collector, names.TRANSITIONS)
            }
            assert {("starting", "idle"), ("idle", "leased"), ("leased", "running")} <= moves
            asked = {
                (p.labels[names.GEN_AI_REQUEST_MODEL], p.labels[names.GEN_AI_RESPONSE_MODEL])
                for name in names.TOKENS_USED.values()
                for p in points(collector, name)
            }
            (cost,) = points(collector, names.TURN_COST)
            assert asked == {("haiku", cost.labels["model"])}
            assert cost.labels["model"].startswith("claude-haiku-")
            for name in names.TOKENS_OF_REQUEST.values():
                (requests,) = points(collector, name)
                assert requests.count == 3  # a turn with a tool asks twice
            assert points(collector, names.LOOP_LAG)[0].count > 0

    asyncio.run(story())


def test_labels_are_bounded_and_buckets_are_ours(directory: Path) -> None:
    """No label names a tenant, a session or a turn; every histogram has its buckets."""

    async def story() -> None:
        with collecting() as collector:
            telemetry = {"endpoint": collector.grpc_url}
            async with serving(directory, telemetry=telemetry) as run:
                await two_turns(run)
            labels = {label for point in collector.points.values() for label in point.labels}
            assert not labels & set(FORBIDDEN)
            bounds = {name: list(b) for b, listed in BUCKETS.items() for name in listed}
            for point in collector.points.values():
                assert point.bounds == bounds.get(point.name, []), point.name

    asyncio.run(story())


def test_prometheus_fetches_what_there_is(directory: Path) -> None:
    """Without a collector too: turns, and how many processes are in each state."""

    async def story() -> None:
        address = free()
        async with serving(directory, fake=True, telemetry={"prometheus_listen": address}) as run:
            await raw(run.stub, simple("Say hello"))

            async with asyncio.timeout(BOUND):
                while (page := await asyncio.to_thread(fetched, address)).get(
                    'samovar_process_count{state="idle"}'
                ) != 1:
                    pass
            assert {
                'samovar_turn_running{profile="default"}': 0,
                'samovar_turn_waiting{profile="default"}': 0,
                "samovar_turn_max_wait_seconds": 0,
                'samovar_session_count{state="warm"}': 1,
            }.items() <= page.items()
            told = {series.partition("{")[0] for series in page}
            assert told >= {
                "samovar_turn_duration_seconds_bucket",
                "samovar_process_memory_bytes",
                "samovar_removal_pending",
                "rpc_server_call_duration_seconds_count",
            }

    asyncio.run(story())


def test_an_address_that_is_taken_ends_the_start_in_a_sentence(directory: Path) -> None:
    """The setting is named."""

    async def story() -> None:
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            address = f"127.0.0.1:{taken.getsockname()[1]}"
            with pytest.raises(CannotStart, match=r"telemetry\.prometheus_listen: cannot listen"):
                telemetry = {"prometheus_listen": address}
                async with serving(directory, fake=True, telemetry=telemetry):
                    pass

    asyncio.run(story())
