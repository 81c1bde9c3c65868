"""Kills at the worst moment, and a search for secrets, with the coordinator as a real process."""

import base64
import signal
import socket
import stat
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

import grpc
import pytest
from google.protobuf.message import Message

from fedsec.identity.invites import Invite, token_hash
from fedsec.identity.leaves import key_pem, make_key, make_request
from fedsec.identity.names import Kind, Role
from fedsec.identity.signing import enrolment_transcript, make_signing_key, prove, public_bytes
from fedsec.wire.channels import open_channel
from fedsec.wire.credentials import anonymous_credentials
from fedsec.wire.generated import admin_pb2
from fedsec.wire.generated.enrol_pb2 import EnrolReply, EnrolRequest
from fedsec.wire.generated.fleet_pb2 import RenewRequest
from fedsec_server.layout import Listening
from fedsec_server.state.store import Store
from tests.end_to_end.attackrig import pki_of
from tests.pki import BAD_NODES
from tests.server.coordinatorrig import PASSPHRASE, Holder, Place, Program, make_place
from tests.server.deskrig import ENROL, enrolment
from tests.server.fleetrig import ScriptedNode
from tests.wire.gated import refused, run, unary, until

Reply = TypeVar("Reply", bound=Message)
RENEW = "/fedsec.v1.Fleet/Renew"
FEDSEC = (sys.executable, "-c", "from fedsec.cli import main; main()")


async def ask(place: Place, method: str, request: Message, reply: type[Reply]) -> Reply:
    person = place.issue(Kind.PERSON, "ann", Role.ADMIN)
    async with place.channel("admin", person) as channel:
        path = f"/fedsec.v1.Admin/{method}"
        return reply.FromString(await unary(channel, path, request.SerializeToString(), 20))


async def invite(place: Place, name: str) -> tuple[str, Invite]:
    request = admin_pb2.InviteNodeRequest(name=name)
    text = (await ask(place, "InviteNode", request, admin_pb2.InviteNodeReply)).invite
    return text, Invite.decode(text)


async def enrol(place: Place, request: EnrolRequest) -> EnrolReply:
    port = Listening.read(place.layout).addresses["enrol"].rpartition(":")[2]
    credentials = anonymous_credentials(place.authorities.servers.certificate_pem)
    async with open_channel(f"localhost:{port}", credentials) as channel:
        return EnrolReply.FromString(await unary(channel, ENROL, request.SerializeToString(), 20))


async def renew(place: Place, holder: Holder) -> bytes:
    async with place.channel("fleet", holder) as channel:
        request = RenewRequest(csr_der=make_request(make_key()))
        return await unary(channel, RENEW, request.SerializeToString())


def killed(program: Program) -> None:
    program.process.send_signal(signal.SIGKILL)
    program.process.wait(10)


@pytest.mark.slow
def test_what_was_answered_outlives_a_kill(tmp_path: Path) -> None:
    """A token that was spent stays so, and a node that was revoked stays out."""
    place = make_place(tmp_path)
    key = make_key()

    async def spend(program: Program) -> tuple[Invite, Holder]:
        _, token = await invite(place, "north")
        reply = await enrol(place, enrolment(token.token, csr_der=make_request(key)))
        killed(program)
        return token, Holder(reply.chain_pem, key_pem(key), "north")

    async def again(program: Program, token: Invite, holder: Holder) -> None:
        status, details = await refused(enrol(place, enrolment(token.token)))
        assert status is grpc.StatusCode.UNAUTHENTICATED
        assert details.startswith("token-used: ")
        assert await renew(place, holder)
        request = admin_pb2.RevokeNodeRequest(name="north")
        await ask(place, "RevokeNode", request, admin_pb2.RevokeNodeReply)
        killed(program)

    async def out(holder: Holder) -> None:
        status, details = await refused(renew(place, holder))
        assert status is grpc.StatusCode.UNAUTHENTICATED
        assert details.startswith("revoked: ")

    with Program(place.layout) as program:
        program.until_listening()
        token, holder = run(spend(program))
    with Program(place.layout) as program:
        program.until_listening()
        run(again(program, token, holder))
    with Program(place.layout) as program:
        program.until_listening()
        run(out(holder))
    store = Store.open(place.layout.database)
    kinds = [event.kind for event in store.events()]
    store.close()
    assert kinds.count("node-enrolled") == kinds.count("node-revoked") == 1
    assert kinds.index("node-enrolled") < kinds.index("node-revoked")


@pytest.mark.slow
def test_no_secret_is_found_where_it_does_not_belong(tmp_path: Path) -> None:
    """35: tokens, keys, passphrase: not in the log, the database, what is printed, argv or environ.

    Errors on the way are provoked, for it is there that secrets get out.
    """
    place = make_place(tmp_path)
    signing = make_signing_key()

    async def work() -> list[bytes]:
        text, used = await invite(place, "north")
        unused_text, unused = await invite(place, "south")
        csr, public = make_request(make_key()), public_bytes(signing)
        request = enrolment(used.token, csr_der=csr)
        request.signing_key = public
        request.signing_proof = b"\1" * 64
        await refused(enrol(place, request))  # bad proof
        transcript = enrolment_transcript(token_hash(used.token), csr, public)
        request.signing_proof = prove(signing, transcript)
        assert (await enrol(place, request)).name == "north"
        await refused(enrol(place, request))  # used
        await refused(enrol(place, enrolment(unused.token, csr_der=unused.token)))  # bad request
        await refused(enrol(place, enrolment(b"planted token, never invited -32"[:32])))
        return [
            used.token,
            unused.token,
            b"planted token, never invited -32"[:32],
            text.encode(),
            unused_text.encode(),
        ]

    with Program(place.layout) as program:
        program.until_listening()
        secrets = run(work())
        process = Path("/proc") / str(program.process.pid)
        visible = (process / "cmdline").read_bytes() + (process / "environ").read_bytes()
        files = _all_files(place)
        _assert_closed(place.layout.directory)
        program.process.send_signal(signal.SIGTERM)
        status, printed = program.end()
    assert status == 0, printed
    secrets += [PASSPHRASE, *_private_scalars(place)]
    haystacks = {"argv and environ": visible, "printed": printed.encode(), **files}
    for where, hay in haystacks.items():
        for secret in secrets:
            for form in _forms(secret):
                assert form not in hay, f"{form!r} in {where}"


def _all_files(place: Place) -> dict[str, bytes]:
    """Returns what the coordinator wrote, but for its keys."""
    found = [path for path in place.layout.directory.rglob("*") if path.is_file()]
    assert place.layout.log in found
    return {str(path): path.read_bytes() for path in found if not path.match("*.key.pem")}


def _private_scalars(place: Place) -> list[bytes]:
    authorities = place.authorities
    keys = [each.key for each in (authorities.servers, authorities.nodes, authorities.people)]
    return [key.private_numbers().private_value.to_bytes(32, "big") for key in keys]


def _forms(secret: bytes) -> list[bytes]:
    plain = base64.b64encode(secret).rstrip(b"=")
    return [
        secret,
        secret.hex().encode(),
        secret.hex().upper().encode(),
        plain[:-1],
        base64.urlsafe_b64encode(secret).rstrip(b"=")[:-1],
        repr(secret)[2:-1].encode(),
    ]


def _assert_closed(directory: Path) -> None:
    """Directories are the owner's alone; so are files but for those that hold nothing secret."""
    for path in [directory, *directory.rglob("*")]:
        mode = stat.S_IMODE(path.lstat().st_mode)
        public = path.name.endswith(".cert.pem") or path.name == "server.toml"
        allowed = 0o700 if path.is_dir() else 0o644 if public else 0o600
        assert not mode & ~allowed, f"{path} has mode {mode:04o}"
        assert not path.is_symlink()


WHY_TLS_REFUSES = {  # a node's certificate, by its defect in `BAD_NODES`
    "expired": "certificate has expired",
    "not yet valid": "certificate is not yet valid",
    "foreign authority of the same name": "certificate signature failure",
    "signed by a leaf": "unable to get local issuer certificate",
    "servers' CA": "unable to get local issuer certificate",
    "people's CA": "unable to get local issuer certificate",
    "usage of a server": "unsupported certificate purpose",
    "no names": "Issuer has name constraints but leaf has no SANs",
    "another federation": "permitted subtree violation",
}


@pytest.mark.slow
def test_a_refusal_by_tls_is_an_event_and_a_line_on_stderr(tmp_path: Path) -> None:
    """1 to 6 and 19: never seen by the gate; gRPC's core names the reason, and is read along."""
    assert WHY_TLS_REFUSES.keys() == {name for name, each in BAD_NODES.items() if each.tls}
    place = make_place(tmp_path)
    pki = pki_of(place)
    (good, holder) = place.enrol("good")

    async def attacks() -> None:
        node = ScriptedNode(good, place.channel("fleet", holder))
        await node.connect()
        for name, why in WHY_TLS_REFUSES.items():
            leaf, before = BAD_NODES[name].make(pki), len(refusals(place))
            bad = Holder(leaf.chain_pem, leaf.key_pem, name)
            status, _ = await refused(renew(place, bad))
            assert status is grpc.StatusCode.UNAVAILABLE, name
            await until(lambda count=before: len(refusals(place)) > count, 20)
            reasons = {each["reason"] for each in refusals(place)[before:]}
            assert reasons == {f"TLS refused the connection: {why}"}, name
        port = int(Listening.read(place.layout).addresses["fleet"].rpartition(":")[2])
        with socket.create_connection(("127.0.0.1", port)) as plain:
            plain.sendall(b"GET / HTTP/1.1\r\n\r\n")
            plain.settimeout(10)
            with suppress(ConnectionError):
                plain.recv(100)
        await until(lambda: refusals(place)[-1]["code"] == "tls-http-request", 20)
        await node.accept(1)  # the good one's session goes on
        assert await renew(place, holder)
        await node.channel.close()

    with Program(place.layout, [*FEDSEC, "server", "start", str(place.layout.directory)]) as it:
        it.until_listening()
        run(attacks(), 60)
        it.process.send_signal(signal.SIGTERM)
        status, printed = it.end()
    assert status == 0
    assert "code=tls-certificate-verify-failed" in printed
    for of_grpc in ("ssl_transport_security", "log.cc", "Log level"):  # told in our own words
        assert of_grpc not in printed
    assert "The coordinator is shutting down" in printed


def refusals(place: Place) -> list[Mapping[str, Any]]:
    store = Store.open(place.layout.database)
    found = [each.detail for each in store.events() if each.kind == "rpc-refused"]
    store.close()
    return found
