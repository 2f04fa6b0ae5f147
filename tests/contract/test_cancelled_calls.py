"""Calls that are cancelled at every await of the service, over a real channel."""

import asyncio
from pathlib import Path
from typing import Any

import grpc
import pytest
from support.await_points import Fate
from support.send_scenarios import SERVICE
from support.service import Running, serving, simple, until
from support.timeouts import BOUND

from samovar.v1 import session_pb2 as pb


async def cancelled(run: Running, at: int, request: pb.SendRequest) -> tuple[bool, list[Any]]:
    """Sends, and cancels at an await of the service; gives whether it came to that."""
    call = run.stub.Send(request, timeout=BOUND)
    fate = Fate(at, SERVICE, call.cancel)
    fate.begun = True
    fate.watch(asyncio.get_running_loop())
    events: list[Any] = []
    try:
        async for response in call:
            events += response.events
    except (asyncio.CancelledError, grpc.aio.AioRpcError):
        pass
    asyncio.get_running_loop().set_task_factory(None)
    return bool(fate.struck), events


async def nothing_is_held(run: Running) -> None:
    """No turn runs or waits, and every process idles without a lease."""
    service = run.service
    await until(lambda: not service.sessions.running)
    await until(lambda: all(process.state.value == "idle" for process in service.pool))
    assert not service.pool.waiting
    assert not any(process.lease for process in service.pool)


@pytest.mark.parametrize("on_fake", [True, False], ids=["fake", "real"])
def test_a_call_cancelled_at_any_await_keeps_the_process(directory: Path, on_fake: bool) -> None:
    """A warm session's caller who leaves leaves nothing, and the next turn has the process."""

    async def story() -> None:
        async with serving(directory, fake=on_fake) as run:
            process = (await run.client.ask("Say warm")).started.process_id
            at, struck = 0, True
            while struck:
                words = f"canary-{at}"
                struck, events = await cancelled(run, at, simple(f"Say {words}"))
                said = "".join(event.text_delta.text for event in events)
                assert words.startswith(said)
                await nothing_is_held(run)
                after = await run.client.ask(f"Say after-{at}")
                assert (after.text, after.started.process_id) == (f"after-{at}", process)
                at += 1
            assert at > 2

    asyncio.run(story())


def test_a_first_call_cancelled_at_any_await_is_all_or_nothing(directory: Path) -> None:
    """A first turn that is lost before its prompt leaves no session and no process."""

    async def story() -> None:
        async with serving(directory, fake=True, pool={"slots": 2}) as run:
            at, struck, withdrawn = 0, True, 0
            while struck:
                name = f"new-{at}"
                request = simple(f"Say {name}", session_id=name, spec=pb.SessionSpec())
                struck, events = await cancelled(run, at, request)
                await nothing_is_held(run)
                made = {info.session_id async for info in run.client.list_sessions()}
                kept = {process.key.session for process in run.service.pool}
                assert (name in made) is (name in kept)
                assert name in made or not events
                withdrawn += name not in made
                at += 1
            assert withdrawn > 2

    asyncio.run(story())
