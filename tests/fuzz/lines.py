"""Lines of an agent: those of the real CLI, one of each shape, and what is made of them."""

import copy
import functools
import json
from collections.abc import Iterator
from random import Random
from typing import Any

from msgspec import Struct
from support.recordings import NAMES, encoded, recording

from fuzz.drawing import edited

SESSION = "session"
TURNS = ("turn-a", "turn-b", "turn-c")
INTERRUPT, SETTING, ASKED = "samovar-1", "samovar-2", "asked-1"
DIGITS = "digits"  # stands for a number that Python does not read
VALUES: tuple[Any, ...] = (
    DIGITS,
    *(None, True, 0, -1, 2**31, 2**63, 2**64, 1e308, -0.5, "", "x" * 300, "y" * 5000, [], {}),
    *("\ud83d", "\ude00", "\u00e9\U0001f600\u2028", [[[]]], {"type": "result"}, ["\ud83d"]),
    *(
        SESSION,
        *TURNS,
        INTERRUPT,
        SETTING,
        ASKED,
        "completed",
        "started",
        "cancelled",
        "running",
        "idle",
    ),
    *("text", "tool_use", "tool_result", "can_use_tool", "text_delta", "message_start"),
    *("content_block_delta", "content_block_stop", "message_stop", "control_request"),
)


#: What the recordings lack: halves of pairs, in more than one block.
STREAMED: tuple[dict[str, Any], ...] = (
    {"type": "message_start", "message": {"id": "m", "usage": {"input_tokens": 1}}},
    *(
        {
            "type": "content_block_delta",
            "index": index,
            "delta": {"type": "text_delta", "text": half},
        }
        for half in ("a\ud83d", "\ude00b", "\ud83d\ude00", "\u00e9")
        for index in (0, 1)
    ),
    {"type": "content_block_delta", "delta": {"type": "thinking_delta", "thinking": "\ud83d"}},
    {"type": "content_block_stop", "index": 0},
)


class Said(Struct, frozen=True):
    """What happens to an agent: steps, the sizes of the pieces that are read, and options.

    A step is a line of the agent, or `open`, `interrupt`, `setting` and `answer` of ours.
    """

    steps: list[tuple[str, bytes]]
    cuts: list[int]
    asks: bool
    structured: bool
    options: list[bool]


@functools.cache
def corpus() -> list[bytes]:
    """Return lines of the real CLI, one of each shape, as one session with few turns."""
    found: dict[str, bytes] = {}
    for name in NAMES:
        turns = iter(TURNS * 10)
        ids = {
            line["uuid"]: next(turns) for way, line in recording(name).lines if _is_turn(way, line)
        }
        for way, line in recording(name).lines:
            if way == "out":
                own = {"session_id": SESSION} if "session_id" in line else {}
                text = encoded(line | own).decode().rstrip()
                for id, turn in ids.items():
                    text = text.replace(id, turn)
                for id, ours in _requests(line):
                    text = text.replace(f'"{id}"', f'"{ours}"')
                if len(text) < 3000:
                    found.setdefault(_shape(line), text.encode())
    return [*found.values(), *map(_streamed, STREAMED)]


def _streamed(event: dict[str, Any]) -> bytes:
    return json.dumps({"type": "stream_event", "session_id": SESSION, "event": event}).encode()


def _requests(line: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield the ids of requests that a line names, and what is to stand for each."""
    if line["type"] in ("control_request", "control_cancel_request"):
        yield line["request_id"], ASKED
    elif line["type"] == "control_response":
        yield line["response"]["request_id"], INTERRUPT


@functools.cache
def _controls() -> list[list[bytes]]:
    """Return those that ask, withdraw a question, and answer ours."""
    kinds = ("control_request", "control_cancel_request", "control_response")
    return [[line for line in corpus() if f'"type":"{kind}"'.encode() in line] for kind in kinds]


def _is_turn(way: str, line: dict[str, Any]) -> bool:
    return way == "in" and line["type"] == "user" and "uuid" in line


def _shape(value: Any) -> str:
    if isinstance(value, dict):
        words = [str(value[name]) for name in ("type", "subtype", "state") if name in value]
        return "".join([*words, *(name + _shape(part) for name, part in value.items())])
    return "".join(map(_shape, value[:3])) if isinstance(value, list) else ""


def draw(draw: Random) -> Said:
    """Draw a conversation of a few turns, in which things go wrong."""
    steps: list[tuple[str, bytes]] = []
    for turn in TURNS[: draw.choice((1, 1, 2, 3))]:
        steps += _turn(draw, turn)
    for _ in range(draw.choice((0, 0, 1, 3))):
        at = draw.randrange(len(steps))
        match draw.randrange(4):
            case 0:
                del steps[at]
            case 1:
                steps.insert(draw.randint(0, len(steps)), steps[at])
            case 2:
                steps.insert(at, (draw.choice(("interrupt", "setting", "answer")), b""))
            case 3:
                steps.insert(at, ("line", _line(draw)))
        if not steps:
            break
    cuts = [draw.choice((1, 2, 7, 64, 1000)) for _ in range(draw.choice((1, 3)))]
    if draw.random() < 0.8:
        cuts = [size + 100 for size in cuts]  # small pieces of much take long
    flags = [draw.random() < 0.7 for _ in range(5)]
    return Said(steps, cuts, flags[0], flags[1], flags[2:])


def _turn(draw: Random, turn: str) -> list[tuple[str, bytes]]:
    says = [_line(draw, turn) for _ in range(draw.randrange(8))]
    late = [_line(draw, turn) for _ in range(draw.choice((0, 0, 0, 1, 2)))]
    lines = [
        _system("running"),
        _lifecycle(turn, "queued"),
        _lifecycle(turn, "started"),
        *says,
        _result(turn),
        *late[1:],
        _lifecycle(turn, "completed"),
        *late[:1],
        _system("idle"),
    ]
    return [("open", turn.encode()), *(("line", line) for line in lines)]


def _line(draw: Random, turn: str = TURNS[0]) -> bytes:
    found = corpus(), corpus(), *_controls(), corpus()[-len(STREAMED) :]
    line = draw.choice(draw.choice(found))
    way = draw.random()
    if way < 0.4:
        value = json.loads(line)
        for _ in range(draw.randint(1, 3)):
            _alter(draw, value)
        text = json.dumps(value, ensure_ascii=draw.random() < 0.9)
        line = text.encode("utf-8", "replace").replace(f'"{DIGITS}"'.encode(), b"9" * 5000)
    elif way < 0.42:
        line = edited(draw, line).replace(b"\n", b"")
    elif way < 0.44:
        line = draw.choice((b"", b" ", b"{", b"noise", b"[]", b'{"type":"\\q"}', b"{" * 5000))
    return line.replace(TURNS[0].encode(), turn.encode())


def _alter(draw: Random, value: Any) -> None:
    """Change one place of a value, the deeper the likelier."""
    keys = [*value] if isinstance(value, dict) else [*range(len(value))]
    if not keys:
        return
    at = draw.choice(keys)
    if isinstance(value[at], dict | list) and value[at] and draw.random() < 0.8:
        _alter(draw, value[at])
    elif isinstance(value, dict) and draw.random() < 0.2:
        value["unknown"] = draw.choice((DIGITS, copy.deepcopy(draw.choice(VALUES))))
    elif draw.random() < 0.2:
        del value[at]
    elif isinstance(value, list) and draw.random() < 0.3:
        value += [value[at]] * draw.choice((1, 3, 1100))
    else:
        value[at] = copy.deepcopy(draw.choice(VALUES))


def _lifecycle(turn: str, state: str) -> bytes:
    line = {"type": "command_lifecycle", "command_uuid": turn, "state": state}
    return json.dumps(line | {"session_id": SESSION}).encode()


def _system(state: str) -> bytes:
    line = {"type": "system", "subtype": "session_state_changed", "state": state}
    return json.dumps(line | {"session_id": SESSION}).encode()


def _result(turn: str) -> bytes:
    line = {"type": "result", "user_message_uuids": [turn], "terminal_reason": "completed"}
    return json.dumps(line | {"result": "done", "session_id": SESSION}).encode()
