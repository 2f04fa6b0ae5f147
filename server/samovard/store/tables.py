"""The tables, as the last migration leaves them. Knows nothing of how they are used."""

from sqlalchemy import (
    Boolean,
    Column,
    ColumnElement,
    Float,
    ForeignKeyConstraint,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    literal_column,
)

metadata = MetaData()

#: The state of a turn that has not ended; in the text of a statement, so that its index is used.
RECORDED: ColumnElement[str] = literal_column("'recorded'")

server = Table(
    "server",
    metadata,
    Column("server_id", String, primary_key=True),
    Column("start_time", Float, nullable=False),
)

session = Table(
    "session",
    metadata,
    Column("tenant", String, primary_key=True),
    Column("session", String, primary_key=True),
    Column("spec", LargeBinary, nullable=False),
    Column("home", String, nullable=False),
    Column("agent_session", String, nullable=False),
    Column("usage", LargeBinary, nullable=False),
    Column("turn_count", Integer, nullable=False),
    Column("prompted", Boolean, nullable=False),
    Column("finished", Boolean, nullable=False),
    Column("blocked", Boolean, nullable=False),
    Column("create_time", Float, nullable=False),
    Column("update_time", Float, nullable=False),
    Column("expire_time", Float, nullable=False),
    Column("traced", String, nullable=False, server_default=""),
)
Index("session_by_use", session.c.tenant, session.c.update_time, session.c.session)

turn = Table(
    "turn",
    metadata,
    Column("tenant", String, primary_key=True),
    Column("session", String, primary_key=True),
    Column("turn_id", String, primary_key=True),
    Column("digest", LargeBinary, nullable=False),
    Column("state", String, nullable=False),
    Column("reason", String, nullable=False),
    Column("cause", String, nullable=False),
    Column("last_sequence", Integer, nullable=False),
    Column("report", LargeBinary),
    ForeignKeyConstraint(
        ["tenant", "session"], ["session.tenant", "session.session"], ondelete="CASCADE"
    ),
)
Index(
    "turn_with_report",
    turn.c.tenant,
    turn.c.session,
    sqlite_where=turn.c.report.is_not(None),
)

#: Turns that run, or ran when the service was killed.
Index("turn_recorded", turn.c.tenant, sqlite_where=turn.c.state == RECORDED)

usage = Table(
    "usage",
    metadata,
    Column("tenant", String, primary_key=True),
    Column("day", String, primary_key=True),
    Column("model", String, primary_key=True),
    *(Column(f"{kind}turns", Integer, nullable=False) for kind in ("", "lost_")),
    *(
        Column(f"{kind}{name}", Float if name == "cost_usd" else Integer, nullable=False)
        for kind in ("", "lost_")
        for name in (
            "input_tokens",
            "output_tokens",
            "cache_read_input_tokens",
            "cache_creation_input_tokens",
            "cost_usd",
        )
    ),
)

process = Table(
    "process",
    metadata,
    Column("process_id", String, primary_key=True),
    Column("server_id", String, nullable=False),
    Column("pid", Integer, nullable=False),
    Column("boot_id", String, nullable=False),
    Column("ticks", Integer, nullable=False),
)

api_key = Table(
    "api_key",
    metadata,
    Column("id", String, primary_key=True),
    Column("tenant", String, nullable=False),
    Column("scopes", String, nullable=False),
    Column("mac", LargeBinary, nullable=False),
    Column("create_time", Float, nullable=False),
    Column("expire_time", Float),
    Column("revoke_time", Float),
)
Index("api_key_by_tenant", api_key.c.tenant)

tenant = Table(
    "tenant",
    metadata,
    Column("tenant", String, primary_key=True),
    Column("enabled", Boolean, nullable=False),
    Column("create_time", Float, nullable=False),
    Column("note", String, nullable=False),
)

deletion = Table(
    "deletion",
    metadata,
    Column("tenant", String, primary_key=True),
    Column("begin_time", Float, nullable=False),
    Column("quiet_time", Float),
)
