"""SIGKILL at every failpoint: what was published is paid for, and is published the same again.

The program under test is a real process that makes three releases, each charged to a ledger with a
budget for three, and prints a digest of what it publishes. It is killed at one place, then started
again, and may be killed at the next one.
"""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from fedsec.failpoints import FAILPOINTS, Failpoint
from fedsec.ledgerfile import LedgerFile

ROUNDS = 3
ROOT = Path(__file__).parents[1]

_PROGRAM = """
import hashlib, os, signal, sys
from pathlib import Path
import numpy as np
from fedsec import failpoints
from fedsec.ledgerfile import LedgerFile
from fedsec.privacy.events import Gaussian, Price
from fedsec.privacy.ledger import Budget, Guarantee, Terms
from fedsec.releases import Releases

directory, target, occurrence = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
left = occurrence

def die(name):
    global left
    print("reached", name, file=sys.stderr, flush=True)
    if name == target:
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)

failpoints.on_reach = die
terms = Terms(Guarantee("node", "zero-out", "model-holders", "a test"), Price(Gaussian(1.0)), 3)
budgets = {"enforced": Budget(3.0, 1e-5)}
ledger = LedgerFile(directory / "ledger", budgets, lambda prices, _: sum(p.count for p in prices))
releases = Releases(directory / "releases")
for number in (1, 2, 3):
    charge = terms.charge(run="7", plan="ab", round_number=number, attempt=1)
    vector = releases.once(
        f"round {number}",
        lambda: np.frombuffer(os.urandom(64), np.uint8).astype(np.float32),
        lambda: ledger.charge(charge),
    )
    print(number, hashlib.sha256(vector).hexdigest(), flush=True)
"""


class Run:
    """One life of the program: what it published and which points it reached."""

    def __init__(self, directory: Path, target: str = "none", occurrence: int = 1) -> None:
        done = subprocess.run(
            [sys.executable, "-c", _PROGRAM, str(directory), target, str(occurrence)],
            capture_output=True, text=True, check=False, timeout=100, cwd=ROOT,
        )  # fmt: skip
        assert done.returncode in {0, -signal.SIGKILL}, done.stderr
        self.killed = done.returncode != 0
        self.published = dict(line.split() for line in done.stdout.splitlines())
        self.reached = [
            line.removeprefix("reached ")
            for line in done.stderr.splitlines()
            if line.startswith("reached ")
        ]


PLACES: list[tuple[Failpoint, int]] = [
    (name, occurrence)
    for name in FAILPOINTS
    for occurrence in range(1, 2 if name == "log created" else 4 if name.startswith("file") else 3)
]
"""Every point at its first and second turn; the first file is the name of the run's releases."""


@pytest.mark.slow
@pytest.mark.parametrize(("name", "occurrence"), PLACES)
def test_no_crash_publishes_what_is_not_paid_or_two_vectors_for_one_release(
    tmp_path: Path, name: Failpoint, occurrence: int
) -> None:
    first = Run(tmp_path, name, occurrence)
    assert first.killed, f"the failpoint {name!r} was not reached"
    charged = {made.key for _, made in LedgerFile(tmp_path / "ledger").entries()}
    assert {f"run 7 round {number}" for number in first.published} <= charged

    second = Run(tmp_path)
    assert not second.killed
    assert set(second.published) == {"1", "2", "3"}
    assert first.published.items() <= second.published.items()
    final = LedgerFile(tmp_path / "ledger").entries()
    assert [made.key for _, made in final] == [f"run 7 round {n}" for n in range(1, ROUNDS + 1)]


def test_every_failpoint_is_reached_in_the_order_of_the_promise(tmp_path: Path) -> None:
    run = Run(tmp_path)
    assert set(run.reached) == set(FAILPOINTS)
    second = [place for place, name in enumerate(run.reached) if name == "release made"][1]
    one_release = run.reached[second:]
    order = ["release made", "file synced", "file renamed", "file in place", "release stored",
             "log written", "log synced", "release paid"]  # fmt: skip
    places_of = [one_release.index(name) for name in order]
    assert places_of == sorted(places_of)


def test_without_crashes_the_ledger_is_exactly_what_was_released(tmp_path: Path) -> None:
    run = Run(tmp_path)
    entries = LedgerFile(tmp_path / "ledger").entries()
    assert [f"run 7 round {n}" for n in run.published] == [made.key for _, made in entries]
