"""The steps that need no turn: they wait, break lines, die, or exhaust the system.

Each takes the agent, and returns a generator of waits or nothing. They also run at a start, before
stdin is read.
"""

from __future__ import annotations

import os
import select
import signal
from typing import TYPE_CHECKING, NoReturn

from . import children
from .frames import Json
from .output import encoded

if TYPE_CHECKING:
    from collections.abc import Callable

    from .agent import Agent
    from .interrupts import Steps

GATE_S = 0.005
CHAT_S = 0.01
MAX_FDS = 1 << 16
MAX_DISK_MIB = 256
OUT_OF_MEMORY = 134
_ERRORS = {401: "authentication_failed", 429: "rate_limit", 529: "overloaded"}
_SIGNALS = {"term": signal.SIGTERM, "int": signal.SIGINT}


def die(step: Json) -> NoReturn:
    """End the process as a `die` step prescribes."""
    number = step["signal"]
    if number:
        if number != signal.SIGKILL:
            signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)
    os._exit(step["code"])


def die_in(phase: str, steps: list[Json]) -> None:
    """End the process if a step prescribes it for this phase."""
    for step in steps:
        if step["do"] == "die" and step["phase"] == phase:
            die(step)


def start(agent: Agent, steps: list[Json]) -> None:
    """Run the script of a start; steps that it cannot run are put before each turn's own."""
    for step in steps:
        name = step["do"]
        if name == "once":
            _once(agent, step)
        elif name == "die" and step["phase"] == "start":
            die(step)
        elif name == "die" and step["phase"] == "init":
            agent.dies_at_init = step
        elif name in FAULTS:
            fault = FAULTS[name]
            waits = fault(agent, **{key: value for key, value in step.items() if key != "do"})
            for seconds in waits or ():
                select.select([], [], [], seconds)
        else:
            agent.every_turn.append(step)


def _once(agent: Agent, step: Json) -> None:
    try:
        os.close(os.open(step["path"], os.O_CREAT | os.O_EXCL, 0o600))
    except FileExistsError:
        return
    start(agent, step["steps"])


# Waiting


def _hang(agent: Agent) -> Steps:
    while True:
        yield None


def _chatty_hang(agent: Agent) -> Steps:
    while True:
        agent.write({"type": "keep_alive"})
        agent.write(agent.frames.system("status", status="requesting"))
        yield CHAT_S


def _gate(agent: Agent, path: str) -> Steps:
    while not os.path.exists(path):
        yield GATE_S


def _touch(agent: Agent, path: str) -> None:
    os.close(os.open(path, os.O_CREAT | os.O_WRONLY, 0o600))


def _slow_init(agent: Agent, ms: float) -> Steps:
    yield ms / 1000


def _api_retry(agent: Agent, n: int, ms: float, status: int) -> Steps:
    for attempt in range(1, n + 1):
        fields: Json = {"attempt": attempt, "max_retries": n, "retry_delay_ms": ms}
        fields |= {"error_status": status, "error": _ERRORS.get(status, "server_error")}
        agent.write(agent.frames.system("api_retry", **fields))
        yield ms / 1000


# Framing


def _partial_line(agent: Agent, then: str) -> Steps:
    line = encoded(agent.frames.system("status", status="requesting"))
    agent.out.raw(line[: len(line) // 2])
    if then == "exit":
        os._exit(1)
    agent.out.mute = True
    agent.mortal()
    yield from _hang(agent)


def _bad_utf8(agent: Agent) -> None:
    line = encoded(agent.frames.system("status", status="<bad>"))
    agent.out.raw(line.replace(b"<bad>", b"\xff\xfe") + b"\n")


def _huge_line(agent: Agent, n: int) -> None:
    line = agent.frames.assistant("huge", {"type": "text", "text": "<pad>"}, [])
    frame = encoded(line)
    agent.out.raw(frame.replace(b"<pad>", b"x" * (n - len(frame) + len(b"<pad>"))) + b"\n")


def _no_newline(agent: Agent) -> None:
    agent.out.without_newline()
    agent.write(agent.frames.system("status", status="requesting"))


def _noise(agent: Agent, n: int) -> None:
    for number in range(n):
        agent.out.raw(b"Warning: this is no JSON, %d\n" % number)
        os.write(2, b"warning on stderr, %d\n" % number)


def _stderr(agent: Agent, value: str) -> None:
    os.write(2, value.encode())


def _close_stdout_stay(agent: Agent) -> None:
    agent.out.mute = True
    agent.mortal()
    # Number 1 stays taken: no file opened later may become stdout.
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    os.close(null)


def _no_read_stdin(agent: Agent) -> None:
    agent.reader.stopped = True
    agent.mortal()


def _line(agent: Agent, fields: Json) -> None:
    agent.write(fields | agent.frames.ids())


def _wrong_session_id(agent: Agent) -> None:
    line = agent.frames.assistant("foreign", {"type": "text", "text": "Not yours."}, [])
    agent.write(line | {"session_id": "ffffffff-0000-4000-8000-000000000000"})


def _writes_lost(agent: Agent, at: str) -> None:
    agent.transcript.lost = "ENOSPC"
    if at == "exit":
        agent.tells_at_exit = True
    else:
        agent.tell_writes_lost()


# The operating system


def _stop(agent: Agent) -> None:
    os.kill(os.getpid(), signal.SIGSTOP)


def _ignore(agent: Agent, what: list[str]) -> None:
    agent.mortal()
    agent.ignores_eof = agent.ignores_eof or "eof" in what
    for name in what:
        if name in _SIGNALS:
            signal.signal(_SIGNALS[name], signal.SIG_IGN)


def _spin(agent: Agent) -> None:
    agent.mortal()
    while True:
        pass


def _balloon(agent: Agent, mib: int) -> None:
    try:
        agent.kept.append(bytearray(b"x") * (mib << 20))
    except MemoryError:
        os.write(2, b"FATAL ERROR: JavaScript heap out of memory\n")
        os._exit(OUT_OF_MEMORY)


def _eat_fds(agent: Agent) -> None:
    try:
        for _ in range(MAX_FDS):
            os.open(os.devnull, os.O_RDONLY)
    except OSError:
        pass  # none left, as intended


def _fill_disk(agent: Agent, mib: int) -> None:
    os.makedirs(agent.options.config_dir, exist_ok=True)
    path = os.path.join(agent.options.config_dir, "filler")
    fd = os.open(path, os.O_WRONLY | os.O_CREAT, 0o600)
    try:
        for _ in range(min(mib, MAX_DISK_MIB) * 16):
            os.write(fd, b"x" * (1 << 16))
    except OSError:
        pass  # full, as intended
    finally:
        os.close(fd)


def grandchild(agent: Agent, tell: str, **flags: bool) -> int:
    """Start a child and return its pid; write it to the file `tell`, if named."""
    pid = children.spawn(**flags)
    if tell:
        with open(f"{tell}.new", "w") as file:
            file.write(str(pid))
        os.replace(f"{tell}.new", tell)
    return pid


def _grandchild(agent: Agent, tell: str, **flags: bool) -> None:
    grandchild(agent, tell, **flags)


# Starting


def _never_init(agent: Agent) -> None:
    agent.silent = True
    agent.mortal()


def _no_lifecycle(agent: Agent) -> None:
    agent.capabilities = []


def _no_settings(agent: Agent) -> None:
    agent.takes_settings = False


def _exit_on_resume(agent: Agent) -> None:
    agent.forgets = True


FAULTS: dict[str, Callable[..., Steps | None]] = {
    "hang": _hang,
    "chatty_hang": _chatty_hang,
    "gate": _gate,
    "touch": _touch,
    "slow_init": _slow_init,
    "api_retry": _api_retry,
    "partial_line": _partial_line,
    "bad_utf8": _bad_utf8,
    "huge_line": _huge_line,
    "no_newline": _no_newline,
    "noise": _noise,
    "stderr": _stderr,
    "close_stdout_stay": _close_stdout_stay,
    "no_read_stdin": _no_read_stdin,
    "line": _line,
    "wrong_session_id": _wrong_session_id,
    "writes_lost": _writes_lost,
    "stop": _stop,
    "ignore": _ignore,
    "spin": _spin,
    "balloon": _balloon,
    "eat_fds": _eat_fds,
    "fill_disk": _fill_disk,
    "grandchild": _grandchild,
    "never_init": _never_init,
    "no_lifecycle": _no_lifecycle,
    "no_settings": _no_settings,
    "exit_on_resume": _exit_on_resume,
}
