"""Sessions as lines for a pipe, and as fields and tables for a person.

Knows the client's values. Rich is imported only where a table is asked for.
"""

from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from samovar.turns import Session
from samovar.words import clean_line

if TYPE_CHECKING:
    from rich.table import Table


def line(session: Session) -> str:
    """Return name, state, turns, cost in USD, profile, model and last use, separated by tabs."""
    used = datetime.fromtimestamp(session.update_time, UTC).isoformat(timespec="seconds")
    cells = [session.session_id, session.state, str(session.turn_count)]
    cells += [f"{session.usage.cost_usd:.4f}", session.profile, session.model, used]
    return "\t".join(cells)


def fields(session: Session) -> Iterator[str]:
    """Yield a session as lines of a name and a value; unset values are left out."""
    usage = session.usage
    named = {
        "session": session.session_id,
        "state": session.state,
        "turn": session.active_turn_id,
        "profile": session.profile,
        "model": session.model,
        "turns": str(session.turn_count),
        "tokens": f"{usage.input_tokens} in, {usage.output_tokens} out",
        "cached": f"{usage.cache_read_input_tokens} read, "
        f"{usage.cache_creation_input_tokens} written",
        "cost": f"{usage.cost_usd:.4f} USD",
        "created": _when(session.create_time),
        "used": _when(session.update_time),
        "expires": _when(session.expire_time),
    }
    width = max(map(len, named))
    return (f"{name:{width}}  {value}" for name, value in named.items() if value)


def table(sessions: Iterable[Session], current: str = "") -> "Table":
    """Return a table with a header; the session `current` is marked."""
    from rich.table import Table
    from rich.text import Text

    made = Table(box=None, header_style="bold", pad_edge=False, padding=(0, 2, 0, 0))
    made.add_column("SESSION", overflow="fold")
    made.add_column("STATE", no_wrap=True)
    made.add_column("TURNS", justify="right", no_wrap=True)
    made.add_column("USD", justify="right", no_wrap=True)
    made.add_column("PROFILE", overflow="fold")
    made.add_column("MODEL", overflow="fold")
    made.add_column("USED", no_wrap=True)
    for session in sessions:
        mark = " *" if session.session_id == current else ""
        cells = (
            f"{session.session_id}{mark}",
            session.state,
            str(session.turn_count),
            f"{session.usage.cost_usd:.4f}",
            session.profile,
            session.model,
            _when(session.update_time),
        )
        # As `Text`: a string would be read as markup.
        made.add_row(*(Text(clean_line(cell)) for cell in cells))
    return made


def _when(time: float) -> str:
    """Return a time in the machine's time zone; empty if it is not set."""
    if not time:
        return ""
    return datetime.fromtimestamp(time).astimezone().isoformat(" ", "minutes")[:16]
