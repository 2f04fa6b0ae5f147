"""A log that cannot be written changes no answer and no exit code."""

import asyncio
import errno
import fcntl
import os
import signal
import struct
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import grpc
import pytest
import structlog
from contract import test_agent_faults as faults
from contract import test_endings as endings
from fake_claude import fake
from fake_claude import verbs as v
from grpc_health.v1 import health_pb2, health_pb2_grpc
from structlog.testing import capture_logs
from support.program import SAMOVARD, config_of, environ, processes_of, sending, serve
from support.service import prepare, serving
from support.timeouts import BOUND

import samovar
from samovard.edge import call_telemetry
from samovard.telemetry import log
from samovard.telemetry.log import Lines

PIPE = 4096  # bytes: the smallest that a pipe can be


def fails(_: bytes) -> None:
    raise OSError(errno.EPIPE, "gone")


def hangs(_: bytes) -> None:
    threading.Event().wait()


@contextmanager
def logged_by(write: Callable[[bytes], None], monkeypatch: pytest.MonkeyPatch) -> Iterator[Lines]:
    """Write stderr, and every line of the log, with a function."""
    lines = Lines(write)
    monkeypatch.setattr(sys, "stderr", lines)
    log.configure("json", "debug", sys.stderr)
    try:
        yield lines
    finally:
        structlog.reset_defaults()


def drains(directory: Path) -> None:
    """A turn that outlasts its grace is told as interrupted; idle and leased processes end."""

    async def story() -> None:
        async with serving(directory, fake=True, server={"drain_grace": "200 ms"}) as run:
            await run.client.ask("Say idle", session="idle")
            async with run.client.send(fake(v.hang())) as turn:
                assert isinstance(await anext(turn), samovar.TurnStarted)
                leaving = asyncio.create_task(run.service.shut_down(asyncio.Event()))
                *_, last = [event async for event in turn]
            assert isinstance(last, samovar.TurnFinished)
            assert last.outcome is samovar.Outcome.INTERRUPTED
            await leaving
            assert not processes_of(directory)

    asyncio.run(story())


SCENES: dict[str, Callable[[Path], None]] = {
    "every ending": endings.test_a_stream_is_ok_exactly_when_turn_finished_came_last,
    "a death, a restart": endings.test_how_a_turn_was_lost_outlives_the_server,
    "usage of the lost": endings.test_a_lost_turn_counts_what_is_known_of_its_usage,
    "bad bytes": faults.test_bytes_that_are_no_protocol_end_the_process,
    "a drain": drains,
    "a foreign line": faults.test_a_line_of_another_session_blocks_the_session,
    **{
        fault: partial(faults.test_a_lost_turn_is_told_and_the_session_goes_on, fault=fault)
        for fault in faults.LOST
    },
}


@pytest.mark.parametrize("scene", SCENES)
@pytest.mark.parametrize("write", [fails, hangs])
def test_faults_are_answered_alike_whatever_the_log_does(
    directory: Path,
    monkeypatch: pytest.MonkeyPatch,
    scene: str,
    write: Callable[[bytes], None],
) -> None:
    """The fault scenes hold under a writer that always raises and one that never returns."""
    with logged_by(write, monkeypatch):
        SCENES[scene](directory)


@contextmanager
def served_on(
    directory: Path, stderr: int, *shell: str, **variables: str
) -> Iterator["subprocess.Popen[bytes]"]:
    """Run `samovard serve` with this stderr, its whole log on it, until it serves."""
    binary = asyncio.run(prepare(directory, fake=True))
    config = config_of(directory, binary)
    with subprocess.Popen(
        [*shell, *serve(config)],
        env=environ(
            SAMOVAR_SERVER__LISTEN=address(directory),
            SAMOVAR_SERVER__DRAIN_GRACE="200 ms",
            SAMOVAR_TELEMETRY__LOG_LEVEL="debug",
            **({"SAMOVAR_AUTH__METHODS": '["none"]'} | variables),
        ),
        stderr=stderr,
        stdout=subprocess.DEVNULL,
        stdin=subprocess.DEVNULL,
    ) as child:
        try:
            wait_until(lambda: serves(directory), child)
            yield child
        finally:
            if child.poll() is None:
                child.kill()


def address(directory: Path) -> str:
    return f"unix:{directory / 'public.sock'}"


def serves(directory: Path) -> bool:
    """Ask the health of the service."""
    with grpc.insecure_channel(address(directory)) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        request = health_pb2.HealthCheckRequest(service="samovar.v1.Session")
        try:
            answer = stub.Check(request, timeout=5, wait_for_ready=True)
        except grpc.RpcError:
            return False
        return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)


def wait_until(condition: Callable[[], bool], child: "subprocess.Popen[bytes]") -> None:
    end = time.monotonic() + BOUND
    while not condition():
        assert child.poll() is None, child.returncode
        assert time.monotonic() < end


def check_turns(directory: Path) -> None:
    """A killed agent's turn gets its end, and the session goes on."""
    with samovar.Client(address(directory)) as client:
        with pytest.raises(samovar.TurnLost) as lost:
            client.ask(fake(v.text("x"), v.die("mid_text", signal=9)))
        assert lost.value.cause == "process-died"
        assert client.ask("Say on").text == "on"


def drained(child: "subprocess.Popen[bytes]", directory: Path) -> int:
    """End the service while a turn runs, which is interrupted. Return the exit code."""
    with sending(address(directory), fake(v.hang()), "--session", "last") as turn:
        child.send_signal(signal.SIGTERM)
        assert '"outcome": "interrupted"' in turn.communicate(timeout=BOUND)[0]
    return child.wait(BOUND)


def test_a_log_whose_reader_has_gone_costs_nothing(directory: Path) -> None:
    """A killed agent's turn is told, and SIGTERM ends the service with 0."""
    reading, writing = os.pipe()
    os.close(reading)
    try:
        with served_on(directory, writing) as child:
            check_turns(directory)
            assert drained(child, directory) == 0
    finally:
        os.close(writing)


def test_a_log_on_a_full_disk_costs_nothing(directory: Path) -> None:
    """The same where each write fails."""
    with open("/dev/full", "wb") as full, served_on(directory, full.fileno()) as child:
        check_turns(directory)
        assert drained(child, directory) == 0


def test_a_log_that_nobody_reads_holds_up_nothing(directory: Path) -> None:
    """With the pipe full turns run, health answers, SIGTERM is heard, and the exit code is 0."""
    reading, writing = os.pipe()
    size = fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, PIPE)
    try:
        with served_on(directory, writing) as child:
            with samovar.Client(address(directory)) as client:
                while queued(reading) < 3 * size // 4:
                    assert client.ask("Say on").text == "on"
            check_turns(directory)
            assert serves(directory)
            assert drained(child, directory) == 0
    finally:
        os.close(reading)
        os.close(writing)


def queued(reading: int) -> int:
    """Return how many bytes wait in a pipe."""
    count: int = struct.unpack("i", fcntl.ioctl(reading, termios.FIONREAD, b"\0" * 4))[0]
    return count


@pytest.mark.parametrize("closed", ["2>&-", "<&- >&- 2>&-"])
def test_the_service_runs_with_its_standard_files_closed(directory: Path, closed: str) -> None:
    """It serves, and no other file of its own takes their place."""
    shell = ("sh", "-c", f'exec "$@" {closed}', "sh")
    with served_on(directory, subprocess.DEVNULL, *shell) as child:
        check_turns(directory)
        assert drained(child, directory) == 0
    assert (directory / "samovar.db").read_bytes().startswith(b"SQLite format 3\0")


def test_calls_without_a_key_share_a_line(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many there are, of whatever method."""
    monkeypatch.setattr(call_telemetry, "REFUSED_EVERY", 3600.0)

    async def story() -> None:
        async with serving(directory, fake=True, auth={"methods": ["api_key"]}) as run:
            for _ in range(20):
                with pytest.raises(samovar.CredentialInvalid):
                    await run.client.ask("Say x")
                with pytest.raises(samovar.CredentialInvalid):
                    await run.client.get_session()

    with capture_logs() as lines:
        asyncio.run(story())
    assert [line["count"] for line in lines if line["event"] == "credential.refused"] == [1]
    assert not [line for line in lines if line["event"] in ("call.failed", "turn.refused")]


@pytest.mark.parametrize(("bad", "code"), [("", 1), ("[pool]\nslotz = 3\n", 2)])
def test_a_start_that_fails_exits_alike_whether_it_can_be_told(
    directory: Path, bad: str, code: int
) -> None:
    """The last line on stderr says why; on a full disk the exit code is the same."""
    config = config_of(directory, directory / "nothing")
    config.write_text(bad or config.read_text())
    command = [*SAMOVARD, "serve", "--config", str(config)]
    variables = environ(SAMOVAR_TELEMETRY__LOG_LEVEL="debug")
    done = subprocess.run(command, env=variables, capture_output=True, timeout=BOUND)
    assert done.returncode == code
    assert done.stderr.splitlines()[-1].startswith(b"samovard: ")
    with open("/dev/full", "wb") as full:
        done = subprocess.run(command, env=variables, stderr=full, timeout=BOUND)
    assert done.returncode == code
