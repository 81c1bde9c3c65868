"""The tables. Portable SQL only: what differs between databases is in `engine`.

A change here needs a migration; a test compares both.
"""

from typing import ClassVar

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Double,
    ForeignKey,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Text,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

NAME = 63  # characters of a name that an operator chose
SPIFFE = 400  # trust domain (<= 253), path and scheme
SERIAL = 40  # hexadecimal digits; certificates allow 159 bits
REASON = 1000  # characters of a sentence that is kept


class Base(DeclarativeBase):
    """All tables. Constraints get names by rule, so that migrations can speak of them."""

    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_name)s",
            "uq": "uq_%(table_name)s_%(column_0_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "fk": "fk_%(table_name)s_%(column_0_name)s_%(referred_table_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
    type_annotation_map: ClassVar[dict[type, Double[float]]] = {float: Double()}


class Node(Base):
    """A node from its invite on. Rows are never deleted."""

    __tablename__ = "nodes"
    __table_args__ = (
        CheckConstraint("state IN ('invited', 'enrolled', 'revoked')", name="state"),
        CheckConstraint("node_id > 1", name="node_id"),
    )

    node_id: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    name: Mapped[str] = mapped_column(String(NAME), index=True)
    # The name while the node is not revoked, else NULL. NULLs do not collide, so this lets
    # the database itself keep names of live nodes apart, on every database.
    claim: Mapped[str | None] = mapped_column(String(NAME), unique=True)
    state: Mapped[str] = mapped_column(String(16))
    spiffe_id: Mapped[str] = mapped_column(String(SPIFFE), unique=True)
    signing_key: Mapped[bytes | None] = mapped_column(LargeBinary(32))
    root_pinned: Mapped[bool] = mapped_column(default=False)
    invited_at: Mapped[float]
    enrolled_at: Mapped[float | None]
    revoked_at: Mapped[float | None]
    revoked_reason: Mapped[str] = mapped_column(String(REASON), default="")
    last_seen_at: Mapped[float | None]


class Invite(Base):
    """A one-time token, as its SHA-256 alone."""

    __tablename__ = "invites"

    token_hash: Mapped[bytes] = mapped_column(LargeBinary(32), primary_key=True)
    purpose: Mapped[str] = mapped_column(String(16))  # the kind of certificate it is good for
    node_id: Mapped[int] = mapped_column(ForeignKey("nodes.node_id"), index=True)
    created_at: Mapped[float]
    created_by: Mapped[str] = mapped_column(String(SPIFFE))
    expires_at: Mapped[float]
    spent_at: Mapped[float | None]


class Certificate(Base):
    """A certificate that was issued."""

    __tablename__ = "certificates"

    serial: Mapped[str] = mapped_column(String(SERIAL), primary_key=True)
    spiffe_id: Mapped[str] = mapped_column(String(SPIFFE), index=True)
    not_before: Mapped[float]
    not_after: Mapped[float]


class Denial(Base):
    """A serial or an identity that the gate refuses."""

    __tablename__ = "denials"
    __table_args__ = (CheckConstraint("kind IN ('serial', 'identity')", name="kind"),)

    kind: Mapped[str] = mapped_column(String(16), primary_key=True)
    value: Mapped[str] = mapped_column(String(SPIFFE), primary_key=True)
    at: Mapped[float]
    reason: Mapped[str] = mapped_column(String(REASON))
    # When the refusal may be forgotten, because the certificate has expired; NULL: never.
    until: Mapped[float | None]


class Run(Base):
    """One run of a plan."""

    __tablename__ = "runs"
    __table_args__ = (
        CheckConstraint(
            "state IN ('pending', 'running', 'finished', 'failed', 'stopped')", name="state"
        ),
    )

    run_id: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    name: Mapped[str] = mapped_column(String(255))
    state: Mapped[str] = mapped_column(String(16), index=True)
    reason: Mapped[str] = mapped_column(String(REASON), default="")
    plan: Mapped[str] = mapped_column(Text)
    plan_digest: Mapped[str] = mapped_column(String(64))
    round: Mapped[int] = mapped_column(default=0)
    rounds: Mapped[int]
    submitted_at: Mapped[float] = mapped_column(index=True)
    started_at: Mapped[float | None]
    ended_at: Mapped[float | None]
    submitted_by: Mapped[str] = mapped_column(String(SPIFFE))


class EventRow(Base):
    """Something that happened. Rows are only ever added."""

    __tablename__ = "events"

    # BIGINT, but INTEGER where that alone numbers rows by itself.
    sequence: Mapped[int] = mapped_column(
        BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True
    )
    at: Mapped[float]
    kind: Mapped[str] = mapped_column(String(64))
    subject: Mapped[str] = mapped_column(String(SPIFFE), index=True)
    run_id: Mapped[int | None] = mapped_column(BigInteger, index=True)
    detail: Mapped[str] = mapped_column(Text)
