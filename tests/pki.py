"""A public-key infrastructure for tests: good authorities and leaves, and bad ones of every kind.

    pki = make_pki()                         # valid around the real now
    node = pki.node()                        # Leaf: chain_pem, key_pem, spiffe_id ...
    for name, defect in BAD_NODES.items():   # what a gate for nodes must refuse
        leaf = defect.make(pki)              # defect.code: what principal_of or admit says

`forge` makes any leaf; it goes past `fedsec.identity.leaves`, whose checks it is there to test.
"""

import ipaddress
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from types import MappingProxyType

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.asymmetric.types import CertificateIssuerPrivateKeyTypes
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from fedsec.identity.authorities import Authority, make_issuer, make_root
from fedsec.identity.certificates import random_serial
from fedsec.identity.leaves import issue, make_key, make_request
from fedsec.identity.names import Kind, Role
from fedsec.identity.principals import signature_only

FEDERATION = "fed.example"
CLIENT = ExtendedKeyUsageOID.CLIENT_AUTH
SERVER = ExtendedKeyUsageOID.SERVER_AUTH
HOUR = timedelta(hours=1)
HOSTS = ("localhost", "127.0.0.1", "::1")


@dataclass(frozen=True)
class Leaf:
    """A certificate, what hangs above it, and its key, as a TLS endpoint wants them."""

    certificate: x509.Certificate
    issuers_pem: bytes
    key: CertificateIssuerPrivateKeyTypes

    @property
    def certificate_pem(self) -> bytes:
        return self.certificate.public_bytes(serialization.Encoding.PEM)

    @property
    def chain_pem(self) -> bytes:
        return self.certificate_pem + self.issuers_pem

    @property
    def key_pem(self) -> bytes:
        return self.key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )

    @property
    def spiffe_id(self) -> str:
        """Of a good leaf: its one URI."""
        names = self.certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
        (uri,) = names.value.get_values_for_type(x509.UniformResourceIdentifier)
        return uri


@dataclass(frozen=True)
class Pki:
    """A root and its three issuing authorities, valid around `now`."""

    now: datetime
    root: Authority
    servers: Authority
    nodes: Authority
    people: Authority

    def issuer(self, kind: Kind) -> Authority:
        return {Kind.SERVER: self.servers, Kind.NODE: self.nodes, Kind.PERSON: self.people}[kind]

    def node(self, name: str | None = None, *, lifetime: timedelta = 8 * HOUR) -> Leaf:
        return self._issue(Kind.NODE, name or uuid.uuid4().hex, lifetime=lifetime)

    def server(
        self, name: str = "fleet", *, hosts: Sequence[str] = HOSTS, lifetime: timedelta = 24 * HOUR
    ) -> Leaf:
        return self._issue(Kind.SERVER, name, hosts=hosts, lifetime=lifetime)

    def person(
        self, name: str = "ann", role: Role = Role.ADMIN, *, lifetime: timedelta = 12 * HOUR
    ) -> Leaf:
        return self._issue(Kind.PERSON, name, role=role, lifetime=lifetime)

    def _issue(
        self,
        kind: Kind,
        name: str,
        *,
        lifetime: timedelta,
        role: Role | None = None,
        hosts: Sequence[str] = (),
    ) -> Leaf:
        key, issuer = make_key(), self.issuer(kind)
        chain = issue(
            issuer,
            make_request(key),
            kind=kind,
            name=name,
            role=role,
            hosts=hosts,
            lifetime=lifetime,
            now=self.now,
        )
        return Leaf(x509.load_pem_x509_certificate(chain), issuer.certificate_pem, key)


def make_pki(*, now: datetime | None = None, federation: str = FEDERATION) -> Pki:
    """Returns fresh authorities. `now` is the real one unless told: TLS tests need that."""
    now = now or datetime.now(UTC)
    root = make_root(federation, now=now)
    servers, nodes, people = (
        make_issuer(root, kind, now=now) for kind in (Kind.SERVER, Kind.NODE, Kind.PERSON)
    )
    return Pki(now, root, servers, nodes, people)


def forge(
    issuer: Authority,
    uris: Sequence[str],
    *,
    now: datetime,
    purposes: Sequence[x509.ObjectIdentifier] | None = (CLIENT,),
    usage: x509.KeyUsage | None = None,
    others: Sequence[x509.GeneralName] = (),
    ca: bool | None = False,
    critical_constraints: bool = True,
    common_name: str = "anything",
    not_before: datetime | None = None,
    not_after: datetime | None = None,
    key: CertificateIssuerPrivateKeyTypes | None = None,
    extra: Sequence[tuple[x509.ExtensionType, bool]] = (),
) -> Leaf:
    """Returns a leaf signed by `issuer` with just these properties, sound or not.

    None for `ca` or `purposes`, and no names at all, leave that extension out.
    """
    key = key or make_key()
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)]))
        .issuer_name(issuer.certificate.subject)
        .public_key(key.public_key())
        .serial_number(random_serial())
        .not_valid_before(not_before or now - timedelta(minutes=1))
        .not_valid_after(not_after or now + 8 * HOUR)
        .add_extension(usage or signature_only(), critical=True)
    )
    if ca is not None:
        builder = builder.add_extension(x509.BasicConstraints(ca, None), critical_constraints)
    if purposes is not None:
        builder = builder.add_extension(x509.ExtendedKeyUsage(purposes), critical=False)
    names = [*(x509.UniformResourceIdentifier(uri) for uri in uris), *others]
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    for extension, critical in extra:
        builder = builder.add_extension(extension, critical=critical)
    return Leaf(builder.sign(issuer.key, hashes.SHA256()), issuer.certificate_pem, key)


def forge_server(pki: Pki, *, now: datetime | None = None, **changes: object) -> Leaf:
    """Returns a leaf for a server on loopback, by default a good one but for `changes`."""
    arguments: dict[str, object] = {
        "purposes": (SERVER,),
        "others": [
            x509.DNSName("localhost"),
            x509.IPAddress(ipaddress.ip_address("127.0.0.1")),
        ],
        **changes,
    }
    uri = f"spiffe://{FEDERATION}/server/fleet"
    return forge(pki.servers, [uri], now=now or pki.now, **arguments)  # type: ignore[arg-type]


def lookalike(authority: Authority) -> Authority:
    """Returns a foreign authority: all the same as `authority`, but for its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    real = authority.certificate
    builder = (
        x509.CertificateBuilder()
        .subject_name(real.subject)
        .issuer_name(real.subject)
        .public_key(key.public_key())
        .serial_number(real.serial_number)
        .not_valid_before(real.not_valid_before_utc)
        .not_valid_after(real.not_valid_after_utc)
    )
    for extension in real.extensions:
        if not isinstance(
            extension.value, (x509.SubjectKeyIdentifier, x509.AuthorityKeyIdentifier)
        ):
            builder = builder.add_extension(extension.value, critical=extension.critical)
    builder = builder.add_extension(
        x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False
    )
    return Authority(builder.sign(key, hashes.SHA256()), key)


def hostile_request(key: CertificateIssuerPrivateKeyTypes, *, attributes: int = 0) -> bytes:
    """Returns a signing request (DER) that asks for everything that it must not get.

    `attributes` makes it longer, by about 16 bytes each.
    """
    usage = x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=True,
        crl_sign=True,
        encipher_only=False,
        decipher_only=False,
    )
    victim = x509.UniformResourceIdentifier(f"spiffe://{FEDERATION}/node/{'f' * 32}")
    purposes = x509.ExtendedKeyUsage([SERVER, ExtendedKeyUsageOID.CODE_SIGNING])
    names = [x509.NameAttribute(NameOID.COMMON_NAME, "admin")] * (1 + attributes)
    return (
        x509.CertificateSigningRequestBuilder()
        .subject_name(x509.Name(names))
        .add_extension(x509.SubjectAlternativeName([victim]), critical=True)
        .add_extension(x509.BasicConstraints(ca=True, path_length=3), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(purposes, critical=True)
        .sign(key, None if isinstance(key, ed25519.Ed25519PrivateKey) else hashes.SHA256())
        .public_bytes(serialization.Encoding.DER)
    )


def node_uri(federation: str = FEDERATION) -> str:
    """Returns the SPIFFE id of a node that nobody enrolled."""
    return f"spiffe://{federation}/node/{uuid.uuid4().hex}"


@dataclass(frozen=True)
class Defect:
    """How to make a bad client certificate for a nodes' gate, and what is said about it.

    `tls` is True where BoringSSL, whose one anchor is the nodes' CA, refuses it by itself; the
    others reach the gate.
    """

    make: Callable[[Pki], Leaf]
    code: str
    tls: bool


def _expired(pki: Pki) -> Leaf:
    return forge(
        pki.nodes,
        [node_uri()],
        now=pki.now,
        not_before=pki.now - 9 * HOUR,
        not_after=pki.now - HOUR,
    )


def _not_yet_valid(pki: Pki) -> Leaf:
    return forge(pki.nodes, [node_uri()], now=pki.now, not_before=pki.now + HOUR)


def _signed_by_a_leaf(pki: Pki) -> Leaf:
    middle = pki.node()
    assert isinstance(middle.key, ec.EllipticCurvePrivateKey)
    leaf = forge(Authority(middle.certificate, middle.key), [node_uri()], now=pki.now)
    return Leaf(leaf.certificate, middle.chain_pem, leaf.key)


def _of_authority(kind: Kind) -> Callable[[Pki], Leaf]:
    return lambda pki: forge(pki.issuer(kind), [node_uri()], now=pki.now)


def _with(uris: Callable[[], Sequence[str]], **changes: object) -> Callable[[Pki], Leaf]:
    return lambda pki: forge(pki.nodes, uris(), now=pki.now, **changes)  # type: ignore[arg-type]


def _one() -> list[str]:
    return [node_uri()]


def _rsa(pki: Pki) -> Leaf:
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    return forge(pki.nodes, [node_uri()], now=pki.now, key=key)


BAD_NODES: Mapping[str, Defect] = MappingProxyType(
    {
        "expired": Defect(_expired, "expired", tls=True),
        "not yet valid": Defect(_not_yet_valid, "not-yet-valid", tls=True),
        "foreign authority of the same name": Defect(
            lambda pki: forge(lookalike(pki.nodes), [node_uri()], now=pki.now),
            "wrong-issuer",
            tls=True,
        ),
        "signed by a leaf": Defect(_signed_by_a_leaf, "wrong-issuer", tls=True),
        "servers' CA": Defect(_of_authority(Kind.SERVER), "wrong-issuer", tls=True),
        "people's CA": Defect(_of_authority(Kind.PERSON), "wrong-issuer", tls=True),
        "usage of a server": Defect(_with(_one, purposes=(SERVER,)), "wrong-usage", tls=True),
        "two usages": Defect(_with(_one, purposes=(CLIENT, SERVER)), "wrong-usage", tls=False),
        "no extended usage": Defect(_with(_one, purposes=None), "wrong-usage", tls=False),
        "two URIs": Defect(_with(lambda: [node_uri(), node_uri()]), "wrong-san", tls=False),
        "no URI": Defect(
            _with(list, others=(x509.DNSName("node.example"),)), "wrong-san", tls=False
        ),
        "no names": Defect(_with(list), "wrong-san", tls=True),
        "a host name too": Defect(
            _with(_one, others=(x509.DNSName("node.example"),)), "wrong-san", tls=False
        ),
        "the name in CN only": Defect(_with(list, common_name=node_uri()), "wrong-san", tls=False),
        "a person's id": Defect(
            _with(lambda: [f"spiffe://{FEDERATION}/person/admin/ann"]), "wrong-kind", tls=False
        ),
        "malformed id": Defect(
            _with(lambda: [f"spiffe://{FEDERATION}/node/../admin"]), "bad-spiffe", tls=False
        ),
        "another federation": Defect(
            _with(lambda: [node_uri("other.example")]), "wrong-federation", tls=True
        ),
        "an authority": Defect(_with(_one, ca=True), "is-authority", tls=False),
        "no basic constraints": Defect(_with(_one, ca=None), "is-authority", tls=False),
        "RSA key": Defect(_rsa, "wrong-key", tls=False),
        "P-384 key": Defect(
            lambda pki: forge(
                pki.nodes,
                [node_uri()],
                now=pki.now,
                key=ec.generate_private_key(ec.SECP384R1()),
            ),
            "wrong-key",
            tls=False,
        ),
    }
)
