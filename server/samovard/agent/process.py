"""One running `claude`: spawned, spoken to, interrupted, stopped and reaped.

Implements the core's `Process`. Knows the wire through `codec` and `window`, and the operating
system through `child`. Knows nothing of turns beyond the one that it was given.
"""

import asyncio
import contextlib
import itertools
from collections.abc import Awaitable, Callable
from dataclasses import replace
from subprocess import Popen
from typing import Any

from samovard.agent import capabilities, codec, procfs
from samovard.agent.child import Child
from samovard.agent.codec import Decoder
from samovard.agent.frames import Reply
from samovard.agent.host import Host
from samovard.agent.machine import cause_of
from samovard.agent.meter import Meter, total_of
from samovard.agent.tracing import Parking, parked
from samovard.agent.window import Update, Window
from samovard.core.errors import NoProcess, TranscriptLost
from samovard.core.events import PermissionRequested, Usage
from samovard.core.process import (
    Broken,
    Condition,
    Deny,
    Exit,
    Launch,
    PermissionDecision,
    ProcessListener,
    Prompt,
)

SPAWN_TIMEOUT = 10.0  # for the credential, the directory and the spawn itself
#: T_init. Without a base URL the CLI waits up to 30.4 s for the API's settings, and then goes on.
INIT_TIMEOUT = 45.0
SLOW_START = 2.0  # seconds; a slower answer to `initialize` is reported
WRITE_TIMEOUT = 5.0  # T_write
INTERRUPT_TIMEOUT = 5.0  # T_int


class AgentProcess:
    """One `claude` child. See the core's `Process` for what each method promises."""

    def __init__(self, launch: Launch, listener: ProcessListener, host: Host) -> None:
        self._launch = launch
        self._listener = listener
        self._host = host
        self._decoder = Decoder(host.max_line_bytes)
        expected = host.expected(launch)
        self._window = Window(
            launch.agent_session,
            asks=launch.ask,
            mode=expected.permission_mode,
            structured=bool(host.json_schema(launch)),
        )
        traced = host.tracing.on(expected.version or "")
        self._parking = Parking(parked(launch.process_id) if traced else "", launch.traceparent)
        self._meter = Meter(self._ask_cost) if launch.metered else None
        self._numbers = itertools.count(1)
        self._replies: dict[str, asyncio.Future[Reply]] = {}
        self._child: Child | None = None
        self._exit: asyncio.Future[Exit] = asyncio.get_running_loop().create_future()
        self._proof: asyncio.Future[bool] | None = None
        self._quiet = True
        self._ready = False
        self._broken = False
        self._discarding = False
        self._stopping = False
        self._spawning: asyncio.Future[None] | None = None
        self._gone = False
        self.agent_version = ""
        self.traced = False
        self.waited = False  # the answer to `initialize` took long

    def __repr__(self) -> str:
        return f"<AgentProcess {self.process_id} pid={self.pid} ready={self._ready}>"

    @property
    def process_id(self) -> str:
        """The permanent id of the process."""
        return self._launch.process_id

    @property
    def pid(self) -> int:
        """The operating system's process id; 0 before the spawn."""
        return self._child.pid if self._child is not None else 0

    @property
    def spent(self) -> Usage:
        """The usage of the last turn, as far as it is known without its report."""
        return self._window.spent

    def condition(self) -> Condition:
        """Return what the kernel knows of the child."""
        return procfs.condition(self._child.agent if self._child is not None else 0)

    # Starting.

    async def start(self) -> None:
        """Spawn the child, send `initialize` and check the answer."""
        self._go_on()
        self._spawning = asyncio.get_running_loop().create_future()
        try:
            self._adopt(await self._host.spawn(self._launch))
        except OSError as error:
            self._host.exited(self._launch)
            raise NoProcess(
                "the agent could not be started", cause=cause_of(error), retry_after=1.0
            ) from error
        finally:
            self._spawning.set_result(None)
        self._go_on()
        await self._host.spawned(self._launch, self.pid)
        slow = asyncio.get_running_loop().call_later(SLOW_START, self._waits)
        try:
            async with asyncio.timeout(INIT_TIMEOUT):
                reply = await self._ask(
                    codec.initialize,
                    self._launch.append_system_prompt,
                    self._host.json_schema(self._launch),
                )
                if self._meter is not None:
                    self._meter.begin(total_of(await self._ask(codec.usage)) or 0.0)
        except TimeoutError:
            raise NoProcess(
                "the agent did not answer in time", cause="start-timeout", retry_after=1.0
            ) from None
        finally:
            slow.cancel()
        self._host.answered(waited=self.waited)
        await self._host.check_cli()  # one replaced since the spawn may have answered
        self.agent_version = capabilities.check(
            bytes(reply.response), self._host.expected(self._launch)
        )
        self._ready = True

    def _waits(self) -> None:
        self.waited = True
        self._host.waits(self._launch)

    def _go_on(self) -> None:
        if self._stopping:
            raise NoProcess("the process was stopped", cause="start-failed", retry_after=1.0)

    def _adopt(self, spawned: Popen[bytes]) -> None:
        marker = self._host.marker(self._launch)
        self._child = Child(
            spawned,
            marker,
            self._take,
            self._stalled,
            self._exited,
            WRITE_TIMEOUT,
            nested=self._host.nested(self._launch),
        )

    async def _ask(self, command: Callable[..., bytes], *values: str) -> Reply:
        request_id = self._next_id()
        reply: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        self._replies[request_id] = reply
        try:
            self._send(command(request_id, *values))
            await self._either(reply)
            if not reply.done():
                raise self._start_failure()
            return reply.result()
        finally:
            self._replies.pop(request_id, None)

    def _start_failure(self) -> NoProcess | TranscriptLost:
        if self._launch.resume and self._window.resume_failed:
            return TranscriptLost()
        return NoProcess("the agent ended at once", cause="start-failed", retry_after=1.0)

    # The turn.

    async def write(self, prompt: Prompt, written: Callable[[], None]) -> None:
        """Open the turn's window and write its message."""
        taken: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def first_byte() -> None:
            taken.set_result(None)
            written()

        line = codec.message(prompt)
        if context := self._parking.change(prompt.traceparent):
            # In one write: a turn takes the context that is set when it begins.
            line = self._setting(context, must=False) + line
        self.traced = self._parking.away
        self._window.open(prompt)
        self._quiet = False
        self._host.works(self._launch, working=True)
        self._discarding = False
        if self._send(line, first_byte) and not taken.done():
            await self._either(taken, WRITE_TIMEOUT)
        if not taken.done():
            taken.cancel()
            raise NoProcess("the process died", cause="process-died", retry_after=1.0)

    def _setting(self, context: str, *, must: bool) -> bytes:
        request_id = self._next_id()
        self._window.setting(request_id, must=must)
        return codec.trace(request_id, context)

    def interrupt(self) -> Awaitable[bool]:
        """Interrupt the agent. The awaitable's result is True if the agent is proven quiet."""
        self._window.interrupting(request_id := self._next_id())
        self._proof = asyncio.get_running_loop().create_future()
        self._quiet = False
        self._send(codec.interrupt(request_id))
        return self._await_proof(self._proof)

    async def _await_proof(self, proof: asyncio.Future[bool]) -> bool:
        await self._either(proof, INTERRUPT_TIMEOUT)
        # By now it may be working again without having been asked.
        return proof.done() and self._quiet and not self._exit.done()

    async def _either(self, something: asyncio.Future[Any], seconds: float | None = None) -> None:
        """Wait for an awaitable, the child's end, or the timeout in seconds, whichever is first."""
        waits = {something, self._exit}
        await asyncio.wait(waits, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)

    def decide(self, request_id: str, decision: PermissionDecision) -> None:
        """Answer an open permission request, once."""
        asked = self._window.answered(request_id)
        if asked is None:
            return
        if isinstance(decision, Deny):
            interrupt = decision.interrupt
            self._send(codec.deny(request_id, decision.message, interrupt=interrupt))
        else:
            self._send(codec.allow(request_id, asked.input, decision.input_json))

    def discard(self) -> None:
        """Discard events from now on; the agent's report still arrives."""
        self._discarding = True
        self.resume()

    def pause(self) -> None:
        """Stop reading the turn's output."""
        if self._child is not None and not (self._discarding or self._quiet):
            self._child.pipes.pause()

    def resume(self) -> None:
        """Read again, as an idle process is always read."""
        if self._child is not None:
            self._child.pipes.resume()

    # Reading.

    def _take(self, data: bytes) -> None:
        if self._broken:
            return
        noise = self._decoder.noise
        frames = self._decoder.feed(data)
        if (more := self._decoder.noise - noise) > 0:
            self._listener.on_noise(more)
        update = self._window.take(frames)
        self._tell(update)
        self._answer(update)
        if self._decoder.failure is not None:
            self._break(self._decoder.failure)
        self._look_for_quiet()

    def _tell(self, update: Update) -> None:
        # First: when the turn gets its report, it must know whether the agent exports spans of it.
        if update.untraced:
            self._parking.failed()
            self.traced = False
        if update.untraced or update.unparked:
            self._host.tracing.refused(self.agent_version)
        if update.events and not self._discarding:
            last = update.finished is not None
            self._listener.on_events(update.events, update.size, last=last)
        if update.doing is not None:
            self._listener.on_activity(
                update.doing,
                progress=update.progress,
                waits=update.waits,
                steps=update.steps,
            )
        if self._meter is not None:
            self._count(self._meter, update)
        if update.finished is not None:
            self._listener.on_finished(update.finished, update.said)
        if update.already_run:
            self._listener.on_already_run()
        if update.unsolicited and self._ready:
            self._quiet = False
            self._listener.on_unsolicited(update.unsolicited)
        if update.broken is not None:
            self._break(update.broken)

    def _count(self, meter: Meter, update: Update) -> None:
        for reply in update.replies:
            if (cost := meter.take(reply)) is not None:
                self._listener.on_cost(cost)
        if update.total_cost_usd is not None:
            meter.begin(update.total_cost_usd)
        elif update.spent:
            meter.look()

    def _ask_cost(self) -> str:
        request_id = self._next_id()
        self._send(codec.usage(request_id))
        return request_id

    def _answer(self, update: Update) -> None:
        for reply in update.replies:
            waiting = self._replies.get(reply.request_id)
            if waiting is not None and not waiting.done():
                waiting.set_result(reply)
        for request_id in update.to_deny:
            self._send(codec.deny(request_id))
        for request_id in update.to_decline:
            self._send(codec.decline(request_id))
        if self._discarding:
            for event in update.events:
                if isinstance(event, PermissionRequested):
                    self.decide(event.permission_id, Deny())
        for request_id in update.requests:
            self._send(codec.refuse(request_id, "not supported"))

    def _look_for_quiet(self) -> None:
        if self._quiet or not self._window.quiet or self._decoder.buffered:
            return
        if self._parking.away:
            self._send(self._setting(self._parking.change(""), must=True))
            return
        self._quiet = True
        self._host.works(self._launch, working=False)
        self.resume()
        if self._proof is not None:
            proof, self._proof = self._proof, None
            if not proof.done():
                proof.set_result(True)
        self._listener.on_quiet()

    def _break(self, how: Broken) -> None:
        if not self._broken:
            self._broken = True
            self._listener.on_broken(how)

    def _stalled(self) -> None:
        self._break(Broken.STALLED)

    # Ending.

    def _exited(self, exit: Exit) -> None:
        self._host.exited(self._launch)
        exit = replace(exit, cut=self._decoder.buffered)
        self._exit.set_result(exit)
        self._listener.on_exit(exit)

    async def kept(self) -> bool:
        """Return True if the session has a transcript."""
        return await self._host.has_transcript(self._launch)

    def terminate(self) -> None:
        """Ask the child to end now."""
        if self._child is not None:
            self._child.terminate()

    def kill(self) -> None:
        """Kill the child's whole process tree."""
        if self._child is not None:
            self._child.kill()

    async def stop(self, *, suspect: bool) -> None:
        """Stop the child and its whole process tree, step by step."""
        self._stopping = True
        if self._spawning is not None:
            # A process that is being spawned at this moment would outlive this one.
            await asyncio.wait({self._spawning}, timeout=SPAWN_TIMEOUT)
        if self._child is None or self._gone:
            return
        await self._child.end(suspect=suspect)
        self._gone = True
        # A ledger row that stays is harmless: no process will match it. A slot that stays is not.
        with contextlib.suppress(NoProcess):
            await self._host.gone(self._launch)

    def _send(self, line: bytes, taken: Callable[[], None] | None = None) -> bool:
        return self._child is not None and self._child.pipes.write(line, taken)

    def _next_id(self) -> str:
        return f"samovar-{next(self._numbers)}"
