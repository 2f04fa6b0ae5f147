"""Promises of `Send`, on the real CLI and a stand-in for the model's API."""

import asyncio
import os
import signal
import uuid
from pathlib import Path

import grpc
import pytest
from support.client_turns import ask, finished, started, text_of
from support.service import raw, serving, simple, until

import samovar
from samovar.v1 import session_pb2 as pb
from samovard.standin import big, drip, script, status, text, think, tool


def test_one_text_block_and_nothing_else_works_on_a_fresh_tenant(directory: Path) -> None:
    """`Send` with one text block and nothing else is answered."""

    async def story() -> None:
        async with serving(directory) as run:
            responses = await raw(run.stub, simple("Say hello"))
            assert responses[-1].events[-1].turn_finished.result == "hello"

    asyncio.run(story())


def test_a_stream_is_numbered_and_ends_with_turn_finished(directory: Path) -> None:
    """`turn_started` is event 1, numbers rise by 1, no response is empty, and the last
    event is `turn_finished`, once."""

    async def story() -> None:
        async with serving(directory) as run:
            responses = await raw(run.stub, simple("Say hello"))
            assert all(response.events for response in responses)
            events = [event for response in responses for event in response.events]
            assert [event.sequence for event in events] == list(range(1, len(events) + 1))
            kinds = [event.WhichOneof("kind") for event in events]
            assert kinds[0] == "turn_started"
            assert kinds.index("turn_finished") == len(kinds) - 1

    asyncio.run(story())


def test_turns_of_a_session_run_on_one_process(directory: Path) -> None:
    """Equal `process_id` means one pid and `process_turn` rising by 1."""

    async def story() -> None:
        async with serving(directory) as run:
            first = started(await ask(run, "Say a"))
            second = started(await ask(run, "Say b"))
            assert first.start_mode is samovar.StartMode.COLD
            assert second.start_mode is samovar.StartMode.WARM
            assert (first.process_id, first.pid) == (second.process_id, second.pid)
            assert (first.process_turn, second.process_turn) == (1, 2)

    asyncio.run(story())


@pytest.mark.parametrize("partial", [True, False])
def test_deltas_are_the_text(directory: Path, partial: bool) -> None:
    """The deltas of a block, concatenated, are the block; it is sent once."""

    async def story() -> None:
        async with serving(directory) as run:
            prompt = script(text("one two three four", deltas=4))
            events = await ask(run, prompt, partial=partial)
            assert text_of(events) == "one two three four" == finished(events).result
            deltas = [event for event in events if isinstance(event, samovar.TextDelta)]
            assert len(deltas) == (4 if partial else 1)

    asyncio.run(story())


def test_thinking_is_told_only_if_asked_for(directory: Path) -> None:
    """`thinking_delta` events come with `EventOptions.thinking` and not without."""

    async def story() -> None:
        async with serving(directory) as run:
            prompt = script([think("hm hm", deltas=2), text("yes")])
            told = await ask(run, prompt, thinking=True)
            silent = await ask(run, prompt)
            thoughts = [e.text for e in told if isinstance(e, samovar.ThinkingDelta)]
            assert "".join(thoughts) == "hm hm"
            assert not any(isinstance(e, samovar.ThinkingDelta) for e in silent)

    asyncio.run(story())


def test_tools_run_and_are_told(directory: Path) -> None:
    """A tool call and its result are events, and the answer after it is the result."""

    async def story() -> None:
        async with serving(directory) as run:
            prompt = script(tool("Bash", {"command": "echo canary"}), text("seen"))
            events = await ask(run, prompt, session="t", profile="tools")
            (use,) = (e for e in events if isinstance(e, samovar.ToolUse))
            (result,) = (e for e in events if isinstance(e, samovar.ToolResult))
            assert (use.tool_name, result.tool_use_id) == ("Bash", use.tool_use_id)
            assert "canary" in result.text
            assert finished(events).result == "seen"

    asyncio.run(story())


def test_a_failed_upstream_call_is_an_outcome(directory: Path) -> None:
    """What the agent reports of itself travels in `turn_finished`, with status OK; the
    process lives."""

    async def story() -> None:
        profiles = {"default": {"model": "haiku", "cli_retries": 0}}
        async with serving(directory, profiles=profiles) as run:
            failed = await ask(run, script(status(529, times=9)))
            assert finished(failed).outcome is samovar.Outcome.FAILED
            assert finished(failed).upstream_status == 529
            assert finished(failed).errors == ("the model's API is overloaded",)
            assert text_of(failed) == ""
            after = await ask(run, "Say on")
            assert started(after).pid == started(failed).pid

    asyncio.run(story())


def test_a_credential_that_is_refused_is_read_anew(directory: Path) -> None:
    """The turn that met it has failed; the next one has a process with what is valid by now,
    and knows the conversation."""

    async def story() -> None:
        profiles = {"default": {"model": "haiku", "cli_retries": 0}}
        async with serving(directory, profiles=profiles) as run:
            before = started(await ask(run, "Say canary"))
            refused = finished(await ask(run, script(status(401, times=9))))
            assert (refused.outcome, refused.upstream_status) == (samovar.Outcome.FAILED, 401)
            (directory / "key").write_text("sk-renewed")
            after = await ask(run, "Say on")
            assert started(after).start_mode is samovar.StartMode.RESUMED
            assert started(after).process_id != before.process_id
            keys = [request.credentials for request in run.stand_in.requests]
            assert (keys[0], keys[-1]) == (("sk-test",), ("sk-renewed",))
            assert any("Say canary" in words for words in run.asked()[-1])

    asyncio.run(story())


def test_stages_of_a_turn_never_decrease(directory: Path) -> None:
    """The set stages of `TurnTimings` rise in the order of the fields."""

    async def story() -> None:
        async with serving(directory) as run:
            timings = finished(await ask(run, "Say a")).timings
            stages = [name for name in timings.__dataclass_fields__ if name != "permission_wait"]
            times = [getattr(timings, name) for name in stages]
            assert None not in times
            assert times == sorted(times)

    asyncio.run(story())


def test_usage_is_the_turns_own(directory: Path) -> None:
    """Each turn tells what it spent, though the CLI's own counters run on."""

    async def story() -> None:
        async with serving(directory) as run:
            for _ in range(2):
                usage = finished(await ask(run, "Say a")).usage
                assert (usage.input_tokens, usage.output_tokens) == (10, 12)
            assert (await run.client.get_session()).usage.output_tokens == 24

    asyncio.run(story())


def test_text_is_never_a_command_or_a_file(directory: Path) -> None:
    """Plain text reaches the model as it was written."""

    async def story() -> None:
        secret = directory / "secret"
        secret.write_text("do-not-read-me")
        async with serving(directory) as run:
            await ask(run, "/cost")
            await ask(run, f"@{secret} what is it?")
            assert any("/cost" in words for words in run.asked()[0])
            assert any(f"@{secret} what" in words for words in run.asked()[1])
            assert "do-not-read-me" not in str(run.asked())

    asyncio.run(story())


def test_a_large_answer_arrives_whole(directory: Path) -> None:
    """3 MB of text arrive, and no response is larger than 3 MiB."""

    async def story() -> None:
        async with serving(directory) as run:
            responses = await raw(run.stub, simple(script(big(3_000_000))))
            assert all(response.ByteSize() <= 3 << 20 for response in responses)
            events = [event for response in responses for event in response.events]
            length = sum(len(event.text_delta.text) for event in events)
            last = events[-1].turn_finished
            assert length == 3_000_000
            assert len(last.result) + last.result_truncated_bytes == 3_000_000

    asyncio.run(story())


def test_interrupt_ends_the_turn_and_keeps_the_process(directory: Path) -> None:
    """`Interrupt` ends a stream with OUTCOME_INTERRUPTED; the next turn has the same pid."""

    async def story() -> None:
        async with serving(directory) as run:
            events: list[samovar.Event] = []
            async with run.client.send(script(drip(500, 0.02))) as turn:
                async for event in turn:
                    events.append(event)
                    if isinstance(event, samovar.TextDelta) and len(text_of(events)) < 12:
                        assert await run.client.interrupt(turn.turn_id)
            assert finished(events).outcome is samovar.Outcome.INTERRUPTED
            assert not await run.client.interrupt(turn.turn_id)
            after = await ask(run, "Say on")
            assert finished(after).result == "on"
            assert started(after).pid == started(events).pid

    asyncio.run(story())


def test_a_cancelled_call_interrupts_its_turn(directory: Path) -> None:
    """Leaving the stream stops the agent, which is then used again."""

    async def story() -> None:
        async with serving(directory) as run:
            async with run.client.send(script(drip(500, 0.02))) as turn:
                async for event in turn:
                    if isinstance(event, samovar.TextDelta):
                        break
            await until(lambda: run.service.sessions.running == 0)
            after = await ask(run, "Say on")
            assert started(after).start_mode is samovar.StartMode.WARM
            assert finished(after).result == "on"

    asyncio.run(story())


def test_a_deadline_interrupts_the_turn(directory: Path) -> None:
    """A call whose deadline passes is lost, and its turn is interrupted."""

    async def story() -> None:
        async with serving(directory) as run:
            await ask(run, "Say warm")
            with pytest.raises(samovar.DeadlineExceeded):
                await ask(run, script(drip(500, 0.02)), deadline=0.3)
            await until(lambda: run.service.sessions.running == 0)
            assert started(await ask(run, "Say on")).start_mode is samovar.StartMode.WARM

    asyncio.run(story())


def test_turn_timeout_is_a_limit(directory: Path) -> None:
    """`Limits.turn_timeout` ends a turn with OUTCOME_LIMIT_REACHED."""

    async def story() -> None:
        async with serving(directory) as run:
            events = await ask(run, script(drip(500, 0.02)), turn_timeout=0.5)
            assert finished(events).outcome is samovar.Outcome.LIMIT_REACHED

    asyncio.run(story())


def test_a_turn_id_runs_once(directory: Path) -> None:
    """The same `turn_id` replays the same events; other content is ID_TAKEN."""

    async def story() -> None:
        async with serving(directory) as run:
            turn_id = str(uuid.uuid4())
            first = await ask(run, "Say once", turn_id=turn_id)
            assert await ask(run, "Say once", turn_id=turn_id) == first
            assert len(run.stand_in.requests) == 1
            with pytest.raises(samovar.IdTaken):
                await ask(run, "Say twice", turn_id=turn_id)

    asyncio.run(story())


def test_the_conversation_survives_a_killed_process(directory: Path) -> None:
    """SIGKILL between turns and within one: the next turn resumes with all that was said."""

    async def story() -> None:
        async with serving(directory) as run:
            pid = started(await ask(run, "Say one")).pid
            os.kill(pid, signal.SIGKILL)
            # A prompt that the pipe of a dying process takes would be a turn lost.
            await until(lambda: not len(run.service.pool))
            second = await ask(run, "Say two")
            assert started(second).start_mode is samovar.StartMode.RESUMED
            with pytest.raises(samovar.TurnLost) as lost:
                async with run.client.send(script(drip(500, 0.02))) as turn:
                    async for event in turn:
                        if isinstance(event, samovar.TextDelta):
                            os.kill(started(second).pid, signal.SIGKILL)
            assert (lost.value.cause, lost.value.prompt_written) == ("process-died", True)
            third = await ask(run, "Say three")
            assert started(third).start_mode is samovar.StartMode.RESUMED
            said = run.asked()[-1]
            assert all(any(f"Say {n}" in words for words in said) for n in ("one", "two"))

    asyncio.run(story())


def test_the_conversation_survives_eviction(directory: Path) -> None:
    """With one slot, two sessions take turns, and neither forgets."""

    async def story() -> None:
        async with serving(directory, pool={"slots": 1}) as run:
            for name in ("a", "b", "a"):
                events = await ask(run, f"Say {name}-canary", session=name)
            assert started(events).start_mode is samovar.StartMode.RESUMED
            said = str(run.asked()[-1])
            assert said.count("Say a-canary") == 2
            assert "b-canary" not in said

    asyncio.run(story())


def test_the_conversation_survives_a_restart(directory: Path) -> None:
    """Another samovard on the same state goes on with the session."""

    async def story() -> None:
        turn_id = str(uuid.uuid4())
        async with serving(directory) as run:
            await ask(run, "Say one", turn_id=turn_id)
        async with serving(directory) as run:
            with pytest.raises(samovar.EventsExpired):
                await ask(run, "Say one", turn_id=turn_id)
            events = await ask(run, "Say two")
            assert started(events).start_mode is samovar.StartMode.RESUMED
            assert any("Say one" in words for words in run.asked()[-1])

    asyncio.run(story())


def test_no_headers_leave_before_the_prompt(directory: Path) -> None:
    """A call that waits for a process has sent nothing, not even headers."""

    async def story() -> None:
        async with serving(directory, pool={"slots": 1}) as run:
            async with run.client.send(script(drip(500, 0.02)), session="busy") as turn:
                await anext(turn)
                call = run.stub.Send(simple("Say no", session_id="b", spec=pb.SessionSpec()))
                await until(lambda: run.service.pool.waiting == 1)
                await run.client.close_session("b")
                with pytest.raises(grpc.aio.AioRpcError) as error:
                    await call.read()
                assert "was withdrawn" in str(error.value.details())
                # A status without headers comes as trailers alone.
                assert not await call.initial_metadata()

    asyncio.run(story())
