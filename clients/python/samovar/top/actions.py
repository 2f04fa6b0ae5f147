"""What a person may do in `samovar top` to the process whose row is chosen, and its tenant.

Knows the operator's client. Knows nothing of keys or of how anything is drawn.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from samovar.operating import AsyncOperator
from samovar.pools import PoolSnapshot, ProcessInfo


@dataclass(frozen=True, slots=True)
class Action:
    """One action: its word, and a question if it must be confirmed. `do` returns what was done."""

    word: str
    do: Callable[[AsyncOperator, ProcessInfo, PoolSnapshot], Awaitable[str]]
    asks: str = ""


async def _pause(operator: AsyncOperator, row: ProcessInfo, shown: PoolSnapshot) -> str:
    paused = any(pool.paused for pool in shown.pools if pool.tenant_id == row.tenant_id)
    await (operator.resume if paused else operator.pause)(row.tenant_id)
    return f"turns of {row.tenant_id} {'begin' if paused else 'wait'}"


async def _drain(operator: AsyncOperator, row: ProcessInfo, shown: PoolSnapshot) -> str:
    done = await operator.drain(row.tenant_id)
    return f"{row.tenant_id}: {done.stopped} stop now, {done.marked} when their turn ends"


async def _interrupt(operator: AsyncOperator, row: ProcessInfo, shown: PoolSnapshot) -> str:
    turn = await operator.interrupt_session(row.tenant_id, row.session_id)
    return f"{row.session_id} of {row.tenant_id}: {'interrupted' if turn else 'no turn runs'}"


async def _close(operator: AsyncOperator, row: ProcessInfo, shown: PoolSnapshot) -> str:
    closed = await operator.close_tenant_session(row.tenant_id, row.session_id)
    return f"{row.session_id} of {row.tenant_id}: {'closed' if closed else 'there was none'}"


#: By the key that is pressed.
ACTIONS = {
    "p": Action("pause", _pause),
    "d": Action("drain", _drain),
    "i": Action("interrupt", _interrupt),
    "x": Action("close", _close, "close {session} of {tenant} for good? y/n"),
}
