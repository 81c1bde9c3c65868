"""What a lying coordinator holds: a real node on mutual TLS, six members of its own, and their sums.

The members have real keys, on the federation's roster. What it does with them: `lies`.
"""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from flwr.app import Message, RecordDict

from fedsec.flower import secure_messages
from fedsec.flower.asked import digest_of
from fedsec.flower.messages import Heading, instruction
from fedsec.flower.secure_messages import Stage
from fedsec.flower.secure_session import make_setting
from fedsec.flower.sums import sum_form
from fedsec.identity import roster as signed_rosters
from fedsec.identity.roster import Member
from fedsec.plan import FederationPlan
from fedsec.secagg import node
from fedsec.secagg.masks import Words, word_type
from fedsec.secagg.membership import Setting
from fedsec.secagg.messages import Delivery, Offer, Roster, Shares, Survivors
from fedsec.tasks.arrays import get_arrays
from fedsec.tasks.table import load_task
from fedsec.wire import codec
from fedsec.wire.generated.fleet_pb2 import RunOffer
from tests.clients.coordinator import NODE_ID, FakeCoordinator, Session
from tests.clients.orders import encoded
from tests.pki import FEDERATION, Pki

RUN = 4711
PATIENCE_S = 240.0  # a worker's start on a loaded machine
PEERS = tuple(range(21, 27))
ALL = (NODE_ID, *PEERS)
CROWD = tuple(range(31, 91))  # with all of them a sum is a ring, and not everybody's neighbour
EVERYONE = (*ALL, *CROWD)
GONE = PEERS[0]
SITE = """
schema = 1
[limits]
threads = 1
[policy]
secure_aggregation = "malicious"
min_cohort = 7
min_group = 6
min_word_bits = 32
max_clip = 10.0
[data.digits]
connector = "digits"
partition = 0
partitions = 10
"""
PLAN = """
schema = 1
name = "lies"
[task]
name = "digits"
options = { model = "mlp" }
[training]
rounds = 1000
local_steps = 1
[nodes]
min_available = 7
quorum = 5
[secure_aggregation]
mode = "malicious"
clip = 10.0
"""

Result = dict[str, str]
Change = Callable[[Any], Any]


@dataclass
class Sum:
    """One attempt at one sum: the victim is a real node, the peers are this program's."""

    liar: "Liar"
    round: int
    attempt: int = 1
    peers: dict[int, node.State] = field(default_factory=dict)
    offers: dict[int, Offer] = field(default_factory=dict)
    nonces: dict[int, bytes] = field(default_factory=dict)
    shares: dict[int, Shares] = field(default_factory=dict)
    signatures: dict[int, bytes] = field(default_factory=dict)
    delivery: Delivery | None = None
    crowd: tuple[int, ...] = PEERS

    @property
    def heading(self) -> Heading:
        return Heading(self.round, self.attempt, self.liar.plan.digest)

    def first(self) -> RecordDict:
        content = instruction(
            self.liar.model, round_number=self.round, attempt=self.attempt, plan=self.heading.plan
        )
        return secure_messages.with_stage(content)

    def setting(self, content: RecordDict | None = None) -> Setting:
        """Returns what the sum is about, for members that were sent `content` first."""
        asked = digest_of(self.first() if content is None else content)
        return make_setting(self.liar.plan, self.liar.form, RUN, self.heading, asked)

    async def ask(self, stage: Stage, body: bytes) -> object:
        """Sends a stage's message; returns the node's answer, or the reason why there is none."""
        content = secure_messages.request(stage, self.heading, body)
        return await self.liar.ask(content, stage)

    async def until(self, stage: Stage) -> None:
        """Does all that an honest coordinator does before `stage`."""
        steps = {
            Stage.OFFER: self.begin,
            Stage.NONCE: self.reveal_nonces,
            Stage.SHARES: self.share,
            Stage.VECTOR: self.mask,
            Stage.SIGNATURE: self.sign,
        }
        for before, step in steps.items():
            if before is stage:
                return
            await step()

    async def begin(self) -> None:
        offer = await self.liar.ask(self.first(), Stage.OFFER)
        assert isinstance(offer, Offer), offer
        self.offers[NODE_ID] = offer
        setting = self.setting()
        for peer in self.crowd:
            self.peers[peer], self.offers[peer] = node.begin(self.liar.nodes[peer], setting)

    @property
    def roster(self) -> Roster:
        return Roster(tuple(self.offers[each] for each in sorted(self.offers)), self.nonces)

    async def reveal_nonces(self) -> None:
        shown = self.roster
        nonce = await self.ask(Stage.NONCE, shown.to_bytes())
        assert isinstance(nonce, bytes), nonce
        nonces = {NODE_ID: nonce}
        for peer in PEERS:
            nonces[peer] = self.step(peer, shown)  # type: ignore[assignment]
        self.nonces = nonces

    async def share(self) -> None:
        shares = await self.ask(Stage.SHARES, self.roster.to_bytes())
        assert isinstance(shares, Shares), shares
        self.shares[NODE_ID] = shares
        for peer in PEERS:
            self.shares[peer] = self.step(peer, self.roster)  # type: ignore[assignment]

    def delivered_to(self, holder: int) -> Delivery:
        return Delivery(
            tuple(
                replace(entry, peer=owner)
                for owner in sorted(self.shares)
                for entry in self.shares[owner].entries
                if entry.peer == holder
            )
        )

    async def mask(self) -> None:
        self.delivery = self.delivered_to(NODE_ID)
        upload = await self.ask(Stage.VECTOR, self.delivery.to_bytes())
        assert isinstance(upload, node.Upload), upload
        for peer in PEERS:
            self.step(peer, node.Deliver(self.delivered_to(peer), self.liar.zeros()))

    async def sign(self, survivors: tuple[int, ...] = ALL) -> None:
        signature = await self.ask(Stage.SIGNATURE, Survivors(survivors).to_bytes())
        assert isinstance(signature, bytes), signature
        self.signatures = {NODE_ID: signature}
        for peer in set(PEERS) & set(survivors):
            self.signatures[peer] = self.step(peer, Survivors(survivors))  # type: ignore[assignment]

    def step(self, peer: int, event: node.Event) -> object:
        self.peers[peer], effect = node.step(self.liar.nodes[peer], self.peers[peer], event)
        return effect


@dataclass
class Liar:
    """The program's state."""

    fake: FakeCoordinator
    session: Session
    pki: Pki
    keys: Mapping[int, Ed25519PrivateKey]
    plan: FederationPlan
    own_name: str
    rounds: int = 0

    def __post_init__(self) -> None:
        task, training = self.plan.learning
        model = load_task(task.name).make_model(task.options, training.seed)
        self.model = get_arrays(model)
        size = sum(array.size for array in self.model.values())
        self.form = sum_form(self.plan, size, Heading(1, 1, self.plan.digest))
        trusted = {each: self.public(each) for each in EVERYONE}
        self.nodes = {
            peer: node.Node(peer, self.keys[peer], os.urandom, trusted)
            for peer in EVERYONE
            if peer != NODE_ID
        }

    def zeros(self) -> Words:
        return np.zeros(self.form.length, word_type(self.form.word_bits))

    def public(self, member: int) -> bytes:
        return self.keys[member].public_key().public_bytes_raw()

    def sum(self) -> Sum:
        self.rounds += 1
        return Sum(self, self.rounds)

    async def sum_until(self, stage: Stage) -> Sum:
        begun = self.sum()
        await begun.until(stage)
        return begun

    def roster(self, serial: int, ids: tuple[int, ...] = EVERYONE, pki: Pki | None = None) -> bytes:
        members = tuple(
            Member(each, spiffe_of(each, self.own_name), self.public(each)) for each in ids
        )
        end = datetime.now(UTC).replace(microsecond=0) + timedelta(days=1)
        made = signed_rosters.Roster(FEDERATION, serial, end, members)
        return signed_rosters.sign(made, (pki or self.pki).root)

    async def offer(self, plan: str, roster: bytes = b"", run_id: int = RUN) -> tuple[bool, str]:
        self.session.send(run_offer=RunOffer(run_id=run_id, plan=plan, roster=roster))
        answered, accepted, reason = await self.fake.run_answer(PATIENCE_S)
        assert answered == run_id
        return accepted, reason

    async def ask(
        self,
        content: RecordDict,
        stage: Stage | None = None,
        *,
        kind: str = "train",
        run: int = RUN,
    ) -> object:
        """Sends a message; returns the node's answer at `stage`, or the reason why there is none."""
        self.session.push(*encoded(content, ttl=PATIENCE_S, run_id=run, kind=kind))
        header = await self.fake.reply(PATIENCE_S)
        if header.HasField("failure"):
            return str(header.failure.reason)
        stored = self.fake.stored.get(header.reply_to)
        answer: Message = codec.decode(header, stored.view() if stored else None)
        if stage is None:
            return f"answered with {', '.join(answer.content)}"
        return secure_messages.read_reply(stage, answer.content, "node", self.zeros())


def spiffe_of(member: int, own_name: str) -> str:
    return own_name if member == NODE_ID else f"spiffe://{FEDERATION}/node/{member:032x}"
