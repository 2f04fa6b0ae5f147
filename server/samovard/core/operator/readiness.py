"""Readiness: whether a turn that is sent now could be served, and the obstacles if not.

Readiness is a function of reported events and of the time: it neither tries starts nor queries
the store. It ignores occupied slots, because a full pool works.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Collection

from samovard.core.errors import Misconfigured, NoProcess, SamovarError
from samovard.core.records import SessionKey

OUT_OF_DISK = "out-of-disk"
STARTING = "starting"  # it is not known yet whether agents start
#: How many seconds a check may fail before it is an obstacle, unless a start succeeds meanwhile.
PATIENCE = 3.0
#: Checks that may fail longer, in seconds: evicting idle processes can fix these.
PATIENCE_FOR = {"out-of-descriptors": 30.0}
FAILURES, WITHIN = 8, 10.0  # this many failed starts within this many seconds open the breaker
SEVERAL = 3  # of this many sessions: a single session may have broken its own directory
#: Causes in one session or its profile, which are no evidence against the spawner.
OWN_CAUSES = frozenset({"directory-refused", "options-refused"})
#: Causes that may lie in one tenant: only a start without a tenant is evidence.
TENANTS_CAUSES = frozenset({"credential-missing"})
QUARANTINED_SHARE = 0.1  # more quarantined processes than this share of the slots: not ready
TRY_AGAIN = 5.0  # a start is tried at least this often, in seconds


class Readiness:
    """The known condition of the spawner, the store, the audit log and quarantined processes.

    A start that succeeds proves the spawner. It is unproven again once a trial start fails,
    once 8 starts of 3 sessions fail within 10 s, or while a check fails and no start has
    succeeded since. `clock` returns monotonic seconds.
    """

    def __init__(self, clock: Callable[[], float], slots: int) -> None:
        self._clock = clock
        self._slots = slots
        self._proven = False
        self._suspected = False  # a turn's start failed since the last success
        self._failure: SamovarError | None = None  # what opened the breaker
        self._failures: deque[tuple[float, SessionKey]] = deque(maxlen=FAILURES)
        self._doubts: dict[str, float] = {}  # checks that fail, and since when
        self._excused: frozenset[str] = frozenset()  # checks that fail although a start succeeded
        self.store = True
        self.audit = True
        self.quarantined = 0
        self.draining = False
        #: Set when the start of a turn's process has succeeded or failed.
        self.changed = asyncio.Event()

    def __repr__(self) -> str:
        return f"<Readiness {' '.join(self.obstacles()) or 'ready'}>"

    def checked(self, failed: Collection[str]) -> None:
        """Record which checks fail now."""
        now = self._clock()
        # A check that passed in between is no longer excused when it fails again.
        self._excused &= frozenset(failed)
        doubted = [check for check in failed if check not in self._excused]
        self._doubts = {check: self._doubts.get(check, now) for check in doubted}

    def answered(self, *, tried: bool) -> None:
        """Record that a start succeeded. `tried` is True if it was a trial start.

        While a check fails, the start of a turn proves nothing: it may have begun before.
        """
        if tried:
            excused = self._doubts.keys() - {OUT_OF_DISK}
            self._excused |= excused
            self._doubts = {c: since for c, since in self._doubts.items() if c not in excused}
        if tried or not self._doubts:
            self._proven, self._suspected, self._failure = True, False, None
            self._failures.clear()

    def failed(self, error: SamovarError, session: SessionKey | None = None) -> None:
        """Record that a start failed: for a turn of a session, or a trial start if it is None."""
        now = self._clock()
        if error.cause in PATIENCE_FOR:
            self._doubts.setdefault(error.cause, now)
        elif session is None:
            self._break(error)
        else:
            self._failures.append((now, session))
            self._judge(error, now)

    def on_start(self, key: SessionKey, error: SamovarError | None) -> None:
        """Called with the outcome of a start for a session's turn; see `StartListener`."""
        if error is None:
            self.answered(tried=False)
        else:
            self.failed(error, key)
        self.changed.set()

    def _judge(self, error: SamovarError, now: float) -> None:
        """Decide whether the latest failed starts of turns are evidence against the spawner."""
        recent = [session for time, session in self._failures if time > now - WITHIN]
        several = len(set(recent)) >= SEVERAL
        own = error.cause in OWN_CAUSES
        # A trial start, which has no session, finds out whether the root directory is the cause.
        self._suspected = self._suspected or several or not own
        if several and len(recent) == FAILURES and not own and error.cause not in TENANTS_CAUSES:
            self._break(error)

    def _break(self, error: SamovarError) -> None:
        self._proven, self._failure = False, error

    @property
    def start_due(self) -> bool:
        """True if a trial start is needed. Never on a full disk, where a start could hang."""
        if self.draining or OUT_OF_DISK in self._doubts:
            return False
        return not self._proven or self._suspected or bool(self._doubts)

    def obstacles(self) -> tuple[str, ...]:
        """Return the names of the obstacles, empty if a turn could be served."""
        now = self._clock()
        found = ["draining"] if self.draining else []
        if self._failure is not None:
            found.append(self._failure.cause)
        elif not self._proven:
            found.append(STARTING)
        for check, since in self._doubts.items():
            if check == OUT_OF_DISK or now - since >= PATIENCE_FOR.get(check, PATIENCE):
                found.append(check)
        if not self.store:
            found.append("store-down")
        if not self.audit:
            found.append("audit-down")
        if self.quarantined > QUARANTINED_SHARE * self._slots:
            found.append("quarantined")
        return tuple(dict.fromkeys(found))

    def refusal(self) -> SamovarError | None:
        """Return the error for turns that need a start while no start can succeed, or None."""
        if OUT_OF_DISK in self._doubts:
            # No trial start can disprove this: on a full disk, resuming a transcript hangs.
            return NoProcess("the disk is full", cause=OUT_OF_DISK, retry_after=TRY_AGAIN)
        if isinstance(self._failure, Misconfigured):
            return Misconfigured(self._failure.message, cause=self._failure.cause)
        if self._failure is not None:
            message = "no agent can be started at present"
            return NoProcess(message, cause=self._failure.cause, retry_after=TRY_AGAIN)
        return None
