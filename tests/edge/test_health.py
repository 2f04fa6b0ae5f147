"""Health is what a caller would find: broken when a turn could not be served, and not before."""

import asyncio
import contextlib
import os
from pathlib import Path
from typing import Any

import grpc
import pytest
from fake_claude import fake, write_start
from fake_claude import verbs as v
from grpc_health.v1 import health_pb2, health_pb2_grpc
from structlog.testing import capture_logs
from support import http2
from support.health_watcher import NOT_SERVING, SERVING, STATUS, cause, watching
from support.service import prepare, serving, until
from support.small_disk import small_disk

import samovar
from samovard.edge.health import SESSION, Health


def test_without_the_cli_it_does_not_serve_and_with_it_again_it_does(directory: Path) -> None:
    """The real CLI, taken away and put back: each is told within 10 s; a warm session is
    served all the while, and a new one is refused for what only the operator can mend."""

    async def story() -> None:
        real = await prepare(directory)
        binary = directory / "claude"
        binary.symlink_to(real)  # another link to the file would be a change of it
        async with serving(directory, binary=binary) as run, watching(run) as health:
            assert await health.next() == SERVING
            pid = (await run.client.ask("Say one", session="warm")).started.pid
            binary.rename(directory / "away")
            assert await health.next() == NOT_SERVING
            assert await cause(run, "new") == "binary-missing"
            assert (await run.client.ask("Say two", session="warm")).started.pid == pid
            (directory / "away").rename(binary)
            assert await health.next(30.0) == SERVING  # it is read anew, and started
            assert (await run.client.ask("Say three", session="new")).text == "three"

    asyncio.run(story())


def test_a_start_that_fails_is_noticed_by_the_first_who_needs_one(directory: Path) -> None:
    """What no check can see shows in a turn's start; a start is then tried until one answers."""

    async def story() -> None:
        async with serving(directory, fake=True) as run, watching(run) as health:
            assert await health.next() == SERVING
            write_start(directory, v.die("start", code=3))
            await health.stays(1.0)
            with capture_logs() as lines:
                assert await cause(run, "a") == "start-failed"
                assert await health.next() == NOT_SERVING
                await until(lambda: any(x["event"] == "start.exited" for x in lines))
            # Of the turn's own start the pool tells, with the turn; of a tried one its trial.
            (own,) = (x for x in lines if x["event"] == "process.exited")
            assert {"turn", "stderr"} <= set(own)
            tried = [x for x in lines if x["event"] == "start.exited"]
            assert own["process_id"] not in {x["process_id"] for x in tried}
            write_start(directory)
            assert await health.next() == SERVING

    asyncio.run(story())


def test_a_credential_that_is_gone_is_noticed(directory: Path) -> None:
    """Without one no agent starts."""

    async def story() -> None:
        async with serving(directory, fake=True) as run, watching(run) as health:
            assert await health.next() == SERVING
            (directory / "key").rename(directory / "away")
            assert await cause(run, "a") == "credential-missing"
            assert await health.next() == NOT_SERVING
            (directory / "away").rename(directory / "key")
            assert await health.next() == SERVING

    asyncio.run(story())


def test_a_service_that_could_start_nothing_says_so_from_the_first(directory: Path) -> None:
    """It listens and lives, and serves once a start answers."""

    async def story() -> None:
        binary = await prepare(directory, fake=True)
        write_start(directory, v.die("start", code=3))
        async with (
            serving(directory, binary=binary, trial=True) as run,
            watching(run) as health,
            watching(run, "") as alive,
        ):
            assert await alive.next() == SERVING
            assert await health.next() == NOT_SERVING
            write_start(directory)
            assert await health.next() == SERVING

    asyncio.run(story())


def test_a_store_whose_file_is_gone_is_noticed(directory: Path) -> None:
    """What is written to a file without a name is lost at the next start."""

    async def story() -> None:
        async with serving(directory, fake=True) as run, watching(run) as health:
            assert await health.next() == SERVING
            store = directory / "samovar.db"
            store.rename(directory / "away.db")
            assert await health.next() == NOT_SERVING
            (directory / "away.db").rename(store)
            assert await health.next() == SERVING

    asyncio.run(story())


def test_a_store_that_does_not_answer_is_noticed(directory: Path) -> None:
    """Another program that holds the database's lock keeps every turn from beginning."""
    sqlite = pytest.importorskip("sqlite3")

    async def story() -> None:
        async with serving(directory, fake=True) as run, watching(run) as health:
            assert await health.next() == SERVING
            with contextlib.closing(sqlite.connect(directory / "samovar.db")) as other:
                other.execute("BEGIN EXCLUSIVE")
                assert await health.next() == NOT_SERVING
                other.rollback()
                assert await health.next() == SERVING

    asyncio.run(story())


def test_a_full_pool_does_not_flip_it(directory: Path) -> None:
    """With every slot taken, turns waiting and others refused, it serves as before."""

    async def story() -> None:
        pool = {"slots": 1, "queue_limit": 1, "max_wait": "7 s"}
        async with serving(directory, fake=True, pool=pool) as run, watching(run) as health:
            assert await health.next() == SERVING
            async with run.client.send(fake(v.hang()), session="busy") as turn:
                assert isinstance(await anext(turn), samovar.TurnStarted)
                waiting = asyncio.create_task(cause(run, "a"))
                await until(lambda: run.service.pool.waiting == 1)
                assert await cause(run, "b") == "saturated"
                # Longer than between two looks.
                await health.stays(6.0)
                assert await waiting == "saturated"

    asyncio.run(story())


def test_on_a_full_disk_what_is_warm_is_served_and_nothing_starts(directory: Path) -> None:
    """A session without a process is refused at once, and served when there is room again."""

    async def story() -> None:
        root = directory / "s"
        with small_disk(root, "4M"):
            async with serving(directory, fake=True) as run, watching(run) as health:
                assert await health.next() == SERVING
                pid = (await run.client.ask("Say one", session="warm")).started.pid
                _fill(root / "full")
                assert await health.next() == NOT_SERVING
                assert await cause(run, "new") == "out-of-disk"
                assert (await run.client.ask("Say two", session="warm")).started.pid == pid
                (root / "full").unlink()
                assert await health.next() == SERVING
                assert (await run.client.ask("Say three", session="new")).text == "three"

    asyncio.run(story())


def _fill(path: Path) -> None:
    """Leaves less than the reserve, and enough for a warm turn to note what it must."""
    disk = os.statvfs(path.parent)
    left = int(0.04 * disk.f_blocks) * disk.f_frsize
    path.write_bytes(b"\0" * (disk.f_bavail * disk.f_frsize - left))


def test_list_tells_every_status(directory: Path) -> None:
    """`List` has each name that `Check` knows."""

    async def story() -> None:
        async with (
            serving(directory, fake=True) as run,
            grpc.aio.insecure_channel(run.address) as channel,
        ):
            stub = health_pb2_grpc.HealthStub(channel)
            told = (await stub.List(health_pb2.HealthListRequest())).statuses
            assert {name: told[name].status for name in told} == dict.fromkeys(
                ("", SESSION, "grpc.health.v1.Health"), SERVING
            )

    asyncio.run(story())


def test_a_name_that_means_nothing_is_unknown_to_watchers(directory: Path) -> None:
    """As the protocol of health checks demands: it may come to mean something."""

    async def story() -> None:
        async with serving(directory, fake=True) as run, watching(run, "acme") as health:
            assert await health.next() == STATUS.SERVICE_UNKNOWN

    asyncio.run(story())


def test_a_watcher_that_takes_nothing_holds_nobody_up(directory: Path) -> None:
    """Anybody may watch: a stream without a window keeps no status from changing, neither
    for others nor for a service that goes away."""

    async def story() -> None:
        async with serving(directory, fake=True) as run:
            port = int(run.address.rpartition(":")[2])
            with await asyncio.to_thread(_stuck_watcher, port):
                async with watching(run) as health:
                    assert await health.next() == SERVING
                    run.service.maintenance.health.leaving()
                    assert await health.next() == NOT_SERVING

    asyncio.run(story())


def _stuck_watcher(port: int) -> http2.Http2:
    client = http2.Http2(port, window=0)
    request = health_pb2.HealthCheckRequest(service=SESSION).SerializeToString()
    stream = client.call("/grpc.health.v1.Health/Watch", request)
    # With its headers the server has begun to answer.
    frames = client.frames(10.0)
    assert any(f.kind == http2.HEADERS and f.stream == stream for f in frames)
    return client


def test_a_watcher_hears_the_end_that_came_within_a_write() -> None:
    """A service that has nothing to end is gone before one write is over."""

    async def story() -> None:
        health, writing, go_on = Health(), asyncio.Event(), asyncio.Event()
        told: list[int] = []
        health.serving(yes=True)

        class Context:
            async def write(self, response: health_pb2.HealthCheckResponse) -> None:
                writing.set()
                await go_on.wait()
                told.append(response.status)

        context: Any = Context()
        request = health_pb2.HealthCheckRequest(service=SESSION)
        watch = asyncio.create_task(health.Watch(request, context))
        await writing.wait()
        health.leaving()
        health.close()
        go_on.set()
        await watch
        assert told == [SERVING, NOT_SERVING]

    asyncio.run(story())


def test_a_watcher_is_let_go_when_the_service_ends(directory: Path) -> None:
    """It hears that the service leaves, and its stream ends with the service."""

    async def story() -> None:
        # Longer than any test may take: what waited for the watcher would wait that long.
        patient = {"drain_grace": "1 h", "stop_budget": "1 h"}
        async with serving(directory, fake=True, server=patient) as run:
            stack = contextlib.AsyncExitStack()
            health = await stack.enter_async_context(watching(run))
            assert await health.next() == SERVING
            await run.service.shut_down(asyncio.Event())
            assert await health.next() == NOT_SERVING
            assert await health.next() is None
            await stack.aclose()

    asyncio.run(story())
