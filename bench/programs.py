"""The programs that a run needs: the stand-in, the service, and the agent that only writes.

Knows how they are started and ended.
"""

import hashlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

TESTED = "self-test.json"  # where a service records which CLIs passed
SOURCE = Path(__file__).with_name("agent.c")
VERSION = "2.1.330"  # the version that the agent that only writes claims
ROOT = Path(__file__).parent.parent
PYTHON = Path(sys.executable)
START_TIMEOUT = 120.0
STOP_TIMEOUT = 30.0
LOOK_AGAIN = 0.01
CREDENTIAL = "no-key"
CPUCLOCK_SCHED = 2  # of Linux: the time spent, by the scheduler's own account
#: Runs a module that ends with its starter, however that ends (PR_SET_PDEATHSIG, SIGKILL).
MODULE = """
import ctypes, runpy, sys
ctypes.CDLL(None).prctl(1, 9)
del sys.argv[0]
runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
"""


class CannotRun(Exception):
    """Raised if the measurement cannot run here; the message is one sentence with the reason."""


@dataclass(frozen=True, slots=True)
class Program:
    """A running program, and its first lines of output."""

    pid: int
    said: str

    def cpu_seconds(self) -> float:
        """Return the user and system time of all its threads so far, without its children's."""
        # Its own clock, as clock_getcpuclockid(3) makes it: /proc counts in hundredths.
        return time.clock_gettime(~self.pid << 3 | CPUCLOCK_SCHED)


def environ(directory: Path, **variables: str) -> dict[str, str]:
    """Return an environment that is built from nothing."""
    return {
        "PATH": os.defpath,
        "HOME": str(directory),
        "TMPDIR": str(directory),
        "LANG": "C.UTF-8",
        **variables,
    }


@contextmanager
def program(
    command: Sequence[str],
    directory: Path,
    ready: str,
    checkout: Path = ROOT,
    python: Path = PYTHON,
) -> Iterator[Program]:
    """Run a module of Python. Yield once it has printed `ready`, and end it after the block.

    Raise `CannotRun` if it does not print that.
    """
    log = directory / "said"
    with (
        log.open("wb") as output,
        subprocess.Popen(
            [python, "-c", MODULE, *command],
            env=environ(directory),
            cwd=checkout,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        ) as child,
    ):
        try:
            yield Program(child.pid, _said(child, log, ready))
        finally:
            child.send_signal(signal.SIGTERM)
            try:
                child.wait(STOP_TIMEOUT)
            except subprocess.TimeoutExpired:
                child.kill()


def _said(child: "subprocess.Popen[bytes]", log: Path, ready: str) -> str:
    end = time.monotonic() + START_TIMEOUT
    while True:
        ended = child.poll() is not None or time.monotonic() > end
        said = log.read_text(errors="replace")
        if ready in said:
            return said
        if ended:
            raise CannotRun(f"the program did not start: {said.strip()}")
        time.sleep(LOOK_AGAIN)


@contextmanager
def stand_in(directory: Path) -> Iterator[str]:
    """Run the stand-in for the model's API and yield its address."""
    with program(["samovard", "stand-in"], directory, "http://") as running:
        yield running.said.split()[-1]


@dataclass(frozen=True, slots=True)
class Served:
    """A running service: its address, the program that it is and the file of its settings."""

    address: str
    program: Program
    config: Path


@contextmanager
def service(
    directory: Path,
    cli: Path,
    upstream: str,
    telemetry: str = "",
    module: str = "samovard",
    checkout: Path = ROOT,
    python: Path = PYTHON,
) -> Iterator[Served]:
    """Run samovard on a CLI, in a directory of its own.

    `telemetry` are lines of that section of the settings, and sections after it. `module` stands in
    for samovard; `checkout` is where it is run, and `python` the program that runs it.
    """
    key = directory / "key"
    key.touch(mode=0o600)
    key.write_text(CREDENTIAL)
    config = directory / "samovard.toml"
    config.write_text(_config(directory, cli, upstream, key) + telemetry)
    command = [module, "serve", "--config", str(config)]
    with program(command, directory, "try: ", checkout, python) as running:
        found = re.search(r"listens on (\S+)", running.said)
        assert found is not None
        yield Served(found[1], running, config)


@contextmanager
def bare(directory: Path) -> Iterator[str]:
    """Run the bare server and yield its address."""
    with program(["bench.bare"], directory, "try: ") as running:
        yield running.said.split()[2]


def trust(directory: Path, cli: Path) -> None:
    """Record that a CLI passed the self-test, which the agent that only writes would not."""
    digest = hashlib.sha256(cli.read_bytes()).hexdigest()
    # Another checkout's default delivery may be another one.
    passed = {f"{digest} {how}": VERSION for how in ("broker", "descriptor")}
    (directory / TESTED).write_text(json.dumps(passed))


def _config(directory: Path, cli: Path, upstream: str, key: Path) -> str:
    return f"""
[server]
listen = "127.0.0.1:0"
[state]
directory = {json.dumps(str(directory))}
[agent]
cli = {json.dumps(str(cli))}
[credentials]
provider = "file"
path = {json.dumps(str(key))}
upstream = {json.dumps(upstream)}
[profiles.default]
model = "haiku"
[telemetry]
log_level = "warning"
"""


def compiled(directory: Path) -> Path:
    """Compile the agent that only writes. Raise `CannotRun` without a C compiler."""
    binary = directory / "agent"
    command = ["cc", "-O2", "-o", str(binary), str(SOURCE)]
    try:
        subprocess.run(command, env=environ(directory), check=True, capture_output=True)
    except FileNotFoundError:
        raise CannotRun("a C compiler is needed: install gcc or clang") from None
    except subprocess.CalledProcessError as error:
        raise CannotRun(f"{SOURCE.name} does not compile: {error.stderr.decode()}") from None
    return binary


def left(directory: Path) -> list[str]:
    """Return the processes other than this one whose environment names a directory."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # it ended at this moment, or is another user's
            if os.fsencode(directory) in (process / "environ").read_bytes():
                found.append(f"{process.name} {(process / 'comm').read_text().strip()}")
    return found
