"""Run the checks of `samovard check`, and print the results.

Knows the words and tables for people, and the same for machines.
"""

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from samovard import listing
from samovard.agent import binary, boot, launch, process_tree, root
from samovard.agent.home import Homes
from samovard.agent.selftest.checks import Check
from samovard.settings import Settings
from samovard.settings.origin import Row


async def agent(settings: Settings) -> tuple[Path, str, list[Check]]:
    """Check every behaviour of the CLI that the service relies on, beside a running service.

    Return the CLI's path, its version and the checks. Raise `Misconfigured` (binary-missing).
    """
    found = binary.find(settings.agent.cli, os.environ.get("PATH", ""))
    how = launch.Delivery(settings.credentials.delivery)
    process_tree.become_subreaper()
    with root.temporary() as directory, Homes(directory) as homes:
        version, checks = await boot.examine(found, how, homes, directory)
    return found.path, version, checks


def passed(checks: list[Check]) -> bool:
    """True if the service would start."""
    return all(check.passed for check in checks if check.fatal)


def as_json(path: Path, version: str, checks: list[Check]) -> str:
    """Return the checks as one line of JSON."""
    rows: list[dict[str, Any]] = [
        {
            "check": check.name,
            "fatal": check.fatal,
            "passed": check.passed,
            "detail": check.detail,
        }
        for check in checks
    ]
    found = {"cli": str(path), "version": version, "checks": rows, "passed": passed(checks)}
    return json.dumps(found)


def show(console: Console, path: Path, version: str, checks: list[Check]) -> None:
    """Print the checks: a table on a terminal; in a pipe, a line for each with tabs."""
    title = f"claude {version or 'of an unknown version'}, {path}"
    rows = [(_word(check), check.name, check.detail) for check in checks]
    if not console.is_terminal:
        for row in [(title,), *rows]:
            print("\t".join(row).rstrip())
        return
    console.print(title, highlight=False, soft_wrap=True, markup=False)
    table = Table("", "behaviour", "seen instead")
    styles = {"ok": "green", "FAILED": "red", "missing": "yellow"}
    for word, *rest in rows:
        table.add_row(Text(word, styles[word]), *map(escape, rest))
    console.print(table)


def show_settings(rows: Iterable[Row], *, as_json: bool) -> None:
    """Print each setting, its value and where it comes from: a line for each, or one object."""
    if as_json:
        table = [{"name": row.name, "value": row.value, "source": row.source} for row in rows]
        print(json.dumps({"settings": table}))
        return
    lines = [(row.name, _written(row.value), row.source) for row in rows]
    listing.show(("SETTING", "VALUE", "FROM"), lines)


def _written(value: Any) -> str:
    """Return a value as TOML has it, or words that say that it is not set."""
    if value is None:
        return "unset"
    return value if value in ("set", "unset") else json.dumps(value, ensure_ascii=False)


def _word(check: Check) -> str:
    """Return a check's result in a word; the service can do without one that is merely missing."""
    if check.passed:
        return "ok"
    return "FAILED" if check.fatal else "missing"
