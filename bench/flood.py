"""`python -m bench.flood ADDRESS KEY CALL`: make a tenant's call, many at once, until ended."""

import asyncio
import sys
import uuid
from contextlib import suppress
from typing import Any

import grpc

from samovar.v1 import session_pb2 as pb
from samovar.v1 import session_pb2_grpc

AT_ONCE = 32
KNOWN = "in memory"
UNKNOWN = "unknown"
LISTED = "listed"


def request(call: str) -> tuple[str, Any]:
    """Return the method and the message of a call."""
    if call == LISTED:
        state = pb.SessionInfo.STATE_SUSPENDED
        return "ListSessions", pb.ListSessionsRequest(page_size=1, state=state)
    name = "default" if call == KNOWN else uuid.uuid4().hex
    return "GetSession", pb.GetSessionRequest(session_id=name)


def bearer(key: str) -> tuple[tuple[str, str]]:
    """Return the metadata for a key."""
    return (("authorization", f"Bearer {key}"),)


async def flood(address: str, key: str, call: str) -> None:
    """Call until cancelled."""
    metadata = bearer(key)
    async with grpc.aio.insecure_channel(address) as channel:
        stub = session_pb2_grpc.SessionStub(channel)

        async def again() -> None:
            while True:
                method, message = request(call)
                with suppress(grpc.aio.AioRpcError):  # an unknown session is NOT_FOUND
                    await getattr(stub, method)(message, metadata=metadata)

        async with asyncio.TaskGroup() as group:
            for _ in range(AT_ONCE):
                group.create_task(again())
            print("flooding", flush=True)


if __name__ == "__main__":
    asyncio.run(flood(*sys.argv[1:]))
