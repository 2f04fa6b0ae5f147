"""Everything that a caller may give an agent, and everything that it says: on the real CLI."""

import asyncio
import hashlib
import json
import os
import signal
from pathlib import Path

import pytest
from fake_claude import fake
from fake_claude import verbs as v
from recorder.scenes import FULL, PAGE, PIXEL
from support.client_turns import ask, finished, of, started, text_of
from support.otlp_collector import collecting
from support.service import TOOLS, VERSION, raw, serving, simple, until

import samovar
from samovar.requests import Block
from samovar.v1 import session_pb2 as pb
from samovard.standin import die, script, status, text, think, tool


def test_images_and_documents_reach_the_model_as_they_were(directory: Path) -> None:
    """A PNG and a PDF arrive to the byte, beside the text, and are there in the next turn."""
    given = [("image/png", PIXEL), ("application/pdf", PAGE)]

    async def story() -> None:
        async with serving(directory) as run:
            blocks: list[Block] = [
                samovar.Image(PIXEL),
                samovar.Document(PAGE, "page"),
                script(text("seen")),
            ]
            first = await ask(run, blocks)
            assert finished(first).result == "seen"
            await ask(run, "Say again")
            for request in run.stand_in.requests:
                hashes = [(kind, hashlib.sha256(data).hexdigest()) for kind, data in given]
                assert [*request.files] == hashes

    asyncio.run(story())


def test_what_a_sub_agent_says_names_the_call_that_began_it(directory: Path) -> None:
    """Its text, its tools and their results have `parent_tool_use_id`; nothing else has."""
    inner = script(tool("Bash", {"command": "echo inner-tool"}), text("inner words"))
    call = {"description": "d", "prompt": inner, "subagent_type": "general-purpose"}
    tools = [*TOOLS, "Agent"]
    profile = {"model": "haiku", "tools": tools, "allowed_tools": tools}

    async def story() -> None:
        async with serving(directory, profiles={"default": profile}) as run:
            events = await ask(run, script(tool("Agent", call), text("outer words")))
            began, used = of(samovar.ToolUse, events)
            assert (began.tool_name, began.parent_tool_use_id) == ("Agent", "")
            inside = [e for e in events if e.parent_tool_use_id == began.tool_use_id]
            assert {type(event) for event in inside} == {
                samovar.TextDelta,
                samovar.ToolUse,
                samovar.ToolResult,
            }
            assert used in inside
            assert "inner words" in text_of(inside)
            assert {e.parent_tool_use_id for e in events if e not in inside} == {""}
            assert finished(events).result == "outer words"

    asyncio.run(story())


def test_a_conversation_that_is_shortened_says_so(directory: Path) -> None:
    """When the model's window is full the CLI makes a summary: a notice, and the turn goes on."""

    async def story() -> None:
        async with serving(directory) as run:
            await ask(run, FULL)
            events = await ask(run, "Say on")
            assert [notice.code for notice in of(samovar.Notice, events)] == ["context-compacted"]
            assert text_of(events) == finished(events).result == "on"

    asyncio.run(story())


def test_another_model_that_answers_is_told(directory: Path) -> None:
    """A model that stays overloaded is stood in for by `fallback_models`: by a notice that
    names both, and in the usage."""
    profile = {"model": "haiku", "fallback_models": ["sonnet"]}

    async def story() -> None:
        async with serving(directory, profiles={"default": profile}) as run:
            events = await ask(run, script([status(529, times=3), text("here")]))
            *retries, fallback = of(samovar.Notice, events)
            assert {notice.code for notice in retries} == {"api-retry"}
            assert fallback.code == "model-fallback"
            assert fallback.message.index("sonnet") < fallback.message.index("haiku")
            assert finished(events).outcome is samovar.Outcome.COMPLETED
            (model,) = finished(events).usage_by_model
            assert "sonnet" in model

    asyncio.run(story())


@pytest.mark.parametrize("partial", [True, False])
def test_what_the_agent_takes_back_is_told(directory: Path, partial: bool) -> None:
    """A stream of the API that breaks voids what was told of it; what is left is the result.
    Who was told nothing of it hears nothing of it."""
    prompt = script([text("one two three four ", deltas=4), die(5)])
    profile = {"model": "haiku", "cli_retries": 1}

    async def story() -> None:
        async with serving(directory, profiles={"default": profile}) as run:
            events = await ask(run, prompt, partial=partial)
            void = of(samovar.BlocksAbandoned, events)
            assert len(void) == (2 if partial else 0)
            gone = {(block.message_id, block.from_block_index) for block in void}
            kept = [e for e in of(samovar.TextDelta, events) if (e.message_id, 0) not in gone]
            assert len(kept) < len(of(samovar.TextDelta, events)) or not partial
            assert "".join(e.text for e in kept) == finished(events).result
            assert finished(events).result == "one two three four "

    asyncio.run(story())


def test_a_character_that_the_api_splits_is_told_whole(directory: Path) -> None:
    """Half of it never reaches a caller, in text or thought, in deltas or as a whole."""
    words = "a\U0001f600b\U0001f680"
    prompt = script([think(words, deltas=6), text(words, deltas=6)])

    async def story() -> None:
        async with serving(directory) as run:
            for partial in (True, False):
                events = await ask(run, prompt, partial=partial, thinking=True)
                thoughts = [event.text for event in of(samovar.ThinkingDelta, events)]
                assert "".join(thoughts) == text_of(events) == finished(events).result == words
                assert len(thoughts) == (4 if partial else 1)

    asyncio.run(story())


def test_an_appended_system_prompt_is_the_sessions_own(directory: Path) -> None:
    """It reaches the model behind the profile's, in a resumed process, too; not another
    session's model; and no command line shows it."""
    profile = {"model": "haiku", "append_system_prompt": "profile-canary"}

    async def story() -> None:
        async with serving(directory, profiles={"default": profile}) as run:
            own = {"session": "own", "append_system_prompt": "session-canary"}
            first = started(await ask(run, "Say a", **own))
            command = Path(f"/proc/{first.pid}/cmdline").read_bytes()
            assert b"canary" not in command
            os.kill(first.pid, signal.SIGKILL)
            await until(lambda: not len(run.service.pool))
            assert started(await ask(run, "Say b", session="own")).pid != first.pid
            await ask(run, "Say c", session="other")
            *both, other = [request.system for request in run.stand_in.requests]
            for system in both:
                assert 0 < system.index("profile-canary") < system.index("session-canary")
            assert "profile-canary" in other
            assert "session-canary" not in other

    asyncio.run(story())


def test_labels_of_a_session_are_shown_and_traced(directory: Path) -> None:
    """They come back with the session, and stand on the span of each of its turns."""
    labels = {"team": "red", "cost-center": "7"}

    async def story() -> None:
        with collecting() as collector:
            telemetry = {"endpoint": collector.grpc_url}
            async with serving(directory, fake=True, telemetry=telemetry) as run:
                for _ in range(2):
                    await ask(run, "Say x", session="s", labels=labels)
                shown = await run.stub.GetSession(pb.GetSessionRequest(session_id="s"))
                assert shown.session.spec.labels == labels
                await collector.until(lambda: len(collector.named("invoke_agent default")) == 2)
        for span in collector.named("invoke_agent default"):
            prefix = "samovar.session.label."
            found = {k[len(prefix) :]: x for k, x in span.attributes.items() if prefix in k}
            assert found == labels

    asyncio.run(story())


@pytest.mark.parametrize("allowed", [True, False])
def test_the_agents_own_lines_are_told_where_the_profile_lets_them(
    directory: Path, allowed: bool
) -> None:
    """`raw_json` is the CLI's line on the first event made from it, if asked for and allowed."""
    profile = {"model": "haiku", "allow_raw_json": allowed}

    async def story() -> None:
        async with serving(directory, profiles={"default": profile}) as run:
            silent = await ask(run, "Say x")
            told = await ask(run, "Say x", raw_json=True)
            assert not any(event.raw_json for event in silent)
            lines = [json.loads(event.raw_json) for event in told if event.raw_json]
            kinds = [line["type"] for line in lines]
            if allowed:
                expected = ["system", "stream_event", "stream_event", "result"]
                assert kinds == expected
                assert lines[-1]["result"] == "x"
            else:
                assert kinds == []

    asyncio.run(story())


def test_the_agent_says_what_it_is(directory: Path) -> None:
    """`agent_info` comes once in each turn: the model, the CLI's version and its tools."""

    async def story() -> None:
        async with serving(directory) as run:
            for _ in range(2):
                events = await ask(run, "Say x", session="s", profile="tools", model="")
                (info,) = of(samovar.AgentInfo, events)
                assert "haiku" in info.model
                assert info.agent_version == VERSION
                assert set(info.tools) == set(TOOLS)

    asyncio.run(story())


def test_a_transcript_that_cannot_be_written_is_told(directory: Path) -> None:
    """The notice `writes-lost` says that the session may not be resumable: on the fake agent,
    for the real one says it as it ends."""

    async def story() -> None:
        async with serving(directory, fake=True) as run:
            events = await ask(run, fake(v.writes_lost(), v.text("x")))
            assert [notice.code for notice in of(samovar.Notice, events)] == ["writes-lost"]

    asyncio.run(story())


def test_a_line_that_is_too_long_to_be_told_has_its_length(directory: Path) -> None:
    """`raw_json` is left empty above 1 MiB, `raw_json_bytes` never is: on the fake agent."""
    options = pb.EventOptions(raw_json=True)

    async def story() -> None:
        profile = {"model": "haiku", "allow_raw_json": True}
        async with serving(directory, fake=True, profiles={"default": profile}) as run:
            request = simple(fake(v.huge_line(1_200_000), v.text("x")), event_options=options)
            events = [e for response in await raw(run.stub, request) for e in response.events]
            told = [event for event in events if event.raw_json_bytes]
            (long,) = (event for event in told if event.raw_json_bytes == 1_200_000)
            assert long.HasField("text_delta")
            assert long.raw_json == b""
            assert all(len(e.raw_json) == e.raw_json_bytes for e in told if e is not long)

    asyncio.run(story())
