"""How the nodes of a run draw their groups: each gives a part of the seed, and none chooses it.

    node   Entered --Entries--> Shown --Drawing--> Placed
    coordinator   Entering --Close--> Drawing of all that entered and revealed --Close--> Drawn

Everyone commits to a nonce, is shown all commitments, and signs what it was shown as it reveals its
nonce. So all that accept the outcome saw one list, and nobody knew the seed before that list stood.
A node that does not reveal makes the draw fail; the next one is held without it.

Source: Blum, "Coin Flipping by Telephone", CRYPTO 1981 (committing before revealing).
Specification: docs/spec/secagg-groups.md, section "Exchange".
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TypeAlias

from fedsec.errors import ConfigError, ProtocolError
from fedsec.secagg.group_messages import (
    Entries,
    Entry,
    Reveal,
    Split,
    commit,
    groups_of,
    seed_of,
)
from fedsec.secagg.membership import COORDINATOR, too_few
from fedsec.secagg.messages import NONCE_BYTES
from fedsec.secagg.node import Node
from fedsec.secagg.recovery import Lost

# --- the node ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Entered:
    """Its commitment is out."""

    split: Split
    entry: Entry
    nonce: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Shown:
    """It signed `shown`, and gave up its nonce."""

    split: Split
    entry: Entry
    shown: Entries


@dataclass(frozen=True, slots=True)
class Placed:
    """Its group stands, for the whole run.

    Args:
        group: Number of the group, from 0.
        members: Signing keys of the group's nodes, its own too, by id.
        seed: Of the draw, 32 bytes.
    """

    group: int
    members: Mapping[int, bytes]
    seed: bytes


NodeState: TypeAlias = Entered | Shown | Placed


def enter(node: Node, split: Split) -> tuple[Entered, Entry]:
    """Returns the first state and the entry to send.

    Raises:
        ConfigError: Malicious mode without a roster of the federation: it would protect nobody.
    """
    if split.malicious and node.trusted is None:
        raise ConfigError("malicious mode needs the federation's signed roster; none is pinned")
    nonce = node.entropy(NONCE_BYTES)
    key = node.signer.public_key().public_bytes_raw()
    entry = Entry(node.id, key, commit(split, node.id, nonce)).signed_by(node.signer, split)
    return Entered(split, entry, nonce), entry


def step(node: Node, state: NodeState, event: Entries) -> tuple[NodeState, bytes]:
    """Returns the next state and what to send: what is revealed, at last the seed.

    Raises:
        ProtocolError: The list is refused, with a code of the specification; the state stays.
        PolicyRefusal: The site asks for more nodes than there are.
    """
    match state:
        case Entered() if not event.reveals:
            _check_shown(node, state, event)
            reveal = Reveal.of(state.nonce, node.signer, event.digest(state.split))
            return Shown(state.split, state.entry, event), reveal.to_bytes()
        case Shown() if event.reveals:
            if event.entries != state.shown.entries:
                raise ProtocolError(
                    COORDINATOR, "equivocation", "other entries than those that this node signed"
                )
            _check_revealed(state.split, event)
            return _place(node, state.split, event)
    raise ProtocolError(
        COORDINATOR, "out-of-order", f"a list of entries for a node that is {type(state).__name__}"
    )


def _check_shown(node: Node, state: Entered, shown: Entries) -> None:
    if state.entry not in shown.entries:
        raise ProtocolError(
            COORDINATOR, "not-mine", "this node's own entry is missing or not as it was sent"
        )
    _check_many(state.split, len(shown.entries))
    node.minima.check_cohort(len(shown.entries))
    keys = {entry.signing_key for entry in shown.entries}
    if len(keys) != len(shown.entries):
        raise ProtocolError(COORDINATOR, "duplicate-key", "two nodes have the same signing key")
    for entry in shown.entries:
        entry.check(state.split)
        if node.trusted is not None and node.trusted.get(entry.node) != entry.signing_key:
            raise ProtocolError(
                COORDINATOR,
                "not-on-roster",
                f"node {entry.node} is not in the federation's roster with this signing key",
            )


def _check_many(split: Split, nodes: int) -> None:
    if nodes < split.fewest:
        raise too_few(f"{nodes} nodes are to be split into groups, the plan wants {split.fewest}")
    if nodes > split.most:
        raise ProtocolError(
            COORDINATOR, "too-many-nodes", f"{nodes} nodes are to be split, not over {split.most}"
        )


def _check_revealed(split: Split, drawing: Entries) -> None:
    if len(drawing.reveals) != len(drawing.entries):
        raise ProtocolError(COORDINATOR, "bad-nonce", "not every node's nonce is there")
    digest = drawing.digest(split)
    for entry, reveal in zip(drawing.entries, drawing.reveals, strict=True):
        reveal.check(split, entry, digest)


def _place(node: Node, split: Split, drawing: Entries) -> tuple[Placed, bytes]:
    keys = {entry.node: entry.signing_key for entry in drawing.entries}
    for number, group in enumerate(groups_of(split, drawing)):
        if node.id in group:
            node.minima.check_group(len(group))
            seed = seed_of(split, drawing)
            return Placed(number, {other: keys[other] for other in group}, seed), seed
    raise ProtocolError(COORDINATOR, "not-mine", "this node is in no group")


# --- the coordinator -----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Entering:
    """Entries, by node.

    Args:
        split: What the draw is about.
        invited: Who may enter.
        trusted: Signing keys by node id, from the federation's signed roster, if there is one.
        entries: Those that came.
    """

    split: Split
    invited: frozenset[int]
    trusted: Mapping[int, bytes] | None = None
    entries: Mapping[int, Entry] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Revealing:
    """What was revealed, by node.

    Args:
        split: What the draw is about.
        shown: To everyone.
        digest: Of that list, which everyone signs.
        entries: Those in it, by node.
        reveals: Those that came.
    """

    split: Split
    shown: Entries
    digest: bytes
    entries: Mapping[int, Entry]
    reveals: Mapping[int, Reveal] = field(default_factory=dict)


def take_entry(state: Entering, node: int, entry: Entry) -> Entering:
    """Returns the state with a node's entry; `node` comes from its certificate.

    Raises:
        ProtocolError: It is refused; that costs its sender.
    """
    peer = str(node)
    if node not in state.invited or node in state.entries:
        raise ProtocolError(peer, "out-of-order", "no entry of this node is waited for")
    if entry.node != node:
        raise ProtocolError(peer, "wrong-node", f"its entry is for node {entry.node}")
    entry.check(state.split)
    if state.trusted is not None and state.trusted.get(node) != entry.signing_key:
        raise ProtocolError(
            peer, "not-on-roster", "the federation's roster has not this node with its signing key"
        )
    if any(other.signing_key == entry.signing_key for other in state.entries.values()):
        raise ProtocolError(peer, "duplicate-key", "another node entered with its key before")
    return replace(state, entries={**state.entries, node: entry})


def show(state: Entering) -> Revealing | Lost:
    """Returns the state in which nonces are waited for: everyone is sent `shown`."""
    entries = tuple(state.entries[node] for node in sorted(state.entries))
    try:
        _check_many(state.split, len(entries))
    except ProtocolError as error:
        return Lost(error.detail)
    shown = Entries(entries)
    return Revealing(state.split, shown, shown.digest(state.split), state.entries)


def take_reveal(state: Revealing, node: int, reveal: Reveal) -> Revealing:
    """Returns the state with what a node revealed.

    Raises:
        ProtocolError: It is refused; that costs its sender.
    """
    entry = state.entries.get(node)
    if entry is None or node in state.reveals:
        raise ProtocolError(str(node), "out-of-order", "no nonce of this node is waited for")
    reveal.check(state.split, entry, state.digest)
    return replace(state, reveals={**state.reveals, node: reveal})


def draw(state: Revealing) -> Entries | Lost:
    """Returns what everyone is sent to draw the groups; `Lost` names who did not reveal."""
    silent = [entry.node for entry in state.shown.entries if entry.node not in state.reveals]
    if silent:
        blamed = dict.fromkeys(silent, "it entered the draw of the groups, and did not reveal")
        return Lost(f"{len(silent)} nodes did not reveal their part of the groups' seed", blamed)
    reveals = tuple(state.reveals[entry.node] for entry in state.shown.entries)
    return replace(state.shown, reveals=reveals)
