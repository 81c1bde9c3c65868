"""The proof of possession is bound to the token, the request and the key; it cannot be borrowed."""

import base64
import hashlib

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from hypothesis import given
from hypothesis import strategies as st

from fedsec.errors import IdentityError
from fedsec.identity.invites import token_hash
from fedsec.identity.leaves import key_pem, make_key, make_request
from fedsec.identity.signing import (
    check_proof,
    check_public,
    enrolment_transcript,
    load_signing_key,
    make_signing_key,
    prove,
    public_bytes,
    signing_fingerprint,
    signing_key_pem,
)

KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
PUBLIC = public_bytes(KEY)
TOKEN_HASH = token_hash(b"t" * 32)
CSR = make_request(make_key())
TRANSCRIPT = enrolment_transcript(TOKEN_HASH, CSR, PUBLIC)

P = 2**255 - 19
SMALL_ORDER = [  # all encodings, the sign bit clear
    (0).to_bytes(32, "little"),
    (1).to_bytes(32, "little"),
    (P - 1).to_bytes(32, "little"),
    P.to_bytes(32, "little"),
    (P + 1).to_bytes(32, "little"),
    bytes.fromhex("26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05"),
    bytes.fromhex("c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a"),
]


def test_a_proof() -> None:
    check_proof(PUBLIC, TRANSCRIPT, prove(KEY, TRANSCRIPT))


def test_the_transcript() -> None:
    parts = [b"fedsec-v1/enrolment-proof\x00"]
    parts += [b"\x00\x00\x00\x20", TOKEN_HASH]
    parts += [len(CSR).to_bytes(4, "big"), CSR]
    parts += [b"\x00\x00\x00\x20", PUBLIC]
    assert b"".join(parts) == TRANSCRIPT


@given(st.tuples(*[st.binary(max_size=8)] * 3), st.tuples(*[st.binary(max_size=8)] * 3))
def test_two_enrolments_never_share_a_transcript(
    one: tuple[bytes, bytes, bytes], other: tuple[bytes, bytes, bytes]
) -> None:
    assert (enrolment_transcript(*one) == enrolment_transcript(*other)) == (one == other)


def test_bytes_cannot_move_between_the_parts() -> None:
    assert enrolment_transcript(b"ab", b"c", b"") != enrolment_transcript(b"a", b"bc", b"")


@pytest.mark.parametrize(
    "transcript",
    [
        enrolment_transcript(token_hash(b"u" * 32), CSR, PUBLIC),
        enrolment_transcript(TOKEN_HASH, make_request(make_key()), PUBLIC),
        enrolment_transcript(TOKEN_HASH, CSR, public_bytes(make_signing_key())),
        b"other-label\x00" + TRANSCRIPT.partition(b"\x00")[2],
        b"",
    ],
    ids=["another token", "another request", "another key", "another label", "nothing"],
)
def test_a_proof_over_anything_else_is_refused(transcript: bytes) -> None:
    with pytest.raises(IdentityError) as caught:
        check_proof(PUBLIC, TRANSCRIPT, prove(KEY, transcript))
    assert caught.value.code == "bad-proof"


def test_a_proof_by_another_key_is_refused() -> None:
    with pytest.raises(IdentityError, match="bad-proof"):
        check_proof(PUBLIC, TRANSCRIPT, prove(make_signing_key(), TRANSCRIPT))


@pytest.mark.parametrize("length", [0, 63, 65, 128])
def test_a_proof_of_another_length_is_refused(length: int) -> None:
    proof = (prove(KEY, TRANSCRIPT) * 2)[:length]
    with pytest.raises(IdentityError, match="bad-proof"):
        check_proof(PUBLIC, TRANSCRIPT, proof)


@given(data=st.data())
def test_any_damage_to_a_proof_is_refused(data: st.DataObject) -> None:
    proof = bytearray(prove(KEY, TRANSCRIPT))
    proof[data.draw(st.integers(0, 63))] ^= data.draw(st.integers(1, 255))
    with pytest.raises(IdentityError, match="bad-proof"):
        check_proof(PUBLIC, TRANSCRIPT, bytes(proof))


def test_a_signature_has_one_form() -> None:
    """S plus the order of the group is another number with the same meaning."""
    proof = prove(KEY, TRANSCRIPT)
    order = 2**252 + 27742317777372353535851937790883648493
    other = int.from_bytes(proof[32:], "little") + order
    with pytest.raises(IdentityError, match="bad-proof"):
        check_proof(PUBLIC, TRANSCRIPT, proof[:32] + other.to_bytes(32, "little"))


def test_a_key_of_small_order_would_prove_anything() -> None:
    """Shows that the check is needed: without it, this signature fits every message."""
    neutral = (1).to_bytes(32, "little")
    everything = neutral + bytes(32)
    Ed25519PublicKey.from_public_bytes(neutral).verify(everything, TRANSCRIPT)
    with pytest.raises(IdentityError, match="wrong-key"):
        check_proof(neutral, TRANSCRIPT, everything)


@pytest.mark.parametrize("public", SMALL_ORDER, ids=lambda public: public.hex()[:8])
@pytest.mark.parametrize("sign", [0, 0x80])
def test_keys_of_small_order_are_refused(public: bytes, sign: int) -> None:
    with pytest.raises(IdentityError) as caught:
        check_public(public[:31] + bytes([public[31] | sign]))
    assert caught.value.code == "wrong-key"


@pytest.mark.parametrize("public", [b"", PUBLIC[:-1], PUBLIC + b"\x00", b"\xff" * 32])
def test_what_is_no_key_is_refused(public: bytes) -> None:
    for use in (
        lambda: signing_fingerprint(public),
        lambda: check_proof(public, TRANSCRIPT, bytes(64)),
    ):
        with pytest.raises(IdentityError, match="wrong-key"):
            use()


def test_fingerprints() -> None:
    digest = hashlib.sha256(PUBLIC).digest()
    shown = "SHA256:" + base64.b64encode(digest).decode().rstrip("=")
    assert signing_fingerprint(PUBLIC) == shown
    assert len(shown) == 50


def test_keys_are_kept_and_loaded() -> None:
    assert public_bytes(load_signing_key(signing_key_pem(KEY))) == PUBLIC
    assert public_bytes(make_signing_key()) != public_bytes(make_signing_key())


def test_other_files_are_not_loaded() -> None:
    with pytest.raises(IdentityError, match="wrong-key: the signing key is not Ed25519"):
        load_signing_key(key_pem(make_key()))
    encrypted = KEY.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(b"x"),
    )
    for pem in (b"", b"x", encrypted):
        with pytest.raises(IdentityError, match="malformed"):
            load_signing_key(pem)
