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
from samovard.agent.isolation import ladder
from samovard.agent.isolation.matrix import ROWS, Finding
from samovard.agent.isolation.probe import Target
from samovard.agent.isolation.walls import Mechanism
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


async def isolation() -> list[Finding]:
    """Try to get out of the walls of every rung, beside a running service."""
    process_tree.become_subreaper()
    process_tree.set_undumpable()
    with root.temporary() as directory, Homes(directory / "s") as homes:
        (directory / "samovar.db").write_text("a file of the service's own")
        return await ladder.tried(homes, Target(directory))


def usable(settings: Settings, findings: list[Finding]) -> Mechanism | None:
    """Return the rung that a start would take; None if it would be refused."""
    held = {found.mechanism for found in findings if not found.why}
    return next((rung for rung in ladder.accepted(settings) if rung in held), None)


def show_isolation(settings: Settings, findings: list[Finding], *, as_json: bool) -> None:
    """Print the matrix: a row for what was tried, a column for each rung."""
    taken = usable(settings, findings)
    if as_json:
        rungs = [
            {
                "mechanism": found.mechanism.value,
                "level": found.walls.level.value,
                "why_not": found.why,
                "rows": {row: found.word(row) for row in ROWS},
            }
            for found in findings
        ]
        needed = settings.required_isolation
        print(json.dumps({"rungs": rungs, "required": needed, "used": taken and taken.value}))
        return
    heads = [f"{found.mechanism.value} ({found.walls.level.value})" for found in findings]
    rows = [(row, *(found.word(row) for found in findings)) for row in ROWS]
    rows.append(("cannot be used", *(found.why for found in findings)))
    rows.append(("would be used", *("yes" if f.mechanism is taken else "" for f in findings)))
    listing.show(("AN AGENT TRIES", *heads), rows)


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
