"""The first tables: nodes, invites, certificates, denials, runs, events."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Makes all tables."""
    _nodes()
    _invites()
    _certificates()
    _runs()
    _events()


def downgrade() -> None:
    """Removes all tables."""
    for table in ("events", "runs", "denials", "certificates", "invites", "nodes"):
        op.drop_table(table)


def _nodes() -> None:
    op.create_table(
        "nodes",
        sa.Column("node_id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("name", sa.String(63), nullable=False),
        sa.Column("claim", sa.String(63), nullable=True),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("spiffe_id", sa.String(400), nullable=False),
        sa.Column("signing_key", sa.LargeBinary(32), nullable=True),
        sa.Column("root_pinned", sa.Boolean(), nullable=False),
        sa.Column("invited_at", sa.Double(), nullable=False),
        sa.Column("enrolled_at", sa.Double(), nullable=True),
        sa.Column("revoked_at", sa.Double(), nullable=True),
        sa.Column("revoked_reason", sa.String(1000), nullable=False),
        sa.Column("last_seen_at", sa.Double(), nullable=True),
        sa.CheckConstraint(
            "state IN ('invited', 'enrolled', 'revoked')", name=op.f("ck_nodes_state")
        ),
        sa.CheckConstraint("node_id > 1", name=op.f("ck_nodes_node_id")),
        sa.PrimaryKeyConstraint("node_id", name=op.f("pk_nodes")),
        sa.UniqueConstraint("claim", name=op.f("uq_nodes_claim")),
        sa.UniqueConstraint("spiffe_id", name=op.f("uq_nodes_spiffe_id")),
    )
    op.create_index(op.f("ix_nodes_name"), "nodes", ["name"])


def _invites() -> None:
    op.create_table(
        "invites",
        sa.Column("token_hash", sa.LargeBinary(32), nullable=False),
        sa.Column("purpose", sa.String(16), nullable=False),
        sa.Column("node_id", sa.BigInteger(), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("created_by", sa.String(400), nullable=False),
        sa.Column("expires_at", sa.Double(), nullable=False),
        sa.Column("spent_at", sa.Double(), nullable=True),
        sa.ForeignKeyConstraint(
            ["node_id"], ["nodes.node_id"], name=op.f("fk_invites_node_id_nodes")
        ),
        sa.PrimaryKeyConstraint("token_hash", name=op.f("pk_invites")),
    )
    op.create_index(op.f("ix_invites_node_id"), "invites", ["node_id"])


def _certificates() -> None:
    op.create_table(
        "certificates",
        sa.Column("serial", sa.String(40), nullable=False),
        sa.Column("spiffe_id", sa.String(400), nullable=False),
        sa.Column("not_before", sa.Double(), nullable=False),
        sa.Column("not_after", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("serial", name=op.f("pk_certificates")),
    )
    op.create_index(op.f("ix_certificates_spiffe_id"), "certificates", ["spiffe_id"])
    op.create_table(
        "denials",
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("value", sa.String(400), nullable=False),
        sa.Column("at", sa.Double(), nullable=False),
        sa.Column("reason", sa.String(1000), nullable=False),
        sa.Column("until", sa.Double(), nullable=True),
        sa.CheckConstraint("kind IN ('serial', 'identity')", name=op.f("ck_denials_kind")),
        sa.PrimaryKeyConstraint("kind", "value", name=op.f("pk_denials")),
    )


def _runs() -> None:
    op.create_table(
        "runs",
        sa.Column("run_id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("name", sa.String(255), nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("reason", sa.String(1000), nullable=False),
        sa.Column("plan", sa.Text(), nullable=False),
        sa.Column("plan_digest", sa.String(64), nullable=False),
        sa.Column("round", sa.Integer(), nullable=False),
        sa.Column("rounds", sa.Integer(), nullable=False),
        sa.Column("submitted_at", sa.Double(), nullable=False),
        sa.Column("started_at", sa.Double(), nullable=True),
        sa.Column("ended_at", sa.Double(), nullable=True),
        sa.Column("submitted_by", sa.String(400), nullable=False),
        sa.CheckConstraint(
            "state IN ('pending', 'running', 'finished', 'failed', 'stopped')",
            name=op.f("ck_runs_state"),
        ),
        sa.PrimaryKeyConstraint("run_id", name=op.f("pk_runs")),
    )
    op.create_index(op.f("ix_runs_state"), "runs", ["state"])
    op.create_index(op.f("ix_runs_submitted_at"), "runs", ["submitted_at"])


def _events() -> None:
    op.create_table(
        "events",
        sa.Column(
            "sequence",
            sa.BigInteger().with_variant(sa.Integer(), "sqlite"),
            autoincrement=True,
            nullable=False,
        ),
        sa.Column("at", sa.Double(), nullable=False),
        sa.Column("kind", sa.String(64), nullable=False),
        sa.Column("subject", sa.String(400), nullable=False),
        sa.Column("run_id", sa.BigInteger(), nullable=True),
        sa.Column("detail", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("sequence", name=op.f("pk_events")),
    )
    op.create_index(op.f("ix_events_subject"), "events", ["subject"])
    op.create_index(op.f("ix_events_run_id"), "events", ["run_id"])
