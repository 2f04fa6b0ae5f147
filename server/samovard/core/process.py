"""What the core needs of a process: the seam that `agent` implements.

A process here is one running agent that belongs to one session for its whole life.
Knows nothing of pipes, signals or the command line.
"""

import enum
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from samovard.core.events import Event, TurnFinished, Usage


class Broken(enum.Enum):
    """How a process broke the protocol; each ends it."""

    UNPARSABLE = "protocol-violated"
    FOREIGN = "foreign-session"
    LINE_TOO_LONG = "line-too-long"
    STALLED = "stalled"


class Doing(enum.Enum):
    """What an agent does in a turn: asks the model, waits for its tools, or compacts."""

    MODEL = "stream"
    TOOL = "tool"
    COMPACTING = "compact"


@dataclass(frozen=True, slots=True)
class Condition:
    """What the kernel says that a process does, for the log only."""

    state: str
    wait_channel: str


@dataclass(frozen=True, slots=True)
class Text:
    """A block of plain text; `data` is its UTF-8.

    A `str` takes four bytes for each character if one of them needs that many.
    """

    data: bytes


@dataclass(frozen=True, slots=True)
class Image:
    """An image; `data` is the bytes of the file."""

    media_type: str
    data: bytes


@dataclass(frozen=True, slots=True)
class Document:
    """A document; `data` is the bytes of the file."""

    media_type: str
    data: bytes
    title: str = ""


Block = Text | Image | Document


@dataclass(frozen=True, slots=True)
class EventOptions:
    """Which events a turn has beyond the default ones.

    `raw_json`: the agent's line with every event; `raw_unrecognized`: with those that have
    no other content.
    """

    partial: bool = False
    thinking: bool = False
    raw_json: bool = False
    raw_unrecognized: bool = False


@dataclass(frozen=True, slots=True)
class Prompt:
    """One user message and how its turn is to be told. `turn_id` is a lower-case UUID.

    `traceparent` is what the agent's own spans hang below, empty if nobody records them.
    """

    turn_id: str
    content: tuple[Block, ...]
    options: EventOptions = EventOptions()
    traceparent: str = ""


@dataclass(frozen=True, slots=True)
class Allow:
    """Lets a tool run. `input_json`, a JSON object, replaces its input unless it is empty."""

    input_json: str = ""


@dataclass(frozen=True, slots=True)
class Deny:
    """Keeps a tool from running. The message is for the agent; `interrupt` ends the turn."""

    message: str = ""
    interrupt: bool = False


PermissionDecision = Allow | Deny


@dataclass(frozen=True, slots=True)
class Launch:
    """What a process is started with.

    `home` names the session's directory below the agent root; `agent_session` is the
    UUID of the agent's own transcript, to be resumed if `resume`; `seen` whether there was
    one, so that a missing one is lost; `ask` whether it asks
    before it uses a tool that needs permission; `metered` whether the observer is told what
    a turn has cost while it runs.
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


@dataclass(frozen=True, slots=True)
class Exit:
    """How a process ended: exactly one of `code` and `signal` is set.

    `stderr` is the last of what it wrote there, at most 4 KiB, for the log only; `cut` the
    bytes of a line that it did not end.
    """

    code: int | None
    signal: int | None
    stderr: str = ""
    cut: int = 0

    def __str__(self) -> str:
        return f"signal {self.signal}" if self.signal is not None else f"exit {self.code}"


class ProcessListener(Protocol):
    """Hears what a process does. Every method returns at once and never raises."""

    def on_events(self, events: Sequence[Event], size: int, *, last: bool = False) -> None:
        """Takes events of the running turn, made from `size` bytes of lines.

        They are the `last` if the agent's report was read with them: it is told next.
        """

    def on_activity(self, doing: Doing, *, progress: bool, waits: float, steps: int) -> None:
        """Hears what the agent does in its turn, told once for each read that changes it.

        `progress`: it got on; `waits`: it will do nothing for so many seconds; `steps`: the
        steps that its main agent has begun in this turn.
        """

    def on_cost(self, usd: float) -> None:
        """Hears what the turn has cost so far, if the process is metered."""

    def on_finished(self, finished: TurnFinished, said: str = "") -> None:
        """Takes the agent's report on the running turn: at most once per turn.

        `said` is its own text of a failed call of the model's API: untrusted, for the operator.
        """

    def on_already_run(self) -> None:
        """Hears that the agent refused the turn: its transcript has that turn already."""

    def on_quiet(self) -> None:
        """Hears that the process is proven quiet after a turn or after unasked work."""

    def on_unsolicited(self, frames: int) -> None:
        """Hears of frames that no turn asked for: the process works unasked."""

    def on_noise(self, lines: int) -> None:
        """Hears of lines that are no frames and were skipped."""

    def on_broken(self, how: Broken) -> None:
        """Hears that the process broke the protocol; nothing more is delivered."""

    def on_exit(self, exit: Exit) -> None:
        """Hears, once, that the main process is gone. Its tree may not be."""


class Process(Protocol):
    """One agent process. Methods may be called in any order and after its death."""

    @property
    def process_id(self) -> str:
        """Names the process for ever."""

    @property
    def pid(self) -> int:
        """The operating system's number, 0 before it was spawned."""

    @property
    def agent_version(self) -> str:
        """The version that the agent reported, empty before it was ready."""

    @property
    def traced(self) -> bool:
        """Tells whether the agent makes spans of the turn that was written to it last."""

    @property
    def waited(self) -> bool:
        """True if the start took long because the agent did not answer."""

    @property
    def spent(self) -> Usage:
        """What the turn that was written last has used, an estimate where it has no report:
        messages of its main agent that the model's API has begun to answer.
        """

    async def start(self) -> None:
        """Spawns the agent and waits until it is ready.

        Raises `NoProcess` (start-failed, start-timeout, ...), `Misconfigured` or
        `TranscriptLost`. Whatever it raises, `stop` must still be called.
        """

    async def write(self, prompt: Prompt, written: Callable[[], None]) -> None:
        """Opens the turn's window and writes its message; bounded by 5 s.

        Calls `written` in the step in which the pipe takes the first byte, so before
        anything of the turn reaches the observer. Raises `NoProcess` (process-died) if
        the pipe took none.
        """

    def condition(self) -> Condition:
        """Says what the kernel knows of the process at this moment."""

    def interrupt(self) -> Awaitable[bool]:
        """Tells the agent at once to stop its turn; the answer: is it proven quiet?

        Bounded by 5 s. The turn's own report, if there is one, has reached the
        observer before the answer does.
        """

    def decide(self, request_id: str, decision: PermissionDecision) -> None:
        """Answers a permission request, by the agent's own name for it.

        At most once: one that is not open, or not any longer, is left alone.
        """

    def discard(self) -> None:
        """Throws the turn's events away from now on, all but its report.

        Permissions that are asked for from now on are denied.
        """

    def pause(self) -> None:
        """Stops reading: the agent waits on its pipe."""

    def resume(self) -> None:
        """Reads again."""

    async def stop(self, *, suspect: bool) -> None:
        """Ends the process and its whole tree; returns when nothing is left of it.

        Bounded by 13 s, then raises `TimeoutError` and may be called again. A
        suspect process gets less time to end by itself. Idempotent.
        """

    async def kept(self) -> bool:
        """Return True if the agent has written anything of the conversation to its transcript.

        False also where that cannot be found out.
        """

    def terminate(self) -> None:
        """Asks the process to end now, in the middle of whatever it does."""

    def kill(self) -> None:
        """Kills the whole tree now; `stop` must still be called."""


class Agents(Protocol):
    """Makes processes."""

    def create(self, launch: Launch, listener: ProcessListener) -> Process:
        """Makes a process that is not started yet."""

    async def remove_home(self, home: str) -> None:
        """Take a session's directory away. Return once its name is free. Idempotent.

        What was in it may be removed later. Raise `OSError` or `Misconfigured` if it stays.
        """
