"""One session in memory: a conversation of one tenant, with its turns and at most one process."""

import enum
from collections.abc import Callable
from dataclasses import dataclass

from samovard.core.errors import PermissionNotFound, RequestInvalid
from samovard.core.pool.pool import Pool
from samovard.core.pool.pooled_process import PooledProcess
from samovard.core.pool.states import ProcessState
from samovard.core.process import Allow, PermissionDecision
from samovard.core.records import SessionKey, SessionRecord
from samovard.core.sessions.conversation import Conversation
from samovard.core.sessions.turn_runner import TurnRunner
from samovard.core.turn.turn import Phase, Turn


class SessionState(enum.Enum):
    """The state of a session, as clients see it."""

    WARM = 1
    RUNNING = 2
    INPUT_REQUIRED = 3
    SUSPENDED = 4
    CLOSED = 5


@dataclass(frozen=True, slots=True)
class SessionInfo:
    """A session as its tenant sees it."""

    record: SessionRecord
    state: SessionState
    active_turn_id: str = ""


class Session:
    """One session in memory.

    `runners` is the runners of turns that wait, run or are held, by turn id. `counted` is True
    if its pool's counters include it as stored. `on_ended` is called with each turn whose streams
    have ended.
    """

    def __init__(
        self,
        conversation: Conversation,
        pool: Pool,
        on_ended: Callable[["Session", Turn], None],
    ) -> None:
        self.conversation = conversation
        self.counted = conversation.created
        self.runners: dict[str, TurnRunner] = {}
        self._pool = pool
        self._on_ended = on_ended
        self._unended: dict[str, TurnRunner] = {}  # those that wait or run

    def __repr__(self) -> str:
        return f"<Session {self.state().name} turns={self.record.turn_count}>"

    @property
    def record(self) -> SessionRecord:
        """The session as it is stored."""
        return self.conversation.record

    @property
    def key(self) -> SessionKey:
        """The session's tenant and name."""
        return self.conversation.record.key

    @property
    def created(self) -> bool:
        """True if the session is stored."""
        return self.conversation.created

    @property
    def crowded(self) -> bool:
        """True if more than one turn of the session waits or runs."""
        return len(self._unended) > 1

    def process(self) -> PooledProcess | None:
        """Return the process of this session in any state, or None."""
        return self._pool.process_of(self.conversation.record.key)

    def ready(self) -> bool:
        """Return True if an idle process is available and no turn waits or runs."""
        if self._unended:
            return False
        process = self.process()
        return process is not None and process.state is ProcessState.IDLE

    def begin(self, runner: TurnRunner) -> None:
        """Add a turn, which waits from now on."""
        self.runners[runner.turn.turn_id] = self._unended[runner.turn.turn_id] = runner

    def unended(self) -> list[TurnRunner]:
        """Return the runners of turns that wait or run, oldest first."""
        return list(self._unended.values())

    def active(self) -> str:
        """Return the id of the running turn, or an empty string."""
        for runner in self._unended.values():
            # A turn in OPENING holds the process, even if its prompt is not written yet.
            if runner.turn.phase in (Phase.OPENING, Phase.RUNNING):
                return runner.turn.turn_id
        return ""

    def respond(self, permission_id: str, decision: PermissionDecision) -> None:
        """Answer a permission request of the running turn.

        Raise `PermissionNotFound` if the request is not open, and `RequestInvalid` if the answer
        changes a tool's input and the profile does not allow that.
        """
        rewrites = isinstance(decision, Allow) and decision.input_json
        if rewrites and not self.conversation.profile.allow_rewrite:
            raise RequestInvalid(("allow.updated_input_json", "not allowed by the profile"))
        for runner in self._unended.values():
            if runner.turn.phase is Phase.RUNNING:
                return runner.respond(permission_id, decision)
        raise PermissionNotFound

    def state(self) -> SessionState:
        """Return the state of the session."""
        if any(runner.turn.permissions.open for runner in self._unended.values()):
            return SessionState.INPUT_REQUIRED
        if self._unended:
            return SessionState.RUNNING
        process = self.process()
        # A settling process is about to be idle, and serves the next turn without a start.
        warm = process is not None and process.state in (ProcessState.IDLE, ProcessState.SETTLING)
        return SessionState.WARM if warm else SessionState.SUSPENDED

    def ended(self, turn: Turn) -> None:
        """Called when a turn's streams have ended."""
        # It stays in `runners`, so that clients can attach while its events are held.
        self._unended.pop(turn.turn_id, None)
        self._on_ended(self, turn)
