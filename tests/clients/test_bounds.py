"""Numbers that the client is given: sent as the wire can hold them, or refused at once."""

import asyncio
import contextlib
import math

import pytest
from google.protobuf.message import Message
from hypothesis import given
from hypothesis import strategies as st
from support.scripted_server import Script, finished, playing, started

import samovar
from samovar import bounds, operating, requests
from samovar.bounds import LONGEST
from samovar.requests import Options
from samovar.v1 import session_pb2 as pb

NUMBERS = st.floats() | st.integers() | st.sampled_from([0.0, -0.0, 1e300, math.inf, math.nan])


@given(NUMBERS)
def test_a_time_is_within_bounds_or_refused(value: float) -> None:
    """Above 0 it is a time, at most a year; what is not above 0, or no number, is refused."""
    if value > 0:
        assert bounds.seconds("x", value) == min(value, LONGEST)
        assert bounds.deadline(value, 1.0) == min(value, LONGEST)
    else:
        with pytest.raises(samovar.RequestInvalid) as refused:
            bounds.seconds("x", value)
        assert [name for name, _ in refused.value.violations] == ["x"]


@given(NUMBERS, st.integers())
def test_no_number_breaks_a_request(seconds: float, number: int) -> None:
    """Every request with a number is made, or is `RequestInvalid` as one that is too large is."""
    options = Options(turn_timeout=seconds, max_agent_steps=number)
    for make in (
        lambda: requests.send("x", options),
        lambda: operating._watching(seconds, "", number),
        lambda: pb.AttachRequest(after_sequence=bounds.count("after_sequence", number, 64)),
    ):
        made: Message | None = None
        with contextlib.suppress(samovar.RequestInvalid):
            made = make()
        assert made is not None or not seconds > 0 or number < 0


def test_no_deadline_is_the_clients_own() -> None:
    """None is the client's, which may be none."""
    assert bounds.deadline(None, 7.0) == 7.0
    assert bounds.deadline(None) is None


@pytest.mark.parametrize("deadline", [0, 0.0, -1, math.nan, -math.inf])
def test_a_deadline_that_means_nothing_is_refused(deadline: float) -> None:
    """Of a client, of a call and of a wait: before anything is sent."""
    with pytest.raises(samovar.RequestInvalid):
        samovar.Client("127.0.0.1:1", deadline=deadline)
    with samovar.Client("127.0.0.1:1") as client:
        for call in (
            lambda: client.send("x", deadline=deadline),
            lambda: client.ask("x", deadline=deadline),
            lambda: client.attach("0af76519-16cd-43dd-8448-eb211c80319c", deadline=deadline),
            lambda: client.wait(deadline),
        ):
            with pytest.raises(samovar.RequestInvalid):
                call()


@pytest.mark.parametrize("deadline", [math.inf, 1e300, 1e18])
def test_a_deadline_without_end_does_not_fail(deadline: float) -> None:
    """gRPC could not count it: it is a year, in both clients."""
    script = Script(*[[started(), finished("hi")]] * 2)

    async def asked(target: str) -> str:
        async with samovar.AsyncClient(target, deadline=deadline) as client:
            return (await client.ask("x")).text

    with playing(script) as target:
        with samovar.Client(target) as client:
            assert client.ask("x", deadline=deadline).text == "hi"
        assert asyncio.run(asked(target)) == "hi"
