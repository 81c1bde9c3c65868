"""The token bucket against its formula, its bound on memory, and what it refuses to be."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedsec.errors import ConfigError, ProtocolError
from fedsec.wire.rates import RateLimiter


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def taken(limiter: RateLimiter, key: str) -> bool:
    try:
        limiter.take(key)
    except ProtocolError:
        return False
    return True


def test_a_burst_passes_and_the_next_one_is_told_when_to_come_back() -> None:
    clock = Clock()
    limiter = RateLimiter(2.0, 3, clock)
    for _ in range(3):
        limiter.take("a")
    with pytest.raises(
        ProtocolError, match=r"a: rate: more than 2 calls .* again in 0\.5 s"
    ) as caught:
        limiter.take("a")
    assert (caught.value.peer, caught.value.code) == ("a", "rate")
    clock.now += 0.49
    assert not taken(limiter, "a")
    clock.now += 0.02
    assert taken(limiter, "a")


def test_one_peer_does_not_use_up_another_ones_tokens() -> None:
    limiter = RateLimiter(1.0, 1, Clock())
    limiter.take("greedy")
    assert not taken(limiter, "greedy")
    assert taken(limiter, "modest")


@given(
    gaps=st.lists(st.floats(0, 5), max_size=60),
    rate=st.floats(0.1, 10),
    burst=st.integers(1, 5),
)
def test_never_more_than_burst_plus_rate_times_time(
    gaps: list[float], rate: float, burst: int
) -> None:
    """The law of a token bucket: in any window of t seconds at most burst + rate*t calls pass."""
    clock = Clock()
    limiter = RateLimiter(rate, burst, clock)
    passed: list[float] = []
    for gap in gaps:
        clock.now += gap
        if taken(limiter, "a"):
            passed.append(clock.now)
    for first, start in enumerate(passed):
        for last in range(first, len(passed)):
            assert last - first + 1 <= burst + rate * (passed[last] - start) + 1e-6


def test_refused_calls_cost_no_tokens() -> None:
    clock = Clock()
    limiter = RateLimiter(1.0, 1, clock)
    limiter.take("a")
    for _ in range(10):
        clock.now += 0.09
        assert not taken(limiter, "a")
    clock.now += 0.2
    assert taken(limiter, "a")


def test_a_clock_that_goes_back_gives_nothing_and_takes_nothing() -> None:
    clock = Clock()
    limiter = RateLimiter(1.0, 2, clock)
    limiter.take("a")
    clock.now -= 50
    assert taken(limiter, "a")
    assert not taken(limiter, "a")


def test_memory_is_bounded_and_the_least_recent_key_is_forgotten() -> None:
    limiter = RateLimiter(1.0, 1, Clock(), max_keys=3)
    limiter.take("active")
    for number in range(2):
        limiter.take(f"other {number}")
    assert not taken(limiter, "active")  # used again: now the newest
    limiter.take("newcomer")
    assert limiter.keys == 3
    assert not taken(limiter, "active")
    assert taken(limiter, "other 0")


@pytest.mark.parametrize(
    ("rate", "burst", "max_keys", "message"),
    [
        (0.0, 1, 1, "rate must be > 0 per second, got 0.0"),
        (float("nan"), 1, 1, "rate must be > 0"),
        (1.0, 0, 1, "burst and max_keys must be >= 1, got 0 and 1"),
        (1.0, 1, 0, "burst and max_keys must be >= 1, got 1 and 0"),
    ],
)
def test_nonsense_is_refused(rate: float, burst: int, max_keys: int, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        RateLimiter(rate, burst, max_keys=max_keys)
