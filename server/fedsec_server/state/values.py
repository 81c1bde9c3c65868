"""Rows of the state as frozen values: what the store hands out.

Times are Unix seconds; None means "not yet". Serials of certificates are integers here and
lower-case hexadecimal in the tables, because 128 bits fit into no SQL integer.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum


class NodeState(StrEnum):
    """What has become of a node: ``invited -> enrolled -> revoked``, or ``invited -> revoked``."""

    INVITED = "invited"
    ENROLLED = "enrolled"
    REVOKED = "revoked"


class RunState(StrEnum):
    """``pending -> running -> finished | failed | stopped``; pending may end without running."""

    PENDING = "pending"
    RUNNING = "running"
    FINISHED = "finished"
    FAILED = "failed"
    STOPPED = "stopped"

    @property
    def final(self) -> bool:
        """Nothing follows this state."""
        return self in FINAL


FINAL = frozenset({RunState.FINISHED, RunState.FAILED, RunState.STOPPED})


@dataclass(frozen=True, slots=True)
class NodeRecord:
    """One node, from its invite on.

    Attributes:
        node_id: Random, 2 <= node_id < 2^63 (1 is the coordinator in Flower's numbering).
        name: The operator's. One live node per name; revoked ones keep theirs.
        signing_key: Ed25519 public key, 32 bytes, proven at enrolment; None before.
        root_pinned: The node was given the root's fingerprint by another way than the invite.
        certificate_expires_at: Of its newest certificate that is not denied.
    """

    node_id: int
    name: str
    state: NodeState
    spiffe_id: str
    signing_key: bytes | None
    root_pinned: bool
    invited_at: float
    enrolled_at: float | None
    revoked_at: float | None
    revoked_reason: str
    last_seen_at: float | None
    certificate_expires_at: float | None


@dataclass(frozen=True, slots=True)
class CertificateRecord:
    """A certificate that was issued. Validity in Unix seconds."""

    serial: int
    spiffe_id: str
    not_before: float
    not_after: float


@dataclass(frozen=True, slots=True)
class Denied:
    """Everything the gate must refuse: what a live denylist is filled with at start.

    `identities` gives the operator's name of each, empty where there is none.
    """

    serials: frozenset[int]
    identities: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class PersonRecord:
    """A certificate of a person that has not expired."""

    certificate: CertificateRecord
    revoked: bool


@dataclass(frozen=True, slots=True)
class Revocation:
    """What one revocation denied: the node as it is now, its identity, its live serials."""

    node: NodeRecord
    serials: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class RunRecord:
    """One run of a plan.

    Attributes:
        run_id: Random, ten decimal digits: short enough to type, and no run of another
            coordinator's life that a node may still hold on disk.
        plan: The plan's TOML text as it was submitted.
        plan_digest: SHA-256 of the plan's canonical form, hexadecimal.
        round: Rounds completed.
        rounds: Rounds planned; 0 where an app decides.
        submitted_by: SPIFFE ID of the person.
    """

    run_id: int
    name: str
    state: RunState
    reason: str
    plan: str
    plan_digest: str
    round: int
    rounds: int
    submitted_at: float
    started_at: float | None
    ended_at: float | None
    submitted_by: str


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened; never changed afterwards.

    Attributes:
        sequence: Grows with each event.
        subject: Whom or what it is about: a SPIFFE ID, ``"run 4711..."`` or ``"peer 192.0.2.7"``.
        detail: JSON values by name.
    """

    sequence: int
    at: float
    kind: str
    subject: str
    run_id: int | None
    detail: Mapping[str, object]
