"""One attempt of our protocol, nodes and coordinator in this process: for `benchmarks/secagg.py`.

In malicious mode it has all six stages, with commitments, nonces and signatures on the survivors.
"""

import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from fedsec.encoding import FixedPoint
from fedsec.flower.messages import Metrics
from fedsec.flower.sums import SumForm
from fedsec.privacy.keystream import Keystream
from fedsec.secagg import coordinator, disclosure, masks, membership, messages, node, stages
from fedsec.secagg.coordinator import Ask, Close, Opened, Received
from fedsec.secagg.parameters import Assumptions, Mode
from fedsec.secagg.session import Session

MASKED = 6  # nodes whose masking is timed; the others' vectors are made to fit
CLIP = 8.0


@dataclass
class Ours:
    """One round of our protocol: real nodes, real coordinator.

    Attributes:
        nodes: n.
        size: d.
        word_bits: 16 or 32.
        assumptions: From which k and t follow; its mode is the session's.
        lost: Nodes that share their keys and then leave.
        spent: Processor seconds, by step.
        wall: Seconds that the coordinator's last step took.
        sent: Bytes that node 0 sent, all stages but the vector.
        got: Bytes that node 0 was sent.
        said: What every node answered but for its vector, by stage, if that is to be kept.
    """

    nodes: int
    size: int
    word_bits: int
    assumptions: Assumptions
    lost: frozenset[int]
    spent: dict[str, list[float]] = field(default_factory=dict)
    wall: list[float] = field(default_factory=list)
    sent: int = 0
    got: int = 0
    said: dict[str, dict[int, bytes]] = field(default_factory=dict)

    @property
    def upload(self) -> int:
        """Bytes that a node sends in a whole attempt."""
        return self.form.length * self.word_bits // 8 + self.sent

    def timed(self, step: str, started: float) -> None:
        """Adds what a step took."""
        self.spent.setdefault(step, []).append(time.process_time() - started)

    def run(self, vector: np.ndarray, *, simulated: bool = False) -> None:
        """Runs the round; of `simulated` peers most check no signature and send no masks."""
        self.prepare()
        self.simulated = simulated
        for i, person in enumerate(self.people):
            self.states[i], offer = node.begin(person, self.setting)
            self.take("offer", i, offer, offer.to_bytes())
        if self.setting.session.malicious:
            self.reveal_nonces(self.close())
        self.share(self.close())
        codes = self.mask(self.close(), vector)
        if self.setting.session.malicious:
            self.disclose("signature", self.close())
        self.disclose("revealed", self.close())
        started, wall = time.process_time(), time.perf_counter()
        _, opened = coordinator.step(self.state, Close())
        self.timed("reconstruct and unmask", started)
        self.wall.append(time.perf_counter() - wall)
        assert isinstance(opened, Opened), opened
        assert not opened.blamed
        if not simulated:
            assert np.array_equal(opened.total, codes), "the sum is exact"

    def prepare(self) -> None:
        """Makes the session, the nodes and the roster that they trust."""
        encoding = FixedPoint(self.size, CLIP, self.nodes, self.word_bits)
        self.form = SumForm(encoding, CLIP, self.nodes)
        session = Session(
            plan=bytes(32),
            run=1,
            round=1,
            attempt=1,
            words=self.form.length,
            word_bits=self.word_bits,
            malicious=self.assumptions.mode is Mode.MALICIOUS,
            asked=bytes(32),
        )
        self.setting = membership.Setting(session, self.assumptions, 4)
        signers = [Ed25519PrivateKey.generate() for _ in range(self.nodes)]
        keys = {i: key.public_key().public_bytes_raw() for i, key in enumerate(signers)}
        self.trusted = keys if session.malicious else None
        self.people = [node.Node(i, k, os.urandom, self.trusted) for i, k in enumerate(signers)]
        self.states: dict[int, node.State] = {}
        self.said, self.sent, self.got = {}, 0, 0
        invited = frozenset(range(self.nodes))
        self.state: stages.State = stages.Offering(self.setting, invited, self.trusted)

    def take(self, stage: str, i: int, answer: object, data: bytes) -> None:
        """Hands a node's answer to the coordinator."""
        self.said.setdefault(stage, {})[i] = data
        self.sent += len(data) if i == 0 else 0
        started = time.process_time()
        self.state, _ = coordinator.step(self.state, Received(i, answer))  # type: ignore[arg-type]
        self.timed(f"coordinator, {stage}", started)

    def close(self) -> Mapping[int, messages.Roster | messages.Delivery | messages.Survivors]:
        """Ends a stage; returns what the next one sends."""
        started = time.process_time()
        self.state, ask = coordinator.step(self.state, Close())
        self.timed("coordinator, between stages", started)
        assert isinstance(ask, Ask), ask
        self.got += len(ask.requests[0].to_bytes())
        return ask.requests

    def reveal_nonces(self, requests: Mapping[int, object]) -> None:
        """Shows everybody the roster; MASKED of them look at it, and are timed."""
        for i, roster in requests.items():
            state = self.states[i]
            assert isinstance(state, node.Offered)
            if i < MASKED:
                started = time.process_time()
                self.states[i], _ = node.step(self.people[i], state, roster)  # type: ignore[arg-type]
                self.timed("check signatures", started)
            self.take("nonce", i, state.secrets.nonce, state.secrets.nonce)

    def share(self, requests: Mapping[int, object]) -> None:
        """Has every node share its keys; MASKED of them check the roster, and are timed."""
        for i, roster in requests.items():
            assert isinstance(roster, messages.Roster)
            state = self.states[i]
            if i < MASKED and isinstance(state, node.Revealing):
                node._check_same(state, roster)
            elif i < MASKED:
                started = time.process_time()
                membership.check_roster(self.setting, roster, self.trusted)
                self.timed("check signatures", started)
            started = time.process_time()
            assert isinstance(state, node.Offered | node.Revealing)
            self.states[i], shares = node._share(self.people[i], state, roster)
            self.timed("share keys", started)
            assert isinstance(shares, messages.Shares)
            self.take("shares", i, shares, shares.to_bytes())

    def mask(self, requests: Mapping[int, object], vector: np.ndarray) -> np.ndarray:
        """Has every node that is left mask its vector; returns the sum of what they masked."""
        codes = np.zeros(self.form.length, masks.word_type(self.word_bits))
        blank = np.zeros_like(codes)
        for i, delivery in requests.items():
            if i in self.lost:
                continue
            assert isinstance(delivery, messages.Delivery)
            if self.simulated and i >= MASKED:
                self.open(i, delivery)
                upload = node.Upload(blank, ())
            else:
                started = time.process_time()
                words = self.form.encode(vector, Metrics(10, {}), Keystream())
                codes += words
                self.timed("encode", started)
                event = node.Deliver(delivery, words)
                self.states[i], masked = node.step(self.people[i], self.states[i], event)
                assert isinstance(masked, node.Upload)
                upload = masked
                self.timed("mask", started)
            started = time.process_time()
            self.state, _ = coordinator.step(self.state, Received(i, upload))
            self.timed("add", started)
        return codes

    def open(self, i: int, delivery: messages.Delivery) -> None:
        """Has a simulated peer open its shares, and mask nothing."""
        state = self.states[i]
        assert isinstance(state, node.Shared)
        held, _ = node._open(self.people[i], state, delivery.entries)
        peers = frozenset(entry.peer for entry in delivery.entries)
        self.states[i] = node.Masked(state.setting, state.members, peers, held, state.own)

    def disclose(self, stage: str, requests: Mapping[int, object]) -> None:
        """Has every node sign the survivors, or reveal its shares."""
        for i, survivors in requests.items():
            assert isinstance(survivors, messages.Survivors)
            started, state = time.process_time(), self.states[i]
            if self.simulated and i >= MASKED and stage == "revealed":
                assert isinstance(state, node.Masked)
                answer: object = disclosure.shares(i, state.held, state.own, survivors.nodes)
            else:
                self.states[i], answer = node.step(self.people[i], state, survivors)
            self.timed(f"node, {stage}", started)
            data = answer if isinstance(answer, bytes) else messages.write_revealed(answer)  # type: ignore[arg-type]
            self.take(stage, i, answer, data)
