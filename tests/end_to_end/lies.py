"""What a lying coordinator sends: each lie leads a real node to one stage, and deceives it there."""

import os
from collections.abc import Awaitable, Callable
from dataclasses import replace

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from flwr.app import ConfigRecord

from fedsec.flower import secure_messages
from fedsec.flower.messages import instruction
from fedsec.flower.secure_messages import SECAGG, Stage
from fedsec.plan import FederationPlan
from fedsec.secagg import messages, node
from fedsec.secagg.membership import Members
from fedsec.secagg.messages import Delivery, Roster, Shares, Survivors
from tests.clients.coordinator import NODE_ID
from tests.end_to_end.liarrig import ALL, CROWD, GONE, PEERS, PLAN, RUN, Liar, Sum


def forged(begun: Sum, which: int) -> Roster:
    """Puts keys of the coordinator's own in the place of a member's, signed by a key of its own."""
    key = Ed25519PrivateKey.generate()
    setting = begun.setting()
    _, offer = node.begin(node.Node(which, key, os.urandom, {which: b""}), setting)
    offers = {**begun.offers, which: offer}
    return Roster(tuple(offers[each] for each in sorted(offers)))


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


async def another_model_than_to_others(liar: Liar) -> object:
    """Sends all others a model from which nobody learns: the sum would be the victim's update."""
    begun = await liar.sum_until(Stage.NONCE)
    dead = {name: np.zeros_like(array) for name, array in liar.model.items()}
    content = instruction(dead, round_number=begun.round, plan=liar.plan.digest)
    for peer in PEERS:
        begun.peers[peer], begun.offers[peer] = node.begin(liar.nodes[peer], begun.setting(content))
    return await begun.ask(Stage.NONCE, begun.roster.to_bytes())


async def another_roster_than_shown(liar: Liar) -> object:
    begun = await liar.sum_until(Stage.SHARES)
    setting = begun.setting()
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
    setting = begun.setting()
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
    another_model_than_to_others,
)


def node_transcript(begun: Sum) -> bytes:
    """Returns the transcript of a sum, as one of the liar's own members knows it."""
    state = begun.peers[PEERS[1]]
    assert isinstance(state, node.Masked)
    return state.members.transcript
