"""The client for programs that kept a process by hand, against the service."""

import asyncio
import re
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fake_claude import fake
from fake_claude import verbs as v
from support.recordings import fits, recording
from support.service import TOOLS, serving, until
from support.timeouts import BOUND

import samovar
from samovar.compat import BidirectionalStreamingClient, StreamingConfig
from samovard import standin

ROOT = Path(__file__).parent.parent.parent
PAGE = (ROOT / "docs" / "coming-from.md").read_text()
TARGET = "127.0.0.1:50051"

Told = list[dict[str, Any]]


def fenced(language: str, text: str = PAGE) -> str:
    """Gives the page's first block of a language."""
    found = re.search(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    assert found is not None
    return found[1]


def run(code: str) -> str:
    """Runs a program in an environment of its own, and gives what it printed."""
    environ = {"PYTHONPATH": str(ROOT / "clients" / "python"), "GRPC_ENABLE_FORK_SUPPORT": "0"}
    command = [sys.executable, "-W", "error", "-c", code]
    done = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=BOUND)
    assert done.returncode == 0, done.stderr
    assert not done.stderr
    return done.stdout


def served(directory: Path, story: Callable[[str], Any], *, fake: bool = True, **more: Any) -> Any:
    """Runs a story, which blocks, on a service."""

    async def within() -> Any:
        async with serving(directory, fake=fake, **more) as running:
            return await asyncio.to_thread(story, running.address)

    return asyncio.run(within())


def tell(directory: Path, prompt: str, *, fake: bool = True, **config: Any) -> Told:
    """Gives the dictionaries of one turn."""

    def story(address: str) -> Told:
        with BidirectionalStreamingClient(StreamingConfig(target=address, **config)) as client:
            return list(client.send_message(prompt))

    told: Told = served(directory, story, fake=fake)
    return told


def kinds(told: Told) -> list[str]:
    """Gives each dictionary's type and that of its block."""
    blocks = [(d.get("message") or {"content": [{"type": ""}]})["content"][0] for d in told]
    return [f"{d['type']} {block['type']}".strip() for d, block in zip(told, blocks, strict=True)]


def block(told: Told, kind: str) -> dict[str, Any]:
    """Gives the first block of a type."""
    blocks = [b for d in told if "message" in d for b in d["message"]["content"]]
    found: dict[str, Any] = next(b for b in blocks if b["type"] == kind)
    return found


def test_the_page_s_program_runs_on_one_process(directory: Path) -> None:
    """The program prints what the page says, and one process gave both answers and a third."""
    program = fenced("python")

    async def story() -> None:
        async with serving(directory) as running:
            code = program.replace(TARGET, running.address)
            assert await asyncio.to_thread(run, code) == fenced("text")
            (session,) = [session async for session in running.client.list_sessions()]
            assert (session.model, session.turn_count, session.state) == ("haiku", 2, "warm")
            answer = await running.client.ask("Say three", session=session.session_id)
            assert answer.started.start_mode is samovar.StartMode.WARM
            assert answer.started.process_turn == 3

    asyncio.run(story())


def test_only_import_and_constructor_change() -> None:
    """The difference on the page ends in its program, and leaves the rest of yours alone."""
    lines = fenced("diff").splitlines()
    assert fenced("python").splitlines() == [line[1:] for line in lines if line[:1] != "-"]
    gone = [line for line in lines if line.startswith("-")]
    assert [line.partition(" ")[0] for line in gone] == ["-from", "-with"]


def lines_of(name: str) -> dict[str, dict[str, Any]]:
    """Gives a recording's first line of each type and block."""
    lines = [line for way, line in recording(name).lines if way == "out"]
    known = [line for line in lines if line["type"] in ("assistant", "user", "result")]
    known += [line for line in lines if line.get("subtype") == "init"]
    return dict(reversed([*zip(kinds(known), known, strict=True)]))


def assert_like(told: Told, name: str) -> None:
    """Checks that each dictionary has the shape of the line of its kind in a recording."""
    recorded = lines_of(name)
    for kind, line in zip(kinds(told), told, strict=True):
        assert fits(line, recorded[kind]), f"{kind}: {line}, {recorded[kind]}"


def test_dictionaries_have_the_shape_of_the_cli_s_lines(directory: Path) -> None:
    """On the real CLI a turn with a tool is told in its own shapes, a block at a time."""
    use = standin.tool("Bash", {"command": "echo found", "description": "Look"})
    prompt = standin.script([standin.text("I look."), use], standin.text("Found."))
    told = tell(directory, prompt, fake=False, profile="tools")
    assert kinds(told) == [
        "system",
        "assistant text",
        "assistant tool_use",
        "user tool_result",
        "assistant text",
        "result",
    ]
    assert_like(told, "send-folded-into-running-turn")
    assert set(told[0]["tools"]) == set(TOOLS)
    assert block(told, "tool_use")["input"]["command"] == "echo found"
    assert block(told, "tool_result")["content"] == "found"
    assert block(told, "tool_result")["tool_use_id"] == block(told, "tool_use")["id"]
    result = told[-1]
    assert (result["subtype"], result["result"], result["num_turns"]) == ("success", "Found.", 2)
    assert result["usage"]["output_tokens"] > 0
    assert result["total_cost_usd"] > 0
    assert result["duration_ms"] > 0
    assert len({line["session_id"] for line in told}) == 1


def test_thinking_is_a_block(directory: Path) -> None:
    """What the model thinks comes as a block of its own, as from the CLI."""
    prompt = standin.script([standin.think("Hm, I see."), standin.text("Done.")])
    told = tell(directory, prompt, fake=False)
    assert kinds(told) == ["system", "assistant thinking", "assistant text", "result"]
    assert_like(told, "thinking")
    assert block(told, "thinking")["thinking"] == "Hm, I see."


def test_partial_messages_come_before_their_block(directory: Path) -> None:
    """Deltas come as they are produced, and the whole block behind the last of them."""
    prompt = fake(v.deltas(3, 2), v.tool(), v.text("end"))
    told = tell(directory, prompt, include_partial_messages=True)
    assert kinds(told) == [
        "system",
        *["stream_event"] * 3,
        "assistant text",
        "assistant tool_use",
        "user tool_result",
        "stream_event",
        "assistant text",
        "result",
    ]
    pieces = [line["event"]["delta"]["text"] for line in told[1:4]]
    assert "".join(pieces) == block(told, "text")["text"] == "000102"
    recorded = [line for _, line in recording("partial-messages").lines]
    deltas = [line for line in recorded if line.get("event", {}).get("delta", {}).get("text")]
    assert fits(told[1], deltas[0])


def test_a_block_in_pieces_is_one_dictionary(directory: Path) -> None:
    """A text of more than a mebibyte crosses the wire in pieces and arrives whole."""
    size = 3 << 19
    told = tell(directory, fake(v.deltas(1, size)))
    assert kinds(told) == ["system", "assistant text", "result"]
    assert len(block(told, "text")["text"]) == len(told[-1]["result"]) == size


def test_a_tool_that_needs_permission_is_denied_at_once(directory: Path) -> None:
    """Nothing waits for an answer that a program of this kind does not give."""

    def story(address: str) -> Told:
        with BidirectionalStreamingClient(StreamingConfig(target=address)) as client:
            return list(client.send_message(fake(v.permission())))

    asks = {"default": {"model": "haiku", "permission_policy": "ask"}}
    told = served(directory, story, profiles=asks)
    assert block(told, "tool_result")["is_error"] is True
    assert told[-1]["result"] == "Denied."


def test_a_failed_call_of_the_api_is_told_by_the_result(directory: Path) -> None:
    """As from the CLI it is a `success` that is an error; nothing is raised."""
    told = tell(directory, fake(v.api_error(529)))
    assert kinds(told)[-1] == "result"
    assert_like(told[-1:], "api-529")
    result = told[-1]
    assert (result["subtype"], result["is_error"]) == ("success", True)
    assert (result["api_error_status"], bool(result["result"])) == (529, True)


def test_an_interrupted_turn_ends_as_the_cli_s(directory: Path) -> None:
    """`interrupt` from another thread ends the turn; what was said stays, the process too."""

    def story(address: str) -> tuple[Told, int | None]:
        config = StreamingConfig(target=address)
        with BidirectionalStreamingClient(config) as client:
            assert not client.interrupt()
            told: Told = []
            for line in client.send_message(fake(v.text("begun"), v.hang())):
                told.append(line)
                if line["type"] == "system":
                    stopper = threading.Thread(target=client.interrupt)
                    stopper.start()
            stopper.join(BOUND)
            pid = client.pid
            assert list(client.send_message("Say again"))[-1]["result"] == "again"
            assert client.pid == pid
            return told, pid

    told, pid = served(directory, story)
    result = told[-1]
    assert isinstance(pid, int)
    assert_like([result], "interrupt-mid-stream")
    assert (result["subtype"], result["is_error"]) == ("error_during_execution", True)
    assert "result" not in result


def test_an_interrupt_reaches_what_waits(directory: Path) -> None:
    """One interrupt stops what runs and what waits behind it; both end by a result."""

    async def story() -> Told:
        async with serving(directory, fake=True) as running:
            config = StreamingConfig(target=running.address, timeout=20.0)
            with BidirectionalStreamingClient(config) as client:
                first = client.send_message(fake(v.hang()))
                assert (await asyncio.to_thread(next, first))["type"] == "system"
                second = client.send_message("Say two")
                async with asyncio.TaskGroup() as group:
                    waiting = group.create_task(asyncio.to_thread(list, second))
                    await until(lambda: running.service.sessions.running == 2)
                    assert await asyncio.to_thread(client.interrupt)
                    left = await asyncio.to_thread(list, first)
                return [*left, *waiting.result()]

    ends = asyncio.run(story())
    assert [end["subtype"] for end in ends] == ["error_during_execution"] * 2
    assert ends[1]["num_turns"] == 0


def test_leaving_the_loop_interrupts_the_turn(directory: Path) -> None:
    """The next question gets its own answer, not what was left of the last one."""

    def story(address: str) -> Told:
        with BidirectionalStreamingClient(StreamingConfig(target=address)) as client:
            for line in client.send_message(fake(v.text("left"), v.hang())):
                if line["type"] == "system":
                    break
            return list(client.send_message("Say next"))

    told = served(directory, story)
    assert kinds(told) == ["system", "assistant text", "result"]
    assert told[-1]["result"] == "next"


def test_a_limit_is_told_by_the_result(directory: Path) -> None:
    """A turn whose time is up ends with `error_max_turns`."""

    def story(address: str) -> Told:
        with BidirectionalStreamingClient(StreamingConfig(target=address)) as client:
            return list(client.send_message(fake(v.hang())))

    limited = {"default": {"model": "haiku", "turn_timeout": 0.3}}
    told = served(directory, story, profiles=limited)
    assert (told[-1]["subtype"], told[-1]["is_error"]) == ("error_max_turns", True)


def test_a_timeout_is_raised(directory: Path) -> None:
    """After `timeout` seconds the turn is given up."""
    with pytest.raises(samovar.DeadlineExceeded):
        tell(directory, fake(v.hang()), timeout=0.5)


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"model": "opus-x"}, "model 'opus-x': not allowed by the profile"),
        ({"profile": "none"}, "profile 'none': no such profile"),
        ({"session": "A B"}, "session 'A B': does not match"),
    ],
)
def test_a_refusal_names_the_configuration(
    config: dict[str, Any], said: str, directory: Path
) -> None:
    """What the service does not allow is said in the words of the configuration."""
    with pytest.raises(samovar.RequestInvalid, match=said) as error:
        tell(directory, "Say hello", **config)
    assert error.value.reason == "REQUEST_INVALID"
    assert len(error.value.violations) == 1


def test_what_is_configured_reaches_the_session(directory: Path) -> None:
    """The appended prompt is the agent's, and a named session goes on with another client."""

    def story(address: str) -> tuple[str, list[int | None]]:
        config = StreamingConfig(target=address, session="kept", append_system_prompt="Be brief.")
        pids: list[int | None] = []
        for _ in range(2):
            with BidirectionalStreamingClient(config) as client:
                said = list(client.send_message(fake(v.system_prompt())))[-1]["result"]
                pids.append(client.pid)
        return said, pids

    said, pids = served(directory, story)
    assert said == "Be brief."
    assert len(set(pids)) == 1


def test_two_clients_share_nothing(directory: Path) -> None:
    """Each client has a session of its own, named by a UUID as the CLI's are."""

    def story(address: str) -> list[str]:
        config = StreamingConfig(target=address)
        names = []
        for word in ("one", "two"):
            with BidirectionalStreamingClient(config) as client:
                said = list(client.send_message(fake(v.history())))[-1]["result"]
                assert said.count("history") == 1, word
                names.append(client.session)
        return names

    first, second = served(directory, story)
    assert first != second
    assert re.fullmatch(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", first)


@pytest.mark.parametrize("closes", [False, True])
def test_a_session_ends_with_its_client_if_it_should(closes: bool, directory: Path) -> None:
    """Unless `close_on_exit` is set the conversation is kept."""

    def story(address: str) -> list[str]:
        config = StreamingConfig(target=address, close_on_exit=closes)
        with BidirectionalStreamingClient(config) as client:
            list(client.send_message("Say hello"))
        client.close()
        with samovar.Client(address) as plain:
            return [session.session_id for session in plain.list_sessions()]

    assert len(served(directory, story)) == (not closes)


def test_the_cost_runs_on_and_the_usage_does_not(directory: Path) -> None:
    """As in the CLI `total_cost_usd` is the client's until now, `usage` the turn's."""

    def story(address: str) -> Told:
        with BidirectionalStreamingClient(StreamingConfig(target=address)) as client:
            return [list(client.send_message("Say hello"))[-1] for _ in range(2)]

    first, second = served(directory, story)
    assert second["total_cost_usd"] == pytest.approx(2 * first["total_cost_usd"])
    assert second["usage"] == first["usage"]
