"""The node's half: it adds masks to its vector, and helps to remove those of others, once.

    Offered --Roster--> Shared                                      semi-honest
    Offered --Roster--> Revealing --Roster with nonces--> Shared    malicious
    Shared --Deliver--> Masked
    Masked --Survivors--> Finished                                  semi-honest
    Masked --Survivors--> Confirmed --with signatures--> Finished   malicious

All that decides whether a share leaves is the node's own: parameters it computed, peers it saw.
An event that is refused leaves the state as it was. `Finished` holds no secret.

Sources: Bonawitz et al., CCS 2017, figure 4; Bell et al., CCS 2020, algorithm 2.
Specification: docs/spec/secagg.md, section "What a member checks".
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeAlias

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from fedsec.errors import ConfigError, ProtocolError
from fedsec.secagg import disclosure
from fedsec.secagg.keys import (
    KEY_BYTES,
    Stream,
    agree,
    commit_seed,
    make_private,
    make_seed,
    mask_stream,
    private_key,
    public_of,
    seal_key,
    self_stream,
)
from fedsec.secagg.masks import Words, apply, word_type
from fedsec.secagg.membership import COORDINATOR, Members, Setting, check_nonces, check_roster
from fedsec.secagg.messages import (
    NONCE_BYTES,
    Delivery,
    Offer,
    Revealed,
    Roster,
    SealedShares,
    Shares,
    Survivors,
    survivors_statement,
)
from fedsec.secagg.parameters import Minima, Parameters
from fedsec.secagg.sealing import Kind, associated_data, commit_share, seal, unseal
from fedsec.secagg.session import commit_nonce
from fedsec.secagg.shamir import Entropy, split

ANY = Minima()


@dataclass(frozen=True, slots=True)
class Node:
    """Who takes part, and what this site asks of a session.

    Args:
        id: The node's.
        signer: Its signing key.
        entropy: Source of all its secrets; `os.urandom` where it matters.
        trusted: Signing keys by node id, from the federation's signed roster.
        minima: Of the site's policy.
    """

    id: int
    signer: Ed25519PrivateKey = field(repr=False)
    entropy: Entropy = field(repr=False)
    trusted: Mapping[int, bytes] | None = None
    minima: Minima = ANY


@dataclass(frozen=True, slots=True)
class Secrets:
    """A node's secrets of one session. Never printed."""

    mask: int = field(repr=False)
    seal: int = field(repr=False)
    seed: int = field(repr=False)
    nonce: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class MaskSecrets:
    """What is left of them once they are shared: what the vector is masked with. Never printed."""

    mask: int = field(repr=False)
    seed: int = field(repr=False)


@dataclass(frozen=True, slots=True)
class Offered:
    """Its keys are out."""

    setting: Setting
    secrets: Secrets
    offer: Offer


@dataclass(frozen=True, slots=True)
class Revealing:
    """It was shown `offers`, and gave up its nonce."""

    setting: Setting
    secrets: Secrets
    offer: Offer
    offers: tuple[Offer, ...]


@dataclass(frozen=True, slots=True)
class Shared:
    """Its secrets are shared.

    Args:
        setting: Of the session.
        secrets: Of its own what is still needed.
        members: Of the session.
        openers: Keys of what its neighbours will have sealed for it, by owner.
        own: Its own share of its seed, in a complete graph.
    """

    setting: Setting
    secrets: MaskSecrets
    members: Members
    openers: Mapping[int, bytes] = field(repr=False)
    own: int | None = field(repr=False)


@dataclass(frozen=True, slots=True)
class Masked:
    """Its vector is out.

    Args:
        setting: Of the session.
        members: Of the session.
        peers: Neighbours that it masked with.
        held: Their good shares, of seed and key, by owner.
        own: Its own share of its seed, in a complete graph.
        survivors: Those that it signed, in malicious mode.
    """

    setting: Setting
    members: Members
    peers: frozenset[int]
    held: Mapping[int, tuple[int, int]] = field(repr=False)
    own: int | None = field(repr=False)
    survivors: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Finished:
    """It revealed what it had to, and has forgotten the rest."""


@dataclass(frozen=True, slots=True)
class Deliver:
    """The shares for this node came, and its vector is ready.

    Args:
        delivery: From the coordinator.
        words: The encoded vector (d,); it is masked in place.
    """

    delivery: Delivery
    words: Words


@dataclass(frozen=True, slots=True)
class Upload:
    """The masked vector, and neighbours whose shares were bad."""

    words: Words
    complaints: tuple[int, ...]


State: TypeAlias = Offered | Revealing | Shared | Masked | Finished
Event: TypeAlias = Roster | Deliver | Survivors
Effect: TypeAlias = bytes | Shares | Upload | tuple[Revealed, ...]
"""Bytes are a nonce, or a signature over the survivors."""


def begin(node: Node, setting: Setting) -> tuple[Offered, Offer]:
    """Returns the first state and the offer of fresh keys to send.

    Raises:
        ConfigError: Malicious mode without a roster of the federation: it would protect nobody.
    """
    if setting.session.malicious and node.trusted is None:
        raise ConfigError("malicious mode needs the federation's signed roster; none is pinned")
    draw = node.entropy
    secrets = Secrets(make_private(draw), make_private(draw), make_seed(draw), draw(NONCE_BYTES))
    committed = bytes(KEY_BYTES)
    if setting.session.malicious:
        committed = commit_nonce(setting.session, node.id, secrets.nonce)
    offer = Offer(
        node=node.id,
        signing_key=node.signer.public_key().public_bytes_raw(),
        mask_key=public_of(secrets.mask),
        seal_key=public_of(secrets.seal),
        commitment=committed,
    ).signed_by(node.signer, setting.session.context)
    return Offered(setting, secrets, offer), offer


def step(node: Node, state: State, event: Event) -> tuple[State, Effect]:
    """Returns the next state and what to send. Nothing but the vector's words changes in place.

    Raises:
        ProtocolError: The event is refused, with a code of the specification.
        PolicyRefusal: The site asks for more than this session has.
    """
    match state, event:
        case Offered(), Roster() if state.setting.session.malicious:
            return _reveal(node, state, event)
        case Offered(), Roster():
            if event.nonces:
                raise ProtocolError(COORDINATOR, "bad-nonce", "nonces in semi-honest mode")
            _check_shown(node, state, event)
            return _share(node, state, event)
        case Revealing(), Roster():
            _check_same(state, event)
            return _share(node, state, event, lost=len(state.offers) - len(event.offers))
        case Shared(), Deliver():
            return _mask(node, state, event)
        case Masked(), Survivors() if not state.setting.session.malicious or state.survivors:
            return Finished(), _disclose(node, state, event)
        case Masked(), Survivors() if not event.signatures:
            disclosure.check(node.id, state.members, state.peers, event.nodes)
            statement = survivors_statement(state.members.transcript, event.nodes)
            return replace(state, survivors=event.nodes), node.signer.sign(statement)
    raise ProtocolError(
        COORDINATOR,
        "out-of-order",
        f"{type(event).__name__} came to a node that is {type(state).__name__}",
    )


def _reveal(node: Node, state: Offered, roster: Roster) -> tuple[State, Effect]:
    if roster.nonces:
        raise ProtocolError(COORDINATOR, "bad-nonce", "nonces before they were revealed")
    _check_shown(node, state, roster)
    return Revealing(state.setting, state.secrets, state.offer, roster.offers), state.secrets.nonce


def _check_shown(node: Node, state: Offered, roster: Roster) -> None:
    """Checks a roster that is shown for the first time."""
    if state.offer not in roster.offers:
        raise ProtocolError(
            COORDINATOR, "not-mine", "this node's own offer is missing or not as it was sent"
        )
    _check_minima(node, state.setting, state.setting.parameters(len(roster.offers)))
    check_roster(state.setting, roster, node.trusted)


def _check_minima(node: Node, setting: Setting, parameters: Parameters) -> None:
    node.minima.check(parameters, group=setting.group is not None)


def _check_same(state: Revealing, roster: Roster) -> None:
    """Checks that the roster with nonces is the one shown before, less who did not reveal."""
    if not set(roster.offers) <= set(state.offers) or state.offer not in roster.offers:
        raise ProtocolError(
            COORDINATOR, "equivocation", "the roster with nonces has other offers than the first"
        )
    check_nonces(state.setting, roster)


def _share(
    node: Node, state: Offered | Revealing, roster: Roster, *, lost: int = 0
) -> tuple[State, Effect]:
    setting, secrets = state.setting, state.secrets
    members = Members.of(setting, roster, lost=lost)
    _check_minima(node, setting, members.parameters)
    holders, index = members.holders(node.id), members.indices
    where = [index[holder] for holder in holders]
    threshold = members.parameters.threshold
    of_seed = dict(zip(holders, split(secrets.seed, threshold, where, node.entropy), strict=True))
    of_key = dict(zip(holders, split(secrets.mask, threshold, where, node.entropy), strict=True))
    private = private_key(secrets.seal)
    entries, openers = [], {}
    for holder in members.neighbours(node.id):
        shares = (of_seed[holder], of_key[holder])
        secret = agree(private, members.offers[holder].seal_key, str(holder))
        key = seal_key(secret, members.transcript, node.id, holder)
        openers[holder] = seal_key(secret, members.transcript, holder, node.id)
        bound = associated_data(members.transcript, node.id, holder, index[holder])
        commitments = (
            commit_share(members.transcript, kind, node.id, holder, share)
            for kind, share in zip(Kind, shares, strict=True)
        )
        entries.append(SealedShares(holder, seal(key, shares, bound), *commitments))
    committed = commit_seed(secrets.seed, members.transcript, node.id)
    message = Shares(node.id, committed, tuple(entries))
    left = MaskSecrets(secrets.mask, secrets.seed)
    shared = Shared(setting, left, members, openers, of_seed.get(node.id))
    return shared, message.signed_by(node.signer, members.transcript)


def _mask(node: Node, state: Shared, event: Deliver) -> tuple[State, Effect]:
    session, members = state.setting.session, state.members
    words = event.words
    if words.shape != (session.words,) or words.dtype != word_type(session.word_bits):
        raise ConfigError(
            f"the encoded vector is {words.dtype} {words.shape}, want words of "
            f"{session.word_bits} bits ({session.words},)"
        )
    peers = [entry.peer for entry in event.delivery.entries]
    if not set(members.neighbours(node.id)) >= set(peers):
        raise ProtocolError(
            COORDINATOR, "not-a-neighbour", "shares of a node that is not in the neighbourhood"
        )
    held, complaints = _open(node, state, event.delivery.entries)
    good = len(held) + (state.own is not None)
    if good < members.parameters.threshold:
        raise ProtocolError(
            COORDINATOR,
            "too-few-shares",
            f"good shares of {good} nodes, the threshold is {members.parameters.threshold}",
        )
    added, removed = _streams(node, state, peers)
    apply(words, added, removed)
    masked = Masked(state.setting, members, frozenset(peers), held, state.own)
    return masked, Upload(words, tuple(complaints))


def _streams(node: Node, state: Shared, peers: Sequence[int]) -> tuple[list[Stream], list[Stream]]:
    """Returns the streams that the node adds and those that it takes away."""
    members, bits = state.members, state.setting.session.word_bits
    private = private_key(state.secrets.mask)
    added = [self_stream(state.secrets.seed, members.transcript, node.id, bits)]
    removed: list[Stream] = []
    for peer in peers:
        secret = agree(private, members.offers[peer].mask_key, str(peer))
        stream = mask_stream(secret, members.transcript, node.id, peer, bits)
        (added if peer > node.id else removed).append(stream)
    return added, removed


def _open(
    node: Node, state: Shared, entries: Sequence[SealedShares]
) -> tuple[dict[int, tuple[int, int]], list[int]]:
    """Returns the good shares by owner, and the owners of bad ones."""
    members = state.members
    index = members.indices[node.id]
    held, complaints = {}, []
    for entry in entries:
        owner = entry.peer
        bound = associated_data(members.transcript, owner, node.id, index)
        try:
            shares = unseal(state.openers[owner], entry.sealed, bound, str(owner))
        except ProtocolError:
            complaints.append(owner)
            continue
        committed = (entry.seed_commitment, entry.key_commitment)
        made = tuple(
            commit_share(members.transcript, kind, owner, node.id, share)
            for kind, share in zip(Kind, shares, strict=True)
        )
        if made == committed:
            held[owner] = shares
        else:
            complaints.append(owner)
    return held, complaints


def _disclose(node: Node, state: Masked, event: Survivors) -> tuple[Revealed, ...]:
    members = state.members
    disclosure.check(node.id, members, state.peers, event.nodes)
    if state.setting.session.malicious:
        if event.nodes != state.survivors:
            raise ProtocolError(
                COORDINATOR, "equivocation", "other survivors than those that this node signed"
            )
        disclosure.check_signatures(node.id, members, event)
    return disclosure.shares(node.id, state.held, state.own, event.nodes)
