"""The facts that must hold after each attack, whatever it was.

The service lives; the victim's next turn is right; no secret is where it must not be; nothing grew.
Knows no attack.
"""

import re
import statistics
from collections.abc import Iterator
from dataclasses import dataclass, field

from security.arena import Arena

QUIET_TURNS = 10
CANARY = re.compile(rb"canary[0-9a-f]{32}")
RESIDENT = 192 << 20  # bytes that the service may have more than when it was quiet
#: How much more there may be of what is counted: what the kernel and libraries hold for a while.
SLACK = {"processes": 0, "descriptors": 12, "tasks": 6, "sessions": 0, "stored": 0}


@dataclass
class Verdict:
    """The result of an attack: each field is empty if all is well.

    `slow` only appears in the report.
    """

    missed: str = ""  # it was not blocked
    crash: str = ""
    wrong: str = ""  # the victim's turn
    leaks: list[str] = field(default_factory=list)
    growth: str = ""
    seconds: float = 0.0
    victim: float = 0.0
    slow: bool = False

    @property
    def blocked(self) -> bool:
        """True if the attack came to nothing."""
        return not (self.missed or self.crash or self.wrong or self.leaks or self.growth)

    @property
    def why(self) -> str:
        """What is wrong, in words."""
        return "; ".join(
            part for part in (self.missed, self.crash, self.wrong, *self.leaks, self.growth) if part
        )


class Oracle:
    """Checks of one service. `p99` is the victim's turn without an attack, in seconds."""

    def __init__(self, arena: Arena) -> None:
        self._arena = arena
        self._quiet: dict[str, int] = {}
        self._read = 0
        self.p99 = 0.0

    async def prepare(self, turns: int = QUIET_TURNS) -> None:
        """Look at the service while it is quiet."""
        arena = self._arena
        for _ in range(turns):
            assert not (wrong := await arena.victim.turn()), f"{wrong}: {arena.log()[-2000:]}"
        seconds = arena.victim.seconds[1:]
        self.p99 = max(seconds)  # of so few
        await arena.tidy()
        await arena.ask("reset")
        self._quiet = await arena.stats()

    async def judge(self, verdict: Verdict) -> None:
        """Fill in what holds after an attack."""
        arena = self._arena
        if not arena.alive:
            verdict.crash = f"the service has gone: {arena.log()[-500:]}"
            return
        try:
            await self._victim(verdict)
            await arena.tidy()
            await self._growth(verdict)
        except (OSError, TimeoutError) as error:
            verdict.crash = f"the service does not answer: {error!r}"
        verdict.leaks = [*self.leaks()]

    async def _victim(self, verdict: Verdict) -> None:
        victim = self._arena.victim
        verdict.wrong = await victim.served()
        verdict.victim = victim.seconds[-1]
        if not verdict.wrong and verdict.victim > 2 * self.p99:  # by chance?
            verdict.wrong = await victim.turn() or await victim.turn()
            verdict.victim = statistics.median(victim.seconds[-3:])
        verdict.slow = verdict.victim > 2 * self.p99

    async def _growth(self, verdict: Verdict) -> None:
        quiet = self._quiet

        def is_quiet(found: dict[str, int]) -> bool:
            return all(found[name] <= quiet[name] + more for name, more in SLACK.items())

        try:
            found = await self._arena.until(is_quiet, "it grew")
        except AssertionError as error:
            verdict.growth = f"{error}, was {quiet}"
            return
        more = found["resident"] - quiet["resident"]
        if more > RESIDENT:
            verdict.growth = f"resident memory grew by {more >> 20} MiB"

    def leaks(self) -> Iterator[str]:
        """Look for what must not be where it is; each is found once."""
        arena, victim = self._arena, self._arena.victim
        private = {text.encode() for text in (*victim.secrets, *victim.answers)}
        callers = [caller for caller in arena.callers if caller is not victim.caller]
        heard = b"\n".join(part for caller in callers for part in caller.heard)
        arena.callers[:] = [victim.caller, arena.attacker, arena.stranger]
        if holds(heard, {*private, *(name.encode() for name in victim.names)}):
            yield "another caller's answer holds what is the victim's"
        told = {"the log": self._new_log(), "a metric": arena.metrics().encode()}
        told["a span"] = b"\n".join(arena.collector.bodies)
        arena.collector.bodies.clear()
        for where, data in told.items():
            if holds(data, private):
                yield f"{where} holds a secret of the victim's"
        if holds(arena.stored(), {text.encode() for text in victim.secrets}):
            yield "the store holds a secret of the victim's"

    def _new_log(self) -> bytes:
        with (self._arena.directory / "log").open("rb") as log:
            log.seek(self._read)
            data = log.read()
        self._read += len(data)
        return data


def holds(data: bytes, texts: set[bytes]) -> bool:
    """Return True if one of the texts is in the data; of canaries there may be thousands."""
    canaries = {text for text in texts if CANARY.fullmatch(text)}
    return bool(canaries & {*CANARY.findall(data)}) or any(t in data for t in texts - canaries)
