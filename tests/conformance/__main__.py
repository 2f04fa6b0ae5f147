"""Run the suite for each language whose client and tools are there: `python -m conformance`.

Drivers are built first. With `--write` the matrix is written to `docs/languages.md`. Other
arguments are for pytest; with them it is not expected that every scenario runs. Exits with 1 if a
scenario failed or was not run, or if the page is stale.
"""

import argparse
import json
import os
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path

from conformance import matrix
from conformance.languages import LANGUAGES, ROOT, CannotBuild, build, lacking

AT_ONCE = ("-n", "2", "--dist", "loadfile")
OF_THE_PAGE = "test_languages.py::test_the_page_has_every_scenario_and_no_empty_cell"


def main() -> int:
    """Return the exit code."""
    parser = argparse.ArgumentParser(prog="conformance", description=__doc__)
    parser.add_argument("--write", action="store_true", help="write docs/languages.md")
    parser.add_argument("--only", action="append", choices=LANGUAGES, help="only this language")
    options, more = parser.parse_known_args()
    wanted = options.only or list(LANGUAGES)
    with tempfile.TemporaryDirectory() as directory:
        try:
            drivers = built(wanted, Path(directory))
        except CannotBuild as error:
            print(f"conformance: {error}")
            return 1
        results = Path(directory) / "matrix.json"
        if not drivers:
            return 1
        stale = [f"--deselect=tests/conformance/{OF_THE_PAGE}"] if options.write else []
        code = tested(drivers, results, [*(more or AT_ONCE), *stale])
        found = json.loads(results.read_text()) if results.exists() else {}
    return code or bool(not more and told(found, list(drivers), write=options.write))


def built(wanted: list[str], directory: Path) -> dict[str, str]:
    """Build the drivers, and return their commands. Say which languages are left out."""
    commands = {}
    for name in wanted:
        reason = lacking(name)
        if reason is None:
            print(f"conformance: {LANGUAGES[name].title}", flush=True)
            commands[name] = shlex.join(build(name, directory / name))
        elif os.environ.get("CI") and LANGUAGES[name].at.is_dir():
            raise CannotBuild(reason)
        else:
            print(f"conformance: {LANGUAGES[name].title} is left out: {reason}", flush=True)
    return commands


def tested(drivers: dict[str, str], results: Path, more: list[str]) -> int:
    """Run the suite, and return pytest's exit code."""
    given = [f"--driver={name}={command}" for name, command in drivers.items()]
    command = [sys.executable, "-E", "-m", "pytest", "tests/conformance", *given, *more]
    return subprocess.run([*command, f"--matrix={results}"], cwd=ROOT).returncode


def told(found: matrix.Matrix, languages: list[str], *, write: bool) -> int:
    """Print the matrix, and write its page or hold it against the page."""
    print(matrix.table(found, languages))
    for cell in (missing := matrix.empty(found, languages)):
        print(f"conformance: an empty cell: {cell}")
    if missing:
        return 1
    whole = [name for name in LANGUAGES if LANGUAGES[name].at.is_dir()] == languages
    text = matrix.PAGE.read_text()
    page = matrix.page(found, languages, text) if whole else text
    if write:
        matrix.PAGE.write_text(page)
    elif page != text:
        print(f"conformance: {matrix.PAGE.name} is stale: make clients ARGS=--write")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
