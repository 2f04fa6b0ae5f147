"""Mutants of the code: how they are made, tried and told."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from mutants import EQUIVALENT, LONGEST, Selection, copied, equivalents, survivors
from mutations import Mutant, drawn, mutants_of
from reached import PACKAGE

ROOT = Path(__file__).parents[2]
WHERE = "import grpc, samovard; print(samovard.__file__)"


@pytest.mark.parametrize(
    ("line", "changes"),
    [
        ("return a < b", {"return None", "return a <= b"}),
        ("return (a) is not (b)", {"return None", "return (a) is (b)"}),
        ("x = a and (b)", {"x = a or (b)"}),
        ("x = not a", {"x = bool(a)"}),
        ("x = a + 1", {"x = a - 1", "x = a + 2"}),
        ("x += 1", {"x -= 1", "x += 2"}),
        ("x = True", {"x = False"}),
        ("x()", {"pass"}),
        ("await x('é')", {"pass"}),
        ("x = 1 if a else b", {"x = 2 if a else b", "x = 1 if (not (a)) else b"}),
        ("_log.info('x')", set()),
        ("return None", set()),
        ("x = 'text'", set()),
    ],
)
def test_a_line_has_these_changes(line: str, changes: set[str]) -> None:
    """Each is one change, and the rest of the source stays as it is."""
    source = f"async def f():\n    '''é'''\n    {line}\n"
    changed = {mutant.apply(source) for mutant in mutants_of("f.py", source)}
    assert changed == {source.replace(line, other) for other in changes}


def test_a_seed_draws_the_same_changes_of_code_that_is_moved(directory: Path) -> None:
    """Of what is new it may draw some as well."""
    lines = [f"    x = {number} + {number + 1}\n" for number in range(8)]
    (directory / "f.py").write_text("def f():\n" + "".join(lines))
    before = [mutant.key for mutant in drawn(directory, ["f.py"], 7, 10)]
    assert before != [mutant.key for mutant in drawn(directory, ["f.py"], 8, 10)]
    (directory / "f.py").write_text("y = 1\n\n\ndef f():\n" + "".join(reversed(lines)))
    assert {*before} == {mutant.key for mutant in drawn(directory, ["f.py"], 7, 10)}


def test_tests_that_will_notice_it_come_first() -> None:
    """Those of the module's own file, then those that reach little else."""
    f, g = "core/x.py:f", "core/x.py:g"
    reached = {
        "tests/core/test_y.py::broad": {f, g},
        "tests/core/test_y.py::narrow": {f},
        "tests/edge/test_x.py::broader": {f, g, "core/x.py:h"},
        "tests/core/test_x.py::own": {f, g},
        "tests/core/test_x.py::other": {g},
    }
    selection = Selection(
        dict.fromkeys(reached, 1.0), {test: frozenset(names) for test, names in reached.items()}
    )
    chosen = [*selection.of(Mutant("core/x.py", "f", 0, 0, "", "", ""))]
    own = ["tests/core/test_x.py::own", "tests/core/test_x.py::other"]
    others = ["tests/core/test_y.py::narrow", "tests/core/test_y.py::broad"]
    assert chosen == [[*own, *others, "tests/edge/test_x.py::broader"]]


def test_what_runs_in_a_child_is_tried_with_its_modules_tests() -> None:
    """No test is seen to reach it."""
    tests = ["tests/core/test_x.py::a", "tests/core/test_y.py::b"]
    selection = Selection(dict.fromkeys(tests, 1.0), dict.fromkeys(tests, frozenset()))
    assert [*selection.of(Mutant("core/x.py", "f", 0, 0, "", "", ""))] == [tests[:1]]


def test_no_mutant_is_tried_for_ever() -> None:
    """With no more tests than take two minutes, few first."""
    tests = [f"tests/core/test_y.py::{n}" for n in range(100)]
    reached = dict.fromkeys(tests, frozenset({"core/x.py:f"}))
    selection = Selection(dict.fromkeys(tests, 2.0), reached)
    chosen = [*selection.of(Mutant("core/x.py", "f", 0, 0, "", "", ""))]
    assert [len(portion) for portion in chosen] == [8, 52]
    assert 2.0 * 60 == LONGEST


def run(*arguments: str) -> tuple[int, str, dict[str, object]]:
    """Run it on one file; return the exit code, what it printed, and its last line."""
    done = subprocess.run(
        [sys.executable, "tools/mutants.py", "--only", "core/pool/placement.py", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert not done.stderr, done.stderr
    return done.returncode, done.stdout, json.loads(done.stdout.splitlines()[-1])


def test_a_mutant_that_a_test_notices_is_killed() -> None:
    """The tests of a pure module notice the changes that this seed draws."""
    code, _, told = run(
        "--seed", "1", "--count", "2", "--tests", "tests/core/pool/test_placement.py"
    )
    assert (code, told["mutants"], told["killed"], told["survived"]) == (0, 2, 2, 0)


def test_a_mutant_that_survives_is_told_and_breaks_the_bound() -> None:
    """Without tests each survives: its diff is printed, and the exit is 1."""
    code, printed, told = run("--seed", "1", "--count", "2", "--tests")
    assert (code, told["survived"], told["share_survived"], told["bound"]) == (1, 2, 1.0, 0.05)
    assert printed.count("--- core/pool/placement.py") == 2


def test_what_survived_is_tried_again(directory: Path) -> None:
    """And nothing else."""
    _, printed, told = run("--seed", "1", "--count", "2", "--tests")
    before = directory / "printed"
    before.write_text(printed)
    assert len(survivors(before)) == told["survived"] == 2
    arguments = "--seed", "1", "--count", "9", "--again", str(before)
    _, _, told = run(*arguments, "--tests", "tests/core/pool/test_placement.py")
    assert (told["mutants"], told["killed"]) == (2, 2)


def test_each_equivalent_mutant_is_one_that_there_is() -> None:
    """A listed change whose line was rewritten is not listed any more."""
    for file in {key[0] for key in equivalents()}:
        source = (ROOT / PACKAGE / file).read_text()
        there = {mutant.key for mutant in mutants_of(file, source)}
        assert {key for key in equivalents() if key[0] == file} <= there, EQUIVALENT.name


def test_programs_that_tests_start_have_the_changed_code(directory: Path) -> None:
    """Whatever environment they are given."""
    tree = copied(directory / "copy")
    command = [str(tree.path / ".venv" / "bin" / "python"), "-I", "-c", WHERE]
    done = subprocess.run(command, cwd=directory, capture_output=True, text=True, check=False)
    assert done.stdout.split() == [str(tree.path / "server/samovard/__init__.py")], done.stderr
