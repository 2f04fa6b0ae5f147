"""Killing a whole tree, and only that."""

import asyncio
import ctypes
import os
import signal
import subprocess
import sys
import textwrap
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from support.file_descriptors import descriptors
from support.started_tree import Start, Started, own_children, parent, runs, until
from support.timeouts import BOUND

from samovard.agent import process_tree, procfs
from samovard.agent.process_tree import LedgerRow, Strangers, Tree
from samovard.core.errors import Misconfigured

SLEEP = "exec sleep 60"
PR_SET_CHILD_SUBREAPER = 36


def ran(code: str, environ: Mapping[str, str] | None = None) -> str:
    """Runs code in a service of its own and gives what it printed."""
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        env={"PYTHONPATH": os.pathsep.join(sys.path), **(environ or {})},
        capture_output=True,
        text=True,
        timeout=BOUND,
        check=True,
    )
    return done.stdout


@pytest.fixture
def server_id() -> str:
    """A server that no other test is."""
    return uuid.uuid4().hex


@pytest.fixture
def start(server_id: str) -> Iterator[Start]:
    """Starts trees and clears them away; leaves no descriptor and no child."""
    before, children = descriptors(), own_children()
    started: list[Started] = []

    def begin(script: str, lines: int, server: str = server_id) -> Started:
        started.append(Started(script, lines, server))
        return started[-1]

    yield begin
    for each in started:
        each.close()
    assert descriptors() <= before
    assert own_children() == children


@pytest.fixture
def subreaper() -> Iterator[None]:
    """Makes the test's process adopt orphans, for as long as the test takes."""
    process_tree.become_subreaper()
    yield
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0)


def test_grandchild_with_its_own_session_dies_with_the_tree(start: Start) -> None:
    """A tool has its own session and group, so that no signal to a group reaches it."""
    one = start(f"setsid sh -c 'echo $$; {SLEEP}' & {SLEEP}", 1)
    assert os.getsid(one.pids[0]) != os.getsid(one.main.pid)
    assert set(one.tree.survivors()) == {one.main.pid, one.pids[0]}
    one.tree.kill()
    until(lambda: not one.tree.survivors())
    assert not runs(one.pids[0])


@pytest.mark.usefixtures("subreaper")
def test_daemon_whose_parent_ended_is_found_by_its_marker_and_reaped(start: Start) -> None:
    """Nothing links a daemon to its tree but the marker in its environment."""
    one = start(f"(setsid nohup sh -c 'echo $$; {SLEEP}' 2>/dev/null &) ; {SLEEP}", 1)
    until(lambda: parent(one.pids[0]) == os.getpid())
    one.tree.kill()
    until(lambda: not one.tree.survivors())
    assert one.tree.reap() == 1
    assert one.pids[0] not in own_children()
    assert one.main.pid in own_children()


def test_daemon_is_found_without_a_subreaper(start: Start) -> None:
    """Adopted by a process above the service, a daemon is still the tree's."""
    one = start(f"(setsid nohup sh -c 'echo $$; {SLEEP}' 2>/dev/null &) ; {SLEEP}", 1)
    until(lambda: parent(one.pids[0]) != one.main.pid)
    one.tree.kill()
    until(lambda: not runs(one.pids[0]))


@pytest.mark.usefixtures("subreaper")
def test_what_was_seen_once_needs_no_marker(start: Start) -> None:
    """Hiding the marker does not help what was found below the main process before."""
    one = start(f"env -i setsid sh -c 'echo $$; {SLEEP}' & {SLEEP}", 1)
    assert one.pids[0] in one.tree.survivors()
    os.kill(one.main.pid, signal.SIGKILL)
    until(lambda: parent(one.pids[0]) == os.getpid())
    assert one.tree.survivors() == (one.pids[0],)
    one.tree.kill()
    until(lambda: not one.tree.survivors())
    assert one.tree.reap() == 1


@pytest.mark.usefixtures("subreaper")
def test_a_child_that_nobody_waited_for_is_reaped_after_its_parent(start: Start) -> None:
    """It was dead before it was looked for, and the dead have no marker."""
    one = start(f"sleep 60 & echo $!; {SLEEP}", 1)
    # Not before it is no shell any more, which would wait for its child.
    until(lambda: Path(f"/proc/{one.main.pid}/comm").read_text() == "sleep\n")
    os.kill(one.pids[0], signal.SIGKILL)
    until(lambda: not runs(one.pids[0]))
    os.kill(one.main.pid, signal.SIGKILL)
    until(lambda: parent(one.pids[0]) == os.getpid())
    assert one.tree.reap() == 1
    assert one.pids[0] not in own_children()


@pytest.mark.usefixtures("subreaper")
def test_a_tools_child_that_died_after_its_parent_is_reaped(start: Start) -> None:
    """Nothing links it to its tree any more, but a child of this process it never was. One that
    was is left to the code that waits for it."""
    inner = f"sleep 60 & echo $$; echo $!; {SLEEP}"
    one = start(f"setsid sh -c '{inner}' & {SLEEP}", 2)
    own = subprocess.Popen(["/bin/true"])
    until(lambda: not runs(own.pid))
    for pid in one.pids:  # the tool, and then its child
        os.kill(pid, signal.SIGKILL)
    until(lambda: parent(one.pids[1]) == os.getpid() and not runs(one.pids[1]))
    one.tree.reap()
    assert one.pids[1] not in own_children()
    assert own.pid in own_children()
    assert own.wait(BOUND) == 0


@pytest.mark.usefixtures("subreaper")
def test_daemon_outlives_its_main_process_and_is_killed_after_it(start: Start) -> None:
    """A tree may be killed when its main process was waited for already."""
    one = start("(setsid nohup sleep 60 >/dev/null 2>&1 & echo $!)", 1)
    one.main.wait(BOUND)
    # Not at once: halfway into another program it has no marker.
    until(lambda: one.tree.survivors() == (one.pids[0],))
    one.tree.kill()
    until(lambda: not one.tree.survivors())
    assert one.tree.reap() == 1


@pytest.mark.usefixtures("subreaper")
def test_daemon_is_found_while_it_becomes_another_program(start: Start, tmp_path: Path) -> None:
    """Halfway through an execve it has no environment, and no marker in it."""
    again = tmp_path / "again"
    again.write_text('exec /bin/sh "$0"')
    one = start(f"(setsid sh -c 'echo $$; exec sh {again}' &) ; {SLEEP}", 1)
    until(lambda: parent(one.pids[0]) == os.getpid())
    spared = own_children() - {one.pids[0]}
    for _ in range(100):
        until(lambda: one.pids[0] in Tree(one.main.pid, one.pidfd, one.marker).survivors())
        assert process_tree.sweep(Strangers.KILL, {one.marker}, spared) == 0


@pytest.mark.usefixtures("subreaper")
def test_neighbour_is_not_touched(start: Start, server_id: str) -> None:
    """Neither killing nor reaping reaches another process's tree or its dead."""
    script = f"(setsid nohup sh -c 'echo $$; {SLEEP}' 2>/dev/null &) ; {SLEEP}"
    one, other = start(script, 1), start(script, 1)
    one.tree.kill()
    until(lambda: not one.tree.survivors())
    assert set(other.tree.survivors()) == {other.main.pid, other.pids[0]}
    os.kill(other.pids[0], signal.SIGKILL)
    until(lambda: not runs(other.pids[0]))
    assert one.tree.reap() == 1
    assert other.pids[0] in own_children()


def test_exit_status_of_the_main_process_is_left_to_its_owner(start: Start) -> None:
    """The one who started it takes the status, once."""
    one = start(f"echo 0; {SLEEP}", 1)
    one.tree.kill()
    until(lambda: not one.tree.survivors())
    assert one.tree.reap() == 0
    assert one.main.wait(BOUND) == -signal.SIGKILL


def test_stopped_tree_is_killed(start: Start) -> None:
    """What is stopped, or ignores all signals that it can, dies like the rest."""
    one = start(f"trap '' TERM INT HUP; setsid sh -c 'echo $$; kill -STOP $$' & {SLEEP}", 1)
    one.tree.kill()
    until(lambda: not one.tree.survivors())


def test_process_whose_first_thread_ended_is_killed(start: Start) -> None:
    """It is shown as a zombie, and its other threads go on."""
    number = 60 if os.uname().machine == "x86_64" else 93
    code = "import ctypes, os, threading, time; print(os.getpid(), flush=True); "
    code += "threading.Thread(target=time.sleep, args=[60]).start(); "
    code += f"ctypes.CDLL(None).syscall({number}, 0)"
    one = start(f"setsid {sys.executable} -I -S -c '{code}' & {SLEEP}", 1)
    until(lambda: not runs(one.pids[0]))
    assert one.pids[0] in one.tree.survivors()
    one.tree.kill()
    until(lambda: not one.tree.survivors())
    until(lambda: not os.path.exists(f"/proc/{one.pids[0]}/task"))


def test_growing_tree_is_killed(start: Start) -> None:
    """A tree that starts processes all the while ends all the same."""
    loop = "i=0; while [ $i -lt 150 ]; do setsid sleep 60 & i=$((i+1)); echo 0; done"
    one = start(f"({loop}) & ({loop}) & wait", 20)
    until(one.killed)
    assert len(own_children()) < 20


def test_killing_twice_and_after_the_end_does_nothing(start: Start) -> None:
    """Every method may be called at any time."""
    one = start("echo 0", 1)
    one.main.wait(BOUND)
    for _ in range(2):
        one.tree.kill()
        assert one.tree.survivors() == ()
        assert one.tree.reap() == 0
    assert repr(one.tree) == f"<Tree {one.main.pid} with 1 seen>"


@pytest.mark.usefixtures("subreaper")
def test_strangers_are_left_unless_asked(start: Start) -> None:
    """A service that is a guest in a process leaves that process's children alone."""
    spared = own_children()
    one = start(f"(env -i setsid sh -c 'echo $$; {SLEEP}' &)", 1)
    one.main.wait(BOUND)
    until(lambda: parent(one.pids[0]) == os.getpid())
    assert process_tree.sweep(Strangers.LEAVE, set(), spared) == 0
    assert runs(one.pids[0])
    assert process_tree.sweep(Strangers.KILL, {one.marker}, spared) == 1
    until(lambda: not runs(one.pids[0]))
    assert process_tree.sweep(Strangers.KILL, {one.marker}, spared) == 0
    assert one.pids[0] not in own_children()


@pytest.mark.usefixtures("subreaper")
def test_sweep_leaves_what_lives_and_what_is_spared(start: Start) -> None:
    """A daemon lives as long as its process does; then a sweep ends it."""
    one = start(f"(setsid nohup sh -c 'echo $$; {SLEEP}' 2>/dev/null &) ; {SLEEP}", 1)
    spared = own_children() - {one.pids[0]}
    until(lambda: parent(one.pids[0]) == os.getpid())
    assert process_tree.sweep(Strangers.KILL, {one.marker}, spared) == 0
    assert process_tree.sweep(Strangers.KILL, set(), spared) == 1
    until(lambda: not runs(one.pids[0]))
    assert process_tree.sweep(Strangers.KILL, set(), spared) == 0
    assert runs(one.main.pid)


@pytest.mark.usefixtures("subreaper")
def test_daemon_that_ended_by_itself_is_reaped_by_a_sweep(start: Start) -> None:
    """The dead have no environment: nobody but the sweep would take their status."""
    one = start(f"(setsid sh -c 'echo $$; exec sleep 0.05' &) ; {SLEEP}", 1)
    spared = own_children() - {one.pids[0]}
    until(lambda: parent(one.pids[0]) == os.getpid() and not runs(one.pids[0]))
    assert process_tree.sweep(Strangers.KILL, {one.marker}, spared) == 0
    assert one.pids[0] not in own_children()


def test_leftovers_of_an_earlier_server_are_killed_by_marker(start: Start) -> None:
    """What carries the name of an earlier server dies, with all below it; no other does."""
    earlier, foreign = uuid.uuid4().hex, uuid.uuid4().hex
    one = start(f"env -i sh -c 'echo $$; {SLEEP}' & {SLEEP}", 1, earlier)
    other = start(f"echo 0; {SLEEP}", 1, foreign)
    found = asyncio.run(process_tree.kill_leftovers({earlier}, []))
    assert (found.killed, found.left) == (2, ())
    assert not runs(one.pids[0])
    assert runs(other.main.pid)


def test_leftovers_are_killed_by_ledger(start: Start) -> None:
    """A pid of the ledger is killed if its boot and its start time are the same still."""
    one = start(f"echo 0; {SLEEP}", 1)
    ticks, boot = procfs.start_ticks(one.main.pid), procfs.boot_id()
    for row in (
        LedgerRow(one.main.pid, boot, ticks + 1),
        LedgerRow(one.main.pid, str(uuid.uuid4()), ticks),
    ):
        assert asyncio.run(process_tree.kill_leftovers((), [row])).killed == 0
        assert runs(one.main.pid)
    row = LedgerRow(one.main.pid, boot, ticks)
    assert asyncio.run(process_tree.kill_leftovers((), [row])).killed == 1
    assert not runs(one.main.pid)


def test_service_is_nobody_s_leftover_nor_tree() -> None:
    """A service that itself runs with a marker, below an agent, does not kill itself."""
    found = ran(
        """
        import asyncio, os, subprocess
        from samovard.agent import process_tree
        me = os.getpid()
        rows = [process_tree.LedgerRow(me, process_tree.boot_id(), process_tree.start_ticks(me))]
        with subprocess.Popen(["/bin/sleep", "60"]) as child:
            pidfd = os.pidfd_open(child.pid)
            tree = process_tree.Tree(child.pid, pidfd, "s/p")
            print(tree.survivors() == (child.pid,))
            tree.kill()
        print(asyncio.run(process_tree.kill_leftovers({"s"}, rows, within=0.05)))
        """,
        {process_tree.MARKER: "s/p"},
    )
    assert found == "True\nLeftovers(killed=0, left=())\n"


def test_boot_and_start_time_name_a_process() -> None:
    """A boot has a UUID, a process its ticks, and a pid without a process neither."""
    assert str(uuid.UUID(procfs.boot_id())) == procfs.boot_id()
    assert procfs.start_ticks(os.getpid()) >= procfs.start_ticks(1)
    with subprocess.Popen(["/bin/true"]) as child:
        child.wait(BOUND)
    with pytest.raises(ProcessLookupError):
        procfs.start_ticks(child.pid)


@pytest.mark.parametrize("server", ["", "a/b", "a b", "a\0b", "x" * 65])
def test_marker_has_one_form(server: str) -> None:
    """A marker is two names and a slash, so that it cannot be read in two ways."""
    with pytest.raises(Misconfigured) as caught:
        process_tree.marker(server, "p")
    assert caught.value.cause == "options-refused"


def test_undumpable_process_stays_so() -> None:
    """The kernel closes its memory and environment to others of the same user."""
    found = ran(
        """
        import ctypes
        from samovard.agent import process_tree
        process_tree.set_undumpable()
        print(ctypes.CDLL(None).prctl(3, 0, 0, 0, 0))
        """
    )
    assert found == "0\n"
