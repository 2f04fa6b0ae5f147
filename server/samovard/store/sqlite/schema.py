"""The tables of a store as its file lists them, so that none can be forgotten.

Knows SQLite's catalogue. Knows nothing of the tables' content.
"""

import sqlite3
from collections.abc import Mapping

TENANT = "tenant"  # the column of every table that holds tenants' data


def tables(store: sqlite3.Connection) -> Mapping[str, list[str]]:
    """Return the columns of each table, by its name."""
    query = "SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite\\_%' "
    names = [row[0] for row in store.execute(query + "ESCAPE '\\' ORDER BY name")]
    return {name: _columns(store, name) for name in names}


def of_tenants(store: sqlite3.Connection) -> Mapping[str, list[str]]:
    """Return the columns of each table that has tenants' rows."""
    return {name: columns for name, columns in tables(store).items() if TENANT in columns}


def counts(store: sqlite3.Connection) -> dict[str, int]:
    """Return the number of rows of each table."""
    query = "SELECT count(*) FROM {}"
    return {name: store.execute(query.format(quoted(name))).fetchone()[0] for name in tables(store)}


def quoted(name: str) -> str:
    """Return a name of the catalogue as SQL has it."""
    return '"' + name.replace('"', '""') + '"'


def _columns(store: sqlite3.Connection, table: str) -> list[str]:
    rows = store.execute("SELECT name FROM pragma_table_info(?) ORDER BY cid", (table,))
    return [row[0] for row in rows]
