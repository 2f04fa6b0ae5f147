"""The life of the process: lines in, turns started, its end.

Knows which messages wait, which turn runs and when it goes on. A turn is a generator that
yields how many seconds to wait, or None for "until told"; an interrupt is thrown into it.
What a turn does is `turn`'s, the answer to a control request `controls`'.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from typing import TYPE_CHECKING, NoReturn

from . import controls
from .faults import die
from .frames import CAPABILITIES, Frames, Json, Totals
from .interrupts import Interrupted, Steps
from .messages import Message
from .output import Output
from .reader import Reader
from .transcript import Transcript
from .turn import Turn, unsolicited

if TYPE_CHECKING:
    from collections.abc import Callable

    from .cli import Options

MORTAL_S = 60


class Agent:
    """The process. `run` returns its exit code; the public fields are what faults bend."""

    def __init__(self, options: Options) -> None:
        self.options = options
        self.reader = Reader()
        self.out = Output()
        self.transcript = Transcript(options.config_dir, options.session_id)
        self.frames = Frames(
            options.session_id, options.model, options.permission_mode, options.key_source
        )
        self.totals = Totals()
        self.capabilities = list(CAPABILITIES)
        self.every_turn: list[Json] = []  # steps put before each turn's own
        self.ignores_eof = False
        self.silent = False  # answers no control request
        self.forgets = False  # finds no conversation
        self.takes_settings = True  # knows `apply_flag_settings`
        self.dies_at_init: Json | None = None
        self.tells_at_exit = False  # of lost writes
        self.flag_env: dict[str, str] = {}
        self.system_prompt = ""
        self.kept: list[object] = []  # memory that a fault holds
        self.queue: list[Message] = []
        self.turn: Turn | None = None
        self._steps: Steps | None = None
        self._wake: float | None = None
        self._later: list[tuple[float, Json]] = []
        self._finished = 0
        self._seen: set[str] = set()
        self._before: set[str] = set()  # messages of earlier processes
        self._leaving = False
        self._mortal = False
        self._ended = False  # stdin did, and was seen to

    # The way out

    def install_signals(self) -> None:
        signal.signal(signal.SIGTERM, lambda *_: os._exit(128 + signal.SIGTERM))
        signal.signal(signal.SIGHUP, lambda *_: os._exit(128 + signal.SIGHUP))
        signal.signal(signal.SIGINT, self._on_int)

    def _on_int(self, *_: object) -> None:
        self._leaving = True
        self.reader.wake()

    def mortal(self) -> None:
        """Limit the remaining life of the process to a minute: otherwise it might hang for ever."""
        if not self._mortal:
            signal.alarm(MORTAL_S)
        self._mortal = True

    def run(self) -> int:
        """Read lines and run turns, until the end of stdin or SIGINT. Return the exit code."""
        self._before = self.transcript.uuids()
        self.totals.models = self.transcript.totals()
        while not self._done():
            for line in self.reader.wait(self._timeout()):
                if not self.reader.stopped:
                    self._line(line)
            if self.reader.eof and not self._ended:
                self._on_eof()
            if self._leaving and self._steps is not None:
                self._throw(Interrupted(None, exits=True))
            self._resume()
            self._start()
        self._leave()
        return 0

    def _done(self) -> bool:
        if self._steps is not None:
            return False
        return self._leaving or (self.reader.eof and not self.queue and not self.ignores_eof)

    def _on_eof(self) -> None:
        self._ended = True
        self.mortal()
        for message in self.queue:
            message.release()
        if self.turn and self.turn.asking:
            self._step(self._steps)

    def _leave(self) -> None:
        if self.totals.models:
            self.transcript.save("totals", self.frames.uuid(), models=self.totals.models)
        if self.tells_at_exit:
            self.tell_writes_lost()

    # Out

    def write(self, line: Json) -> None:
        self.out.write(line)

    def lifecycle(self, command: str, state: str) -> None:
        if self.capabilities:
            self.write(self.frames.lifecycle(command, state))

    def state(self, state: str) -> None:
        if self.options.state_events:
            self.write(self.frames.state(state))

    def idle(self) -> None:
        if not self.queue:
            self.state("idle")

    def later(self, seconds: float, line: Json) -> None:
        """Write a line when the time has come, even if another turn runs then."""
        self._later.append((time.monotonic() + seconds, line))

    def save(self, kind: str, uuid: str, message: Json) -> None:
        """Write an entry of the transcript, and report the first failure to do so."""
        told = bool(self.transcript.lost)
        self.transcript.save(kind, uuid, message=message)
        if self.transcript.lost and not told:
            self.tell_writes_lost()

    def tell_writes_lost(self) -> None:
        self.transcript.lost = self.transcript.lost or "ENOSPC"
        fields = {"error_code": self.transcript.lost, "lost": ["transcript"]}
        sessions = [self.frames.session_id]
        self.write(
            self.frames.system("session_writes_lost", **fields, transcript_session_ids=sessions)
        )

    # In

    def _line(self, raw: bytes) -> None:
        if not raw.strip():
            return
        try:
            line = json.loads(raw.decode())
        except ValueError as error:
            _reject(f"Error parsing streaming input line: {error}")
        if line is None:
            _reject("Error parsing streaming input line: null")
        kind = line.get("type") if isinstance(line, dict) else None
        if kind == "user":
            self._user(line)
        elif kind == "control_request":
            self._request(line)
        elif kind == "control_response":
            self._response(line.get("response") or {})

    def _user(self, line: Json) -> None:
        message = line.get("message")
        if not isinstance(message, dict) or message.get("role") != "user":
            _reject("Error: Expected message role 'user'")
        uuid, content = line.get("uuid") or self.frames.uuid(), message.get("content")
        if not isinstance(content, str | list) or uuid in self._seen:
            return
        self._seen.add(uuid)
        if uuid in self._before:
            self.lifecycle(uuid, "completed")
            self.idle()
            return
        self._start()  # the message before this one starts alone
        self._enqueue(Message(uuid, content))

    def _enqueue(self, message: Message) -> None:
        if self._steps is None and not self.queue:
            self.state("running")
        self.queue.append(message)
        steps = self.every_turn + message.steps
        if {"do": "unsolicited_turn", "when": "before"} in steps:
            unsolicited(self, lambda: self.lifecycle(message.uuid, "queued"))
        else:
            self.lifecycle(message.uuid, "queued")

    def _request(self, line: Json) -> None:
        request = line.get("request")
        if not isinstance(request, dict):
            _reject("Error: control_request without request")
        if self.dies_at_init and request.get("subtype") == "initialize":
            die(self.dies_at_init)
        if not self.silent:
            controls.answer(self, str(line.get("request_id")), request)

    def _response(self, response: Json) -> None:
        if self.turn and self.turn.asking and response.get("request_id") == self.turn.asking:
            self.turn.answer = response
            self._step(self._steps)

    def interrupt(self, request_id: str, *, cancel_queued: bool) -> None:
        """Cancel queued messages, if asked to, and end the turn that runs."""
        kept = [m for m in self.queue if not cancel_queued or m.held == "still_queued"]
        cancelled = [m.uuid for m in self.queue if m not in kept]
        for uuid in cancelled:
            self.lifecycle(uuid, "cancelled")
        first = self._finished == 0 and not any(m.held == "still_queued" for m in kept)
        self.queue = kept
        receipt: Json = {"still_queued": [m.uuid for m in kept]}
        receipt |= {"cancelled": cancelled} if cancel_queued else {}
        if self._steps is not None:
            self._throw(Interrupted(lambda: controls.succeed(self, request_id, receipt)))
            return
        controls.succeed(self, request_id, receipt)
        for message in kept:
            message.release()
            message.aborts = first  # a warm process runs it to its end
        if cancelled:
            self.idle()

    # Turns

    def _start(self) -> None:
        if self._steps is not None or self._leaving:
            return
        if self.queue and not any(message.held for message in self.queue):
            messages, self.queue = self.queue, []
            self.turn = Turn(self, messages)
            self._steps = self.turn.window()
            self._step(self._steps)

    def _step(self, steps: Steps | None) -> None:
        if steps is not None:
            self._go_on(lambda: next(steps))

    def _throw(self, stop: Interrupted) -> None:
        steps = self._steps
        if steps is not None:
            self._go_on(lambda: steps.throw(stop))

    def _go_on(self, resume: Callable[[], float | None]) -> None:
        try:
            seconds = resume()
        except StopIteration:
            self._steps = self._wake = self.turn = None
            self._finished += 1
        else:
            self._wake = None if seconds is None else time.monotonic() + seconds

    def _timeout(self) -> float | None:
        due = [when for when, _ in self._later]
        due += [] if self._wake is None else [self._wake]
        return max(0.0, min(due) - time.monotonic()) if due else None

    def _resume(self) -> None:
        now = time.monotonic()
        for item in [item for item in self._later if item[0] <= now]:
            self._later.remove(item)
            self.write(item[1])
        if self._wake is not None and self._wake <= now:
            self._step(self._steps)


def _reject(why: str) -> NoReturn:
    sys.stderr.write(why + "\n")
    sys.stderr.flush()
    os._exit(1)
