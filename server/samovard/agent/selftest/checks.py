"""Test every undocumented behaviour that the service relies on, on the CLI at hand.

Runs the real launch line against a loopback stand-in for the Messages API, once for each digest of
the binary. Knows what a check means; knows nothing of sessions or gRPC.
"""

import asyncio
import contextlib
import json
import os
import signal
import uuid
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec
import structlog

from samovard.agent.process import AgentProcess
from samovard.agent.selftest.trial import tell_of_exit
from samovard.core.errors import SamovarError
from samovard.core.events import (
    Event,
    Outcome,
    PermissionRequested,
    TextDelta,
    ToolResult,
    TurnFinished,
)
from samovard.core.process import (
    Agents,
    Allow,
    Broken,
    Deny,
    Doing,
    EventOptions,
    Exit,
    Launch,
    PermissionDecision,
    Prompt,
    Text,
)
from samovard.standin import StandIn, drip, script, tool

PROFILE = "self-test"  # has Bash, to ask a shell what it sees, and Write, which needs permission
CREDENTIAL = "samovar-self-test-credential"
STEP_TIMEOUT = 30.0
INBOX_WAIT = 0.5

_log = structlog.get_logger("samovard.self_test")


class Failed(Exception):
    """Raised when the CLI does not do what the service needs."""


@dataclass(frozen=True, slots=True)
class Check:
    """One behaviour and whether the CLI has it; `detail` says what was seen if not.

    The service does not start if a check that is `fatal` fails.
    """

    name: str
    passed: bool
    detail: str = ""
    fatal: bool = True


class _Ear:
    """Listener of one process that keeps the events of its turn."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.report: TurnFinished | None = None
        self.already_run = False
        self.quiet = True
        self.unsolicited = 0
        self.broken: Broken | None = None
        self.exit: Exit | None = None
        self._changed = asyncio.Event()

    def expect(self) -> None:
        """Forget the previous turn."""
        self.events, self.report, self.quiet, self.already_run = [], None, False, False

    @property
    def asked(self) -> list[PermissionRequested]:
        """The permission requests of the turn."""
        return [event for event in self.events if isinstance(event, PermissionRequested)]

    async def until(self, condition: Callable[[], object], what: str) -> None:
        """Wait for a condition. Raise `Failed` if it does not become true in time."""
        try:
            async with asyncio.timeout(STEP_TIMEOUT):
                while not condition():
                    if self.exit is not None:
                        raise Failed(f"{what}: the CLI ended ({self.exit})")
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            raise Failed(f"{what}: nothing came in {STEP_TIMEOUT:.0f} s") from None

    def on_events(self, events: Sequence[Event], size: int, *, last: bool = False) -> None:
        self.events += events
        self._changed.set()

    def on_activity(self, doing: Doing, *, progress: bool, waits: float, steps: int) -> None:
        """Do nothing: waits are short here, and bounded as a whole."""

    def on_cost(self, usd: float) -> None:
        """Do nothing: costs are not asked for here."""

    def on_finished(self, finished: TurnFinished, said: str = "") -> None:
        self.report = finished
        self._changed.set()

    def on_already_run(self) -> None:
        self.already_run = True
        self._changed.set()

    def on_quiet(self) -> None:
        self.quiet = True
        self._changed.set()

    def on_unsolicited(self, frames: int) -> None:
        self.unsolicited += frames
        self._changed.set()

    def on_noise(self, lines: int) -> None:
        """Do nothing: noise does not matter here."""

    def on_broken(self, how: Broken) -> None:
        self.broken = how
        self._changed.set()

    def on_exit(self, exit: Exit) -> None:
        self.exit = exit
        self._changed.set()


class SelfTest:
    """The checks, run one after another on as few processes as they need.

    Homes are below `root`; `scratch` is a directory that the CLI must not touch; `secret` is True
    if tools must not be able to read the credential.
    """

    def __init__(
        self, agents: Agents, stand_in: StandIn, root: Path, scratch: Path, *, secret: bool
    ) -> None:
        self._agents = agents
        self._stand_in = stand_in
        self._root = root
        self._scratch = scratch
        self._secret = secret
        self._home = uuid.uuid4().hex
        self._session = str(uuid.uuid4())
        self._ear = _Ear()
        self._process: AgentProcess | None = None
        self._first_turn = str(uuid.uuid4())
        self._prompted = False  # there is a transcript
        self.version = ""

    async def run(self) -> list[Check]:
        """Run every check until one fails. No process is left running."""
        checks: list[Check] = []
        try:
            for name, check in self._checks():
                checks.append(await self._tried(name, check))
                if not checks[-1].passed:
                    break
        finally:
            await self._leave()
        return checks

    async def run_all(self) -> list[Check]:
        """Run every check, also after one that failed. No process is left running."""
        checks: list[Check] = []
        try:
            for name, check in self._checks():
                checks.append(await self._tried(name, check))
                if not checks[-1].passed:
                    await self._stop()  # it may be in any state: the next check gets a fresh one
                    self._process = None
        finally:
            await self._leave()
        return checks

    async def _tried(self, name: str, check: Callable[[], Awaitable[None]]) -> Check:
        try:
            if self._process is None:
                await self._start(resume=self._prompted)
            await check()
        except (Failed, SamovarError) as error:
            return Check(name, False, str(error))
        return Check(name, True)

    async def _leave(self) -> None:
        await self._stop()
        await self._agents.remove_home(self._home)

    def _checks(self) -> list[tuple[str, Callable[[], Awaitable[None]]]]:
        return [
            ("a turn lies between the lifecycle lines of its own id", self._turn),
            ("text is never taken for a command or a file", self._verbatim),
            ("the credential is out of the reach of tools", self._credential),
            ("a neighbour's message starts no turn", self._inbox),
            ("an interrupt right behind a message is obeyed", self._interrupt_at_once),
            ("an interrupt in mid-answer is obeyed and the process lives", self._interrupt),
            ("a killed conversation resumes", self._resume),
            ("a tool that needs permission waits for it, and obeys", self._permission),
            ("one message is never run twice", self._repeat),
        ]

    async def _start(self, *, resume: bool, ask: bool = False) -> None:
        launch = Launch(
            uuid.uuid4().hex, "self-test", PROFILE, self._home, self._session, resume, ask=ask
        )
        self._ear = _Ear()
        process = self._agents.create(launch, self._ear)
        assert isinstance(process, AgentProcess)
        self._process = process
        try:
            await process.start()
        except SamovarError:
            tell_of_exit(launch.process_id, self._ear.exit)
            raise
        self.version = process.agent_version

    async def _stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            await self._process.stop(suspect=True)

    async def _write(self, text: str, turn_id: str | None = None) -> None:
        assert self._process is not None
        content = (Text(text.encode()),)
        prompt = Prompt(turn_id or str(uuid.uuid4()), content, EventOptions(partial=True))
        self._ear.expect()
        self._prompted = True
        await self._process.write(prompt, lambda: None)

    async def _ask(self, text: str, turn_id: str | None = None) -> TurnFinished:
        await self._write(text, turn_id)
        await self._ear.until(lambda: self._ear.report and self._ear.quiet, "turn")
        assert self._ear.report is not None
        return self._ear.report

    async def _turn(self) -> None:
        if self._stand_in.requests:
            raise Failed("the CLI called the API before its first message")
        report = await self._ask("Say samovar", self._first_turn)
        if (report.outcome, report.result) != (Outcome.COMPLETED, "samovar"):
            raise Failed("the answer was not the model's")

    async def _verbatim(self) -> None:
        canary = self._scratch / "canary"
        canary.write_text(secret := uuid.uuid4().hex)
        try:
            for words in (f"@{canary} is a file", "/cost"):
                before = len(self._stand_in.requests)
                await self._ask(words)
                seen = self._stand_in.requests[before:]
                if not any(words in text for request in seen for text in request.texts):
                    raise Failed(f"{words.split()[0][:1]}-text did not arrive as it was written")
                if any(secret in text for request in seen for text in request.texts):
                    raise Failed("a file was read without a request for it")
        finally:
            canary.unlink()

    async def _credential(self) -> None:
        if not any(CREDENTIAL in r.credentials for r in self._stand_in.requests):
            raise Failed("the credential did not reach the API")
        await self._ask(
            script(tool("Bash", {"command": "env; tr '\\0' '\\n' </proc/$PPID/environ"}))
        )
        results = [e.text for e in self._ear.events if isinstance(e, ToolResult)]
        if not any("SAMOVAR_PROCESS" in result for result in results):
            raise Failed("the shell did not run")
        if self._secret and any(CREDENTIAL in result for result in results):
            raise Failed("a tool can read the credential")

    async def _inbox(self) -> None:
        assert self._process is not None
        sockets = (self._root / self._home / "tmp").rglob(f"{self._process.pid}.sock")
        path = next(iter(sockets), None)
        if path is None:
            return  # without an inbox there is no neighbour
        before = len(self._stand_in.requests)
        message = {"type": "user", "message": {"role": "user", "content": "Say neighbour"}}
        with contextlib.suppress(OSError):  # refusing the line is as good as ignoring it
            _, writer = await asyncio.open_unix_connection(path)
            writer.write(msgspec.json.encode(message) + b"\n")
            writer.close()
            await writer.wait_closed()
        with contextlib.suppress(Failed, TimeoutError):
            async with asyncio.timeout(INBOX_WAIT):
                await self._ear.until(lambda: self._ear.unsolicited, "inbox")
        if self._ear.unsolicited or len(self._stand_in.requests) > before:
            raise Failed("a line in the inbox started a turn")

    async def _interrupt_at_once(self) -> None:
        await self._write("Say nothing")
        await self._interrupted()

    async def _interrupt(self) -> None:
        await self._write(script(drip(200, 0.05)))
        await self._ear.until(
            lambda: any(isinstance(event, TextDelta) for event in self._ear.events), "delta"
        )
        await self._interrupted()
        await self._turn_on()

    async def _interrupted(self) -> None:
        assert self._process is not None
        if not await self._process.interrupt():
            raise Failed("the CLI did not prove that it is quiet")
        report = self._ear.report
        if report is None or report.outcome not in (Outcome.INTERRUPTED, Outcome.COMPLETED):
            raise Failed("the interrupted turn was not reported")

    async def _turn_on(self) -> None:
        report = await self._ask("Say on")
        if report.result != "on":
            raise Failed("the turn after an interrupt went wrong")

    async def _resume(self) -> None:
        assert self._process is not None
        await self._write(script(drip(200, 0.05)))
        await self._ear.until(
            lambda: any(isinstance(event, TextDelta) for event in self._ear.events), "delta"
        )
        os.kill(self._process.pid, signal.SIGKILL)
        await self._stop()
        await self._start(resume=True)
        report = await self._ask("Say back")
        history = [text for request in self._stand_in.requests[-1:] for text in request.texts]
        if report.result != "back" or not any("Say samovar" in text for text in history):
            raise Failed("the conversation was not there after a kill")

    async def _permission(self) -> None:
        await self._stop()
        await self._start(resume=self._prompted, ask=True)
        work = self._root / self._home / "work"
        await self._decide("allowed", lambda given: Allow(_with(given, content="changed")))
        if not (work / "allowed").exists() or (work / "allowed").read_text() != "changed":
            raise Failed("a tool did not run with the input that it was allowed")
        await self._decide("denied", lambda given: Deny("the self-test denies it"))
        if (work / "denied").exists():
            raise Failed("a tool ran that was denied")

    async def _decide(self, name: str, decide: Callable[[str], PermissionDecision]) -> None:
        """Have a file written, and call `decide` when the permission for it is asked."""
        await self._write(script(tool("Write", {"file_path": name, "content": "asked"})))
        await self._ear.until(lambda: self._ear.asked or self._ear.report, "permission")
        if not self._ear.asked:
            raise Failed("a tool that needs permission did not wait for it")
        assert self._process is not None
        (asked,) = self._ear.asked
        self._process.decide(asked.permission_id, decide(asked.input_json))
        await self._ear.until(lambda: self._ear.report and self._ear.quiet, "turn")

    async def _repeat(self) -> None:
        await self._write("Say samovar", self._first_turn)
        await self._ear.until(lambda: self._ear.already_run or self._ear.report, "repeat")
        if self._ear.report is not None:
            raise Failed("a message that the transcript has was run again")


def _with(input_json: str, **changed: str) -> str:
    return json.dumps(json.loads(input_json) | changed)
