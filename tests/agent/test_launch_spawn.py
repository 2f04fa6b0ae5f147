"""Starting the agent: what reaches it, and how it ends with the service."""

import asyncio
import contextlib
import dataclasses
import importlib.util
import json
import os
import select
import signal
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pytest
from support.file_descriptors import descriptors
from support.timeouts import BOUND

from samovard.agent import binary, launch, process_tree
from samovard.agent.credentials import Credential, Kind, Secret
from samovard.agent.home import Home, Homes
from samovard.agent.launch import Delivery, LaunchOptions, ProcessLimits
from samovard.core.errors import Internal, NoProcess
from samovard.core.process import Launch

PROFILE = LaunchOptions(model="claude-sonnet-4-5", path="/usr/bin:/bin")
LAUNCH = Launch("p1", "acme", "default", "0" * 32, str(uuid.UUID(int=7)), resume=False)
HOME = Home(Path("/srv/s") / LAUNCH.home)
KEY = Credential(Kind.API_KEY, Secret("sk-canary"), "1")
ENVIRON = {"LANG": "C.UTF-8", "PATH": "/usr/bin:/bin"}
SLEEP = "exec sleep 60"
SERVICE = f"""
import os, sys
from pathlib import Path
from samovard.agent import launch
directory = os.open(sys.argv[1], os.O_RDONLY)
child = launch.spawn(Path("/bin/sh"), ["-c", "echo; {SLEEP}"], {ENVIRON}, directory=directory)
child.stdout.readline()
print(child.pid, flush=True)
sys.stdin.read()
"""


@pytest.fixture
def directory() -> Iterator[int]:
    """A private directory, open; afterwards no descriptor is left."""
    before = descriptors()
    with tempfile.TemporaryDirectory() as path:
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        yield descriptor
        os.close(descriptor)
    assert descriptors() <= before


@contextlib.contextmanager
def spawned(
    program: str,
    arguments: Sequence[str],
    directory: int,
    environ: Mapping[str, str] = ENVIRON,
    kept: Sequence[int] = (),
) -> Iterator["subprocess.Popen[bytes]"]:
    """Spawns, and kills and closes at the end."""
    with launch.spawn(
        Path(program), arguments, environ, directory=directory, descriptors=kept
    ) as child:
        try:
            yield child
        finally:
            child.kill()


def output(program: str, arguments: Sequence[str], directory: int, **more: object) -> bytes:
    """Gives all that a program writes; it ends by itself."""
    with spawned(program, arguments, directory, **more) as child:  # type: ignore[arg-type]
        stdout, stderr = child.communicate(timeout=BOUND)
    assert stderr == b""
    return stdout


@pytest.mark.parametrize("kind", list(Kind))
def test_credential_is_read_once_through_its_descriptor(directory: int, kind: Kind) -> None:
    """The secret is in the pipe and nowhere else, and whoever comes second finds none."""
    credential = Credential(kind, Secret("sk-canary"), "1")
    with launch.handed_over(credential, Delivery.DESCRIPTOR) as handover:
        ((name, number),) = handover.variables.items()
        line = f"cat /dev/fd/{number}; echo; cat /dev/fd/{number}; cat /proc/self/environ"
        found = output(
            "/bin/sh",
            ["-c", line],
            directory,
            environ=ENVIRON | dict(handover.variables),
            kept=handover.descriptors,
        )
    secret, environ = found.split(b"\n")
    assert secret == b"sk-canary"
    assert f"{name}={number}\0".encode() in environ
    assert b"canary" not in environ
    assert name == f"CLAUDE_CODE_{kind.name}_FILE_DESCRIPTOR"


def test_environment_of_the_child_is_what_was_given(
    directory: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing of the service's environment reaches the agent."""
    monkeypatch.setenv("CANARY", "canary")
    monkeypatch.setenv("ANTHROPIC_API_KEY", "canary")
    environ = launch.environment(PROFILE, LAUNCH, HOME, {"KEY": "7"}, server_id="s1")
    found = output("/bin/cat", ["/proc/self/environ"], directory, environ=environ)
    assert found.decode() == "".join(f"{name}={value}\0" for name, value in environ.items())


def test_child_has_its_own_session_and_no_descriptor_of_ours(directory: int) -> None:
    """A stray inheritable descriptor of the service does not reach the agent."""
    stray = os.open("/dev/null", os.O_RDONLY)
    os.set_inheritable(stray, True)
    try:
        with spawned("/bin/sh", ["-c", f"echo; {SLEEP}"], directory) as child:
            assert child.stdout is not None
            child.stdout.readline()
            assert os.getsid(child.pid) == child.pid
            assert sorted(os.listdir(f"/proc/{child.pid}/fd"))[:3] == ["0", "1", "2"]
            assert str(stray) not in os.listdir(f"/proc/{child.pid}/fd")
            assert str(directory) not in os.listdir(f"/proc/{child.pid}/fd")
    finally:
        os.close(stray)


def test_limits_reach_the_child(directory: int) -> None:
    """The defaults are set, and what is given instead."""
    assert output("/bin/sh", ["-c", "ulimit -n; ulimit -f"], directory) == b"4096\n204800\n"
    limits = ProcessLimits(files=99, file_bytes=512, processes=5000, memory=1 << 30)
    shell = ["-c", "ulimit -n; ulimit -f; ulimit -d"]
    with launch.spawn(Path("/bin/sh"), shell, ENVIRON, directory=directory, limits=limits) as child:
        assert child.communicate(timeout=BOUND) == (b"99\n1\n1048576\n", b"")


def test_program_that_cannot_be_run_ends_with_127(directory: int) -> None:
    """The launcher tells why on stderr; the spawn itself went well."""
    with spawned("/nonexistent/claude", [], directory) as child:
        assert child.communicate(timeout=BOUND)[1].startswith(b"samovar launcher: ")
        assert child.returncode == 127


def test_failed_spawn_leaves_no_descriptor(directory: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither pipes nor the credential's end stay open."""
    before = descriptors()
    monkeypatch.setattr(sys, "executable", "/nonexistent/python")
    with (
        pytest.raises(NoProcess) as caught,
        launch.handed_over(KEY, Delivery.DESCRIPTOR) as handover,
    ):
        launch.spawn(
            Path("/bin/true"), [], ENVIRON, directory=directory, descriptors=handover.descriptors
        )
    assert caught.value.cause == "start-failed"
    assert descriptors() <= before


def test_spawn_off_the_main_thread_is_refused(directory: int) -> None:
    """The end of that thread would kill the agent."""
    raised: list[Internal] = []

    def start() -> None:
        try:
            launch.spawn(Path("/bin/true"), [], ENVIRON, directory=directory)
        except Internal as error:
            raised.append(error)

    thread = threading.Thread(target=start)
    thread.start()
    thread.join(BOUND)
    assert len(raised) == 1


def test_child_outlives_the_executor_s_threads(directory: int) -> None:
    """The end of threads beside the main one does not reach the agent."""

    async def work() -> None:
        await asyncio.gather(*(asyncio.to_thread(threading.get_ident) for _ in range(4)))

    with spawned("/bin/cat", [], directory) as child:
        asyncio.run(work())
        assert child.stdin is not None
        assert child.stdout is not None
        child.stdin.write(b"alive\n")
        assert child.stdout.readline() == b"alive\n"


def test_child_dies_with_the_service() -> None:
    """A service that is killed takes its agents along, whatever they are doing."""
    with (
        tempfile.TemporaryDirectory() as path,
        subprocess.Popen(
            [sys.executable, "-c", SERVICE, path],
            env={"PYTHONPATH": os.pathsep.join(sys.path)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        ) as service,
    ):
        assert service.stdout is not None
        pidfd = os.pidfd_open(int(service.stdout.readline()))
        try:
            assert not select.select([pidfd], [], [], 0)[0]
            service.kill()
            assert select.select([pidfd], [], [], 5)[0], "the agent outlived the service"
        finally:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(pidfd, signal.SIGKILL)
            os.close(pidfd)


def _bundled() -> Path | None:
    spec = importlib.util.find_spec("claude_agent_sdk")
    places = (spec.submodule_search_locations if spec else None) or [""]
    path = Path(places[0]) / "_bundled" / "claude"
    return path if path.is_file() else None


def _reply(child: "subprocess.Popen[bytes]") -> dict[str, dict[str, object]]:
    assert child.stdin is not None
    assert child.stdout is not None
    request = {"type": "control_request", "request_id": "1", "request": {"subtype": "initialize"}}
    child.stdin.write(json.dumps(request).encode() + b"\n")
    deadline, received = time.monotonic() + BOUND, b""
    while b'"control_response"' not in received or not received.endswith(b"\n"):
        left = deadline - time.monotonic()
        assert select.select([child.stdout], [], [], max(left, 0))[0], "no reply in time"
        piece = os.read(child.stdout.fileno(), 1 << 20)
        assert piece, "the agent ended"
        received += piece
    lines = [json.loads(line) for line in received.splitlines()]
    found = next(line for line in lines if line["type"] == "control_response")
    reply: dict[str, dict[str, object]] = found["response"]["response"]
    return reply


@pytest.mark.skipif(_bundled() is None, reason="needs the binary of samovard[claude]")
@pytest.mark.parametrize("resume", [False, True])
def test_real_cli_takes_the_whole_line(resume: bool) -> None:
    """It starts with every flag and variable, has the key, and dies with all its tree."""
    profile = dataclasses.replace(
        PROFILE, tools=("Read", "Task"), allowed_tools=("Read",), max_agent_steps=3, max_subagents=1
    )
    name = uuid.uuid4().hex
    started = dataclasses.replace(LAUNCH, home=name, ask=resume)
    claude = binary.find(None, "").path
    with tempfile.TemporaryDirectory() as root, Homes(Path(root) / "s") as homes:
        home, work = homes.prepare(name), homes.open_work(name)
        with launch.handed_over(KEY, Delivery.DESCRIPTOR) as handover:
            # Nothing listens there: before the first message the CLI calls nobody.
            environ = launch.environment(
                profile,
                started,
                home,
                handover.variables,
                server_id="s1",
                base_url="http://127.0.0.1:9",
            )
            arguments = launch.arguments(profile, started)
            with spawned(str(claude), arguments, work, environ, handover.descriptors) as child:
                os.close(work)
                account = _reply(child)["account"]
                kept = Path(f"/proc/{child.pid}/environ").read_bytes()
                pidfd = os.pidfd_open(child.pid)
                tree = process_tree.Tree(child.pid, pidfd, environ[process_tree.MARKER])
                tree.kill()
                assert select.select([pidfd], [], [], 5)[0]
                os.close(pidfd)
                assert tree.survivors() == ()
    assert account["apiKeySource"] == "ANTHROPIC_API_KEY"
    assert kept.decode() == "".join(f"{key}={value}\0" for key, value in environ.items())
