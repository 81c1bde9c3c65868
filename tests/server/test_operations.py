"""`docs/operations.md`: the backup that it shows, taken of a database in use, is a coordinator."""

import re
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest

from fedsec.ledgerfile import LedgerFile
from fedsec.plan import FederationPlan
from fedsec.plan.terms import terms
from fedsec_server.generations import load_generations
from fedsec_server.layout import Layout, find_coordinator, load_settings
from fedsec_server.spent import check_spent
from fedsec_server.state.store import Store
from tests.server.coordinatorrig import make_place
from tests.server.test_spent import PLAN, charge, completed

PAGE = Path(__file__).parents[2] / "docs" / "operations.md"


@pytest.fixture
def running(tmp_path: Path) -> tuple[Layout, Store]:
    """A coordinator's directory whose database is open: what was written last is not in its file."""
    place = make_place(tmp_path)
    (tmp_path / "coordinator").symlink_to(place.layout.directory)  # as the page calls it
    return place.layout, Store.open(place.layout.database)


def test_the_backup_of_a_database_in_use_is_whole(
    running: tuple[Layout, Store], tmp_path: Path
) -> None:
    layout, store = running
    made = completed(store, 4)
    charge(layout.ledger, made, 4)
    layout.run(made.run_id).mkdir(parents=True)
    (layout.run(made.run_id) / "plan.toml").write_text(PLAN)
    (script,) = re.findall(r"```bash\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL)
    python = f'python() {{ {sys.executable} "$@"; }}\n'
    subprocess.run(["bash", "-euc", python + script], cwd=tmp_path, check=True, timeout=60)

    restored = find_coordinator(tmp_path / "backup")
    assert load_settings(restored).federation == "fed.example"
    load_generations(restored, now=datetime.now(UTC))
    (run,) = Store.open(restored.database).runs()
    assert (run.run_id, run.round) == (made.run_id, 4)
    check_spent(restored.ledger, [run])
    assert (restored.run(made.run_id) / "plan.toml").read_text() == PLAN
    for path in (restored.directory, restored.database, restored.ledger):
        assert not path.stat().st_mode & 0o077, path


def test_a_ledger_goes_on_from_its_copy(running: tuple[Layout, Store], tmp_path: Path) -> None:
    """Also where the copy was taken in the middle of a line that was being written."""
    layout, store = running
    made = completed(store, 2)
    charge(layout.ledger, made, 2)
    with layout.ledger.open("ab") as file:
        file.write(b'{"body": {"att')
    of = terms(FederationPlan.parse(PLAN))
    again = LedgerFile(layout.ledger)
    again.charge(of.charge(run=f"{made.run_id}/ab", plan="x", round_number=3, attempt=1))
    assert len(again.entries()) == 3
