"""Assign frames to the one turn that they answer, without I/O.

What a turn is on this wire. A message is written under the turn's own UUID. The CLI answers with
lifecycle lines of that id, of which `started` and a terminal one matter. A turn is exactly what
lies between these two. Its `result` names the ids that it answers, and may stand on either side of
the terminal line (measured on claude 2.1.330). Results are never counted.

* Before `started` a frame is no turn's: it is counted as unsolicited, and told to no stream.
* A message that we did not write has an id of its own, and makes the process unquiet until its end.
* A line of another session ends the process: one tenant's words must not reach another (2, 9 of
  core/pool/states.py).

When the CLI is quiet. Nothing may be owed: no end of a turn, no answer to an interrupt, no answer
to a change of settings. And nothing may run unasked: no state but idle, no background task. Only
then `quiet` is true, and the process may be given the next turn (8).

The trap: an interrupt may take a message out of the queue before it has started, and may leave one
there. Its answer names both kinds. A turn that was taken out ends as interrupted; where the answer
does not name it, or something is still queued, that may run yet, and the process is used no more.

Do not match by order, by count or by time, and do not take a type of frame for granted: an unknown
one is told as unrecognized, and never ends a turn.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, field

import msgspec

from samovard.agent import frames as f
from samovard.agent import report
from samovard.agent.codec import Line
from samovard.agent.event_mapper import EventMapper
from samovard.agent.failure import before_prompt
from samovard.agent.progress import ProgressTracker
from samovard.core.events import Event, Outcome, TurnFinished, Usage
from samovard.core.process import Broken, Doing, Prompt, Text

KEPT_OF_PROMPT = 64 << 10  # characters, to recognize an error text that repeats them
MAX_ASKED = 64 << 20  # bytes of the inputs of tools that wait for an answer
_TERMINAL = ("completed", "cancelled", "discarded", "refused")
_TURN_FRAMES = (f.Assistant, f.User, f.StreamEvent, f.Result)


@dataclass(slots=True)
class Update:
    """What one read contained: for the turn, for the process, and requests to be answered.

    `size` is the bytes of the lines that `events` were made from; `said` the CLI's text of a failed
    call of the API. `already_run` is set when the CLI refused the turn's message because its
    transcript has it. `to_deny` are permission requests that no caller is asked about,
    `to_decline` questions of MCP servers, `requests` those of other kinds.
    """

    events: list[Event] = field(default_factory=list)
    size: int = 0
    doing: Doing | None = None  # if it changed or there was progress
    progress: bool = False
    waits: float = 0.0
    steps: int = 0
    spent: bool = False
    total_cost_usd: float | None = None  # of the session, with a report
    finished: TurnFinished | None = None
    said: str = ""
    already_run: bool = False
    unsolicited: int = 0
    broken: Broken | None = None
    replies: list[f.Reply] = field(default_factory=list)
    to_deny: list[str] = field(default_factory=list)
    to_decline: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)
    untraced: bool = False  # a turn's context was refused
    unparked: bool = False  # so was the parked context that should have followed


@dataclass(slots=True)
class _Turn:
    """The turn whose message was written last."""

    turn_id: str
    mapper: EventMapper
    prompt: str = ""  # the beginning of its text
    progress: ProgressTracker = field(default_factory=ProgressTracker)
    doing: Doing = Doing.MODEL  # this and the steps: as last reported
    steps: int = 0
    resets_at: float | None = None  # wall time at which the API takes requests again
    delay: float | None = None  # or the seconds until then, as of its last request
    word: str = ""  # the CLI's word for the API call that failed last
    started: bool = False
    reported: bool = False
    ended: str = ""


class Window:
    """Assigner of the frames of one CLI, whose own session is `agent_session`.

    With `asks`, its permission requests are events of its turn. `mode` is the permission mode that
    it must be in, if that matters; with `structured` a turn's result must be of the form that was
    asked for; `wall` returns the seconds since the epoch.
    """

    def __init__(
        self,
        agent_session: str,
        *,
        asks: bool = False,
        mode: str = "",
        structured: bool = False,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._agent_session = agent_session
        self._asks = asks
        self._mode = mode
        self._structured = structured
        self._wall = wall
        self._directory = ""  # where the CLI works, as it first said
        self._asked: dict[str, f.Asked] = {}  # by request id: what waits for an answer
        self._turn: _Turn | None = None
        self._others: set[str] = set()  # started messages that no caller sent
        self._interrupt = ""  # the request whose answer is still owed
        self._settings: dict[str, bool] = {}  # such requests, and whether they must be obeyed
        self._withdrawn: set[str] = set()  # messages that an interrupt took out of the queue
        self._running = False
        self._background = False
        self._dirty = False
        self._used: dict[str, f.ModelUsage] = {}
        self._last_result = -1
        self.resume_failed = False

    def __repr__(self) -> str:
        turn = self._turn
        at = f"{turn.turn_id} started={turn.started} ended={turn.ended!r}" if turn else "closed"
        return f"<Window {at} quiet={self.quiet}>"

    @property
    def spent(self) -> Usage:
        """The usage of the turn whose end has not arrived yet, as far as it is known without its
        report.
        """
        return self._turn.mapper.spent if self._turn is not None else Usage()

    @property
    def quiet(self) -> bool:
        """True if the CLI is proven quiet, as far as its lines tell.

        Nothing is outstanding: no report or end of a turn, no answer to an interrupt; and no turn
        runs that was not asked for.
        """
        owed = self._turn is not None or self._others or self._interrupt or self._settings
        return not (owed or self._running or self._background or self._dirty)

    def open(self, prompt: Prompt) -> None:
        """Expect the turn of a message that is about to be written."""
        most = KEPT_OF_PROMPT
        texts = [block.data[: 4 * most] for block in prompt.content if isinstance(block, Text)]
        text = b"\n".join(texts).decode("utf-8", "ignore")[:most]
        self._turn = _Turn(prompt.turn_id, EventMapper(prompt.options), text)
        self._withdrawn.clear()
        self._asked.clear()

    def answered(self, request_id: str) -> f.Asked | None:
        """Return an open permission request and forget it: it is about to be answered."""
        return self._asked.pop(request_id, None)

    def interrupting(self, request_id: str) -> None:
        """Expect the answer to an interrupt that is about to be written."""
        self._interrupt = request_id

    def setting(self, request_id: str, *, must: bool) -> None:
        """Expect the answer to a setting.

        A CLI that refuses one that it `must` obey becomes dirty.
        """
        self._settings[request_id] = must

    def take(self, lines: list[Line]) -> Update:
        """Assign frames, up to the first that breaks the protocol."""
        update = Update()
        for frame, line in lines:
            if frame.session_id and frame.session_id != self._agent_session:
                update.broken = Broken.FOREIGN
                break
            self._sort(frame, line, update)
        if self._turn is not None:
            _progress(self._turn, update)
        return update

    def _sort(self, frame: f.Frame, line: bytes, update: Update) -> None:
        turn = self._turn
        ours = turn is not None and turn.started and not turn.ended
        if type(frame) is f.Lifecycle:
            self._lifecycle(frame, update)
        elif type(frame) is f.Result:
            self._result(frame, line, update)
        elif type(frame) is f.ControlResponse:
            self._reply(frame.response, update)
        elif type(frame) is f.ControlRequest:
            self._request(frame, line, update)
        elif type(frame) is f.ControlCancel:
            # A question that comes after its turn's end is void.
            if self._asked.pop(frame.request_id, None) is not None and turn is not None:
                self._tell(frame, line, update)
        elif type(frame) is f.ConversationReset:
            self._dirty = True
        elif type(frame) is f.Unknown and frame.type == "control_request":
            update.requests.append(frame.request_id)
        elif ours and turn is not None:
            turn.progress.take(frame)
            if type(frame) is not f.StreamEvent:
                _note(turn, frame)
            self._tell(frame, line, update)
        elif isinstance(frame, _TURN_FRAMES) or _is_init(frame):
            update.unsolicited += 1
        if type(frame) is f.System:
            self._system(frame)

    def _tell(self, frame: f.Frame, line: bytes, update: Update) -> None:
        assert self._turn is not None
        events = self._turn.mapper.events_of(frame, line)
        if events:
            update.events += events
            update.size += len(line)

    def _system(self, frame: f.System) -> None:
        if frame.subtype == "session_state_changed":
            self._running = frame.state == "running"
        elif frame.subtype == "background_tasks_changed":
            self._background = bool(frame.tasks)
        elif frame.subtype == "init":
            self._directory = self._directory or frame.cwd
            # It no longer runs as it was started: another mode allows other tools.
            self._dirty |= frame.cwd != self._directory
            self._dirty |= bool(self._mode) and frame.permission_mode != self._mode

    def _lifecycle(self, frame: f.Lifecycle, update: Update) -> None:
        turn = self._turn
        if turn is None or frame.command_uuid != turn.turn_id:
            if frame.state == "started":
                self._others.add(frame.command_uuid)
                update.unsolicited += 1
            elif frame.state in _TERMINAL:
                self._others.discard(frame.command_uuid)
        elif frame.state == "started":
            turn.started = True
        elif frame.state in _TERMINAL:
            turn.ended = frame.state
            self._end(turn, update)

    def _end(self, turn: _Turn, update: Update) -> None:
        """End the window, unless a turn that started still has to report.

        The message of a turn that never started was run before, or withdrawn by an interrupt.
        """
        if not turn.reported:
            if turn.started:
                return  # the report has not arrived yet
            if turn.ended == "completed":
                update.already_run = True
            else:
                self._withdrawn.add(turn.turn_id)
                update.finished = TurnFinished(Outcome.INTERRUPTED)
        self._turn = None

    def _result(self, frame: f.Result, line: bytes, update: Update) -> None:
        if frame.result_index is not None:
            # A gap means that a line was lost.
            self._dirty |= frame.result_index != self._last_result + 1
            self._last_result = frame.result_index
        turn = self._turn
        if (
            turn is None
            or turn.reported
            or not turn.started
            or turn.turn_id not in frame.user_message_uuids
        ):
            self.resume_failed |= frame.is_error and frame.num_turns == 0
            update.unsolicited += 1
        else:
            turn.reported = True
            finished = report.finished(
                frame,
                self._used,
                turn.progress.answers,
                _resets(turn, self._wall()),
                word=turn.word,
                structured=self._structured,
            )
            if turn.word or finished.upstream_status:
                update.said = before_prompt(frame.result, turn.prompt)
            update.finished = turn.mapper.with_line(finished, frame, line)
            if turn.ended:
                self._turn = None
        self._used = frame.model_usage or self._used
        update.total_cost_usd = frame.total_cost_usd

    def _reply(self, reply: f.Reply, update: Update) -> None:
        if self._interrupt and reply.request_id == self._interrupt:
            self._interrupt = ""
            receipt = _receipt(reply)
            withdrawn = set(receipt.cancelled) if receipt else set()
            # Without a receipt of its own, a withdrawn message may still run.
            unexplained = self._withdrawn - withdrawn
            self._dirty |= receipt is None or bool(receipt.still_queued or unexplained)
        elif (must := self._settings.pop(reply.request_id, None)) is not None:
            refused = reply.subtype != "success"
            self._dirty |= refused and must
            update.unparked |= refused and must
            update.untraced |= refused and not must
        else:
            update.replies.append(reply)

    def _request(self, frame: f.ControlRequest, line: bytes, update: Update) -> None:
        turn = self._turn
        held = sum(len(asked.input) for asked in self._asked.values())
        if frame.request.subtype == "elicitation":
            update.to_decline.append(frame.request_id)
        elif frame.request.subtype != "can_use_tool":
            update.requests.append(frame.request_id)
        elif (
            self._asks
            and turn is not None
            and turn.started
            and not turn.reported
            and held + len(line) <= MAX_ASKED
        ):
            self._asked[frame.request_id] = frame.request
            self._tell(frame, line, update)
        else:
            update.to_deny.append(frame.request_id)


def _note(turn: _Turn, frame: f.Frame) -> None:
    """Keep what a frame says of the API that the report does not."""
    if type(frame) is f.RateLimit and frame.rate_limit_info.status == "rejected":
        turn.resets_at = frame.rate_limit_info.resets_at
    elif type(frame) is f.System and frame.subtype == "api_retry":
        limited = frame.error_status == report.RATE_LIMITED
        turn.delay = (frame.retry_delay_ms or 0.0) / 1000 if limited else None
    elif type(frame) is f.Assistant and not frame.parent_tool_use_id:
        turn.word = frame.error or ""
        if not turn.word:
            turn.delay = None  # it took requests again


def _resets(turn: _Turn, now: float) -> float | None:
    """Return the seconds until the API takes requests again, or None if it did not say."""
    return turn.delay if turn.resets_at is None else max(turn.resets_at - now, 0.0)


def _progress(turn: _Turn, update: Update) -> None:
    """Report the agent's current activity, if it has changed."""
    progress, waits = turn.progress.since_last()
    update.spent, turn.progress.spent = turn.progress.spent, False
    doing, steps = turn.progress.doing, turn.progress.steps
    if progress or waits or doing is not turn.doing or steps != turn.steps:
        turn.doing = update.doing = doing
        turn.steps = update.steps = steps
        update.progress, update.waits = progress, waits


class _Receipt(msgspec.Struct):
    still_queued: list[str] = msgspec.field(default_factory=list)
    cancelled: list[str] = msgspec.field(default_factory=list)


def _receipt(reply: f.Reply) -> _Receipt | None:
    """Return the answer to an interrupt, or None if it is not one."""
    if reply.subtype != "success":
        return None
    try:
        return msgspec.json.decode(reply.response, type=_Receipt)
    except msgspec.ValidationError:
        return None


def _is_init(frame: f.Frame) -> bool:
    return isinstance(frame, f.System) and frame.subtype == "init"
