"""The database: opened, brought to the present schema, or refused.

Everything that only SQLite knows is in this module, in the hooks of the connection.
"""

import os
from contextlib import suppress
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import DatabaseError
from sqlalchemy.pool import ConnectionPoolEntry

from fedsec.errors import StateError

WRITES = "fedsec_writes"  # execution option of a connection that is going to write
_MIGRATIONS = Path(__file__).with_name("migrations")
_BUSY_MS = 10_000


def open_database(path: Path) -> Engine:
    """Opens or makes the SQLite database at `path` and migrates it to the present schema.

    Raises:
        StateError: The file is no database, cannot be opened, or a newer program wrote it.
    """
    engine = _sqlite(path)
    try:
        with engine.connect().execution_options(**{WRITES: True}) as connection:
            upgrade(connection)
            connection.commit()
    except DatabaseError as error:
        engine.dispose()
        raise StateError(
            f"the state {path} cannot be opened: {error.orig}; is it the coordinator's "
            "database, and does its directory belong to this user?"
        ) from error
    except StateError:
        engine.dispose()
        raise
    return engine


def upgrade(connection: Connection) -> None:
    """Brings the database to the newest schema, within the transaction of `connection`.

    Raises:
        StateError: Its schema is none that this program knows, so a newer one wrote it.
    """
    config = Config()
    config.set_main_option("script_location", str(_MIGRATIONS).replace("%", "%%"))
    config.attributes["connection"] = connection
    scripts = ScriptDirectory.from_config(config)
    known = {script.revision for script in scripts.walk_revisions()}
    present = set(MigrationContext.configure(connection).get_current_heads())
    if present - known:
        raise StateError(
            f"the state was written by a newer fedsec: its schema is {', '.join(sorted(present))}, "
            f"this program knows up to {scripts.get_current_head()}; install the newer fedsec, "
            "or restore the copy of the state from before the upgrade"
        )
    if present != {scripts.get_current_head()}:
        command.upgrade(config, "head")


def _sqlite(path: Path) -> Engine:
    with suppress(OSError):  # whatever is in the way, the database says so itself
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
    engine = create_engine(f"sqlite:///{path}")
    event.listen(engine, "connect", _on_connect)
    event.listen(engine, "begin", _on_begin)
    return engine


def _on_connect(connection: DBAPIConnection, _entry: ConnectionPoolEntry) -> None:
    # The driver must not start transactions by itself: it would do so at the first write, when
    # a read of the same transaction may already be stale. `_on_begin` starts them.
    connection.isolation_level = None
    cursor = connection.cursor()
    cursor.execute(f"PRAGMA busy_timeout = {_BUSY_MS}")
    cursor.execute("PRAGMA journal_mode = WAL")
    # A token that was spent must stay spent when the power fails right afterwards.
    cursor.execute("PRAGMA synchronous = FULL")
    cursor.execute("PRAGMA foreign_keys = ON")
    cursor.close()


def _on_begin(connection: Connection) -> None:
    writes = connection.get_execution_options().get(WRITES, False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")
