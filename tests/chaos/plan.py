"""What happens to each turn, drawn by a seed and its number, independent of what happens before."""

import enum
from dataclasses import dataclass
from random import Random

import fake_claude
from fake_claude import verbs as v

KILL_EVERY = 7  # turns
#: The share of turns of each fate; what is left goes through.
SHARES = {"cancelled": 0.10, "slow": 0.05, "stopped": 0.02, "junk": 0.02, "unstarted": 0.01}
JUNK = (v.bad_utf8(), v.partial_line("exit"), v.noise(3), v.double_result(), v.no_newline())
PIECES = (1, 5, 20)


class Fate(enum.Enum):
    """What a turn goes through."""

    PLAIN = "plain"
    CANCELLED = "cancelled"  # its caller leaves
    SLOW = "slow"  # its caller reads slowly
    STOPPED = "stopped"  # its process gets SIGSTOP
    JUNK = "junk"  # its process writes what is no line of its protocol
    UNSTARTED = "unstarted"  # some process does not start


@dataclass(frozen=True, slots=True)
class Plan:
    """One turn: whose it is, what is sent and what it is answered with, whole."""

    number: int
    tenant: str
    session: str
    fate: Fate
    prompt: str
    said: str
    leaves_after: int  # events, after which a caller that leaves does


def drawn(seed: int, number: int, tenants: int, sessions: int) -> Plan:
    """Draw a turn of one of so many sessions of so many tenants."""
    draw = Random(f"{seed} {number}")
    which = draw.randrange(sessions)
    fate = _fate(draw)
    canary, pieces = f"<{number}>", draw.choice(PIECES)
    steps = [v.drip(pieces, draw.choice((0, 2)), size=0, prefix=canary)]
    if draw.random() < 0.3:
        steps.append(v.late_end(draw.choice((5, 20))))
    if fate is Fate.STOPPED:
        steps.append(v.stop())
    elif fate is Fate.JUNK:
        steps.append(draw.choice(JUNK))
    return Plan(
        number,
        f"tenant-{which % tenants}",
        f"session-{which // tenants}",
        fate,
        fake_claude.fake(*steps),
        "".join(f"{canary}{piece}" for piece in range(pieces)),
        draw.randrange(1, 4),
    )


def _fate(draw: Random) -> Fate:
    place = draw.random()
    for name, share in SHARES.items():
        if place < share:
            return Fate(name)
        place -= share
    return Fate.PLAIN
