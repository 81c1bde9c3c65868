"""Secure aggregation beside Flower 1.41's SecAgg+ functions: the same n, d, k, t and losses.

Processor time of each part, in one process and one run, and bytes on the wire. Both sides know the
same ring; ours checks signatures besides, which Flower has none of: that is a row of its own. With
``--large`` n = 1,000 with simulated peers instead, beside what was estimated for it.

    python benchmarks/secagg.py [--quick] [--large] [--json FILE]
"""

import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from fractions import Fraction

import common
import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import CTR
from secagg_flower import Flower

from fedsec.encoding import FixedPoint
from fedsec.flower.messages import Metrics
from fedsec.flower.sums import SumForm
from fedsec.privacy.keystream import Keystream
from fedsec.processors import threads_allowed
from fedsec.secagg import coordinator, masks, membership, messages, node, stages
from fedsec.secagg.coordinator import Ask, Close, Opened, Received
from fedsec.secagg.keys import Stream
from fedsec.secagg.parameters import Assumptions, Mode, choose
from fedsec.secagg.session import Session

FLOWER = "flwr 1.41 functions"
MASKS = 33  # that a node of k = 32 makes
MASKED = 6  # nodes whose masking is timed; the others' vectors are made to fit


@dataclass
class Ours:
    """One round of our protocol: real nodes, real coordinator.

    Attributes:
        nodes: n.
        size: d.
        word_bits: 16 or 32.
        assumptions: From which k and t follow.
        lost: Nodes that share their keys and then leave.
        spent: Processor seconds, by step.
    """

    nodes: int
    size: int
    word_bits: int
    assumptions: Assumptions
    lost: frozenset[int]
    spent: dict[str, list[float]] = field(default_factory=dict)
    upload: int = 0
    wall: list[float] = field(default_factory=list)

    def timed(self, step: str, started: float) -> None:
        """Adds what a step took."""
        self.spent.setdefault(step, []).append(time.process_time() - started)

    def run(self, vector: np.ndarray, *, simulated: bool = False) -> None:
        """Runs the round; `simulated` peers check no signatures and send no masks of their own."""
        self.form = SumForm(FixedPoint(self.size, 8.0, self.nodes, self.word_bits), 8.0, self.nodes)
        session = Session(bytes(32), 1, 1, 1, self.form.length, self.word_bits, asked=bytes(32))
        self.setting = membership.Setting(session, self.assumptions, 4)
        self.signers = [Ed25519PrivateKey.generate() for _ in range(self.nodes)]
        self.people = [node.Node(i, self.signers[i], os.urandom) for i in range(self.nodes)]
        state: stages.State = stages.Offering(self.setting, frozenset(range(self.nodes)))
        states: list[node.State] = []
        for person in self.people:
            begun, offer = node.begin(person, self.setting)
            states.append(begun)
            state, _ = coordinator.step(state, Received(person.id, offer))
            self.sent = len(offer.to_bytes())
        state, ask = coordinator.step(state, Close())
        assert isinstance(ask, Ask)
        state = self.share(state, ask, states, simulated=simulated)
        state, ask = coordinator.step(state, Close())
        assert isinstance(ask, Ask)
        codes = self.mask(state, ask, states, vector, simulated=simulated)
        state, ask = coordinator.step(self.state, Close())
        assert isinstance(ask, Ask)
        for i, request in ask.requests.items():
            assert isinstance(request, messages.Survivors)
            states[i], revealed = node.step(self.people[i], states[i], request)
            assert isinstance(revealed, tuple)
            state, _ = coordinator.step(state, Received(i, revealed))
            self.revealed = len(messages.write_revealed(revealed))
        started, wall = time.process_time(), time.perf_counter()
        _, opened = coordinator.step(state, Close())
        self.timed("reconstruct and unmask", started)
        self.wall.append(time.perf_counter() - wall)
        assert isinstance(opened, Opened), opened
        assert not opened.blamed
        if not simulated:
            assert np.array_equal(opened.total, codes), "the sum is exact"
        self.upload = (
            self.form.length * self.word_bits // 8 + self.sent + self.shares + self.revealed
        )

    def share(
        self, state: stages.State, ask: Ask, states: list[node.State], *, simulated: bool
    ) -> stages.State:
        """Has every node share its keys."""
        for i, roster in ask.requests.items():
            assert isinstance(roster, messages.Roster)
            if not simulated and i < MASKED:
                started = time.process_time()
                membership.check_roster(self.setting, roster, None)
                self.timed("check signatures", started)
            started = time.process_time()
            begun = states[i]
            assert isinstance(begun, node.Offered)
            states[i], shares = node._share(self.people[i], begun, roster)
            self.timed("share keys", started)
            assert isinstance(shares, messages.Shares)
            state, _ = coordinator.step(state, Received(i, shares))
            self.shares = len(shares.to_bytes())
        return state

    def mask(
        self,
        state: stages.State,
        ask: Ask,
        states: list[node.State],
        vector: np.ndarray,
        *,
        simulated: bool,
    ) -> np.ndarray:
        """Has every node that is left mask its vector; returns the sum of what they masked."""
        codes = np.zeros(self.form.length, masks.word_type(self.word_bits))
        blank = np.zeros_like(codes)
        for i, delivery in ask.requests.items():
            if i in self.lost:
                continue
            assert isinstance(delivery, messages.Delivery)
            started = time.process_time()
            if simulated and i >= MASKED:
                words = blank[:1]
            else:
                words = self.form.encode(vector, Metrics(10, {}), Keystream())
                codes += words
            self.timed("encode", started)
            states[i], upload = self.deliver(i, states[i], delivery, words)
            self.timed("mask", started)
            if simulated and i >= MASKED:
                upload = node.Upload(blank, ())
            started = time.process_time()
            state, _ = coordinator.step(state, Received(i, upload))
            self.timed("add", started)
        self.state = state
        return codes

    def deliver(
        self, i: int, state: node.State, delivery: messages.Delivery, words: np.ndarray
    ) -> tuple[node.State, node.Upload]:
        """Has one node mask; a simulated peer's vector has one word."""
        assert isinstance(state, node.Shared)
        if len(words) == 1:
            held, _ = node._open(self.people[i], state, delivery.entries)
            peers = frozenset(entry.peer for entry in delivery.entries)
            return node.Masked(state.setting, state.members, peers, held, state.own), node.Upload(
                words, ()
            )
        after, upload = node.step(self.people[i], state, node.Deliver(delivery, words))
        assert isinstance(upload, node.Upload)
        return after, upload


def beside_flower(nodes: int, size: int, lost: int, *, runs: int) -> list[common.Result]:
    """Returns the comparison at one size."""
    gone = frozenset(range(3, 3 + 7 * lost, 7))
    tenth = Fraction(1, 10)
    assumptions = Assumptions(Mode.MALICIOUS, tenth, tenth, security_bits=40)
    found = choose(nodes, assumptions)
    vector = np.random.default_rng(1).normal(0, 0.001, size).astype(np.float32)
    ours = Ours(nodes, size, 32, assumptions, gone)
    narrow = Ours(nodes, size, 16, assumptions, gone)
    flower = Flower(nodes, found.neighbours, found.threshold, gone)
    for _ in range(runs):
        ours.run(vector)
        narrow.run(vector)
        flower.run(vector, masked=MASKED)
    of = f"n={nodes} d={size} k={found.neighbours} t={found.threshold} lost={lost}"
    names = ("reconstruct and unmask", "share keys", "mask", "add")
    words = {"mask": "encode and mask", "add": "add a masked vector"}
    checks = common.statistics.median(ours.spent["check signatures"])
    checked = [checks + each for each in ours.spent["share keys"]]
    rows = [
        _row(f"{words.get(name, name)}, {of}", ours.spent[name], flower.spent[name])
        for name in names
    ]
    rows += [
        _row(f"encode and mask, 16 bits, {of}", narrow.spent["mask"], flower.spent["mask"]),
        _row(f"share keys, signatures checked, {of}", checked, flower.spent["share keys"]),
    ]
    rows.append(
        common.compare(
            f"reconstruct and unmask, {threads_allowed()} cores, {of}",
            "time",
            "s",
            ours=ours.wall,
            peer=flower.spent["reconstruct and unmask"],
            peer_name=f"{FLOWER}, one core",
        )
    )
    return rows + _bytes_up(of, size, (("", ours), (", 16 bits", narrow)), flower)


def _bytes_up(
    of: str, size: int, sides: tuple[tuple[str, Ours], ...], flower: Flower
) -> list[common.Result]:
    """Returns what a node sends in a whole attempt, by entry of its vector."""
    return [
        common.compare(
            f"bytes up per entry, all stages{name}, {of}",
            "bytes",
            "B",
            ours=[side.upload / size],
            peer=[flower.upload / size],
            peer_name=f"{FLOWER}, masked vector alone",
        )
        for name, side in sides
    ]


def _row(case: str, ours: list[float], peer: list[float]) -> common.Result:
    count = min(len(ours), len(peer))
    return common.compare(
        case, "cpu_time", "s", ours=ours[:count], peer=peer[:count], peer_name=FLOWER
    )


def one_mask(size: int, runs: int, count: int = 1) -> common.Result:
    """Returns one mask of d words, of `count` that are made together, beside the bare cipher."""
    vector = np.zeros(size, np.uint32)
    streams = [Stream(os.urandom(16), os.urandom(16)) for _ in range(count)]
    stream = streams[0]
    blank, buffer = bytes(masks.CHUNK), bytearray(masks.CHUNK + 15)

    def bare() -> None:
        cipher = Cipher(AES(stream.key), CTR(stream.counter)).encryptor()
        for start in range(0, vector.nbytes, masks.CHUNK):
            part = min(masks.CHUNK, vector.nbytes - start)
            cipher.update_into(memoryview(blank)[:part], buffer)

    ours, peer = [], []
    for _ in range(runs):
        ours.append(_spent(lambda: masks.apply(vector, streams, [], threads=1)) / count)
        peer.append(_spent(bare))
    return common.compare(
        f"one mask{f', of {count} together' if count > 1 else ''}, one core, d={size}",
        "cpu_time",
        "s",
        ours=ours,
        peer=peer,
        peer_name="the bare AES-128-CTR keystream",
    )


def _spent(act: Callable[[], None]) -> float:
    started = time.process_time()
    act()
    return time.process_time() - started


ESTIMATES = {
    (Mode.SEMI_HONEST, 40): (0.022, 1.4 + 0.22 + 0.2),
    (Mode.MALICIOUS, 40): (0.048, 2.7 + 0.22 + 0.7),
    (Mode.MALICIOUS, 80): (0.058, 3.2 + 0.22 + 0.9),
}
"""By mode and sigma: seconds of a client's masks, and of the coordinator's masks, sum and shares.

At n = 1,000, d = 1M; from 0.42 ms for each mask, on a machine whose cipher is twice as fast.
"""


def large(mode: Mode, security_bits: int) -> list[common.Result]:
    """Returns n = 1,000, d = 1M with simulated peers, beside the estimates."""
    tenth = Fraction(1, 10)
    assumptions = Assumptions(mode, tenth, tenth, security_bits=security_bits)
    found = choose(1000, assumptions)
    round_ = Ours(1000, 1_000_000, 32, assumptions, frozenset(range(0, 1000, 20)))
    round_.run(np.zeros(1_000_000, np.float32), simulated=True)
    of = f"sigma={security_bits} n=1000 d=1000000 k={found.neighbours} t={found.threshold} lost=50"
    add = sum(round_.spent["add"])
    masked = round_.spent["mask"][1:MASKED]
    encoded = round_.spent["encode"][1:MASKED]
    client = [m - e for m, e in zip(masked, encoded, strict=True)]
    server = [add + round_.spent["reconstruct and unmask"][0]]
    estimate = ESTIMATES[mode, security_bits]
    return [
        common.compare(
            f"mask, {mode}, {of}", "cpu_time", "s",
            ours=client, peer=[estimate[0]] * len(client), peer_name="the estimate",
        ),
        common.compare(
            f"coordinator, add to unmask, {mode}, {of}", "cpu_time", "s",
            ours=server, peer=[estimate[1]], peer_name="the estimate",
        ),
    ]  # fmt: skip


def main() -> None:
    """Measures and publishes."""
    parser = common.arguments(__doc__ or "")
    parser.add_argument(
        "--large", action="store_true", help="n = 1,000, simulated peers, and nothing else"
    )
    options = parser.parse_args()
    if options.large:
        rows = [row for mode, bits in ESTIMATES for row in large(mode, bits)]
    else:
        rows = beside_flower(100, 1_000_000, 5, runs=1 if options.quick else 3)
        rows += [one_mask(1_000_000, 41, MASKS), one_mask(1_000_000, 41)]
    common.publish(rows, options.json)


if __name__ == "__main__":
    main()
