"""The Go client as its own tools see it: format, vet, tests, what is generated, and its example.

What it does on the wire is held by `tests/conformance`. Without Go these tests skip; in CI they
fail.
"""

import filecmp
import os
import pwd
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from conformance.test_languages import rows
from support.optional_tools import tool
from support.program import served

ROOT = Path(__file__).parents[2]
GO = ROOT / "clients" / "go"
BUILD = 240.0  # seconds: the first time, Go downloads and builds gRPC
#: Words of the Go column that are no names of the package.
WORDS = {"samovar", "traceparent", "target", "break", "default", "time.Duration"}
LONGEST, WIDEST = 400, 100  # lines of a file, characters of a line


@pytest.fixture(scope="module")
def go() -> str:
    """The program `go`."""
    return tool("go", "install Go 1.24 or later")


def run(*command: str | Path, **variables: str) -> str:
    """Run a program that must succeed in the client's directory, and return its output."""
    # Go's caches are at home, and the home of the tests is empty.
    environ = {**os.environ, "HOME": pwd.getpwuid(os.getuid()).pw_dir, **variables}
    done = subprocess.run(
        command, cwd=GO, env=environ, capture_output=True, text=True, timeout=BUILD
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def sources() -> list[Path]:
    """Return the files of the client, without those that are generated."""
    return [path for path in sorted(GO.rglob("*.go")) if not path.name.endswith(".pb.go")]


def test_it_is_formatted(go: str) -> None:
    """`gofmt` would change nothing, and no line or file is too long."""
    assert run(Path(go).with_name("gofmt"), "-l", ".") == "", "make format"
    for path in sources():
        lines = path.read_text().splitlines()
        assert len(lines) <= LONGEST, path.name
        assert [line for line in lines if len(line.expandtabs(1)) > WIDEST] == [], path.name


def test_vet_finds_nothing(go: str) -> None:
    """`go vet` finds nothing, and `go.mod` and `go.sum` are as `go mod tidy` leaves them."""
    run(go, "vet", "./...")
    run(go, "mod", "tidy", "-diff")
    run(go, "mod", "verify")


def test_its_own_tests_pass(go: str) -> None:
    """Its own tests pass, with the detector of data races."""
    run(go, "test", "-race", "-count=1", "./...", CGO_ENABLED="1")


def test_its_stubs_are_of_this_contract(go: str, directory: Path) -> None:
    """Generating the stubs again makes the same bytes."""
    run(sys.executable, ROOT / "tools" / "generate.py", "--go", directory)
    fresh, ours = directory / "samovarv1", GO / "samovarv1"
    names = {path.name for path in (*fresh.iterdir(), *ours.iterdir())}
    _, differ, missing = filecmp.cmpfiles(fresh, ours, names, shallow=False)
    assert [*differ, *missing] == [], "make generate"


def test_its_module_has_the_name_of_the_table() -> None:
    """`go.mod` names the module as `clients/names.toml` does."""
    names = tomllib.loads((ROOT / "clients" / "names.toml").read_text())
    assert (GO / "go.mod").read_text().splitlines()[0] == f"module {names['go']['module']}"


def test_every_name_of_go_is_there(go: str) -> None:
    """The names of the Go column of the table of names are exported by the package."""
    said = run(go, "doc", "-all", ".")
    for row in rows()[2:]:
        for span in set(re.findall(r"`([^`]+)`", row[3])) - WORDS:
            receiver, _, name = re.sub(r"\(.*\)", "", span).rpartition(".")
            method = rf"^func \(\w+ \*?{receiver}\) {name}\(" if receiver else rf"\b{name}\b"
            assert re.search(method, said, re.MULTILINE), span


def test_everything_public_is_documented() -> None:
    """Each exported name has a comment above it, or beside it in a list of constants."""
    public = re.compile(r"^(func (\(\w+ \*?[A-Z]\w*\) )?|type |const |var |\t)[A-Z]\w*[ (=]")
    bare = []
    for path in sources():
        if path.parent != GO or path.name.endswith("_test.go"):
            continue
        before = ""
        for line in path.read_text().splitlines():
            if public.match(line) and not before.strip().startswith("//") and "//" not in line:
                bare.append(f"{path.name}: {line}")
            before = line
    assert bare == []


def test_the_example_holds_a_conversation(go: str, directory: Path) -> None:
    """The example of the README runs against a service, and prints answers as they come."""
    program = directory / "talk"
    run(go, "build", "-o", program, "./example")
    with served(directory) as service:
        said = run(program, "Say hello", "Say again", SAMOVAR_TARGET=service.address)
        assert re.fullmatch(
            r"hello\n\(completed, \d+ tokens\)\nagain\n\(completed, \d+ tokens\)\n", said
        )
        assert service.end() == 0
