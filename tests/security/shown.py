"""A run for people, as a table, and for machines, as one line of JSON."""

import json
from collections import Counter
from collections.abc import Sequence

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from security.run import Tally, Tried

LEAST = 60  # distinct attacks of a whole run
NOTICED = 25  # of them, that fail without their control
#: What must not happen at all, by the field of a verdict.
NEVER = {
    "not_blocked": "missed",
    "crashes": "crash",
    "wrong_answers": "wrong",
    "leaks": "leaks",
    "growth": "growth",
}


def show(tally: Tally, console: Console) -> None:
    """Show each attack: where, against what, and how it ended."""
    table = Table("attack", "on", "control", "", "s")
    for one in tally.tried:
        word, style = _outcome(one)
        table.add_row(
            f"{one.attack.surface}: {one.attack.name}",
            one.kind,
            one.attack.control,
            f"[{style}]{word}[/]",
            f"{one.verdict.seconds:.1f}",
        )
    console.print(table)
    for one in tally.tried:
        if _outcome(one)[1] == "red":
            where = f"{one.attack.name} ({one.kind})"
            said = one.verdict.why or "was not noticed to be gone"
            console.print(f"[red]{escape(where)}[/]: {escape(said)}", highlight=False)


def _outcome(one: Tried) -> tuple[str, str]:
    """Return a word for how an attack ended, and its colour."""
    if one.without:
        return ("unnoticed", "red") if one.verdict.blocked else ("noticed", "green")
    return ("blocked", "green") if one.verdict.blocked else ("BROKEN", "red")


def passed(tally: Tally) -> bool:
    """True if every attack was blocked, and each that lacked its control was not."""
    return all(_outcome(one)[1] == "green" for one in tally.tried)


def report(tally: Tally, *, whole: bool, without: bool) -> str:
    """Return everything as one line of JSON, each count beside its bound."""
    with_all = [one for one in tally.tried if not one.without]
    lacking = [one for one in tally.tried if one.without]
    blocked = {one.attack.name for one in with_all} - {
        one.attack.name for one in with_all if not one.verdict.blocked
    }
    tried = {one.attack.name for one in with_all}
    told: dict[str, object] = {
        "attacks": {"value": len(tried)} | ({"at_least": LEAST} if whole else {}),
        "blocked": {"value": len(blocked), "at_least": len(tried)},
        "runs": len(with_all),
    }
    for name, field in NEVER.items():
        count = sum(bool(getattr(one.verdict, field)) for one in with_all)
        told[name] = {"value": count, "at_most": 0}
    if without:
        noticed = sum(not one.verdict.blocked for one in lacking)
        least = {"at_least": NOTICED} if whole else {}
        told |= {"controls_taken_out": len(lacking), "noticed": {"value": noticed} | least}
        told["unnoticed"] = {"value": len(lacking) - noticed, "at_most": 0}
    told["surfaces"] = dict(Counter(one.attack.surface for one in _once(with_all)))
    told["victim"] = _victim(tally, with_all)
    told["uid"] = tally.user
    return json.dumps(told | {"passed": passed(tally)})


def _once(tried: Sequence[Tried]) -> list[Tried]:
    return list({one.attack.name: one for one in tried}.values())


def _victim(tally: Tally, tried: Sequence[Tried]) -> dict[str, object]:
    """Return the victim's speed after attacks, which decides nothing."""
    return {
        "quiet_p99_ms": {kind: round(1000 * p99, 1) for kind, p99 in tally.p99.items()},
        "slowest_ms": round(1000 * max((one.verdict.victim for one in tried), default=0.0), 1),
        "slower_than_twice": sum(one.verdict.slow for one in tried),
    }
