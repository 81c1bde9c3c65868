"""A privacy ledger that has forgotten is seen, where the coordinator's own database remembers."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from fedsec.errors import StateError
from fedsec.ledgerfile import LedgerFile
from fedsec.plan import FederationPlan
from fedsec.plan.terms import terms
from fedsec_server.spent import check_spent
from fedsec_server.state.store import Store
from fedsec_server.state.values import RunRecord, RunState
from tests.server.runrig import ANN, coordinator
from tests.wire.gated import run

PLAN = """
schema = 1
name = "private"
[task]
name = "digits"
[training]
rounds = 20
[nodes]
min_available = 20
[privacy]
model = "central"
epsilon = 20.0
delta = 1e-5
noise_multiplier = 3.0
clip = 0.5
"""
OF = terms(FederationPlan.parse(PLAN))


def completed(store: Store, rounds: int, text: str = PLAN) -> RunRecord:
    """Has the database say that a run of so many rounds took place."""
    plan = FederationPlan.parse(text)
    made = store.create_run(
        name="x", plan=text, plan_digest=plan.digest, rounds=20, submitted_by=ANN, now=1.0
    )
    store.set_run_round(made.run_id, rounds)
    return store.run(made.run_id)


def charge(path: Path, made: RunRecord, rounds: int) -> None:
    for number in range(1, rounds + 1):
        paid = OF.charge(run=f"{made.run_id}/ab", plan="x", round_number=number, attempt=1)
        LedgerFile(path).charge(paid)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.open(tmp_path / "state.sqlite")


def test_a_ledger_that_holds_all_is_taken(tmp_path: Path, store: Store) -> None:
    path = tmp_path / "privacy.ledger"
    check_spent(path, [])  # there is none yet
    made = completed(store, 7)
    charge(path, made, 8)  # charged, and the coordinator ended before it was released
    check_spent(path, [made])
    check_spent(path, [replace(made, round=0)])


def test_an_older_copy_is_refused(tmp_path: Path, store: Store) -> None:
    path, copy = tmp_path / "privacy.ledger", tmp_path / "copy"
    made = completed(store, 7)
    charge(path, made, 6)
    shutil.copy2(path, copy)
    charge(path, made, 7)
    check_spent(path, [made])
    copy.replace(path)
    with pytest.raises(StateError) as refused:
        check_spent(path, [made])
    assert f"forgotten what was spent: run {made.run_id} (7 rounds, charges for 6)" in str(
        refused.value
    )
    path.unlink()
    with pytest.raises(StateError, match=r"\(7 rounds, charges for 0\)\. It is not the newest"):
        check_spent(path, [made])


def test_what_is_charged_as_a_whole_or_by_the_nodes_is_not_missed(
    tmp_path: Path, store: Store
) -> None:
    path = tmp_path / "privacy.ledger"
    example = PLAN.replace('"central"', '"example"')
    plain = PLAN.partition("[privacy]")[0] + "# privacy: none\n"
    check_spent(path, [completed(store, 20, text) for text in (example, plain)])
    promised = completed(store, 20)
    with pytest.raises(StateError):
        check_spent(path, [promised])
    LedgerFile(path).charge(OF.reservation(run=f"{promised.run_id}/ab", plan="x"))
    check_spent(path, [promised])


def test_no_spelling_of_a_plan_hides_what_it_spent(tmp_path: Path, store: Store) -> None:
    hidden = completed(store, 7, PLAN.replace("[privacy]", r'["pr\u0069vacy"]'))
    with pytest.raises(StateError, match="has forgotten what was spent"):
        check_spent(tmp_path / "privacy.ledger", [hidden])


def test_a_plan_that_an_older_version_took_is_in_nobody_s_way(tmp_path: Path, store: Store) -> None:
    made = completed(store, 7)
    charge(tmp_path / "privacy.ledger", made, 7)
    example = replace(completed(store, 20), plan=PLAN.replace('"central"', '"example"\nold = 1'))
    check_spent(
        tmp_path / "privacy.ledger", [made, replace(made, plan=f"{PLAN}old = 1\n"), example]
    )


def test_many_runs_are_counted(tmp_path: Path, store: Store) -> None:
    runs = [completed(store, 1) for _ in range(5)]
    with pytest.raises(StateError, match=r"and 2 runs more\. It"):
        check_spent(tmp_path / "privacy.ledger", runs)


def test_no_private_plan_is_run_with_it_and_any_other_is(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        async with coordinator(tmp_path) as rig:
            completed(rig.store, 5)
            with pytest.raises(StateError, match="has forgotten what was spent"):
                await rig.runs.submit(PLAN, ANN)
            await rig.runs.submit(PLAN.partition("[privacy]")[0], ANN)
            waiting = completed(rig.store, 0)
            await rig.runs.start()  # as a coordinator that is started finds it
            assert "has forgotten what was spent" in caplog.text
            ended = await rig.until(waiting.run_id, RunState.FAILED)
            assert "has forgotten what was spent" in ended.reason

    run(main(), 60)
