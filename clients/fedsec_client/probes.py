"""What a TLS peer shows when one looks oneself, instead of gRPC's one word UNAVAILABLE.

gRPC tells a client neither the server's certificate nor why a handshake failed. These functions
connect with Python's own TLS, verify nothing on the way, and judge afterwards: each cause is an
`IdentityError` with a code of its own.
"""

import ipaddress
import socket
import ssl
import time
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from cryptography import x509

from fedsec.errors import ConfigError, IdentityError
from fedsec.identity.certificates import check_signed_by, load_certificates
from fedsec.identity.invites import split_address
from fedsec.identity.names import Principal
from fedsec.wire.channels import check_presents

TIMEOUT_S = 10.0
_GREETING = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])
_HTTP2 = "h2"


@dataclass(frozen=True, slots=True)
class Presented:
    """What a TLS server showed.

    Args:
        leaf: Its certificate, not verified.
        welcomed: It went on speaking after it had seen our certificate. A server that refuses a
            client says nothing and closes.
    """

    leaf: x509.Certificate
    welcomed: bool


def check_reachable(address: str, servers_ca_pem: bytes, timeout_s: float = TIMEOUT_S) -> None:
    """Returns if a server at `address` presents the CA that this node trusts.

    Raises:
        ConfigError: The address is malformed.
        IdentityError: ``host-unknown``, ``nothing-listens``, ``no-answer``, ``not-tls``, or
            ``wrong-ca``: its certificates are from another CA.
    """
    try:
        check_presents(address, servers_ca_pem, timeout_s)
    except IdentityError as error:
        if error.code != "pin-mismatch":
            raise
        raise IdentityError(
            "wrong-ca", f"what listens at {address} is not certified by this federation"
        ) from None


def look(
    address: str, own: tuple[Path, Path] | None = None, timeout_s: float = TIMEOUT_S
) -> Presented:
    """Returns what the server at `address` shows, after a handshake that verifies nothing.

    Args:
        address: ``host:port``.
        own: Files with our certificate chain and its key; None shows no certificate.
        timeout_s: For all of it, > 0.

    Raises:
        IdentityError: ``not-tls``, no TLS 1.3 handshake came about; ``no-answer``, after it.
        ConfigError: Our own files cannot be used.
    """
    host, port = split_address(address)
    end = time.monotonic() + timeout_s
    context = _trusting_context(own)
    try:
        with (
            socket.create_connection((host, port), timeout=timeout_s) as plain,
            context.wrap_socket(plain, server_hostname=host) as tls,
        ):
            tls.settimeout(max(0.1, end - time.monotonic()))
            leaf = tls.getpeercert(binary_form=True) or b""
            return Presented(x509.load_der_x509_certificate(leaf), welcomed=_greets_back(tls))
    except (OSError, ValueError) as error:
        raise IdentityError("not-tls", f"no TLS 1.3 handshake with {address}: {error}") from error


def judge_names(leaf: x509.Certificate, host: str, servers_ca_pem: bytes) -> None:
    """Returns if `leaf` is from the servers' CA and for `host`.

    Raises:
        IdentityError: ``wrong-ca`` or ``wrong-host``.
    """
    if not any(_signed(leaf, ca) for ca in load_certificates(servers_ca_pem)):
        raise IdentityError(
            "wrong-ca", "the coordinator's certificate is from another CA than this node trusts"
        )
    names = hosts_of(leaf)
    if _canonical(host) not in names:
        raise IdentityError(
            "wrong-host",
            f"the coordinator's certificate is for {', '.join(names) or 'no host'}, not for {host}",
        )


def judge_times(seen: Presented, own: Principal | None, *, now: datetime) -> None:
    """Returns if both certificates are valid at `now` and the server lets ours in.

    No clock but this machine's can be asked. But the coordinator made both certificates by its
    own, and whether it lets ours in tells what its clock says now.

    Args:
        seen: What the server showed.
        own: Whom our certificate speaks for; None without one.
        now: Aware time, by this machine's clock.

    Raises:
        IdentityError: ``clock``, this machine's is wrong; ``expired``, our certificate;
            ``server-expired``, the server's; ``refused``, for a reason not to be seen from here.
    """
    begins, ends = seen.leaf.not_valid_before_utc, seen.leaf.not_valid_after_utc
    here = f"here it is {_shown(now)}"
    if own is not None:
        begins = max(begins, own.not_before)
    if now < begins:
        raise IdentityError(
            "clock",
            f"this machine's clock is behind: a certificate begins at {_shown(begins)}; {here}",
        )
    if own is not None and now > own.not_after:
        until = f"the node's certificate ended at {_shown(own.not_after)}; {here}"
        if seen.welcomed:
            raise IdentityError(
                "clock", f"this machine's clock is ahead: {until}, yet the coordinator accepts it"
            )
        raise IdentityError("expired", until)
    if now > ends:
        raise IdentityError(
            "server-expired", f"the coordinator's certificate ended at {_shown(ends)}; {here}"
        )
    if own is not None and not seen.welcomed:
        raise IdentityError("refused", f"the coordinator refuses the node's certificate; {here}")


def _signed(leaf: x509.Certificate, ca: x509.Certificate) -> bool:
    try:
        check_signed_by(leaf, ca)
    except IdentityError:
        return False
    return True


def hosts_of(leaf: x509.Certificate) -> list[str]:
    """Returns the host names and addresses that a server's certificate is for."""
    with suppress(x509.ExtensionNotFound, ValueError):
        names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        addresses = names.get_values_for_type(x509.IPAddress)
        return [
            *(name.lower() for name in names.get_values_for_type(x509.DNSName)),
            *(str(address) for address in addresses),
        ]
    return []


def _trusting_context(own: tuple[Path, Path] | None) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.check_hostname = False  # nothing is sent; what is shown is judged by `judge_server`
    context.verify_mode = ssl.CERT_NONE
    context.set_alpn_protocols([_HTTP2])
    if own is not None:
        try:
            context.load_cert_chain(*own)
        except (OSError, ssl.SSLError) as error:
            raise ConfigError(f"{own[0]} and {own[1]} cannot be used: {error}") from error
    return context


def _greets_back(tls: ssl.SSLSocket) -> bool:
    """Says whether the other end speaks HTTP/2 with us, now that it has judged us."""
    try:
        tls.sendall(_GREETING)
        return bool(tls.recv(1))
    except TimeoutError:
        raise IdentityError("no-answer", "the coordinator shook hands and then fell silent") from (
            None
        )
    except (ssl.SSLError, ConnectionError):
        return False


def _canonical(host: str) -> str:
    try:
        return str(ipaddress.ip_address(host))
    except ValueError:
        return host.lower()


def _shown(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M:%S} UTC"
