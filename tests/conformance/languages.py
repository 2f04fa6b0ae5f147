"""The languages that have a client: how each one's driver is built and run, and what that needs.

A language is there once its directory is. Its driver is built by `python -m conformance`; the
suite itself is only told how to run it.
"""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
CLIENTS = ROOT / "clients"
BUILD = 30 * 60.0  # seconds that a build may take, the first time with what it downloads

Version = tuple[int, ...]
#: The programs that drivers are built and run with, how to ask each for its version, and the
#: oldest that will do.
TOOLS: dict[str, tuple[tuple[str, ...], Version]] = {
    "go": (("go", "version"), (1, 24)),
    "node": (("node", "--version"), (20, 0)),
    "npm": (("npm", "--version"), (9, 0)),
}


class CannotBuild(Exception):
    """A driver cannot be built; the message says why, in one sentence."""


@dataclass(frozen=True, slots=True)
class Language:
    """A language: its name for people, its sources, its tools, and its driver.

    `build` are commands that run in its directory; `{out}` in them is a file to make. `run` is the
    command of the driver, `{out}` and `{at}`, its directory, filled in.
    """

    title: str
    directory: str
    driver: str  # the source, or the directory of sources, below `directory`
    run: tuple[str, ...]
    build: tuple[tuple[str, ...], ...] = ()
    tools: tuple[str, ...] = ()
    generated: tuple[str, ...] = ()  # what a source with an import of generated code contains
    most: int = 150  # lines of the driver

    @property
    def at(self) -> Path:
        return CLIENTS / self.directory

    def sources(self) -> list[Path]:
        """Return the sources of the driver."""
        path = self.at / self.driver
        return (
            sorted(file for file in path.iterdir() if file.is_file()) if path.is_dir() else [path]
        )


LANGUAGES = {
    "python": Language(
        title="Python",
        directory="python",
        driver="conformance/driver.py",
        run=(sys.executable, "-W", "error", "{at}/conformance/driver.py"),
        generated=("samovar.v1", "_pb2"),
    ),
    "go": Language(
        title="Go",
        directory="go",
        driver="conformance",
        run=("{out}",),
        build=(("go", "build", "-o", "{out}", "./conformance"),),
        tools=("go",),
        generated=("samovarv1", '/v1"', ".pb.go"),
        most=280,  # gofmt gives each import, each error that is returned and each brace a line
    ),
    "typescript": Language(
        title="TypeScript",
        directory="typescript",
        driver="conformance/driver.ts",
        run=("node", "{at}/dist/conformance/driver.js"),
        build=(("npm", "ci", "--no-audit", "--no-fund"), ("npm", "run", "build")),
        tools=("node", "npm"),
        generated=("_pb", "/gen/", "/generated/", "/v1/"),
    ),
}


def present() -> list[str]:
    """Return the languages whose directories are there."""
    return [name for name, language in LANGUAGES.items() if language.at.is_dir()]


def lacking(
    name: str, version_of: Callable[[tuple[str, ...]], str | None] | None = None
) -> str | None:
    """Return in a sentence what keeps a language's driver from being built, None if nothing."""
    language = LANGUAGES[name]
    if not language.at.is_dir():
        return f"clients/{language.directory} is not there"
    for tool in language.tools:
        command, oldest = TOOLS[tool]
        wanted = ".".join(map(str, oldest))
        said = (version_of or _version)(command)
        if said is None:
            return f"{tool} is not installed: {language.title} needs {wanted} or later"
        if (found := parsed(said)) < oldest:
            has = ".".join(map(str, found))
            return f"{tool} is {has}: {language.title} needs {wanted} or later"
    return None


def parsed(said: str) -> Version:
    """Return the version in what a program says of itself, two numbers of it."""
    match = re.search(r"(\d+)\.(\d+)", said)
    return (int(match[1]), int(match[2])) if match else ()


def _version(command: tuple[str, ...]) -> str | None:
    if shutil.which(command[0]) is None:
        return None
    done = subprocess.run(command, capture_output=True, text=True, timeout=BUILD)
    return done.stdout if done.returncode == 0 else None


def build(name: str, out: Path, environ: Mapping[str, str] = os.environ) -> tuple[str, ...]:
    """Build a language's driver, with a file to make, and return the command that runs it.

    Raise `CannotBuild`.
    """
    language = LANGUAGES[name]
    places = {"at": str(language.at), "out": str(out)}
    for command in language.build:
        filled = [word.format(**places) for word in command]
        done = subprocess.run(
            filled, cwd=language.at, env=environ, capture_output=True, text=True, timeout=BUILD
        )
        if done.returncode:
            said = (done.stderr or done.stdout).strip()
            raise CannotBuild(f"`{' '.join(command)}` failed in {language.at}:\n{said}")
    return tuple(word.format(**places) for word in language.run)
