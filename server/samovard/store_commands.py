"""`samovard store`: copy the store while the service runs, and put a copy back.

Parses the command line; the work is done in `store.sqlite.backup`.
"""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from samovard.commandline import AsJson, Config, audit, fail, progress, settings_of, store_path

if TYPE_CHECKING:
    from samovard.store.sqlite import backup

store = typer.Typer(
    help="The store of sessions, turns and keys.", no_args_is_help=True, rich_markup_mode=None
)

File = Annotated[Path, typer.Argument(metavar="FILE", show_default=False)]


@store.command("backup")
def back_up(file: File, as_json: AsJson = False, config: Config = None) -> None:
    """Copy the store into a new FILE while the service runs; no turn waits for it.

    The copy is of one moment, checked, and readable by its owner only. Agents' transcripts are
    not in it: copy the sessions' directories after it.
    """
    settings = settings_of(config)
    audit(settings, "store.backup")
    from samovard.agent import root
    from samovard.store.sqlite import backup

    with _in_a_sentence(file), progress("copying") as shown:
        copy = backup.back_up(store_path(settings), file, shown)
    homes = root.found(settings)
    if as_json:
        told = {"file": str(file), "bytes": file.stat().st_size, "schema": copy.schema}
        print(json.dumps(told | {"rows": copy.rows, "homes": str(homes)}))
        return
    print(f"backed up {_spoken(copy)} in {file}, {file.stat().st_size:,} bytes")
    print(f"transcripts are in {homes}: copy them now")


@store.command("restore")
def restore(file: File, as_json: AsJson = False, config: Config = None) -> None:
    """Put a FILE of `store backup` into the place of the store, while the service is stopped.

    The store that was there is kept beside it, with the time in its name.
    """
    settings = settings_of(config)
    audit(settings, "store.restore")
    from samovard.agent import root
    from samovard.agent.home import Homes
    from samovard.core.errors import SamovarError
    from samovard.state_lock import CannotStart, state_directory
    from samovard.store.sqlite import backup

    path = store_path(settings)
    aside = path.with_name(f"{path.name}.before-{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}")
    try:
        with state_directory(settings.directory):
            had = path.exists()
            with _in_a_sentence(file), progress("restoring") as shown:
                copy = backup.restore(file, path, aside, shown)
            homes = root.settled(settings).root
            with Homes(homes) as kept:
                known = backup.resumable(path)
                lost = sum(not kept.has_transcript(*each) for each in known)
    except (CannotStart, SamovarError) as error:
        fail(str(error), 1)
    if as_json:
        told = {"file": str(file), "schema": copy.schema, "rows": copy.rows}
        before = str(aside) if had else None
        print(json.dumps(told | {"before": before, "homes": str(homes), "no_transcript": lost}))
        return
    print(f"restored {_spoken(copy)} from {file}")
    if had:
        print(f"the store before it is {aside}: delete it once nobody needs it")
    if lost:
        print(
            f"{lost} of {len(known)} sessions have no transcript in {homes}: put it back, or their "
            "next turns are TRANSCRIPT_LOST"
        )
    print("keys and tenants are as they were then: revoke, disable and delete again what was")


@contextmanager
def _in_a_sentence(file: Path) -> "Iterator[None]":
    from samovard.store.sqlite.backup import NotAStore

    try:
        yield
    except NotAStore as error:
        fail(str(error), 1)
    except FileExistsError:
        fail(f"{file} exists: name a new file", 1)


def _spoken(copy: "backup.Copy") -> str:
    words = {"session": "sessions", "turn": "turns", "api_key": "keys"}
    return ", ".join(f"{copy.rows.get(table, 0)} {word}" for table, word in words.items())
