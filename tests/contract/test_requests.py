"""Requests that no client of ours makes: numbers out of range, and bytes that are no message."""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message
from google.rpc import status_pb2
from hypothesis import given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs
from support.operator_client import operator
from support.service import Running, raw, serving, simple

from samovar.v1 import pool_pb2, session_pb2
from samovard.edge.gate import HEALTH, POOL, SESSION

TURN = "0af76519-16cd-43dd-8448-eb211c80319c"
SPEC = session_pb2.SessionSpec()
#: The requests of each method that have a number, otherwise as they should be.
REQUESTS: dict[str, Message] = {
    "Send": simple("Say x", session_id="s", spec=SPEC),
    "Attach": session_pb2.AttachRequest(session_id="s", turn_id=TURN),
    "ListSessions": session_pb2.ListSessionsRequest(),
    "ListPools": pool_pb2.ListPoolsRequest(),
    "ListProcesses": pool_pb2.ListProcessesRequest(),
    "ListUsage": pool_pb2.ListUsageRequest(),
    "WatchPools": pool_pb2.WatchPoolsRequest(),
}
RANGES = {
    FieldDescriptor.CPPTYPE_INT32: 1 << 31,
    FieldDescriptor.CPPTYPE_INT64: 1 << 63,
    FieldDescriptor.CPPTYPE_ENUM: 1 << 31,
}
REFUSED = ("INVALID_ARGUMENT", "ALREADY_EXISTS")
JUNK = b"\xff" * 8
PARSED = (FieldDescriptor.CPPTYPE_STRING, FieldDescriptor.CPPTYPE_BOOL)


def numbers(message: Any, *path: str) -> Iterator[tuple[tuple[str, ...], int]]:
    """Yield the path and the range of each number in a message's descriptor, at any depth."""
    for field in message.fields:
        here = (*path, field.name)
        if field.message_type is not None:
            yield from (
                ()
                if field.message_type.GetOptions().map_entry
                else numbers(field.message_type, *here)
            )
        elif field.cpp_type not in PARSED:
            yield here, RANGES[field.cpp_type]


def requests() -> Iterator[tuple[str, Any]]:
    """Yield every method that callers and operators have, and its request's descriptor."""
    for module, service in ((session_pb2, "Session"), (pool_pb2, "Pool")):
        for method in module.DESCRIPTOR.services_by_name[service].methods:
            yield method.name, method.input_type


def with_numbers(name: str, values: dict[tuple[str, ...], int]) -> tuple[str, Message]:
    """Return a method's request with numbers at these paths."""
    request = type(REQUESTS[name])()
    request.CopyFrom(REQUESTS[name])
    for path, value in values.items():
        inner: Any = request
        for step in path[:-1]:
            inner = getattr(inner, step)
        setattr(inner, path[-1], value)
    return name, request


def edges(most: int) -> list[int]:
    """Return where ranges end: the field's own, and that of what a duration is made into."""
    return [n for n in (0, 1, -1, most - 1, -most, 10**14, -(10**14)) if -most <= n < most]


def at_the_edges() -> Iterator[tuple[str, Message]]:
    for name, request in REQUESTS.items():
        for path, most in numbers(request.DESCRIPTOR):
            yield from (with_numbers(name, {path: value}) for value in edges(most))


@st.composite
def drawn(draw: st.DrawFn) -> tuple[str, Message]:
    """Draw a request whose numbers are anything that their fields can hold."""
    name = draw(st.sampled_from(sorted(REQUESTS)))
    fields = dict(numbers(REQUESTS[name].DESCRIPTOR))
    paths = draw(st.sets(st.sampled_from(sorted(fields)), min_size=1))
    ranges = {path: st.integers(-fields[path], fields[path] - 1) for path in paths}
    return with_numbers(name, {path: draw(number) for path, number in ranges.items()})


async def code(run: Running, operator: Any, name: str, request: Message) -> str:
    """Make a call, whose first response is enough, and return its status."""
    call = getattr(run.stub if f"/samovar.v1.Session/{name}" in SESSION else operator, name)
    try:
        if name == "WatchPools":
            watching = call(request)
            await watching.read()
            watching.cancel()
        elif name in ("Send", "Attach"):
            async for _ in call(request):
                pass
        else:
            await call(request)
    except grpc.aio.AioRpcError as error:
        return error.code().name
    return "OK"


def test_every_request_with_a_number_is_tried() -> None:
    """A message that gets one has a row here."""
    assert {name for name, message in requests() if [*numbers(message)]} == set(REQUESTS)


def test_no_number_is_a_defect(directory: Path) -> None:
    """Whatever a field can hold is served or refused: never INTERNAL, and no line of a defect."""

    async def story(calls: list[tuple[str, Message]]) -> None:
        async with serving(directory, fake=True) as run, operator(directory) as stub:
            await run.client.ask("Say x", session="s", turn_id=TURN)
            for name, request in calls:
                assert await code(run, stub, name, request) in ("OK", *REFUSED), request

    calls = [*at_the_edges()]

    @settings(max_examples=60)
    @given(drawn())
    def draw(call: tuple[str, Message]) -> None:
        calls.append(call)

    draw()
    with capture_logs() as lines:
        asyncio.run(story(calls))
    assert not [line for line in lines if line["event"] == "defect"]


@pytest.mark.parametrize("service", ["Session", "Pool", "Health"])
def test_bytes_that_are_no_message_are_a_bad_request(directory: Path, service: str) -> None:
    """Each method answers REQUEST_INVALID as for any other fault, with no word of an exception."""
    methods = {"Session": SESSION, "Pool": POOL, "Health": HEALTH}[service]

    async def refused(channel: grpc.aio.Channel, method: str) -> None:
        with pytest.raises(grpc.aio.AioRpcError) as error:
            await channel.unary_stream(method, bytes, bytes)(JUNK).read()
        assert error.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert "DecodeError" not in str(error.value)
        trailing: Any = error.value.trailing_metadata()
        assert b"REQUEST_INVALID" in dict(trailing)["grpc-status-details-bin"]

    async def story() -> None:
        async with serving(directory, fake=True) as run:
            where = f"unix:{directory / 'operator.sock'}" if service == "Pool" else run.address
            async with grpc.aio.insecure_channel(where) as channel:
                for method in methods:
                    await refused(channel, method)

    with capture_logs() as lines:
        asyncio.run(story())
    assert not [line for line in lines if line["event"] == "defect"]


def test_a_request_with_very_many_bad_fields_is_told_so(directory: Path) -> None:
    """What is told of 64 bad blocks is no more than a stock client takes of a status."""

    async def story() -> None:
        async with serving(directory, fake=True) as run:
            image = session_pb2.Content(image=session_pb2.Content.Image(media_type="x"))
            with pytest.raises(grpc.aio.AioRpcError) as error:
                await raw(run.stub, session_pb2.SendRequest(content=[image] * 64))
            assert error.value.code() is grpc.StatusCode.INVALID_ARGUMENT
            trailing: Any = error.value.trailing_metadata()
            status = status_pb2.Status.FromString(dict(trailing)["grpc-status-details-bin"])
            assert b"REQUEST_INVALID" in status.SerializeToString()
            assert "content[0]: " in status.message
            assert status.message.endswith("and 48 more")

    asyncio.run(story())
