"""Queries and conversions that `store` is made of. Each runs inside a session of the store."""

import json
import secrets
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime

from sqlalchemy import CursorResult, Result, func, select, update
from sqlalchemy.orm import Session

from fedsec.errors import IdentityError, StateError
from fedsec.identity.names import Kind
from fedsec_server.state.models import REASON, Certificate, Denial, EventRow, Invite, Node, Run
from fedsec_server.state.values import (
    CertificateRecord,
    Event,
    NodeRecord,
    NodeState,
    PersonRecord,
    RunRecord,
    RunState,
)

_NODE_IDS = (2, 2**63 - 1)  # 1 is the coordinator; above, signed 64-bit columns end


def moment(unix: float | None) -> str:
    """Returns a time for a sentence."""
    if unix is None:
        return "an unknown time"
    return datetime.fromtimestamp(unix, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def sentence(text: str) -> str:
    """Returns a text that every database keeps: cut, without NUL and lone surrogates."""
    kept = text[:REASON].replace("\0", "\ufffd")
    return kept.encode("utf-8", "replace").decode("utf-8")


def count(result: Result[tuple[()]]) -> int:
    """Returns how many rows an UPDATE changed."""
    if not isinstance(result, CursorResult):
        raise TypeError(f"not the result of an UPDATE: {result!r}")
    return result.rowcount


# --- nodes -------------------------------------------------------------------------------------


def claimed(session: Session, name: str) -> Node | None:
    """Returns the live node of that name, if any."""
    return session.scalar(select(Node).where(Node.claim == name))


def named(session: Session, name: str) -> Node:
    """Returns the live node of that name, else the newest revoked one; StateError if none."""
    newest = select(Node).where(Node.name == name).order_by(Node.invited_at.desc()).limit(1)
    node = claimed(session, name) or session.scalar(newest)
    if node is None:
        raise StateError(f"no node is called {name!r}; `fedsec node list` shows all")
    return node


def invitable(session: Session, name: str, spiffe_id: str, now: float, max_nodes: int) -> Node:
    """Returns the node of that name if it may be invited, a new one if there is none.

    Raises:
        StateError: as `Store.add_invite` says.
    """
    node = claimed(session, name)
    if node is not None:
        check_invitable(session, node, now)
        return node
    check_room(session, max_nodes)
    low, high = _NODE_IDS
    node = Node(
        node_id=low + secrets.randbelow(high - low + 1),
        name=name,
        claim=name,
        state=NodeState.INVITED,
        spiffe_id=spiffe_id,
        invited_at=now,
    )
    session.add(node)
    session.flush()
    return node


def new_invite(
    node: Node, token_hash: bytes, created_by: str, now: float, expires_at: float
) -> Invite:
    """Returns a row for an invite of `node`."""
    return Invite(
        token_hash=token_hash,
        purpose=Kind.NODE,
        node_id=node.node_id,
        created_at=now,
        created_by=created_by,
        expires_at=expires_at,
    )


def enrol(
    session: Session, node_id: int, signing_key: bytes, root_pinned: bool, now: float
) -> None:
    """Makes an invited node enrolled.

    Raises:
        IdentityError: ``revoked``: the operator withdrew the invite.
    """
    changed = session.execute(
        update(Node)
        .where(Node.node_id == node_id, Node.state == NodeState.INVITED)
        .values(
            state=NodeState.ENROLLED,
            signing_key=signing_key,
            root_pinned=root_pinned,
            enrolled_at=now,
        )
    )
    if count(changed) != 1:
        raise IdentityError("revoked", "this invite was withdrawn; ask for a new one")


def check_room(session: Session, max_nodes: int) -> None:
    """Raises StateError when `max_nodes` are invited or enrolled."""
    live = session.scalar(select(func.count()).where(Node.claim.is_not(None))) or 0
    if live >= max_nodes:
        raise StateError(
            f"there are {live} nodes and limits.max_nodes is {max_nodes}; revoke one that is not "
            "needed, or raise the limit in server.toml and restart the coordinator"
        )


def check_invitable(session: Session, node: Node, now: float) -> None:
    """Raises StateError when the live `node` may not be invited (again)."""
    if node.state == NodeState.ENROLLED:
        raise StateError(
            f"node {node.name!r} is enrolled since {moment(node.enrolled_at)}; if it must join "
            f"anew, `fedsec node revoke {node.name}` comes first"
        )
    still_good = select(func.max(Invite.expires_at)).where(
        Invite.node_id == node.node_id, Invite.spent_at.is_(None), Invite.expires_at > now
    )
    expires_at = session.scalar(still_good)
    if expires_at is not None:
        raise StateError(
            f"node {node.name!r} has an invite that is good until {moment(expires_at)}; if it was "
            f"lost, `fedsec node revoke {node.name}` withdraws it, then invite again"
        )


def check_known(session: Session, token_hash: bytes) -> None:
    """Raises IdentityError, ``unknown-token``, when no invite has the token."""
    if session.get(Invite, token_hash) is None:
        raise IdentityError("unknown-token", "no invite has this token")


def spend(session: Session, token_hash: bytes, now: float) -> Invite:
    """Marks the token as spent; one UPDATE decides who of many comes first.

    Raises:
        IdentityError: as `Store.enrol_node` says.
    """
    good = update(Invite).where(
        Invite.token_hash == token_hash,
        Invite.purpose == Kind.NODE,
        Invite.spent_at.is_(None),
        Invite.expires_at > now,
    )
    won = count(session.execute(good.values(spent_at=now))) == 1
    check_known(session, token_hash)
    invite = session.get_one(Invite, token_hash)
    if won:
        return invite
    if invite.purpose != Kind.NODE:
        raise IdentityError("wrong-kind", "this token is no invite for a node")
    if invite.spent_at is not None:
        raise IdentityError(
            "token-used", f"this invite was used at {moment(invite.spent_at)}; ask for a new one"
        )
    raise IdentityError(
        "token-expired",
        f"this invite was good until {moment(invite.expires_at)}; ask for a new one",
    )


def node_record(session: Session, node: Node) -> NodeRecord:
    """Returns the row as a value."""
    return to_record(node, expiries(session, node.spiffe_id).get(node.spiffe_id))


def to_record(node: Node, certificate_expires_at: float | None) -> NodeRecord:
    """Returns the row as a value, with what the certificates table says."""
    return NodeRecord(
        node_id=node.node_id,
        name=node.name,
        state=NodeState(node.state),
        spiffe_id=node.spiffe_id,
        signing_key=node.signing_key,
        root_pinned=node.root_pinned,
        invited_at=node.invited_at,
        enrolled_at=node.enrolled_at,
        revoked_at=node.revoked_at,
        revoked_reason=node.revoked_reason,
        last_seen_at=node.last_seen_at,
        certificate_expires_at=certificate_expires_at,
    )


# --- certificates ------------------------------------------------------------------------------


def expiries(session: Session, spiffe_id: str | None = None) -> dict[str, float]:
    """Returns, by identity, when its newest certificate expires; denied identities are left out."""
    denied = select(Denial.value).where(Denial.kind == "identity")
    query = (
        select(Certificate.spiffe_id, func.max(Certificate.not_after))
        .where(Certificate.spiffe_id.not_in(denied))
        .group_by(Certificate.spiffe_id)
    )
    if spiffe_id is not None:
        query = query.where(Certificate.spiffe_id == spiffe_id)
    return {row[0]: row[1] for row in session.execute(query)}


def deny(session: Session, spiffe_id: str, reason: str, now: float) -> tuple[int, ...]:
    """Denies an identity, and each certificate of it that has not expired; returns serials."""
    session.add(Denial(kind="identity", value=spiffe_id, at=now, reason=sentence(reason)))
    return deny_serials(session, live(session, spiffe_id, now), reason, now)


def deny_serials(
    session: Session, certificates: Iterable[Certificate], reason: str, now: float
) -> tuple[int, ...]:
    """Denies certificates, one by one, until they expire; returns their serials."""
    denied = []
    for row in certificates:
        if session.get(Denial, ("serial", row.serial)) is None:
            fields = {"at": now, "reason": sentence(reason), "until": row.not_after}
            session.add(Denial(kind="serial", value=row.serial, **fields))
            denied.append(int(row.serial, 16))
    return tuple(denied)


def live(session: Session, spiffe_id: str, now: float) -> Sequence[Certificate]:
    """Returns the certificates of an identity that have not expired."""
    query = select(Certificate).where(
        Certificate.spiffe_id == spiffe_id, Certificate.not_after > now
    )
    return session.scalars(query).all()


def people(session: Session, now: float) -> list[PersonRecord]:
    """Returns what `Store.people` does."""
    query = (
        select(Certificate, Denial.value)
        .outerjoin(Denial, (Denial.kind == "serial") & (Denial.value == Certificate.serial))
        .where(Certificate.spiffe_id.like("spiffe://%/person/%"), Certificate.not_after > now)
        .order_by(Certificate.spiffe_id, Certificate.not_after)
    )
    return [
        PersonRecord(
            CertificateRecord(int(row.serial, 16), row.spiffe_id, row.not_before, row.not_after),
            revoked=denied is not None,
        )
        for row, denied in session.execute(query)
    ]


def certificate_row(certificate: CertificateRecord) -> Certificate:
    """Returns the value as a row."""
    return Certificate(
        serial=f"{certificate.serial:x}",
        spiffe_id=certificate.spiffe_id,
        not_before=certificate.not_before,
        not_after=certificate.not_after,
    )


# --- runs and events ---------------------------------------------------------------------------


def run_row(session: Session, run_id: int) -> Run:
    """Returns the row of a run; StateError if there is none."""
    run = session.get(Run, run_id) if run_id < 2**63 else None
    if run is None:
        raise StateError(f"there is no run {run_id}; `fedsec run list` shows all")
    return run


def run_record(run: Run) -> RunRecord:
    """Returns the row as a value."""
    return RunRecord(
        run_id=run.run_id,
        name=run.name,
        state=RunState(run.state),
        reason=run.reason,
        plan=run.plan,
        plan_digest=run.plan_digest,
        round=run.round,
        rounds=run.rounds,
        submitted_at=run.submitted_at,
        started_at=run.started_at,
        ended_at=run.ended_at,
        submitted_by=run.submitted_by,
    )


def event_value(row: EventRow) -> Event:
    """Returns the row as a value."""
    return Event(
        sequence=row.sequence,
        at=row.at,
        kind=row.kind,
        subject=row.subject,
        run_id=row.run_id,
        detail=json.loads(row.detail),
    )
