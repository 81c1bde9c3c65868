"""The keystream is AES-256-CTR, and fit for use as words."""

import os

import numpy as np
import pytest
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import ECB

from fedsec.errors import ConfigError
from fedsec.privacy.keystream import Keystream

KEY = bytes(range(32))


def test_it_is_the_cipher_over_a_counter() -> None:
    blocks = b"".join(number.to_bytes(16, "big") for number in range(9000))
    one_by_one = ECB()  # noqa: S305 - counter mode, written naively
    wanted = Cipher(AES(KEY), one_by_one).encryptor().update(blocks)
    stream = Keystream(KEY)
    got = [stream.words(3, np.uint64), stream.words(70_000, np.uint16), stream.words(2, np.uint32)]
    joined = b"".join(words.tobytes() for words in got)
    assert joined == wanted[: len(joined)]
    assert [words.dtype for words in got] == [np.uint64, np.uint16, np.uint32]


def test_two_streams_differ_and_none_is_asked_for_nothing() -> None:
    first, second = Keystream(), Keystream()
    assert first.words(4, np.uint64).tolist() != second.words(4, np.uint64).tolist()
    assert first.words(0, np.uint16).shape == (0,)


def test_uniforms_fill_the_unit_interval() -> None:
    drawn = Keystream(KEY).uniforms(100_000)
    assert drawn.min() >= 0
    assert drawn.max() < 1
    assert abs(drawn.mean() - 0.5) < 5 * 0.2887 / 100_000**0.5


@pytest.mark.parametrize("bound", [1, 2, 7, 1 << 64])
def test_below_is_uniform(bound: int) -> None:
    stream = Keystream(KEY)
    drawn = [stream.below(bound) for _ in range(2000)]
    assert min(drawn) >= 0
    assert max(drawn) < bound
    if bound <= 7:
        counts = np.bincount(drawn, minlength=bound)
        assert abs(counts - 2000 / bound).max() < 5 * (2000 / bound) ** 0.5


def test_a_key_of_another_length_is_refused() -> None:
    with pytest.raises(ConfigError, match="32 bytes, got 31"):
        Keystream(bytes(31))


def test_parent_and_child_do_not_draw_the_same_noise(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = Keystream()
    monkeypatch.setattr(os, "getpid", lambda: 1)
    with pytest.raises(RuntimeError, match="fork"):
        stream.words(1, np.uint16)
