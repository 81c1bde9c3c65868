"""What a node signs with and whom it believes in a secure sum: its own key, and the signed roster.

    DIR/roster    the newest roster that this node has ever gone by; it goes back to none before it

The coordinator relays rosters and is not believed: the federation's root must have signed them, and
this node must know the root by another way than the coordinator.

Spec: docs/spec/roster.md, section "Going by a roster".
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from fedsec.errors import IdentityError, PolicyRefusal
from fedsec.files import read_private, read_public, write_public
from fedsec.identity.roster import MAX_BYTES, Member, Roster, check_current, read
from fedsec.identity.signing import load_signing_key, public_bytes
from fedsec.plan import FederationPlan
from fedsec_client.enrolment import DIRECTORY, SIGNING_KEY, Enrolment

ROSTER = "roster"


@dataclass(frozen=True, slots=True)
class Keys:
    """What the worker of a run with secure aggregation is given.

    Args:
        signing_key: This node's private Ed25519 key, 32 bytes; empty where the plan needs none.
        members: Public keys (32 bytes) of the roster, by node id; empty where the plan lets the
            coordinator say whose key is whose.
        until: Last moment at which that roster holds; None where there is none.
    """

    signing_key: bytes = field(default=b"", repr=False)
    members: Mapping[int, bytes] = field(default_factory=dict)
    until: datetime | None = None


def keys_of_run(plan: FederationPlan, directory: Path, offered: bytes, *, now: datetime) -> Keys:
    """Returns the keys of a run; keeps the roster that was offered, if it is good and newer.

    Args:
        plan: Of the run.
        directory: Of the node.
        offered: The roster that came with the run, empty for none.
        now: Aware time.

    Raises:
        PolicyRefusal: The plan wants peers to be checked, and this node cannot: its root is not
            pinned, or there is no roster by which it may go. Says why.
        ConfigError: A file cannot be read or written.
    """
    secure = plan.secure_aggregation
    if secure is None:
        return Keys()
    enrolment = Enrolment.load(directory)
    key = load_signing_key(read_private(directory / DIRECTORY / SIGNING_KEY))
    if secure.mode == "semi-honest":
        return Keys(key.private_bytes_raw())
    if not enrolment.record.root_pinned:
        raise PolicyRefusal(
            'secure_aggregation.mode = "malicious": this node did not pin the root '
            "when it joined, so it cannot tell whose roster it is offered; it must join again, "
            "with --root-fingerprint"
        )
    record = enrolment.record
    own = Member(record.node_id, record.spiffe_id, public_bytes(key))
    try:
        roster = _go_by(directory / ROSTER, offered, enrolment.root_pem, own, now=now)
    except IdentityError as error:
        raise PolicyRefusal(f"the roster that the run came with: {error}") from error
    return Keys(key.private_bytes_raw(), roster.keys, roster.not_after)


def held_roster(directory: Path, root_pem: bytes) -> Roster | None:
    """Returns the roster that the node goes by, None if it has never had one.

    Raises:
        ConfigError: Its file cannot be read.
        IdentityError: It is not what the root has signed.
    """
    path = directory / ROSTER
    return read(read_public(path, limit=MAX_BYTES), root_pem=root_pem) if path.exists() else None


def _go_by(path: Path, offered: bytes, root_pem: bytes, own: Member, *, now: datetime) -> Roster:
    held = held_roster(path.parent, root_pem)
    if not offered and held is None:
        raise IdentityError("not-on-roster", "none came, and this node has never had one")
    roster = read(offered, root_pem=root_pem) if offered or held is None else held
    check_current(roster, held=held, own=own, now=now)
    if roster != held:
        write_public(path, offered)
    return roster
