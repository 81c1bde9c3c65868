"""Rows of the state as people see them: messages of the admin service."""

import json
from collections.abc import Collection, Iterable
from typing import TypeVar

from google.protobuf.message import Message

from fedsec.identity.certificates import load_certificates
from fedsec.identity.signing import signing_fingerprint
from fedsec.wire.generated import admin_pb2 as pb
from fedsec_server.authorities import Authorities
from fedsec_server.layout import PLURALS, Layout
from fedsec_server.state.values import Event, NodeRecord, RunRecord

MAX_LIST = 3 << 20  # bytes of a list in one answer; gRPC carries 4 MiB

Item = TypeVar("Item", bound=Message)


def authority_views(authorities: Authorities) -> list[pb.Authority]:
    """Returns the issuing authorities as they count now."""
    return [
        pb.Authority(
            name=name,
            fingerprint=authorities.of(kind).fingerprint,
            expires_at=max(
                ca.not_valid_after_utc.timestamp()
                for ca in load_certificates(authorities.anchors(kind))
            ),
            change_ends_at=end.timestamp() if (end := authorities.ends.get(kind)) else 0.0,
        )
        for kind, name in PLURALS.items()
    ]


def node_view(node: NodeRecord, connected: Collection[int]) -> pb.Node:
    """Returns a node; times that have not come are 0."""
    return pb.Node(
        node_id=node.node_id,
        name=node.name,
        state=node.state,
        connected=node.node_id in connected,
        signing_fingerprint=signing_fingerprint(node.signing_key) if node.signing_key else "",
        root_pinned=node.root_pinned,
        enrolled_at=node.enrolled_at or 0.0,
        certificate_expires_at=node.certificate_expires_at or 0.0,
        last_seen_at=node.last_seen_at or 0.0,
        spiffe_id=node.spiffe_id,
        signing_key=node.signing_key or b"",
    )


def run_view(run: RunRecord, layout: Layout) -> pb.Run:
    """Returns a run; times that have not come are 0."""
    return pb.Run(
        run_id=run.run_id,
        name=run.name,
        state=run.state,
        reason=run.reason,
        plan_digest=run.plan_digest,
        round=run.round,
        rounds=run.rounds,
        submitted_at=run.submitted_at,
        ended_at=run.ended_at or 0.0,
        submitted_by=run.submitted_by,
        directory=str(layout.run(run.run_id).resolve()),
    )


def event_view(event: Event) -> pb.Event:
    """Returns an event."""
    return pb.Event(
        sequence=event.sequence,
        at=event.at,
        kind=event.kind,
        subject=event.subject,
        detail_json=json.dumps(dict(event.detail)),
    )


def newest(items: Iterable[Item]) -> list[Item]:
    """Returns as many of the last items, in their order, as fit into one answer."""
    kept: list[Item] = []
    room = MAX_LIST
    for item in reversed(list(items)):
        room -= item.ByteSize() + 8  # and the field's own key and length
        if room < 0:
            break
        kept.append(item)
    return kept[::-1]
