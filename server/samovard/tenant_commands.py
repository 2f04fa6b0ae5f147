"""`samovard tenants`: which tenants may call at all, in the store.

Knows the command line and the store; a running service reads changes from the store by itself.
"""

import json
import time
from typing import TYPE_CHECKING, Annotated, Any

import typer

from samovard import listing
from samovard.commandline import (
    AsJson,
    Config,
    Tenant,
    audit,
    check_tenant,
    fail,
    settings_of,
    stored,
    time_of,
)
from samovard.data_commands import tenants

if TYPE_CHECKING:
    from pathlib import Path

    from samovard.store.tenants import TenantRecord

__all__ = ["tenants"]  # with the commands of both files

MAX_NOTE = 500

Note = Annotated[str | None, typer.Option(help="Why, for operators; kept until there is another.")]


@tenants.command("list")
def list_tenants(as_json: AsJson = False, config: Config = None) -> None:
    """List every tenant that was named here or has a key or a session."""
    _show(_known(config), as_json=as_json)


@tenants.command("show")
def show_tenant(tenant: Tenant, as_json: AsJson = False, config: Config = None) -> None:
    """Show one tenant. Exits with 1 if nothing is known of it: it may call all the same."""
    check_tenant(tenant)
    found = _known(config, tenant)
    if not found:
        fail(f"nothing is known of {tenant}", 1)
    _show(found, as_json=as_json)


@tenants.command("enable")
def enable_tenant(tenant: Tenant, note: Note = None, config: Config = None) -> None:
    """Let a tenant call again; running services notice within 5 s."""
    _set(tenant, note, config, enabled=True)


@tenants.command("disable")
def disable_tenant(tenant: Tenant, note: Note = None, config: Config = None) -> None:
    """Refuse all calls of a tenant; running services stop its calls and turns within 5 s.

    Its keys, sessions and processes stay as they are.
    """
    _set(tenant, note, config, enabled=False)


def _set(tenant: str, note: str | None, config: "Path | None", *, enabled: bool) -> None:
    check_tenant(tenant)
    if note is not None and (len(note) > MAX_NOTE or not note.isprintable()):
        fail(f"a note is one line of at most {MAX_NOTE} characters", 2)
    settings = settings_of(config)
    audit(settings, "tenants.enable" if enabled else "tenants.disable", tenant=tenant)
    from samovard.store.tenants import TenantStore

    now = time.time()
    stored(
        settings,
        lambda database: TenantStore(database).put(tenant, now, enabled=enabled, note=note),
    )
    print(f"{'enabled' if enabled else 'disabled'} {tenant}")


def _known(config: "Path | None", tenant: str | None = None) -> "list[TenantRecord]":
    settings = settings_of(config)
    from samovard.store.tenants import TenantStore

    now = time.time()
    found: list[TenantRecord] = stored(
        settings, lambda database: TenantStore(database).list(now, tenant)
    )
    return found


def _show(found: "list[TenantRecord]", *, as_json: bool) -> None:
    rows = [_row(tenant) for tenant in found]
    if as_json:
        for row in rows:
            print(json.dumps(row))
        return
    listing.show(
        ("TENANT", "STATE", "CREATED", "KEYS", "SESSIONS", "NOTE"),
        [["-" if value in (None, "") else str(value) for value in row.values()] for row in rows],
    )


def _row(tenant: "TenantRecord") -> dict[str, Any]:
    """Return a tenant as JSON has it; `keys` is the number of valid ones."""
    return {
        "tenant": tenant.name,
        "state": "enabled" if tenant.enabled else "disabled",
        "create_time": time_of(tenant.create_time),
        "keys": tenant.keys,
        "sessions": tenant.sessions,
        "note": tenant.note,
    }
