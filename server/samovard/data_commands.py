"""`samovard tenants export`: takes a tenant's data out of the service.

Knows the command line only.
"""

import json
from pathlib import Path
from typing import Annotated

import typer

from samovard.commandline import (
    AsJson,
    Config,
    Tenant,
    check_tenant,
    fail,
    progress,
    settings_of,
    store_path,
)

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
    from samovard import tenant_export
    from samovard.agent import root
    from samovard.agent.home import Homes
    from samovard.core.errors import SamovarError
    from samovard.store.backup import NotAStore

    try:
        with Homes(root.found(settings)) as homes, progress("exporting") as shown:
            made = tenant_export.export(tenant, store_path(settings), homes, to, shown)
    except tenant_export.Nothing:
        fail(f"the store has nothing of {tenant}", 1)
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
        print(f"left out {json.dumps(path)}: no plain file of at most 1 GiB")
