"""The audit trail of one service: its calls, their ends, and its own start and stop.

Knows what is recorded, and when. Knows nothing of where it is written or of gRPC.
"""

import asyncio
import secrets
from collections import Counter
from collections.abc import Awaitable, Callable, Generator, Mapping
from typing import Any, Protocol

from samovard.audit import lines
from samovard.audit.log import Line
from samovard.core.errors import SamovarError
from samovard.telemetry.facts import TurnFacts

SUMMED_EVERY = 60.0  # seconds between two lines about unknown callers
MAX_CONNECTIONS = 120  # lines about one session's tools in that time
CANCELLED = "CANCELLED"


class Writing(Awaitable[None], Protocol):
    """A line that is being written; see `Entry`. `failed` is True if its call is refused."""

    failed: bool


class Log(Protocol):
    """The receiver of lines; see `AuditLog`."""

    down: bool

    def write(self, line: bytes, undo: Line, *, rides: bool = False) -> Writing:
        """Write a call's line; the call is refused if that fails."""

    def keep(self, line: bytes, *, rides: bool = False) -> Writing:
        """Write a line, or keep it until that is possible."""

    def reopen(self) -> None:
        """Check whether the sink's file was renamed."""


class Done:
    """A line that is written, or that needs no writing."""

    failed = False

    def __await__(self) -> Generator[Any, None, None]:
        yield from ()


DONE = Done()


class NoLog:
    """The log in use if `auth.audit_sink` is `off`: it keeps nothing."""

    down = False

    def write(self, line: bytes, undo: Line, *, rides: bool = False) -> Writing:
        """Return an entry that is done."""
        return DONE

    def keep(self, line: bytes, *, rides: bool = False) -> Writing:
        """Return an entry that is done already."""
        return DONE

    def reopen(self) -> None:
        """Do nothing."""


class Trail:
    """The audit trail of a service, in terms of what happens in it."""

    def __init__(self, log: Log, wall: Callable[[], float], server_id: str, version: str) -> None:
        self.log = log
        self.wall = wall
        self._server_id = server_id
        self._version = version
        self._reasons: Counter[str] = Counter()
        self._methods: Counter[str] = Counter()
        self._since = 0.0
        self._timer: asyncio.TimerHandle | None = None
        # Connections of tools, by tenant and session: with a line of this minute, and without.
        self._told: Counter[tuple[str, str]] = Counter()
        self._untold: Counter[tuple[str, str]] = Counter()
        self._minute = 0.0

    @property
    def down(self) -> bool:
        """True while no line can be written; no call is allowed then."""
        return self.log.down

    def call(self, method: str) -> "AuditedCall":
        """Return the record of a call of a method, `package.Service/Method`."""
        return AuditedCall(self, method)

    def stranger(self, method: str, reason: str) -> None:
        """Count a call of an unknown caller: the first has a line, then one line sums up each
        minute.

        Such calls cost their caller nothing, so they must not fill the disk.
        """
        if not self._reasons:
            self._since = self.wall()
        self._reasons[reason] += 1
        self._methods[method] += 1
        if self._timer is None:
            self._sum_up()

    def _sum_up(self) -> None:
        self._timer = None
        if not self._reasons:
            return
        if not self.log.down:
            self._tell_strangers()
        self._timer = asyncio.get_running_loop().call_later(SUMMED_EVERY, self._sum_up)

    def _tell_strangers(self) -> None:
        line = lines.Refused(
            time=lines.at(self.wall()),
            since=lines.at(self._since),
            count=self._reasons.total(),
            reasons=dict(self._reasons),
            methods=dict(self._methods),
        )
        self._reasons.clear()
        self._methods.clear()
        self.log.keep(line.encoded())

    def connected(self, connection: Mapping[str, Any]) -> None:
        """Record a connection of an agent's tool: the fields of `lines.Connection` but the time.

        Tools make them for nothing, so they must not fill the disk: those of a session beyond a
        number in a minute, and all while no line can be written, are only counted.
        """
        now, key = self.wall(), (connection["tenant"], connection["session"])
        if not 0 <= now - self._minute < SUMMED_EVERY:
            self._tell_untold()
            self._minute = now
        self._told[key] += 1
        if self._told[key] > MAX_CONNECTIONS or self.log.down:
            self._untold[key] += 1
        else:
            self.log.keep(lines.Connection(time=lines.at(now), **connection).encoded())

    def _tell_untold(self) -> None:
        self._told.clear()
        if self.log.down:
            return
        for (tenant, session), count in self._untold.items():
            line = lines.Connection(
                time=lines.at(self.wall()), tenant=tenant, session=session, untold=count
            )
            self.log.keep(line.encoded())
        self._untold.clear()

    async def started(self) -> None:
        """Record that the service starts. Raise `NoProcess` (audit-down) if that fails."""
        line = lines.Started(
            time=lines.at(self.wall()), server_id=self._server_id, version=self._version
        )
        await self.log.write(line.encoded(), self._stopped)

    async def act(self, act: str, user: str, **fields: str | int | list[str]) -> None:
        """Record an administrator's act before it is done.

        Raise `NoProcess` (audit-down) on failure.
        """
        line = lines.act(self.wall(), act, user, **fields)
        await self.log.write(line, self._stopped)

    def close(self) -> None:
        """Record what was counted, and that the service has stopped."""
        if self._timer is not None:
            self._timer.cancel()
        if self._reasons:
            self._tell_strangers()
        self._tell_untold()
        self.log.keep(self._stopped())

    def _stopped(self) -> bytes:
        return lines.Stopped(time=lines.at(self.wall()), server_id=self._server_id).encoded()


class AuditedCall:
    """One call: it is allowed or denied once, and if it was allowed its end may have a line.

    The end of every turn has a line; the end of another call has one only if it failed.
    """

    def __init__(self, trail: Trail, method: str) -> None:
        self._trail = trail
        self._id = secrets.token_hex(8)
        self._method = method
        self._known = False
        self._subject = self._identity = self._credential = ""
        self._tenant = self._session = self._turn_id = self._target = ""
        self.peer = self.trace_id = ""
        self._decided: Writing | None = None
        self._turns = False  # it has a turn, whose end is the call's end
        self._over = False
        #: The end of its turn, as a line reports it, and what is done once that is written.
        self._ended: tuple[tuple[str, ...], Writing] | None = None

    def known(self, tenant: str, subject: str, identity: str, credential: str) -> None:
        """Set the caller."""
        self._known, self._tenant, self._identity = True, tenant, identity
        self._subject = subject[: lines.MAX_TEXT]
        self._credential = credential[: lines.MAX_TEXT]

    def names(self, session: str = "", turn: str = "", target: str = "") -> None:
        """Set what a valid request is about; `target` is the tenant of an operator's request."""
        self._session, self._turn_id, self._target = session, turn, target

    @property
    def decided(self) -> bool:
        """True once the call was allowed or denied."""
        return self._decided is not None

    def allow(self) -> Awaitable[None]:
        """Write that the call may act. Awaiting the result raises `NoProcess` if the line fails."""
        if self._decided is None:
            self._decided = self._write("allow")
        return self._decided

    def begin(self) -> Awaitable[None]:
        """Write, as `allow` does, that the call's turn may begin; it is stored next."""
        self._turns = True
        return self.allow()

    async def deny(self, error: SamovarError) -> None:
        """Write why the call is refused, or failed.

        Raise `NoProcess` if the line cannot be written.
        """
        await self.refuse(error.reason, error.cause)

    async def refuse(self, reason: str, cause: str = "") -> None:
        """Write a refusal as `deny` does, by its reason."""
        if not self._known:
            self._trail.stranger(self._method, reason)
        elif self._decided is None:
            self._decided = self._write("deny", reason, cause)
            self._over = True
            await self._decided
        elif not self._turns:
            self._fails(reason, cause)

    def left(self) -> None:
        """Write that the caller left before it was answered."""
        if not self._known:
            return
        if self._decided is None:
            self._decided = self._write("deny", CANCELLED)
            self._over = True
        elif not self._turns:
            self._fails(CANCELLED)

    def turn_ended(self, turn: TurnFacts) -> Awaitable[None]:
        """Write how an allowed turn ended, unless the same line is written already.

        Awaiting the result never raises. A turn has a second line if its caller was told another
        end than the one written, because the store did not accept it.
        """
        ended = turn.outcome, turn.reason, turn.cause
        if not self._allowed or (self._over and self._ended is None):
            return DONE
        if self._ended is None or self._ended[0] != ended:
            self._over = True
            self._ended = ended, self._trail.log.keep(self._turn_end(turn), rides=True)
        return self._ended[1]

    @property
    def _allowed(self) -> bool:
        """True if the call may have acted: it was not refused because its own line failed."""
        return self._decided is not None and not self._decided.failed

    def _fails(self, reason: str, cause: str = "") -> None:
        if self._allowed and not self._over:
            self._over = True
            self._trail.log.keep(self._end(reason=reason, cause=cause))

    def _write(self, decision: str, reason: str = "", cause: str = "") -> Writing:
        line = lines.Decision(
            time=lines.at(self._trail.wall()),
            call=self._id,
            trace_id=self.trace_id,
            method=self._method,
            tenant=self._tenant,
            subject=self._subject,
            identity=self._identity,
            credential=self._credential,
            peer=self.peer,
            session=self._session,
            turn=self._turn_id,
            target=self._target,
            decision=decision,
            reason=reason,
            cause=cause,
        )
        return self._trail.log.write(line.encoded(), self._undo, rides=self._turns)

    def _undo(self) -> bytes:
        return self._end(reason="NO_PROCESS", cause="audit-down")

    def _end(self, **how: str | float) -> bytes:
        line = lines.End(
            time=lines.at(self._trail.wall()),
            call=self._id,
            method=self._method,
            tenant=self._tenant,
            session=self._session,
            turn=self._turn_id,
            **how,  # type: ignore[arg-type]  # each is of the field that it names
        )
        return line.encoded()

    def _turn_end(self, turn: TurnFacts) -> bytes:
        return self._end(
            outcome=turn.outcome,
            reason=turn.reason,
            cause=turn.cause,
            prompt_written=turn.prompt_written,
            input_tokens=turn.tokens.input,
            output_tokens=turn.tokens.output,
            cost_usd=turn.cost_usd,
            estimated=turn.estimated,
        )
