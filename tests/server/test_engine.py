"""The database: set up for safety, migrated or refused, portable."""

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from sqlalchemy.engine import make_url
from sqlalchemy.exc import IntegrityError
from sqlalchemy.schema import CreateTable

from fedsec.errors import StateError
from fedsec_server.state import engine as engine_module
from fedsec_server.state.engine import open_database
from fedsec_server.state.models import Base, Invite
from fedsec_server.state.store import Store

ANN = "spiffe://fed.example/person/admin/ann"
NOW = 1_700_000_000.0


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = Store.open(tmp_path / "state.sqlite")
    yield opened
    opened.close()


def test_the_connection_is_set_up_for_safety(store: Store) -> None:
    with store._engine.connect() as connection:
        got = {
            name: connection.exec_driver_sql(f"PRAGMA {name}").scalar()
            for name in ("journal_mode", "foreign_keys", "synchronous", "busy_timeout")
        }
    assert got == {
        "journal_mode": "wal",
        "foreign_keys": 1,
        "synchronous": 2,
        "busy_timeout": 10_000,
    }


def test_the_files_are_private(tmp_path: Path) -> None:
    store = Store.open(tmp_path / "state.sqlite")
    store.append_event("kind", "subject", {}, at=NOW)
    modes = {path.name: path.stat().st_mode & 0o777 for path in tmp_path.iterdir()}
    store.close()
    assert set(modes) == {"state.sqlite", "state.sqlite-wal", "state.sqlite-shm"}
    assert set(modes.values()) == {0o600}


def test_foreign_keys_hold(store: Store) -> None:
    with pytest.raises(IntegrityError, match="FOREIGN KEY"), store._write() as session:
        session.add(
            Invite(
                token_hash=b"z" * 32,
                purpose="node",
                node_id=99,
                created_at=NOW,
                created_by=ANN,
                expires_at=NOW,
            )
        )


def test_state_survives_closing(tmp_path: Path) -> None:
    store = Store.open(tmp_path / "state.sqlite")
    event = store.append_event("kind", "subject", {"a": 1}, at=NOW)
    store.close()
    again = Store.open(tmp_path / "state.sqlite")
    assert again.events() == [event]
    again.close()


def test_migrations_make_what_the_models_say(store: Store) -> None:
    with store._engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, Base.metadata) == []
        checks = {
            table: sorted(
                str(c["name"]) for c in sa.inspect(connection).get_check_constraints(table)
            )
            for table in ("nodes", "denials", "runs")
        }
    assert checks == {
        "nodes": ["ck_nodes_node_id", "ck_nodes_state"],
        "denials": ["ck_denials_kind"],
        "runs": ["ck_runs_state"],
    }


def test_a_newer_schema_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "state.sqlite"
    Store.open(path).close()
    connection = sqlite3.connect(path)
    connection.execute("UPDATE alembic_version SET version_num = '9999'")
    connection.commit()
    connection.close()
    with pytest.raises(
        StateError, match="by a newer fedsec: its schema is 9999, this program knows"
    ):
        Store.open(path)


def test_a_failed_migration_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "state.sqlite"

    def fail(*args: object, **kwargs: object) -> None:
        raise RuntimeError("power cut")

    real = engine_module.upgrade

    def upgrade_and_fail(connection: sa.Connection) -> None:
        real(connection)
        fail()

    monkeypatch.setattr(engine_module, "upgrade", upgrade_and_fail)
    with pytest.raises(RuntimeError, match="power cut"):
        open_database(path)
    monkeypatch.undo()
    raw = sqlite3.connect(path)
    assert raw.execute("SELECT name FROM sqlite_master").fetchall() == []
    raw.close()
    Store.open(path).close()


@pytest.mark.parametrize("content", [b"no database at all, but long enough to be one" * 50])
def test_a_file_that_is_no_database_is_named(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "state.sqlite"
    path.write_bytes(content)
    with pytest.raises(StateError, match=f"the state {path} cannot be opened: file is not a data"):
        Store.open(path)


def test_a_missing_directory_is_named(tmp_path: Path) -> None:
    with pytest.raises(StateError, match="unable to open database file"):
        Store.open(tmp_path / "nowhere" / "state.sqlite")


def test_tables_and_migrations_compile_for_postgresql(capsys: pytest.CaptureFixture[str]) -> None:
    """No PostgreSQL runs here; its dialect at least must accept every statement as SQL text."""
    dialect = make_url("postgresql://").get_dialect()()
    for table in Base.metadata.sorted_tables:
        assert "CREATE TABLE" in str(CreateTable(table).compile(dialect=dialect))
    config = Config()
    config.set_main_option(
        "script_location", str(Path(engine_module.__file__).with_name("migrations"))
    )
    config.set_main_option("sqlalchemy.url", "postgresql://")
    command.upgrade(config, "head", sql=True)
    sql = capsys.readouterr().out
    assert sql.count("CREATE TABLE") == 1 + len(Base.metadata.tables)
    assert "sequence BIGSERIAL" in sql
    assert "sqlite" not in sql.lower()


def test_sqlite_is_named_in_the_engine_alone() -> None:
    folder = Path(engine_module.__file__).parent
    named = {
        path.name
        for path in folder.rglob("*.py")
        if any(word in path.read_text().lower() for word in ("pragma", "sqlite3", "sqlite://"))
    }
    assert named == {"engine.py"}
