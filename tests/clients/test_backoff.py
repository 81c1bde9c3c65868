"""Delays grow, are capped, and differ between nodes."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedsec.errors import ConfigError
from fedsec_client.backoff import Backoff


@given(st.integers(0, 10_000), st.integers(0, 1000))
def test_a_delay_lies_in_the_upper_half_of_what_is_allowed(attempt: int, seed: int) -> None:
    backoff = Backoff()
    delay = backoff.delay(attempt, random.Random(seed))
    assert backoff.longest(attempt) / 2 <= delay <= backoff.longest(attempt) <= 30.0


def test_the_longest_delay_doubles_up_to_the_cap() -> None:
    longest = [Backoff(first=1.0, cap=10.0).longest(attempt) for attempt in range(6)]
    assert longest == [1.0, 2.0, 4.0, 8.0, 10.0, 10.0]


def test_two_nodes_do_not_wait_alike() -> None:
    assert len({Backoff().delay(10) for _ in range(20)}) == 20


@pytest.mark.parametrize(("first", "cap"), [(0.0, 1.0), (-1.0, 1.0), (2.0, 1.0)])
def test_nonsense_is_refused(first: float, cap: float) -> None:
    with pytest.raises(ConfigError, match="need 0 < first <= cap"):
        Backoff(first, cap)
