"""A coordinator that lies, as a program: `python -m tests.end_to_end.liar DIRECTORY`.

It makes a node's directory (``DIRECTORY/node``), listens on loopback with mutual TLS, waits for that
node's own program, and leads it through rounds of secure sums in which it sends what it likes. The
six other members of each sum are its own: by their real keys, on the federation's roster.

It writes ``DIRECTORY/results.json``: for each lie, what the node answered to it.
"""

import asyncio
import hashlib
import json
import os
import sys
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from flwr.app import ConfigRecord, Message, RecordDict

from fedsec import flwr_compat
from fedsec.flower import secure_messages
from fedsec.flower.messages import Heading, instruction
from fedsec.flower.secure_messages import SECAGG, Stage
from fedsec.flower.secure_session import make_setting
from fedsec.flower.sums import sum_form
from fedsec.identity import roster as signed_rosters
from fedsec.identity.roster import Member
from fedsec.identity.signing import load_signing_key
from fedsec.plan import FederationPlan
from fedsec.secagg import messages, node
from fedsec.secagg.masks import Words, word_type
from fedsec.secagg.membership import Members
from fedsec.secagg.messages import Delivery, Offer, Roster, Shares, Survivors
from fedsec.tasks.arrays import get_arrays
from fedsec.tasks.table import load_task
from fedsec.wire import codec
from fedsec.wire.generated.fleet_pb2 import RunOffer
from fedsec.wire.headers import new_message_id
from tests.clients.coordinator import NODE_ID, FakeCoordinator, Session, make_node
from tests.pki import FEDERATION, Pki, make_pki

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
        setting = make_setting(self.liar.plan, self.liar.form, RUN, self.heading)
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
        envelope = flwr_compat.Envelope(
            message_id=new_message_id(),
            reply_to="",
            run_id=run,
            src_node_id=1,
            dst_node_id=NODE_ID,
            group_id="",
            created_at=time.time(),
            ttl=PATIENCE_S,
            message_type=kind,
        )
        self.session.push(*codec.encode(flwr_compat.make_message(envelope, content)))
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


def forged(begun: Sum, which: int) -> Roster:
    """Puts keys of the coordinator's own in the place of a member's, signed by a key of its own."""
    liar = begun.liar
    key = Ed25519PrivateKey.generate()
    setting = make_setting(liar.plan, liar.form, RUN, begun.heading)
    _, offer = node.begin(node.Node(which, key, os.urandom, {which: b""}), setting)
    offers = {**begun.offers, which: offer}
    return Roster(tuple(offers[each] for each in sorted(offers)))


# --- the lies -------------------------------------------------------------------------------------


async def at(liar: Liar, stage: Stage, body: Callable[[Sum], bytes]) -> object:
    """Is honest before `stage`, and sends `body` there."""
    begun = await liar.sum_until(stage)
    return await begun.ask(stage, body(begun))


async def foreign_keys(liar: Liar) -> object:
    return await at(liar, Stage.NONCE, lambda begun: forged(begun, PEERS[2]).to_bytes())


async def invented_member(liar: Liar) -> object:
    return await at(liar, Stage.NONCE, lambda begun: forged(begun, 99).to_bytes())


async def few_members(liar: Liar) -> object:
    return await at(liar, Stage.NONCE, lambda begun: Roster(begun.roster.offers[:4]).to_bytes())


async def fewer_than_the_site_wants(liar: Liar) -> object:
    return await at(liar, Stage.NONCE, lambda begun: Roster(begun.roster.offers[:6]).to_bytes())


async def replayed_keys(liar: Liar) -> object:
    before = await liar.sum_until(Stage.NONCE)
    return await at(
        liar,
        Stage.NONCE,
        lambda begun: replace(
            begun.roster,
            offers=tuple(
                before.offers[each] if each == PEERS[1] else begun.offers[each]
                for each in sorted(begun.offers)
            ),
        ).to_bytes(),
    )


async def another_roster_than_shown(liar: Liar) -> object:
    begun = await liar.sum_until(Stage.SHARES)
    setting = make_setting(liar.plan, liar.form, RUN, begun.heading)
    _, begun.offers[PEERS[1]] = node.begin(liar.nodes[PEERS[1]], setting)  # by its own real key
    return await begun.ask(Stage.SHARES, begun.roster.to_bytes())


async def chosen_nonce(liar: Liar) -> object:
    begun = await liar.sum_until(Stage.SHARES)
    begun.nonces[PEERS[1]] = bytes(32)
    return await begun.ask(Stage.SHARES, begun.roster.to_bytes())


async def lower_threshold(liar: Liar) -> object:
    return await at(
        liar,
        Stage.VECTOR,
        lambda begun: Delivery(begun.delivered_to(NODE_ID).entries[:3]).to_bytes(),
    )


async def replayed_shares(liar: Liar) -> object:
    before = await liar.sum_until(Stage.VECTOR)
    return await at(liar, Stage.VECTOR, lambda _: before.delivered_to(NODE_ID).to_bytes())


async def invented_neighbour(liar: Liar) -> object:
    def body(begun: Sum) -> bytes:
        *entries, last = begun.delivered_to(NODE_ID).entries
        return Delivery((*entries, replace(last, peer=99))).to_bytes()

    return await at(liar, Stage.VECTOR, body)


async def in_a_ring(liar: Liar) -> tuple[Sum, Members]:
    """Leads a sum of 67 members up to the vectors; returns it and who is whose neighbour."""
    liar.rounds += 1
    begun = Sum(liar, liar.rounds, crowd=(*PEERS, *CROWD))
    await begun.begin()
    shown = begun.roster
    nonce = await begun.ask(Stage.NONCE, shown.to_bytes())
    assert isinstance(nonce, bytes), nonce
    begun.nonces = {NODE_ID: nonce}
    for peer, state in begun.peers.items():
        assert isinstance(state, node.Offered)
        begun.nonces[peer] = state.secrets.nonce
    setting = make_setting(liar.plan, liar.form, RUN, begun.heading)
    members = Members.of(setting, begun.roster)
    assert not members.parameters.complete
    for peer in members.neighbours(NODE_ID)[: members.parameters.threshold - 1]:
        begun.step(peer, shown)
        begun.shares[peer] = begun.step(peer, begun.roster)  # type: ignore[assignment]
    shares = await begun.ask(Stage.SHARES, begun.roster.to_bytes())
    assert isinstance(shares, Shares), shares
    assert {entry.peer for entry in shares.entries} == set(members.neighbours(NODE_ID))
    return begun, members


async def neighbours_of_its_choice(liar: Liar) -> object:
    """Surrounds the node with members of the coordinator's own, who are none of its neighbours."""
    begun, members = await in_a_ring(liar)
    chosen = [each for each in begun.crowd if each not in members.neighbours(NODE_ID)]
    (model, *_) = begun.delivered_to(NODE_ID).entries
    entries = tuple(replace(model, peer=each) for each in chosen[: members.parameters.neighbours])
    return await begun.ask(Stage.VECTOR, Delivery(entries).to_bytes())


async def cut_off_in_a_ring(liar: Liar) -> object:
    """Says that so many neighbours are lost that fewer than t are left."""
    begun, _ = await in_a_ring(liar)
    return await begun.ask(Stage.VECTOR, begun.delivered_to(NODE_ID).to_bytes())


async def second_vector(liar: Liar) -> object:
    begun = await liar.sum_until(Stage.SIGNATURE)
    assert begun.delivery is not None
    fewer = Delivery(begun.delivery.entries[1:])
    return await begun.ask(Stage.VECTOR, fewer.to_bytes())


async def without_the_victim(liar: Liar) -> object:
    return await at(liar, Stage.SIGNATURE, lambda _: Survivors(PEERS).to_bytes())


async def few_survivors(liar: Liar) -> object:
    return await at(liar, Stage.SIGNATURE, lambda _: Survivors(ALL[:4]).to_bytes())


async def alive_twice(liar: Liar) -> object:
    return await at(liar, Stage.SIGNATURE, lambda _: Survivors((NODE_ID, *ALL)).to_bytes())


async def two_lists(liar: Liar) -> object:
    """Has all sign that all live; then says that one is gone, to get the share of its key, too."""
    begun = await liar.sum_until(Stage.REVEAL)
    others = tuple(each for each in ALL if each != GONE)
    statement = messages.survivors_statement(node_transcript(begun), others)
    signatures = {peer: liar.keys[peer].sign(statement) for peer in PEERS if peer != GONE}
    return await begun.ask(Stage.REVEAL, Survivors(others, signatures).to_bytes())


async def few_signatures(liar: Liar) -> object:
    def body(begun: Sum) -> bytes:
        return Survivors(ALL, dict(list(begun.signatures.items())[:4])).to_bytes()

    return await at(liar, Stage.REVEAL, body)


async def forged_signature(liar: Liar) -> object:
    def body(begun: Sum) -> bytes:
        return Survivors(ALL, {**begun.signatures, PEERS[0]: bytes(64)}).to_bytes()

    return await at(liar, Stage.REVEAL, body)


async def second_request(liar: Liar) -> object:
    """Opens a sum as it should be, then asks for the other kind of one member's shares."""
    begun = await liar.sum_until(Stage.REVEAL)
    honest = Survivors(ALL, begun.signatures)
    revealed = await begun.ask(Stage.REVEAL, honest.to_bytes())
    assert isinstance(revealed, tuple), revealed
    kinds = {each.owner: each.kind for each in revealed}
    assert set(kinds) == set(ALL)
    assert len(revealed) == len(ALL)  # one share each, of the seed
    others = tuple(each for each in ALL if each != GONE)
    return await begun.ask(Stage.REVEAL, Survivors(others, begun.signatures).to_bytes())


async def another_round(liar: Liar) -> object:
    begun = await liar.sum_until(Stage.SIGNATURE)
    await liar.sum_until(Stage.NONCE)
    return await begun.ask(Stage.SIGNATURE, Survivors(ALL).to_bytes())


async def the_same_attempt_again(liar: Liar) -> object:
    begun = await liar.sum_until(Stage.NONCE)
    return await liar.ask(begun.first(), Stage.OFFER)


async def an_earlier_attempt(liar: Liar) -> object:
    begun = liar.sum()
    begun.attempt = 2
    await begun.begin()
    begun.attempt = 1
    return await liar.ask(begun.first(), Stage.OFFER)


async def more_attempts(liar: Liar) -> object:
    begun = liar.sum()
    begun.attempt = 4
    return await liar.ask(begun.first(), Stage.OFFER)


async def another_run(liar: Liar) -> object:
    return await liar.ask(liar.sum().first(), Stage.OFFER, run=RUN + 1)


async def another_plan(liar: Liar) -> object:
    """Names a plan with another modulus and clip, under which masks would hide less."""
    weaker = FederationPlan.parse(PLAN.replace("clip = 10.0", "clip = 1.0\nword_bits = 16"))
    content = instruction(liar.model, round_number=liar.rounds + 1, plan=weaker.digest)
    return await liar.ask(secure_messages.with_stage(content))


async def in_plain(liar: Liar) -> object:
    digest = liar.plan.digest
    return await liar.ask(instruction(liar.model, round_number=liar.rounds + 1, plan=digest))


async def evaluation(liar: Liar) -> object:
    content = instruction(liar.model, round_number=liar.rounds + 1, plan=liar.plan.digest)
    return await liar.ask(content, kind="evaluate")


async def malformed(liar: Liar) -> object:
    return await at(liar, Stage.VECTOR, lambda _: b"\xff" * 64)


async def unknown_stage(liar: Liar) -> object:
    begun = await liar.sum_until(Stage.NONCE)
    content = secure_messages.request(Stage.NONCE, begun.heading, b"")
    content[SECAGG] = ConfigRecord({"stage": "unmask", "body": b""})
    return await liar.ask(content)


LIES: tuple[Callable[[Liar], Awaitable[object]], ...] = (
    foreign_keys,
    invented_member,
    few_members,
    fewer_than_the_site_wants,
    replayed_keys,
    another_roster_than_shown,
    chosen_nonce,
    lower_threshold,
    replayed_shares,
    invented_neighbour,
    neighbours_of_its_choice,
    cut_off_in_a_ring,
    second_vector,
    without_the_victim,
    few_survivors,
    alive_twice,
    two_lists,
    few_signatures,
    forged_signature,
    second_request,
    another_round,
    the_same_attempt_again,
    an_earlier_attempt,
    more_attempts,
    another_run,
    another_plan,
    in_plain,
    evaluation,
    malformed,
    unknown_stage,
)


def node_transcript(begun: Sum) -> bytes:
    """Returns the transcript of a sum, as one of the liar's own members knows it."""
    state = begun.peers[PEERS[1]]
    assert isinstance(state, node.Masked)
    return state.members.transcript


async def offers(liar: Liar) -> Result:
    """Offers runs that the site must refuse, and at last the one in which it takes part."""
    good = liar.roster(serial=5)
    weaker = PLAN.replace("malicious", "semi-honest")
    tries = {
        "no secure sum": (PLAN.partition("[secure")[0], b""),
        "trust in the coordinator": (weaker, b""),
        "short words": (PLAN + "word_bits = 16\n", good),
        "a wide clip": (PLAN.replace("clip = 10.0", "clip = 11.0"), good),
        "small rounds": (PLAN.replace("min_available = 7", "min_available = 6"), good),
        "no roster": (PLAN, b""),
        "a roster of another root": (PLAN, liar.roster(9, pki=make_pki())),
        "a roster without the node": (PLAN, liar.roster(9, PEERS)),
    }
    results = {}
    for number, (name, (plan, roster)) in enumerate(tries.items(), RUN + 100):
        accepted, results[name] = await liar.offer(plan, roster, number)
        assert not accepted, name
    accepted, reason = await liar.offer(PLAN, good)
    assert accepted, reason
    accepted, results["an older roster"] = await liar.offer(PLAN, liar.roster(4), RUN + 200)
    assert not accepted
    return results


async def after_a_restart(liar: Liar, directory: Path) -> Result:
    """Has the node killed in the middle of a sum, and lies to the one that comes back."""
    begun = await liar.sum_until(Stage.SIGNATURE)
    (directory / "restart").touch()
    liar.session = await liar.fake.session(PATIENCE_S)
    _, older = await liar.offer(PLAN, liar.roster(4), RUN + 300)
    accepted, reason = await liar.offer(PLAN, liar.roster(serial=6))
    assert accepted, reason
    return {
        "an older roster after a restart": older,
        "the same attempt after a restart": str(await liar.ask(begun.first(), Stage.OFFER)),
        "a later stage after a restart": str(
            await begun.ask(Stage.SIGNATURE, Survivors(ALL).to_bytes())
        ),
    }


async def main(directory: Path) -> None:
    pki = make_pki()
    async with FakeCoordinator(pki) as fake:
        enrolment = make_node(directory / "node", pki, fake.fleet, settings=SITE)
        pem = (directory / "node" / "identity" / "signing.key.pem").read_bytes()
        keys = {NODE_ID: load_signing_key(pem)}
        for peer in (*PEERS, *CROWD):
            seed = hashlib.sha256(b"peer %d" % peer).digest()
            keys[peer] = Ed25519PrivateKey.from_private_bytes(seed)
        (directory / "listening").touch()
        session = await fake.session(PATIENCE_S)
        name = enrolment.record.spiffe_id
        liar = Liar(fake, session, pki, keys, FederationPlan.parse(PLAN), name)
        results = await offers(liar)
        for lie in LIES:
            answer = await lie(liar)
            results[lie.__name__] = answer if isinstance(answer, str) else f"answered: {answer!r}"
        results |= await after_a_restart(liar, directory)
        honest = await liar.sum_until(Stage.REVEAL)  # after all of that, a sum comes about
        revealed = await honest.ask(Stage.REVEAL, Survivors(ALL, honest.signatures).to_bytes())
        results["honest"] = type(revealed).__name__
        (directory / "results.json").write_text(json.dumps(results))


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1])))
