"""Drive a fake `claude` from a test: lines in, lines out, every wait bounded.

For tests of the fake itself and of nothing else that has a process class of its own.
"""

from __future__ import annotations

import json
import os
import select
import subprocess
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path
    from types import TracebackType

Json = dict[str, Any]

SESSION = "00000003-0000-4000-8000-000000000000"
WAIT_S = 10.0


def arguments(
    *more: str, mode: str = "dontAsk", session: str = f"--session-id={SESSION}"
) -> list[str]:
    """Return the command line that the service would use, as far as the fake reads it."""
    keep_alive = [
        "--print",
        "--verbose",
        "--input-format=stream-json",
        "--output-format=stream-json",
    ]
    return [*keep_alive, "--model=haiku", f"--permission-mode={mode}", session, *more]


def environment(home: Path) -> dict[str, str]:
    """Return an environment from nothing, with a config directory in `home`."""
    return {
        "CLAUDE_CONFIG_DIR": str(home / "config"),
        "CLAUDE_CODE_EMIT_SESSION_STATE_EVENTS": "1",
        "ANTHROPIC_API_KEY": "dummy",
    }


def user(uuid: str, text: str) -> Json:
    """Return a `user` line."""
    content = [{"type": "text", "text": text}]
    message = {"role": "user", "content": content}
    return {"type": "user", "uuid": uuid, "client_composed": True, "message": message}


def control(request_id: str, subtype: str, **fields: object) -> Json:
    """Return a `control_request` line."""
    request = {"subtype": subtype, **fields}
    return {"type": "control_request", "request_id": request_id, "request": request}


class Child:
    """A running fake. Leaving it kills what is left and closes every pipe."""

    def __init__(self, claude: Path, argv: list[str], env: dict[str, str], **popen: Any) -> None:
        self.process: subprocess.Popen[bytes] = subprocess.Popen(
            [str(claude), *argv],
            env=env,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            **popen,
        )
        self._pieces = bytearray()

    def __enter__(self) -> Child:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.process.kill()
        for pipe in (self.process.stdin, self.process.stdout, self.process.stderr):
            if pipe and not pipe.closed:
                pipe.close()
        self.process.wait(WAIT_S)

    @property
    def pid(self) -> int:
        return self.process.pid

    def send(self, *lines: Json) -> None:
        """Write lines in one write."""
        self.send_raw(b"".join(json.dumps(line).encode() + b"\n" for line in lines))

    def send_raw(self, data: bytes) -> None:
        assert self.process.stdin
        self.process.stdin.write(data)
        self.process.stdin.flush()

    def end_input(self) -> None:
        assert self.process.stdin
        self.process.stdin.close()

    def raw_line(self, seconds: float = WAIT_S) -> bytes:
        """Return the next line with its newline; at the end of output, the rest of it."""
        assert self.process.stdout
        until = time.monotonic() + seconds
        while b"\n" not in self._pieces:
            if not self.readable(until - time.monotonic()):
                raise TimeoutError(f"no line in {seconds} s, only {bytes(self._pieces[:200])!r}")
            data = os.read(self.process.stdout.fileno(), 1 << 20)
            if not data:
                break
            self._pieces += data
        end = self._pieces.find(b"\n") + 1 or len(self._pieces)
        line = bytes(self._pieces[:end])
        del self._pieces[:end]
        return line

    def begun_line(self) -> None:
        """Wait until a line has begun."""
        assert self.process.stdout
        while not self._pieces:
            if not self.readable(WAIT_S):
                raise TimeoutError(f"nothing in {WAIT_S} s")
            self._pieces += os.read(self.process.stdout.fileno(), 1 << 20)

    def readable(self, seconds: float) -> bool:
        """True if more output, or its end, comes in time."""
        assert self.process.stdout
        ready, _, _ = select.select([self.process.stdout], [], [], max(0.0, seconds))
        return bool(ready)

    def line(self) -> Json:
        """Return the next line, decoded."""
        line: Json = json.loads(self.raw_line())
        return line

    def until(self, kind: str, **fields: object) -> list[Json]:
        """Return the lines up to the first of a type whose fields have these values."""
        lines = []
        while True:
            line = self.line()
            lines.append(line)
            if line["type"] == kind and all(line.get(key) == fields[key] for key in fields):
                return lines

    def turn(self, uuid: str, text: str) -> list[Json]:
        """Send a message and return the lines up to `idle`."""
        self.send(user(uuid, text))
        return self.until("system", subtype="session_state_changed", state="idle")

    def answer(self, uuid: str, text: str) -> str:
        """Send a message and return the text of its `result`."""
        results = [line for line in self.turn(uuid, text) if line["type"] == "result"]
        answer: str = results[-1]["result"]
        return answer

    def initialize(self) -> Json:
        """Send `initialize` and return its answer."""
        self.send(control("init-1", "initialize"))
        return self.until("control_response")[-1]

    def exit_code(self) -> int:
        """Wait for the end and return the exit code; negative if a signal ended it."""
        return self.process.wait(WAIT_S)

    def rest(self) -> bytes:
        """Return the output from here to its end."""
        assert self.process.stdout
        return bytes(self._pieces) + self.process.stdout.read()

    def complaint(self) -> str:
        """Return what was written to stderr, once the process has ended."""
        assert self.process.stderr
        return self.process.stderr.read().decode()
