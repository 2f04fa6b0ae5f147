"""The TypeScript client as its own tools see it: types, format, tests, what is generated, and its
example.

What it does on the wire is held by `tests/conformance`. Without Node these tests skip; in CI they
fail.
"""

import filecmp
import json
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

import samovar

ROOT = Path(__file__).parents[2]
TYPESCRIPT = ROOT / "clients" / "typescript"
BUILD = 240.0  # seconds: the first time, npm downloads packages
#: Words of the TypeScript column that are no names of the package.
WORDS = {
    "@samovar-invalid/client",
    "new Client(target, options)",
    "target",
    "for await",
    "break",
    "default",
    "string",
    "traceparent",
}
LONGEST, WIDEST = 400, 100  # lines of a file, characters of a line


@pytest.fixture(scope="module")
def npm() -> str:
    """The program `npm`, with the client's packages installed."""
    found = tool("npm", "install Node 20 or later")
    if not (TYPESCRIPT / "node_modules" / ".package-lock.json").exists():
        run(found, "ci", "--no-audit", "--no-fund")
    return found


@pytest.fixture(scope="module")
def built(npm: str) -> Path:
    """The client as it is compiled, its declarations among it."""
    run(npm, "run", "build")
    return TYPESCRIPT / "dist"


def run(*command: str | Path, **variables: str) -> str:
    """Run a program that must succeed in the client's directory, and return its output."""
    # npm's settings and its cache are at home, and the home of the tests is empty.
    environ = {**os.environ, "HOME": pwd.getpwuid(os.getuid()).pw_dir, **variables}
    done = subprocess.run(
        command, cwd=TYPESCRIPT, env=environ, capture_output=True, text=True, timeout=BUILD
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def sources() -> list[Path]:
    """Return the files of the client, without those that are generated."""
    below = ("src", "conformance", "tests", "example")
    paths = [path for name in below for path in sorted((TYPESCRIPT / name).rglob("*.ts"))]
    return [path for path in paths if "gen" not in path.relative_to(TYPESCRIPT).parts]


def package(name: str = "package.json") -> dict[str, object]:
    """Return what a file of the package says."""
    found: dict[str, object] = json.loads((TYPESCRIPT / name).read_text())
    return found


def test_types_and_format(npm: str) -> None:
    """The compiler, the linter and the formatter find nothing, and nothing is too long."""
    run(npm, "run", "check")
    for path in sources():
        lines = path.read_text().splitlines()
        assert len(lines) <= LONGEST, path.name
        assert [line for line in lines if len(line) > WIDEST] == [], path.name


def test_its_own_tests_pass(npm: str) -> None:
    """Its own tests pass, by Node's test runner."""
    run(npm, "test")


def test_its_stubs_are_of_this_contract(npm: str, directory: Path) -> None:
    """Generating the stubs again makes the same bytes."""
    run(sys.executable, ROOT / "tools" / "generate.py", "--typescript", directory)
    ours = TYPESCRIPT / "src" / "gen"
    found = ((ours, ours.rglob("*.ts")), (directory, directory.rglob("*.ts")))
    names = {str(path.relative_to(at)) for at, paths in found for path in paths}
    assert len(names) > 3
    _, differ, missing = filecmp.cmpfiles(directory, ours, names, shallow=False)
    assert [*differ, *missing] == [], "make generate"


@pytest.mark.parametrize("page", ["clients/typescript/README.md", "docs/typescript.md"])
def test_what_is_shown_compiles(built: Path, page: str) -> None:
    """The pieces of code on a page are a program with the package's types."""
    pieces = re.findall(r"^```ts\n(.*?)^```$", (ROOT / page).read_text(), re.DOTALL | re.MULTILINE)
    assert len(pieces) > 1
    # Within the package, whose name is then its own.
    shown = built / "shown"
    shown.mkdir(exist_ok=True)
    (shown / "page.ts").write_text("declare const error: unknown;\n" + "".join(pieces))
    compiled = {
        "extends": "../../tsconfig.json",
        "compilerOptions": {"noEmit": True, "rootDir": "../..", "noUnusedLocals": False},
        "include": ["*"],
        "exclude": [],
    }
    (shown / "tsconfig.json").write_text(json.dumps(compiled))
    run(TYPESCRIPT / "node_modules" / ".bin" / "tsc", "-p", shown)


def test_its_package_has_the_name_of_the_table() -> None:
    """The package is private, and has the name and the version of the table of names."""
    names = tomllib.loads((ROOT / "clients" / "names.toml").read_text())
    for file in ("package.json", "package-lock.json"):
        said = package(file)
        assert said["name"] == names["typescript"]["package"]
        assert said["version"] == names["version"] == samovar.__version__
    assert package()["private"] is True


def test_its_lock_names_no_place() -> None:
    """The lock has hashes of what is installed, and says nowhere where it is from."""
    found = package("package-lock.json")["packages"]
    assert isinstance(found, dict)
    locked = [each for name, each in found.items() if name]
    assert locked
    assert [each for each in locked if "integrity" not in each or "resolved" in each] == []


def test_every_name_of_typescript_is_there(built: Path) -> None:
    """The names of the TypeScript column of the table of names are exported by the package."""
    said = "\n".join(path.read_text() for path in (built / "src").glob("*.d.ts"))
    exported = (built / "src" / "index.d.ts").read_text() + (
        built / "src" / "events.d.ts"
    ).read_text()
    kinds = {f'"{reason.lower()}"' for reason in samovar.errors.BY_REASON}
    for row in rows()[2:]:
        for span in set(re.findall(r"`([^`]+)`", row[4])) - WORDS:
            name, _, member = span.partition(".")
            if span.startswith('"'):
                assert span in kinds or span in said, span
                continue
            assert re.search(rf"\b{name}\b", exported), span
            declared = re.search(
                rf"^export (declare class|interface) {name}\b.*?^}}", said, re.DOTALL | re.MULTILINE
            )
            inherited = "SessionOptions" if name == "SendOptions" else name
            whole = (declared[0] if declared else "") + said.partition(f"interface {inherited} ")[2]
            assert not member or re.search(rf"\b{member}\??[(:<]", whole), span


def test_everything_public_is_documented() -> None:
    """Each exported name, and each method of an exported class, has a comment above it."""
    public = re.compile(
        r"export (class|interface|type \w|function|async|const)|  ((async|get) )*[a-z]\w+\(.*[{(,]$"
    )
    words = re.compile(r"  (constructor|if|for|while|switch)\b")
    bare = []
    for path in sources():
        before = ""
        for line in path.read_text().splitlines() if path.parent.name == "src" else ():
            member = public.match(line) and not words.match(line)
            if member and not before.strip().endswith("*/"):
                bare.append(f"{path.name}: {line}")
            before = line
    assert bare == []


def test_the_example_holds_a_conversation(built: Path, directory: Path) -> None:
    """The example of the README runs against a service, and prints answers as they come."""
    program = built / "example" / "talk.js"
    with served(directory) as service:
        given = ("Say hello", "Say again")
        said = run(tool("node"), program, *given, SAMOVAR_TARGET=service.address)
        assert re.fullmatch(
            r"hello\n\(completed, \d+ tokens\)\nagain\n\(completed, \d+ tokens\)\n", said
        )
        assert service.end() == 0
