"""The ledger on disk: of many that charge at once, exactly those that can be paid succeed."""

import subprocess
import sys
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from fedsec.auditlog import AuditLog, Record, unseal
from fedsec.errors import BudgetExhausted, ConfigError, StateError
from fedsec.ledgerfile import LABEL, LedgerFile
from fedsec.privacy.events import Gaussian, Price
from fedsec.privacy.ledger import Budget, Charge, Guarantee

GUARANTEE = Guarantee("node", "zero-out", "model-holders", "the coordinator adds the noise")
BUDGETS = {"enforced": Budget(20.0, 1e-5, "a test")}
PARALLEL = 50


def counting(prices: Sequence[Price], _delta: float) -> float:
    return float(sum(price.count for price in prices))


def charge(key: str) -> Charge:
    return Charge(key, GUARANTEE, Price(Gaussian(1.0)), run="7", plan="ab", round=1)


def keys(path: Path) -> list[str]:
    return [made.key for _, made in LedgerFile(path).entries()]


def test_of_fifty_parallel_threads_exactly_the_affordable_succeed(tmp_path: Path) -> None:
    path, start = tmp_path / "ledger", threading.Barrier(PARALLEL)
    shared = LedgerFile(path, BUDGETS, counting)

    def attempt(number: int) -> bool:
        ledger = shared if number % 2 else LedgerFile(path, BUDGETS, counting)
        start.wait(60)
        try:
            ledger.charge(charge(f"release {number}"))
        except BudgetExhausted:
            return False
        return True

    with ThreadPoolExecutor(PARALLEL) as pool:
        paid = list(pool.map(attempt, range(PARALLEL)))
    assert sum(paid) == 20
    assert sorted(keys(path)) == sorted(f"release {n}" for n in range(PARALLEL) if paid[n])


_CHILD = """
import sys
from pathlib import Path
from fedsec.errors import BudgetExhausted
from tests.test_ledgerfile import BUDGETS, charge, counting
from fedsec.ledgerfile import LedgerFile
ledger = LedgerFile(Path(sys.argv[1]), BUDGETS, counting)
print("ready", flush=True)
sys.stdin.readline()
paid = 0
for number in range(10):
    try:
        ledger.charge(charge(f"{sys.argv[2]} {number}"))
        paid += 1
    except BudgetExhausted:
        pass
print(paid, flush=True)
"""


def test_of_fifty_charges_by_five_processes_exactly_the_affordable_succeed(tmp_path: Path) -> None:
    root = Path(__file__).parents[1]
    children = [
        subprocess.Popen(
            [sys.executable, "-c", _CHILD, str(tmp_path / "ledger"), f"process {number}"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=root,
        )
        for number in range(5)
    ]  # fmt: skip
    try:
        for child in children:
            assert child.stdout is not None
            assert child.stdout.readline() == "ready\n"
        for child in children:
            assert child.stdin is not None
            child.stdin.write("go\n")
            child.stdin.flush()
        paid = [int(child.communicate(timeout=60)[0]) for child in children]
    finally:
        for child in children:
            child.kill()
            child.wait()
    assert sum(paid) == 20
    assert len(keys(tmp_path / "ledger")) == 20


def test_a_release_is_charged_once_also_by_another_process_life(tmp_path: Path) -> None:
    for _ in range(3):
        LedgerFile(tmp_path / "ledger", BUDGETS, counting).charge(charge("run 7 round 1"))
    assert keys(tmp_path / "ledger") == ["run 7 round 1"]


def test_what_was_charged_stays_charged_when_the_budget_is_spent(tmp_path: Path) -> None:
    ledger = LedgerFile(tmp_path / "ledger", {"enforced": Budget(1.0, 1e-5)}, counting)
    ledger.charge(charge("a"))
    with pytest.raises(BudgetExhausted):
        ledger.charge(charge("b"))
    ledger.charge(charge("a"))
    assert keys(tmp_path / "ledger") == ["a"]


def test_what_a_dead_process_charged_is_forced_to_the_disk_before_it_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    LedgerFile(tmp_path / "ledger").charge(charge("a"))
    forced: list[int] = []
    monkeypatch.setattr("fedsec.auditlog.os.fsync", forced.append)
    LedgerFile(tmp_path / "ledger").charge(charge("a"))
    assert forced


def test_without_a_budget_everything_is_written_down(tmp_path: Path) -> None:
    ledger = LedgerFile(tmp_path / "ledger")
    for number in range(5):
        ledger.charge(charge(str(number)))
    assert len(keys(tmp_path / "ledger")) == 5


def test_a_budget_is_reckoned_with_by_the_accountant_unless_told_otherwise(tmp_path: Path) -> None:
    budget = {
        "enforced": Budget(4.3773, 1e-5)
    }  # one Gaussian of multiplier 1, from its closed form
    ledger = LedgerFile(tmp_path / "ledger", budget)
    ledger.charge(charge("a"))
    with pytest.raises(BudgetExhausted, match=r"would be 6\.\d"):
        ledger.charge(charge("b"))


def test_what_could_be_paid_is_said_without_charging(tmp_path: Path) -> None:
    ledger = LedgerFile(tmp_path / "ledger", {"enforced": Budget(1.0, 1e-5)}, counting)
    ledger.check(charge("a"))
    assert not (tmp_path / "ledger").exists()
    LedgerFile(tmp_path / "ledger").charge(charge("b"))
    with pytest.raises(BudgetExhausted):
        ledger.check(charge("a"))
    assert ledger.charged("7") == 1
    assert ledger.charged("8") == 0


def test_one_key_is_one_release(tmp_path: Path) -> None:
    ledger = LedgerFile(tmp_path / "ledger")
    ledger.charge(charge("a"))
    other = Charge("a", GUARANTEE, Price(Gaussian(2.0)), run="7", plan="ab", round=1)
    with pytest.raises(StateError, match="other terms"):
        ledger.charge(other)
    assert keys(tmp_path / "ledger") == ["a"]


def test_a_damaged_ledger_takes_no_charge(tmp_path: Path) -> None:
    path = tmp_path / "ledger"
    ledger = LedgerFile(path)
    for key in "abc":
        ledger.charge(charge(key))
    content = path.read_bytes()
    path.write_bytes(content.replace(b'"key":"b"', b'"key":"x"'))
    for damaged in (LedgerFile(path), LedgerFile(path)):
        with pytest.raises(StateError, match="record 2: its content was changed"):
            damaged.charge(charge("d"))
    assert path.read_bytes() == content.replace(b'"key":"b"', b'"key":"x"')


@pytest.mark.parametrize("body", [{}, {"key": "a"}, charge("a").to_json() | {"later": 1}])
def test_a_record_that_is_no_charge_is_refused_every_time(
    tmp_path: Path, body: dict[str, object]
) -> None:
    path = tmp_path / "ledger"
    log = AuditLog(path, LABEL)
    with log.hold():
        log.append(body)
    ledger = LedgerFile(path)
    for _ in range(2):
        with pytest.raises(StateError, match="record 1: not a charge"):
            ledger.charge(charge("b"))
    with pytest.raises(StateError, match="later version"):
        ledger.entries()


def test_a_full_disk_charges_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ledger = LedgerFile(tmp_path / "ledger", BUDGETS, counting)
    ledger.charge(charge("a"))

    def full(_file: int, _data: bytes) -> int:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr("fedsec.auditlog.os.write", full)
        with pytest.raises(ConfigError, match="No space left"):
            ledger.charge(charge("b"))
    ledger.charge(charge("c"))
    assert keys(tmp_path / "ledger") == ["a", "c"]


def test_a_charge_reads_only_what_is_new(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[int] = []

    def counted(label: str, previous: str, number: int, line: bytes) -> Record:
        read.append(number)
        return unseal(label, previous, number, line)

    monkeypatch.setattr("fedsec.auditlog.unseal", counted)
    ledger = LedgerFile(tmp_path / "ledger", BUDGETS, counting)
    for number in range(20):
        ledger.charge(charge(str(number)))
    assert read == list(range(1, 21))
