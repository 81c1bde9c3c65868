"""SIGKILL at every failpoint: what was published is paid for, and is published the same again.

The program under test is a real process that makes three releases, each charged to a ledger with a
budget for three, and sends what it publishes as a node's worker sends its reply and a coordinator's
run its messages: over a `LocalSocket`. What arrived at the other end is published, whatever became
of the sender. It is killed at one place, and started again.
"""

import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from fedsec.failpoints import FAILPOINTS, Failpoint
from fedsec.ledgerfile import LedgerFile
from fedsec.wire.local import LocalSocket, socket_pair

ROUNDS = 3
ROOT = Path(__file__).parents[1]

_PROGRAM = """
import os, signal, socket, sys, traceback
from pathlib import Path
import numpy as np
from fedsec import failpoints
from fedsec.ledgerfile import LedgerFile
from fedsec.privacy.events import Gaussian, Price
from fedsec.privacy.ledger import Budget, Guarantee, Terms
from fedsec.releases import Releases
from fedsec.wire.local import LocalSocket

def live(directory, target, left, out):
    def die(name):
        nonlocal left
        print("reached", name, file=log, flush=True)
        if name == target:
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)

    log = (directory / "log").open("w")
    failpoints.on_reach = die
    terms = Terms(Guarantee("node", "zero-out", "model-holders", "a test"), Price(Gaussian(1.0)), 3)
    budgets = {"enforced": Budget(3.0, 1e-5)}
    ledger = LedgerFile(directory / "ledger", budgets, lambda all, _: sum(p.count for p in all))
    releases = Releases(directory / "releases")
    for number in (1, 2, 3):
        charge = terms.charge(run="7", plan="ab", round_number=number, attempt=1)
        vector = releases.once(
            f"round {number}",
            lambda: np.frombuffer(os.urandom(64), np.uint8).astype(np.float32),
            lambda: ledger.charge(charge),
        )
        out.send(bytes([number]) + vector.tobytes())

orders = socket.socket(fileno=int(sys.argv[1]))
while True:
    order, fds, _, _ = socket.recv_fds(orders, 4096, 1)
    if not order:
        break
    directory, target, occurrence = order.decode().split("|")
    out = LocalSocket(socket.socket(fileno=fds[0]))
    pid = os.fork()
    if pid == 0:
        try:
            live(Path(directory), target, int(occurrence), out)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    out._sock.close()  # not shut down: it is the child's
    _, status = os.waitpid(pid, 0)
    orders.send(f"{os.waitstatus_to_exitcode(status)}".encode())
"""


@pytest.fixture(scope="module")
def orders() -> Iterator[socket.socket]:
    """A process that lives the program's lives, one after another, each in a fork of its own."""
    mine, theirs = socket_pair()
    with mine, theirs:
        fd = theirs.fileno()
        command = [sys.executable, "-c", _PROGRAM, str(fd)]
        with subprocess.Popen(command, cwd=ROOT, pass_fds=[fd]) as process:
            theirs.close()
            yield mine
            mine.close()
        assert process.returncode == 0


class Run:
    """One life of the program: what it published and which points it reached."""

    def __init__(
        self, orders: socket.socket, directory: Path, target: str = "none", occurrence: int = 1
    ) -> None:
        mine, theirs = socket_pair()
        with theirs:
            order = f"{directory}|{target}|{occurrence}".encode()
            socket.send_fds(orders, [order], [theirs.fileno()])
        code = int(orders.recv(64))
        self.published = dict(arrived(LocalSocket(mine)))
        assert code in {0, -signal.SIGKILL}
        self.killed = code != 0
        lines = (directory / "log").read_text().splitlines()
        self.reached = [line.removeprefix("reached ") for line in lines]


def arrived(end: LocalSocket) -> Iterator[tuple[int, bytes]]:
    """Yields number and vector of each release that came out of a process that has ended."""
    while (received := end.receive()) is not None:
        frame, _ = received
        yield frame[0], frame[1:]
    end.close()


PLACES: list[tuple[Failpoint, int]] = [
    (name, occurrence)
    for name in FAILPOINTS
    for occurrence in range(1, 2 if name == "log created" else 4 if name.startswith("file") else 3)
]
"""Every point at its first and second turn; the first file is the name of the run's releases."""


@pytest.mark.parametrize(("name", "occurrence"), PLACES)
def test_no_crash_publishes_what_is_not_paid_or_two_vectors_for_one_release(
    orders: socket.socket, tmp_path: Path, name: Failpoint, occurrence: int
) -> None:
    first = Run(orders, tmp_path, name, occurrence)
    assert first.killed, f"the failpoint {name!r} was not reached"
    charged = {made.key for _, made in LedgerFile(tmp_path / "ledger").entries()}
    assert {f"run 7 round {number}" for number in first.published} <= charged

    second = Run(orders, tmp_path)
    assert not second.killed
    assert set(second.published) == {1, 2, 3}
    assert first.published.items() <= second.published.items()
    final = LedgerFile(tmp_path / "ledger").entries()
    assert [made.key for _, made in final] == [f"run 7 round {n}" for n in range(1, ROUNDS + 1)]


def test_every_failpoint_is_reached_in_the_order_of_the_promise(
    orders: socket.socket, tmp_path: Path
) -> None:
    run = Run(orders, tmp_path)
    assert set(run.reached) == set(FAILPOINTS)
    second = [place for place, name in enumerate(run.reached) if name == "release made"][1]
    one_release = run.reached[second:]
    order = ["release made", "file synced", "file renamed", "file in place", "release stored",
             "log written", "log synced", "release paid", "frame leaving", "frame left"]  # fmt: skip
    places_of = [one_release.index(name) for name in order]
    assert places_of == sorted(places_of)


def test_without_crashes_the_ledger_is_exactly_what_was_released(
    orders: socket.socket, tmp_path: Path
) -> None:
    run = Run(orders, tmp_path)
    entries = LedgerFile(tmp_path / "ledger").entries()
    assert [f"run 7 round {n}" for n in run.published] == [made.key for _, made in entries]
