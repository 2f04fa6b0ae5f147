"""Another tenant's session is one that does not exist: to the byte, and in the work done."""

import asyncio
import sys
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import pytest
from support.core_runner import story
from support.service import Running, key_for, prepare, serving, simple
from support.world import World, passes

from samovar.v1 import session_pb2 as pb
from samovard.core.errors import SamovarError
from samovard.core.process import Allow, Prompt, Text
from samovard.core.records import SessionKey
from samovard.core.sessions.conversation import TurnRequest

THEIRS, NOBODYS = "theirs", "nobody"  # as long as each other
TURN = str(uuid.uuid4())

#: A request about a session for each method that takes one.
REQUESTS: dict[str, Callable[[str], Any]] = {
    "Send": lambda session: simple("Say x", session_id=session),
    "Attach": lambda session: pb.AttachRequest(session_id=session, turn_id=TURN),
    "Interrupt": lambda session: pb.InterruptRequest(session_id=session, turn_id=TURN),
    "Respond": lambda session: pb.RespondRequest(
        session_id=session, permission_id="p", allow=pb.RespondRequest.Allow()
    ),
    "GetSession": lambda session: pb.GetSessionRequest(session_id=session),
    "CloseSession": lambda session: pb.CloseSessionRequest(session_id=session),
}
SERVICE = pb.DESCRIPTOR.services_by_name["Session"]


def test_every_method_that_takes_a_session_has_a_row() -> None:
    """A method that is added is asked about, too."""
    taking = {
        method.name
        for method in SERVICE.methods
        if "session_id" in method.input_type.fields_by_name
    }
    assert taking == set(REQUESTS)
    assert {method.name for method in SERVICE.methods} - taking == {"ListSessions", "GetUsage"}


async def answer(run: Running, method: str, session: str, key: str) -> tuple[object, ...]:
    """Return all that a caller sees: the responses, or the status with its metadata."""
    call = getattr(run.stub, method)(
        REQUESTS[method](session), metadata=(("authorization", f"Bearer {key}"),)
    )
    try:
        if method in ("Send", "Attach"):
            return tuple([response.SerializeToString() async for response in call])
        return ((await call).SerializeToString(), tuple(await call.initial_metadata()))
    except grpc.aio.AioRpcError as error:
        trailing: Any = error.trailing_metadata()
        return error.code(), error.details(), tuple(trailing)


def test_another_tenants_session_is_none_to_the_byte(directory: Path) -> None:
    """For each method, while it is in memory and while only the store knows it."""

    async def asked(run: Running, key: str) -> None:
        for method in REQUESTS:
            found = await answer(run, method, THEIRS, key)
            assert found == await answer(run, method, NOBODYS, key), method

    async def story() -> None:
        binary = await prepare(directory, fake=True)
        acme, blue = [await key_for(directory, tenant) for tenant in ("acme", "blue")]
        auth = {"methods": ["api_key"]}
        mine = {"metadata": (("authorization", f"Bearer {acme}"),)}
        spec = pb.SessionSpec()
        async with serving(directory, binary=binary, auth=auth) as run:
            begun = simple("Say x", session_id=THEIRS, turn_id=TURN, spec=spec)
            assert [response async for response in run.stub.Send(begun, **mine)]
            await asked(run, blue)
        async with serving(directory, binary=binary, auth=auth) as run:
            await asked(run, blue)
            kept = await run.stub.GetSession(pb.GetSessionRequest(session_id=THEIRS), **mine)
            assert kept.session.turn_count == 1

    asyncio.run(story())


def sending(key: SessionKey) -> TurnRequest:
    return TurnRequest(key, Prompt(TURN, (Text(b"x"),)), b"x")


#: What the core does for each method.
CALLS: dict[str, Callable[[World, SessionKey], Any]] = {
    "Send": lambda w, key: w.sessions.begin(sending(key)),
    "Attach": lambda w, key: w.sessions.attach(key, TURN, 0),
    "Interrupt": lambda w, key: w.sessions.interrupt(key, TURN),
    "Respond": lambda w, key: w.sessions.respond(key, "p", Allow()),
    "GetSession": lambda w, key: w.sessions.get(key),
    "CloseSession": lambda w, key: w.sessions.close(key),
}


async def work(w: World, method: str, key: SessionKey) -> list[str]:
    """Return every function that is called for a method, in order, with those of the store."""
    steps: list[str] = []

    def note(frame: Any, event: str, argument: object) -> None:
        if event == "call":
            steps.append(f"{frame.f_code.co_filename}:{frame.f_code.co_qualname}")

    sys.setprofile(note)
    try:
        await CALLS[method](w, key)
    except SamovarError:
        pass
    finally:
        sys.setprofile(None)
    return steps


@story()
async def test_as_much_is_done_for_another_tenants_session_as_for_none(w: World) -> None:
    """The same steps, the store's among them, whether the session is warm or only stored."""
    assert CALLS.keys() == REQUESTS.keys()
    await w.turn(session=THEIRS, turn_id=TURN)
    for _ in ("warm", "stored"):
        for method in CALLS:
            names = (NOBODYS, THEIRS, NOBODYS)  # the first fills caches
            _, *done = [await work(w, method, SessionKey("blue", name)) for name in names]
            assert done[0] == done[1], method
            assert any("memory_store.py" in step for step in done[0]), method
        await passes_idle(w)


async def passes_idle(w: World) -> None:
    await passes(2 * w.pool.limits.idle_ttl + 3600.0)
    assert not len(w.sessions)


@pytest.mark.parametrize("method", REQUESTS)
def test_the_table_asks_what_the_contract_has(method: str) -> None:
    """Each row is a request of its own method."""
    assert REQUESTS[method]("s").DESCRIPTOR == SERVICE.methods_by_name[method].input_type
