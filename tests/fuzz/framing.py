"""What an agent writes: lines of the real CLI, changed, doubled, in any order and any pieces.

They go through the real codec, window and narrator up to the messages of the contract. Which
turn a line may speak for is kept a second time here.
"""

import copy
import functools
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from random import Random
from typing import Any

from msgspec import Struct
from recordings import NAMES, encoded, recording

from fuzz.drawing import edited
from fuzz.target import Check, Target
from samovard.agent import capabilities, codec
from samovard.agent import frames as f
from samovard.agent.codec import Decoder
from samovard.agent.meter import total_of
from samovard.agent.window import Reading, Window
from samovard.core.backlog import Batch
from samovard.core.errors import Misconfigured, NoProcess
from samovard.core.events import Event, PermissionRequested, TurnFinished
from samovard.core.process import Broken, EventOptions, Prompt, Text
from samovard.edge import wire

SESSION = "session"
TURNS = ("turn-a", "turn-b", "turn-c")
INTERRUPT, SETTING, ASKED = "samovar-1", "samovar-2", "asked-1"
MAX_LINE = 1 << 20
EXPECTED = capabilities.Expected(None, "default")
LARGEST = 3 << 20  # bytes, of a response: the contract's bound
#: Bytes of responses for each of a line, and for a line of none: an event repeats the ids of its
#: line, and a notice has a sentence of ours.
GROWTH, LEAST = 64, 1024
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


class Play:
    """One agent, its reader, and what came of what it wrote."""

    def __init__(self, said: Said) -> None:
        partial, thinking, raw = said.options
        self.options = EventOptions(partial=partial, thinking=thinking, raw_json=raw)
        self.decoder = Decoder(MAX_LINE)
        self.window = Window(SESSION, asks=said.asks, structured=said.structured, wall=lambda: 0.0)
        self.events: list[Event] = []
        self.reports: list[TurnFinished] = []
        self.broken: Broken | None = None
        self.asked: list[str] = []

    def act(self, step: str, data: bytes) -> bool:
        """Do one of our steps. Return whether a turn was opened."""
        match step:
            case "open" if self.window.quiet:  # another agent is never given a prompt
                self.window.open(Prompt(data.decode(), (Text(b"x"),), self.options))
                return True
            case "interrupt":
                self.window.interrupting(INTERRUPT)
            case "setting":
                self.window.setting(SETTING, must=False)
            case "answer" if self.asked:
                if (asked := self.window.answered(id := self.asked.pop())) is not None:
                    written(codec.allow(id, asked.input))
        return False

    def read(self, data: bytes) -> Reading:
        """Read some bytes, up to the first that break the protocol."""
        reading = self.window.take(self.decoder.feed(data))
        self.events += reading.events
        self.reports += [reading.finished] if reading.finished else []
        self.broken = reading.broken or self.decoder.failure
        self.asked += [
            e.permission_id for e in reading.events if isinstance(e, PermissionRequested)
        ]
        for id in reading.unasked:
            written(codec.deny(id))
        for id in reading.requests:
            written(codec.refuse(id, "not supported"))
        for reply in reading.replies:
            total_of(reply)
            try:
                capabilities.check(bytes(reply.response), EXPECTED)
            except (Misconfigured, NoProcess):
                pass
        return reading


def written(line: bytes) -> None:
    """Look at a line for the agent: it is one, and JSON."""
    assert (line.count(b"\n"), line[-1:]) == (1, b"\n")
    json.loads(line)


class Binding:
    """Which turn is open, by the agent's own lines: what comes of a line is of that turn."""

    def __init__(self) -> None:
        self.turn = ""
        self.started = self.ended = self.reported = False

    def open(self, turn: str) -> None:
        """Begin a turn."""
        self.__init__()  # type: ignore[misc]  # all of it begins anew
        self.turn = turn

    def look(self, frame: f.Frame, reading: Reading) -> None:
        """Look at what came of a line, and go on behind it."""
        foreign = frame.session_id not in ("", SESSION)
        assert (reading.broken is Broken.FOREIGN) == foreign
        speaks = bool(self.turn) and self.started and not self.ended
        asks = bool(self.turn) and isinstance(frame, f.ControlRequest | f.ControlCancel)
        assert not reading.events or (not foreign and (speaks or asks))
        if isinstance(frame, f.Lifecycle) and frame.command_uuid == self.turn and not foreign:
            self._step(frame.state, reading)
        else:
            mine = isinstance(frame, f.Result) and self.turn in frame.user_message_uuids
            due = bool(self.turn) and self.started and not self.reported
            assert (reading.finished is not None) == (mine and due and not foreign)
            if reading.finished is not None:
                self.reported = True
                self._close()

    def _step(self, state: str, reading: Reading) -> None:
        terminal = state in ("completed", "cancelled", "discarded", "refused")
        withdrawn = terminal and state != "completed" and not (self.started or self.reported)
        assert (reading.finished is not None) == (bool(self.turn) and withdrawn)
        if state == "started":
            self.started = True
        elif terminal:
            self.ended = True
            self.reported |= not self.started
            self._close()

    def _close(self) -> None:
        if self.ended and self.reported:
            self.turn = ""


def check(said: Said) -> None:
    """Play it line by line and in pieces: the same comes of both."""
    whole, pieces = Play(said), Play(said)
    _line_by_line(said, whole)
    _in_pieces(said, pieces)
    assert (pieces.events, pieces.reports) == (whole.events, whole.reports)
    assert pieces.broken == whole.broken


def _line_by_line(said: Said, play: Play) -> None:
    binding = Binding()
    for step, data in said.steps:
        if step != "line":
            if play.act(step, data):
                binding.open(data.decode())
            continue
        frames = Decoder(MAX_LINE).feed(data + b"\n")
        reading = play.read(data + b"\n")
        if frames:
            binding.look(frames[0][0], reading)
        _told([*reading.events, *([reading.finished] if reading.finished else [])], len(data))
        if play.broken is not None:
            break


def _in_pieces(said: Said, play: Play) -> None:
    waiting = b""
    for step, data in (*said.steps, ("end", b"")):
        if step == "line":
            waiting += data + b"\n"
            continue
        for piece in _cut(waiting, said.cuts):
            play.read(piece)
            if play.broken is not None:
                return
        waiting = b""
        play.act(step, data)


def _cut(data: bytes, sizes: Sequence[int]) -> Iterator[bytes]:
    number = 0
    while data:
        size = sizes[number % len(sizes)] if sizes else len(data)
        yield data[:size]
        data, number = data[size:], number + 1


def _told(events: Sequence[Event], size: int) -> None:
    """Look at what callers get of the events of a line."""
    if not events:
        return
    sizes = [
        len(response.SerializeToString())
        for response in wire.send_responses([Batch(1, 0.0, events, size)])
    ]
    assert max(sizes) <= LARGEST
    assert sum(sizes) <= GROWTH * size + LEAST, f"{sum(sizes)} bytes of a line of {size}"


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


@contextmanager
def checking() -> Iterator[Check]:
    """Read the recordings once."""
    corpus()
    yield check


TARGET = Target("framing", Said, draw, checking)
