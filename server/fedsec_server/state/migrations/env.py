"""Alembic's entry: upgrades over the connection that the coordinator passes, or prints SQL."""

from alembic import context
from sqlalchemy import Connection

from fedsec_server.state.models import Base


def _run(connection: Connection | None) -> None:
    if connection is None:  # as SQL text, for a database that somebody else administrates
        context.configure(
            url=context.config.get_main_option("sqlalchemy.url"),
            target_metadata=Base.metadata,
            literal_binds=True,
        )
    else:
        context.configure(connection=connection, target_metadata=Base.metadata)
    with context.begin_transaction():
        context.run_migrations()


_run(context.config.attributes.get("connection"))
