"""`samovard` and `samovar` as programs of their own, for tests that must see a process."""

import asyncio
import json
import os
import re
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from support.service import prepare
from support.timeouts import BOUND

PR_SET_PDEATHSIG = 1  # prctl(2)
SAMOVARD = (sys.executable, "-m", "samovard")
SAMOVAR = (sys.executable, "-c", "from samovar.cli import main; main()")


def environ(**variables: str) -> dict[str, str]:
    """Return an environment that is built from nothing."""
    return {
        "PATH": os.defpath,
        "HOME": "/nonexistent",
        "TMPDIR": tempfile.gettempdir(),
        "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
        **variables,
    }


def run(*command: str, **variables: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        command,
        env=environ(**variables),
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        timeout=2 * BOUND,
    )


@dataclass
class Program:
    child: "subprocess.Popen[bytes]"
    address: str
    said: str
    config: Path | None = None

    def end(self, number: int = signal.SIGTERM, within: float = BOUND) -> int:
        self.child.send_signal(number)
        return self.child.wait(within)


def config_of(directory: Path, binary: Path, **server: object) -> Path:
    key = directory / "key"
    key.touch(mode=0o600)
    key.write_text("sk-test")
    lines = ["[server]", 'listen = "127.0.0.1:0"']
    lines += [f"{name} = {json.dumps(value)}" for name, value in server.items()]
    lines += ["[state]", f'directory = "{directory}"', "[agent]", f'cli = "{binary}"']
    lines += ["[isolation]", 'require = "none"', 'mechanism = "none"', 'network_require = "best"']
    lines += ["[credentials]", 'provider = "file"', f'path = "{key}"', "[pool]", "slots = 4"]
    config = directory / "samovard.toml"
    config.write_text("\n".join(lines))
    return config


def starter(*ignoring: int) -> tuple[str, ...]:
    """Return what starts a program with these signals ignored, and no others.

    The program ends with the thread that starts it, however that ends: a test run that is
    killed leaves none.
    """
    lines = [
        "import ctypes, os, signal, sys",
        f"ctypes.CDLL(None).prctl({PR_SET_PDEATHSIG}, signal.SIGKILL)",
        f"os.getppid() == {os.getpid()} or sys.exit('its starter has gone')",
        "for n in (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT):",
        f"    signal.signal(n, signal.SIG_IGN if n in {[*map(int, ignoring)]} else signal.SIG_DFL)",
        "os.execv(sys.argv[1], sys.argv[1:])",
    ]
    return sys.executable, "-ISc", "\n".join(lines)


def serve(config: Path, *more: str, ignoring: tuple[int, ...] = ()) -> list[str]:
    """Return the command of a service that outlives neither its test nor a killed test run."""
    return [*starter(*ignoring), *SAMOVARD, "serve", "--config", str(config), *more]


@contextmanager
def served(
    directory: Path, *more: str, variables: Mapping[str, str] | None = None, **server: object
) -> Iterator[Program]:
    """Run `samovard serve` on the fake CLI until it prints where it listens."""
    methods = '["api_key"]' if "--keys" in more else '["none"]'
    binary = asyncio.run(prepare(directory, fake=True))
    config = config_of(directory, binary, **server)
    given = {"SAMOVAR_AUTH__METHODS": methods, **(variables or {})}
    with started(config, *more, variables=given) as program:
        yield program


@contextmanager
def started(
    config: Path,
    *more: str,
    variables: Mapping[str, str] | None = None,
    ignoring: tuple[int, ...] = (),
) -> Iterator[Program]:
    """Run `samovard serve` with a configuration until it prints where it listens.

    It has no terminal even if the tests have one, and of the signals ignores those of `ignoring`.
    """
    with subprocess.Popen(
        serve(config, *more, ignoring=ignoring),
        start_new_session=True,
        env=environ(**(variables or {})),
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stdin=subprocess.DEVNULL,
    ) as child:
        try:
            said = read_until(child, "try: ")
            match = re.search(r"listens on (\S+)", said)
            assert match, said
            yield Program(child, match[1], said, config)
        finally:
            if child.poll() is None:
                child.kill()


def read_until(child: "subprocess.Popen[bytes]", word: str) -> str:
    assert child.stderr is not None
    said, end = b"", time.monotonic() + BOUND
    while word.encode() not in said and time.monotonic() < end:
        if select.select([child.stderr], [], [], 0.1)[0]:
            piece = os.read(child.stderr.fileno(), 65536)
            if not piece:
                break
            said += piece
    assert word.encode() in said, said.decode()
    return said.decode()


def send(address: str, text: str, *options: str) -> "subprocess.CompletedProcess[str]":
    return run(*SAMOVAR, "send", "--target", address, *options, text)


def processes_of(directory: Path) -> list[str]:
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if os.fsencode(directory / "s") in (process / "environ").read_bytes():
                found.append(process.name)
        except OSError:
            continue
    return found


@contextmanager
def sending(address: str, text: str, *options: str) -> Iterator["subprocess.Popen[str]"]:
    with subprocess.Popen(
        [*SAMOVAR, "send", "--target", address, "--json", *options, text],
        env=environ(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        stdin=subprocess.DEVNULL,
        text=True,
    ) as child:
        assert child.stdout is not None
        assert "TurnStarted" in child.stdout.readline()
        try:
            yield child
        finally:
            if child.poll() is None:
                child.kill()
