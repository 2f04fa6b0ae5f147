"""What stays of a message in the service: one copy while its turn waits, then nothing."""

import asyncio
import contextlib
import gc
import uuid
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from fake_claude import fake
from fake_claude import verbs as v
from support.service import Running, serving, until

from samovar.v1 import session_pb2 as pb
from samovard.core.process import Text
from samovard.edge.status import CODES

SEND = "/samovar.v1.Session/Send"
NOTHING: dict[str, int] = {}


@pytest.fixture(autouse=True)
def without_collector() -> Iterator[None]:
    """Keep the collector of cycles out of it: it may take minutes to come by."""
    gc.collect()
    gc.freeze()  # what other tests have left is not counted
    gc.disable()
    yield
    gc.enable()
    gc.unfreeze()


def kept() -> Counter[str]:
    """Count the messages and the texts of prompts in this process."""
    kinds = (pb.SendRequest, pb.Content, Text)
    # An object refers to its class. All objects cannot be had: what a thread makes is among them.
    return Counter(type(o).__name__ for o in gc.get_referrers(*kinds) if isinstance(o, kinds))


def message(session: str, *texts: str, turn_id: str = "", made: bool = True) -> bytes:
    """Return the bytes of a request: a message of the test's own would be counted, too."""
    request = pb.SendRequest(
        session_id=session,
        turn_id=turn_id or str(uuid.uuid4()),
        spec=pb.SessionSpec() if made else None,
        content=[pb.Content(text=text) for text in texts],
    )
    return request.SerializeToString()


async def end(call: Any) -> grpc.StatusCode:
    """Read a call's responses and return its status, which comes behind them."""
    with contextlib.suppress(grpc.aio.AioRpcError):
        while await call.read() is not grpc.aio.EOF:  # type: ignore[attr-defined]  # not in its stubs
            pass
    code: grpc.StatusCode = await call.code()
    return code


def test_a_prompt_is_there_once_while_its_turn_waits_and_then_no_more(directory: Path) -> None:
    """Whether its turn runs, is refused, withdrawn, joined or lost; with no collector of cycles."""
    gate, turn_id = directory / "open", str(uuid.uuid4())
    holds = fake(v.text("x"), v.gate(gate))
    refused = {
        "NO_PROCESS": message("c", "Say z"),
        "REQUEST_INVALID": message("a", "Say z", " "),
        "ID_TAKEN": message("a", "Say z", turn_id=turn_id),
        "SESSION_NOT_FOUND": message("none", "Say z", made=False),
    }

    async def story(run: Running, send: Any) -> None:
        running = send(message("a", holds, turn_id=turn_id))
        await running.read()
        assert kept() == NOTHING
        waiting = send(message("b", "Say y"))
        await until(lambda: run.service.pool.waiting)
        assert kept() == {"Text": 1}
        for reason, request in refused.items():
            assert await end(send(request)) is CODES[reason]
            await until(lambda: kept() == {"Text": 1})
        joined = send(message("a", holds, turn_id=turn_id))
        await joined.read()
        await until(lambda: kept() == {"Text": 1})
        waiting.cancel()
        await until(lambda: kept() == NOTHING)
        gate.touch()
        assert await end(joined) is await end(running) is grpc.StatusCode.OK
        assert await end(send(message("a", fake(v.die("mid_text"))))) is CODES["TURN_LOST"]
        await until(lambda: kept() == NOTHING)

    async def served() -> None:
        pool = {"slots": 1, "queue_limit": 1}
        async with contextlib.AsyncExitStack() as stack:
            run = await stack.enter_async_context(serving(directory, fake=True, pool=pool))
            channel: Any = await stack.enter_async_context(grpc.aio.insecure_channel(run.address))
            await story(run, channel.unary_stream(SEND))

    asyncio.run(served())
