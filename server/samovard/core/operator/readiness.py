"""Whether a turn sent here now could be served, and what stands in the way.

A function of what was told and of the time. Knows nothing of how a start is tried, or a
store asked. Says nothing of slots that are taken: a full pool is a working one.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Collection

from samovard.core.errors import Misconfigured, NoProcess, SamovarError
from samovard.core.records import SessionKey

OUT_OF_DISK = "out-of-disk"
STARTING = "starting"  # whether a start answers is not known yet
#: How long a check may fail before a start that answers in spite of it counts as missing.
PATIENCE = 3.0
#: What idle processes are given up for may take longer to come right.
PATIENCE_FOR = {"out-of-descriptors": 30.0}
FAILURES, WITHIN = 8, 10.0  # failed starts, in so many seconds, open the breaker
SEVERAL = 3  # sessions that they are of: a single one may have broken its own directory
#: Causes that lie in one session or its profile and say nothing of the spawner.
OWN_CAUSES = frozenset({"directory-refused", "options-refused"})
#: A cause that may lie in one tenant: a start without any has to tell.
TENANTS_CAUSES = frozenset({"credential-missing"})
QUARANTINED_SHARE = 0.1
TRY_AGAIN = 5.0  # how often, in seconds, a start is tried at the least


class Readiness:
    """What is known of the spawner, of the store, the audit log and processes that do not die.

    The spawner is proven by a start that answered. It is not any more once a tried start
    failed, once 8 starts of 3 sessions failed within 10 s, or while a check fails and no start
    has answered since. `clock` gives seconds that never go back.
    """

    def __init__(self, clock: Callable[[], float], slots: int) -> None:
        self._clock = clock
        self._slots = slots
        self._proven = False
        self._suspected = False  # a turn's start failed since one answered
        self._failure: SamovarError | None = None  # what opened the breaker
        self._failures: deque[tuple[float, SessionKey]] = deque(maxlen=FAILURES)
        self._doubts: dict[str, float] = {}  # checks that fail, and since when
        self._excused: frozenset[str] = frozenset()  # those in spite of which a start answered
        self.store = True
        self.audit = True
        self.quarantined = 0
        self.draining = False
        #: Set with each start of a turn's process that answered or failed.
        self.changed = asyncio.Event()

    def __repr__(self) -> str:
        return f"<Readiness {' '.join(self.obstacles()) or 'ready'}>"

    def checked(self, failed: Collection[str]) -> None:
        """Takes the checks that fail by now."""
        now = self._clock()
        # One that fails again after it held is doubted again.
        self._excused &= frozenset(failed)
        doubted = [check for check in failed if check not in self._excused]
        self._doubts = {check: self._doubts.get(check, now) for check in doubted}

    def answered(self, *, tried: bool) -> None:
        """Takes note that a start answered; `tried`: one that was made to find out.

        A turn's own may have begun before what a check has found since.
        """
        if tried:
            excused = self._doubts.keys() - {OUT_OF_DISK}
            self._excused |= excused
            self._doubts = {c: since for c, since in self._doubts.items() if c not in excused}
        if tried or not self._doubts:
            self._proven, self._suspected, self._failure = True, False, None
            self._failures.clear()

    def failed(self, error: SamovarError, session: SessionKey | None = None) -> None:
        """Record that a start failed: of a session's turn, or without one a start that was
        tried to find out.
        """
        now = self._clock()
        if error.cause in PATIENCE_FOR:
            self._doubts.setdefault(error.cause, now)
        elif session is None:
            self._break(error)
        else:
            self._failures.append((now, session))
            self._judge(error, now)

    def on_start(self, key: SessionKey, error: SamovarError | None) -> None:
        """Called with the outcome of a start for a session's turn."""
        if error is None:
            self.answered(tried=False)
        else:
            self.failed(error, key)
        self.changed.set()

    def _judge(self, error: SamovarError, now: float) -> None:
        """Decide what the latest failures of turns' starts say of the spawner."""
        recent = [session for time, session in self._failures if time > now - WITHIN]
        several = len(set(recent)) >= SEVERAL
        own = error.cause in OWN_CAUSES
        # A start without a session tells whether the directory of all of them is to blame.
        self._suspected = self._suspected or several or not own
        if several and len(recent) == FAILURES and not own and error.cause not in TENANTS_CAUSES:
            self._break(error)

    def _break(self, error: SamovarError) -> None:
        self._proven, self._failure = False, error

    @property
    def start_due(self) -> bool:
        """Tells whether a start should be tried: never on a full disk."""
        if self.draining or OUT_OF_DISK in self._doubts:
            return False
        return not self._proven or self._suspected or bool(self._doubts)

    def obstacles(self) -> tuple[str, ...]:
        """Names what stands in the way of a turn; nothing if it could be served."""
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
        """Says what a turn is told that needs a start, if none can work; else None."""
        if OUT_OF_DISK in self._doubts:
            # And nothing is started to see: on a full disk a resume hangs.
            return NoProcess("the disk is full", cause=OUT_OF_DISK, retry_after=TRY_AGAIN)
        if isinstance(self._failure, Misconfigured):
            return Misconfigured(self._failure.message, cause=self._failure.cause)
        if self._failure is not None:
            message = "no agent can be started at present"
            return NoProcess(message, cause=self._failure.cause, retry_after=TRY_AGAIN)
        return None
