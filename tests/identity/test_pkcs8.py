"""Encrypted keys: other programs read them, and guessing a passphrase is made slow."""

import base64

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from fedsec.errors import ConfigError
from fedsec.identity.pkcs8 import encrypted_key_pem

PASSPHRASE = b"correct horse"
PBKDF2_WITH_600000 = bytes.fromhex("02030927c0")  # the DER INTEGER 600,000


@pytest.mark.parametrize("curve", [ec.SECP256R1(), ec.SECP384R1()])
def test_cryptography_reads_what_is_written(curve: ec.EllipticCurve) -> None:
    key = ec.generate_private_key(curve)
    pem = encrypted_key_pem(key, PASSPHRASE)
    loaded = serialization.load_pem_private_key(pem, PASSPHRASE)
    assert isinstance(loaded, ec.EllipticCurvePrivateKey)
    assert loaded.private_numbers() == key.private_numbers()
    assert max(len(line) for line in pem.splitlines()) <= 64


def test_the_count_and_a_fresh_salt_are_written() -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    first, second = (_der(encrypted_key_pem(key, PASSPHRASE)) for _ in range(2))
    assert PBKDF2_WITH_600000 in first
    assert first != second


def test_a_wrong_passphrase_does_not_open_it() -> None:
    pem = encrypted_key_pem(ec.generate_private_key(ec.SECP256R1()), PASSPHRASE)
    for wrong in (PASSPHRASE + b"s", PASSPHRASE[:-1], PASSPHRASE.upper()):
        with pytest.raises(ValueError, match=r"."):  # by the padding, or by what lies under it
            serialization.load_pem_private_key(pem, wrong)


@pytest.mark.parametrize("passphrase", [b"", b"1234567"])
def test_a_short_passphrase_is_refused(passphrase: bytes) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    with pytest.raises(ConfigError, match="at least 8 bytes, got") as caught:
        encrypted_key_pem(key, passphrase)
    assert "1234567" not in str(caught.value)


def _der(pem: bytes) -> bytes:
    return base64.b64decode(b"".join(pem.splitlines()[1:-1]))
