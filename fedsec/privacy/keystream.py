"""Random words from a cipher: fast enough for a model's worth of noise, and unpredictable.

The stream is AES-256 in counter mode under a key from the operating system. With a key of one's own
it is public randomness that two parties can both make: signs of a rotation, cohorts of a test.

Source: NIST SP 800-38A, 2001, section 6.5 (counter mode); AES as in FIPS 197.
"""

import os
from typing import Any, TypeAlias

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import CTR
from numpy.typing import NDArray

from fedsec.errors import ConfigError

KEY_BYTES = 32

Words: TypeAlias = NDArray[Any]


class Keystream:
    """An endless stream of random bytes; about 5 GB/s. Not for two threads at once.

    Args:
        key: 32 bytes, used for this stream alone. None, in all production of noise: a new key from
            the operating system.

    >>> Keystream(bytes(32)).words(2, np.uint16)
    array([38364, 30912], dtype=uint16)
    """

    def __init__(self, key: bytes | None = None) -> None:
        chosen = os.urandom(KEY_BYTES) if key is None else key
        if len(chosen) != KEY_BYTES:
            raise ConfigError(f"a key must have {KEY_BYTES} bytes, got {len(chosen)}")
        self._cipher = Cipher(AES(chosen), CTR(bytes(16))).encryptor()
        self._owner = os.getpid()

    def words(self, count: int, dtype: type[np.unsignedinteger[Any]]) -> Words:
        """Returns `count` independent uniform words (count,) of an unsigned dtype, native order.

        Raises:
            RuntimeError: The process was forked: parent and child would draw the same noise.
        """
        if os.getpid() != self._owner:
            raise RuntimeError("a keystream must not be used on both sides of a fork; make another")
        kind = np.dtype(dtype).newbyteorder("<")
        out = np.empty(count, kind)
        buffer = out.view(np.uint8).data
        for start in range(0, len(buffer), len(_ZEROS)):
            part = buffer[start : start + len(_ZEROS)]
            self._cipher.update_into(_ZEROS[: len(part)], part)
        return out.astype(dtype, copy=False)

    def uniforms(self, count: int) -> NDArray[np.float64]:
        """Returns `count` multiples of 2^-32 in [0, 1), uniform (count,)."""
        return self.words(count, np.uint32) * np.float64(2.0**-32)

    def below(self, bound: int) -> int:
        """Returns a uniform integer in 0..bound-1, exactly, for 1 <= bound <= 2^64."""
        limit = 2**64 - 2**64 % bound
        while True:
            word = int(self.words(1, np.uint64)[0])
            if word < limit:
                return word % bound


_ZEROS = memoryview(bytes(1 << 16))
