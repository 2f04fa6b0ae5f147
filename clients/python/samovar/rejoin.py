"""The continuation of a turn's stream after it broke: events so far, next call, and delay.

Knows neither channels nor waiting: the synchronous and the asynchronous client share it.
"""

import logging
import random
import time
from collections.abc import Callable
from dataclasses import dataclass

import grpc

from samovar import events, tracing
from samovar.errors import CallBroken, DeadlineExceeded, ReaderTooSlow, SamovarError
from samovar.events import Event
from samovar.v1 import session_pb2 as pb

#: Statuses of a stream that broke on the way: the service's own say more, and the caller's deadline
#: another. A message that is too large for gRPC would be so again.
_BROKEN = (
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.INTERNAL,
    grpc.StatusCode.CANCELLED,
    grpc.StatusCode.UNKNOWN,
)
FIRST_PAUSE = 0.1
LONGEST_PAUSE = 5.0
#: Seconds for which to look for a service that this client has never heard from.
FIRST_CONTACT = 2.0
#: Seconds for which to try to join a turn again that has no deadline.
NO_DEADLINE = 60.0

_log = logging.getLogger("samovar")


@dataclass(slots=True)
class Contact:
    """Whether a client has ever heard from its service."""

    made: bool = False


class Rejoin:
    """One turn as its caller sees it: a sequence of events over as many calls as it takes.

    `send` is the request that runs the turn; None to follow one, past the event `after`.
    `deadline`, in seconds from now, bounds everything; None for none.
    """

    def __init__(
        self,
        session: str,
        turn_id: str,
        contact: Contact,
        *,
        send: pb.SendRequest | None = None,
        after: int = 0,
        deadline: float | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.session = session
        self.turn_id = turn_id
        self.finished = False  # its last event was given
        self.trace = tracing.metadata()  # of the span that the turn was begun in
        self._contact = contact
        self._send = send
        self._sequence = after  # of the last event
        self._joined = False  # it gave an event
        self._clock = clock
        self._end = None if deadline is None else clock() + deadline
        self._broken_since: float | None = None
        self._failure: SamovarError | None = None  # of the call before this one
        self._pause = FIRST_PAUSE

    def describe(self, *, begun: bool, closed: bool) -> str:
        """Return the turn and its state, for a `repr`."""
        state = "running" if begun else "not begun"
        state = "finished" if self.finished else "closed" if closed else state
        return f"{self.turn_id} of {self.session or 'default'!r}, {state}"

    def request(self) -> pb.SendRequest | pb.AttachRequest:
        """Return the next call's request: `Attach` past the last event, `Send` before the first."""
        if self._send is not None and not self._joined:
            return self._send
        return pb.AttachRequest(
            session_id=self.session, turn_id=self.turn_id, after_sequence=self._sequence
        )

    def left(self) -> float | None:
        """Return the seconds until the deadline, None without one."""
        return None if self._end is None else max(self._end - self._clock(), 0.001)

    def take(self, response: pb.SendResponse | pb.AttachResponse) -> list[Event]:
        """Return the events of a response, each once and without unknown kinds."""
        self._contact.made = self._joined = True
        self._broken_since = self._failure = None
        self._pause = FIRST_PAUSE
        fresh = [event for event in response.events if event.sequence > self._sequence]
        if fresh:
            self._sequence = fresh[-1].sequence
            self.finished = fresh[-1].HasField("turn_finished")
        return [event for event in map(events.read, fresh) if event is not None]

    def pause(self, error: SamovarError) -> float | None:
        """Return the seconds after which to call again, None if it must not be repeated.

        A refusal has its own delay. A stream that broke is joined again after a pause that grows
        and varies, so that callers who lost a service do not come back to it all at once.
        """
        self._contact.made = self._contact.made or bool(error.reason)
        refused = error.retry_delay is not None and not error.prompt_written
        if refused and not self._joined:
            # Nothing was given: a caller that sets no deadline decides for itself.
            pause, until = error.retry_delay or 0.0, self._end
        elif refused or isinstance(error, ReaderTooSlow) or broke(error):
            pause, until = max(self._next_pause(), error.retry_delay or 0.0), self._until(error)
        else:
            return None
        if until is None or self._clock() + pause >= until:
            return None
        self._failure = error
        return pause

    def last(self, error: SamovarError) -> SamovarError:
        """Return what to raise for an error after which no call is made.

        At the deadline gRPC only knows that time is over: what failed before says why.
        """
        late = type(error) is DeadlineExceeded
        return self._failure if late and self._failure is not None else error

    def _next_pause(self) -> float:
        pause, self._pause = self._pause, min(2 * self._pause, LONGEST_PAUSE)
        return pause * random.uniform(0.5, 1.0)

    def _until(self, error: SamovarError) -> float | None:
        """Return the time until which a stream that broke may be joined again."""
        if self._broken_since is None and self._contact.made:
            _log.info("the stream of turn %s broke (%s): joining it again", self.turn_id, error)
        since = self._broken_since = self._broken_since or self._clock()
        if self._contact.made:
            return since + NO_DEADLINE if self._end is None else self._end
        # Most likely there is no service: the caller should learn that soon.
        return None if self._end is None else min(self._end, since + FIRST_CONTACT)


def broke(error: SamovarError) -> bool:
    """True if a call broke on the way and the next one may get through."""
    return type(error) is CallBroken and error.code in _BROKEN
