"""What becomes of a turn, its session and its process when the agent misbehaves.

On the fake agent, through the whole service: the real one cannot be made to do it.
"""

import asyncio
from pathlib import Path
from typing import Any

import grpc
import pytest
from fake_claude import fake, write_start
from fake_claude import verbs as v
from support.service import Running, serving, simple, until
from support.timeouts import BOUND

import samovar
from samovar.v1 import session_pb2
from samovard.agent import child, process

SPEC = session_pb2.SessionSpec()


async def failure(run: Running, prompt: str, **options: Any) -> samovar.SamovarError:
    with pytest.raises(samovar.SamovarError) as error:
        await run.client.ask(prompt, deadline=BOUND, **options)
    return error.value


async def on(run: Running, **options: Any) -> samovar.TurnStarted:
    """Runs a turn that must go well, and says how it got its process."""
    answer = await run.client.ask("Say on", **options)
    assert answer.text == "on"
    return answer.started


LOST = {
    "dies before it starts": (v.die("before_started"), "process-died"),
    "dies after it started": (v.die("after_started"), "process-died"),
    "dies in mid-text": (v.die("mid_text", signal=9), "process-died"),
    "writes half a line and exits": (v.partial_line("exit"), "process-died"),
    "writes too long a line": (v.huge_line(300_000), "line-too-long"),
}


@pytest.mark.parametrize("fault", LOST)
def test_a_lost_turn_is_told_and_the_session_goes_on(directory: Path, fault: str) -> None:
    """TURN_LOST says why, that the prompt was written, and nothing of repeating; the next
    turn resumes, and knows what was said before."""
    verb, cause = LOST[fault]

    async def story() -> None:
        async with serving(directory, fake=True, agent={"max_line_bytes": 200_000}) as run:
            await run.client.ask("Say canary")
            error = await failure(run, fake(v.text("half"), verb))
            assert isinstance(error, samovar.TurnLost)
            assert (error.cause, error.prompt_written) == (cause, True)
            assert error.retry_delay is None
            assert (await on(run)).start_mode is samovar.StartMode.RESUMED
            assert "Say canary" in (await run.client.ask(fake(v.history()))).text

    asyncio.run(story())


def test_bytes_that_are_no_protocol_end_the_process(directory: Path) -> None:
    """A line that is not UTF-8 is INTERNAL; the process is replaced."""

    async def story() -> None:
        async with serving(directory, fake=True) as run:
            error = await failure(run, fake(v.bad_utf8()))
            assert isinstance(error, samovar.Internal)
            assert (error.cause, error.prompt_written) == ("protocol-violated", True)
            assert (await on(run)).start_mode is samovar.StartMode.RESUMED

    asyncio.run(story())


def test_a_line_of_another_session_blocks_the_session(directory: Path) -> None:
    """Nothing of it is forwarded; the session is refused until it is closed, others are not."""

    async def story() -> None:
        async with serving(directory, fake=True) as run:
            events = []
            with pytest.raises(samovar.Internal):
                async with run.client.send(fake(v.wrong_session_id(), v.text("x"))) as turn:
                    async for event in turn:
                        events.append(event)
            assert not any(isinstance(event, samovar.TextDelta) for event in events)
            blocked = await failure(run, "Say x")
            assert (blocked.reason, blocked.cause) == ("MISCONFIGURED", "session-blocked")
            await on(run, session="other")
            await run.client.close_session("default")
            assert (await on(run)).start_mode is samovar.StartMode.COLD

    asyncio.run(story())


HARMLESS = {
    "noise": v.noise(),
    "a second result": v.double_result(),
    "a second result within": v.double_result(after_end=False),
    "a late result": v.late_result(50),
    "a late end": v.late_end(50),
    "an unasked turn before": v.unsolicited_turn("before"),
    "an unasked turn after": v.unsolicited_turn("after"),
    "failing calls": v.api_retry(2),
}


@pytest.mark.parametrize("fault", HARMLESS)
def test_what_is_not_the_turns_does_not_reach_it(directory: Path, fault: str) -> None:
    """The turn has its own text and one report, and so has the next one."""

    async def story() -> None:
        async with serving(directory, fake=True) as run:
            for number in range(3):
                text = f"canary-{number}"
                async with run.client.send(fake(HARMLESS[fault], v.text(text))) as turn:
                    events = [event async for event in turn]
                deltas = [e.text for e in events if isinstance(e, samovar.TextDelta)]
                reports = [e for e in events if isinstance(e, samovar.TurnFinished)]
                assert "".join(deltas) == text
                assert [report.result for report in reports] == [text]
                assert events[-1] is reports[0]

    asyncio.run(story())


def test_a_missing_end_costs_the_process_only(directory: Path) -> None:
    """The turn is over with its report; the process is replaced after a while."""

    async def story() -> None:
        async with serving(directory, fake=True) as run:
            first = await run.client.ask(fake(v.no_end(), v.text("x")))
            assert first.text == "x"
            second = await on(run)
            assert second.start_mode is samovar.StartMode.RESUMED
            assert second.pid != first.started.pid

    asyncio.run(story())


KEPT = {
    "obeys": (v.hang(), True),
    "obeys before it starts": (v.cancelled_before_start(), True),
    "answers and does nothing": (v.ack_only(), False),
    "ends without an answer": (v.result_only(), False),
    "obeys without an answer": (v.never_ack(), False),
}


@pytest.mark.parametrize("fault", KEPT)
def test_after_an_interrupt_only_proof_keeps_the_process(
    directory: Path, fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With proof of quiet the process serves on; without, it is replaced. The next turn has
    nothing of the interrupted one."""
    verb, kept = KEPT[fault]
    if not kept:  # where proof comes, it has its time
        monkeypatch.setattr(process, "INTERRUPT_TIMEOUT", 0.5)

    async def story() -> None:
        async with serving(directory, fake=True) as run:
            before = await on(run)
            prompt = fake(verb, v.hang())
            async with run.client.send(prompt) as turn:
                assert isinstance(await anext(turn), samovar.TurnStarted)
                if fault != "obeys before it starts":
                    assert isinstance(await anext(turn), samovar.AgentInfo)
                assert await run.client.interrupt(turn.turn_id)
                try:
                    *_, last = [event async for event in turn]
                    assert isinstance(last, samovar.TurnFinished)
                    assert last.outcome is samovar.Outcome.INTERRUPTED
                except samovar.TurnLost as lost:
                    assert not kept
                    assert lost.cause == "unproven"
            after = await on(run)
            assert (after.process_id == before.process_id) is kept

    asyncio.run(story())


def test_a_stubborn_process_is_killed(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What ignores the end of its input and SIGTERM gets SIGKILL; `CloseSession` returns."""
    monkeypatch.setattr(child, "EOF_TIMEOUT", 0.2)
    monkeypatch.setattr(child, "EOF_TIMEOUT_SUSPECT", 0.2)
    monkeypatch.setattr(child, "TERM_TIMEOUT", 0.2)

    async def story() -> None:
        async with serving(directory, fake=True) as run:
            await run.client.ask(fake(v.ignore("eof", "term", "int"), v.text("x")))
            assert await run.client.close_session("default")
            assert len(run.service.pool) == 0

    asyncio.run(story())


@pytest.mark.parametrize("setsid", [True, False])
@pytest.mark.parametrize("orphan", [True, False])
def test_what_a_tool_left_behind_goes_with_the_session(
    directory: Path, setsid: bool, orphan: bool
) -> None:
    """A program that outlives its tool does not outlive its session, whatever it did."""
    tell = directory / "pid"

    async def story() -> None:
        async with serving(directory, fake=True) as run:
            left = v.grandchild(holds_stdout=True, setsid=setsid, orphan=orphan, tell=str(tell))
            await run.client.ask(fake(left, v.text("x")))
            await until(lambda: tell.exists() and tell.read_text().strip())
            pid = int(tell.read_text().split()[0])
            assert Path(f"/proc/{pid}").exists()
            await run.client.close_session("default")
            await until(lambda: not Path(f"/proc/{pid}").exists())

    asyncio.run(story())


def test_a_prompt_that_is_not_read_is_a_lost_turn(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An agent that stops taking its input in the middle of a prompt is stalled."""

    async def story() -> None:
        async with serving(directory, fake=True) as run:
            with monkeypatch.context() as patch:
                patch.setattr(process, "WRITE_TIMEOUT", 0.5)
                await run.client.ask(fake(v.text("x"), v.no_read_stdin()))
                error = await failure(run, "x" * 4_000_000)
            assert isinstance(error, samovar.TurnLost)
            assert error.cause == "stalled"
            assert (await on(run)).start_mode is samovar.StartMode.RESUMED

    asyncio.run(story())


def test_permission_is_denied_at_once(directory: Path) -> None:
    """With policy DENY nothing ever waits for an answer."""

    async def story() -> None:
        async with serving(directory, fake=True) as run:
            assert (await run.client.ask(fake(v.permission(), v.text("x")))).text == "x"

    asyncio.run(story())


def test_a_start_that_is_never_answered_fails_every_waiter(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An agent that does not say `initialize` is given up, and whoever waits may repeat."""

    async def story() -> None:
        async with serving(directory, fake=True) as run:
            write_start(directory, v.never_init())
            with monkeypatch.context() as patch:
                patch.setattr(process, "INIT_TIMEOUT", 0.3)
                turns = [run.client.ask("Say x", deadline=1) for _ in range(2)]
                for error in await asyncio.gather(*turns, return_exceptions=True):
                    assert isinstance(error, samovar.NoProcess | samovar.DeadlineExceeded)
            write_start(directory)
            assert (await on(run)).start_mode is samovar.StartMode.COLD

    asyncio.run(story())


def test_a_start_that_fails_is_told(directory: Path) -> None:
    """An agent that ends at once is NO_PROCESS, and leaves no session."""

    async def story() -> None:
        async with serving(directory, fake=True) as run:
            write_start(directory, v.die("start", code=3))
            with pytest.raises(samovar.NoProcess) as error:
                async with samovar.AsyncClient(run.address) as impatient:
                    await impatient.ask("Say x")
            assert error.value.cause == "start-failed"
            assert error.value.retry_delay
            assert not [session async for session in run.client.list_sessions()]

    asyncio.run(story())


def test_a_transcript_that_is_gone_is_told(directory: Path) -> None:
    """A session whose transcript is lost cannot go on, until it is closed."""

    async def story() -> None:
        async with serving(directory, fake=True) as run:
            await run.client.ask(fake(v.text("x"), v.die("idle")))
            await until(lambda: not len(run.service.pool))
            for transcript in directory.glob("s/*/config/projects/*/*.jsonl"):
                transcript.unlink()
            error = await failure(run, "Say x")
            assert isinstance(error, samovar.TranscriptLost)
            await run.client.close_session("default")
            assert (await on(run)).start_mode is samovar.StartMode.COLD

    asyncio.run(story())


def test_a_slow_reader_is_dropped_and_nobody_else_feels_it(directory: Path) -> None:
    """A stream that is not read is dropped after its time; others are served meanwhile."""

    async def story() -> None:
        bounds = {"reader_bytes": "64 KiB", "reader_timeout": "500 ms"}
        async with serving(directory, fake=True, server=bounds) as run:
            options = session_pb2.EventOptions(partial=True)
            text = fake(v.events(200_000, size=300))
            flood = simple(text, session_id="slow", spec=SPEC, event_options=options)
            stream = run.stub.Send(flood)  # bare: the client would join the turn again
            responses = aiter(stream)
            assert (await anext(responses)).events[0].HasField("turn_started")
            assert (await on(run, session="quick")).pid
            await until(lambda: run.service.sessions.running == 0)
            with pytest.raises(grpc.aio.AioRpcError) as error:
                async for _ in responses:
                    pass
            assert error.value.code() is grpc.StatusCode.ABORTED
            assert error.value.details() == "the stream was not read fast enough"
            await on(run, session="slow")

    asyncio.run(story())
