"""Opening listeners and channels, and the pinned first contact.

gRPC's Python clients do not show the server's certificate to the program, so its SPIFFE id cannot
be looked at. What a client trusts is therefore the federation's CA for servers alone, which signs
nothing else, together with the host name.
"""

import hashlib
import hmac
import socket
import ssl
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import grpc
import grpc.aio
from cryptography.hazmat.primitives.serialization import Encoding

from fedsec.errors import ConfigError, IdentityError
from fedsec.identity.authorities import check_signed_by, load_certificate, show_fingerprint
from fedsec.identity.certificates import load_certificates
from fedsec.identity.invites import split_address
from fedsec.wire.options import CLIENT_OPTIONS, SERVER_OPTIONS

MAX_CONNECTIONS = 4096
MAX_RPCS = 8192


@dataclass(frozen=True, slots=True)
class Listener:
    """A gRPC server that listens.

    Args:
        server: Stop it with ``await listener.server.stop(grace)``.
        port: Where it listens; the system's choice when 0 was asked for.
    """

    server: grpc.aio.Server
    port: int


async def listen(
    address: str,
    credentials: grpc.ServerCredentials,
    handler: grpc.GenericRpcHandler,
    *,
    max_connections: int = MAX_CONNECTIONS,
    options: Sequence[tuple[str, int]] = SERVER_OPTIONS,
) -> Listener:
    """Starts a listener behind a gate.

    Args:
        address: ``host:port``; port 0 lets the system choose.
        credentials: Of `fedsec.wire.credentials.ServerCredentials`.
        handler: Of `fedsec.wire.gate.Gate`.
        max_connections: More are closed at once.
        options: gRPC's.

    Raises:
        ConfigError: The address cannot be listened on, e.g. because another process does.
    """
    server = grpc.aio.server(
        options=[*options, ("grpc.max_allowed_incoming_connections", max_connections)],
        maximum_concurrent_rpcs=MAX_RPCS,
    )
    server.add_generic_rpc_handlers((handler,))
    try:
        port = server.add_secure_port(address, credentials)
    except RuntimeError as error:
        raise ConfigError(
            f"cannot listen on {address}: another program does, or the host is not of this "
            "machine; [listen] in server.toml says where"
        ) from error
    await server.start()
    return Listener(server, port)


def open_channel(
    address: str,
    credentials: grpc.ChannelCredentials,
    *,
    options: Sequence[tuple[str, Any]] = (),
) -> grpc.aio.Channel:
    """Returns a channel with a connection of its own; it connects at the first call.

    Two channels never share a connection, so that a new channel always shows the new certificate.
    The server's host name is always checked against `address`; no option can rename it.

    Args:
        address: ``host:port`` of the coordinator.
        credentials: Of `fedsec.wire.credentials`.
        options: gRPC's, beside `CLIENT_OPTIONS`.

    Raises:
        ConfigError: `address` is malformed, or an option would change the checked host name.
    """
    split_address(address)
    for name, _ in options:
        if name in {"grpc.ssl_target_name_override", "grpc.default_authority"}:
            raise ConfigError(f"{name} would let a certificate of another host pass")
    return grpc.aio.secure_channel(
        f"dns:///{address}", credentials, options=[*CLIENT_OPTIONS, *options]
    )


def fetch_pinned_chain(
    address: str,
    fingerprint: bytes,
    timeout_s: float = 10.0,
    *,
    root_fingerprint: str | None = None,
) -> bytes:
    """Returns, as PEM, the CA for servers that the one who listens at `address` presents.

    The handshake verifies nothing: whom to believe is decided by the fingerprints alone, and what
    is returned is the anchor for the connection that follows, where TLS verifies the rest.

    Args:
        address: ``host:port``.
        fingerprint: SHA-256 of the CA's DER, 32 bytes, from the invite.
        timeout_s: For all of it together, > 0.
        root_fingerprint: Of the root that must have signed the CA and be presented with it, 64 hex
            digits. That both fit is for the caller to check again once it has the root for good.

    Raises:
        ConfigError: `address` is malformed.
        IdentityError: ``host-unknown``, the name does not resolve; ``nothing-listens``;
            ``no-answer``, in time; ``not-tls``, something else than TLS answers;
            ``pin-mismatch``, the CA is not among the certificates presented;
            ``wrong-fingerprint``, the root is not.
    """
    chain = _chain_at(address, timeout_s)
    found = _with_fingerprint(chain, fingerprint)
    if found is None:
        raise IdentityError(
            "pin-mismatch",
            f"none of the {len(chain)} certificates of {address} is the CA that the invite names: "
            "another federation's coordinator, an old invite, or someone in between",
        )
    if root_fingerprint is not None:
        root = _with_fingerprint(chain, bytes.fromhex(root_fingerprint))
        _check_root(found, root, chain[-1], root_fingerprint)
    return ssl.DER_cert_to_PEM_cert(found).encode("ascii")


def check_presents(address: str, anchors_pem: bytes, timeout_s: float = 10.0) -> None:
    """Returns if the one who listens at `address` presents one of these CAs.

    Args:
        address: ``host:port``.
        anchors_pem: PEM of the CAs for servers that are trusted.
        timeout_s: For all of it together, > 0.

    Raises:
        ConfigError: `address` is malformed.
        IdentityError: As `fetch_pinned_chain` says; ``malformed``, the PEM.
    """
    anchors = [each.public_bytes(Encoding.DER) for each in load_certificates(anchors_pem)]
    if not set(_chain_at(address, timeout_s)).intersection(anchors):
        raise IdentityError("pin-mismatch", f"{address} presents another CA than these")


def _chain_at(address: str, timeout_s: float) -> list[bytes]:
    host, port = split_address(address)
    end = time.monotonic() + timeout_s
    with _connect(host, port, timeout_s) as plain:
        return _presented(plain, host, end, address)


def _with_fingerprint(chain: Sequence[bytes], fingerprint: bytes) -> bytes | None:
    for certificate in chain:
        if hmac.compare_digest(hashlib.sha256(certificate).digest(), fingerprint):
            return certificate
    return None


def _check_root(ca: bytes, root: bytes | None, last: bytes, wanted: str) -> None:
    """Raises IdentityError, ``wrong-fingerprint``, unless `root` was presented and signed `ca`."""
    if root is None:
        shown = show_fingerprint(hashlib.sha256(last).hexdigest())
        raise IdentityError(
            "wrong-fingerprint",
            f"the root is not {show_fingerprint(wanted)}; what the coordinator shows for its root "
            f"is {shown}",
        )
    pair = [ssl.DER_cert_to_PEM_cert(each).encode("ascii") for each in (ca, root)]
    try:
        check_signed_by(*map(load_certificate, pair))
    except IdentityError as error:
        raise IdentityError(
            "wrong-fingerprint", "the root of that fingerprint did not sign the coordinator's CA"
        ) from error


def _connect(host: str, port: int, timeout_s: float) -> socket.socket:
    try:
        return socket.create_connection((host, port), timeout=timeout_s)
    except socket.gaierror as error:
        raise IdentityError(
            "host-unknown", f"the name {host} cannot be resolved: {error.strerror}"
        ) from error
    except TimeoutError as error:
        raise IdentityError(
            "no-answer",
            f"{host}:{port} did not answer within {timeout_s:g} s; is a firewall there?",
        ) from error
    except OSError as error:
        raise IdentityError(
            "nothing-listens", f"nothing listens at {host}:{port}: {error.strerror or error}"
        ) from error


def _presented(plain: socket.socket, host: str, end: float, address: str) -> list[bytes]:
    """Returns the certificates, DER, that the other end presents in the handshake."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.check_hostname = False  # nothing is sent over this connection, and the pin decides
    context.verify_mode = ssl.CERT_NONE
    context.set_alpn_protocols(["h2"])
    plain.settimeout(max(0.01, end - time.monotonic()))
    try:
        with context.wrap_socket(plain, server_hostname=host) as tls:
            return _unverified_chain(tls)
    except TimeoutError as error:
        raise IdentityError(
            "no-answer", f"{address} accepts connections but did not answer a TLS greeting"
        ) from error
    except (ssl.SSLError, OSError) as error:
        raise IdentityError(
            "not-tls", f"what listens at {address} does not speak TLS 1.3: {_reason(error)}"
        ) from error


def _unverified_chain(tls: ssl.SSLSocket) -> list[bytes]:
    if sys.version_info >= (3, 13):
        return cast("list[bytes]", tls.get_unverified_chain())
    # Before 3.13 only the object below the socket knows the chain.
    below: Any = tls._sslobj  # type: ignore[attr-defined] # noqa: SLF001 - see above
    der = ssl._ssl.ENCODING_DER  # type: ignore[attr-defined] # noqa: SLF001 - see above
    return [certificate.public_bytes(der) for certificate in below.get_unverified_chain() or ()]


def _reason(error: OSError) -> str:
    return getattr(error, "reason", None) or error.strerror or type(error).__name__
