"""Migrate a store to the schema of this version, one step after another.

A step is never changed once it is released; a new one is added after it. So steps are SQL of their
own and do not use `tables`, which describes the result of the last one. Knows nothing of what the
tables hold.
"""

from sqlalchemy import Connection, text

from samovard.core.errors import Misconfigured


class SchemaTooNew(Misconfigured):
    """Raised if the store was written by a later version."""


_FIRST = (
    """CREATE TABLE server (
        server_id VARCHAR NOT NULL,
        start_time FLOAT NOT NULL,
        PRIMARY KEY (server_id)
    )""",
    """CREATE TABLE session (
        tenant VARCHAR NOT NULL,
        session VARCHAR NOT NULL,
        spec BLOB NOT NULL,
        home VARCHAR NOT NULL,
        agent_session VARCHAR NOT NULL,
        usage BLOB NOT NULL,
        turn_count INTEGER NOT NULL,
        prompted BOOLEAN NOT NULL,
        finished BOOLEAN NOT NULL,
        blocked BOOLEAN NOT NULL,
        create_time FLOAT NOT NULL,
        update_time FLOAT NOT NULL,
        expire_time FLOAT NOT NULL,
        PRIMARY KEY (tenant, session)
    )""",
    "CREATE INDEX session_by_use ON session (tenant, update_time, session)",
    """CREATE TABLE turn (
        tenant VARCHAR NOT NULL,
        session VARCHAR NOT NULL,
        turn_id VARCHAR NOT NULL,
        digest BLOB NOT NULL,
        state VARCHAR NOT NULL,
        reason VARCHAR NOT NULL,
        cause VARCHAR NOT NULL,
        last_sequence INTEGER NOT NULL,
        report BLOB,
        PRIMARY KEY (tenant, session, turn_id),
        FOREIGN KEY (tenant, session) REFERENCES session (tenant, session) ON DELETE CASCADE
    )""",
    """CREATE TABLE process (
        process_id VARCHAR NOT NULL,
        server_id VARCHAR NOT NULL,
        pid INTEGER NOT NULL,
        boot_id VARCHAR NOT NULL,
        ticks INTEGER NOT NULL,
        PRIMARY KEY (process_id)
    )""",
    """CREATE TABLE api_key (
        id VARCHAR NOT NULL,
        tenant VARCHAR NOT NULL,
        scopes VARCHAR NOT NULL,
        mac BLOB NOT NULL,
        create_time FLOAT NOT NULL,
        expire_time FLOAT,
        revoke_time FLOAT,
        PRIMARY KEY (id)
    )""",
    "CREATE INDEX api_key_by_tenant ON api_key (tenant)",
)

#: Without it each commit reads every turn of its session: 0.65 ms instead of 0.17 at 5,000.
_REPORTS = ("CREATE INDEX turn_with_report ON turn (tenant, session) WHERE report IS NOT NULL",)

#: The position of a session's last turn in its trace. From here on times in a report are
#: nanoseconds; one in seconds cannot be read.
_TRACED = (
    "ALTER TABLE session ADD COLUMN traced VARCHAR NOT NULL DEFAULT ''",
    "UPDATE turn SET report = NULL",
)

_TENANTS = (
    """CREATE TABLE tenant (
        tenant VARCHAR NOT NULL,
        enabled BOOLEAN NOT NULL,
        create_time FLOAT NOT NULL,
        note VARCHAR NOT NULL,
        PRIMARY KEY (tenant)
    )""",
)

#: Tenants that are being deleted: this row of theirs goes last.
_DELETIONS = (
    """CREATE TABLE deletion (
        tenant VARCHAR NOT NULL,
        begin_time FLOAT NOT NULL,
        quiet_time FLOAT,
        PRIMARY KEY (tenant)
    )""",
)

#: What was used, and an index of the turns whose end must be looked for at the next start.
_USAGE = (
    """CREATE TABLE usage (
        tenant VARCHAR NOT NULL,
        day VARCHAR NOT NULL,
        model VARCHAR NOT NULL,
        turns INTEGER NOT NULL,
        lost_turns INTEGER NOT NULL,
        input_tokens INTEGER NOT NULL,
        output_tokens INTEGER NOT NULL,
        cache_read_input_tokens INTEGER NOT NULL,
        cache_creation_input_tokens INTEGER NOT NULL,
        cost_usd FLOAT NOT NULL,
        lost_input_tokens INTEGER NOT NULL,
        lost_output_tokens INTEGER NOT NULL,
        lost_cache_read_input_tokens INTEGER NOT NULL,
        lost_cache_creation_input_tokens INTEGER NOT NULL,
        lost_cost_usd FLOAT NOT NULL,
        PRIMARY KEY (tenant, day, model)
    )""",
    "CREATE INDEX turn_recorded ON turn (tenant) WHERE state = 'recorded'",
)

STEPS: tuple[tuple[str, ...], ...] = (_FIRST, _REPORTS, _TRACED, _TENANTS, _DELETIONS, _USAGE)


def migrate(connection: Connection) -> None:
    """Run the missing steps, within the caller's transaction.

    Raise `SchemaTooNew` if the store has had more steps than this version knows.
    """
    connection.execute(text("CREATE TABLE IF NOT EXISTS schema_version (version INTEGER)"))
    version = connection.execute(text("SELECT max(version) FROM schema_version")).scalar() or 0
    if version > len(STEPS):
        raise SchemaTooNew(
            f"the store has schema {version}, this version knows {len(STEPS)}: "
            "use a later samovard",
            cause="store-too-new",
        )
    for number, step in enumerate(STEPS[version:], version + 1):
        for statement in step:
            connection.exec_driver_sql(statement)
        connection.execute(text("INSERT INTO schema_version VALUES (:n)"), {"n": number})
