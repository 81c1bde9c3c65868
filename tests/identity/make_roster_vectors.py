"""Writes tests/vectors/roster.json: `python -m tests.identity.make_roster_vectors`.

Bytes are put together here from docs/spec/roster.md, never by the code that the vectors test. Keys are
fresh at each run and are not kept.
"""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeAlias

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

from fedsec.identity.authorities import Authority, make_root

PATH = Path(__file__).parents[1] / "vectors" / "roster.json"
FEDERATION = "fed.example"
NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
END = int(NOW.timestamp()) + 86_400
SERIAL = 1_772_000_000

Entry: TypeAlias = tuple[int, str, bytes]
Case: TypeAlias = dict[str, object]

ROOT = make_root(FEDERATION, now=NOW)
LOOKALIKE = make_root(FEDERATION, now=NOW)


def entry(node_id: int, digit: str, federation: str = FEDERATION) -> Entry:
    key = ed25519.Ed25519PrivateKey.generate().public_key().public_bytes_raw()
    return node_id, f"spiffe://{federation}/node/{digit * 32}", key


NODES = [entry(2, "a"), entry(4711, "b"), entry(2**64 - 1, "c")]


def body(
    members: list[Entry] = NODES,
    *,
    federation: str = FEDERATION,
    serial: int = SERIAL,
    end: int = END,
    count: int | None = None,
) -> bytes:
    made = len(federation).to_bytes(1, "big") + federation.encode()
    made += serial.to_bytes(8, "big") + end.to_bytes(8, "big")
    made += (len(members) if count is None else count).to_bytes(4, "big")
    for node_id, name, key in members:
        made += node_id.to_bytes(8, "big") + len(name).to_bytes(1, "big") + name.encode() + key
    return made


def signed(
    made: bytes,
    *,
    by: Authority = ROOT,
    label: bytes = b"fedsec-v1/roster\0",
    digest: hashes.HashAlgorithm | None = None,
) -> bytes:
    signature = by.key.sign(label + made, ec.ECDSA(digest or hashes.SHA384()))
    r, s = decode_dss_signature(signature)
    return b"fedsec-roster-1\0" + made + r.to_bytes(48, "big") + s.to_bytes(48, "big")


def read_cases() -> list[Case]:
    good = signed(body())
    members = [
        {"node_id": node_id, "spiffe_id": name, "signing_key": key.hex()}
        for node_id, name, key in NODES
    ]
    told = {"serial": SERIAL, "not_after": END, "members": members}
    flipped = bytearray(good)
    flipped[40] ^= 1
    twice_named = [NODES[0], (4711, NODES[0][1], NODES[1][2])]
    twice_keyed = [NODES[0], (4711, NODES[1][1], NODES[0][2])]
    bad: dict[str, tuple[bytes, str]] = {
        "empty": (b"", "malformed"),
        "another version": (good.replace(b"roster-1", b"roster-2"), "malformed"),
        "nothing but the first bytes": (good[:16], "malformed"),
        "the last byte is missing": (good[:-1], "wrong-issuer"),
        "one bit differs": (bytes(flipped), "wrong-issuer"),
        "signed by a root of the same name": (signed(body(), by=LOOKALIKE), "wrong-issuer"),
        "signed without the label": (signed(body(), label=b""), "wrong-issuer"),
        "signed over SHA-256": (signed(body(), digest=hashes.SHA256()), "wrong-issuer"),
        "a signature of zeros": (good[:-96] + bytes(96), "wrong-issuer"),
        "of another federation": (
            signed(body([entry(2, "a", "other.example")], federation="other.example")),
            "wrong-federation",
        ),
        "no member": (signed(body([])), "malformed"),
        "more members claimed than there are": (signed(body(count=2**32 - 1)), "malformed"),
        "fewer members claimed than there are": (signed(body(count=2)), "malformed"),
        "a byte too many": (signed(body() + b"\0"), "malformed"),
        "members out of order": (signed(body(NODES[::-1])), "malformed"),
        "a node id twice": (signed(body([NODES[0], NODES[0]])), "malformed"),
        "a name twice": (signed(body(twice_named)), "malformed"),
        "a key twice": (signed(body(twice_keyed)), "malformed"),
        "node id 0": (signed(body([entry(0, "a")])), "malformed"),
        "serial 2^63": (signed(body(serial=2**63)), "malformed"),
        "ends in the year 10000": (signed(body(end=253_402_300_800)), "malformed"),
        "a member of another federation": (
            signed(body([entry(2, "a", "other.example")])),
            "malformed",
        ),
        "a person": (
            signed(body([(2, f"spiffe://{FEDERATION}/person/admin/ann", NODES[0][2])])),
            "malformed",
        ),
        "no SPIFFE id": (signed(body([(2, "node", NODES[0][2])])), "malformed"),
        "a key of small order": (
            signed(body([(2, NODES[0][1], (1).to_bytes(32, "little"))])),
            "malformed",
        ),
    }
    return [
        {"comment": "three members", "roster": good.hex(), **told},
        *(
            {"comment": why, "roster": given.hex(), "error": code}
            for why, (given, code) in bad.items()
        ),
        {
            "comment": "longer than any roster",
            "roster": "00",
            "repeat": (3 << 20) + 1,
            "error": "too-large",
        },
    ]


def current_cases() -> list[Case]:
    older, held, newer = (signed(body(serial=SERIAL + step)) for step in (-1, 0, 1))
    other = signed(body(NODES[:2]))
    own, stranger = NODES[0], entry(5, "d")
    renamed = (own[0], stranger[1], own[2])
    rekeyed = (own[0], own[1], stranger[2])
    now = int(NOW.timestamp())

    def case(
        comment: str,
        roster: bytes,
        held: bytes | None = None,
        *,
        of: Entry = own,
        at: int = now,
        error: str = "",
    ) -> Case:
        node_id, name, key = of
        return {
            "comment": comment,
            "roster": roster.hex(),
            "held": held.hex() if held is not None else None,
            "own": {"node_id": node_id, "spiffe_id": name, "signing_key": key.hex()},
            "now": at,
            **({"error": error} if error else {}),
        }

    return [
        case("the first that is seen", held),
        case("a newer one", newer, held),
        case("the same again, signed anew", signed(body()), held),
        case("at its last moment", held, at=END),
        case("an older one", older, held, error="rolled-back"),
        case("another of the same serial", other, held, error="equivocation"),
        case("a second after its end", held, at=END + 1, error="expired"),
        case("expired, and the one that is held", held, held, at=END + 1, error="expired"),
        case("without the node", held, of=stranger, error="not-on-roster"),
        case("the node under another name", held, of=renamed, error="wrong-entry"),
        case("the node under another key", held, of=rekeyed, error="wrong-entry"),
    ]


def main() -> None:
    """Writes the file."""
    values = {
        "root": ROOT.certificate_pem.decode(),
        "other_root": LOOKALIKE.certificate_pem.decode(),
        "read": read_cases(),
        "current": current_cases(),
    }
    PATH.write_text(json.dumps(values, indent=1) + "\n")


if __name__ == "__main__":
    main()
