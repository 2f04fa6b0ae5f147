"""An agent's output: lines of the real CLI, changed, doubled, in any order and any pieces.

They go through the real codec, window and mapper up to the messages of the contract. Which turn a
line may speak for is kept a second time here.
"""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from fuzz.lines import INTERRUPT, SESSION, SETTING, Said, corpus, draw
from fuzz.target import Check, Target
from samovard.agent import capabilities, codec
from samovard.agent import frames as f
from samovard.agent.codec import Decoder
from samovard.agent.meter import total_of
from samovard.agent.window import Update, Window
from samovard.core.errors import Misconfigured, NoProcess
from samovard.core.events import Event, PermissionRequested, TurnFinished
from samovard.core.process import Broken, EventOptions, Prompt, Text
from samovard.core.turn.event_log import Batch
from samovard.edge import wire

MAX_LINE = 1 << 20
EXPECTED = capabilities.Expected(None, "default")
LARGEST = 3 << 20  # bytes, of a response: the contract's bound
#: Bytes of responses for each of a line, and for a line of none: an event repeats the ids of its
#: line, and a notice has a sentence of ours.
GROWTH, LEAST = 64, 1024


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

    def read(self, data: bytes) -> Update:
        """Read some bytes, up to the first that break the protocol."""
        update = self.window.take(self.decoder.feed(data))
        self.events += update.events
        self.reports += [update.finished] if update.finished else []
        self.broken = update.broken or self.decoder.failure
        self.asked += [e.permission_id for e in update.events if isinstance(e, PermissionRequested)]
        for id in update.to_deny:
            written(codec.deny(id))
        for id in update.requests:
            written(codec.refuse(id, "not supported"))
        for reply in update.replies:
            total_of(reply)
            try:
                capabilities.check(bytes(reply.response), EXPECTED)
            except (Misconfigured, NoProcess):
                pass
        return update


def written(line: bytes) -> None:
    """Look at a line for the agent: it is one, and JSON."""
    assert (line.count(b"\n"), line[-1:]) == (1, b"\n")
    json.loads(line, parse_int=str)  # an agent's number may have more digits than Python reads


class Binding:
    """Which turn is open, by the agent's own lines: what comes of a line is of that turn."""

    def __init__(self) -> None:
        self.turn = ""
        self.started = self.ended = self.reported = False

    def open(self, turn: str) -> None:
        """Begin a turn."""
        self.__init__()  # type: ignore[misc]  # all of it begins anew
        self.turn = turn

    def look(self, frame: f.Frame, update: Update) -> None:
        """Look at what came of a line, and go on behind it."""
        foreign = frame.session_id not in ("", SESSION)
        assert (update.broken is Broken.FOREIGN) == foreign
        speaks = bool(self.turn) and self.started and not self.ended
        asks = bool(self.turn) and isinstance(frame, f.ControlRequest | f.ControlCancel)
        assert not update.events or (not foreign and (speaks or asks))
        if isinstance(frame, f.Lifecycle) and frame.command_uuid == self.turn and not foreign:
            self._step(frame.state, update)
        else:
            mine = isinstance(frame, f.Result) and self.turn in frame.user_message_uuids
            due = bool(self.turn) and self.started and not self.reported
            assert (update.finished is not None) == (mine and due and not foreign)
            if update.finished is not None:
                self.reported = True
                self._close()

    def _step(self, state: str, update: Update) -> None:
        terminal = state in ("completed", "cancelled", "discarded", "refused")
        withdrawn = terminal and state != "completed" and not (self.started or self.reported)
        assert (update.finished is not None) == (bool(self.turn) and withdrawn)
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
        update = play.read(data + b"\n")
        if frames:
            binding.look(frames[0][0], update)
        _told([*update.events, *([update.finished] if update.finished else [])], len(data))
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


@contextmanager
def checking() -> Iterator[Check]:
    """Read the recordings once."""
    corpus()
    yield check


TARGET = Target("framing", Said, draw, checking)
