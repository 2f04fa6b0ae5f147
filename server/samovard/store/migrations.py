"""Brings a store to the schema of this version, one step after the other.

A step is never changed once it is released; a new one is added behind it. Knows nothing
of what the tables hold.
"""

from collections.abc import Callable

from sqlalchemy import Connection, text

from samovard.store.tables import metadata


class SchemaTooNew(Exception):
    """The store was written by a later version."""


def _first(connection: Connection) -> None:
    metadata.create_all(connection)


STEPS: tuple[Callable[[Connection], None], ...] = (_first,)


def migrate(connection: Connection) -> None:
    """Does the steps that are still to do, within the caller's transaction.

    Raises `SchemaTooNew` if there were more steps than this version has.
    """
    connection.execute(text("CREATE TABLE IF NOT EXISTS schema_version (version INTEGER)"))
    version = connection.execute(text("SELECT max(version) FROM schema_version")).scalar() or 0
    if version > len(STEPS):
        raise SchemaTooNew(f"the store has schema {version}, this version knows {len(STEPS)}")
    for number, step in enumerate(STEPS[version:], version + 1):
        step(connection)
        connection.execute(text("INSERT INTO schema_version VALUES (:n)"), {"n": number})
