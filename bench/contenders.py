"""The contenders: each way to get an answer, behind one method.

A contender is a context manager that holds one conversation; `turn` blocks until the answer is
there. Knows nothing of rounds or figures.
"""

import asyncio
import json
import os
import subprocess
import uuid
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

import samovar

READ_SIZE = 1 << 18
TURN_DEADLINE = 60.0


class Contender(AbstractContextManager["Contender"], Protocol):
    """One conversation."""

    def turn(self, text: str) -> str:
        """Send a message and return the answer."""


@dataclass(frozen=True, slots=True)
class Line:
    """A CLI, its arguments and its environment."""

    cli: Path
    arguments: Sequence[str]
    variables: Mapping[str, str]
    directory: Path


class _Entered:
    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        pass


class Spawned(_Entered):
    """A process for each message, in the CLI's plainest form.

    With `resume` each continues the conversation of the last; without, they are independent.
    """

    def __init__(self, line: Line, *, resume: bool = False) -> None:
        self._line = line
        self._resume = resume
        self._session = ""

    def turn(self, text: str) -> str:
        """Spawn the CLI and wait for its end."""
        done = subprocess.run(
            [str(self._line.cli), *_PLAINEST, *self._known(), text],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=dict(self._line.variables),
            cwd=self._line.directory,
            timeout=TURN_DEADLINE,
            check=False,
        )
        results = [line for line in done.stdout.splitlines() if b'"type":"result"' in line]
        return str(json.loads(results[-1]).get("result", "")) if results else ""

    def _known(self) -> list[str]:
        if not self._resume:
            return []
        if self._session:
            return [f"--resume={self._session}"]
        self._session = str(uuid.uuid4())
        return [f"--session-id={self._session}"]


_PLAINEST = ("--print", "--output-format=stream-json", "--verbose")


class Pipe(_Entered):
    """One process and its bare pipes, read with blocking reads: the floor."""

    def __init__(self, line: Line) -> None:
        self._child = subprocess.Popen(
            [str(line.cli), *line.arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            bufsize=0,
            env=dict(line.variables),
            cwd=line.directory,
        )
        assert self._child.stdin is not None
        assert self._child.stdout is not None
        self._stdin, self._stdout = self._child.stdin, self._child.stdout
        self._rest = b""
        if "--input-format=stream-json" in line.arguments:
            self._say({"type": "control_request", "request_id": "1", "request": _INITIALIZE})
            self._until(b'"type":"control_response"')

    def turn(self, text: str) -> str:
        """Write the message and read up to its result."""
        content = [{"type": "text", "text": text}]
        message = {"role": "user", "content": content}
        user = {"type": "user", "uuid": str(uuid.uuid4()), "client_composed": True}
        self._say(user | {"message": message})
        return str(json.loads(self._until(b'"type":"result"'))["result"])

    def _say(self, value: Mapping[str, object]) -> None:
        self._stdin.write(json.dumps(value).encode() + b"\n")

    def _until(self, mark: bytes) -> bytes:
        while True:
            *lines, self._rest = self._rest.split(b"\n")
            for number, line in enumerate(lines):
                if mark in line:
                    self._rest = b"\n".join([*lines[number + 1 :], self._rest])
                    return line
            data = os.read(self._stdout.fileno(), READ_SIZE)
            if not data:
                raise EOFError("the agent ended")
            self._rest += data

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """End the process."""
        with self._child:
            self._stdin.close()
            try:
                self._child.wait(5.0)
            except subprocess.TimeoutExpired:
                self._child.kill()


_INITIALIZE = {"subtype": "initialize"}


class Sdk:
    """The Agent SDK's client, kept open in this process."""

    def __init__(self, cli: Path, directory: Path, variables: Mapping[str, str]) -> None:
        # Importing it takes as long as all the rest.
        import claude_agent_sdk as sdk

        self._sdk = sdk
        options = sdk.ClaudeAgentOptions(
            cli_path=cli,
            cwd=directory,
            env=dict(variables),
            model="haiku",
            tools=[],
            setting_sources=[],
            include_partial_messages=True,
            permission_mode="dontAsk",
        )
        self._client = sdk.ClaudeSDKClient(options)
        self._runner = asyncio.Runner()
        self.events = 0

    def __enter__(self) -> Self:
        self._runner.run(self._client.connect())
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """End the client's process."""
        self._runner.run(self._client.disconnect())
        self._runner.close()

    def turn(self, text: str) -> str:
        """Send the message, and read up to the result; `events` counts the streamed ones."""
        return self._runner.run(self._turn(text))

    async def _turn(self, text: str) -> str:
        await self._client.query(text)
        self.events = 0
        answer = ""
        async for message in self._client.receive_response():
            self.events += isinstance(message, self._sdk.StreamEvent)
            if isinstance(message, self._sdk.ResultMessage):
                answer = message.result or ""
        return answer


class Samovar:
    """`Send` to a samovard in another process, through the public client."""

    def __init__(self, address: str) -> None:
        self._client = samovar.Client(address, deadline=TURN_DEADLINE)
        self._session = f"bench-{uuid.uuid4().hex[:8]}"
        self.events = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """End the session, and with it the process."""
        self._client.close_session(self._session)
        self._client.close()

    def turn(self, text: str) -> str:
        """Send the message, and read every event; `events` counts the deltas."""
        answer = ""
        self.events = 0
        for event in self._client.send(text, session=self._session):
            self.events += isinstance(event, samovar.TextDelta)
            if isinstance(event, samovar.TurnFinished):
                answer = event.result
        return answer
