"""A driver as the tests use it: a program that is told lines, and the calls that it runs.

Knows the lines of `clients/conformance.md`. Every wait is bounded.
"""

import itertools
import json
import queue
import subprocess
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from support.program import environ
from support.timeouts import BOUND

Line = dict[str, Any]


class Failed(AssertionError):
    """A call failed; `line` is what the driver says of it."""

    def __init__(self, line: Line) -> None:
        super().__init__(f"{line['kind']}: {line['message']}")
        self.line = line


class Call:
    """A call, and the lines that come back."""

    def __init__(self, driver: "Driver", id: int) -> None:
        self.id = id
        self._driver = driver
        self._lines: queue.SimpleQueue[Line | None] = queue.SimpleQueue()
        self._ended = False

    def put(self, line: Line | None) -> None:
        """Take a line from the driver, None if it has ended."""
        self._lines.put(line)

    def next(self) -> Line:
        """Return the next line."""
        assert not self._ended, "a line was expected, but the call has ended"
        try:
            line = self._lines.get(timeout=BOUND)
        except queue.Empty:
            raise AssertionError(f"no line in {BOUND} s") from None
        assert line is not None, "the driver has ended"
        self._ended = "done" in line or "failed" in line
        if "failed" in line:
            raise Failed(line["failed"])
        return line

    def event(self) -> Line:
        """Return the next line, which must be an event."""
        line = self.next()
        assert "event" in line, line
        event: Line = line["event"]
        return event

    def until(self, kind: str) -> list[Line]:
        """Return the events up to the first of a kind."""
        events = [self.event()]
        while events[-1]["kind"] != kind:
            events.append(self.event())
        return events

    def held(self) -> None:
        """Wait until the driver has stopped to read."""
        line = self.next()
        assert line.get("held"), line

    def events(self) -> list[Line]:
        """Return the events up to the end of a stream that ends well."""
        events = []
        while "done" not in (line := self.next()):
            events.append(line["event"])
        assert line["done"] == {}
        return events

    def done(self) -> Line:
        """Return the result of a call without events."""
        line = self.next()
        assert "done" in line, line
        done: Line = line["done"]
        return done

    def failed(self) -> Line:
        """Return how the call failed, after any events."""
        try:
            while "done" not in (line := self.next()):
                pass
        except Failed as failed:
            return failed.line
        raise AssertionError(f"the call did not fail: {line}")

    def leave(self) -> None:
        """Leave the stream early."""
        assert self._driver.call("leave", of=self.id).done() == {}

    def go_on(self) -> None:
        """Let the driver read on."""
        assert self._driver.call("go_on", of=self.id).done() == {}


class Client:
    """A client of the driver."""

    def __init__(self, driver: "Driver", name: str) -> None:
        self.driver = driver
        self.name = name

    def call(self, call: str, **fields: Any) -> Call:
        """Begin a call of this client."""
        return self.driver.call(call, client=self.name, **fields)

    def send(self, text: str, **options: Any) -> Call:
        """Begin a turn as a stream of events."""
        return self.call("send", content=[{"text": text}], options=options)

    def ask(self, text: str, **options: Any) -> Line:
        """Run a turn for its answer."""
        return self.call("ask", content=[{"text": text}], options=options).done()


class Driver:
    """A running driver of one language."""

    def __init__(self, language: str, command: Sequence[str]) -> None:
        self.language = language
        self._ids = itertools.count(1)
        self._calls: dict[int, Call] = {}
        self._writing = threading.Lock()
        self._program = subprocess.Popen(
            command, env=environ(), stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def call(self, call: str, **fields: Any) -> Call:
        """Begin a call."""
        made = Call(self, next(self._ids))
        self._calls[made.id] = made
        line = json.dumps({"id": made.id, "call": call, **fields}) + "\n"
        assert self._program.stdin is not None
        with self._writing:
            self._program.stdin.write(line.encode())
            self._program.stdin.flush()
        return made

    @contextmanager
    def client(self, target: str, **fields: Any) -> Iterator[Client]:
        """Open a client, and close it at the end."""
        name = f"client {next(self._ids)}"
        assert self.call("open", client=name, target=target, **fields).done() == {}
        try:
            yield Client(self, name)
        finally:
            assert self.call("close", client=name).done() == {}

    def running(self) -> int:
        """Return the number of things that the driver has running."""
        count: int = self.call("count").done()["running"]
        return count

    def end(self) -> int:
        """End stdin and return the exit code."""
        assert self._program.stdin is not None
        assert self._program.stdout is not None
        self._program.stdin.close()
        try:
            return self._program.wait(BOUND)
        finally:
            self._program.kill()
            self._reader.join(BOUND)
            self._program.stdout.close()

    def _read(self) -> None:
        assert self._program.stdout is not None
        for line in self._program.stdout:
            said = json.loads(line)
            self._calls[said["id"]].put(said)
        for call in self._calls.values():
            call.put(None)
