"""Run the checks that gate a change, and say how to fix what fails: `check.py [STEP...]`.

Without steps all checks run. Nothing is changed. Exits with 1 if any check failed.
"""

import filecmp
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import chart
import docstrings
import rooms
from generate import generate, generate_go, generate_typescript
from reference import stale

ROOT = Path(__file__).parent.parent
BIN = Path(sys.executable).parent
SOURCES = ("server", "clients/python", "bench", "tests", "tools")
# In two pieces each, so that this file does not hold what it looks for.
ADDRESSES = (
    "py" + "pi.org",
    "python" + "hosted",
    "registry.npm" + "js",
    "proxy.go" + "lang",
    "repo1." + "maven",
    "repo." + "maven",
    "static." + "crates",
    "index." + "crates",
    "deb.deb" + "ian.org",
)
# Directories of a developer's machine.
MACHINE = "(^|[^A-Za-z0-9_.~-])/(ro" + "ot|wo" + "rk|opt/wh" + "eels)(/|$)"


def run(*command: str) -> str:
    """Run a program of this environment. Return its output if it failed, else an empty string."""
    program = BIN / command[0]
    found = [str(program) if program.exists() else command[0], *command[1:]]
    done = subprocess.run(found, cwd=ROOT, capture_output=True, text=True)
    return "" if done.returncode == 0 else (done.stdout + done.stderr).strip() or "failed"


def stubs() -> str:
    """Generate the stubs and return which committed ones differ."""
    ours = ROOT / "clients" / "python" / "samovar" / "v1"
    return _stale(generate, "samovar/v1", ours, "*_pb2*")


def stubs_of_go() -> str:
    """Return which stubs of Go differ, none if it is not installed: in CI its tests fail then."""
    if shutil.which("go") is None:
        return ""
    return _stale(generate_go, "samovarv1", ROOT / "clients" / "go" / "samovarv1", "*.go")


def stubs_of_typescript() -> str:
    """Return which stubs of TypeScript differ, none if its plugin is not installed: in CI its
    tests fail then.
    """
    ours = ROOT / "clients" / "typescript"
    if not (ours / "node_modules").is_dir():
        return ""
    return _stale(generate_typescript, "", ours / "src" / "gen", "**/*.ts")


def _stale(make: Callable[[Path], None], made: str, ours: Path, pattern: str) -> str:
    with tempfile.TemporaryDirectory() as directory:
        try:
            make(Path(directory))
        except subprocess.CalledProcessError as error:
            return str(error)
        fresh = Path(directory) / made
        made_of = ((fresh, fresh.glob(pattern)), (ours, ours.glob(pattern)))
        names = {str(path.relative_to(at)) for at, paths in made_of for path in paths}
        _, differ, missing = filecmp.cmpfiles(fresh, ours, names, shallow=False)
    return "\n".join(f"{name} is stale" for name in sorted((*differ, *missing)))


def pages() -> str:
    """Return the pages of the documentation that are stale."""
    return "\n".join(f"docs/{name} is stale" for name in stale())


def chart_files() -> str:
    """Return the files of the chart that are stale."""
    return "\n".join(f"{path.relative_to(ROOT)} is stale" for path in chart.stale())


def picture() -> str:
    """Return whether the picture of the rooms no longer says what the imports say."""
    return "\n".join(rooms.stale())


def addresses() -> str:
    """Return the lines that contain an address of a registry or a directory of one machine."""
    pattern = "|".join(address.replace(".", r"\.") for address in ADDRESSES)
    found = subprocess.run(
        ["git", "grep", "-nIE", f"{pattern}|{MACHINE}"], cwd=ROOT, capture_output=True, text=True
    )
    # git grep exits with 1 if nothing was found, and with more if it failed.
    return found.stdout.strip() if found.returncode < 2 else found.stderr.strip() or "failed"


CHECKS: tuple[tuple[str, Callable[[], str], str], ...] = (
    ("format", lambda: run("ruff", "format", "--check", *SOURCES), "make format"),
    ("lint", lambda: run("ruff", "check", *SOURCES), "make format mends some of it"),
    ("types", lambda: run("mypy", *SOURCES), ""),
    (
        "docstrings",
        lambda: "\n".join(docstrings.mistakes()),
        "begin as the standard library does: Return ..., True if ..., Called when ...",
    ),
    ("contract: lint", lambda: run("buf", "lint"), ""),
    ("contract: format", lambda: run("buf", "format", "-d", "--exit-code"), "make format"),
    (
        "contract: breaking changes",
        lambda: run("buf", "breaking", "--against", "protos/released.binpb"),
        "a released contract never changes so: add instead",
    ),
    ("generated code", stubs, "make generate"),
    ("generated code of Go", stubs_of_go, "make generate"),
    ("generated code of TypeScript", stubs_of_typescript, "make generate"),
    ("reference pages", pages, "make generate"),
    ("chart", chart_files, "make generate"),
    ("rooms", picture, "make generate"),
    (
        "addresses and machine paths",
        addresses,
        "name no registry and no directory of one machine; in a lock: make lock",
    ),
)


def step(name: str) -> str:
    """Return a check's name as one word."""
    return name.replace(":", "").replace(" ", "-")


def main(wanted: list[str]) -> int:
    """Run the checks of these steps; all if there are none."""
    unknown = set(wanted) - {step(name) for name, _, _ in CHECKS}
    if unknown:
        print(f"no such step: {', '.join(sorted(unknown))}")
        return 1
    failed = 0
    for name, check, hint in CHECKS:
        if wanted and step(name) not in wanted:
            continue
        said = check()
        print(f"{'ok    ' if not said else 'FAILED'} {name}", flush=True)
        if said:
            failed += 1
            print(said)
            if hint:
                print(f"-> {hint}")
    return min(failed, 1)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
