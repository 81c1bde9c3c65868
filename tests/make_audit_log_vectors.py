"""Writes tests/vectors/audit-log.json: `python tests/make_audit_log_vectors.py`."""

import hashlib
import json
from pathlib import Path

LABEL = "privacy-ledger"
FIRST = "0" * 64


def canonical(content: object) -> bytes:
    return json.dumps(content, sort_keys=True, separators=(",", ":")).encode()


def record(number: int, previous: str, body: object, /, label: str = LABEL, **more: object) -> str:
    """Written from the spec, not with the code that it checks."""
    content = {
        "body": body,
        "number": number,
        "previous": previous,
        "time": f"2030-01-0{number}T00:00:00.000+00:00",
    } | more
    digest = hashlib.sha256(b"fedsec-v1/log/" + label.encode() + b"\x00" + canonical(content))
    return canonical({**content, "hash": digest.hexdigest()}).decode() + "\n"


def hash_of(line: str) -> str:
    return str(json.loads(line)["hash"])


one = record(1, FIRST, {"key": "run 7 round 1"})
two = record(2, hash_of(one), {"key": "\u00e9", "price": 1.5e-9})
three = record(3, hash_of(two), {})
spaced = json.dumps(json.loads(one), sort_keys=True) + "\n"

VECTORS = {
    "label": LABEL,
    "good": [
        {"name": "empty", "lines": [], "records": 0},
        {"name": "three records", "lines": [one, two, three], "records": 3},
        {"name": "a half written end", "lines": [one, two[:-1]], "records": 1},
    ],
    "bad": [
        {"name": "a changed body", "lines": [one.replace("round 1", "round 2")]},
        {"name": "the first one missing", "lines": [two, three]},
        {"name": "one in the middle missing", "lines": [one, three]},
        {"name": "two in the wrong order", "lines": [two, one]},
        {"name": "one twice", "lines": [one, one]},
        {"name": "another log's record", "lines": [record(1, FIRST, {}, label="other")]},
        {"name": "a first record that follows something", "lines": [record(1, "1" * 64, {})]},
        {"name": "a number that is text", "lines": [record(1, FIRST, {}, number="1")]},
        {"name": "a number that is no integer", "lines": [record(1, FIRST, {}, number=1.0)]},
        {"name": "a further key", "lines": [record(1, FIRST, {}, more=1)]},
        {"name": "a body that is no object", "lines": [record(1, FIRST, [])]},
        {"name": "spaces", "lines": [spaced]},
        {"name": "an upper-case hash", "lines": [one.replace(hash_of(one), hash_of(one).upper())]},
        {"name": "no JSON", "lines": ["{\n"]},
        {"name": "a line too long", "lines": [record(1, FIRST, {"a": "x" * 65_536})]},
    ],
}

if __name__ == "__main__":
    path = Path(__file__).parent / "vectors" / "audit-log.json"
    path.write_text(json.dumps(VECTORS, indent=1) + "\n")
