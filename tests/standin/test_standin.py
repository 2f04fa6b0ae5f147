"""The stand-in for the Messages API, as the CLI's requests see it."""

import asyncio
import json
import re
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from support.service import serving, until

from samovar import Outcome, TextDelta, ToolUse, TurnFinished
from samovard.standin import (
    StandIn,
    big,
    delay,
    die,
    drip,
    script,
    stall,
    status,
    steps,
    text,
    think,
    tool,
    usage,
)

Story = Callable[[StandIn, aiohttp.ClientSession], Awaitable[None]]


def told(story: Story, **options: Any) -> None:
    async def run() -> None:
        async with StandIn(**options) as stand_in, aiohttp.ClientSession() as session:
            await story(stand_in, session)

    asyncio.run(run())


def body(*messages: Any, stream: bool = True) -> dict[str, Any]:
    listed = [{"role": "user", "content": m} if isinstance(m, str) else m for m in messages]
    return {"model": "haiku", "stream": stream, "messages": listed}


async def whole(stand_in: StandIn, session: aiohttp.ClientSession, *messages: Any) -> Any:
    request = body(*messages, stream=False)
    async with session.post(f"{stand_in.url}/v1/messages?beta=true", json=request) as response:
        return await response.json()


async def events(
    stand_in: StandIn, session: aiohttp.ClientSession, *messages: Any
) -> list[dict[str, Any]]:
    async with session.post(f"{stand_in.url}/v1/messages", json=body(*messages)) as response:
        lines = (await response.text()).splitlines()
    return [json.loads(line[6:]) for line in lines if line.startswith("data: ")]


def said(found: list[dict[str, Any]]) -> str:
    deltas = [event["delta"] for event in found if event["type"] == "content_block_delta"]
    return "".join(delta.get("text", "") for delta in deltas)


def results(count: int) -> list[Any]:
    block = {"type": "tool_result", "tool_use_id": "u", "content": "ok"}
    called = {"role": "assistant", "content": [{"type": "text", "text": "calling"}]}
    return [called, {"role": "user", "content": [block]}] * count


def test_say_is_answered_to_the_letter() -> None:
    """`Say X` is answered with X, anything else with what the stand-in is."""

    async def story(stand_in: StandIn, session: aiohttp.ClientSession) -> None:
        assert said(await events(stand_in, session, "Say OK1")) == "OK1"
        assert "no model" in said(await events(stand_in, session, "What is love?"))

    told(story)


def test_a_stream_has_the_apis_shape() -> None:
    """Message, blocks and their deltas begin and end in order; usage and reason come last."""

    async def story(stand_in: StandIn, session: aiohttp.ClientSession) -> None:
        prompt = script([think("hm"), text("one two", deltas=2), usage(output_tokens=7)])
        found = await events(stand_in, session, prompt)
        kinds = [event["type"] for event in found]
        assert kinds[0] == "message_start"
        assert kinds[-2:] == ["message_delta", "message_stop"]
        assert kinds.count("content_block_start") == kinds.count("content_block_stop") == 2
        assert [e["index"] for e in found if e["type"] == "content_block_start"] == [0, 1]
        assert found[-2]["usage"]["output_tokens"] == 7
        assert said(found) == "one two"

    told(story)


def test_a_prompt_that_was_interrupted_does_not_speak_for_the_next_one() -> None:
    """Of two scripts in one message the last one counts; one within a script is its own."""

    async def story(stand_in: StandIn, session: aiohttp.ClientSession) -> None:
        nested = script(tool("Task", {"prompt": script(text("inner"))}), text("outer"))
        asked = {"role": "user", "content": [{"type": "text", "text": t} for t in (nested, "x")]}
        assert (await whole(stand_in, session, asked, *results(1)))["content"][0]["text"] == "outer"
        asked["content"] = [{"type": "text", "text": t} for t in (nested, script(text("next")))]
        assert (await whole(stand_in, session, asked))["content"][0]["text"] == "next"

    told(story)


def test_an_interrupted_prompt_is_not_asked_again() -> None:
    """It stays in front of the next one, in one message, with the CLI's mark between them."""
    mark = {"type": "text", "text": "[Request interrupted by user]\n"}
    old, new = ({"type": "text", "text": t} for t in (script(text("old")), "Say new"))

    async def story(stand_in: StandIn, session: aiohttp.ClientSession) -> None:
        for content in ([old, mark, new], [old, mark, old, mark, new]):
            asked = {"role": "user", "content": content}
            assert (await whole(stand_in, session, asked))["content"][0]["text"] == "new"

    told(story)


NO_SCRIPTS = {
    "rubbish": "it must be",
    '{"steps": 3}': "it must be",
    '{"steps": [[{"sya": "x"}]]}': "step 1: each verb is a table with one of text, think, tool,",
    '{"steps": [["text"]]}': "step 1: each verb is",
    '{"steps": [[{"text": "x", "think": "y"}]]}': "step 1: each verb is",
    '{"steps": [[{"text": "x", "delta": 2}]]}': "text takes no fields but deltas",
    '{"steps": [[{"big": 1, "deltas": 2}]]}': "big takes no fields but its own",
    '{"steps": [[{"delay": "1 s"}]]}': "delay cannot have this value of delay",
    '{"steps": [[{"delay": NaN}]]}': "delay cannot have this value of delay",
    '{"steps": [[{"drip": 3, "seconds": -1}]]}': "drip cannot have this value of seconds",
    '{"steps": [[{"stall": true}]]}': "stall cannot have this value of stall",
    '{"steps": [[{"status": 200}]]}': "status is that of a failure",
    '{"steps": [[{"text": "x"}], [{"sya": 1}]]}': "step 2: each verb is",
    "[" * 5000: "it must be",
}


def test_what_is_no_script_is_refused_in_a_sentence() -> None:
    """Whatever stands behind the mark is a script, or 400 says what is wrong with it."""

    async def story(stand_in: StandIn, session: aiohttp.ClientSession) -> None:
        for words, why in NO_SCRIPTS.items():
            request = body(f"{steps.MARKER}{words}")
            async with session.post(f"{stand_in.url}/v1/messages", json=request) as response:
                assert response.status == 400, words
                message = (await response.json())["error"]["message"]
            assert message.startswith("the prompt's script is not valid: ")
            assert why in message

    told(story)


def test_every_verb_has_its_row_on_the_page() -> None:
    """With its other fields, and no other verb has one."""
    page = (Path(__file__).parents[2] / "docs" / "stand-in.md").read_text()
    rows = re.findall(r"^\| `(\w+)` \| .*? \| (.*?) ?\| .* \|$", page, re.MULTILINE)
    told = {verb: set(re.findall(r"`(\w+)`", others)) for verb, others in rows}
    assert told == {verb: set(others) for verb, (_, others) in steps.VERBS.items()}


def test_asks_after_an_interrupt_get_their_own_answers(directory: Path) -> None:
    """On the real CLI: in mid-answer, before it, and while a tool runs."""
    slow = {
        "speaks": script(drip(1000, 0.02)),
        "waits": script([delay(60), text("late")]),
        "works": script(tool("Bash", {"command": "sleep 60"}), text("after")),
    }

    async def story() -> None:
        async with serving(directory) as run:
            for name, prompt in slow.items():
                run.stand_in.clear()
                async with run.client.send(prompt, session=name, profile="tools") as turn:
                    async for event in turn:
                        if name == "waits":
                            await until(lambda: run.stand_in.requests)
                        if name == "waits" or isinstance(event, (TextDelta, ToolUse)):
                            await run.client.interrupt(turn.turn_id, turn.session)
                assert isinstance(event, TurnFinished)
                assert event.outcome is Outcome.INTERRUPTED
                answer = await run.client.ask("Say mine", session=name)
                assert answer.text == "mine", name

    asyncio.run(story())


def test_a_step_follows_each_tool_result() -> None:
    """The results since the prompt tell which step is next; past the last one it is done."""

    async def story(stand_in: StandIn, session: aiohttp.ClientSession) -> None:
        prompt = script(tool("Bash", {"command": "x"}), text("after"))
        first = await whole(stand_in, session, prompt)
        assert first["stop_reason"] == "tool_use"
        assert first["content"][0]["input"] == {"command": "x"}
        second = await whole(stand_in, session, prompt, *results(1))
        assert second["content"][0]["text"] == "after"
        third = await whole(stand_in, session, prompt, *results(2))
        assert third["content"][0]["text"] == "done"

    told(story)


def test_the_last_prompt_counts_and_reminders_do_not() -> None:
    """Earlier prompts and system reminders hold no script."""

    async def story(stand_in: StandIn, session: aiohttp.ClientSession) -> None:
        reminder = {"type": "text", "text": f"<system-reminder>{script(text('no'))}"}
        last = {"role": "user", "content": [reminder, {"type": "text", "text": "Say yes"}]}
        answer = await whole(stand_in, session, script(text("old")), last)
        assert answer["content"][0]["text"] == "yes"

    told(story)


def test_a_prompt_may_follow_a_tool_result_in_one_message() -> None:
    """Behind a turn that was stopped at a tool, the CLI sends its result with the next prompt."""

    async def story(stand_in: StandIn, session: aiohttp.ClientSession) -> None:
        called, returned = results(1)
        note = {"type": "text", "text": "[Request interrupted by user]"}
        returned["content"] += [note, {"type": "text", "text": "Say next"}]
        old = script(tool("Bash", {"command": "x"}), text("old"))
        answer = await whole(stand_in, session, old, called, returned)
        assert answer["content"][0]["text"] == "next"

    told(story)


def test_a_status_is_told_so_many_times() -> None:
    """A script's failures are counted by its prompt, and then it goes on."""

    async def story(stand_in: StandIn, session: aiohttp.ClientSession) -> None:
        for code, after in ((429, "1"), (529, None)):
            request = body(script([status(code, times=2), text("at last")]), stream=False)
            for _ in range(2):
                async with session.post(f"{stand_in.url}/v1/messages", json=request) as response:
                    assert response.status == code
                    assert response.headers.get("retry-after") == after
                    assert (await response.json())["type"] == "error"
            async with session.post(f"{stand_in.url}/v1/messages", json=request) as response:
                assert (await response.json())["content"][0]["text"] == "at last"

    told(story)


def test_a_large_answer_is_whole() -> None:
    """`big` says so many bytes."""

    async def story(stand_in: StandIn, session: aiohttp.ClientSession) -> None:
        assert len(said(await events(stand_in, session, script(big(1_000_001))))) == 1_000_001

    told(story)


def test_a_response_may_wait_drip_and_break() -> None:
    """`delay` waits before the first byte, `drip` between words, `die` breaks the line."""

    async def story(stand_in: StandIn, session: aiohttp.ClientSession) -> None:
        begin = time.monotonic()
        found = await events(stand_in, session, script([delay(0.05), drip(3, 0.02)]))
        assert time.monotonic() - begin >= 0.1
        assert said(found) == "tick0 tick1 tick2 "
        with pytest.raises(aiohttp.ClientError):
            await events(stand_in, session, script([text("never"), die(3)]))

    told(story)


def test_a_stalled_response_does_not_hold_the_stand_in() -> None:
    """It falls silent, and stopping takes no time all the same."""
    begin: list[float] = []

    async def story(stand_in: StandIn, session: aiohttp.ClientSession) -> None:
        request = body(script([text("never"), stall(2)]))
        async with session.post(f"{stand_in.url}/v1/messages", json=request) as response:
            assert b"message_start" in await response.content.readline()
            begin.append(time.monotonic())

    told(story)
    assert time.monotonic() - begin[0] < 30  # aiohttp by itself would wait a minute


def test_what_is_no_request_is_refused() -> None:
    """Rubbish is 400, other paths 404, and counting tokens works."""

    async def story(stand_in: StandIn, session: aiohttp.ClientSession) -> None:
        async with session.post(f"{stand_in.url}/v1/messages", data=b"rubbish") as response:
            assert response.status == 400
        async with session.get(f"{stand_in.url}/v1/else") as response:
            assert response.status == 404
        async with session.head(stand_in.url) as response:
            assert response.status == 200
        url = f"{stand_in.url}/v1/messages/count_tokens"
        async with session.post(url, json=body("x")) as response:
            assert (await response.json())["input_tokens"] > 0

    told(story)


def test_requests_are_remembered() -> None:
    """Who asked, with which credential, and with which words."""

    async def story(stand_in: StandIn, session: aiohttp.ClientSession) -> None:
        headers = {"x-api-key": "k", "traceparent": "00-1-1-01", "x-claude-code-session-id": "s"}
        url = f"{stand_in.url}/v1/messages"
        async with session.post(url, json=body("one", "two"), headers=headers) as response:
            await response.read()
        (seen,) = stand_in.requests
        assert (seen.credentials, seen.traceparent, seen.session_id) == (("k",), "00-1-1-01", "s")
        assert (seen.texts, seen.message_count) == (("one", "two"), 2)
        assert "k" not in repr(seen).split("credentials")
        stand_in.clear()
        assert not stand_in.requests

    told(story)


def test_it_listens_on_a_unix_socket_too(directory: Path) -> None:
    """Where there is no network, a socket will do."""
    path = str(directory / "api.sock")

    async def story(stand_in: StandIn, _: aiohttp.ClientSession) -> None:
        connector = aiohttp.UnixConnector(path)
        async with aiohttp.ClientSession(connector=connector) as session:
            async with session.post("http://localhost/v1/messages", json=body("Say x")) as answer:
                assert '"text": "x"' in await answer.text()

    told(story, unix_path=path)
