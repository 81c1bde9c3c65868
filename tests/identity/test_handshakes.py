"""The profile under real TLS: BoringSSL inside gRPC on both ends, and OpenSSL as a client.

What TLS lets through must be refused by `principal_of`; nothing passes both.
"""

import contextlib
import ipaddress
import socket
import ssl
from collections.abc import Iterable, Iterator
from concurrent import futures
from datetime import UTC, datetime, timedelta

import grpc
import pytest
from cryptography import x509

from fedsec.errors import IdentityError
from fedsec.identity.names import Kind
from fedsec.identity.principals import admit, principal_of
from tests.pki import (
    BAD_NODES,
    CLIENT,
    FEDERATION,
    SERVER,
    Leaf,
    Pki,
    forge,
    forge_server,
    lookalike,
    make_pki,
    node_uri,
)

HOUR = timedelta(hours=1)


class Door(grpc.GenericRpcHandler):
    """Answers every unary RPC with who calls, or with the code of the refusal."""

    def __init__(self, pki: Pki) -> None:
        self.pki = pki

    def service(
        self, handler_call_details: grpc.HandlerCallDetails
    ) -> "grpc.RpcMethodHandler[bytes, bytes]":
        return grpc.unary_unary_rpc_method_handler(self.answer)

    def answer(self, request: bytes, context: grpc.ServicerContext) -> bytes:
        pems: Iterable[bytes] = context.auth_context()["x509_pem_cert"]  # type: ignore[assignment]
        (pem,) = pems
        try:
            principal = principal_of(pem, issuer=self.pki.nodes.certificate, kind=Kind.NODE)
            admit(principal, now=datetime.now(UTC))
        except IdentityError as error:
            return b"refused " + error.code.encode()
        return principal.spiffe_id.encode()


@contextlib.contextmanager
def listener(pki: Pki, leaf: Leaf) -> Iterator[int]:
    """A fleet listener: it trusts the nodes' CA and nothing above it."""
    server = grpc.server(futures.ThreadPoolExecutor(1), handlers=[Door(pki)])
    credentials = grpc.ssl_server_credentials(
        [(leaf.key_pem, leaf.chain_pem)],
        root_certificates=pki.nodes.certificate_pem,
        require_client_auth=True,
    )
    port = server.add_secure_port("127.0.0.1:0", credentials)
    server.start()
    try:
        yield port
    finally:
        server.stop(None).wait()


def call(port: int, anchor_pem: bytes, leaf: Leaf, *, host: str = "localhost") -> str:
    """Returns the answer, or the name of the status; every call makes a handshake of its own."""
    credentials = grpc.ssl_channel_credentials(anchor_pem, leaf.key_pem, leaf.chain_pem)
    options = [("grpc.use_local_subchannel_pool", 1)]
    with grpc.secure_channel(f"{host}:{port}", credentials, options) as channel:
        who: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary("/fedsec.v1.Test/Who")
        try:
            return who(b"", timeout=10).decode()
        except grpc.RpcError as error:
            return str(error.code().name)


@pytest.fixture(scope="module")
def pki() -> Pki:
    return make_pki()


@pytest.fixture(scope="module")
def port(pki: Pki) -> Iterator[int]:
    with listener(pki, pki.server()) as port:
        yield port


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1"])
def test_a_node_and_the_coordinator_believe_each_other(pki: Pki, port: int, host: str) -> None:
    node = pki.node()
    assert call(port, pki.servers.certificate_pem, node, host=host) == node.spiffe_id


@pytest.mark.parametrize("attack", BAD_NODES)
def test_a_bad_client_is_refused_by_tls_or_by_the_gate(pki: Pki, port: int, attack: str) -> None:
    defect = BAD_NODES[attack]
    seen = call(port, pki.servers.certificate_pem, defect.make(pki))
    assert seen == ("UNAVAILABLE" if defect.tls else f"refused {defect.code}")
    node = pki.node()
    assert call(port, pki.servers.certificate_pem, node) == node.spiffe_id


def bad_servers(pki: Pki) -> dict[str, Leaf]:
    other = "spiffe://other.example/server/fleet"
    names = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
    uri = [f"spiffe://{FEDERATION}/server/fleet"]
    now = pki.now
    return {
        "expired": forge_server(pki, not_before=now - 9 * HOUR, not_after=now - HOUR),
        "not yet valid": forge_server(pki, not_before=now + HOUR),
        "usage of a client": forge_server(pki, purposes=(CLIENT,)),
        "another host": forge_server(pki, others=[x509.DNSName("elsewhere.example")]),
        "another federation": forge(
            pki.servers, [other], now=now, purposes=(SERVER,), others=names
        ),
        "nodes' CA": forge(pki.nodes, uri, now=now, purposes=(SERVER,), others=names),
        "a node": pki.node(),
        "foreign authority of the same name": forge(
            lookalike(pki.servers), uri, now=now, purposes=(SERVER,), others=names
        ),
    }


@pytest.mark.parametrize("attack", bad_servers(make_pki()))
def test_a_bad_server_is_refused(pki: Pki, attack: str) -> None:
    with listener(pki, bad_servers(pki)[attack]) as port:
        assert call(port, pki.servers.certificate_pem, pki.node()) == "UNAVAILABLE"


@pytest.mark.parametrize("federation", ["demo", "a-b.c1.example", "a" * 31 + "." + "b" * 32])
def test_the_name_constraint_fits_every_form_of_federation(federation: str) -> None:
    """The constraint is critical: a library that did not know it would refuse everybody."""
    pki = make_pki(federation=federation)
    with listener(pki, pki.server()) as port:
        node = pki.node()
        assert call(port, pki.servers.certificate_pem, node) == node.spiffe_id
        for foreign in (f"sub.{federation}", f"x{federation}"[:64], "other.example"):
            leaf = forge(pki.nodes, [node_uri(foreign)], now=pki.now)
            assert call(port, pki.servers.certificate_pem, leaf) == "UNAVAILABLE"


def test_the_root_as_anchor_takes_the_whole_chain(pki: Pki, port: int) -> None:
    """Path lengths, key identifiers and constraints hold over three levels as well."""
    node = pki.node()
    assert call(port, pki.root.certificate_pem, node) == node.spiffe_id


def test_openssl_takes_the_servers_certificate(pki: Pki, port: int) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN | ssl.VERIFY_X509_STRICT
    context.load_verify_locations(cadata=pki.servers.certificate_pem.decode())
    with (
        contextlib.closing(socket.create_connection(("127.0.0.1", port), timeout=10)) as plain,
        context.wrap_socket(plain, server_hostname="localhost") as secure,
    ):
        der = secure.getpeercert(binary_form=True)
    assert der is not None
    leaf = ssl.DER_cert_to_PEM_cert(der).encode()
    principal = principal_of(leaf, issuer=pki.servers.certificate, kind=Kind.SERVER)
    assert principal.name == "fleet"
