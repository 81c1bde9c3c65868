"""TLS credentials for both ends, made from PEM in memory.

gRPC asks for the server's certificate at every handshake, in threads of its own, holding a lock of
its own. If what it calls fails, it silently goes on with the former certificate; so everything is
checked when it is handed in.

Between asking and using the answer gRPC holds no lock (grpc/grpc#36693). Where one handshake brings
a new certificate while another stands in that gap, the other uses freed memory, and the process
dies: with a flood of connections, from people without any certificate, within a few hundred
replacements. So the answer "as before" is given whenever it is true, and before a new certificate
is given, nobody may have asked for `QUIET_S`, or we wait that long, which no gap lasts.
"""

import time
from typing import Any

import grpc
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_pem_private_key,
)

from fedsec.errors import ConfigError

QUIET_S = 0.25  # a gap lasts microseconds; under a flood, 0.01 was seen to be too short, 0.05 not


class ServerCredentials:
    """Credentials of one listener, whose certificate and client CA are replaced while it runs.

    A second listener needs an object of its own: gRPC would not be told its first certificate.

    Args:
        chain_pem: The listener's leaf, then the CA that issued it.
        key_pem: The leaf's private key.
        client_ca_pem: The one CA whose client certificates are taken; None asks for none.

    Raises:
        ConfigError: The PEM cannot be read, or the key is not the leaf's.
    """

    def __init__(self, chain_pem: bytes, key_pem: bytes, client_ca_pem: bytes | None) -> None:
        self._client_ca_pem = client_ca_pem
        self._current = self._shown = _configuration(chain_pem, key_pem, client_ca_pem)
        self._asked_at = time.monotonic()
        fetch: Any = self._fetch  # the stubs do not know that None means "as before"
        self.credentials: grpc.ServerCredentials = grpc.dynamic_ssl_server_credentials(
            self._current, fetch, require_client_authentication=client_ca_pem is not None
        )

    def replace(self, chain_pem: bytes, key_pem: bytes, client_ca_pem: bytes | None = None) -> None:
        """Shows another certificate from the next handshake on; open connections stay.

        TLS sessions that clients kept for resumption are void from then on, also where the
        certificate is the same as before. Under load, handshakes wait for `QUIET_S` once.

        Args:
            chain_pem: As for the constructor.
            key_pem: As for the constructor.
            client_ca_pem: Another CA for clients; None keeps the present one.

        Raises:
            ConfigError: As for the constructor, or a CA for a listener that asks for no
                certificates. The former credentials stay.
        """
        if client_ca_pem is not None and self._client_ca_pem is None:
            raise ConfigError("a listener that asks for no certificates takes no CA for them")
        client_ca_pem = client_ca_pem or self._client_ca_pem
        self._current = _configuration(chain_pem, key_pem, client_ca_pem)
        self._client_ca_pem = client_ca_pem

    def _fetch(self) -> grpc.ServerCertificateConfiguration | None:
        """Is called by gRPC at each handshake, one at a time; None means "as before"."""
        current = self._current
        if current is self._shown:
            self._asked_at = time.monotonic()
            return None
        if time.monotonic() - self._asked_at < QUIET_S:
            time.sleep(QUIET_S)  # whoever asked before us is through with the former answer
        self._shown = current
        self._asked_at = time.monotonic()
        return current


def node_credentials(
    servers_ca_pem: bytes, chain_pem: bytes, key_pem: bytes
) -> grpc.ChannelCredentials:
    """Returns credentials of a node or person, who shows a certificate.

    Args:
        servers_ca_pem: The one CA whose servers are trusted.
        chain_pem: Own leaf, then the CA that issued it.
        key_pem: The leaf's private key.

    Raises:
        ConfigError: The PEM cannot be read, or the key is not the leaf's.
    """
    _check_certificates(servers_ca_pem, "servers' CA")
    _check_pair(chain_pem, key_pem)
    return grpc.ssl_channel_credentials(
        root_certificates=servers_ca_pem, private_key=key_pem, certificate_chain=chain_pem
    )


def anonymous_credentials(servers_ca_pem: bytes) -> grpc.ChannelCredentials:
    """Returns credentials of someone who has no certificate yet and trusts `servers_ca_pem` only.

    Raises:
        ConfigError: The PEM cannot be read.
    """
    _check_certificates(servers_ca_pem, "servers' CA")
    return grpc.ssl_channel_credentials(root_certificates=servers_ca_pem)


def _configuration(
    chain_pem: bytes, key_pem: bytes, client_ca_pem: bytes | None
) -> grpc.ServerCertificateConfiguration:
    _check_pair(chain_pem, key_pem)
    if client_ca_pem is not None:
        _check_certificates(client_ca_pem, "clients' CA")
    return grpc.ssl_server_certificate_configuration([(key_pem, chain_pem)], client_ca_pem)


def _check_pair(chain_pem: bytes, key_pem: bytes) -> None:
    leaf = _check_certificates(chain_pem, "certificate chain")[0]
    try:
        key = load_pem_private_key(key_pem, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise ConfigError("the TLS key is no PKCS #8 PEM without a passphrase") from error
    form = Encoding.DER, PublicFormat.SubjectPublicKeyInfo
    if key.public_key().public_bytes(*form) != leaf.public_key().public_bytes(*form):
        raise ConfigError("the TLS key does not belong to the first certificate of the chain")


def _check_certificates(pem: bytes, what: str) -> list[x509.Certificate]:
    try:
        return x509.load_pem_x509_certificates(pem)
    except ValueError as error:
        raise ConfigError(f"the {what} is no PEM of certificates") from error
