"""The interface of an agent process, which `agent` implements.

A process is one running agent that belongs to one session for its whole life. This module does
not depend on pipes, signals or the command line.
"""

import enum
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from samovard.core.events import Event, TurnFinished, Usage


class Broken(enum.Enum):
    """How a process broke the protocol. Each of these ends the process."""

    # The values are causes in errors, logs and counters: changing one changes what users see.
    UNPARSABLE = "protocol-violated"
    FOREIGN = "foreign-session"
    LINE_TOO_LONG = "line-too-long"
    STALLED = "stalled"


class Doing(enum.Enum):
    """The activity of an agent in a turn: it calls the model, waits for tools, or compacts."""

    # The values are the names of the fields of `Patience` that apply.
    MODEL = "stream"
    TOOL = "tool"
    COMPACTING = "compact"


@dataclass(frozen=True, slots=True)
class Condition:
    """The state of a process as the kernel reports it, for the log only."""

    state: str
    wait_channel: str


@dataclass(frozen=True, slots=True)
class Text:
    """A block of plain text; `data` is its UTF-8.

    It is not a `str`, which takes four bytes per character if a single character needs them.
    """

    data: bytes


@dataclass(frozen=True, slots=True)
class Image:
    """An image; `data` is the content of the file."""

    media_type: str
    data: bytes


@dataclass(frozen=True, slots=True)
class Document:
    """A document; `data` is the content of the file."""

    media_type: str
    data: bytes
    title: str = ""


Block = Text | Image | Document


@dataclass(frozen=True, slots=True)
class EventOptions:
    """The events that a turn has beyond the default ones.

    `raw_json` adds the agent's line to every event; `raw_unrecognized` adds it to the events
    that have no other content.
    """

    partial: bool = False
    thinking: bool = False
    raw_json: bool = False
    raw_unrecognized: bool = False


@dataclass(frozen=True, slots=True)
class Prompt:
    """One user message and the options of its turn. `turn_id` is a lower-case UUID.

    `traceparent` is the parent of the agent's own spans, empty if they are not recorded.
    """

    turn_id: str
    content: tuple[Block, ...]
    options: EventOptions = EventOptions()  # immutable, so all prompts may share the default
    traceparent: str = ""


@dataclass(frozen=True, slots=True)
class Allow:
    """The tool may run. `input_json`, a JSON object, replaces its input unless it is empty."""

    input_json: str = ""


@dataclass(frozen=True, slots=True)
class Deny:
    """The tool must not run. The message is for the agent; `interrupt` also ends the turn."""

    message: str = ""
    interrupt: bool = False


PermissionDecision = Allow | Deny


@dataclass(frozen=True, slots=True)
class Launch:
    """The parameters that a process is started with.

    `home` is the name of the session's directory below the agent root. `agent_session` is the
    UUID of the agent's own transcript, which is resumed if `resume` is True. `seen` is True if
    the transcript was seen before: a missing one is then lost. `session` is the session's id, for
    records of what its tools do. `ask` is True if the agent asks
    before it uses a tool that needs permission. `metered` is True if the listener is called
    with the cost of a turn while it runs.
    """

    process_id: str
    tenant: str
    profile: str
    home: str
    agent_session: str
    resume: bool
    model: str = ""
    append_system_prompt: str = ""
    ask: bool = False
    traceparent: str = ""
    metered: bool = False
    seen: bool = True
    session: str = ""


@dataclass(frozen=True, slots=True)
class Exit:
    """How a process ended: exactly one of `code` and `signal` is set.

    `stderr` is the end of its standard error, at most 4 KiB, for the log only. `cut` is the
    length in bytes of an unterminated last line.
    """

    code: int | None
    signal: int | None
    stderr: str = ""
    cut: int = 0

    def __str__(self) -> str:
        return f"signal {self.signal}" if self.signal is not None else f"exit {self.code}"


class ProcessListener(Protocol):
    """The receiver of a process's events. The methods must return at once and not raise."""

    def on_events(self, events: Sequence[Event], size: int, *, last: bool = False) -> None:
        """Called with events of the running turn, made from `size` bytes of lines.

        `last` is True if the agent's report was read with them: `on_finished` is called next.
        """

    def on_activity(self, doing: Doing, *, progress: bool, waits: float, steps: int) -> None:
        """Called with the agent's activity, once for each read that changes it.

        `progress` is True if the agent made progress. `waits` is how many seconds it will do
        nothing. `steps` counts the steps that its main agent has begun in this turn.
        """

    def on_cost(self, usd: float) -> None:
        """Called with the cost of the turn so far, in US dollars, if the process is metered."""

    def on_finished(self, finished: TurnFinished, said: str = "") -> None:
        """Called at most once per turn with the agent's report.

        `said` is the agent's own text about a failed call of the model's API. It is untrusted
        and meant for the operator.
        """

    def on_already_run(self) -> None:
        """Called when the agent refused the turn because its transcript already has it."""

    def on_quiet(self) -> None:
        """Called when the process is proven quiet after a turn or after unsolicited work."""

    def on_unsolicited(self, frames: int) -> None:
        """Called with the number of frames that no turn asked for: unsolicited work."""

    def on_noise(self, lines: int) -> None:
        """Called with the number of lines that are not frames and were skipped."""

    def on_broken(self, how: Broken) -> None:
        """Called when the process broke the protocol. No event is delivered after it."""

    def on_exit(self, exit: Exit) -> None:
        """Called once when the main process has exited. Its descendants may still run."""


class Process(Protocol):
    """One agent process. Methods may be called in any order, and after the process has exited."""

    @property
    def process_id(self) -> str:
        """The unique id of the process, never reused."""

    @property
    def pid(self) -> int:
        """The operating system's process id, 0 before the process is spawned."""

    @property
    def agent_version(self) -> str:
        """The version that the agent reported, empty before it is ready."""

    @property
    def traced(self) -> bool:
        """True if the agent creates spans for the turn that was written last."""

    @property
    def waited(self) -> bool:
        """True if the start was slow because the agent did not answer."""

    @property
    def spent(self) -> Usage:
        """The usage of the turn that was written last.

        Without a report it is an estimate: it counts the messages of the main agent that the
        model's API has begun to answer.
        """

    async def start(self) -> None:
        """Spawn the agent and wait until it is ready.

        Raise `NoProcess` (start-failed, start-timeout, ...), `Misconfigured` or
        `TranscriptLost`. `stop` must be called even if it raises or is cancelled.
        """

    async def write(self, prompt: Prompt, written: Callable[[], None]) -> None:
        """Start accepting events of the turn and write its message, within 5 s.

        Call `written` in the same step in which the pipe accepts the first byte, so before any
        event of the turn reaches the listener. Raise `NoProcess` (process-died) if the pipe
        accepted no byte.
        """

    def condition(self) -> Condition:
        """Return the current state of the process as the kernel reports it."""

    def interrupt(self) -> Awaitable[bool]:
        """Tell the agent at once to stop its turn. The result is True if it is proven quiet.

        The result is available within 5 s. If the turn has a report, it reaches the listener
        before the result is available.
        """

    def decide(self, request_id: str, decision: PermissionDecision) -> None:
        """Answer a permission request, by the agent's own id of it.

        A request is answered at most once: do nothing if it is not open.
        """

    def discard(self) -> None:
        """Discard the turn's events from now on, except its report.

        Deny every permission that the agent asks for from now on.
        """

    def pause(self) -> None:
        """Stop reading, so that the agent blocks on its pipe."""

    def resume(self) -> None:
        """Continue reading."""

    async def stop(self, *, suspect: bool) -> None:
        """End the process and all its descendants. Return when nothing is left of them.

        Raise `TimeoutError` after 13 s; `stop` may then be called again. A suspect process gets
        less time to end by itself. Idempotent.
        """

    async def kept(self) -> bool:
        """Return True if the agent has written any part of the conversation to its transcript.

        Return False also if this cannot be determined.
        """

    def terminate(self) -> None:
        """Ask the process to end now, even in the middle of a turn."""

    def kill(self) -> None:
        """Kill the process and its descendants now; `stop` must still be called."""


class Agents(Protocol):
    """The factory of processes."""

    def create(self, launch: Launch, listener: ProcessListener) -> Process:
        """Return a new process that is not started yet."""

    async def remove_home(self, home: str) -> None:
        """Move a session's directory away. Return once its name is free. Idempotent.

        Its content may be deleted later. Raise `OSError` or `Misconfigured` if it stays.
        """
