"""A whole session in one process: real nodes, real coordinator, every message through its bytes."""

import hashlib
import os
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from fedsec.errors import ProtocolError
from fedsec.secagg import coordinator, messages, node, stages
from fedsec.secagg.coordinator import Ask, Close, Opened, Received
from fedsec.secagg.masks import Words, word_type
from fedsec.secagg.membership import Setting
from fedsec.secagg.parameters import Assumptions, Mode
from fedsec.secagg.recovery import Lost
from fedsec.secagg.session import Session
from fedsec.secagg.shamir import Entropy

PLAN = hashlib.sha256(b"a plan").digest()
ASKED = hashlib.sha256(b"a model").digest()
STAGES = ("offer", "nonce", "shares", "vector", "signature", "revealed")
Sent = messages.Roster | messages.Delivery | messages.Survivors


def make_setting(
    *,
    words: int = 5,
    word_bits: int = 32,
    malicious: bool = False,
    attempt: int = 1,
    dropout: float = 0.1,
    corrupt: float = 0.1,
    quorum: int = 1,
    asked: bytes = ASKED,
) -> Setting:
    session = Session(PLAN, 17, 3, attempt, words, word_bits, malicious, asked=asked)
    mode = Mode.MALICIOUS if malicious else Mode.SEMI_HONEST
    shares = Fraction(str(corrupt)), Fraction(str(dropout))
    return Setting(session, Assumptions(mode, *shares), quorum)


def signer(identity: int) -> Ed25519PrivateKey:
    seed = hashlib.sha256(f"signer {identity}".encode()).digest()
    return Ed25519PrivateKey.from_private_bytes(seed)


def roster_of(ids: Collection[int]) -> dict[int, bytes]:
    return {i: signer(i).public_key().public_bytes_raw() for i in ids}


Tamper = Callable[[str, int, object], object]
"""Changes what a node answers at a stage; returns None where it is silent."""


def honest(_stage: str, _node: int, answer: object) -> object:
    return answer


@dataclass
class Rig:
    """Nodes with ids `ids` and vectors; `tamper` changes answers, `twist` requests."""

    setting: Setting
    ids: tuple[int, ...]
    vectors: Mapping[int, Words] = field(default_factory=dict)
    tamper: Tamper = honest
    twist: Callable[[str, int, Sent], Sent | None] = lambda _stage, _node, sent: sent
    trusted: Mapping[int, bytes] | None = None
    signers: Mapping[int, Ed25519PrivateKey] = field(default_factory=dict)
    entropy: Mapping[int, Entropy] = field(default_factory=dict)
    refused: dict[int, ProtocolError] = field(default_factory=dict)
    nodes: dict[int, node.Node] = field(default_factory=dict)
    states: dict[int, node.State] = field(default_factory=dict)
    asked: dict[str, dict[int, Sent]] = field(default_factory=dict)
    answers: dict[str, dict[int, object]] = field(default_factory=dict)
    meant: dict[str, dict[int, Any]] = field(default_factory=dict)
    rejected: dict[int, ProtocolError] = field(default_factory=dict)

    def __post_init__(self) -> None:
        session = self.setting.session
        rng = np.random.default_rng(1)
        if not self.vectors:
            top = 2**session.word_bits
            self.vectors = {
                i: rng.integers(0, top, session.words).astype(word_type(session.word_bits))
                for i in self.ids
            }
        if self.trusted is None and session.malicious:
            self.trusted = roster_of(self.ids)

    def expected(self, survivors: Collection[int]) -> list[int]:
        total = sum(self.vectors[i].astype(object) for i in survivors)
        return [int(value) % 2**self.setting.session.word_bits for value in total]

    def run(self) -> Opened | Lost:
        """Returns how the session ends."""
        state: stages.State = stages.Offering(self.setting, frozenset(self.ids), self.trusted)
        for i in self.ids:
            key, draw = self.signers.get(i, signer(i)), self.entropy.get(i, os.urandom)
            self.nodes[i] = node.Node(i, key, draw, self.trusted)
            self.states[i], offer = node.begin(self.nodes[i], self.setting)
            state = self.take(state, "offer", i, offer)
        names = iter(STAGES[1:])
        while True:
            state, effect = coordinator.step(state, Close())
            if not isinstance(effect, Ask):
                assert effect is not None
                return effect
            stage = next(names)
            if stage in {"nonce", "signature"} and not self.setting.session.malicious:
                stage = next(names)
            self.asked[stage] = dict(effect.requests)
            for i, request in effect.requests.items():
                state = self.ask(state, stage, i, request)

    def said(self, stage: str, i: int) -> Any:
        """Returns what a node answered, were it lost on the way or not."""
        return self.meant[stage][i]

    def ask(self, state: stages.State, stage: str, i: int, request: Sent) -> stages.State:
        twisted = self.twist(stage, i, request)
        if twisted is None:
            return state
        try:
            event = self.event_of(twisted, i)
            self.states[i], answer = node.step(self.nodes[i], self.states[i], event)
        except ProtocolError as error:
            self.refused[i] = error
            return state
        return self.take(state, stage, i, answer)

    def event_of(self, sent: Sent, i: int) -> node.Event:
        data = sent.to_bytes()
        if isinstance(sent, messages.Delivery):
            delivery = messages.Delivery.read(data, "coordinator")
            return node.Deliver(delivery, self.vectors[i].copy())
        return type(sent).read(data, "coordinator")

    def take(self, state: stages.State, stage: str, i: int, answer: object) -> stages.State:
        self.meant.setdefault(stage, {})[i] = answer
        changed = self.tamper(stage, i, answer)
        if changed is None:
            return state
        self.answers.setdefault(stage, {})[i] = changed
        received = Received(i, through_bytes(changed))
        try:
            state, effect = coordinator.step(state, received)
        except ProtocolError as error:
            self.rejected[i] = error
            return state
        assert effect is None
        with pytest.raises(ProtocolError, match="out-of-order"):  # of anything, the first counts
            coordinator.step(state, received)
        return state


def through_bytes(answer: object) -> object:
    match answer:
        case messages.Offer() | messages.Shares():
            return type(answer).read(answer.to_bytes(), "peer")
        case tuple():
            return messages.read_revealed(messages.write_revealed(answer), "peer")
        case _:
            return answer


def silent(at: Mapping[int, str]) -> Tamper:
    """Nodes that say nothing at a stage."""
    return lambda stage, i, answer: None if at.get(i) == stage else answer
