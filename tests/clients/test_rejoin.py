"""A turn's stream goes on by itself after it broke, with both clients."""

import asyncio
import itertools
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import grpc
import pytest
from support.scripted_server import Break, Refusal, Script, finished, playing, said, started
from support.timeouts import BOUND

import samovar
from samovar import rejoin
from samovar.errors import CallBroken, SamovarError
from samovar.rejoin import FIRST_CONTACT, LONGEST_PAUSE, NO_DEADLINE, Contact, Rejoin
from samovar.v1 import session_pb2 as pb

Collect = Callable[..., list[samovar.Event]]
LOST = grpc.StatusCode.UNAVAILABLE
LATE = grpc.StatusCode.DEADLINE_EXCEEDED  # as gRPC itself says it


def synchronous(target: str, *, attach: dict[str, Any] | None = None, **options: Any) -> Any:
    with samovar.Client(target, deadline=options.pop("deadline", BOUND)) as client:
        turn = client.attach(**attach) if attach else client.send("Hello", **options)
        return list(turn)


def asynchronous(target: str, *, attach: dict[str, Any] | None = None, **options: Any) -> Any:
    async def story() -> list[samovar.Event]:
        deadline = options.pop("deadline", BOUND)
        async with samovar.AsyncClient(target, deadline=deadline) as client:
            turn = client.attach(**attach) if attach else client.send("Hello", **options)
            return [event async for event in turn]

    return asyncio.run(story())


@pytest.fixture(params=[synchronous, asynchronous])
def collect(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Collect:
    """Runs or follows a turn with one client or the other, without long pauses."""
    monkeypatch.setattr(rejoin, "FIRST_PAUSE", 0.01)
    found: Collect = request.param
    return found


def sequences(events: list[samovar.Event]) -> list[int]:
    return [event.sequence for event in events]


def kinds(script: Script) -> list[str]:
    return [type(request).__name__ for request in script.requests]


def test_a_broken_stream_is_attached_after_its_last_event(collect: Collect) -> None:
    """The caller gets every event once, in order, and notices nothing."""
    script = Script([started(), said("a"), Break()], [said("b", 3), finished("ab", sequence=4)])
    with playing(script) as target:
        events = collect(target, session="s")
    assert sequences(events) == [1, 2, 3, 4]
    send, attach = script.requests
    assert isinstance(send, pb.SendRequest)
    assert isinstance(attach, pb.AttachRequest)
    assert (attach.session_id, attach.turn_id) == ("s", send.turn_id)
    assert attach.after_sequence == 2
    assert [metadata["session-id"] for metadata in script.metadata] == ["s", "s"]


@pytest.mark.parametrize("code", ["UNAVAILABLE", "INTERNAL", "CANCELLED", "UNKNOWN"])
def test_without_an_event_the_same_turn_is_sent_again(collect: Collect, code: str) -> None:
    """Nobody knows whether it began: the same id runs at most once."""
    script = Script(Break(grpc.StatusCode[code]), [started(), finished("x")])
    with playing(script) as target:
        assert sequences(collect(target)) == [1, 3]
    first, second = script.requests
    assert first == second


def test_a_stream_may_break_again_and_again(collect: Collect) -> None:
    """Each event that comes is a new beginning."""
    steps: list[Any] = [[said("x", number), Break()] for number in range(1, 8)]
    script = Script(*steps, [finished(sequence=8)])
    with playing(script) as target:
        assert sequences(collect(target)) == [*range(1, 9)]
    assert [request.after_sequence for request in script.requests[1:]] == [*range(1, 8)]


def test_events_that_come_twice_are_given_once(collect: Collect) -> None:
    """Whatever a server repeats, the caller does not get it again."""
    again = [started(), said("a"), finished()]
    script = Script([started(), said("a"), Break()], again)
    with playing(script) as target:
        assert sequences(collect(target)) == [1, 2, 3]


def test_a_slow_reader_comes_again(collect: Collect) -> None:
    """READER_TOO_SLOW is one way of losing a stream."""
    slow = Refusal("READER_TOO_SLOW", code=10, promptWritten="true")
    script = Script([started(), slow], [said("a"), finished()])
    with playing(script) as target:
        assert sequences(collect(target)) == [1, 2, 3]
    assert kinds(script) == ["SendRequest", "AttachRequest"]


def test_a_refusal_does_not_end_what_had_begun(collect: Collect) -> None:
    """An `Attach` that is refused for a while is repeated after what the refusal says."""
    steps = [started(), Break()], Refusal("NO_PROCESS", 0.01), [said("a"), finished()]
    script = Script(*steps)
    with playing(script) as target:
        assert sequences(collect(target, deadline=None)) == [1, 2, 3]


def test_after_the_last_event_nothing_is_called_again(collect: Collect) -> None:
    """A call that breaks behind `turn_finished` has given everything."""
    script = Script([started(), finished(), Break()])
    with playing(script) as target:
        assert sequences(collect(target)) == [1, 3]
    assert len(script.requests) == 1


def test_events_of_unknown_kinds_count(collect: Collect) -> None:
    """What this version does not know was seen all the same."""
    unknown = pb.Event.FromString(b"\x08\x02" + bytes([0xFA, 0x3E, 0x00]))
    script = Script([started(), unknown, Break()], [finished()])
    with playing(script) as target:
        assert sequences(collect(target)) == [1, 3]
    assert script.requests[1].after_sequence == 2


FINAL = [
    Refusal("EVENTS_EXPIRED", code=11),
    Refusal("TURN_LOST", code=10, promptWritten="true"),
    Refusal("TURN_NOT_FOUND", code=5),
    Break(grpc.StatusCode.RESOURCE_EXHAUSTED),
    Break(grpc.StatusCode.UNIMPLEMENTED),
]


@pytest.mark.parametrize("last", FINAL)
def test_what_would_be_so_again_is_raised(collect: Collect, last: Refusal | Break) -> None:
    """The end of a turn, a gap, and what is too large for gRPC are for the caller."""
    script = Script([started(), Break()], last)
    with playing(script) as target, pytest.raises(SamovarError) as error:
        collect(target)
    assert error.value.code.value[0] == (
        last.status.code if isinstance(last, Refusal) else last.code.value[0]
    )
    assert len(script.requests) == 2


def test_at_the_deadline_the_last_failure_is_raised(collect: Collect) -> None:
    """It says what failed last, not that time is over: the next call would be too late."""
    late = Refusal("NO_PROCESS", 10 * BOUND)
    script = Script([started(), Break()], Break(), Break(), late)
    with playing(script) as target, pytest.raises(samovar.NoProcess):
        collect(target, deadline=BOUND)
    assert len(script.requests) == 4


@pytest.mark.parametrize(
    ("failure", "kind"), [(Refusal("NO_PROCESS", 0.01), samovar.NoProcess), (Break(), CallBroken)]
)
def test_a_failure_wins_over_a_deadline_that_grpc_tells(
    failure: Refusal | Break, kind: type[SamovarError], collect: Collect
) -> None:
    """A deadline that passes within the next call is raised as what failed before it."""
    script = Script([started(), Break()], failure, Break(LATE))
    with playing(script) as target, pytest.raises(kind) as error:
        collect(target)
    assert type(error.value) is kind
    assert len(script.requests) == 3


def test_a_deadline_that_nothing_failed_before_is_one(collect: Collect) -> None:
    """Also if a stream broke, and was joined again since."""
    script = Script([started(), Break()], [said("a"), Break(LATE)])
    with playing(script) as target, pytest.raises(samovar.DeadlineExceeded):
        collect(target)


def test_a_pause_beyond_the_deadline_is_not_begun(
    collect: Collect, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is raised says why the stream broke."""
    monkeypatch.setattr(rejoin, "FIRST_PAUSE", 10 * BOUND)
    script = Script([started(), Break()])
    with playing(script) as target, pytest.raises(CallBroken) as error:
        collect(target, deadline=BOUND)
    assert not isinstance(error.value, samovar.DeadlineExceeded)
    assert error.value.code is LOST
    assert len(script.requests) == 1


def test_attach_follows_a_turn(collect: Collect) -> None:
    """`attach` begins past an event, goes on after a break, and never sends."""
    script = Script([said("b", 3), Break()], [finished(sequence=4)])
    with playing(script) as target:
        wanted = {"turn_id": "t", "session": "s", "after_sequence": 2}
        assert sequences(collect(target, attach=wanted)) == [3, 4]
    assert kinds(script) == ["AttachRequest"] * 2
    assert [request.after_sequence for request in script.requests] == [2, 3]


def test_attach_without_a_session_is_of_the_default_one(collect: Collect) -> None:
    """As for `send`; and behind the last event it gives nothing."""
    script = Script([])
    with playing(script) as target:
        assert collect(target, attach={"turn_id": "t", "after_sequence": 9}) == []
    assert script.requests == [pb.AttachRequest(turn_id="t", after_sequence=9)]
    assert script.metadata[0]["session-id"] == "default"


@contextmanager
def at_the_pause(act: Callable[[], object]) -> Iterator[None]:
    """Does something when a client logs that a stream broke: the pause follows."""

    class Ear(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            act()

    log, ear = logging.getLogger("samovar"), Ear()
    before = log.level
    log.addHandler(ear)
    log.setLevel(logging.INFO)
    try:
        yield
    finally:
        log.setLevel(before)
        log.removeHandler(ear)


def test_closing_a_turn_ends_the_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who leaves is not made to wait for a service that is gone."""
    monkeypatch.setattr(rejoin, "FIRST_PAUSE", 1000.0)
    monkeypatch.setattr(rejoin, "LONGEST_PAUSE", 1000.0)
    script = Script([started(), Break()])
    with playing(script) as target, samovar.Client(target, deadline=9999.0) as client:
        turn = client.send("Hello")
        with at_the_pause(turn.close), pytest.raises(CallBroken):
            list(turn)


def test_closing_an_asynchronous_turn_ends_the_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    """So it is with the other client."""
    monkeypatch.setattr(rejoin, "FIRST_PAUSE", 1000.0)
    monkeypatch.setattr(rejoin, "LONGEST_PAUSE", 1000.0)

    async def story(target: str) -> None:
        async with samovar.AsyncClient(target, deadline=9999.0) as client:
            turn = client.send("Hello")
            assert isinstance(await anext(turn), samovar.TurnStarted)
            pauses = asyncio.Event()
            rest = asyncio.ensure_future(anext(turn))
            with at_the_pause(pauses.set):
                await pauses.wait()
            await turn.aclose()
            with pytest.raises(CallBroken):
                await rest

    with playing(Script([started(), Break()])) as target:
        asyncio.run(story(target))


# When to call again, on a clock of the test's own.


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def broken() -> CallBroken:
    return CallBroken("cut", code=LOST)


def pauses(stream: Rejoin, clock: Clock) -> Iterator[float]:
    """Breaks a stream again and again, each time after its pause, until it gives up."""
    while (pause := stream.pause(broken())) is not None:
        yield pause
        clock.now += pause


def response(sequence: int) -> pb.SendResponse:
    return pb.SendResponse(events=[said("x", sequence)])


def test_pauses_grow_to_a_bound_and_vary(clock: Clock) -> None:
    """Each is between a half and all of twice the one before, at most five seconds."""
    stream = Rejoin("s", "t", Contact(made=True), deadline=1e6, clock=clock)
    seen = [*itertools.islice(pauses(stream, clock), 50)]
    bounds = [min(0.1 * 2**n, LONGEST_PAUSE) for n in range(50)]
    assert all(bound / 2 <= pause <= bound for pause, bound in zip(seen, bounds, strict=True))
    assert len({round(pause, 6) for pause in seen[10:]}) > 30
    stream.take(response(1))
    assert next(pauses(stream, clock)) <= 0.1


def test_a_stream_is_joined_again_until_its_deadline(clock: Clock) -> None:
    """However long that is, and never later."""
    stream = Rejoin("s", "t", Contact(made=True), deadline=1000.0, clock=clock)
    assert sum(pauses(stream, clock)) > 990
    assert clock.now < 1100.0


def test_without_a_deadline_it_is_given_up_after_a_minute(clock: Clock) -> None:
    """The minute begins anew with each event."""
    stream = Rejoin("s", "t", Contact(made=True), clock=clock)
    assert stream.left() is None
    assert NO_DEADLINE - LONGEST_PAUSE < sum(pauses(stream, clock)) < NO_DEADLINE
    stream.take(response(1))
    assert sum(pauses(stream, clock)) > NO_DEADLINE - LONGEST_PAUSE


def test_a_service_that_was_never_there_is_soon_given_up(clock: Clock) -> None:
    """Most likely nobody listens: that is told within seconds, without a deadline at once."""
    contact = Contact()
    stream = Rejoin("s", "t", contact, deadline=1000.0, clock=clock)
    assert sum(pauses(stream, clock)) < FIRST_CONTACT
    assert Rejoin("s", "t", contact, clock=clock).pause(broken()) is None
    told = SamovarError("no", code=LOST, reason="SESSION_BUSY")
    assert Rejoin("s", "t", contact, clock=clock).pause(told) is None
    assert contact.made


def test_a_late_refusal_is_not_waited_for(clock: Clock) -> None:
    """Neither past the deadline nor, before anything was given, without one."""
    refusal = SamovarError("no", code=LOST, reason="NO_PROCESS", retry_delay=30.0)
    for deadline, expected in ((20.0, None), (40.0, 30.0), (None, None)):
        stream = Rejoin("s", "t", Contact(), deadline=deadline, clock=clock)
        assert stream.pause(refusal) == expected
    stream.take(response(1))
    assert stream.pause(refusal) == 30.0
