"""The code agrees with every vector of docs/spec/secagg.md, the failing ones included."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord, RecordDict

from fedsec.errors import ProtocolError
from fedsec.flower.asked import digest_of
from fedsec.secagg import keys, masks, messages, sealing, session, shamir

REPOSITORY = Path(__file__).parents[2]
VECTORS = json.loads((REPOSITORY / "tests/vectors/secagg.json").read_text("utf-8"))
SPEC = (REPOSITORY / "docs/spec/secagg.md").read_text("utf-8")

Case = dict[str, Any]


def read_session(case: Case) -> Case:
    made = session.Session(
        plan=bytes.fromhex(case["plan"]),
        run=case["run"],
        round=case["round"],
        attempt=case["attempt"],
        group=case["group"],
        words=case["words"],
        word_bits=case["word_bits"],
        asked=bytes.fromhex(case["asked"]),
        malicious=case["malicious"],
    )
    roster = messages.Roster.read(bytes.fromhex(case["roster"]), "")
    for offer in roster.offers:
        offer.check(made.context)
    transcript = session.make_transcript(
        made,
        roster.offers,
        roster.nonces,
        neighbours=case["neighbours"],
        threshold=case["threshold"],
    )
    commitments = [session.commit_nonce(made, n, roster.nonces[n]).hex() for n in roster.nonces]
    return {
        "context": made.context.hex(),
        "roster": roster.to_bytes().hex(),
        "transcript": transcript.hex(),
        "graph_seed": session.graph_seed(transcript).hex(),
        "nonce_commitments": commitments or case["nonce_commitments"],
    }


def read_message(case: Case) -> Case:
    data, context = bytes.fromhex(case["data"]), bytes.fromhex(case["context"])
    transcript = bytes.fromhex(case["transcript"])
    signer = Ed25519PrivateKey.from_private_bytes(bytes.fromhex(case["signer"]))
    public = signer.public_key().public_bytes_raw()
    match case["kind"]:
        case "offer":
            offer = messages.Offer.read(data, "")
            offer.check(context)
            assert offer.signed_by(signer, context) == offer
            return {"data": offer.to_bytes().hex()}
        case "roster":
            return {"data": messages.Roster.read(data, "").to_bytes().hex()}
        case "shares":
            shares = messages.Shares.read(data, "")
            shares.check(public, transcript)
            assert shares.signed_by(signer, transcript) == shares
            return {"data": shares.to_bytes().hex()}
        case "delivery":
            return {"data": messages.Delivery.read(data, "").to_bytes().hex()}
        case "survivors":
            survivors = messages.Survivors.read(data, "")
            said = messages.survivors_statement(transcript, survivors.nodes)
            for signature in survivors.signatures.values():
                keys.verify(public, signature, said, "", "the statement")
            return {"data": survivors.to_bytes().hex()}
        case _:
            revealed = messages.read_revealed(data, "")
            return {"data": messages.write_revealed(revealed).hex()}


def read_keys(case: Case) -> Case:
    if "own" not in case:
        keys.check_exchangeable(bytes.fromhex(case["other_public"]), "")
        return {}
    raw, transcript = bytes.fromhex(case["own_private"]), bytes.fromhex(case["transcript"])
    own, other, bits = case["own"], case["other"], case["word_bits"]
    private = keys.private_key(int.from_bytes(raw, "little"))
    secret = keys.agree(private, bytes.fromhex(case["other_public"]), "")
    seed = int(case["seed"], 16)
    mask = keys.mask_stream(secret, transcript, own, other, bits)
    itself = keys.self_stream(seed, transcript, own, bits)
    return {
        "pair_secret": secret.hex(),
        "mask": (mask.key + mask.counter).hex(),
        "self": (itself.key + itself.counter).hex(),
        "seal": keys.seal_key(secret, transcript, own, other).hex(),
        "seed_commitment": keys.commit_seed(seed, transcript, own).hex(),
    }


def read_mask(case: Case) -> Case:
    stream = keys.Stream.of(bytes.fromhex(case["derived"]))
    count, bits, offset = len(case["words"]), case["word_bits"], case["offset"]
    made = masks.keystream(stream, count, bits, offset=offset).tolist()
    if offset * bits // 8 % masks.BLOCK == 0:
        vector = np.zeros(count, masks.word_type(bits))
        masks.apply(vector, [stream], [], offset=offset)
        assert vector.tolist() == made
    return {"words": made}


def read_shamir(case: Case) -> Case:
    drawn = bytes.fromhex(case["entropy"])

    def entropy(length: int) -> bytes:
        assert length == len(drawn)
        return drawn

    secret, threshold, indices = int(case["secret"], 16), case["threshold"], case["indices"]
    shares = shamir.split(secret, threshold, indices, entropy)
    some = dict(list(zip(indices, shares, strict=True))[-threshold:])
    return {"shares": [hex(share) for share in shares], "secret": hex(shamir.combine(some))}


def read_share(case: Case) -> Case:
    key, transcript = bytes.fromhex(case["key"]), bytes.fromhex(case["transcript"])
    source, target = case["source"], case["target"]
    associated = sealing.associated_data(transcript, source, target, case["index"])
    shares = sealing.unseal(key, bytes.fromhex(case["sealed"]), associated, "")
    commitments = [
        sealing.commit_share(transcript, kind, source, target, share).hex()
        for kind, share in zip(sealing.Kind, shares, strict=True)
    ]
    sealed = sealing.seal(key, shares, associated).hex()
    return {
        "shares": [hex(each) for each in shares],
        "commitments": commitments,
        "sealed": sealed,
    }


def read_asked(case: Case) -> Case:
    made = RecordDict()
    for name, kind, entries in case["records"]:
        if kind == "arrays":
            arrays = {
                key: Array(dtype, tuple(shape), stype, bytes.fromhex(data))
                for key, (dtype, shape, stype), data in entries
            }
            made[name] = ArrayRecord(arrays)
        elif kind == "metrics":
            made[name] = MetricRecord(dict(entries))
        else:
            values = {
                key: bytes.fromhex(value["hex"]) if isinstance(value, dict) else value
                for key, value in entries
            }
            made[name] = ConfigRecord(values)
    return {"digest": digest_of(made).hex()}


READERS: dict[str, Callable[[Case], Case]] = {
    "session": read_session,
    "messages": read_message,
    "keys": read_keys,
    "masks": read_mask,
    "shamir": read_shamir,
    "shares": read_share,
    "asked": read_asked,
}
CASES = [
    pytest.param(section, case, id=f"{section}-{place}")
    for section, cases in VECTORS.items()
    if isinstance(cases, list)
    for place, case in enumerate(cases)
]


@pytest.mark.parametrize(("section", "case"), CASES)
def test_vector(section: str, case: Case) -> None:
    if "error" in case:
        with pytest.raises(ProtocolError) as raised:
            READERS[section](case)
        assert raised.value.code == case["error"]
        return
    read = READERS[section](case)
    assert read == {name: case[name] for name in read}


def test_every_code_that_a_vector_shows_stands_in_a_table_of_the_spec() -> None:
    shown = {case["error"] for _, case in (each.values for each in CASES) if "error" in case}  # type: ignore[union-attr, index, operator]
    assert shown == {"malformed", "bad-key", "bad-share", "bad-signature"}
    tables = set(re.findall(r"^\| `([a-z-]+)` \|", SPEC, re.MULTILINE))
    assert shown == tables
