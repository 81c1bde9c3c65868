"""The roster that this coordinator relays: published by a person, made by the root's holder.

The coordinator believes none that the root has not signed, and checks it against its own records,
so that a mistake shows when it is published and not in a round.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from fedsec.errors import IdentityError, StateError
from fedsec.files import read_public, write_public
from fedsec.identity.roster import MAX_BYTES, Member, Roster, read
from fedsec.identity.times import show_time
from fedsec_server.layout import Layout
from fedsec_server.state.values import NodeRecord, NodeState


@dataclass(frozen=True, slots=True)
class Published:
    """The roster that nodes are offered.

    Args:
        signed: As it goes over the wire.
        roster: The same, read.
    """

    signed: bytes
    roster: Roster


def publish(
    layout: Layout, signed: bytes, nodes: Iterable[NodeRecord], *, now: datetime
) -> tuple[Roster, list[str]]:
    """Keeps a signed roster; returns it and the names of enrolled nodes that are not on it.

    Raises:
        IdentityError: It is not signed by this federation's root, has expired, is older than the
            one that is published, or has the same serial and is another.
        StateError: It has a node that is not enrolled here, or not under this name and key.
    """
    roster = read(signed, root_pem=read_public(layout.root_certificate))
    _check_end(roster, now=now)
    before = published(layout)
    if before is not None and roster.serial < before.roster.serial:
        raise IdentityError(
            "rolled-back",
            f"the roster has serial {roster.serial}, {before.roster.serial} is published already",
        )
    if before is not None and roster.serial == before.roster.serial and roster != before.roster:
        raise IdentityError(
            "equivocation",
            f"another roster of serial {roster.serial} is published, so nodes would believe "
            "neither; sign this one with a higher serial",
        )
    enrolled = {node.node_id: node for node in nodes if node.state is NodeState.ENROLLED}
    for member in roster.members:
        _check_known(member, enrolled.get(member.node_id))
    write_public(layout.roster, signed)
    return roster, sorted(node.name for id_, node in enrolled.items() if id_ not in roster.keys)


def published(layout: Layout) -> Published | None:
    """Returns the roster that was published last, None if there was none.

    Raises:
        ConfigError: Its file cannot be read.
        IdentityError: It is not what `publish` wrote.
    """
    if not layout.roster.exists():
        return None
    signed = read_public(layout.roster, limit=MAX_BYTES)
    return Published(signed, read(signed, root_pem=read_public(layout.root_certificate)))


def required(layout: Layout, *, now: datetime) -> Published:
    """Returns the published roster, for a run whose nodes go by it.

    Raises:
        StateError: None was published, or it has expired.
    """
    found = published(layout)
    if found is None:
        raise StateError(
            'secure_aggregation.mode = "malicious" needs a roster that the root has signed; see '
            "`fedsec roster sign --help`, then `fedsec roster publish`"
        )
    _check_end(found.roster, now=now)
    return found


def _check_end(roster: Roster, *, now: datetime) -> None:
    if now > roster.not_after:
        raise StateError(
            f"the roster of serial {roster.serial} expired at {show_time(roster.not_after)}; have "
            "another one signed by the root (`fedsec roster sign`) and publish it"
        )


def _check_known(member: Member, node: NodeRecord | None) -> None:
    if node is None:
        raise StateError(
            f"the roster has node {member.node_id} ({member.spiffe_id}), which is not enrolled "
            "here, or is revoked; sign one of `fedsec node list --json` as it is now"
        )
    if (member.spiffe_id, member.signing_key) != (node.spiffe_id, node.signing_key):
        raise StateError(
            f"the roster has node {node.name} under another name or signing key than it enrolled "
            "with; sign one of `fedsec node list --json` as it is now"
        )
