"""Shares: any t give the secret, t - 1 fit every secret."""

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedsec.errors import ConfigError
from fedsec.secagg import keys, shamir
from tests.secagg import naive

NUMBERS = st.integers(0, shamir.PRIME - 1)


@given(secret=NUMBERS, data=st.data(), count=st.integers(1, 40))
def test_any_threshold_many_shares_give_the_secret(
    secret: int, data: st.DataObject, count: int
) -> None:
    threshold = data.draw(st.integers(1, count))
    indices = data.draw(st.permutations(range(1, count + 1)))
    shares = dict(zip(indices, shamir.split(secret, threshold, indices, os.urandom), strict=True))
    some = {index: shares[index] for index in indices[:threshold]}
    assert shamir.combine(some) == secret == naive.interpolate(some)


@given(secret=NUMBERS, other=NUMBERS, threshold=st.integers(2, 12))
def test_one_share_too_few_fits_every_secret(secret: int, other: int, threshold: int) -> None:
    """Shares and any other secret lie on one polynomial of the degree: nothing is ruled out."""
    indices = range(1, threshold)
    all_indices = [*indices, threshold]
    shares = shamir.split(secret, threshold, all_indices, os.urandom)[:-1]
    known = dict(zip(indices, shares, strict=True))
    weights = shamir.lagrange(tuple(all_indices))
    rest = other - sum(weights[index] * known[index] for index in indices)
    last = rest * pow(weights[threshold], -1, shamir.PRIME) % shamir.PRIME
    assert shamir.combine(known | {threshold: last}) == other


def test_shares_of_one_secret_differ_each_time() -> None:
    made = {tuple(shamir.split(7, 3, range(1, 6), os.urandom)) for _ in range(20)}
    assert len(made) == 20


def test_the_largest_federation() -> None:
    indices = range(1, 400)
    shares = dict(zip(indices, shamir.split(12345, 290, indices, os.urandom), strict=True))
    assert shamir.combine({index: shares[index] for index in range(100, 390)}) == 12345


@pytest.mark.parametrize(
    ("secret", "threshold", "indices"),
    [
        (shamir.PRIME, 1, [1]),
        (-1, 1, [1]),
        (1, 0, [1]),
        (1, 3, [1, 2]),
        (1, 1, [0]),
        (1, 1, [1, 1]),
        (1, 1, [65_536]),
    ],
)
def test_arguments_out_of_range_are_refused(
    secret: int, threshold: int, indices: list[int]
) -> None:
    with pytest.raises(ConfigError):
        shamir.split(secret, threshold, indices, os.urandom)


def test_private_keys_and_numbers_are_one_to_one() -> None:
    number = keys.make_private(os.urandom)
    raw = keys.private_key(number).private_bytes_raw()
    assert int.from_bytes(raw, "little") == number < 2**255


def test_a_seed_beyond_the_prime_is_drawn_again() -> None:
    drawn = iter([b"\xff" * 32, (5).to_bytes(32, "big")])
    assert keys.make_seed(lambda _length: next(drawn)) == 5
