"""Counting the trees of agents by one look, and killing one of them."""

import ctypes
import os
import subprocess
import sys
import uuid
from collections.abc import Iterator
from contextlib import closing

import pytest
from support.file_descriptors import descriptors, no_descriptors, no_free_descriptor
from support.started_tree import Start, Started, parent, runs, until

from samovard.agent import process_tree
from samovard.agent.census import Census

SLEEP = "exec sleep 60"
PR_SET_CHILD_SUBREAPER = 36
#: A daemon that has the marker of its tree, and one that hides it.
DAEMON = f"(setsid nohup sh -c 'echo $$; {SLEEP}' 2>/dev/null &) ; {SLEEP}"
HIDDEN = f"env -i setsid sh -c 'echo $$; {SLEEP}' & {SLEEP}"


@pytest.fixture
def start() -> Iterator[Start]:
    """Starts trees, whose orphans this process adopts, and clears them away."""
    process_tree.become_subreaper()
    before, server = descriptors(), uuid.uuid4().hex
    started: list[Started] = []

    def begin(script: str, lines: int) -> Started:
        started.append(Started(script, lines, server))
        return started[-1]

    yield begin
    for each in started:
        each.close()
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0)
    assert descriptors() <= before


@pytest.fixture
def census() -> Iterator[Census]:
    with closing(Census()) as made:
        yield made


def roots(*trees: Started) -> dict[int, str]:
    """Return the markers of trees by their main processes."""
    return {tree.main.pid: tree.marker for tree in trees}


def test_each_tree_has_its_own_processes(start: Start, census: Census) -> None:
    """All are counted by one look, and who is gone has none."""
    one = start(f"for i in 1 2 3; do setsid sh -c 'echo 0; {SLEEP}' & done; {SLEEP}", 3)
    other = start(f"echo 0; {SLEEP}", 1)
    counts = census.count(roots(one, other) | {2**22 + 1: "nobody/nobody"})
    assert counts == {one.main.pid: 4, other.main.pid: 1, 2**22 + 1: 0}


def test_threads_count(start: Start, census: Census) -> None:
    """They take the same places in the kernel's table as processes do."""
    code = "import threading, time; "
    code += "[threading.Thread(target=time.sleep, args=[60]).start() for _ in range(7)]; "
    one = start(f"exec {sys.executable} -I -S -c '{code}print(0, flush=True)'", 1)
    assert census.count(roots(one)) == {one.main.pid: 8}


def test_a_daemon_is_counted_by_its_marker(start: Start, census: Census) -> None:
    """Nothing else links it to its tree."""
    one = start(DAEMON, 1)
    until(lambda: parent(one.pids[0]) == os.getpid())
    # Not at once: halfway into another program it has no marker.
    until(lambda: census.count(roots(one)) == {one.main.pid: 2})


def test_what_was_counted_once_needs_no_marker(start: Start, census: Census) -> None:
    """Hidden, and without its parents, it is still the tree's."""
    one = start(HIDDEN, 1)
    until(lambda: census.count(roots(one)) == {one.main.pid: 2})
    one.main.kill()
    until(lambda: parent(one.pids[0]) == os.getpid())
    assert census.count(roots(one)) == {one.main.pid: 2}  # with the dead one
    census.kill(roots(one), one.main.pid)
    until(lambda: not runs(one.pids[0]))


def test_a_process_that_came_later_is_not_the_main_one(census: Census) -> None:
    """Once that is gone, its pid may be another's: a main process has one start time."""
    with subprocess.Popen(["/bin/sleep", "60"]) as child:
        assert census.count({child.pid: "s/p"}) == {child.pid: 1}
        child.kill()
    assert census.count({os.getppid(): "s/p"}) == {os.getppid(): 0}


def test_a_tree_that_is_not_asked_for_is_forgotten(start: Start, census: Census) -> None:
    """A pid may belong to another by the time it is asked for again."""
    one = start(HIDDEN, 1)
    until(lambda: census.count(roots(one)) == {one.main.pid: 2})
    assert one.pids[0] in one.tree.survivors()  # which clears it away
    one.main.kill()
    until(lambda: parent(one.pids[0]) == os.getpid())
    census.count({})
    assert census.count(roots(one)) == {one.main.pid: 1}


def test_a_tree_is_killed_whole_and_alone(start: Start, census: Census) -> None:
    """With its daemons, and while it grows; a neighbour is not touched."""
    loop = "i=0; while [ $i -lt 150 ]; do setsid sleep 60 & i=$((i+1)); echo 0; done"
    one, other = start(f"({loop}) & ({loop}) & wait", 20), start(DAEMON, 1)
    both = roots(one, other)

    def dead() -> bool:
        census.kill(both, one.main.pid)
        return not one.tree.survivors()

    until(dead)
    assert runs(other.main.pid)
    assert runs(other.pids[0])
    until(lambda: census.count(both)[other.main.pid] == 2)


def test_without_a_descriptor_trees_are_still_counted_and_killed(start: Start) -> None:
    """Some are kept for that."""
    one = start(f"setsid sh -c 'echo 0; {SLEEP}' & {SLEEP}", 1)
    with closing(Census()) as census, no_free_descriptor():
        assert census.count(roots(one)) == {one.main.pid: 2}
        census.kill(roots(one), one.main.pid)
    until(lambda: not one.tree.survivors())


def test_a_look_that_sees_nothing_is_an_error(start: Start, census: Census) -> None:
    """It does not count as one without processes, and the next look is as good as any."""
    one = start(f"echo 0; {SLEEP}", 1)
    with no_descriptors(), pytest.raises(OSError, match="Too many open files"):
        census.count(roots(one))
    assert census.count(roots(one)) == {one.main.pid: 1}
