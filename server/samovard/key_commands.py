"""`samovard keys`: the API keys of tenants, in the store.

Knows the command line and the store; a running service reads the store by itself.
"""

import json
import time
from pathlib import Path
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
    tell,
    time_of,
)
from samovard.settings import Settings

if TYPE_CHECKING:
    from samovard.store.keys import KeyRecord
    from samovard.store.sqlite.database import Database

MOST_DAYS = 36_500

keys = typer.Typer(help="The API keys of tenants.", no_args_is_help=True, rich_markup_mode=None)


def _days(value: float | None) -> float | None:
    if value is not None and not 0 < value <= MOST_DAYS:
        raise typer.BadParameter(f"{value} is not a number of days up to {MOST_DAYS}")
    return value


@keys.command("add")
def add_key(
    tenant: Tenant,
    expires_in: Annotated[
        float | None, typer.Option(callback=_days, help="Days until it expires.")
    ] = None,
    admin: Annotated[
        bool, typer.Option("--admin", help="For an operator: sees all tenants, has no sessions.")
    ] = False,
    config: Config = None,
) -> None:
    """Make a key for a tenant, or an operator, and print it: it is shown this once only."""
    settings = settings_of(config)
    from samovard.edge.identity import ADMIN_SCOPES, SESSION_SCOPES, new_key
    from samovard.secret import pepper
    from samovard.store.keys import KeyStore

    check_tenant(tenant)
    now = time.time()
    ends = None if expires_in is None else now + expires_in * 86400.0
    scopes = ADMIN_SCOPES if admin else SESSION_SCOPES

    async def add(database: "Database") -> str:
        text, record = new_key(tenant, pepper(settings), now, ends, scopes)
        audit(settings, "keys.add", tenant=tenant, credential=record.id, scopes=sorted(scopes))
        await KeyStore(database).add(record)
        return text

    print(stored(settings, add))


@keys.command("rotate")
def rotate_key(
    key: Annotated[str, typer.Argument(metavar="ID", help="The id of the key to replace.")],
    overlap: Annotated[
        str, typer.Option(help='How long the old one may still be used: "1 h", 0 for not at all.')
    ] = "1 h",
    config: Config = None,
) -> None:
    """Make a key in place of another, which expires after the overlap, and print it.

    It has the old one's tenant and scopes, and as long a life.
    """
    settings = settings_of(config)
    from samovard.edge.identity import new_key
    from samovard.secret import pepper
    from samovard.store.keys import KeyStore

    now, beside = time.time(), _overlap(overlap)

    async def rotate(database: "Database") -> "tuple[str, KeyRecord] | None":
        store = KeyStore(database)
        old = await store.get(key) if key.isascii() else None
        if old is None or not old.valid(now):
            return None
        ends = old.expire_time and now + old.expire_time - old.create_time
        text, record = new_key(old.tenant, pepper(settings), now, ends, old.scopes)
        scopes = sorted(old.scopes)
        audit(settings, "keys.rotate", tenant=old.tenant, credential=record.id, scopes=scopes)
        replaced = await store.replace(old.id, record, now + beside)
        return (text, replaced) if replaced is not None else None

    found = stored(settings, rotate)
    if found is None:
        fail("there is no such key that is valid", 1)
    text, old = found
    tell(f"samovard: {old.id} of {old.tenant} expires at {time_of(old.expire_time)}")
    print(text)


def _overlap(text: str) -> float:
    from pydantic import TypeAdapter, ValidationError

    from samovard.quantities import Duration

    try:
        seconds: float = TypeAdapter(Duration).validate_python(text)
    except ValidationError:
        fail(f'{text} is not a duration such as "1 h"', 2)
    if seconds > MOST_DAYS * 86400.0:
        fail(f"{text} is more than {MOST_DAYS} days", 2)
    return seconds


@keys.command("list")
def list_keys(
    tenant: Annotated[str | None, typer.Argument(help="Only this tenant's.")] = None,
    as_json: AsJson = False,
    config: Config = None,
) -> None:
    """List keys: what they are, never their secrets."""
    check_tenant(tenant)
    rows = [_row(key, time.time()) for key in _all(settings_of(config), tenant)]
    if as_json:
        for row in rows:
            print(json.dumps(row))
        return
    listing.show(
        ("ID", "TENANT", "STATE", "CREATED", "EXPIRES", "SCOPES"),
        [
            [" ".join(v) if isinstance(v, list) else v or "never" for v in row.values()]
            for row in rows
        ],
    )


def _all(settings: Settings, tenant: str | None = None) -> "list[KeyRecord]":
    from samovard.store.keys import KeyStore

    found: list[KeyRecord] = stored(settings, lambda database: KeyStore(database).list(tenant))
    return found


def _row(key: "KeyRecord", now: float) -> dict[str, Any]:
    """Return a key as JSON has it, without its secret."""
    return {
        "id": key.id,
        "tenant": key.tenant,
        "state": "valid" if key.valid(now) else "revoked" if key.revoke_time else "expired",
        "create_time": time_of(key.create_time),
        "expire_time": time_of(key.expire_time),
        "scopes": sorted(key.scopes),
    }


@keys.command("export")
def export_keys(config: Config = None) -> None:
    """Print every key, without its secret, for `samovard serve --keys` elsewhere.

    Such a server needs the same pepper (auth.api_key.pepper).
    """
    from samovard.store import key_file

    print(key_file.text(_all(settings_of(config))), end="")


@keys.command("revoke")
def revoke_key(
    tenant: Tenant,
    key: Annotated[str | None, typer.Option(help="The id of one key; all without it.")] = None,
    config: Config = None,
) -> None:
    """Revoke a tenant's keys; running services stop their calls and turns within 5 s."""
    check_tenant(tenant)
    if key is not None and not key.isascii():
        fail("there is no such key", 1)
    settings = settings_of(config)
    audit(settings, "keys.revoke", tenant=tenant, credential=key or "")
    from samovard.store.keys import KeyStore

    now = time.time()
    count = stored(settings, lambda database: KeyStore(database).revoke(tenant, key, now))
    if not count:
        fail("there is no such key", 1)
    print(f"revoked {count}")


def take(settings: Settings, path: Path) -> None:
    """Store the keys of a file of `keys export`. Exit with 2 and the place of an error in it."""
    from samovard.store import key_file
    from samovard.store.keys import KeyStore

    try:
        told = key_file.read(path)
    except key_file.NotKeys as error:
        fail(str(error), 2)
    audit(settings, "keys.take", count=len(told))
    stored(settings, lambda database: KeyStore(database).take(told))
