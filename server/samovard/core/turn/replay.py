"""Streams and errors for a turn that is no longer in memory, made from its stored record."""

from types import TracebackType
from typing import Self

from samovard.core.errors import (
    Difference,
    EventsExpired,
    IdTaken,
    Internal,
    RequestInvalid,
    SamovarError,
    TurnLost,
)
from samovard.core.records import TurnRecord
from samovard.core.turn.event_log import Batch
from samovard.core.turn.follower import Follower


class Replay:
    """A stream of stored events: an async iterator with the same interface as `Follower`."""

    def __init__(self, *batches: Batch) -> None:
        self._left = list(batches)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> list[Batch]:
        if not self._left:
            raise StopAsyncIteration
        batches, self._left = self._left, []
        return batches

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Do nothing: a replay holds no resources."""


Stream = Follower | Replay


def already(stored: TurnRecord, digest: bytes) -> SamovarError:
    """Return the error for a repeated `Send`, whose first event was dropped."""
    # First: a client must not take the outcome of other content for its own.
    if stored.digest != digest:
        return IdTaken("turn_id", Difference("content"))
    return _expired(stored) if stored.state == "finished" else _lost(stored)


def replay(stored: TurnRecord, after: int) -> Replay:
    """Return the events after a number: `turn_finished` alone, or none if it is the last one.

    Raise the error that the turn ended with, `EventsExpired` if another event would be next, or
    `RequestInvalid` if the turn has no event with that number.
    """
    if stored.state != "finished":
        raise _lost(stored)
    last, report = stored.last_sequence, stored.report
    if after > last:
        raise past_the_last()
    if after == last:
        return Replay()
    # Only the report is stored, and only that of the session's latest turn.
    if after < last - 1 or report is None:
        raise _expired(stored)
    return Replay(Batch(last, report.told_at, [report], len(report.result)))


def past_the_last() -> RequestInvalid:
    """Return the error for an event number that is higher than any the turn has had."""
    return RequestInvalid(("after_sequence", "is past the turn's last event"))


def _expired(stored: TurnRecord) -> EventsExpired:
    metadata = {"lastSequence": str(stored.last_sequence)}
    if stored.report is not None:
        # The report is stored and can still be read.
        metadata["oldestSequence"] = metadata["lastSequence"]
    return EventsExpired("the next event is no longer held", metadata=metadata)


def _lost(stored: TurnRecord) -> SamovarError:
    """Return the error that a turn ended with. Without an outcome it was cut by a restart."""
    metadata = {"turnId": stored.turn_id}
    if stored.last_sequence:
        metadata["lastSequence"] = str(stored.last_sequence)
    cause = stored.cause or "server-restarted"
    if stored.reason == Internal.reason:
        broken = Internal("the agent broke its protocol", cause=cause, metadata=metadata)
        broken.prompt_written = True  # `Internal` does not imply that
        return broken
    return TurnLost(cause, metadata)
