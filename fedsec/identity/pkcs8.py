"""Private keys encrypted by a passphrase, in the form that every tool reads.

cryptography writes this form with 2,048 iterations of PBKDF2, which a graphics card guesses
through at millions of passphrases a second. Here it is 600,000; reading needs nothing of ours.

Source: RFC 5958 (EncryptedPrivateKeyInfo), RFC 8018 appendix A (PBES2, PBKDF2); the count is that
of the OWASP Password Storage Cheat Sheet for PBKDF2-HMAC-SHA256.
"""

import base64
import secrets

from cryptography.hazmat.primitives import hashes, padding, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.kdf.pbkdf2 import PBKDF2HMAC

from fedsec.errors import ConfigError

ITERATIONS = 600_000
MIN_PASSPHRASE = 8  # bytes

_SALT_BYTES = 16
_KEY_BYTES = 32
_AES_BLOCK_BITS = 128

_SEQUENCE, _INTEGER, _OCTETS, _OID, _NULL = 0x30, 0x02, 0x04, 0x06, 0x05
_PBES2 = bytes.fromhex("2a864886f70d01050d")
_PBKDF2 = bytes.fromhex("2a864886f70d01050c")
_HMAC_SHA256 = bytes.fromhex("2a864886f70d0209")
_AES256_CBC = bytes.fromhex("60864801650304012a")


def encrypted_key_pem(key: ec.EllipticCurvePrivateKey, passphrase: bytes) -> bytes:
    """Returns `key` as PEM (``ENCRYPTED PRIVATE KEY``). Takes a few tenths of a second.

    Raises:
        ConfigError: The passphrase has fewer than 8 bytes.
    """
    if len(passphrase) < MIN_PASSPHRASE:
        raise ConfigError(
            f"the passphrase must have at least {MIN_PASSPHRASE} bytes, got {len(passphrase)}"
        )
    salt, start = secrets.token_bytes(_SALT_BYTES), secrets.token_bytes(_AES_BLOCK_BITS // 8)
    kdf = PBKDF2HMAC(hashes.SHA256(), length=_KEY_BYTES, salt=salt, iterations=ITERATIONS)
    padder = padding.PKCS7(_AES_BLOCK_BITS).padder()
    plain = key.private_bytes(
        serialization.Encoding.DER,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    encryptor = Cipher(algorithms.AES(kdf.derive(passphrase)), modes.CBC(start)).encryptor()
    sealed = encryptor.update(padder.update(plain) + padder.finalize()) + encryptor.finalize()
    der = _tlv(_SEQUENCE, _algorithm(salt, start), _tlv(_OCTETS, sealed))
    body = base64.encodebytes(der).replace(b"\n", b"")
    lines = [body[at : at + 64] for at in range(0, len(body), 64)]
    begin, end = b"-----BEGIN ENCRYPTED PRIVATE KEY-----", b"-----END ENCRYPTED PRIVATE KEY-----"
    return b"\n".join([begin, *lines, end, b""])


def _algorithm(salt: bytes, start: bytes) -> bytes:
    """Returns AlgorithmIdentifier: PBES2 of PBKDF2-HMAC-SHA256 and AES-256-CBC."""
    count = ITERATIONS.to_bytes(ITERATIONS.bit_length() // 8 + 1, "big")
    pseudorandom = _tlv(_SEQUENCE, _tlv(_OID, _HMAC_SHA256), _tlv(_NULL))
    derivation = _tlv(_SEQUENCE, _tlv(_OCTETS, salt), _tlv(_INTEGER, count), pseudorandom)
    scheme = _tlv(_SEQUENCE, _tlv(_OID, _AES256_CBC), _tlv(_OCTETS, start))
    parameters = _tlv(_SEQUENCE, _tlv(_SEQUENCE, _tlv(_OID, _PBKDF2), derivation), scheme)
    return _tlv(_SEQUENCE, _tlv(_OID, _PBES2), parameters)


def _tlv(tag: int, *parts: bytes) -> bytes:
    """Returns one DER element: tag, definite length in its shortest form, content."""
    content = b"".join(parts)
    size = len(content)
    if size < 0x80:  # noqa: PLR2004 - DER's short form
        return bytes([tag, size]) + content
    octets = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return bytes([tag, 0x80 | len(octets)]) + octets + content
