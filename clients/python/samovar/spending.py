"""What `samovar usage` prints: what turns used, by day and model, and the sum.

Knows the client's values. Rich is imported only where a table is shown.
"""

import contextlib
import json
import sys
from collections.abc import Iterable, Sequence
from dataclasses import asdict, fields
from typing import Any

from samovar.events import Usage
from samovar.turns import DailyUsage
from samovar.words import clean_line

#: The name of each column, and whether it is a number.
COLUMNS = {
    "DAY": False,
    "MODEL": False,
    "TURNS": True,
    "LOST": True,
    "IN": True,
    "OUT": True,
    "CACHE READ": True,
    "CACHE WRITTEN": True,
    "USD": True,
}


def show(used: Sequence[DailyUsage], *, as_json: bool) -> None:
    """Print entries: a table with its sum on a terminal, else a line each."""
    if as_json:
        for entry in used:
            print(json.dumps(plain(entry)))
    elif not sys.stdout.isatty():
        for entry in used:
            print("\t".join(_cells(entry)))
    elif not used:
        print("nothing was used in these days")
    else:
        with contextlib.suppress(ImportError):
            _table(used)
            return
        for entry in used:
            print("  ".join(_cells(entry)))


def plain(entry: DailyUsage) -> dict[str, Any]:
    """Return an entry as JSON has it."""
    return asdict(entry) | {"day": entry.day.isoformat()}


def total(usages: Iterable[Usage]) -> Usage:
    """Return the sum of usages."""
    every = [*usages]
    return Usage(*(sum(getattr(usage, each.name) for usage in every) for each in fields(Usage)))


def _cells(entry: DailyUsage) -> list[str]:
    """Return the columns of an entry; what lost turns are thought to have used is counted in."""
    tenant = [clean_line(entry.tenant)] if entry.tenant else []
    usage = total((entry.usage, entry.lost_usage))
    model = clean_line(entry.model) or "-"
    return [*tenant, entry.day.isoformat(), model, *_numbers(entry.turns, entry.lost_turns, usage)]


def _numbers(turns: int, lost: int, usage: Usage) -> list[str]:
    counts = (
        turns,
        lost,
        usage.input_tokens,
        usage.output_tokens,
        usage.cache_read_input_tokens,
        usage.cache_creation_input_tokens,
    )
    return [*map(str, counts), f"{usage.cost_usd:.4f}"]


def _table(used: Sequence[DailyUsage]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, header_style="bold", pad_edge=False, padding=(0, 2, 0, 0))
    tenants = any(entry.tenant for entry in used)
    if tenants:
        table.add_column("TENANT", overflow="fold")
    for name, number in COLUMNS.items():
        table.add_column(name, justify="right" if number else "left", overflow="fold")
    for entry in used:
        # As `Text`: a string would be read as markup.
        table.add_row(*map(Text, _cells(entry)))
    turns, lost = sum(e.turns for e in used), sum(e.lost_turns for e in used)
    usage = total(usage for entry in used for usage in (entry.usage, entry.lost_usage))
    ends = [""] * (int(tenants) + 1)
    table.add_row(*ends, "total", *_numbers(turns, lost, usage), style="bold")
    Console().print(table)
