"""The probe: it gets out of walls that do not hold, and not out of those that do."""

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from support.behind import WALLED, walls
from support.program import environ
from support.timeouts import BOUND

from samovard.agent import process_tree
from samovard.agent.home import Homes
from samovard.agent.isolation.matrix import Finding
from samovard.agent.isolation.probe import ATTACK, Target, probe
from samovard.agent.isolation.walls import Mechanism, Walls

BUBBLEWRAP, LANDLOCK, NONE = Mechanism
#: What an agent reaches behind each rung, as `samovard check --isolation` prints it.
EXPECTED = {
    "files": ("denied", "denied", "reached (read)"),
    "environ": ("denied", "denied", "reached (environ)"),
    "memory": ("denied", "denied", "reached (memory)"),
    "signals": ("denied", "denied", "reached (signal)"),
    "unix sockets": ("denied", "reached (unix)", "reached (unix)"),
    "daemons": ("denied", "not tried", "not tried"),
    "abstract sockets": ("denied", "denied", "reached (abstract)"),
    "TCP": ("denied", "reached (tcp)", "reached (tcp)"),
    "UDP": ("denied", "reached (arrived)", "reached (arrived)"),
}
BECOME = {"root": "", "plain": "from security.unprivileged import become; become(); "}
CHECK = "import sys; sys.argv[0] = 'samovard'; from samovard.cli import main; main()"


@pytest.fixture
def homes(directory: Path) -> Iterator[Homes]:
    """The directories of sessions, beside a file of the service's own."""
    state = directory / "state"
    state.mkdir()
    (state / "samovar.db").write_text("x")
    with Homes(state / "s") as made:
        yield made


def tried(around: Walls, homes: Homes) -> Finding:
    """Return what the probe finds; it leaves no file and no process."""
    state = homes.path("0" * 32).parent.parent
    process_tree.become_subreaper()
    finding = asyncio.run(probe(around, homes, Target(state)))
    assert sorted(os.listdir(state)) == ["s", "samovar.db"]
    assert os.listdir(state / "s") == ["gone"]
    assert os.listdir(state / "s" / "gone") == []
    return finding


@pytest.mark.parametrize("user", BECOME)
def test_the_matrix_is_what_the_documentation_promises(user: str) -> None:
    """Each rung holds what its level promises, for a service of root and of a plain user."""
    if user == "root" and os.geteuid() != 0:
        pytest.skip("this is not root")
    for mechanism in WALLED:
        walls(mechanism)
    done = subprocess.run(
        [sys.executable, "-c", BECOME[user] + CHECK, "check", "--isolation", "--json"],
        env=environ(),
        capture_output=True,
        text=True,
        timeout=2 * BOUND,
    )
    told = json.loads(done.stdout)
    assert (told["used"], done.returncode) == ("bubblewrap", 0), done.stderr
    rungs = told["rungs"]
    assert [rung["mechanism"] for rung in rungs] == [each.value for each in Mechanism]
    assert [rung["why_not"] for rung in rungs] == ["", "", ""]
    for row, words in EXPECTED.items():
        assert tuple(rung["rows"][row] for rung in rungs) == words, row


@pytest.mark.parametrize("mechanism", WALLED)
def test_walls_that_show_the_services_files_are_found_out(
    homes: Homes, mechanism: Mechanism
) -> None:
    """What is visible by mistake is read, and the rung is not used."""
    state = homes.path("0" * 32).parent.parent
    finding = tried(walls(mechanism, state), homes)
    assert "files: reached (read)" in finding.why


def test_walls_without_rules_are_found_out(
    homes: Homes, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Landlock that withholds nothing is as good as none."""
    monkeypatch.setattr("samovard.agent.isolation.walls.rules", lambda *_: ["w/"])
    assert tried(walls(LANDLOCK), homes).word("files") == "reached (read)"


def test_a_namespace_of_mounts_alone_is_found_out(homes: Homes, directory: Path) -> None:
    """Where processes are shared, the victim's are reached."""
    shared = directory / "bwrap"
    real = walls(BUBBLEWRAP).bubblewrap
    ours = "import os, sys; n = int(sys.argv[2]); lines = os.read(n, 65536).split(b'\\0')"
    ours += "; lines.remove(b'--unshare-pid'); lines[lines.index(b'--proc')] = b'--dev-bind'"
    ours += "; lines.insert(lines.index(b'/proc'), b'/proc')"
    ours += "; os.lseek(n, 0, 0); os.truncate(n, 0); os.write(n, b'\\0'.join(lines))"
    ours += f"; os.lseek(n, 0, 0); os.execv('{real}', ['{real}', *sys.argv[1:]])"
    shared.write_text(f'#!/bin/sh\nexec {sys.executable} -I -S -c "{ours}" "$@"\n')
    shared.chmod(0o700)
    finding = tried(replace(walls(BUBBLEWRAP), bubblewrap=shared), homes)
    assert "daemons: reached (left)" in finding.why


def test_a_rung_that_is_not_installed_is_a_sentence(homes: Homes) -> None:
    """Nothing is started to find that out."""
    assert tried(Walls(BUBBLEWRAP), homes).why == "bubblewrap is not installed"


@pytest.mark.parametrize("program", ["/bin/false", "/nonexistent/bwrap"])
def test_a_rung_that_starts_nothing_is_a_sentence(homes: Homes, program: str) -> None:
    """As where a container allows no namespaces."""
    finding = tried(replace(walls(BUBBLEWRAP), bubblewrap=Path(program)), homes)
    assert finding.why.startswith("the probe could not be run: ")


def test_an_attacker_that_cannot_start_proves_nothing(homes: Homes) -> None:
    """Walls that hide the interpreter hold nobody: nobody was there."""
    around = replace(walls(BUBBLEWRAP), seen=(ATTACK,))
    assert tried(around, homes).why.startswith("the probe could not be run: ")
