"""The matrix: what is told of attempts, and which level forbids what."""

from dataclasses import replace

import pytest

from samovard.agent.isolation.matrix import NETWORK, OWN, ROWS, Finding, attempts, forbids
from samovard.agent.isolation.walls import LEVELS, Level, Mechanism, Walls


def found(mechanism: Mechanism, *reached: str, without: str = "") -> Finding:
    """Return a finding in which all but `without` was tried, and these rows were reached."""
    lines = [(row, "try", "reached" if row in reached else "denied") for row in ROWS]
    lines = [line for line in lines if line[0] != without]
    return Finding(Walls(mechanism), attempts([(OWN, "own", "reached"), *lines]))


@pytest.mark.parametrize("mechanism", Mechanism)
@pytest.mark.parametrize("row", ROWS)
def test_what_a_level_forbids_must_have_been_tried_and_denied(
    mechanism: Mechanism, row: str
) -> None:
    """A row that is reached, or that was not tried, makes the rung unusable."""
    promised = forbids(LEVELS[mechanism], row)
    assert bool(found(mechanism, row).why) == promised
    assert bool(found(mechanism, without=row).why) == promised
    assert not found(mechanism).why


def test_one_attempt_that_gets_through_is_enough() -> None:
    """However many others of its row were denied; it is named."""
    tried = attempts([("files", "read", "denied"), ("files", "make", "reached")])
    finding = Finding(Walls(Mechanism.LANDLOCK), tried)
    assert finding.word("files") == "reached (make)"
    assert finding.why == "files: reached (make), environ: not tried, memory: not tried"


def test_walls_in_which_no_agent_could_work_are_not_used() -> None:
    """Where everything fails, nothing that is denied proves anything."""
    tried = attempts([(OWN, "own", "denied"), *((row, "try", "denied") for row in ROWS)])
    assert "own directories" in Finding(Walls(Mechanism.BUBBLEWRAP), tried).why


def test_a_fault_is_why() -> None:
    """What could not be run has held nothing."""
    finding = Finding(Walls(Mechanism.NONE), fault="the probe did not end in time")
    assert (finding.why, finding.word("files")) == (finding.fault, "not tried")


def test_each_level_forbids_what_the_one_below_does() -> None:
    """And something more."""
    rows = [{row for row in ROWS if forbids(level, row)} for level in Level]
    assert set() == rows[0] < rows[1] < rows[2] < set(ROWS)


@pytest.mark.parametrize("row", NETWORK)
def test_a_network_of_its_own_must_have_held(row: str) -> None:
    """Only behind the rung that has one, and only where the profile asks for it."""
    for mechanism in Mechanism:
        for offline in (False, True):
            finding = replace(found(mechanism, row), walls=Walls(mechanism, offline=offline))
            assert bool(finding.why) == (offline and mechanism is Mechanism.BUBBLEWRAP)
