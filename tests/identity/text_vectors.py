"""The vectors of docs/spec/enrolment.md that are text or plain bytes; see `make_vectors`."""

import base64
import hashlib
from collections.abc import Iterable

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from tests.pki import FEDERATION

UUID = "0123456789abcdef0123456789abcdef"
TOKEN = bytes(range(32))
SIGNING_KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(64, 96)))
PUBLIC = SIGNING_KEY.public_key().public_bytes_raw()

Case = dict[str, object]
EcHash = hashes.SHA224 | hashes.SHA256


def failing(field: str, cases: Iterable[tuple[str, str, str]]) -> list[Case]:
    """Vectors of (comment, value of `field`, error)."""
    return [{"comment": why, field: value, "error": error} for why, value, error in cases]


def spiffe() -> list[Case]:
    """Good ids with their parts, then ids that are refused."""
    good: list[Case] = [
        {"uri": f"spiffe://{federation}/{path}", "federation": federation, **parts}
        for federation in (FEDERATION, "demo", "a-b.c1.d")
        for path, parts in {
            f"node/{UUID}": {"kind": "node", "role": "node", "name": UUID},
            "server/coordinator": {"kind": "server", "role": "server", "name": "coordinator"},
            "person/admin/ann": {"kind": "person", "role": "admin", "name": "ann"},
            "person/operator/b-2": {"kind": "person", "role": "operator", "name": "b-2"},
            f"person/auditor/{'c' * 63}": {"kind": "person", "role": "auditor", "name": "c" * 63},
        }.items()
    ]
    bad = {
        "empty": "",
        "no path": f"spiffe://{FEDERATION}",
        "another scheme": f"https://{FEDERATION}/node/{UUID}",
        "scheme in upper case": f"SPIFFE://{FEDERATION}/node/{UUID}",
        "federation in upper case": f"spiffe://Fed.example/node/{UUID}",
        "port": f"spiffe://{FEDERATION}:443/node/{UUID}",
        "user": f"spiffe://ann@{FEDERATION}/node/{UUID}",
        "address for a federation": f"spiffe://10.0.0.1/node/{UUID}",
        "federation of 65 characters": f"spiffe://{'a' * 63}.b/node/{UUID}",
        "unknown kind": f"spiffe://{FEDERATION}/user/{UUID}",
        "node id in upper case": f"spiffe://{FEDERATION}/node/{UUID.upper()}",
        "node id with hyphens": f"spiffe://{FEDERATION}/node/01234567-89ab-cdef-0123-456789abcdef",
        "node id too short": f"spiffe://{FEDERATION}/node/{UUID[:-1]}",
        "node id with a line feed": f"spiffe://{FEDERATION}/node/{UUID}\n",
        "percent-encoding": f"spiffe://{FEDERATION}/%6eode/{UUID}",
        "dot segments": f"spiffe://{FEDERATION}/server/../node/{UUID}",
        "doubled slash": f"spiffe://{FEDERATION}//node/{UUID}",
        "trailing slash": f"spiffe://{FEDERATION}/node/{UUID}/",
        "query": f"spiffe://{FEDERATION}/node/{UUID}?a",
        "fragment": f"spiffe://{FEDERATION}/node/{UUID}#a",
        "person without role": f"spiffe://{FEDERATION}/person/ann",
        "person with a node's role": f"spiffe://{FEDERATION}/person/node/ann",
        "name of 64 characters": f"spiffe://{FEDERATION}/server/{'a' * 64}",
        "name with a leading hyphen": f"spiffe://{FEDERATION}/server/-a",
    }
    return good + [{"comment": why, "uri": uri, "error": "bad-spiffe"} for why, uri in bad.items()]


def invite_text(
    address: bytes, token: bytes, pin: bytes, *, version: int = 1, length: int | None = None
) -> str:
    """The formula of the spec, written out; `length` is another length byte than the right one."""
    length = len(address) if length is None else length
    body = token + pin + length.to_bytes(1, "big") + address
    check = hashlib.sha256(b"fedsec-v1/invite-checksum\x00" + body).digest()[:4]
    text = base64.b64encode(body + check, altchars=b"-_").decode().rstrip("=")
    return f"fedsec-invite-{version}:{text}"


def invites() -> list[Case]:
    """Good invites with their parts, then each way to spoil one."""
    token, pin = TOKEN, bytes(range(200, 232))
    parts: Case = {"token": token.hex(), "servers_ca_sha256": pin.hex()}
    addresses = ("fed.example:8443", "10.1.2.3:1", "[2001:db8::1]:65535", "a:80")
    good: list[Case] = [
        {"text": invite_text(address.encode(), token, pin), "address": address, **parts}
        for address in addresses
    ]
    line = str(good[0]["text"])
    wrapped: Case = {"text": f" {line[:60]}\r\n  {line[60:]}\n", "address": addresses[0], **parts}
    left_over = line[:-1] + chr(ord(line[-1]) + 1)
    bad = [
        ("empty", "", "not-an-invite"),
        ("another word", "hello", "not-an-invite"),
        ("prefix in upper case", line.replace("fedsec", "FEDSEC", 1), "not-an-invite"),
        ("version 2", invite_text(b"fed.example:8443", token, pin, version=2), "other-version"),
        ("one character is another", line[:30] + _other(line[30]) + line[31:], "mistyped"),
        ("two characters swapped", line[:40] + line[41] + line[40] + line[42:], "mistyped"),
        ("a character of another alphabet", line[:40] + "+" + line[41:], "mistyped"),
        ("padding", line + "==", "mistyped"),
        ("four characters too many", line + "AAAA", "mistyped"),
        ("length byte too small", invite_text(b"a.b:1", token, pin, length=4), "mistyped"),
        ("length byte too large", invite_text(b"a.b:1", token, pin, length=6), "cut-short"),
        ("bits left over are not zero", left_over, "mistyped"),
        ("the last character is missing", line[:-1], "cut-short"),
        ("the last ten are missing", line[:-10], "cut-short"),
        ("half is missing", line[: len(line) // 2], "cut-short"),
        ("nothing after the prefix", "fedsec-invite-1:", "cut-short"),
        ("address without port", invite_text(b"fed.example", token, pin), "bad-address"),
        ("port 0", invite_text(b"fed.example:0", token, pin), "bad-address"),
        ("address with a path", invite_text(b"fed.example:1/a", token, pin), "bad-address"),
        ("address that is no ASCII", invite_text("f\u00e9d:1".encode(), token, pin), "bad-address"),
    ]
    return [
        *good,
        {"comment": "white space of a mail program", **wrapped},
        *failing("text", bad),
    ]


def _other(character: str) -> str:
    return "A" if character != "A" else "B"


def proofs() -> list[Case]:
    """One good proof, then what is none for the same enrolment."""
    csr, other = (plain_request(ec.generate_private_key(ec.SECP256R1())) for _ in range(2))
    token_hash = hashlib.sha256(TOKEN).hexdigest()
    given: Case = {"token_hash": token_hash, "csr_der": csr.hex(), "signing_key": PUBLIC.hex()}
    proof = SIGNING_KEY.sign(transcript(csr)).hex()
    good = {
        **given,
        "token": TOKEN.hex(),
        "fingerprint": _ssh_style(PUBLIC),
        "transcript": transcript(csr).hex(),
        "proof": proof,
    }
    neutral, not_canonical = (1).to_bytes(32, "little"), b"\xf0" + b"\xff" * 30 + b"\x7f"
    proofs = {
        "over another request": SIGNING_KEY.sign(transcript(other)).hex(),
        "under another label": SIGNING_KEY.sign(transcript(csr, b"fedsec-v1/other\x00")).hex(),
        "by another key": Ed25519PrivateKey.generate().sign(transcript(csr)).hex(),
        "of 63 bytes": proof[:-2],
        "empty": "",
    }
    keys = {
        "key of small order, under which one proof fits all": (
            neutral,
            (neutral + bytes(32)).hex(),
        ),
        "key not canonical": (not_canonical, proof),
        "key of 31 bytes": (PUBLIC[:-1], proof),
    }
    return [
        good,
        *({**given, **each} for each in failing("proof", _rows(proofs, "bad-proof"))),
        *(
            {**given, "comment": why, "signing_key": key.hex(), "proof": sent, "error": "wrong-key"}
            for why, (key, sent) in keys.items()
        ),
    ]


def transcript(csr: bytes, label: bytes = b"fedsec-v1/enrolment-proof\x00") -> bytes:
    """The formula of the spec, written out."""
    parts = (hashlib.sha256(TOKEN).digest(), csr, PUBLIC)
    return label + b"".join(len(part).to_bytes(4, "big") + part for part in parts)


def _rows(values: dict[str, str], error: str) -> list[tuple[str, str, str]]:
    return [(why, value, error) for why, value in values.items()]


def _ssh_style(public: bytes) -> str:
    return "SHA256:" + base64.b64encode(hashlib.sha256(public).digest()).decode().rstrip("=")


def plain_request(key: ec.EllipticCurvePrivateKey, algorithm: EcHash | None = None) -> bytes:
    """A signing request that asks for nothing."""
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    request = builder.sign(key, algorithm or hashes.SHA256())
    return request.public_bytes(serialization.Encoding.DER)
