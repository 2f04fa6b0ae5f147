"""One RPC, as far as it is told to anybody but its caller.

Filled in by whoever knows: the interceptor, the gate, the handler. Knows nothing of gRPC.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from samovard.telemetry.context import Context
from samovard.telemetry.stages import Stages

if TYPE_CHECKING:
    from samovard.telemetry.observation import TurnFacts

SEND = "samovar.v1.Session/Send"
OTHER = "_OTHER"  # a method that does not exist


class Audited(Protocol):
    """What the audit log is told of a call that makes a turn."""

    def begin(self) -> Awaitable[None]:
        """Write that the turn may begin. The result raises `NoProcess` if that cannot be done."""

    def turn_ended(self, turn: "TurnFacts") -> Awaitable[None]:
        """Write how the turn ended, unless the same is written. The result never raises."""


class Unaudited:
    """What stands for it where there is no audit log."""

    def begin(self) -> Awaitable[None]:
        """Return what is done already."""
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        done.set_result(None)
        return done

    def turn_ended(self, turn: "TurnFacts") -> Awaitable[None]:
        """Return what is done already."""
        return self.begin()


UNAUDITED = Unaudited()


@dataclass(eq=False, slots=True)
class CallFacts:
    """An RPC from its arrival to its end. Durations are in nanoseconds.

    `method` is `package.Service/Method`, `_OTHER` for one that does not exist, whose name is
    then `original`; `status` is gRPC's name of the code. `turn` is the turn that the call
    made, `joined` one that ran or was held already. `user_agent` and `peer` say who called,
    only where spans have them.
    """

    method: str
    stages: Stages
    attempt: int = 0
    original: str = ""
    context: Context | None = None
    span: Any = None  # the recorder's own
    user_agent: str = ""
    peer: str = ""
    tenant: str = ""
    session: str = ""
    turn_id: str = ""
    status: str = ""
    reason: str = ""
    cause: str = ""
    prompt_written: bool = False
    responses: int = 0
    bytes: int = 0
    write_blocked: int = 0
    turn: "TurnFacts | None" = None
    joined: "TurnFacts | None" = None
    ended: bool = False
    audited: Audited = UNAUDITED

    @classmethod
    def unwatched(cls, clock: Callable[[], float], wall: float) -> "CallFacts":
        """Makes what stands for a call where there is none."""
        return cls("", Stages(clock, wall), ended=True)

    def names(self, session: str, turn_id: str) -> None:
        """Takes note of the turn that the call asks for."""
        self.session, self.turn_id = session, turn_id
        self.stages.ids = {**self.ids, "turn": turn_id}

    @property
    def ids(self) -> dict[str, str]:
        """What names the call's trace in a log line."""
        context = self.context
        if context is None:
            return {}
        return {"trace_id": context.trace_id, "span_id": context.span_id}

    def line(self) -> dict[str, object]:
        """Gives the fields of the log line of a call that made no turn."""
        return {
            **self.ids,
            "method": self.method,
            "tenant": self.tenant,
            "session": self.session,
            "turn": self.turn_id,
            "status": self.status,
            "reason": self.reason,
            "cause": self.cause,
            "prompt_written": self.prompt_written,
            "rpc_attempt": self.attempt,
            "total_ms": round(sum(self.stages.durations().values()) / 1e6, 3),
        }
