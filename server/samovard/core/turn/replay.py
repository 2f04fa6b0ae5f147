"""A turn that only the store knows by now: what its callers are told.

Knows nothing of where records are kept.
"""

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
    """A stream of what the store holds: an async iterator that a `Follower` can stand for."""

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
        """Has nothing to leave."""


Stream = Follower | Replay


def already(stored: TurnRecord, digest: bytes) -> SamovarError:
    """Says what a repeated `Send` is told: its first event is held no longer."""
    if stored.digest != digest:
        return IdTaken("turn_id", Difference("content"))
    return _expired(stored) if stored.state == "finished" else _lost(stored)


def replay(stored: TurnRecord, after: int) -> Replay:
    """Gives the events past a number: none behind the last one, or `turn_finished` alone.

    Raises what the turn ended with, or `EventsExpired` if another event would be next.
    """
    if stored.state != "finished":
        raise _lost(stored)
    last, report = stored.last_sequence, stored.report
    if after > last:
        raise past_the_last()
    if after == last:
        return Replay()
    if after < last - 1 or report is None:
        raise _expired(stored)
    return Replay(Batch(last, report.told_at, [report], len(report.result)))


def past_the_last() -> RequestInvalid:
    """Says that a caller cannot have seen the event that it names."""
    return RequestInvalid(("after_sequence", "is past the turn's last event"))


def _expired(stored: TurnRecord) -> EventsExpired:
    metadata = {"lastSequence": str(stored.last_sequence)}
    if stored.report is not None:
        metadata["oldestSequence"] = metadata["lastSequence"]
    return EventsExpired("the next event is no longer held", metadata=metadata)


def _lost(stored: TurnRecord) -> SamovarError:
    """Gives the error that a turn ended with; one without an end was cut by a restart."""
    metadata = {"turnId": stored.turn_id}
    if stored.last_sequence:
        metadata["lastSequence"] = str(stored.last_sequence)
    cause = stored.cause or "server-restarted"
    if stored.reason == Internal.reason:
        broken = Internal("the agent broke its protocol", cause=cause, metadata=metadata)
        broken.prompt_written = True
        return broken
    return TurnLost(cause, metadata)
