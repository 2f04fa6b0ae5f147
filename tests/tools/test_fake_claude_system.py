"""The verbs of the fake `claude` that strain the operating system, and what they leave."""

import json
import os
import resource
import select
import signal
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from fake_claude import Verb, fake, install, write_start
from fake_claude import verbs as v
from fake_claude.children import LIFE_S
from fake_claude.driver import WAIT_S, Child, arguments, control, environment, user

Json = dict[str, Any]

U1, U2 = "000000a1-0000-4000-8000-000000000000", "000000a2-0000-4000-8000-000000000000"
STOP = control("int-1", "interrupt", cancel_queued=True)
IDLE = {"subtype": "session_state_changed", "state": "idle"}
MARKER = {"SAMOVAR_PROCESS": "server/process"}


@pytest.fixture
def claude(tmp_path: Path) -> Path:
    """An installed fake."""
    return install(tmp_path)


def spawn(claude: Path, **popen: Any) -> Child:
    """Starts the fake with deltas on and the marker of a process."""
    argv = arguments("--include-partial-messages", mode="default")
    return Child(claude, argv, environment(claude.parent) | MARKER, **popen)


def wait_dead(pid: int) -> None:
    """Waits until a process has ended; one that nobody has reaped yet has."""
    with suppress(ProcessLookupError):
        fd = os.pidfd_open(pid)
        try:
            assert select.select([fd], [], [], WAIT_S)[0]
        finally:
            os.close(fd)


def wait_executed(pid: int) -> bytes:
    """Waits until a child has become its program, and returns its environment."""
    waited = 0.0
    while b"select" not in Path(f"/proc/{pid}/cmdline").read_bytes():
        select.select([], [], [], 0.005)
        waited += 0.005
        assert waited < WAIT_S
    return Path(f"/proc/{pid}/environ").read_bytes()


def parent(pid: int) -> int:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[1])


def test_stop_is_continued_by_a_signal(claude: Path) -> None:
    """It stops itself and goes on where it stood."""
    with spawn(claude) as child:
        child.send(user(U1, fake(v.stop())))
        child.until("system", subtype="status")
        os.waitid(os.P_PID, child.pid, os.WSTOPPED | os.WNOWAIT)
        child.process.send_signal(signal.SIGCONT)
        assert child.until("system", **IDLE)


def test_signals_and_end_of_input_are_ignored(claude: Path) -> None:
    """Only SIGKILL helps."""
    with spawn(claude) as child:
        child.turn(U1, fake(v.ignore("eof", "term", "int")))
        child.process.terminate()
        child.process.send_signal(signal.SIGINT)
        assert child.answer(U2, "Say alive") == "alive"
        child.end_input()
        assert not child.readable(0.05)
        assert child.process.poll() is None


def ticks(pid: int) -> int:
    """The CPU time of a process, in clock ticks."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


def test_spin_burns_and_hears_only_signals(claude: Path) -> None:
    """No line is read any more; SIGTERM ends it."""
    with spawn(claude) as child:
        child.send(user(U1, fake(v.spin())))
        child.until("system", subtype="status")
        begin = ticks(child.pid)
        while ticks(child.pid) < begin + 5:  # else the interrupt may come first, and be answered
            assert not child.readable(0.01)
        child.send(STOP)
        assert not child.readable(0.05)
        child.process.terminate()
        assert child.exit_code() == 143


def test_balloon_holds_memory(claude: Path) -> None:
    """It stays resident; without memory the process exits as the CLI does."""
    with spawn(claude) as child:
        child.turn(U1, fake(v.balloon(64)))
        pages = int(Path(f"/proc/{child.pid}/statm").read_text().split()[1])
        assert pages * resource.getpagesize() > 64 << 20
        resource.prlimit(child.pid, resource.RLIMIT_AS, (128 << 20, 128 << 20))
        child.send(user(U2, fake(v.balloon(256))))
        assert child.exit_code() == 134


def test_eat_fds_leaves_none(claude: Path) -> None:
    """Every descriptor that the limit allows is open, and the turn goes on."""
    with spawn(claude) as child:
        child.initialize()
        resource.prlimit(child.pid, resource.RLIMIT_NOFILE, (64, 64))
        child.turn(U1, fake(v.text("a"), v.eat_fds()))
        assert len(os.listdir(f"/proc/{child.pid}/fd")) == 64


def test_full_disk_loses_the_transcript(claude: Path) -> None:
    """A file grows to the limit; what cannot be saved is told as lost, once."""
    with spawn(claude) as child:
        child.turn(U1, fake(v.fill_disk(1)))
        assert (claude.parent / "config" / "filler").stat().st_size == 1 << 20
        resource.prlimit(child.pid, resource.RLIMIT_FSIZE, (0, 0))
        lines = child.turn(U2, fake(v.fill_disk(2)))
    lost = [line["error_code"] for line in lines if line.get("subtype") == "session_writes_lost"]
    assert lost == ["EFBIG"]


def test_touch_creates_a_file(claude: Path) -> None:
    """The file is there when the turn is over."""
    with spawn(claude) as child:
        child.turn(U1, fake(v.touch(claude.parent / "here")))
    assert (claude.parent / "here").exists()


@pytest.mark.parametrize(
    ("verb", "own_session", "marked", "kept"),
    [
        (v.grandchild(), False, True, True),
        (v.grandchild(setsid=True), True, True, True),
        (v.grandchild(hides_marker=True), False, False, True),
        (v.grandchild(orphan=True), False, True, False),
    ],
)
def test_grandchild_is_as_asked(
    claude: Path, verb: Verb, own_session: bool, marked: bool, kept: bool
) -> None:
    """It outlives the process, in the session, with the marker and the parent asked for."""
    with spawn(claude) as child:
        pid = json.loads(child.answer(U1, fake(verb)))["grandchild"]
        try:
            assert (b"SAMOVAR_PROCESS" in wait_executed(pid)) == marked
            assert (os.getsid(pid) == pid) == own_session
            assert (parent(pid) == child.pid) == kept
            child.process.kill()
            assert child.rest() == b""
        finally:
            os.kill(pid, signal.SIGKILL)
        wait_dead(pid)


def test_grandchild_holds_stdout(claude: Path) -> None:
    """The reader sees no end of output while it lives; its pid is told in a file, too."""
    told = claude.parent / "pid"
    write_start(claude.parent, v.grandchild(holds_stdout=True, tell=told))
    with spawn(claude) as child:
        child.initialize()
        pid = int(told.read_text())
        child.process.kill()
        assert child.exit_code() == -signal.SIGKILL
        assert not child.readable(0.05)
        os.kill(pid, signal.SIGKILL)
        assert child.rest() == b""
        wait_dead(pid)


def test_fork_bomb_is_bounded(claude: Path) -> None:
    """It starts as many as asked, each in a session of its own, and never more than 20."""
    with pytest.raises(ValueError, match="bounded by 20"):
        v.fork_bomb(21)
    with spawn(claude) as child:
        pids = json.loads(child.answer(U1, fake(v.fork_bomb(3))))
        for pid in pids:
            wait_executed(pid)
            assert os.getsid(pid) == pid
            os.kill(pid, signal.SIGKILL)
            wait_dead(pid)
    assert len(pids) == 3


def test_swarm_is_bounded(claude: Path) -> None:
    """It forks as many as asked, half of them without a parent, and never more than 2,000."""
    with pytest.raises(ValueError, match="bounded by 2000"):
        v.swarm(2001)
    with spawn(claude) as child:
        assert child.answer(U1, fake(v.swarm(10))) == "swarm"
        task = Path(f"/proc/{child.process.pid}/task/{child.process.pid}/children")
        assert len(task.read_text().split()) == 5
        mark = Path(f"/proc/{child.process.pid}/cmdline").read_bytes()
        same = [path.parent for path in Path("/proc").glob("[0-9]*/cmdline") if is_(path, mark)]
        swarm = [int(path.name) for path in same if int(path.name) != child.process.pid]
        assert len(swarm) == 10
        for pid in swarm:
            os.kill(pid, signal.SIGKILL)
        for pid in swarm:
            wait_dead(pid)


def is_(path: Path, content: bytes) -> bool:
    """True if a file of a process has a content."""
    try:
        return path.read_bytes() == content
    except OSError:
        return False


def test_grandchildren_end_by_themselves(claude: Path) -> None:
    """Their program is a wait of half a minute and nothing else."""
    with spawn(claude) as child:
        pid = json.loads(child.answer(U1, fake(v.grandchild())))["grandchild"]
        wait_executed(pid)
        command = Path(f"/proc/{pid}/cmdline").read_bytes()
        os.kill(pid, signal.SIGKILL)
        wait_dead(pid)
    assert b"select.select([], [], [], %d)" % LIFE_S in command


def test_interrupt_kills_a_running_tool(claude: Path) -> None:
    """The tool is a child in a session of its own, and gone when the turn is."""
    with spawn(claude) as child:
        child.send(user(U1, fake(v.tool(hang=True))))
        child.until("stream_event", event={"type": "message_stop"})
        child.send(control("v-1", "get_binary_version"))
        child.until("control_response")
        children = Path(f"/proc/{child.pid}/task/{child.pid}/children")
        (tool,) = map(int, children.read_text().split())
        assert os.getsid(tool) == tool
        child.send(STOP)
        assert child.until("result")[-1]["terminal_reason"] == "aborted_tools"
        assert not children.read_text()
