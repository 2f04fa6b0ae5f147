"""Connections that break and services that go, with each language's client."""

import asyncio
import itertools
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from fake_claude import fake
from fake_claude import verbs as v
from support.faulty_proxy import Proxy
from support.program import served
from support.scripted_server import Break, Hold, Script, finished, playing, said, started
from support.service import free_port
from support.timeouts import BOUND

from conformance.driving import Driver
from conformance.framing import CuttingProxy
from conformance.services import Beside, talking
from conformance.test_turns import check_whole, texts
from samovar.v1 import session_pb2 as pb

CROWD = 50
FULL = 100  # open streams, as many as a connection may have
PIECES = 6
LANES = 4  # turns at a time, each in a session of its own


def test_a_stream_that_breaks_goes_on(driver: Driver) -> None:
    """A stream that breaks is joined after its last event, by `Attach`."""
    last = [finished(sequence=4)]
    script = Script([started(), said("a"), Break()], [said("b", 3), Break()], last)
    with playing(script) as target, driver.client(target) as client:
        check_whole(client.send("Hello", session="s", deadline=BOUND).events())
    send, *attaches = script.requests
    assert [type(request).__name__ for request in attaches] == ["AttachRequest"] * 2
    assert [request.after_sequence for request in attaches] == [2, 3]
    assert {request.turn_id for request in attaches} == {send.turn_id}
    assert {request.session_id for request in attaches} == {"s"}
    assert {metadata["session-id"] for metadata in script.metadata} == {"s"}


def test_events_that_come_twice(driver: Driver) -> None:
    """Events that a service repeats are given once."""
    script = Script([started(), said("a"), Break()], [started(), said("a"), finished()])
    with playing(script) as target, driver.client(target) as client:
        check_whole(client.send("Hello", deadline=BOUND).events())


def test_nothing_is_called_after_the_last_event(driver: Driver) -> None:
    """A stream that breaks behind its last event has ended."""
    script = Script([started(), finished(sequence=2), Break()])
    with playing(script) as target, driver.client(target) as client:
        check_whole(client.send("Hello", deadline=BOUND).events())
    assert len(script.requests) == 1


def test_a_service_that_comes_back(driver: Driver) -> None:
    """A turn goes on with the service that comes after the one that went away."""
    port = free_port()
    before = Script([started(), said("a"), Hold()])
    after = Script([said("b", 3), finished(sequence=4)])
    with driver.client(f"127.0.0.1:{port}", deadline=BOUND) as client:
        with playing(before, port=port):
            turn = client.send("Hello", session="s")
            events = turn.until("text_delta")
        with playing(after, port=port):
            check_whole([*events, *turn.events()])
    (attach,) = after.requests
    assert attach.after_sequence == 2


def test_a_turn_of_a_service_that_died(driver: Driver, directory: Path) -> None:
    """A turn that ran when its service was killed is told as lost by the next one."""

    async def story() -> None:
        async with Proxy("") as proxy:
            await asyncio.to_thread(talk, proxy, asyncio.get_running_loop())

    def talk(proxy: Proxy, loop: asyncio.AbstractEventLoop) -> None:
        with served(directory) as program:
            proxy.to(program.address)
            with driver.client(proxy.address, deadline=BOUND) as client:
                turn = client.send(fake(v.text("half"), v.hang()), keep_running=True)
                turn.until("text_delta")
                program.child.kill()
                program.child.wait(BOUND)
                loop.call_soon_threadsafe(proxy.cut)
                with served(directory) as again:
                    proxy.to(again.address)
                    failed = turn.failed()
                    assert (failed["kind"], failed["prompt_written"]) == ("turn_lost", True)
                    assert failed["metadata"]["cause"] == "server-restarted"
                    assert client.ask("Say on")["text"] == "on"
                    assert again.end() == 0

    asyncio.run(story())


class Crowd(Script):
    """A script whose turns begin once all of them have come."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.come = threading.Barrier(size)
        self.interrupted = threading.Event()

    def _play(self, request: Any, context: Any) -> Iterator[pb.Event]:
        self.come.wait(BOUND)
        yield started(turn_id=request.turn_id)
        yield said(request.content[0].text)
        yield finished()

    def Interrupt(self, request: pb.InterruptRequest, context: Any) -> pb.InterruptResponse:
        self.interrupted.set()
        return pb.InterruptResponse(was_running=True)


class Full(Crowd):
    """A script whose turns end once one is interrupted."""

    def _play(self, request: Any, context: Any) -> Iterator[pb.Event]:
        yield started(turn_id=request.turn_id)
        assert self.interrupted.wait(BOUND)
        yield finished(sequence=2)


def test_many_turns_at_once(driver: Driver) -> None:
    """One client runs fifty turns at once, each with its own events."""
    with playing(Crowd(CROWD), CROWD) as target, driver.client(target) as client:
        turns = [client.send(f"turn {number}") for number in range(CROWD)]
        for number, turn in enumerate(turns):
            events = turn.events()
            check_whole(events)
            assert texts(events) == [f"turn {number}"]


def test_an_interrupt_beside_many_streams(driver: Driver) -> None:
    """An interrupt arrives although as many streams are open as a connection may have."""
    bound = [("grpc.max_concurrent_streams", FULL)]
    script = Full(0)
    with playing(script, FULL + 2, options=bound) as target, driver.client(target) as client:
        turns = [client.send("on") for _ in range(FULL)]
        begun = [turn.event() for turn in turns]
        assert client.call("interrupt", turn_id=begun[-1]["turn_id"]).done()["was_running"]
        for first, turn in zip(begun, turns, strict=True):
            check_whole([first, *turn.events()])


class Cuts:
    """Turns through proxies that each cut at another frame, some turns at a time."""

    def __init__(self, driver: Driver, service: Beside) -> None:
        self._driver = driver
        self._service = service
        self._frames = itertools.count()
        self.cut: set[int] = set()

    def lane(self, session: str) -> int:
        """Cut at frames before and after them, until a turn has fewer. Return the turns."""
        turns, cut = 0, True
        while cut:
            frame = next(self._frames)
            for after in (False, True):
                cut = self._service.ask(self._cut(session, frame, after=after))
                turns += 1
            self.cut |= {frame} if cut else set()
        return turns

    async def _cut(self, session: str, frame: int, *, after: bool) -> bool:
        async with CuttingProxy(self._service.address, frame, after=after) as proxy:
            await asyncio.to_thread(self._turn, proxy.address, session)
            return proxy.cut

    def _turn(self, address: str, session: str) -> None:
        prompt = fake(v.drip(PIECES, 5.0))
        with self._driver.client(address, deadline=BOUND) as client:
            events = client.send(prompt, session=session, keep_running=True).events()
        check_whole(events)
        assert "".join(texts(events)) == "".join(v.delta_text(n, 8) for n in range(PIECES))


def test_a_connection_that_is_cut_at_each_frame(driver: Driver, directory: Path) -> None:
    """Cut before and after each frame of a turn, a stream has no gap, and repeats nothing."""

    def talk(service: Beside) -> None:
        cuts = Cuts(driver, service)
        sessions = [f"lane-{number}" for number in range(LANES)]
        with ThreadPoolExecutor(LANES) as threads:
            turns = [*threads.map(cuts.lane, sessions)]
        assert len(cuts.cut) > 2 * PIECES
        with driver.client(service.address) as client:
            for session, count in zip(sessions, turns, strict=True):
                found = client.call("get_session", session=session).done()
                assert found["turn_count"] == count

    talking(directory, talk)
