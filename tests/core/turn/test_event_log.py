"""The events of one turn that are held."""

import pytest

from samovard.core.errors import EventsExpired
from samovard.core.events import TextDelta
from samovard.core.turn.event_log import Batch, EventLog, cut


def deltas(count: int) -> list[TextDelta]:
    return [TextDelta("m", 0, "x")] * count


@pytest.fixture
def event_log() -> EventLog:
    """Events 1 to 6 in three batches of 1, 2 and 3 events, each of ten times its bytes."""
    made = EventLog()
    for count in (1, 2, 3):
        made.append(deltas(count), 10 * count, float(count))
    return made


def numbers(batches: list[Batch] | None) -> list[int]:
    assert batches is not None
    return [number for b in batches for number in range(b.sequence, b.last + 1)]


def test_events_are_numbered_from_1_across_batches(event_log: EventLog) -> None:
    """Numbers rise by 1, and bytes add up."""
    assert numbers(event_log.take(0, 1000)) == [1, 2, 3, 4, 5, 6]
    assert (event_log.last, event_log.bytes, event_log.total) == (6, 60, 60)
    assert repr(event_log) == "<EventLog 6 of 6 events, 60 bytes>"


@pytest.mark.parametrize(("after", "first"), [(0, 1), (1, 2), (2, 2), (3, 4), (5, 4)])
def test_a_reader_is_put_where_its_next_event_is(
    event_log: EventLog, after: int, first: int
) -> None:
    """The batch found has the event past the number; the rest of it is cut off."""
    (batch, *_) = event_log.take(event_log.find(after), 1) or []
    assert batch.sequence == first
    assert cut(batch, after).sequence == after + 1
    assert cut(batch, after).last == batch.last


def test_a_reader_of_everything_is_put_behind_it(event_log: EventLog) -> None:
    """Behind the newest event there is nothing yet, then what comes next."""
    position = event_log.find(6)
    assert event_log.take(position, 1000) == []
    event_log.append(deltas(1), 10, 4.0)
    assert numbers(event_log.take(position, 1000)) == [7]


def test_what_is_handed_out_at_once_is_bounded(event_log: EventLog) -> None:
    """As many batches as it takes to reach the bound, and always one."""
    assert numbers(event_log.take(0, 1)) == [1]
    assert numbers(event_log.take(0, 11)) == [1, 2, 3]
    assert numbers(event_log.take(2, 1)) == [4, 5, 6]


def test_the_bytes_before_a_position_are_known(event_log: EventLog) -> None:
    """So what a reader has not read can be told, wherever it begins."""
    assert [event_log.before(position) for position in range(4)] == [0, 10, 30, 60]


def test_the_oldest_go_first_and_only_what_was_read(event_log: EventLog) -> None:
    """A batch is dropped if it is before a position; positions stay what they are."""
    assert not event_log.drop_oldest(0)
    assert event_log.drop_oldest(1)
    assert not event_log.drop_oldest(1)
    assert event_log.bytes == 50
    assert numbers(event_log.take(1, 1000)) == [2, 3, 4, 5, 6]
    assert event_log.take(0, 1000) is None
    assert repr(event_log) == "<EventLog 5 of 6 events, 50 bytes>"


def test_an_event_that_is_gone_is_said_to_be(event_log: EventLog) -> None:
    """The error names the oldest event that is held, if any is, and the newest."""
    event_log.drop_oldest(3)
    with pytest.raises(EventsExpired) as gone:
        event_log.find(0)
    assert gone.value.metadata == {"oldestSequence": "2", "lastSequence": "6"}
    event_log.clear()
    with pytest.raises(EventsExpired) as gone:
        event_log.find(5)
    assert gone.value.metadata == {"lastSequence": "6"}
    assert event_log.find(6) == event_log.end
    assert (event_log.bytes, event_log.total) == (0, 60)
