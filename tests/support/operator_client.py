"""The operator's requests to a service, over a real channel."""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
from google.rpc import error_details_pb2, status_pb2
from support.service import Running, serving, until

from samovar.v1 import pool_pb2 as pb
from samovar.v1 import pool_pb2_grpc
from samovard.core.pool.states import ProcessState

Story = Callable[[Running, Any], Coroutine[Any, Any, None]]


@asynccontextmanager
async def operating(address: str) -> AsyncIterator[Any]:
    async with grpc.aio.insecure_channel(address) as channel:
        yield pool_pb2_grpc.PoolStub(channel)


def operator(directory: Path) -> Any:
    return operating(f"unix:{directory / 'operator.sock'}")


def told(directory: Path, story: Story, *, fake: bool = True, **sections: Any) -> None:
    """Run a story of a running service and its operator."""

    async def tell() -> None:
        async with serving(directory, fake=fake, **sections) as run, operator(directory) as stub:
            await story(run, stub)

    asyncio.run(tell())


def reason(error: grpc.aio.AioRpcError) -> tuple[str, dict[str, str]]:
    trailing: Any = error.trailing_metadata() or ()
    details = dict(trailing).get("grpc-status-details-bin")
    if details is None:
        return error.code().name, {}
    info = error_details_pb2.ErrorInfo()
    status_pb2.Status.FromString(details).details[0].Unpack(info)
    return info.reason, dict(info.metadata)


async def processes(stub: Any, **fields: Any) -> list[pb.ProcessInfo]:
    return list((await stub.ListProcesses(pb.ListProcessesRequest(**fields))).processes)


async def pools(stub: Any, **fields: Any) -> list[pb.PoolInfo]:
    return list((await stub.ListPools(pb.ListPoolsRequest(**fields))).pools)


async def rest(run: Running) -> None:
    """Wait until every process is idle: a turn is over a little before."""
    await until(lambda: all(process.state is ProcessState.IDLE for process in run.service.pool))
