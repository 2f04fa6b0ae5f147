"""Change the code of core and agent, one small change at a time, and see whether a test fails.

`make mutants ARGS="--seed 7 --count 200 --minutes 60"` draws changes by a seed, the same ones
however the rest of the code changes. Each runs in a copy of the tree, two at a time, against the
tests that reach the changed function, those that reach little else first, until one fails or they
have taken two minutes. A change that none of them notices survives: its diff is printed, and the
exit is 1 if more than 5 % survive. Changes that change no behaviour are listed, each with its
reason, in `equivalent_mutants.toml` beside this file.
"""

import argparse
import ast
import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import sysconfig
import tempfile
import time
import tomllib
import venv
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from queue import SimpleQueue

from mutations import Mutant, drawn
from reached import PACKAGE, TRACE

ROOT = Path(__file__).resolve().parent.parent
COPIED = ("bench", "clients", "docs", "protos", "pyproject.toml", "server", "tests", "tools")
EQUIVALENT = Path(__file__).with_name("equivalent_mutants.toml")
BOUND = 0.05
CODE = ("server", "clients/python", "tools", "tests")
AT_ONCE = 2
PATIENCE = 15.0  # seconds that a test may take, at least
PORTIONS = (8, 60)  # a mutant is tried with so many tests first, and with the rest at last
LONGEST = 120.0  # seconds of tests that it is tried with
#: Too slow to run for each mutant, or tests of neither core nor agent.
SKIPPED = (
    "tests/clients/",
    "tests/deploy/",
    "tests/demo/",
    "tests/edge/test_pages.py",
    *(f"tests/test_{name}.py" for name in ("docs", "docs_commands", "repository")),
    *(f"tests/tools/test_{name}.py" for name in ("bench", "loaded", "mutants")),
)


@dataclass
class Tree:
    """A copy of the tree that one mutant at a time is tried in."""

    path: Path
    ticks: int = 0

    def put(self, file: str, source: str) -> None:
        """Replace a file of the copy, with a new modification time for each version."""
        path = self.path / PACKAGE / file
        path.unlink()
        path.write_text(source)
        self.ticks += 2  # the cache of compiled code compares whole seconds
        os.utime(path, (1_000_000_000 + self.ticks,) * 2)

    def run(self, tests: Sequence[str], patience: float, whole: float, **variables: str) -> bool:
        """True if tests pass, each in so many seconds and all in `whole`."""
        listed = self.path / "tests.txt"
        listed.write_text("\n".join(tests))
        # A Python of its own: programs that tests start have the changed code, too.
        python = self.path / ".venv" / "bin" / "python"
        command = [str(python), "-m", "pytest", "-q", "-p", "no:cacheprovider"]
        command += ["-p", "no:randomly", "-p", "reached", f"--timeout={patience:.0f}"]
        command += [f"@{listed}"] if TRACE in variables else ["-x", f"@{listed}"]
        child = subprocess.Popen(
            command,
            cwd=self.path,
            env={**os.environ, **variables},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        for seconds, number in ((whole, signal.SIGINT), (20, signal.SIGKILL), (None, 0)):
            try:
                return child.wait(seconds) == 0
            except subprocess.TimeoutExpired:
                os.killpg(child.pid, number)
        return False


@dataclass
class Selection:
    """The tests, with the seconds that each takes and the functions that it reaches."""

    seconds: dict[str, float] = field(default_factory=dict)
    reached: dict[str, frozenset[str]] = field(default_factory=dict)

    def of(self, mutant: Mutant) -> Iterator[list[str]]:
        """Yield the tests that reach a changed function, the likeliest to notice it first.

        They are those of its module's own test file, of which some may reach the function in a
        child, where that is not seen; then those that reach little else.
        """
        name = f"{mutant.file}:{mutant.function}"
        own = test_file_of(mutant.file)
        reaching = [
            test for test in self.seconds if name in self.reached[test] or _file(test) == own
        ]
        reaching.sort(
            key=lambda test: (
                _file(test) != own,
                name not in self.reached[test],
                len(self.reached[test]),
                self.seconds[test],
            )
        )
        taken = itertools.accumulate(self.seconds[test] for test in reaching)
        chosen = [test for test, end in zip(reaching, taken, strict=True) if end <= LONGEST]
        for begin, end in itertools.pairwise((0, *PORTIONS, len(chosen) + PORTIONS[-1])):
            if chosen[begin:end]:
                yield chosen[begin:end]

    def passes(self, tree: Tree, tests: Sequence[str]) -> bool:
        """True if tests pass; one that takes three times as long as before hangs."""
        seconds = [self.seconds[test] for test in tests]
        return tree.run(tests, max(PATIENCE, 3 * max(seconds)), 60 + 3 * sum(seconds))

    def look(self, tree: Tree, file: str) -> None:
        """Run a test file on the unchanged code; a test that fails is left out."""
        noted = tree.path / "reached.json"
        noted.unlink(missing_ok=True)
        tree.run([file], 120, 600, **{TRACE: str(noted)})
        passed, failed = json.loads(noted.read_text()) if noted.exists() else ({}, [file])
        for test, (seconds, names) in passed.items():
            self.seconds[test], self.reached[test] = seconds, frozenset(names)
        for test in failed:
            print(f"left out: {test} does not pass unchanged", flush=True)


def test_file_of(file: str) -> str:
    """Return the test file of a module: below `tests/` as the module is below the package."""
    path = Path(file)
    return f"tests/{path.with_name(f'test_{path.name}')}"


def _file(test: str) -> str:
    return test.partition("::")[0]


class Trial:
    """Tester of mutants, each in a tree that is free."""

    def __init__(self, trees: list[Tree], selection: Selection, until: float) -> None:
        self.trees: SimpleQueue[Tree] = SimpleQueue()
        for tree in trees:
            self.trees.put(tree)
        self._selection = selection
        self._until = until

    def look(self, file: str) -> None:
        """Record what the tests of a file reach."""
        tree = self.trees.get()
        try:
            self._selection.look(tree, file)
        finally:
            self.trees.put(tree)

    def survives(self, mutant: Mutant) -> bool | None:
        """True if no test fails, None if the time is over."""
        if time.monotonic() > self._until:
            return None
        tree = self.trees.get()
        source = (tree.path / PACKAGE / mutant.file).read_text()
        try:
            tree.put(mutant.file, mutant.apply(source))
            for tests in self._selection.of(mutant):
                if time.monotonic() > self._until:
                    return None
                if not self._selection.passes(tree, tests):
                    return False
            print(f"survived: {mutant.key}\n{mutant.diff(source)}", flush=True)
            return True
        finally:
            tree.put(mutant.file, source)
            self.trees.put(tree)


def survivors(output: Path | None) -> set[tuple[str, ...]]:
    """Return the keys of the mutants that survived in a run, from its output."""
    lines = output.read_text().splitlines() if output is not None else []
    found = (line.removeprefix("survived: ") for line in lines if line.startswith("survived: "))
    return {ast.literal_eval(key) for key in found}


def equivalents() -> set[tuple[str, str, str, str]]:
    """Return the keys of the mutants that change no behaviour."""
    listed = tomllib.loads(EQUIVALENT.read_text()).get("mutant", [])
    assert all(entry["reason"] for entry in listed)
    return {tuple(entry[k] for k in ("file", "function", "line", "mutation")) for entry in listed}


def copied(target: Path) -> Tree:
    """Copy what tests need; the Python environment is shared."""
    for name in COPIED:
        if (ROOT / name).is_dir():
            ignored = shutil.ignore_patterns("__pycache__", ".hypothesis")
            shutil.copytree(ROOT / name, target / name, ignore=ignored, symlinks=True)
        else:
            shutil.copy2(ROOT / name, target / name)
    venv.create(target / ".venv", symlinks=True)
    (packages,) = (target / ".venv" / "lib").glob("python*/site-packages")
    # Its own code first, and then what is installed beside this program.
    lines = [*(str(target / part) for part in CODE), f"import site; site.addsitedir({site()!r})"]
    (packages / "copied.pth").write_text("\n".join(lines))
    return Tree(target)


def site() -> str:
    """Return the directory of packages that are installed beside this program."""
    return sysconfig.get_path("purelib")


def tests_of(names: list[str] | None) -> list[str]:
    """Return the test files to choose from."""
    if names is not None:
        return names
    found = (str(path.relative_to(ROOT)) for path in sorted((ROOT / "tests").rglob("test_*.py")))
    return [name for name in found if not name.startswith(SKIPPED)]


def _tell(progress: str) -> None:
    """Print the progress, on a terminal only."""
    if sys.stderr.isatty():
        print(f"\r{progress}\033[K", end="", file=sys.stderr, flush=True)


def tried(options: argparse.Namespace, directory: Path) -> dict[str, int]:
    """Try the mutants, print those that survive, and return the counts."""
    until = time.monotonic() + 60 * options.minutes
    trees = [copied(directory / str(number)) for number in range(AT_ONCE)]
    selection = Selection()
    trial = Trial(trees, selection, until)
    known = equivalents()
    counts = {"mutants": 0, "killed": 0, "survived": 0, "equivalent": 0}
    count = options.count if options.again is None else sys.maxsize
    mutants = drawn(trees[0].path / PACKAGE, options.only, options.seed, count)
    if options.again is not None:
        again = survivors(options.again)
        mutants = [m for m in mutants if m.key in again]
    real = [m for m in mutants if m.key not in known]
    with ThreadPoolExecutor(AT_ONCE) as threads:
        tests = tests_of(options.tests)
        for looked, _ in enumerate(threads.map(trial.look, tests), 1):
            _tell(f"{looked} of {len(tests)} test files looked at")
        counts["equivalent"] = len(mutants) - len(real)
        for survives in threads.map(trial.survives, real):
            if survives is not None:
                counts["survived" if survives else "killed"] += 1
                _tell(f"{counts['killed'] + counts['survived']} of {len(real)} tried")
    counts["mutants"] = counts["killed"] + counts["survived"] + counts["equivalent"]
    return counts


def main() -> int:
    """Run as `make mutants` does."""
    parser = argparse.ArgumentParser(description="Change the code and see whether a test fails.")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--only", nargs="*", default=[], help="files below server/samovard")
    parser.add_argument("--again", type=Path, help="only what survived: what a run printed")
    parser.add_argument("--tests", nargs="*", help="test files to choose from")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="mutants-") as directory:
        counts = tried(options, Path(directory))
    _tell("")
    share = round(counts["survived"] / max(counts["mutants"], 1), 4)
    print(json.dumps({**counts, "share_survived": share, "bound": BOUND}))
    return int(share > BOUND)


if __name__ == "__main__":
    sys.exit(main())
