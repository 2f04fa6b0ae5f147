"""Both clients ask for health and wait for a service that boots."""

import asyncio
import threading
from collections.abc import Callable, Iterator
from concurrent import futures
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from support.timeouts import BOUND

import samovar
from samovar.errors import CallBroken, DeadlineExceeded, SamovarError
from samovar.health import LONGEST_PAUSE, SESSION, Boot, Health

Answer = bytes | grpc.StatusCode
SERVING, NOT_SERVING, NEW = b"\x08\x01", b"\x08\x02", b"\x08\x63"
GONE = grpc.StatusCode.UNAVAILABLE


@contextmanager
def answering(*answers: Answer, at: str = "127.0.0.1:0") -> Iterator[tuple[str, list[bytes]]]:
    """Serve health; yield where, and the requests. The last answer stays."""
    left, asked = list(answers), []

    def check(request: bytes, context: Any) -> bytes:
        asked.append(request)
        answer = left.pop(0) if len(left) > 1 else left[0]
        if isinstance(answer, grpc.StatusCode):
            context.abort(answer, "no")
        assert isinstance(answer, bytes)
        return answer

    handler = grpc.unary_unary_rpc_method_handler(check)
    health = grpc.method_handlers_generic_handler("grpc.health.v1.Health", {"Check": handler})
    with futures.ThreadPoolExecutor(1) as threads:
        server = grpc.server(threads, handlers=[health])
        port = server.add_insecure_port(at)
        server.start()
        try:
            yield at if at.startswith("unix:") else f"127.0.0.1:{port}", asked
        finally:
            server.stop(None).wait(BOUND)


def synchronous(target: str, act: Callable[[Any], Any]) -> Any:
    with samovar.Client(target) as client:
        return act(client)


def asynchronous(target: str, act: Callable[[Any], Any]) -> Any:
    async def story() -> Any:
        async with samovar.AsyncClient(target) as client:
            return await act(client)

    return asyncio.run(story())


Run = Callable[[str, Callable[[Any], Any]], Any]
both = pytest.mark.parametrize("run", [synchronous, asynchronous])


@both
@pytest.mark.parametrize(
    ("answer", "health"),
    [
        (SERVING, "serving"),
        (NOT_SERVING, "not serving"),
        (b"", "unknown"),
        (NEW, "unknown"),
    ],
)
def test_health_is_a_word(run: Run, answer: bytes, health: str) -> None:
    """The service's own, or that of the service that is asked about."""
    with answering(answer) as (target, asked):
        assert run(target, lambda client: client.health()) == health
        assert run(target, lambda client: client.health("")) == health
    assert asked == [b"\n" + bytes([len(SESSION)]) + SESSION.encode(), b""]


@both
def test_health_that_cannot_be_asked_for_is_an_error(run: Run, directory: Path) -> None:
    """Nobody there, or no health there, raises as any call does."""
    with pytest.raises(CallBroken):
        run(f"unix:{directory}/no.sock", lambda client: client.health())
    with answering(grpc.StatusCode.UNIMPLEMENTED) as (target, _), pytest.raises(CallBroken):
        run(target, lambda client: client.health())


@both
def test_wait_ends_when_turns_are_served(run: Run) -> None:
    """A service that refuses calls, and then that it serves, is asked again."""
    with answering(GONE, NOT_SERVING, b"", SERVING, NOT_SERVING) as (target, asked):
        assert run(target, lambda client: client.wait(BOUND)) is None
    assert len(asked) == 4


@both
def test_wait_begins_before_anybody_listens(run: Run, directory: Path) -> None:
    """The service may come later than the client."""
    target = f"unix:{directory}/late.sock"
    waiting = threading.Thread(target=lambda: run(target, lambda client: client.wait(BOUND)))
    waiting.start()
    with answering(SERVING, at=target) as (_, asked):
        waiting.join(BOUND)
        assert len(asked) == 1


@both
def test_wait_does_not_wait_for_what_does_not_pass(run: Run) -> None:
    """A service without health is told at once."""
    with answering(grpc.StatusCode.UNIMPLEMENTED) as (target, asked), pytest.raises(CallBroken):
        run(target, lambda client: client.wait(BOUND))
    assert len(asked) == 1


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def failures(boot: Boot, clock: Clock, *found: Health | SamovarError) -> SamovarError:
    """Find something again and again, the last of it for ever, until it is raised."""
    for number in range(1000):
        try:
            pause = boot.pause(found[min(number, len(found) - 1)])
        except SamovarError as error:
            return error
        assert pause is not None
        assert pause <= LONGEST_PAUSE
        clock.now += pause
    raise AssertionError("it never gives up")


def test_a_boot_is_waited_for_until_its_time_is_over() -> None:
    """Pauses grow to a second, none ends too late, and the last failure wins over gRPC's."""
    gone, late = CallBroken("gone", code=GONE), DeadlineExceeded("late")
    for found, raised in (((gone,), gone), ((gone, late), gone), ((late,), late)):
        clock = Clock()
        boot = Boot(60.0, clock)
        assert failures(boot, clock, *found) is raised
        assert 58.0 < clock.now - 100.0 < 60.0
        assert boot.left() < 2.0


def test_a_boot_that_takes_too_long_is_told() -> None:
    """What the service said last, and after how long."""
    clock = Clock()
    error = failures(Boot(3.0, clock), clock, "unknown", "not serving")
    assert isinstance(error, DeadlineExceeded)
    assert str(error) == "the service is not serving after 3 s"
