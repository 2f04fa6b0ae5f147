"""The walls: what an agent sees behind each of them, and what it can do there."""

import asyncio
import os
import select
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.behind import WALLED, A, B, python, said, spawned, walls
from support.timeouts import BOUND

from samovard.agent import launch, process_tree
from samovard.agent.child import Child
from samovard.agent.home import Homes
from samovard.agent.isolation.walls import SESSION, Mechanism, Walls
from samovard.core.process import Exit

NESTED = Mechanism.BUBBLEWRAP
walled = pytest.mark.parametrize("mechanism", WALLED)


@pytest.fixture
def homes(directory: Path) -> Iterator[Homes]:
    """The directories of sessions."""
    with Homes(directory / "s") as made:
        yield made


@walled
def test_an_agent_works_in_its_own_directories(homes: Homes, mechanism: Mechanism) -> None:
    """It writes and reads in all four, and finds the system's programs and names."""
    around = walls(mechanism)
    parts = around.inside(homes.prepare(A)).parts
    line = "; ".join(f"echo x > {part}/made && cat {part}/made" for part in parts)
    assert said(around, homes, line) == "x\n" * 4
    assert [(part / "made").read_text() for part in homes.prepare(A).parts if part.name != "tmp"]
    assert said(
        around, homes, "id -un; ls -d /usr/bin; getent hosts localhost > /dev/null; echo $?"
    )


@walled
def test_nothing_else_of_the_disk_is_seen(homes: Homes, mechanism: Mechanism) -> None:
    """Neither homes of people, nor state, nor temporary files of others."""
    others = (homes.prepare(B).work / "secret", homes.path(A).parent / "secret")
    for other in others:
        other.write_text("canary")
    line = "ls /home /root /var /run /srv /etc/shadow /etc/ssl/private /boot; ls -R /tmp; "
    line += "; ".join(f"cat {other}; ls {other.parent}" for other in others)
    found = said(walls(mechanism), homes, line)
    assert "canary" not in found
    assert "secret\n" not in found
    assert not {"cache", "log", "shadow\n"} & set(found.splitlines())


@walled
def test_what_is_visible_cannot_be_changed(
    homes: Homes, mechanism: Mechanism, directory: Path
) -> None:
    """Paths of the settings and the system are there to be read only."""
    shown = directory / "shown"
    shown.mkdir()
    (shown / "file").write_text("text")
    line = f"cat {shown}/file; echo x > {shown}/file; rm {shown}/file; echo x > {shown}/made; "
    line += "touch /usr/bin/made /etc/made; echo; " + python(
        f'import os; os.truncate("{shown}/file", 0)'
    )
    found = said(walls(mechanism, shown), homes, line)
    assert found.startswith("text")
    assert (shown / "file").read_text() == "text"
    assert not (shown / "made").exists()
    assert "made': " in found


def test_every_session_has_the_same_working_directory(homes: Homes) -> None:
    """The prompt names it, and the model's API caches prompts by their bytes."""
    around = walls(NESTED)
    found = {said(around, homes, "pwd; echo $TMPDIR; ls /session", name) for name in (A, B)}
    assert found == {f"{SESSION}/work\n\nconfig\nhome\ntmp\nwork\n"}


def test_nothing_can_be_made_beside_its_own_directories(homes: Homes) -> None:
    """The root of a namespace is in memory, which an agent could fill."""
    places = "/made /session/made /etc/made /home"
    line = f"for each in {places}; do mkdir $each && echo '-> made'; done"
    found = said(walls(NESTED), homes, line)
    assert found.count("cannot create directory") == 4
    assert "-> made" not in found


def test_temporary_files_are_the_sessions_own(homes: Homes) -> None:
    """Programs that know of no variable use /tmp, which is the session's."""
    assert said(walls(NESTED), homes, "echo x > /tmp/made; cat /session/tmp/made") == "x\n"


@walled
def test_an_agent_has_no_privileges(homes: Homes, mechanism: Mechanism) -> None:
    """No capability, also where root runs the service, and none to be gained."""
    found = said(walls(mechanism), homes, "grep -E 'CapPrm|CapEff|NoNewPrivs' /proc/self/status")
    assert {line.split()[1].strip("0") for line in found.splitlines()} == {"", "1"}


@walled
def test_an_agents_environment_is_what_was_given(homes: Homes, mechanism: Mechanism) -> None:
    """What puts up the walls adds no variable."""
    with spawned(walls(mechanism), homes, A, "/bin/cat", "/proc/self/environ") as child:
        found, _ = child.communicate(timeout=BOUND)
    assert found == b"LANG=C.UTF-8\0PATH=/usr/bin:/bin\0"


@walled
def test_no_descriptor_of_ours_is_left_open(homes: Homes, mechanism: Mechanism) -> None:
    """Neither the rules nor the directory, which would lead out of the namespace."""
    assert said(walls(mechanism), homes, "ls /proc/self/fd") == "0\n1\n2\n3\n"


def test_processes_are_counted_where_the_count_is_the_sessions_own(homes: Homes) -> None:
    """A user namespace has a count of its own; that of root is bounded by nothing."""
    limits = launch.ProcessLimits(processes=7)
    line = ("/bin/sh", "-c", "grep processes /proc/self/limits")
    with spawned(walls(NESTED), homes, A, *line, limits=limits) as child:
        found, _ = child.communicate(timeout=BOUND)
    assert found.split()[2:4] == [b"7", b"7"]


def test_another_directory_than_the_one_that_was_checked_is_refused(homes: Homes) -> None:
    """A session's directory that is replaced between check and mount is not entered."""
    around = walls(NESTED)
    homes.prepare(B)
    with around.around(homes.prepare(A)) as enclosure:
        directory = homes.open_work(B)
        child = launch.spawn(Path("/bin/true"), [], {}, directory=directory, enclosure=enclosure)
        os.close(directory)
    with child:
        assert b"another directory is mounted" in child.communicate(timeout=BOUND)[1]


def test_a_service_that_is_gone_starts_no_agent_in_a_namespace(homes: Homes) -> None:
    """Its end of standard error tells: its pid means nothing there."""
    around = walls(NESTED)
    directory = homes.open_work(homes.prepare(A).path.name)
    reading, writing = os.pipe()
    os.close(reading)
    made = homes.path(A) / "work" / "made"
    with around.around(homes.prepare(A)) as enclosure:
        command = [*enclosure.before, enclosure.python, "-I", "-S", str(launch.LAUNCHER), "-"]
        command += [str(directory), "-", "-", "-", "-", "-", str(enclosure.rules), "-", "--"]
        done = subprocess.run(
            [*command, "/usr/bin/touch", "made"],
            stderr=writing,
            pass_fds=(directory, *enclosure.descriptors),
            timeout=BOUND,
        )
    os.close(writing)
    os.close(directory)
    assert done.returncode != 0
    assert not made.exists()


async def ended(around: Walls, homes: Homes, line: str, *, kill: bool) -> tuple[Exit, bytes]:
    """Run a shell until it says that it is ready, and end it as an agent is ended."""
    process_tree.become_subreaper()
    exits: list[Exit] = []
    output, ready = bytearray(), asyncio.Event()

    def take(data: bytes) -> None:
        output.extend(data)
        ready.set()

    with around.around(homes.prepare(A)) as enclosure:
        directory = homes.open_work(A)
        spawned = launch.spawn(
            Path("/bin/sh"), ["-c", line], {}, directory=directory, enclosure=enclosure
        )
        os.close(directory)
    child = Child(spawned, "s/p", take, lambda: None, exits.append, BOUND, nested=around.nested)
    async with asyncio.timeout(BOUND):
        await ready.wait()
        if kill:
            child.kill()
        else:
            child.terminate()
        await child.end(suspect=True)
    return exits[0], bytes(output)


@walled
def test_an_agent_that_is_told_to_end_may_end_itself(homes: Homes, mechanism: Mechanism) -> None:
    """The signal reaches the agent, and not what stands above it."""
    line = "trap 'echo told; exit 3' TERM; echo ready; while :; do read x || sleep 0.01; done"
    exit, output = asyncio.run(ended(walls(mechanism), homes, line, kill=False))
    assert (exit.code, output) == (3, b"ready\ntold\n")


@walled
def test_an_agent_that_is_killed_leaves_nothing(homes: Homes, mechanism: Mechanism) -> None:
    """What it started ends with it, and what stood above it is reaped."""
    line = "setsid sleep 60 & echo ready; sleep 60"
    exit, _ = asyncio.run(ended(walls(mechanism), homes, line, kill=True))
    assert exit.signal == 9


def test_what_an_agent_leaves_behind_ends_with_its_namespace(homes: Homes) -> None:
    """Also if it hid: no look at processes is needed."""
    with spawned(walls(NESTED), homes, A, "/bin/sh", "-c", "setsid sleep 60 & echo") as child:
        assert child.communicate(timeout=BOUND) == (b"\n", b"")


SERVICE = """
import sys
from pathlib import Path
from support.behind import A, WALLED, spawned, walls
from samovard.agent.home import Homes
from samovard.agent.isolation.walls import Mechanism
from samovard.agent.procfs import nested_pid
around = walls(Mechanism(sys.argv[2]))
with Homes(Path(sys.argv[1])) as homes:
    with spawned(around, homes, A, "/bin/sh", "-c", "echo; exec sleep 60") as child:
        child.stdout.readline()
        print(nested_pid(child.pid) if around.nested else child.pid, flush=True)
        sys.stdin.read()
"""


@walled
def test_an_agent_dies_with_the_service(directory: Path, mechanism: Mechanism) -> None:
    """Also one with a parent of its own between them."""
    walls(mechanism)
    with subprocess.Popen(
        [sys.executable, "-c", SERVICE, str(directory / "s"), mechanism.value],
        env={"PYTHONPATH": os.pathsep.join(sys.path)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as service:
        assert service.stdout is not None
        pidfd = os.pidfd_open(int(service.stdout.readline()))
        assert not select.select([pidfd], [], [], 0)[0]
        service.kill()
        found = select.select([pidfd], [], [], BOUND)[0]
    os.close(pidfd)
    assert found, "the agent outlived the service"


BOMB = """
import subprocess, sys, tempfile
from pathlib import Path
from security.unprivileged import become
become()
from support.behind import A, spawned, walls
from samovard.agent.home import Homes
from samovard.agent.isolation.walls import Mechanism
from samovard.agent.launch import ProcessLimits
line = "for i in $(seq 40); do sleep 60 & done 2> /dev/null; echo $(ls -d /proc/[0-9]* | wc -l)"
with tempfile.TemporaryDirectory(dir="/tmp") as place, Homes(Path(place) / "s") as homes:
    others = [subprocess.Popen(["/bin/sleep", "60"]) for _ in range(40)]
    for most in (60, 20):
        limits, shell = ProcessLimits(processes=most), ("/bin/sh", "-c", line)
        with spawned(walls(Mechanism.BUBBLEWRAP), homes, A, *shell, limits=limits) as child:
            print(child.stdout.readline().decode().strip(), flush=True)
    for other in others:
        other.kill()
        other.wait()
"""


def test_an_agents_processes_are_counted_alone() -> None:
    """Those of others of its user do not count, and beyond its own bound it starts none."""
    walls(NESTED)
    done = subprocess.run(
        [sys.executable, "-c", BOMB],
        env={"PATH": os.defpath, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        timeout=2 * BOUND,
    )
    many, *few = done.stdout.split()
    assert int(many) > 40, done.stderr
    assert all(int(count) <= 20 for count in few)
