"""The specification once more, naively, by other means than `fedsec.secagg` uses."""

import hashlib
import struct
from collections.abc import Sequence
from fractions import Fraction
from typing import Any

from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import ECB
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

P = 2**256 - 189


def lab(name: str) -> bytes:
    return b"fedsec-v1/secagg/" + name.encode() + b"\x00"


def derive(material: bytes, salt: bytes, info: bytes) -> bytes:
    return HKDF(SHA256(), 32, salt, info).derive(material)


def mask(secret: bytes, transcript: bytes, a: int, b: int, bits: int) -> bytes:
    info = lab("mask") + struct.pack(">BQQ", bits, min(a, b), max(a, b))
    return derive(secret, transcript, info)


def self_mask(seed: int, transcript: bytes, node: int, bits: int) -> bytes:
    info = lab("self") + struct.pack(">BQ", bits, node)
    return derive(seed.to_bytes(32, "big"), transcript, info)


def seal(secret: bytes, transcript: bytes, source: int, target: int) -> bytes:
    return derive(secret, transcript, lab("seal") + struct.pack(">QQ", source, target))


def seed_commitment(seed: int, transcript: bytes, node: int) -> bytes:
    data = lab("self-commitment") + transcript + struct.pack(">Q", node) + seed.to_bytes(32, "big")
    return hashlib.sha256(data).digest()


def share_commitment(transcript: bytes, kind: int, owner: int, holder: int, share: int) -> bytes:
    data = transcript + struct.pack(">BQQ", kind, owner, holder) + share.to_bytes(32, "big")
    return hashlib.sha256(lab("share-commitment") + data).digest()


def words(derived: bytes, count: int, bits: int, offset: int = 0) -> list[int]:
    """Words offset..offset+count of the keystream, block by block from AES alone."""
    aes = Cipher(AES(derived[:16]), ECB()).encryptor()  # noqa: S305 - the block itself is wanted
    counter = int.from_bytes(derived[16:], "big")
    per_block = 128 // bits
    made = []
    for i in range(offset, offset + count):
        block = aes.update(((counter + i // per_block) % 2**128).to_bytes(16, "big"))
        at = i % per_block * bits // 8
        made.append(int.from_bytes(block[at : at + bits // 8], "little"))
    return made


def polynomial(coefficients: Sequence[int], x: int) -> int:
    """Coefficients from the constant on."""
    return sum(c * pow(x, power, P) for power, c in enumerate(coefficients)) % P


def interpolate(shares: dict[int, int]) -> int:
    """The value at 0, by exact fractions: no inverse mod p until the end."""
    total = 0
    for x, y in shares.items():
        weight = Fraction(1)
        for other in shares:
            if other != x:
                weight *= Fraction(-other, x - other)
        total += y * weight.numerator * pow(weight.denominator, -1, P)
    return total % P


ASKED = hashlib.sha256(b"a model").digest()


def context(fields: tuple[bool, bytes, int, int, int, int, int, int]) -> bytes:
    """Of malicious, plan, run, round, attempt, group, word bits, words; all were asked `ASKED`."""
    malicious, plan, *numbers = fields
    return struct.pack(">B", malicious) + plan + struct.pack(">QIIIBQ", *numbers) + ASKED


def asked(records: list[tuple[str, str, list[Any]]]) -> bytes:
    """Of records (name, kind, entries); of arrays (name, (dtype, shape, stype), bytes in hex)."""
    data = lab("asked") + struct.pack(">I", len(records))
    for name, kind, entries in sorted(records):
        data += text(name) + bytes([["arrays", "metrics", "configs"].index(kind) + 1])
        data += struct.pack(">I", len(entries))
        for entry in entries if kind == "arrays" else sorted(entries, key=lambda each: each[0]):
            if kind == "arrays":
                key, (dtype, shape, stype), body = entry
                data += text(key) + text(dtype) + text(stype)
                data += struct.pack(f">I{len(shape)}Q", len(shape), *shape)
                data += struct.pack(">Q", len(body) // 2) + bytes.fromhex(body)
            else:
                data += text(entry[0]) + value(entry[1])
    return hashlib.sha256(data).digest()


def text(said: str) -> bytes:
    return struct.pack(">I", len(said.encode())) + said.encode()


def value(given: Any) -> bytes:
    if isinstance(given, dict):
        return b"\5" + struct.pack(">I", len(given["hex"]) // 2) + bytes.fromhex(given["hex"])
    if isinstance(given, list):
        return b"\6" + struct.pack(">I", len(given)) + b"".join(map(value, given))
    if isinstance(given, bool):
        return b"\1" + bytes([given])
    if isinstance(given, int):
        return b"\2" + text(str(given))
    if isinstance(given, float):
        return b"\3" + struct.pack(">d", given)
    return b"\4" + text(given)
