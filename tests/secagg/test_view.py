"""What the coordinator and t - 1 nodes see is distributed alike for all inputs with one sum.

Real nodes and a real coordinator run a session of five; which streams go into which upload, which
the colluders know and which the coordinator removes is taken from that run. A stream is then what
the proof takes it for, independent uniform words; they are of 4 bits here, so that all of them, and
all inputs, can be tried.
"""

import itertools
from collections.abc import Sequence

import numpy as np
import pytest
from numpy.typing import NDArray

from fedsec.secagg import node, recovery
from fedsec.secagg.keys import Stream
from tests.secagg.rig import Rig, make_setting, silent

IDS = (1, 2, 3, 4, 5)
VICTIM, HONEST = 2, 4
MODULUS = 2**4
Uploads = dict[int, tuple[Sequence[Stream], Sequence[Stream]]]
Integers = NDArray[np.int64]


def run(monkeypatch: pytest.MonkeyPatch, *, late: bool) -> tuple[Uploads, set[Stream]]:
    """Returns the streams in each upload, and those that are known to the adversary."""
    calls: list[tuple[Sequence[Stream], Sequence[Stream]]] = []
    opened: list[Stream] = []

    def mask(_words: object, added: Sequence[Stream], removed: Sequence[Stream]) -> None:
        calls.append((added, removed))

    def unmask(_words: object, added: Sequence[Stream], removed: Sequence[Stream]) -> None:
        opened.extend((*added, *removed))

    monkeypatch.setattr(node, "apply", mask)
    monkeypatch.setattr(recovery, "apply", unmask)
    rig = Rig(make_setting(), IDS, tamper=silent({VICTIM: "vector"} if late else {}))
    rig.run()
    assert rig.states[1] == node.Finished()
    uploads = dict(zip(IDS, calls, strict=True))
    colluders = set(IDS) - {VICTIM, HONEST}
    known = {s for i in colluders for part in uploads[i] for s in part}
    return uploads, known | set(opened)


def views(uploads: Uploads, known: set[Stream]) -> dict[tuple[int, int], bytes]:
    """Returns the distribution of the view for each pair of inputs of the two honest nodes."""
    streams = sorted(
        {s for i in (VICTIM, HONEST) for part in uploads[i] for s in part}, key=lambda s: s.key
    )
    secret = [s for s in streams if s not in known]
    revealed = [s for s in streams if s in known]
    # what both sides know can be taken away: one value of it stands for all
    drawn = dict.fromkeys(revealed, 3)
    grid = np.indices((MODULUS,) * len(secret)).reshape(len(secret), MODULUS ** len(secret))

    def mask(i: int) -> Integers:
        added, removed = uploads[i]
        values = {s: grid[place] for place, s in enumerate(secret)}
        total = np.zeros(grid.shape[1], np.int64)
        for s in added:
            total += values.get(s, drawn.get(s, 0))
        for s in removed:
            total -= values.get(s, drawn.get(s, 0))
        return total

    masks = mask(VICTIM), mask(HONEST)
    found = {}
    for x, y in itertools.product(range(MODULUS), repeat=2):
        seen = (masks[0] + x) % MODULUS * MODULUS + (masks[1] + y) % MODULUS
        found[x, y] = np.bincount(seen, minlength=MODULUS**2).tobytes()
    return found


def kinds(found: dict[tuple[int, int], bytes], *, late: bool) -> int:
    """Returns how many distributions there are among inputs that must look alike, at most."""
    groups: dict[int, set[bytes]] = {}
    for (x, y), view in found.items():
        groups.setdefault(y if late else (x + y) % MODULUS, set()).add(view)
    assert len(groups) == MODULUS
    return max(map(len, groups.values()))


@pytest.mark.parametrize("late", [False, True], ids=["in the sum", "late, so not in it"])
def test_all_inputs_of_the_victim_look_alike(monkeypatch: pytest.MonkeyPatch, late: bool) -> None:
    assert kinds(views(*run(monkeypatch, late=late)), late=late) == 1


@pytest.mark.parametrize("late", [False, True], ids=["in the sum", "late, so not in it"])
def test_with_one_mask_left_out_they_do_not(monkeypatch: pytest.MonkeyPatch, late: bool) -> None:
    uploads, known = run(monkeypatch, late=late)
    added, removed = uploads[VICTIM]
    for stream in {*added, *removed} - known:  # the one that hides it: shared, or its own
        spoilt = (
            [s for s in added if s != stream],
            [s for s in removed if s != stream],
        )
        assert kinds(views({**uploads, VICTIM: spoilt}, known), late=late) > 1
    assert {*added, *removed} - known
