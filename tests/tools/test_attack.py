"""The short form of `make attack`."""

import asyncio
import json
import re
from collections import Counter
from pathlib import Path

import pytest
from security import controls
from security.arena import KINDS
from security.catalog import SURFACES, Attack, attacks
from security.oracle import Verdict, holds
from security.run import Tally, Tried, run, run_without
from security.shown import LEAST, NOTICED, passed, report

ALL = {one.name: one for one in attacks()}
COUNTS = Counter(one.surface for one in ALL.values())
PAGE = Path(__file__).parents[2] / "docs" / "security.md"
#: One or two of each surface; the rest is the long form's.
SHORT = (
    "no credential at any method",
    "a credential that is none",
    "keys that nobody was given",
    "methods of the operator as a tenant",
    "methods that do not exist",
    "a tenant that metadata name",
    "reading anothers session",
    "stopping anothers turn",
    "page tokens of others",
    "turns ids",
    "metadata without end",
    "bytes that are no message",
    "calls that are broken",
    "bytes that are not http2",
    "calls that are reset at once",
    "pings without end",
    "headers that never end",
    "keys that do not exist by the hundred",
    "large messages of strangers",
    "one session with many turns",
    "frames in a prompt",
    "permissions that nobody asked for",
    "a report of another turn",
    "a turn that nobody asked for",
    "a defect of the service",
    "refused calls that would fill the log",
)


@pytest.mark.parametrize("one", ALL.values(), ids=ALL)
def test_an_attack_is_on_code_that_exists(one: Attack) -> None:
    """Its control is a place in the service, and so is each that is taken out for it."""
    controls.find(one.control)
    for place in controls.OUT[one.without] if one.without else ():
        controls.find(place)
    assert set(one.on) <= set(KINDS)
    assert one.expected.endswith(".")


def test_there_are_enough_attacks() -> None:
    """Each has a name of its own, every surface has some, and most notice a missing control."""
    assert len(ALL) == len(attacks()) >= LEAST
    assert sum(bool(one.without) for one in ALL.values()) >= NOTICED
    assert {one.surface for one in ALL.values()} == set(SURFACES)
    assert {one.without for one in ALL.values()} - {""} == set(controls.OUT)


def test_the_page_counts_the_attacks() -> None:
    """By surface, as they are."""
    rows = re.findall(r"^\| (\w+) \| (\d+) \|", PAGE.read_text(), re.MULTILINE)
    told = {name: int(count) for name, count in rows if name in SURFACES}
    assert told == COUNTS


def test_attacks_come_to_nothing() -> None:
    """A service under them answers its victim, leaks nothing, and is afterwards as before."""
    counters = Tally()
    chosen = [Attack(ALL[name].story, ALL[name].control, ("plain",), "", False) for name in SHORT]
    asyncio.run(run(chosen, counters))
    broken = {one.attack.name: one.verdict.why for one in counters.tried if not one.verdict.blocked}
    assert not broken
    assert passed(counters)
    assert len(counters.tried) == len(SHORT)
    assert counters.user != 0


@pytest.mark.parametrize("name", ["keys that nobody was given", "page tokens of others"])
def test_an_attack_notices_that_its_control_is_gone(name: str) -> None:
    """Without the control the same attack is not blocked."""
    counters = Tally()
    asyncio.run(run_without([ALL[name]], counters))
    assert [one.verdict.blocked for one in counters.tried] == [False]
    assert passed(counters)
    assert not counters.tried[0].verdict.crash


BROKEN = {
    "not_blocked": Verdict(missed="x"),
    "crashes": Verdict(crash="x"),
    "wrong_answers": Verdict(wrong="x"),
    "leaks": Verdict(leaks=["x"]),
    "growth": Verdict(growth="x"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_each_fault_is_counted_and_fails_the_run(name: str) -> None:
    """Beside its bound, on the line of JSON."""
    (one, *_) = ALL.values()
    counters = Tally([Tried(one, "plain", Verdict()), Tried(one, "tls", BROKEN[name])])
    told = json.loads(report(counters, whole=False, without=False))
    assert told[name] == {"value": 1, "at_most": 0}
    assert told["blocked"] == {"value": 0, "at_least": 1}
    assert not told["passed"]
    slow = Verdict(slow=True)
    assert passed(Tally([Tried(one, "plain", slow)]))
    unnoticed = Tried(one, "plain", Verdict(), "credential")
    assert not passed(Tally([unnoticed]))


def test_a_canary_is_found_among_thousands() -> None:
    """Whole, wherever it stands; another one is none."""
    canaries = {b"canary%032x" % number for number in range(5000)}
    assert holds(b"x=canary%032x;" % 4999, {*canaries, b"vault"})
    assert holds(b"a vault", {*canaries, b"vault"})
    assert not holds(b"canary%032x canary%031x" % (5000, 1), {*canaries, b"vault"})
