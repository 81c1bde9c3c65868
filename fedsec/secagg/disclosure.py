"""Which shares a node may give up, to whom it makes no difference what the coordinator says.

Specification: docs/spec/secagg.md, section "What a member checks".
"""

from collections.abc import Collection, Mapping, Sequence

from fedsec.errors import ProtocolError
from fedsec.secagg.keys import verify
from fedsec.secagg.membership import COORDINATOR, Members, bad_survivors
from fedsec.secagg.messages import Revealed, Survivors, survivors_statement
from fedsec.secagg.sealing import Kind

Held = Mapping[int, tuple[int, int]]
"""Shares of seed and key, by owner."""


def check(node: int, members: Members, peers: Collection[int], survivors: Sequence[int]) -> None:
    """Returns when shares may be given up for a sum over `survivors`.

    Args:
        node: Who is asked.
        members: Of the session.
        peers: Neighbours that it masked with.
        survivors: As the coordinator says, rising.

    Raises:
        ProtocolError: ``bad-survivors``, ``too-few-nodes`` or ``too-few-shares``.
    """
    members.check_survivors(survivors)
    alive = set(survivors)
    if node not in alive:
        raise bad_survivors("this node's own vector, which it sent, is not among them")
    around = alive & set(members.neighbours(node))
    if not around <= set(peers):
        raise bad_survivors("a neighbour among them shared nothing with this node")
    live = len(around) + members.parameters.complete
    if live < members.parameters.threshold:
        raise ProtocolError(
            COORDINATOR,
            "too-few-shares",
            f"{live} holders of this node's secrets are left, the threshold is "
            f"{members.parameters.threshold}",
        )


def check_signatures(node: int, members: Members, survivors: Survivors) -> None:
    """Returns when enough holders of this node's secrets signed that they saw the same survivors.

    Raises:
        ProtocolError: ``too-few-signatures`` or ``bad-signature``.
    """
    statement = survivors_statement(members.transcript, survivors.nodes)
    around = set(members.holders(node)) & set(survivors.nodes)
    signers = around & survivors.signatures.keys()
    if len(signers) < members.parameters.threshold:
        raise ProtocolError(
            COORDINATOR,
            "too-few-signatures",
            f"{len(signers)} signatures of holders, the threshold is "
            f"{members.parameters.threshold}",
        )
    for signer in sorted(signers):
        key = members.offers[signer].signing_key
        signature = survivors.signatures[signer]
        verify(key, signature, statement, str(signer), "the statement on survivors")


def shares(
    node: int, held: Held, own: int | None, survivors: Collection[int]
) -> tuple[Revealed, ...]:
    """Returns what the node gives up: for each owner the share of the seed or of the key.

    Args:
        node: Who gives.
        held: Shares that it holds of others.
        own: Its own share of its own seed, in a complete graph.
        survivors: For whom it is the seed.
    """
    alive = set(survivors)
    given = {
        owner: Revealed(owner, Kind.SEED, seed)
        if owner in alive
        else Revealed(owner, Kind.KEY, key)
        for owner, (seed, key) in held.items()
    }
    if own is not None:
        given[node] = Revealed(node, Kind.SEED, own)
    return tuple(given[owner] for owner in sorted(given))
