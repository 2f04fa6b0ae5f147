"""One call of one turn: sent, followed, left if that is its fate, and judged."""

import asyncio
import time
from pathlib import Path
from typing import Any

import grpc
from fake_claude import verbs as v
from fake_claude import write_start
from google.rpc import error_details_pb2, status_pb2

from chaos.killer import Killer
from chaos.plan import Fate, Plan
from chaos.tally import Tally
from samovar.v1 import pool_pb2 as pool_pb
from samovar.v1 import session_pb2 as pb
from samovard.core.pool.pool import Pool
from samovard.core.pool.states import ProcessState
from samovard.core.records import SessionKey

ADMIN = "admin"
DEADLINE = 30.0
GRACE = 2.0  # seconds past a deadline, in which its status may still be on its way
SLOW = 0.05  # seconds between two reads of a slow caller
LOOK = 0.002  # seconds between two looks at a process
#: How a call may end besides OK, by reason: all of these are what the service says of faults.
EXPLAINED = frozenset(
    {
        "TURN_LOST",
        "NO_PROCESS",
        "SESSION_BUSY",
        "QUEUE_FULL",
        "TURN_WITHDRAWN",
        "READER_TOO_SLOW",
        "protocol-violated",
    }
)


class Caller:
    """The calls of all turns, with the key of each tenant, and that of `ADMIN`."""

    def __init__(
        self,
        stub: Any,
        operator: Any,
        keys: dict[str, str],
        pool: Pool,
        killer: Killer,
        tally: Tally,
        directory: Path,
    ) -> None:
        self._stub = stub
        self._operator = operator
        self._keys = keys
        self._admin = (("authorization", f"Bearer {keys[ADMIN]}"),)
        self._pool = pool
        self._killer = killer
        self._tally = tally
        self._directory = directory

    async def turn(self, plan: Plan) -> None:
        """Run a turn to its end, whatever that is."""
        if plan.fate is Fate.UNSTARTED:
            mark = self._directory / f"unstarted-{plan.number}"
            write_start(self._directory, v.once(mark, v.die("start")))
        request = pb.SendRequest(
            session_id=plan.session,
            content=[pb.Content(text=plan.prompt)],
            spec=pb.SessionSpec(),
            event_options=pb.EventOptions(partial=True),
        )
        metadata = (("authorization", f"Bearer {self._keys[plan.tenant]}"),)
        begin = time.monotonic()
        call = self._stub.Send(request, metadata=metadata, timeout=DEADLINE)
        finished, left = await self._follow(call, plan)
        code = await call.code()
        took = time.monotonic() - begin
        if code is grpc.StatusCode.DEADLINE_EXCEEDED and took >= DEADLINE - GRACE:
            self._tally.ends["deadline"] += 1
        else:
            info = _info(await call.trailing_metadata())
            self._judge(plan, code, info, finished=finished, left=left)
            if info.metadata.get("cause") == "crash-loop":
                await self._unblock(plan)  # so many kills are no crash of its own
        if took > DEADLINE + GRACE:
            self._tally.count("calls_past_their_deadline", f"{plan.number}: {took:.1f} s")

    async def _follow(self, call: Any, plan: Plan) -> tuple[bool, bool]:
        """Read a call's events. Return whether its turn finished, and whether the caller left."""
        text, events, finished, left = "", 0, False, False
        try:
            async for response in call:
                for event in response.events:
                    events += 1
                    ours = not finished
                    kind = event.WhichOneof("kind")
                    if kind == "turn_started":
                        self._tally.count("turns")
                    elif kind == "text_delta":
                        text += event.text_delta.text
                        ours = ours and plan.said.startswith(text)
                    elif kind == "turn_finished":
                        finished = True
                        ours = ours and plan.said.startswith(event.turn_finished.result)
                    if not ours:
                        self._tally.count("foreign_events", f"{plan.number}: {str(event)[:200]}")
                if plan.fate is Fate.CANCELLED and events >= plan.leaves_after and not finished:
                    left = True
                    self._leave(call, plan)
                if plan.fate is Fate.SLOW:
                    await asyncio.sleep(SLOW)
        except (grpc.aio.AioRpcError, asyncio.CancelledError):
            pass
        return finished, left

    def _leave(self, call: Any, plan: Plan) -> None:
        process = self._pool.process_of(SessionKey(plan.tenant, plan.session))
        call.cancel()
        if process is not None and process.lease is not None:
            self._killer.watch(self._quiet(process, process.epoch))

    async def _quiet(self, process: Any, epoch: int) -> None:
        """Measure until a process whose turn was left is idle, or gone."""
        begin = time.monotonic()
        over = (ProcessState.IDLE, ProcessState.EXITED)
        while process.state not in over and process.epoch == epoch and process.lease is not None:
            await asyncio.sleep(LOOK)
        self._tally.times["cancel_to_quiet"].append(time.monotonic() - begin)

    async def _unblock(self, plan: Plan) -> None:
        request = pool_pb.UnblockSessionRequest(tenant_id=plan.tenant, session_id=plan.session)
        try:
            await self._operator.UnblockSession(request, metadata=self._admin)
        except grpc.aio.AioRpcError as error:
            # A session whose first turn never began does not exist.
            if error.code() is not grpc.StatusCode.NOT_FOUND:
                raise

    def _judge(self, plan: Plan, code: Any, info: Any, *, finished: bool, left: bool) -> None:
        """Count how a call ended: once, and in a way that its fate explains."""
        ok = code is grpc.StatusCode.OK
        told = f"{plan.number} ({plan.fate.value}): {code}"
        if ok is not finished and not left:
            self._tally.count("calls_without_one_end", told)
        if ok or (left and code is grpc.StatusCode.CANCELLED):
            self._tally.ends["finished" if ok else "cancelled"] += 1
            return
        why = info.metadata.get("cause", "") if info.reason == "INTERNAL" else info.reason
        self._tally.ends[why or code.name] += 1
        if info.reason == "TRANSCRIPT_LOST":
            self._tally.count("transcripts_lost", told)
        elif why not in EXPLAINED:
            self._tally.count("unexplained_ends", f"{told} {info.reason} {dict(info.metadata)}")
        if info.reason == "TURN_LOST":
            self._killer.told(info.metadata.get("processId", ""), self._tally)


def _info(trailing: Any) -> Any:
    info = error_details_pb2.ErrorInfo()
    packed = dict(trailing or ()).get("grpc-status-details-bin")
    if packed is not None:
        status_pb2.Status.FromString(packed).details[0].Unpack(info)
    return info
