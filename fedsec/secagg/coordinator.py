"""The coordinator's half: it relays keys and shares, adds masked vectors up, and removes the masks.

    Offering --Close--> Revealing --Close--> Sharing --Close--> Masking --Close--> Confirming
        |  semi-honest                          ^                   |  semi-honest     | Close
        +------------------Close----------------+                   +----Close---------+
                                                                                       v
                                                             Closed <--Close-- Unmasking

A node's message is taken in the stage that asks for it, once; `Close` ends a stage, when all have
answered or their time is up. A message that is refused costs its sender, and leaves the state as it
was.

Sources: Bonawitz et al., CCS 2017, figure 4; Bell et al., CCS 2020, algorithm 2.
Specification: docs/spec/secagg.md.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np

from fedsec.errors import ProtocolError
from fedsec.secagg.keys import check_exchangeable, verify
from fedsec.secagg.masks import Words, word_type
from fedsec.secagg.membership import Members, Setting
from fedsec.secagg.messages import (
    Delivery,
    Offer,
    Revealed,
    Roster,
    SealedShares,
    Shares,
    Survivors,
    survivors_statement,
)
from fedsec.secagg.node import Upload
from fedsec.secagg.recovery import Evidence, Lost, remove_masks
from fedsec.secagg.sealing import Kind
from fedsec.secagg.session import commit_nonce
from fedsec.secagg.stages import (
    Closed,
    Confirming,
    Masking,
    Offering,
    Revealing,
    Sharing,
    State,
    Unmasking,
)


@dataclass(frozen=True, slots=True)
class Received:
    """A node's answer to the present stage. `node` comes from its certificate."""

    node: int
    message: Offer | bytes | Shares | Upload | tuple[Revealed, ...]


@dataclass(frozen=True, slots=True)
class Close:
    """No more answers to the present stage are waited for."""


@dataclass(frozen=True, slots=True)
class Ask:
    """The next stage: what to send, by node."""

    requests: Mapping[int, Roster | Delivery | Survivors]


@dataclass(frozen=True, slots=True)
class Opened:
    """The end: the sum (d,) of the survivors' vectors, mod 2^word_bits.

    Args:
        total: The sum.
        survivors: Whose vectors are in it.
        blamed: Nodes that lied without being able to stop it, with the reason.
    """

    total: Words
    survivors: tuple[int, ...]
    blamed: Mapping[int, str]


Event: TypeAlias = Received | Close
Effect: TypeAlias = Ask | Opened | Lost


def step(state: State, event: Event) -> tuple[State, Effect | None]:
    """Returns the next state and what to do, if anything.

    Raises:
        ProtocolError: A node's message is refused, with a code of the specification; the state
            stays as it was.
    """
    match event:
        case Received():
            return _receive(state, event), None
        case Close():
            try:
                return _close(state)
            except ProtocolError as error:  # too few are left
                return Closed(), Lost(error.detail)


def _receive(state: State, event: Received) -> State:
    node, message = event.node, event.message
    if node not in state.waiting:
        raise ProtocolError(str(node), "out-of-order", "no message of this node is waited for")
    match state, message:
        case Offering(), Offer():
            _check_offer(state, node, message)
            return replace(state, offers={**state.offers, node: message})
        case Revealing(), bytes():
            if commit_nonce(state.setting.session, node, message) != state.offers[node].commitment:
                raise ProtocolError(str(node), "bad-nonce", "its nonce breaks its commitment")
            return replace(state, nonces={**state.nonces, node: message})
        case Sharing(), Shares():
            _check_shares(state, node, message)
            return replace(state, shares={**state.shares, node: message})
        case Masking(), Upload():
            return _add(state, node, message)
        case Confirming(), bytes():
            members = state.masking.members
            statement = survivors_statement(members.transcript, state.survivors)
            key = members.offers[node].signing_key
            verify(key, message, statement, str(node), "the statement on survivors")
            return replace(state, signatures={**state.signatures, node: message})
        case Unmasking(), tuple():
            _check_revealed(state, node, message)
            return replace(state, revealed={**state.revealed, node: message})
    raise ProtocolError(
        str(node), "out-of-order", f"{type(message).__name__} does not answer this stage"
    )


def _check_offer(state: Offering, node: int, offer: Offer) -> None:
    peer = str(node)
    if offer.node != node:
        raise ProtocolError(peer, "wrong-node", f"its offer is for node {offer.node}")
    offer.check(state.setting.session.context)
    state.setting.check_group(offer)
    if state.trusted is not None and state.trusted.get(node) != offer.signing_key:
        raise ProtocolError(
            peer, "not-on-roster", "the federation's roster has not this node with its signing key"
        )
    for other in state.offers.values():
        if (
            other.mask_key == offer.mask_key
            or other.seal_key == offer.seal_key
            or other.signing_key == offer.signing_key
        ):
            raise ProtocolError(peer, "duplicate-key", f"node {other.node} offered its key before")
    check_exchangeable(offer.mask_key, peer)
    check_exchangeable(offer.seal_key, peer)
    if any(offer.commitment) != state.setting.session.malicious:
        raise ProtocolError(peer, "bad-nonce", "nonces are committed to in malicious mode only")


def _check_shares(state: Sharing, node: int, shares: Shares) -> None:
    peer, members = str(node), state.members
    if shares.node != node:
        raise ProtocolError(peer, "wrong-node", f"its shares are those of node {shares.node}")
    if tuple(entry.peer for entry in shares.entries) != members.neighbours(node):
        raise ProtocolError(peer, "bad-share", "its shares are not for exactly its neighbours")
    shares.check(members.offers[node].signing_key, members.transcript)


def _add(state: Masking, node: int, upload: Upload) -> Masking:
    peer, words = str(node), upload.words
    if words.shape != state.total.shape or words.dtype != state.total.dtype:
        raise ProtocolError(
            peer,
            "bad-vector",
            f"its masked vector is {words.dtype} {words.shape}, want {state.total.dtype} "
            f"{state.total.shape}",
        )
    if not set(state.members.neighbours(node)) >= set(upload.complaints):
        raise ProtocolError(peer, "malformed", "it complains of nodes that are no neighbours")
    np.add(state.total, words, out=state.total)
    return replace(state, complaints={**state.complaints, node: upload.complaints})


def _check_revealed(state: Unmasking, node: int, revealed: tuple[Revealed, ...]) -> None:
    members, alive = state.masking.members, set(state.survivors)
    owners = state.masking.shares.keys() & set(members.neighbours(node))
    if members.parameters.complete:
        owners |= {node}
    for each in revealed:
        want = Kind.SEED if each.owner in alive else Kind.KEY
        if each.owner not in owners or each.kind is not want:
            raise ProtocolError(
                str(node), "bad-share", f"it reveals what was not asked for, of node {each.owner}"
            )


def _close(state: State) -> tuple[State, Effect | None]:
    match state:
        case Offering() | Revealing():
            return _close_keys(state)
        case Sharing():
            return _close_shares(state)
        case Masking():
            return _close_vectors(state)
        case Confirming():
            return _close_confirmations(state)
        case Unmasking():
            return Closed(), _open(state)
        case Closed():
            return state, None


def _close_keys(state: Offering | Revealing) -> tuple[State, Effect]:
    match state:
        case Offering() if state.setting.session.malicious:
            state.setting.parameters(len(state.offers))
            offers = dict(sorted(state.offers.items()))
            shown = Roster(tuple(offers.values()))
            return Revealing(state.setting, offers), Ask(dict.fromkeys(offers, shown))
        case Offering():
            return _show_roster(state.setting, state.offers, {})
        case Revealing():
            revealed = {node: state.offers[node] for node in state.nonces}
            lost = len(state.offers) - len(revealed)
            return _show_roster(state.setting, revealed, state.nonces, lost=lost)


def _show_roster(
    setting: Setting,
    offers: Mapping[int, Offer],
    nonces: Mapping[int, bytes],
    *,
    lost: int = 0,
) -> tuple[State, Effect]:
    offers = dict(sorted(offers.items()))
    roster = Roster(tuple(offers.values()), dict(sorted(nonces.items())))
    members = Members.of(setting, roster, lost=lost)
    return Sharing(setting, members), Ask(dict.fromkeys(offers, roster))


def _close_shares(state: Sharing) -> tuple[State, Effect]:
    state.members.check_survivors(sorted(state.shares))
    entries: dict[int, list[SealedShares]] = {node: [] for node in state.shares}
    for owner in sorted(state.shares):
        for entry in state.shares[owner].entries:
            if entry.peer in entries:
                entries[entry.peer].append(replace(entry, peer=owner))
    requests = {holder: Delivery(tuple(known)) for holder, known in entries.items()}
    session = state.setting.session
    total = np.zeros(session.words, word_type(session.word_bits))
    return Masking(state.setting, state.members, state.shares, total), Ask(requests)


def _close_vectors(state: Masking) -> tuple[State, Effect]:
    survivors = tuple(sorted(state.complaints))
    state.members.check_survivors(survivors)
    ask = Ask(dict.fromkeys(survivors, Survivors(survivors)))
    if state.setting.session.malicious:
        return Confirming(state, survivors), ask
    return Unmasking(state, survivors, frozenset(survivors)), ask


def _close_confirmations(state: Confirming) -> tuple[State, Effect]:
    """Sends each node the signatures of t holders of its secrets: it checks all that it is sent."""
    members, signed = state.masking.members, state.signatures
    made: dict[tuple[int, ...], Survivors] = {}
    requests = {}
    for node in sorted(signed):
        holders = [other for other in members.holders(node) if other in signed]
        signers = tuple(holders[: members.parameters.threshold])
        if signers not in made:
            signatures = {other: signed[other] for other in signers}
            made[signers] = Survivors(state.survivors, signatures)
        requests[node] = made[signers]
    return Unmasking(state.masking, state.survivors, frozenset(signed)), Ask(requests)


def _open(state: Unmasking) -> Opened | Lost:
    masking = state.masking
    evidence = Evidence(
        masking.setting.session,
        masking.members,
        masking.shares,
        masking.complaints,
        state.survivors,
        state.revealed,
    )
    found = remove_masks(masking.total, evidence)
    if isinstance(found, Lost):
        return found
    return Opened(masking.total, state.survivors, found)
