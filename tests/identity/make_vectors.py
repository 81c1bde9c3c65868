"""Writes tests/vectors/enrolment.json: `python -m tests.identity.make_vectors`.

Expected values are written by hand or computed here from the formulas of docs/spec/enrolment.md,
never by the code that the vectors test. Keys are fresh at each run and are not kept.
"""

import hashlib
import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed25519, rsa
from cryptography.hazmat.primitives.asymmetric.types import CertificateIssuerPrivateKeyTypes

from fedsec.identity.authorities import Authority
from fedsec.identity.names import Kind, Role
from tests.identity.text_vectors import (
    UUID,
    Case,
    failing,
    invites,
    plain_request,
    proofs,
    spiffe,
)
from tests.pki import (
    BAD_NODES,
    CLIENT,
    FEDERATION,
    SERVER,
    Leaf,
    Pki,
    forge,
    forge_server,
    hostile_request,
    lookalike,
    make_pki,
)

PATH = Path(__file__).parents[1] / "vectors" / "enrolment.json"
NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
HOUR = timedelta(hours=1)
DER = serialization.Encoding.DER


def requests() -> list[Case]:
    """Good requests with the key that counts, then each reason to refuse one."""
    key = ec.generate_private_key(ec.SECP256R1())
    point = _point(key)
    plain = plain_request(key)
    place = plain.index(point)
    exchanged = (
        plain[:place] + _point(ec.generate_private_key(ec.SECP256R1())) + plain[place + 65 :]
    )
    others: dict[str, CertificateIssuerPrivateKeyTypes] = {
        "RSA key": rsa.generate_private_key(public_exponent=65537, key_size=2048),
        "DSA key": dsa.generate_private_key(2048),
        "P-384 key": ec.generate_private_key(ec.SECP384R1()),
        "P-521 key": ec.generate_private_key(ec.SECP521R1()),
        "secp256k1 key": ec.generate_private_key(ec.SECP256K1()),
        "Ed25519 key": ed25519.Ed25519PrivateKey.generate(),
    }
    bad: dict[str, tuple[bytes, str]] = {
        "empty": (b"", "bad-request"),
        "the last byte is missing": (plain[:-1], "bad-request"),
        "a byte too many": (plain + b"\x00", "bad-request"),
        "a certificate": (make_pki(now=NOW).root.certificate.public_bytes(DER), "bad-request"),
        "signed by another key": (exchanged, "bad-signature"),
        "signed over SHA-224": (plain_request(key, hashes.SHA224()), "bad-signature"),
        **{why: (hostile_request(other), "wrong-key") for why, other in others.items()},
    }
    return [
        {"comment": "plain", "csr_der": plain.hex(), "public_key": point.hex()},
        {
            "comment": "asks for another name, to be an authority, and for other usages: ignored",
            "csr_der": hostile_request(key).hex(),
            "public_key": point.hex(),
        },
        *failing("csr_der", [(why, csr.hex(), error) for why, (csr, error) in bad.items()]),
        {"comment": "16,385 bytes", "csr_der": "30", "repeat": 16385, "error": "bad-request"},
    ]


def _point(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.public_key().public_bytes(
        serialization.Encoding.X962, serialization.PublicFormat.UncompressedPoint
    )


def certificates(pki: Pki) -> list[Case]:
    """Leaves with whom they speak for at `now`, then each reason to refuse one."""
    node, server, person = (
        pki.node(UUID),
        pki.server("coordinator"),
        pki.person("ann", Role.AUDITOR),
    )
    nothing = {"comment": "no certificate", "leaf": "", "kind": "node", "now": NOW.isoformat()}
    return [
        _accepted("a node", node, Kind.NODE, f"node/{UUID}", "node"),
        _accepted("a server", server, Kind.SERVER, "server/coordinator", "server"),
        _accepted("a person", person, Kind.PERSON, "person/auditor/ann", "auditor"),
        *_moments(node),
        *(_refused(why, bad.make(pki), Kind.NODE, bad.code) for why, bad in BAD_NODES.items()),
        *(_refused(*case) for case in [*_strangers(pki), *_misfits(pki)]),
        {**nothing, "error": "malformed"},
    ]


def _moments(node: Leaf) -> list[Case]:
    """A good leaf at the edges of its time, and seen by clocks that are wrong."""
    good = _who(f"node/{UUID}", "node")
    return [
        {"comment": why, "leaf": _text(node), "kind": "node", "now": at.isoformat(), **result}
        for why, at, result in (
            ("its first second", NOW - timedelta(seconds=60), good),
            ("a second earlier", NOW - timedelta(seconds=61), {"error": "not-yet-valid"}),
            ("a clock 10 minutes slow", NOW - timedelta(minutes=10), {"error": "not-yet-valid"}),
            ("a clock 10 minutes fast", NOW + timedelta(minutes=10), good),
            ("its last second", NOW + 8 * HOUR, good),
            ("a second later", NOW + 8 * HOUR + timedelta(seconds=1), {"error": "expired"}),
        )
    ]


def _strangers(pki: Pki) -> list[tuple[str, Leaf, Kind, str]]:
    """Good certificates at a door that is not theirs."""
    foreign = make_pki(now=NOW, federation="other.example")
    authority = Leaf(pki.nodes.certificate, b"", pki.nodes.key)
    return [
        ("a node at the people's door", pki.node(UUID), Kind.PERSON, "wrong-issuer"),
        ("a person at the nodes' door", pki.person("ann"), Kind.NODE, "wrong-issuer"),
        ("of another federation", foreign.node(UUID), Kind.NODE, "wrong-issuer"),
        ("the nodes' CA itself", authority, Kind.NODE, "wrong-issuer"),
    ]


def _misfits(pki: Pki) -> list[tuple[str, Leaf, Kind, str]]:
    """Certificates that the right authority should not have signed."""
    uri = f"spiffe://{FEDERATION}/node/{UUID}"
    unknown = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.3.6.1.4.1.99999.1"), b"\x05\x00")
    strange = forge(pki.nodes, [uri], now=NOW, extra=[(unknown, True)])
    root = forge(pki.people, [f"spiffe://{FEDERATION}/person/root/ann"], now=NOW)
    client = forge_server(pki, purposes=(CLIENT,))
    both = forge_server(pki, purposes=(SERVER, CLIENT))
    mail = forge_server(pki, others=[x509.RFC822Name("a@fed.example")])
    return [
        ("unknown critical extension", strange, Kind.NODE, "unknown-extension"),
        ("person with an unknown role", root, Kind.PERSON, "bad-spiffe"),
        ("server with a client's usage", client, Kind.SERVER, "wrong-usage"),
        ("server with both usages", both, Kind.SERVER, "wrong-usage"),
        ("server with a mail address", mail, Kind.SERVER, "wrong-san"),
    ]


def _who(path: str, role: str) -> Case:
    return {"spiffe_id": f"spiffe://{FEDERATION}/{path}", "role": role}


def _accepted(why: str, leaf: Leaf, kind: Kind, path: str, role: str) -> Case:
    at = NOW.isoformat()
    return {"comment": why, "leaf": _text(leaf), "kind": kind, "now": at, **_who(path, role)}


def _refused(why: str, leaf: Leaf, kind: Kind, error: str) -> Case:
    return {
        "comment": why,
        "leaf": _text(leaf),
        "kind": kind,
        "now": NOW.isoformat(),
        "error": error,
    }


def _text(leaf: Leaf) -> str:
    return leaf.certificate_pem.decode()


def issuers(pki: Pki) -> list[Case]:
    """Issuing authorities that the root made, and others."""
    stranger = make_pki(now=NOW)
    elsewhere = make_pki(now=NOW, federation="other.example")
    cases: list[tuple[str, Authority, Kind, timedelta, str | None]] = [
        *((f"for {kind}", pki.issuer(kind), kind, timedelta(0), None) for kind in Kind),
        ("for another kind", pki.people, Kind.NODE, timedelta(0), "wrong-kind"),
        (
            "of another root of the same name",
            stranger.nodes,
            Kind.NODE,
            timedelta(0),
            "wrong-issuer",
        ),
        (
            "of the same name and no root",
            lookalike(pki.nodes),
            Kind.NODE,
            timedelta(0),
            "wrong-issuer",
        ),
        ("of another federation", elsewhere.nodes, Kind.NODE, timedelta(0), "not-an-authority"),
        ("the root", pki.root, Kind.NODE, timedelta(0), "not-an-authority"),
        ("a year later", pki.nodes, Kind.NODE, timedelta(days=366), "expired"),
        ("a day earlier", pki.nodes, Kind.NODE, timedelta(days=-1), "not-yet-valid"),
    ]
    made: list[Case] = [
        {
            "comment": why,
            "issuer": authority.certificate_pem.decode(),
            "kind": kind,
            "now": (NOW + later).isoformat(),
            **({"error": error} if error else {}),
        }
        for why, authority, kind, later, error in cases
    ]
    nothing = {"comment": "nothing", "issuer": "", "kind": "node", "now": NOW.isoformat()}
    return [*made, {**nothing, "error": "malformed"}]


def main() -> None:
    pki = make_pki(now=NOW)
    sections: dict[str, Callable[[], list[Case]]] = {
        "spiffe": spiffe,
        "invites": invites,
        "proofs": proofs,
        "requests": requests,
        "certificates": lambda: certificates(pki),
        "issuers": lambda: issuers(pki),
    }
    authorities = {"root": pki.root, **{str(kind): pki.issuer(kind) for kind in Kind}}
    content: dict[str, object] = {
        "spec": "docs/spec/enrolment.md",
        "authorities": {
            name: {"pem": authority.certificate_pem.decode(), "sha256": _sha256(authority)}
            for name, authority in authorities.items()
        },
        **{name: make() for name, make in sections.items()},
    }
    PATH.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def _sha256(authority: Authority) -> str:
    return hashlib.sha256(authority.certificate.public_bytes(DER)).hexdigest()


if __name__ == "__main__":
    main()
