"""Slow readers and large answers, on the real CLI and a stand-in: what waits, what is held."""

import asyncio
from pathlib import Path
from typing import Any

import grpc
import pytest
from structlog.testing import capture_logs
from support.service import Running, serving, simple, until
from support.timeouts import BOUND

import samovar
from samovar.v1 import session_pb2
from samovard.agent import process
from samovard.standin import big, script, stall

MIB = 1 << 20
SPEC = session_pb2.SessionSpec()


def turn_of(run: Running, session: str) -> Any:
    """Gives the core's turn of a session that has one."""
    for key, found in run.service.sessions._directory._sessions.items():
        if key.session == session:
            return next(iter(found.runners.values())).turn
    return None


def test_a_slow_reader_makes_its_agent_wait_and_nobody_else(directory: Path) -> None:
    """While it does not read, what is held for it stays within its bound and one read, and
    other sessions are served; read on in time, the answer is whole."""

    async def story() -> None:
        async with serving(
            directory, server={"reader_bytes": "1 MiB", "reader_timeout": "5 min"}
        ) as run:
            text = 0
            async with run.client.send(script(big(20_000_000)), session="slow") as turn:
                assert isinstance(await anext(turn), samovar.TurnStarted)
                core = turn_of(run, "slow")
                await until(lambda: core._full)
                assert (await run.client.ask("Say on", session="quick")).text == "on"
                assert core.held_bytes - core.read_bytes <= 2 * MIB
                async for event in turn:
                    text += len(event.text) if isinstance(event, samovar.TextDelta) else 0
                    assert core.held_bytes - core.read_bytes <= 2 * MIB
                    assert core.held_bytes <= 10 * MIB
            assert isinstance(event, samovar.TurnFinished)
            assert text == 20_000_000

    asyncio.run(story())


def test_a_reader_who_takes_nothing_is_dropped_and_its_agent_goes_on(directory: Path) -> None:
    """Its stream ends with READER_TOO_SLOW, its turn is interrupted with proof, and the next
    turn finds the same process, to which another session's was no hindrance."""

    async def story() -> None:
        bounds = {"reader_bytes": "64 KiB", "reader_timeout": "300 ms"}
        async with serving(directory, server=bounds) as run:
            request = simple(script(big(20_000_000)), session_id="slow", spec=SPEC)
            request.event_options.partial = True
            responses = aiter(run.stub.Send(request))  # bare: the client would join again
            started = (await anext(responses)).events[0].turn_started
            await run.client.ask("Say on", session="quick")
            await until(lambda: run.service.sessions.running == 0)
            with pytest.raises(grpc.aio.AioRpcError) as error:
                async for _ in responses:
                    pass
            assert error.value.code() is grpc.StatusCode.ABORTED
            assert error.value.details() == "the stream was not read fast enough"
            after = (await run.client.ask("Say on", session="slow")).started
            assert (after.process_id, after.process_turn) == (started.process_id, 2)

    asyncio.run(story())


def test_a_reader_who_leaves_in_the_middle_of_a_write_is_a_lost_stream(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its turn is interrupted with proof, its call is CANCELLED, and nothing is logged as a
    fault of the service."""
    # The proof comes behind all that the agent has written.
    monkeypatch.setattr(process, "INTERRUPT_TIMEOUT", BOUND)

    async def story() -> None:
        async with serving(directory, server={"reader_bytes": "1 MiB"}) as run:
            # The model is not done, so that no turn is, however late its reader is missed.
            answer = script([big(20_000_000), stall(4_800)])
            request = simple(answer, session_id="s", spec=SPEC)
            request.event_options.partial = True
            call = run.stub.Send(request)
            started = (await call.read()).events[0].turn_started
            core = turn_of(run, "s")
            await until(lambda: core._full)  # so what was handed out cannot be written yet
            call.cancel()
            after = (await run.client.ask("Say on", session="s")).started
            assert (after.process_id, after.process_turn) == (started.process_id, 2)

    with capture_logs() as lines:
        asyncio.run(story())
    lost, _ = (line for line in lines if line["event"] == "turn.finished")
    assert (lost["status"], lost["outcome"]) == ("CANCELLED", "interrupted")
    assert not [line for line in lines if line["log_level"] in ("warning", "error")]


@pytest.mark.parametrize("partial", [True, False])
def test_three_megabytes_arrive_whole_in_the_client(directory: Path, partial: bool) -> None:
    """In deltas or in one block, within what gRPC accepts by default."""

    async def story() -> None:
        async with serving(directory) as run:
            answer = await run.client.ask(script(big(3_000_000)), partial=partial)
            assert len(answer.text) == 3_000_000

    asyncio.run(story())


def test_a_line_over_the_cap_fails_the_turn_and_not_the_tenant(directory: Path) -> None:
    """The turn is TURN_LOST; the tenant's other session keeps its process, and the session
    itself goes on with a new one."""

    async def story() -> None:
        async with serving(directory, agent={"max_line_bytes": 1_000_000}) as run:
            other = await run.client.ask("Say one", session="other")
            await run.client.ask("Say first", session="default")
            with pytest.raises(samovar.TurnLost) as lost:
                await run.client.ask(script(big(3_000_000)))
            assert (lost.value.cause, lost.value.prompt_written) == ("line-too-long", True)
            after = await run.client.ask("Say two", session="other")
            assert after.started.process_id == other.started.process_id
            again = await run.client.ask("Say on", session="default")
            assert again.started.start_mode is samovar.StartMode.RESUMED

    asyncio.run(story())
