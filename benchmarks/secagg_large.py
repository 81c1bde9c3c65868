"""n = 1,000, d = 1,000,000 with simulated peers: ``benchmarks/secagg.py --large``.

Six nodes do all that a node does; the others make real keys, shares and signatures, and a vector
without masks. Memory is the coordinator's alone: it is led once more through all stages by what
the nodes said, with Python's allocations traced.
"""

import tracemalloc
from collections.abc import Callable, Mapping
from fractions import Fraction

import common
import numpy as np
from secagg_ours import MASKED, Ours

from fedsec.secagg import coordinator, messages, node, stages
from fedsec.secagg.coordinator import Ask, Close, Opened, Received
from fedsec.secagg.masks import word_type
from fedsec.secagg.membership import Setting
from fedsec.secagg.parameters import Assumptions, Mode, choose

NODES, SIZE = 1000, 1_000_000
WORD_BITS = 32
LOST = frozenset(range(7, NODES, 20))
ESTIMATES = {
    Mode.SEMI_HONEST: (0.022, 0.0015, 1.4 + 0.22 + 0.2),
    Mode.MALICIOUS: (0.058, 0.005, 3.2 + 0.22 + 0.9),
}
"""By mode, seconds: a node's masks, its sharing, the coordinator's masks, sum and shares.

From 0.42 ms for each mask, 25 us for each agreement of keys and 2 us for each share and
coefficient of 100, on a machine whose cipher is twice as fast.
"""

READERS: Mapping[str, Callable[[bytes, str], object]] = {
    "offer": messages.Offer.read,
    "nonce": lambda data, _peer: data,
    "shares": messages.Shares.read,
    "signature": lambda data, _peer: data,
    "revealed": messages.read_revealed,
}


def large(mode: Mode) -> list[common.Result]:
    """Returns one round beside the estimates."""
    tenth = Fraction(1, 10)
    assumptions = Assumptions(mode, tenth, tenth)
    found = choose(NODES, assumptions)
    ours = Ours(NODES, SIZE, WORD_BITS, assumptions, LOST)
    ours.run(np.zeros(SIZE, np.float32), simulated=True)
    of = f"{mode}, n={NODES} d={SIZE} k={found.neighbours} t={found.threshold} lost={len(LOST)}"
    masks, shares, opening = ESTIMATES[mode]
    spent = ours.spent
    masked = [m - e for m, e in zip(spent["mask"], spent["encode"], strict=True)][1:MASKED]
    opened = sum(spent["add"]) + spent["reconstruct and unmask"][0]

    def beside(
        what: str,
        metric: common.Metric,
        ours: list[float],
        peer: float,
        name: str = "the estimate",
    ) -> common.Result:
        unit = "s" if metric == "cpu_time" else "B"
        return common.compare(
            f"{what}, {of}", metric, unit, ours=ours, peer=[peer] * len(ours), peer_name=name
        )

    vector = SIZE * WORD_BITS // 8
    return [
        beside("mask", "cpu_time", masked, masks),
        beside("share keys", "cpu_time", spent["share keys"], shares),
        beside(
            "check the roster's signatures",
            "cpu_time",
            spent["check signatures"],
            NODES / 15_300,
            "15,300 signatures a second",
        ),
        beside("coordinator, add to unmask", "cpu_time", [opened], opening),
        beside("bytes up of a node", "bytes", [ours.upload], vector, "the masked vector alone"),
        beside("bytes down to a node but for the model", "bytes", [ours.got], vector, "the model"),
        beside(
            "memory of the coordinator",
            "memory",
            [peak(ours.setting, ours)],
            8 * vector,
            "8 words an entry, the bound at n = 50",
        ),
    ]


def peak(setting: Setting, ours: Ours) -> int:
    """Returns the most bytes that a coordinator holds at once, of what it makes from messages."""
    invited = frozenset(range(NODES))
    state: stages.State = stages.Offering(setting, invited, ours.trusted)
    tracemalloc.start()
    for stage in ("offer", "nonce", "shares", "vector", "signature", "revealed"):
        if stage == "vector":
            state = _vectors(state)
        elif stage not in ours.said:
            continue
        for i, data in ours.said.get(stage, {}).items():
            message = READERS[stage](data, str(i))
            state, _ = coordinator.step(state, Received(i, message))  # type: ignore[arg-type]
        state, effect = coordinator.step(state, Close())
        assert isinstance(effect, Ask | Opened), effect
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return most


def _vectors(state: stages.State) -> stages.State:
    """Returns the state with a vector of each node, of which one is there at a time."""
    for i in range(NODES):
        if i not in LOST:
            words = np.zeros(SIZE, word_type(WORD_BITS))
            state, _ = coordinator.step(state, Received(i, node.Upload(words, ())))
    return state


MODES = tuple(mode.value for mode in Mode)


def rows_of(mode: str) -> list[common.Result]:
    """Returns the rows of a mode, or of ``"both"``."""
    modes = Mode if mode == "both" else (Mode(mode),)
    return [row for each in modes for row in large(each)]
