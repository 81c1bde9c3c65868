"""`fedsec node invite|list|show|revoke`: the coordinator's side of nodes."""

import time
from typing import Annotated

import typer

from fedsec.console import Json, emit_json, examples, format_time, safe, say, show, table
from fedsec.errors import ConfigError
from fedsec.wire.generated import admin_pb2 as pb
from fedsec_server.commands.reach import CredentialsFile, Directory, reach
from fedsec_server.commands.shape import as_mapping, event_table, facts, moment

Name = Annotated[str, typer.Argument(metavar="NAME", help="Of the node: a-z, 0-9 and hyphen.")]

_EVENTS = 20  # shown of a node

_INVITE = """\b
Example:
  fedsec node invite clinic-1

Give the line that it prints to the node's operator over a channel that others cannot read: until
it is used or expires, whoever has it can join in the node's place, once. There:

\b
  fedsec node join INVITE --dir DIR
  fedsec node start DIR
"""
_REVOKE = """\b
Example:
  fedsec node revoke clinic-1 --reason "laptop lost"

Its connections end within a second, its certificates are refused from now on, an invite that was
not used is void. It cannot be undone; the name can be invited again, as a new node.
"""


def fill(group: typer.Typer) -> None:
    """Adds the coordinator's commands of `fedsec node`."""
    group.command("invite", epilog=_INVITE)(invite)
    group.command(
        "list", epilog=examples("fedsec node list", "fedsec node list --json > nodes.json")
    )(list_nodes)
    group.command("show", epilog=examples("fedsec node show clinic-1"))(show_node)
    group.command("revoke", epilog=_REVOKE)(revoke)


def invite(
    name: Name,
    valid_h: Annotated[
        float | None,
        typer.Option(
            show_default=False,
            help="Hours for which the invite can be used, at most 168. Left out: as server.toml "
            "says, 24 if it does not.",
        ),
    ] = None,
    directory: Directory = None,
    credentials: CredentialsFile = None,
    json: Json = False,
) -> None:
    """Invite a machine to join as a node: print one string, good for one use."""
    if valid_h == 0:  # which on the wire means "as server.toml says"
        raise ConfigError("--valid-h must be more than 0")
    request = pb.InviteNodeRequest(name=name, valid_for=(valid_h or 0) * 3600)
    reply = reach(directory, credentials).ask("InviteNode", request, pb.InviteNodeReply)
    if json:
        emit_json({"name": name, **as_mapping(reply)})
        return
    say(reply.invite)
    typer.echo(
        f"Good for one use until {format_time(reply.expires_at)}. On the machine of {name}:\n"
        f"  fedsec node join INVITE --dir DIR",
        err=True,
    )


def list_nodes(
    directory: Directory = None,
    credentials: CredentialsFile = None,
    json: Json = False,
) -> None:
    """List all nodes: invited, enrolled and revoked."""
    reply = reach(directory, credentials).ask("ListNodes", pb.ListNodesRequest(), pb.ListNodesReply)
    nodes = sorted(reply.node, key=lambda node: (node.state == "revoked", node.name))
    if json:
        emit_json([as_mapping(node) for node in nodes])
        return
    if not nodes:
        say("No nodes yet; invite one with `fedsec node invite NAME`.")
        return
    rows = [
        (
            node.name,
            node.state,
            _here(node),
            format_time(node.certificate_expires_at),
            node.signing_fingerprint or None,
        )
        for node in nodes
    ]
    show(table(["name", "state", "connected", "certificate until", "signing key"], rows))


def show_node(
    name: Name,
    directory: Directory = None,
    credentials: CredentialsFile = None,
    json: Json = False,
) -> None:
    """Show one node: identity, signing key, certificate, what happened lately."""
    request = pb.ShowNodeRequest(name=name)
    reply = reach(directory, credentials).ask("ShowNode", request, pb.ShowNodeReply)
    if json:
        events = [as_mapping(event) for event in reply.event]
        emit_json({**as_mapping(reply.node), "event": events})
        return
    node, now = reply.node, time.time()
    rows = [
        ("name", node.name),
        ("state", node.state),
        ("connected", _here(node)),
        ("last seen", moment(node.last_seen_at, now=now)),
        ("enrolled", moment(node.enrolled_at, now=now)),
        ("certificate until", moment(node.certificate_expires_at, now=now)),
        ("signing key", node.signing_fingerprint or None),
        ("root", _root(node)),
        ("identity", node.spiffe_id),
        ("node id", node.node_id),
    ]
    show(facts(rows))
    latest = reply.event[-_EVENTS:]
    if latest:
        show(event_table(latest))


def revoke(
    name: Name,
    reason: Annotated[str, typer.Option(help="Kept in the log, shown to nobody else.")] = "",
    directory: Directory = None,
    credentials: CredentialsFile = None,
    json: Json = False,
) -> None:
    """Shut a node out for good, now."""
    request = pb.RevokeNodeRequest(name=name, reason=reason)
    reply = reach(directory, credentials).ask("RevokeNode", request, pb.RevokeNodeReply)
    if json:
        emit_json({"name": name, **as_mapping(reply)})
        return
    cut = "; it was connected, and was cut off" if reply.was_connected else ""
    say(f"Node {safe(name)} is revoked{cut}.")


def _here(node: pb.Node) -> str:
    if node.state != "enrolled":
        return "-"
    return "yes" if node.connected else "no"


def _root(node: pb.Node) -> str:
    if node.state == "invited":
        return "-"
    return "pinned" if node.root_pinned else "not pinned: it trusts what the invite led it to"
