"""First contact over real sockets: one token, one identity, and nothing that a request says of itself."""

import asyncio
from contextlib import AsyncExitStack
from pathlib import Path

import grpc
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from fedsec.identity.bundles import split_chain
from fedsec.identity.invites import token_hash
from fedsec.identity.leaves import make_key, make_request
from fedsec.identity.names import Kind, Role
from fedsec.identity.principals import principal_of
from fedsec.identity.signing import signing_fingerprint
from fedsec.wire.generated import admin_pb2 as pb
from fedsec.wire.generated.enrol_pb2 import EnrolRequest
from fedsec.wire.generated.fleet_pb2 import Version
from fedsec.wire.rates import RateLimiter
from fedsec_server.state.models import Invite as InviteRow
from fedsec_server.state.values import NodeState
from tests.server.deskrig import ENROL, Desk, desk, enrolment
from tests.wire.gated import refused, run, unary

UNAUTHENTICATED = grpc.StatusCode.UNAUTHENTICATED
INVALID = grpc.StatusCode.INVALID_ARGUMENT


def test_a_node_receives_an_identity(tmp_path: Path) -> None:
    async def main() -> None:
        async with desk(tmp_path) as here:
            invite = await here.invite("clinic-1")
            request = enrolment(invite.token)
            reply = await here.enrol(request)
            leaf, issuer = split_chain(reply.chain_pem)
            who = principal_of(leaf, issuer=here.pki.nodes.certificate, kind=Kind.NODE)
            assert issuer == here.pki.nodes.certificate_pem
            assert who.spiffe_id == reply.spiffe_id
            assert who.spiffe_id.startswith("spiffe://fed.example/node/")
            assert (who.not_after - here.clock.now).total_seconds() == pytest.approx(
                8 * 3600, abs=2
            )
            assert (reply.name, reply.fleet_address) == ("clinic-1", "fed.example:7444")
            assert reply.servers_ca_pem == here.pki.servers.certificate_pem
            assert reply.root_pem == here.pki.root.certificate_pem
            shown = await here.ask(
                "ShowNode", pb.ShowNodeRequest(name="clinic-1"), pb.ShowNodeReply
            )
            assert shown.node.node_id == reply.node_id > 1
            assert shown.node.state == "enrolled"
            assert shown.node.signing_fingerprint == signing_fingerprint(request.signing_key)
            assert shown.node.root_pinned is True
            assert shown.node.certificate_expires_at == who.not_after.timestamp()
            assert [event.kind for event in shown.event] == ["node-invited", "node-enrolled"]

    run(main())


def test_that_the_root_was_not_pinned_is_recorded(tmp_path: Path) -> None:
    async def main() -> None:
        async with desk(tmp_path) as here:
            invite = await here.invite()
            await here.enrol(enrolment(invite.token, root_pinned=False))
            assert here.store.node_by_name("clinic-1").root_pinned is False

    run(main())


def greedy_request() -> bytes:
    """A request that asks for another's name, to be an authority, and to be a server."""
    names = [
        x509.UniformResourceIdentifier("spiffe://fed.example/person/admin/mallory"),
        x509.DNSName("localhost"),
    ]
    builder = (
        x509.CertificateSigningRequestBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "fedsec people CA")]))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=5), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
    )
    return builder.sign(make_key(), hashes.SHA256()).public_bytes(serialization.Encoding.DER)


def test_names_and_wishes_of_the_request_are_ignored(tmp_path: Path) -> None:
    async def main() -> None:
        async with desk(tmp_path) as here:
            invite = await here.invite()
            reply = await here.enrol(enrolment(invite.token, csr_der=greedy_request()))
            leaf = x509.load_pem_x509_certificate(reply.chain_pem)
            san = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
            assert [name.value for name in san] == [reply.spiffe_id]
            constraints = leaf.extensions.get_extension_for_class(x509.BasicConstraints).value
            assert constraints.ca is False
            usage = leaf.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
            assert list(usage) == [ExtendedKeyUsageOID.CLIENT_AUTH]
            assert "people" not in leaf.subject.rfc4514_string()

    run(main())


def other_csr(key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey) -> bytes:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "x")])
    builder = x509.CertificateSigningRequestBuilder().subject_name(name)
    return builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.DER)


@pytest.mark.parametrize(
    ("changes", "status", "code"),
    [
        ({"token": b"\0" * 32}, UNAUTHENTICATED, "bad-proof"),  # the proof is over the real one
        ({"token": b"short"}, UNAUTHENTICATED, "unknown-token"),
        ({"token": b""}, UNAUTHENTICATED, "unknown-token"),
        ({"signing_proof": b"\0" * 64}, UNAUTHENTICATED, "bad-proof"),
        ({"signing_proof": b""}, UNAUTHENTICATED, "bad-proof"),
        ({"signing_key": b""}, UNAUTHENTICATED, "wrong-key"),
        ({"signing_key": b"\x01" + b"\0" * 31}, UNAUTHENTICATED, "wrong-key"),  # small order
        ({"csr_der": b"no request"}, UNAUTHENTICATED, "bad-request"),
        ({"csr_der": b"\x30" * (17 << 10)}, UNAUTHENTICATED, "bad-request"),
        (
            {"csr_der": other_csr(rsa.generate_private_key(65537, 2048))},
            UNAUTHENTICATED,
            "wrong-key",
        ),
        (
            {"csr_der": other_csr(ec.generate_private_key(ec.SECP384R1()))},
            UNAUTHENTICATED,
            "wrong-key",
        ),
        ({"version": Version(major=2)}, INVALID, "version"),
        ({"version": Version(major=0)}, INVALID, "version"),
        ({"version": Version(major=1, minor=9)}, INVALID, "version"),
    ],
)
def test_a_bad_request_is_refused_and_the_token_stays_good(
    tmp_path: Path, changes: dict[str, object], status: grpc.StatusCode, code: str
) -> None:
    async def main() -> None:
        async with desk(tmp_path) as here:
            invite = await here.invite()
            got, sentence = await refused(here.enrol(enrolment(invite.token, **changes)))
            assert got is status
            assert sentence.startswith(f"{code}: ")
            assert here.enrolment.codes() == [code]
            assert here.store.node_by_name("clinic-1").state is NodeState.INVITED
            await here.enrol(enrolment(invite.token))

    run(main())


def test_a_signing_request_for_another_proof_is_refused(tmp_path: Path) -> None:
    """Who replays a recorded proof with a TLS key of his own gets nothing."""

    async def main() -> None:
        async with desk(tmp_path) as here:
            invite = await here.invite()
            request = enrolment(invite.token)
            request.csr_der = make_request(make_key())
            _, sentence = await refused(here.enrol(request))
            assert sentence.startswith("bad-proof: ")

    run(main())


async def invited_and(here: Desk, what: str) -> bytes:
    """Returns a token that is `what`."""
    invite = await here.invite("clinic-1", valid_for=60.0)
    match what:
        case "used":
            await here.enrol(enrolment(invite.token))
        case "expired":
            here.clock.now = here.clock.now.replace(year=here.clock.now.year + 1)
        case "withdrawn":
            request = pb.RevokeNodeRequest(name="clinic-1")
            await here.ask("RevokeNode", request, pb.RevokeNodeReply)
        case "for a person":
            node = here.store.node_by_name("clinic-1")
            with here.store._write() as session:
                session.add(
                    InviteRow(
                        token_hash=token_hash(b"p" * 32),
                        purpose="person",
                        node_id=node.node_id,
                        created_at=0.0,
                        created_by="test",
                        expires_at=here.clock.unix + 60,
                    )
                )
            return b"p" * 32
        case "guessed":
            return b"g" * 32
    return invite.token


@pytest.mark.parametrize(
    ("what", "code"),
    [
        ("used", "token-used"),
        ("expired", "token-expired"),
        ("withdrawn", "revoked"),
        ("for a person", "wrong-kind"),
        ("guessed", "unknown-token"),
    ],
)
def test_a_bad_token_is_refused_and_logged(tmp_path: Path, what: str, code: str) -> None:
    async def main() -> None:
        async with desk(tmp_path) as here:
            token = await invited_and(here, what)
            status, sentence = await refused(here.enrol(enrolment(token)))
            assert status is UNAUTHENTICATED
            assert sentence.startswith(f"{code}: ")
            assert here.enrolment.codes() == [code]
            assert token.hex() not in sentence

    run(main())


def test_of_a_hundred_nodes_with_one_token_one_gets_in(tmp_path: Path) -> None:
    async def main() -> None:
        async with desk(tmp_path) as here:
            invite = await here.invite()
            requests = [enrolment(invite.token) for _ in range(100)]
            async with AsyncExitStack() as stack:
                channels = [
                    await stack.enter_async_context(here.enrolment.anonymous()) for _ in range(10)
                ]
                calls = [
                    unary(channel, ENROL, request.SerializeToString(), 20)
                    for channel, request in zip(channels * 10, requests, strict=True)
                ]
                outcomes = await asyncio.gather(*calls, return_exceptions=True)
            won = [outcome for outcome in outcomes if isinstance(outcome, bytes)]
            assert len(won) == 1
            lost = [o for o in outcomes if isinstance(o, grpc.aio.AioRpcError)]
            told = {(error.details() or "").partition(":")[0] for error in lost}
            assert len(lost) == 99
            # all come from one address, of which the gate lets only so many calls be open at a time
            assert told - {"too-many-open"} == {"token-used"}
            node = here.store.node_by_name("clinic-1")
            winner = requests[outcomes.index(won[0])]
            assert node.signing_key == winner.signing_key
            assert (await here.kinds()).count("node-enrolled") == 1

    run(main(), seconds=60)


def test_guessing_is_slowed_down(tmp_path: Path) -> None:
    async def main() -> None:
        limiter = RateLimiter(3, 5, clock=lambda: 0.0)
        async with desk(tmp_path, limiter=limiter) as here:
            codes = []
            for _ in range(8):
                status, sentence = await refused(here.enrol(enrolment(b"g" * 32)))
                codes.append((status, sentence.partition(":")[0]))
            assert codes[:5] == [(UNAUTHENTICATED, "unknown-token")] * 5
            assert codes[5:] == [(grpc.StatusCode.RESOURCE_EXHAUSTED, "rate")] * 3

    run(main())


@pytest.mark.parametrize("data", [b"\xff\xff\xff", b"\x0a", b""])
def test_what_is_no_request_is_refused(tmp_path: Path, data: bytes) -> None:
    async def main() -> None:
        async with desk(tmp_path) as here, here.enrolment.anonymous() as channel:
            status, sentence = await refused(unary(channel, ENROL, data))
            assert status is INVALID
            assert sentence.partition(":")[0] in {"malformed", "version"}
            assert len(here.enrolment.codes()) == 1

    run(main())


def test_other_services_are_not_at_the_enrol_port(tmp_path: Path) -> None:
    async def main() -> None:
        async with desk(tmp_path) as here, here.enrolment.anonymous() as channel:
            for path in ("/fedsec.v1.Admin/InviteNode", "/fedsec.v1.Fleet/Session"):
                status, _ = await refused(unary(channel, path, b""))
                assert status is grpc.StatusCode.UNIMPLEMENTED

    run(main())


def test_an_auditor_cannot_invite(tmp_path: Path) -> None:
    async def main() -> None:
        async with desk(tmp_path) as here:
            request = pb.InviteNodeRequest(name="clinic-1")
            ask = here.ask("InviteNode", request, pb.InviteNodeReply, role=Role.AUDITOR)
            status, _ = await refused(ask)
            assert status is grpc.StatusCode.PERMISSION_DENIED
            assert here.store.nodes() == []

    run(main())


def test_the_request_has_no_field_for_a_name() -> None:
    """What a node is called is decided where it was invited."""
    fields = {each.name for each in EnrolRequest.DESCRIPTOR.fields}
    assert fields == {
        "version",
        "token",
        "csr_der",
        "signing_key",
        "signing_proof",
        "root_pinned",
    }
