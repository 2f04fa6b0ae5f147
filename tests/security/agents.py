"""Agents that lie: lines of other turns and sessions, lines that are too much, and none at all."""

import json
import uuid

from fake_claude import fake, verbs

from samovar.v1 import session_pb2 as pb
from security.actors import Answer
from security.arena import CREDENTIAL, Arena
from security.catalog import attack
from security.tenancy import ELSEWHERE

MIB = 1 << 20
PARTIAL = pb.EventOptions(partial=True)


async def own(arena: Arena, *steps: verbs.Verb) -> Answer:
    """Raise `AssertionError` unless a turn with these steps has its own answer only."""
    answer = await arena.attacker.turn(fake(*steps, verbs.text("own")), event_options=PARTIAL)
    assert (answer.text, answer.result) == ("own", "own"), answer
    return answer


async def lost(arena: Arena, cause: str, *steps: verbs.Verb) -> Answer:
    """Raise `AssertionError` unless a turn with these steps fails for a cause."""
    answer = await arena.attacker.turn(fake(*steps, verbs.text("own")), str(uuid.uuid4())[:8])
    assert answer.reason in ("TURN_LOST", "INTERNAL"), answer
    assert answer.cause == cause, answer
    return answer


def result(turn: str, text: str, **fields: object) -> verbs.Verb:
    """Return a step that writes a report."""
    given = {"user_message_uuids": [turn], "result": text, "subtype": "success", **fields}
    return verbs.line("result", num_turns=1, **given)


@attack("agent.window.Window._result", "plain", without="turn of a report")
async def a_report_of_another_turn(arena: Arena) -> None:
    """A report on a turn that is not the one that runs belongs to no turn."""
    await own(arena, result(ELSEWHERE, "Not yours."))


@attack("agent.window.Window._lifecycle", "plain", without="turn of a step")
async def the_end_of_another_turn(arena: Arena) -> None:
    """What happens to other messages neither begins nor ends the turn that runs."""
    states = ("started", "cancelled", "completed", "refused", "discarded", "invented")
    steps = [verbs.line("command_lifecycle", command_uuid=ELSEWHERE, state=s) for s in states]
    await own(arena, *steps)


@attack("agent.window.Window.take", "plain", without="foreign lines")
async def a_line_of_another_session(arena: Arena) -> None:
    """It ends the process, and nothing of it reaches a caller."""
    answer = await lost(arena, "protocol-violated", verbs.wrong_session_id())
    assert b"Not yours." not in answer.bytes


@attack("agent.window.Window._sort", "plain", without="window's start")
async def a_turn_that_nobody_asked_for(arena: Arena) -> None:
    """What an agent says before a turn has begun, or once it is over, is in no turn."""
    await own(arena, verbs.unsolicited_turn("before"))
    await own(arena, verbs.unsolicited_turn("after"))


@attack("agent.window._Turn.reported", "plain", without="one report")
async def two_reports_of_one_turn(arena: Arena) -> None:
    """The first is the turn's; a second is neither its own nor the next one's."""
    turn = str(uuid.uuid4())
    steps = fake(verbs.text("own"), result(turn, "first"), result(turn, "second"))
    answer = await arena.attacker.turn(steps, turn_id=turn)
    assert answer.result == "first", answer
    assert answer.bytes.count(b"second") == 0
    await own(arena)


@attack("agent.window.Window._request", "plain", without="unasked requests")
async def requests_that_a_profile_does_not_know(arena: Arena) -> None:
    """What an agent asks outside of its profile is denied at once, and shown to no caller."""
    subtypes = ("can_use_tool", "hook_callback", "set_permission_mode", "mcp_message", "x")
    steps = [
        verbs.line(
            "control_request",
            request_id=f"r-{subtype}",
            request={"subtype": subtype, "tool_name": "Bash", "input": {"command": "id"}},
        )
        for subtype in subtypes
    ]
    answer = await own(arena, *steps)
    assert not any(event.HasField("permission_requested") for event in answer.events)


@attack("agent.codec.Decoder._keep", "plain", without="line's length")
async def a_line_without_end(arena: Arena) -> None:
    """Past the longest line that is read the turn is lost, whatever is in it."""
    before = await arena.stats()
    await lost(arena, "line-too-long", verbs.huge_line(arena.scale(3, 40) * MIB))
    assert (await arena.stats())["peak"] - before["peak"] < 48 * MIB


@attack("agent.codec.Decoder._fail", "plain", without="broken lines")
async def lines_that_are_broken(arena: Arena) -> None:
    """Bad UTF-8, two objects in a line, and half a line lose their turn and no other."""
    await lost(arena, "protocol-violated", verbs.bad_utf8())
    await lost(arena, "protocol-violated", verbs.no_newline())


@attack("agent.event_mapper.MAX_BLOCKS", "plain", without="blocks of a line")
async def a_line_of_blocks_without_end(arena: Arena) -> None:
    """Of a line 1,024 blocks are told, and that more were left out."""
    content = [{"type": "text", "text": "x"}] * 5000
    line = verbs.line("assistant", message={"id": "m", "content": content})
    answer = await arena.attacker.turn(fake(line, verbs.text("own")))
    assert answer.result == "own"
    assert len(answer.events) < 1100, len(answer.events)


@attack("agent.event_mapper._id", "plain", without="ids")
async def ids_without_end(arena: Arena) -> None:
    """An agent's ids are cut, and stay different."""
    blocks = [{"type": "tool_use", "id": 50_000 * "i" + end, "name": "x"} for end in "ab"]
    message = {"id": 50_000 * "m", "content": blocks}
    answer = await arena.attacker.turn(fake(verbs.line("assistant", message=message)))
    ids = {e.tool_use.tool_use_id for e in answer.events if e.HasField("tool_use")}
    assert len(ids) == 2, ids
    assert max(map(len, ids)) <= 256


@attack("agent.frames.Tokens", "plain")
async def numbers_without_end(arena: Arena) -> None:
    """Counts, costs and times that no message can hold are bounded."""
    for number in (1e300, -1e300, 2**70, -1, None):
        usage = {"output_tokens": number, "input_tokens": number}
        event = {"type": "message_delta", "usage": usage}
        await own(arena, verbs.line("stream_event", event=event))
    limited = {"status": "rejected", "resetsAt": 1e300}
    await own(arena, verbs.line("rate_limit_event", rate_limit_info=limited))
    retry = {"attempt": 2**70, "retry_delay_ms": 1e300, "error_status": 2**70}
    await own(arena, verbs.line("system", subtype="api_retry", **retry))


@attack("agent.launch.environment", "plain", without="agent's variables")
async def secrets_in_an_agents_environment(arena: Arena) -> None:
    """It has neither the service's variables nor a credential."""
    answer = await arena.attacker.turn(fake(verbs.env()))
    found = json.loads(answer.result)
    assert "PYTHONPATH" not in found, found
    assert CREDENTIAL not in answer.result


@attack("agent.pipes.Pipes.stderr", "plain", without="printable stderr")
async def commands_to_a_terminal_on_stderr(arena: Arena) -> None:
    """What an agent leaves there is in the log as text, on the line of its process."""
    said = 'x\x1b[2J\x07\n{"severity": "CRITICAL", "message": "forged"}\r\x9b31m'
    await lost(arena, "process-died", verbs.stderr(said), verbs.die("mid_text"))
    found = [json.loads(line) for line in arena.log().splitlines() if line.startswith("{")]
    assert not [line for line in found if line["message"] == "forged"]
    texts = [str(line["stderr"]) for line in found if "stderr" in line]
    assert any("forged" in text for text in texts), texts
    assert all(c.isprintable() or c == "\n" for text in texts for c in text)


SHAPES = (
    "sk-ant-api03-0123456789abcdefghij",
    "Bearer abcdefghijklmnop",
    "eyJhbGciOiJub25l.eyJzdWIiOiJ4In0.c2lnbmF0dXJl",
    "AIzaSyA0123456789abcdefghijklmnop",
    "-----BEGIN PRIVATE KEY-----\nMIIabcdef",
)


@attack("telemetry.redaction.without_secrets", "plain", without="redaction")
async def credentials_on_stderr(arena: Arena) -> None:
    """What looks like a credential is in no line of the log."""
    for shape in SHAPES:
        await lost(arena, "process-died", verbs.stderr(f"key {shape}"), verbs.die("mid_text"))
        assert shape.split()[-1] not in arena.log(), shape


@attack("telemetry.redaction.error_text", "plain", without="redaction")
async def credentials_in_an_error(arena: Arena) -> None:
    """The operator gets the text of a failed call without them, callers a sentence of ours."""
    for shape in SHAPES:
        turn = str(uuid.uuid4())
        fields = {"is_error": True, "terminal_reason": "api_error", "api_error_status": 500}
        report = result(turn, f"API Error: 500 refused {shape}", **fields)
        answer = await arena.attacker.turn(fake(report, verbs.text("x")), turn_id=turn)
        assert shape.encode() not in answer.bytes, answer
        assert shape.split()[-1] not in arena.log(), shape
        told = b"\n".join(arena.collector.bodies)
        assert shape.split()[-1].encode() not in told
