"""`samovard tenants export` and `delete`: take a tenant's data out of the service.

Parses the command line; the work is done in `tenant_export` and `tenant_deletion`.
"""

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from samovard.commandline import (
    AsJson,
    Config,
    Tenant,
    audit,
    check_tenant,
    fail,
    progress,
    run,
    settings_of,
    store_path,
)
from samovard.settings import Settings

if TYPE_CHECKING:
    from samovard.tenant_deletion import Deletion

tenants = typer.Typer(help="Tenants and their data.", no_args_is_help=True, rich_markup_mode=None)


@tenants.command("export")
def export_tenant(
    tenant: Tenant,
    to: Annotated[
        Path,
        typer.Option(metavar="FILE", help="A new .tar.gz, or else a new directory."),
    ],
    as_json: AsJson = False,
    config: Config = None,
) -> None:
    """Write a tenant's sessions, turns, usage and transcripts into new files.

    The service may run on. There is no secret in them, and they are readable by their owner only.
    """
    check_tenant(tenant)
    settings = settings_of(config)
    audit(settings, "tenants.export", tenant=tenant)
    from samovard import tenant_export
    from samovard.agent import root
    from samovard.agent.home import Homes
    from samovard.core.errors import SamovarError
    from samovard.store.sqlite.backup import NotAStore

    try:
        with Homes(root.found(settings)) as homes, progress("exporting") as shown:
            made = tenant_export.export(tenant, store_path(settings), homes, to, shown)
    except tenant_export.Nothing:
        fail(f"the store has no data of {tenant}", 1)
    except FileExistsError:
        fail(f"{to} exists: name a new file", 1)
    except (SamovarError, NotAStore) as error:
        fail(str(error), 1)
    files = made.pop("files")
    if as_json:
        print(json.dumps({"file": str(to)} | made | {"files": len(files)}))
        return
    rows, transcripts = made["rows"], sum("/" in file["path"] for file in files)
    said = f"{rows['session']} sessions, {rows['turn']} turns, {transcripts} transcripts"
    print(f"exported {said} of {tenant} to {to}")
    for path in made["left_out"]:
        print(f"left out {json.dumps(path)}: not a plain file of at most 1 GiB")


@tenants.command("delete")
def delete_tenant(
    tenant: Tenant,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask for confirmation.")] = False,
    as_json: AsJson = False,
    config: Config = None,
) -> None:
    """Delete all that is kept of a tenant: sessions, transcripts, directories, turns, keys.

    A running service ends its turns and processes first, and refuses its calls meanwhile. What is
    cut off is finished by the same command. Ends with what was removed, and exits with 1 if
    anything is left.
    """
    check_tenant(tenant)
    settings = settings_of(config)
    path = store_path(settings)
    if not path.exists():
        fail(f"{path} does not exist: name the settings of the service with --config", 1)
    if not yes:
        _ask(tenant)
    audit(settings, "tenants.delete", tenant=tenant)
    done, left, named = run(_deleted(tenant, settings, path))
    removed = {"rows": done.rows, "directories": done.directories}
    removed |= {"files": done.files, "bytes": done.bytes}
    if as_json:
        told = {"tenant": tenant, "removed": removed, "left": left, "named": named}
        print(json.dumps(told))
    else:
        rows = ", ".join(f"{count} {table}" for table, count in sorted(done.rows.items()))
        print(f"deleted {tenant}: {rows}")
        print(f"directories: {done.directories}, files: {done.files}, bytes: {done.bytes:,}")
        print(f"left: {', '.join(f'{count} {what}' for what, count in sorted(left.items()))}")
        for file in named:
            print(f"{file} is named after the tenant: remove it yourself")
    raise typer.Exit(1 if any(left.values()) else 0)


def _ask(tenant: str) -> None:
    if not sys.stdin.isatty():
        fail("there is no terminal to confirm on: pass --yes", 2)
    if not typer.confirm(f"Delete all data of {tenant} for good?"):
        raise typer.Exit(1)


async def _deleted(
    tenant: str, settings: Settings, path: Path
) -> "tuple[Deletion, dict[str, int], list[str]]":
    from samovard.agent import root
    from samovard.agent.home import Homes
    from samovard.state_lock import CannotStart
    from samovard.tenant_deletion import Deletion, NotEnded

    with Homes(root.found(settings)) as homes:
        deletion = Deletion(tenant, settings, path, homes)
        try:
            await deletion.run()
        except NotEnded as error:
            raise CannotStart(str(error)) from error
        return deletion, deletion.left(), deletion.named()
