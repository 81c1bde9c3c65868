"""The code agrees with every vector of docs/spec/enrolment.md, the failing ones included."""

import json
import re
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization

from fedsec.errors import ConfigError, IdentityError
from fedsec.identity.authorities import check_issuer, fingerprint
from fedsec.identity.invites import Invite, token_hash
from fedsec.identity.leaves import check_request
from fedsec.identity.names import Kind, parse_spiffe
from fedsec.identity.principals import admit, principal_of
from fedsec.identity.signing import check_proof, enrolment_transcript, signing_fingerprint

REPOSITORY = Path(__file__).parents[2]
VECTORS = json.loads((REPOSITORY / "tests/vectors/enrolment.json").read_text("utf-8"))
SPEC = (REPOSITORY / "docs/spec/enrolment.md").read_text("utf-8")

Case = dict[str, Any]
AUTHORITIES: dict[str, Case] = VECTORS["authorities"]
SECTIONS = [name for name, value in VECTORS.items() if isinstance(value, list)]

SENTENCES = {
    "not-an-invite": "this is no invite",
    "other-version": "this invite is of version",
    "mistyped": "the invite is mistyped",
    "cut-short": "the invite is cut short",
    "bad-address": "must be host:port|without port or wildcard",
}


def read_spiffe(case: Case) -> Case:
    federation, kind, role, name = parse_spiffe(case["uri"])
    return {"federation": federation, "kind": kind, "role": role, "name": name}


def read_invite(case: Case) -> Case:
    invite = Invite.decode(case["text"])
    assert invite.encode() == re.sub(r"\s", "", case["text"])
    return {
        "address": invite.address,
        "token": invite.token.hex(),
        "servers_ca_sha256": invite.servers_ca_fingerprint.hex(),
    }


def read_proof(case: Case) -> Case:
    public = bytes.fromhex(case["signing_key"])
    hashed, csr = bytes.fromhex(case["token_hash"]), bytes.fromhex(case["csr_der"])
    transcript = enrolment_transcript(hashed, csr, public)
    check_proof(public, transcript, bytes.fromhex(case["proof"]))
    return {
        "token_hash": token_hash(bytes.fromhex(case["token"])).hex(),
        "transcript": transcript.hex(),
        "fingerprint": signing_fingerprint(public),
    }


def read_request(case: Case) -> Case:
    key = check_request(bytes.fromhex(case["csr_der"]) * case.get("repeat", 1))
    point = key.public_bytes(
        serialization.Encoding.X962, serialization.PublicFormat.UncompressedPoint
    )
    return {"public_key": point.hex()}


def read_certificate(case: Case) -> Case:
    issuer = AUTHORITIES[case["kind"]]["pem"].encode()
    principal = principal_of(case["leaf"].encode(), issuer=issuer, kind=Kind(case["kind"]))
    admit(principal, now=datetime.fromisoformat(case["now"]))
    return {"spiffe_id": principal.spiffe_id, "role": principal.role}


def read_issuer(case: Case) -> Case:
    check_issuer(
        case["issuer"].encode(),
        kind=Kind(case["kind"]),
        root_pem=AUTHORITIES["root"]["pem"].encode(),
        now=datetime.fromisoformat(case["now"]),
    )
    return {}


READERS: dict[str, Callable[[Case], Case]] = {
    "spiffe": read_spiffe,
    "invites": read_invite,
    "proofs": read_proof,
    "requests": read_request,
    "certificates": read_certificate,
    "issuers": read_issuer,
}


def cases() -> list[Any]:
    return [
        pytest.param(section, case, id=f"{section}-{place}-{case.get('comment', 'good')}")
        for section in SECTIONS
        for place, case in enumerate(VECTORS[section])
    ]


@pytest.mark.parametrize(("section", "case"), cases())
def test_a_vector(section: str, case: Case) -> None:
    read, error = READERS[section], case.get("error")
    if error is None:
        found = read(case)
        assert found == {name: case[name] for name in found}
    elif section == "invites":
        with pytest.raises(ConfigError, match=SENTENCES[error]):
            read(case)
    else:
        with pytest.raises(IdentityError) as caught:
            read(case)
        assert caught.value.code == error


def test_every_section_has_good_and_failing_vectors() -> None:
    assert set(SECTIONS) == set(READERS)
    for section in SECTIONS:
        failing = ["error" in case for case in VECTORS[section]]
        assert any(failing)
        assert not all(failing)


def test_fingerprints_of_the_authorities() -> None:
    for authority in AUTHORITIES.values():
        assert fingerprint(authority["pem"].encode()) == authority["sha256"]


def test_every_code_of_the_spec_has_a_vector_and_the_reverse() -> None:
    """Codes stand in the first column of the spec's tables of refusals."""
    named = set(re.findall(r"^\| `([a-z-]+)` \|", SPEC, flags=re.MULTILINE))
    shown = {case["error"] for section in SECTIONS for case in VECTORS[section] if "error" in case}
    assert named == shown
