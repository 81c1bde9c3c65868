"""`fedsec roster sign|show|publish|entry`: which nodes there are, signed by the root."""

import base64
import binascii
import sys
import time
import uuid
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated

import typer
from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from fedsec.console import Json, emit_json, examples, format_time, safe, say, show, table
from fedsec.errors import ConfigError
from fedsec.files import read_public, write_public
from fedsec.flower import policy_directory
from fedsec.identity.authorities import Authority, federation_of_root
from fedsec.identity.certificates import load_certificate
from fedsec.identity.names import Kind, Role, check_name, make_spiffe
from fedsec.identity.roster import MAX_BYTES, Member, Roster, read, sign
from fedsec.identity.signing import signing_fingerprint
from fedsec.wire.generated import admin_pb2 as pb
from fedsec_server.commands.ca import PassphraseFile, read_passphrase
from fedsec_server.commands.reach import CredentialsFile, Directory, reach
from fedsec_server.commands.shape import as_mapping
from fedsec_server.init import ROOT_CERTIFICATE, load_root

MAX_DAYS = 366.0
MAX_LIST = 64 << 20  # bytes of a list of nodes

SignedFile = Annotated[Path, typer.Argument(metavar="FILE", help="A signed roster.")]
Root = Annotated[
    Path,
    typer.Option(metavar="ROOTDIR", show_default=False, help="Where `fedsec ca init` made it."),
]

_SIGN = """\b
Example, on the coordinator, then where the root lies, then on the coordinator again:
  fedsec node list --json --dir /srv/fedsec > nodes.json
  fedsec roster sign nodes.json --root /media/stick/root -o roster
  fedsec roster publish roster --dir /srv/fedsec

Needs no network. The list comes from the coordinator, which the nodes will not trust: so compare
each fingerprint with the one that the node's operator reads on the node (`fedsec node check DIR`),
by another way than through the coordinator, before you agree. Sign a new roster when a node has
joined or was revoked, and before the old one ends; nodes go back to none that is older.
"""


_ENTRY = """\b
Example, for nodes that Flower's own SuperNode runs; on each node, then where the root lies:
  fedsec roster entry DIR --root root.cert.pem --node-id 4711 --name clinic-1 > clinic-1.json
  fedsec roster sign clinic-*.json --root /media/stick/root -o roster

Then put the roster into each node's DIR, as `roster`, and name DIR where the node is started:
flower-supernode --node-config 'fedsec-policy="DIR"'. Nodes that joined with `fedsec node join` need
none of this.
"""


class _Listed(BaseModel):
    """A node in the output of `fedsec node list --json`, as far as it matters here."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    name: str
    state: str
    node_id: int
    spiffe_id: str
    signing_key: str


_LIST = TypeAdapter(list[_Listed])


def fill(group: typer.Typer) -> None:
    """Adds the commands of `fedsec roster`."""
    group.command("sign", epilog=_SIGN)(sign_roster)
    group.command("show", epilog=examples("fedsec roster show roster --root root.cert.pem"))(
        show_roster
    )
    group.command("publish", epilog=examples("fedsec roster publish roster --dir /srv/fedsec"))(
        publish
    )
    group.command("entry", epilog=_ENTRY)(make_entry)


Output = Annotated[Path, typer.Option("--output", "-o", help="The file to write.")]
Days = Annotated[float, typer.Option(help=f"For which the roster holds; at most {MAX_DAYS:g}.")]
Serial = Annotated[
    int | None,
    typer.Option(
        show_default=False,
        help="Must be higher than that of every roster before. Left out: the time, in seconds.",
    ),
]
LeaveOut = Annotated[
    list[str] | None,
    typer.Option(metavar="NAME", show_default=False, help="A node to leave out; repeatable."),
]


def sign_roster(
    nodes: Annotated[
        list[Path],
        typer.Argument(
            metavar="NODES...",
            help="Output of `fedsec node list --json` or `fedsec roster entry`.",
        ),
    ],
    *,
    root: Root,
    output: Output = Path("roster"),
    days: Days = 90.0,
    serial: Serial = None,
    leave_out: LeaveOut = None,
    passphrase_file: PassphraseFile = None,
    yes: Annotated[
        bool, typer.Option("--yes", help="Do not ask: the fingerprints were compared.")
    ] = False,
    json: Json = False,
) -> None:
    """Sign a roster of all enrolled nodes with the federation's root."""
    if not 0 < days <= MAX_DAYS:
        raise ConfigError(f"--days must be more than 0 and at most {MAX_DAYS:g}, got {days:g}")
    listed = _enrolled(nodes, frozenset(leave_out or ()))
    members = sorted(map(_member, listed), key=lambda member: member.node_id)
    if not yes:
        _agree(listed)
    authority = load_root(root, read_passphrase(passphrase_file))
    made = _roster(members, authority, days, serial)
    write_public(output, sign(made, authority))
    ends_at = made.not_after.timestamp()
    if json:
        told = {"file": str(output), "serial": made.serial, "members": len(members)}
        emit_json({**told, "federation": made.federation, "ends_at": ends_at})
        return
    say(
        f"Signed: {len(members)} nodes of {made.federation}, serial {made.serial}, good until "
        f"{format_time(ends_at)}: {output}"
    )
    say(f"Next, on the coordinator: fedsec roster publish {output} --dir DIR")


def _roster(members: list[Member], authority: Authority, days: float, serial: int | None) -> Roster:
    """Returns the roster to be signed; it ends with the root's certificate, if not before."""
    now = int(time.time())
    end = datetime.fromtimestamp(now, UTC) + timedelta(seconds=round(days * 86_400))
    end = min(end, authority.certificate.not_valid_after_utc)
    return Roster(_federation(members), serial if serial is not None else now, end, tuple(members))


def show_roster(
    file: SignedFile,
    *,
    root: Annotated[
        Path,
        typer.Option(
            metavar="PEM",
            show_default=False,
            help="The root's certificate: root.cert.pem, of the coordinator or of a node.",
        ),
    ],
    json: Json = False,
) -> None:
    """Check a signed roster and show what is in it."""
    certificate = root / ROOT_CERTIFICATE if root.is_dir() else root
    roster = read(read_public(file, limit=MAX_BYTES), root_pem=read_public(certificate))
    rows = [
        (str(each.node_id), each.spiffe_id, signing_fingerprint(each.signing_key))
        for each in roster.members
    ]
    ends_at = roster.not_after.timestamp()
    if json:
        keys = ("node_id", "spiffe_id", "signing_fingerprint")
        members = [dict(zip(keys, row, strict=True)) for row in rows]
        told = {"federation": roster.federation, "serial": roster.serial, "ends_at": ends_at}
        emit_json({**told, "members": members})
        return
    over = "" if time.time() <= ends_at else ", which is over"
    say(
        f"Signed by the root of {roster.federation}; serial {roster.serial}, good until "
        f"{format_time(ends_at)}{over}."
    )
    show(table(["node id", "identity", "signing key"], rows))


def publish(
    file: SignedFile,
    directory: Directory = None,
    credentials: CredentialsFile = None,
    json: Json = False,
) -> None:
    """Hand a signed roster to the coordinator.

    It goes to the nodes with each run that asks them to check their peers.
    """
    request = pb.PublishRosterRequest(roster=read_public(file, limit=MAX_BYTES))
    reply = reach(directory, credentials).ask("PublishRoster", request, pb.PublishRosterReply)
    if json:
        emit_json({**as_mapping(reply), "serial": reply.serial})
        return
    say(
        f"Published: {reply.members} nodes, serial {reply.serial}, good until "
        f"{format_time(reply.ends_at)}. Runs that are submitted from now on go by it."
    )
    if reply.missing:
        names = ", ".join(map(safe, reply.missing))
        say(f"Not on it, so of no use where a plan asks for a signed roster: {names}")


def make_entry(
    directory: Annotated[
        Path, typer.Argument(metavar="DIR", help="To be made: what the node will go by.")
    ],
    *,
    root: Annotated[
        Path,
        typer.Option(
            metavar="PEM",
            show_default=False,
            help="The root's certificate, after its fingerprint was compared with the holder's.",
        ),
    ],
    node_id: Annotated[
        int, typer.Option(min=1, show_default=False, help="By which Flower names the node.")
    ],
    name: Annotated[str, typer.Option(show_default=False, help="For the root's holder to read.")],
) -> None:
    """Make a signing key for a node of plain Flower; print its entry for the list to be signed."""
    check_name(name)
    root_pem = read_public(root)
    federation = federation_of_root(load_certificate(root_pem))
    public = policy_directory.make(directory, root_pem)
    entry = _Listed(
        name=name,
        state="enrolled",
        node_id=node_id,
        spiffe_id=make_spiffe(federation, Kind.NODE, Role.NODE, uuid.uuid4().hex),
        signing_key=base64.b64encode(public).decode("ascii"),
    )
    emit_json([{**entry.model_dump(), "signing_fingerprint": signing_fingerprint(public)}])


def _enrolled(paths: list[Path], leave_out: frozenset[str]) -> list[_Listed]:
    listed = [node for path in paths for node in _listed(path)]
    where = ", ".join(map(str, paths))
    unknown = leave_out - {node.name for node in listed}
    if unknown:
        raise ConfigError(f"--leave-out: there is no node {', '.join(sorted(unknown))} in {where}")
    found = [node for node in listed if node.state == "enrolled" and node.name not in leave_out]
    if not found:
        raise ConfigError(f"{where} holds no enrolled node")
    return found


def _listed(path: Path) -> list[_Listed]:
    try:
        return _LIST.validate_json(read_public(path, limit=MAX_LIST))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the file"
        raise ConfigError(
            f"{path} is not the output of `fedsec node list --json`: {where}: {first['msg']}"
        ) from None


def _member(node: _Listed) -> Member:
    try:
        key = base64.b64decode(node.signing_key, validate=True)
    except binascii.Error:
        raise ConfigError(f"node {safe(node.name)}: its signing_key is no base64") from None
    return Member(node.node_id, node.spiffe_id, key)


def _federation(members: list[Member]) -> str:
    """Returns the federation of the first member; `Roster` checks that all are of the same."""
    return members[0].spiffe_id.removeprefix("spiffe://").partition("/")[0]


def _agree(listed: list[_Listed]) -> None:
    """Shows what is to be signed and asks.

    Raises:
        ConfigError: There is nobody to ask.
        typer.Abort: They do not agree.
    """
    rows = [(safe(node.name), signing_fingerprint(_member(node).signing_key)) for node in listed]
    show(table(["name", "signing key"], rows))
    if not sys.stdin.isatty():
        raise ConfigError(
            "nobody is there to be asked whether these fingerprints are those that the nodes' "
            "operators read; compare them, then give --yes"
        )
    typer.confirm("Are these the fingerprints that the nodes' operators read?", abort=True)
