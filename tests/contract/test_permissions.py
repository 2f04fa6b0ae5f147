"""Promises of `Respond`: what an answer does. On the real CLI and a stand-in for the API."""

import asyncio
import json
import time
from pathlib import Path

import grpc
import pytest
from support.permission_turns import (
    asking,
    finished,
    resolutions,
    rest,
    result,
    until_asked,
    writes,
    written,
)
from support.service import TOOLS, serving

import samovar
from samovar.v1 import session_pb2 as pb
from samovard.standin import script, text, tool


def test_a_tool_that_is_allowed_runs(directory: Path) -> None:
    """Its request tells the call and when it expires; with the answer the file is written,
    the wait is told, and the process serves the next turn."""

    async def story() -> None:
        async with asking(directory) as run:
            async with run.client.send(script(writes(), text("done it"))) as turn:
                before, (asked,) = await until_asked(turn)
                (use,) = (event for event in before if isinstance(event, samovar.ToolUse))
                assert (asked.tool_name, asked.tool_use_id) == ("Write", use.tool_use_id)
                assert json.loads(asked.input_json)["content"] == "hello"
                assert 290 < asked.expire_time - time.time() <= 300
                assert written(directory) is None
                await run.client.allow(asked.permission_id)
                after = await rest(turn)
            assert written(directory) == "hello"
            assert resolutions(after) == [(asked.permission_id, samovar.Resolution.ALLOWED)]
            end = finished(after)
            assert end.result == "done it"
            assert end.timings.permission_wait is not None
            assert 0 < end.timings.permission_wait < 30
            second = await run.client.ask("Say on")
            assert second.started.start_mode is samovar.StartMode.WARM
            assert second.timings.permission_wait is None

    asyncio.run(story())


def test_a_tool_runs_with_the_input_that_the_answer_gives(directory: Path) -> None:
    """What replaces the input is what the tool gets."""

    async def story() -> None:
        async with asking(directory) as run:
            async with run.client.send(script(writes(), text("x"))) as turn:
                _, (asked,) = await until_asked(turn)
                changed = json.loads(asked.input_json) | {"content": "naïve \ud83d\ude00"}
                await run.client.allow(asked.permission_id, updated_input=changed)
                await rest(turn)
            assert written(directory) == "naïve \U0001f600"

    asyncio.run(story())


def test_the_agent_is_told_why_a_tool_is_denied(directory: Path) -> None:
    """The tool does not run; the model's next request has the message, and the turn goes on."""

    async def story() -> None:
        async with asking(directory) as run:
            async with run.client.send(script(writes(), text("sorry"))) as turn:
                _, (asked,) = await until_asked(turn)
                await run.client.deny(asked.permission_id, message="not on a Friday")
                events = await rest(turn)
            assert resolutions(events) == [(asked.permission_id, samovar.Resolution.DENIED)]
            assert (result(events).text, result(events).is_error) == ("not on a Friday", True)
            assert finished(events).result == "sorry"
            assert "not on a Friday" in run.asked()[-1]
            assert written(directory) is None

    asyncio.run(story())


def test_a_denial_without_a_message_still_says_something(directory: Path) -> None:
    """The model's API takes no failed tool whose result is empty."""

    async def story() -> None:
        async with asking(directory) as run:
            async with run.client.send(script(writes(), text("sorry"))) as turn:
                _, (asked,) = await until_asked(turn)
                await run.client.deny(asked.permission_id, message=" ")
                assert result(await rest(turn)).text.strip()

    asyncio.run(story())


def test_a_denial_can_interrupt_the_turn(directory: Path) -> None:
    """The turn ends as interrupted, and its process serves the next one."""

    async def story() -> None:
        async with asking(directory) as run:
            async with run.client.send(script(writes(), text("never"))) as turn:
                events, (asked,) = await until_asked(turn)
                await run.client.deny(asked.permission_id, interrupt=True)
                events += await rest(turn)
            assert resolutions(events) == [(asked.permission_id, samovar.Resolution.DENIED)]
            assert finished(events).outcome is samovar.Outcome.INTERRUPTED
            assert len(run.asked()) == 1
            assert written(directory) is None
            assert isinstance(events[0], samovar.TurnStarted)
            assert (await run.client.ask("Say on")).started.pid == events[0].pid

    asyncio.run(story())


def test_a_denial_interrupts_the_turn_for_a_sub_agent_too(directory: Path) -> None:
    """A sub-agent's request names the call that it came from; a denial that interrupts ends
    the whole turn, not the sub-agent alone."""

    async def story() -> None:
        given = {"description": "d", "subagent_type": "general-purpose"}
        agent = tool("Agent", given | {"prompt": script(writes(), text("inner"))})
        tools = {"tools": [*TOOLS, "Agent"], "allowed_tools": ["Agent"]}
        async with asking(directory, **tools) as run:
            async with run.client.send(script(agent, text("outer"))) as turn:
                events, (asked,) = await until_asked(turn)
                uses = [event for event in events if isinstance(event, samovar.ToolUse)]
                assert asked.parent_tool_use_id == uses[0].tool_use_id
                await run.client.deny(asked.permission_id, interrupt=True)
                events += await rest(turn)
            assert finished(events).outcome is samovar.Outcome.INTERRUPTED
            assert finished(events).result == ""

    asyncio.run(story())


def test_tools_of_one_message_have_answers_of_their_own(directory: Path) -> None:
    """What the agent asks one after the other is allowed and denied one by one."""

    async def story() -> None:
        async with asking(directory) as run:
            three = [writes(f"{name}.txt", name) for name in ("a", "b", "c")]
            async with run.client.send(script(three, text("two of three"))) as turn:
                events: list[samovar.Event] = []
                for decide in (run.client.allow, run.client.deny, run.client.allow):
                    more, (asked,) = await until_asked(turn)
                    events += more
                    await decide(asked.permission_id)
                events += await rest(turn)
            kinds = [resolution.name for _, resolution in resolutions(events)]
            assert kinds == ["ALLOWED", "DENIED", "ALLOWED"]
            files = [written(directory, f"{name}.txt") for name in ("a", "b", "c")]
            assert files == ["a", None, "c"]
            assert finished(events).result == "two of three"

    asyncio.run(story())


def test_respond_done_twice_equals_once(directory: Path) -> None:
    """An equal answer succeeds while the turn runs, and another one is PERMISSION_NOT_FOUND."""

    async def story() -> None:
        async with asking(directory) as run:
            prompt = script([writes("a.txt"), writes("b.txt")], text("x"))
            async with run.client.send(prompt) as turn:
                _, (asked,) = await until_asked(turn)
                await run.client.allow(asked.permission_id)
                await until_asked(turn)  # it runs on
                await run.client.allow(asked.permission_id)
                with pytest.raises(samovar.PermissionNotFound):
                    await run.client.deny(asked.permission_id)
                with pytest.raises(samovar.PermissionNotFound):
                    await run.client.allow(asked.permission_id, updated_input={"a": 1})
                assert written(directory, "a.txt") == "hello"

    asyncio.run(story())


def test_an_invalid_answer_changes_nothing(directory: Path) -> None:
    """What is no decision, or no JSON object, is REQUEST_INVALID; the turn waits on."""

    async def story() -> None:
        async with asking(directory) as run:
            async with run.client.send(script(writes(), text("x"))) as turn:
                _, (asked,) = await until_asked(turn)
                list_ = pb.RespondRequest.Allow(updated_input_json="[]")
                for request in (pb.RespondRequest(), pb.RespondRequest(allow=list_)):
                    request.permission_id = asked.permission_id
                    with pytest.raises(grpc.aio.AioRpcError) as caught:
                        await run.stub.Respond(request)
                    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
                await run.client.allow(asked.permission_id)
                await rest(turn)
            assert written(directory) == "hello"

    asyncio.run(story())


def test_a_profile_may_forbid_changes(directory: Path) -> None:
    """Without `allow_rewrite` an answer with an input is REQUEST_INVALID."""

    async def story() -> None:
        async with asking(directory, allow_rewrite=False) as run:
            async with run.client.send(script(writes(), text("x"))) as turn:
                _, (asked,) = await until_asked(turn)
                with pytest.raises(samovar.RequestInvalid):
                    await run.client.allow(asked.permission_id, updated_input={})
                await run.client.allow(asked.permission_id)
                await rest(turn)
            assert written(directory) == "hello"

    asyncio.run(story())


def test_a_session_may_choose_to_be_asked(directory: Path) -> None:
    """Where the profile allows it, a session's own policy asks; elsewhere it is invalid."""

    async def story() -> None:
        profiles = {
            "default": {"model": "haiku", "tools": TOOLS, "allow_ask": True},
            "never": {"model": "haiku", "tools": TOOLS},
        }
        async with serving(directory, profiles=profiles) as run:
            prompt = script(writes(), text("x"))
            events = await rest(run.client.send(prompt, session="deny"))
            assert not [e for e in events if isinstance(e, samovar.PermissionRequested)]
            assert result(events).is_error
            chosen = run.client.send(prompt, session="ask", permission_policy="ask")
            async with chosen as turn:
                _, (asked,) = await until_asked(turn)
                await run.client.deny(asked.permission_id, "ask")
                assert result(await rest(turn)).is_error
            with pytest.raises(samovar.RequestInvalid):
                await run.client.ask("Say x", profile="never", permission_policy="ask")

    asyncio.run(story())


def test_where_nobody_is_asked_a_tool_is_denied_and_the_turn_goes_on(directory: Path) -> None:
    """With policy DENY the agent hears at once that it may not, and answers; no event waits."""

    async def story() -> None:
        profile = {"model": "haiku", "tools": TOOLS, "allowed_tools": ["Read"]}
        async with serving(directory, profiles={"default": profile}) as run:
            turn = [e async for e in run.client.send(script(writes(), text("as you wish")))]
            assert written(directory) is None
            assert result(turn).is_error
            assert finished(turn).result == "as you wish"
            assert not any(isinstance(event, samovar.PermissionRequested) for event in turn)
            assert (await run.client.ask("Say on")).started.process_turn == 2

    asyncio.run(story())
