"""Draw a snapshot for a person, in the width and height that there are.

Knows Rich, which the extra `top` installs.
"""

from collections.abc import Sequence
from typing import NamedTuple

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from samovar.pools import PoolInfo, PoolSnapshot, ProcessInfo
from samovar.top.figures import Change, mean, size, span, took
from samovar.words import clean_line

STATES = {
    "starting": "cyan",
    "leased": "green",
    "idle": "dim",
    "settling": "yellow",
    "stopping": "magenta",
    "quarantined": "bold red",
}
LONG_WAIT = 5.0  # seconds; longer waits are shown in red
FRAME = 10  # lines of the head, of the stages and around the rows
GAP = 2


class Column(NamedTuple):
    """A column: those of the highest `rank` are left out first if there is no room; 0 means
    never.
    """

    name: str
    rank: int = 0
    right: bool = True


POOLS = (
    Column("TENANT", right=False),
    Column("PROFILE", right=False),
    Column("LEASED"),
    Column("IDLE"),
    Column("START", 5),
    Column("OTHER", 8),
    Column("WAITING"),
    Column("LONGEST"),
    Column("SUSPENDED", 9),
    Column("MEMORY", 2),
    Column("TURNS", 4),
    Column("PER S", 3),
    Column("WARM", 6),
    Column("TURN", 1),
    Column("WAIT", 3),
    Column("SPAWN", 7),
    Column("REFUSED", 5),
    Column("LOST", 5),
)
PROCESSES = (
    Column("PROCESS", 3, right=False),
    Column("PID"),
    Column("TENANT", right=False),
    Column("PROFILE", 2, right=False),
    Column("SESSION", right=False),
    Column("STATE", right=False),
    Column("FOR"),
    Column("TURNS", 1),
    Column("MEMORY"),
    Column("AGE", 1),
)


def draw(
    snapshot: PoolSnapshot,
    change: Change,
    width: int,
    height: int | None = None,
    chosen: str = "",
) -> Group:
    """Return server, stages, pools and processes within so many columns and lines.

    The row of the process with the id `chosen` is marked, and shown if there are too many.
    """
    pools, processes = len(snapshot.pools), len(snapshot.processes)
    if height is not None:
        room = max(height - FRAME, 2)
        pools = min(pools, max(room - processes, room // 3, 1))
        processes = min(processes, max(room - pools, 1))
    return Group(
        _head(snapshot),
        "",
        _stages(change, width),
        "",
        _table(POOLS, [_pool(pool, change) for pool in snapshot.pools[:pools]], width),
        *_more(len(snapshot.pools) - pools),
        "",
        _table(
            PROCESSES,
            [
                _marked(_process(process, snapshot.time), process.process_id == chosen)
                for process in _around(snapshot.processes, chosen, processes)
            ],
            width,
        ),
        *_more(len(snapshot.processes) - processes),
    )


def _head(snapshot: PoolSnapshot) -> Text:
    """Return a line with the server's identity and how full it is."""
    server = snapshot.server
    waiting = sum(pool.turns_waiting for pool in snapshot.pools)
    longest = max((pool.max_wait for pool in snapshot.pools), default=0.0)
    line = Text(no_wrap=True, overflow="ellipsis")
    line.append(f"processes {server.processes}/{server.max_processes}", "bold")
    line.append(f"  memory {size(server.resident_bytes)}")
    line.append(f"  waiting {waiting}", _alarm(longest) if waiting else "")
    if waiting:
        line.append(f", longest {span(longest)}", _alarm(longest))
    if server.draining:
        line.append("  draining", "bold yellow")
    if paused := sorted({pool.tenant_id for pool in snapshot.pools if pool.paused}):
        line.append("  paused " + clean_line(", ".join(paused)), "bold yellow")
    line.append(f"  up {span(snapshot.time - server.start_time)}")
    versions = f"samovard {server.server_version}, claude {server.agent_version or '?'}"
    line.append("  " + clean_line(f"{versions}, isolation {server.isolation}"))
    return line


def _alarm(wait: float) -> str:
    return "bold red" if wait >= LONG_WAIT else "yellow"


def _stages(change: Change, width: int) -> Table:
    """Return how long finished turns took on average, stage by stage."""
    stages = change.times.stage_times
    since = "since the start" if change.since_start else f"last {span(change.seconds)}"
    columns = [Column("MEAN", right=False), *(Column(stage.stage) for stage in stages)]
    means = [Text(span(mean(stage.time, stage.turns))) for stage in stages]
    row = [Text(since), *means, Text(span(took(stages)))]
    return _table([*columns, Column("turn")], [row], width)


def _table(columns: Sequence[Column], rows: Sequence[Sequence[Text]], width: int) -> Table:
    """Return a table of the columns that have room."""
    widths = [
        max(len(column.name), *(row[at].cell_len for row in rows), 0) + GAP
        for at, column in enumerate(columns)
    ]
    shown = set(range(len(columns)))
    for at in sorted(shown, key=lambda at: -columns[at].rank):
        if columns[at].rank and sum(widths[other] for other in shown) - GAP > width:
            shown.remove(at)
    table = Table(box=None, header_style="bold", pad_edge=False, padding=(0, GAP, 0, 0))
    for at in sorted(shown):
        column = columns[at]
        table.add_column(column.name, justify="right" if column.right else "left", no_wrap=True)
    for row in rows:
        table.add_row(*(row[at] for at in sorted(shown)))
    return table


def _pool(pool: PoolInfo, change: Change) -> list[Text]:
    now, counters = change.of(pool), pool.counters
    times, old = change.times_of(pool)
    faded = "dim" if old else ""
    other = pool.processes_settling + pool.processes_stopping + pool.processes_quarantined
    warm = mean(100.0 * times.turns_warm, times.turns)
    alarm = _alarm(pool.max_wait) if pool.turns_waiting else ""
    return [
        _name(pool.tenant_id),
        _name(pool.profile),
        Text(str(pool.processes_leased)),
        Text(str(pool.processes_idle + pool.processes_spare)),
        Text(str(pool.processes_starting)),
        Text(str(other), "bold red" if pool.processes_quarantined else ""),
        Text(str(pool.turns_waiting), alarm),
        Text(span(pool.max_wait) if pool.turns_waiting else "-", alarm),
        Text(str(pool.sessions_suspended)),
        Text(size(pool.resident_bytes)),
        Text(str(counters.turns)),
        Text(f"{now.turns / change.seconds:.1f}"),
        Text("-" if warm is None else f"{warm:.0f} %", faded),
        Text(span(took(times.stage_times)), faded),
        Text(span(mean(times.wait_time, times.turns_queued)), faded),
        Text(span(mean(times.start_time, times.processes_started)), faded),
        Text(str(counters.turns_refused), "red" if now.turns_refused else ""),
        Text(str(counters.turns_lost), "red" if now.turns_lost else ""),
    ]


def _process(process: ProcessInfo, now: float) -> list[Text]:
    return [
        _name(process.process_id[:8]),
        Text(str(process.pid or "-")),
        _name(process.tenant_id),
        _name(process.profile),
        _name(process.session_id),
        Text(process.state, STATES.get(process.state, "")),
        Text(span(max(now - process.update_time, 0.0))),
        Text(str(process.turn_count)),
        Text(size(process.resident_bytes)),
        Text(span(max(now - process.create_time, 0.0))),
    ]


def _around(rows: Sequence[ProcessInfo], chosen: str, most: int) -> Sequence[ProcessInfo]:
    """Return as many rows as have room, the chosen one among them."""
    at = next((at for at, row in enumerate(rows) if row.process_id == chosen), 0)
    first = max(at - most + 1, 0)
    return rows[first : first + most]


def _marked(row: list[Text], chosen: bool) -> list[Text]:
    for text in row if chosen else ():
        text.stylize("reverse")
    return row


def _name(name: str) -> Text:
    return Text(clean_line(name))


def _more(count: int) -> list[RenderableType]:
    return [Text(f"and {count} more", "dim")] if count > 0 else []
