import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedsec.errors import ConfigError
from fedsec.privacy.events import (
    MAX_COUNT,
    Event,
    Gaussian,
    Price,
    Skellam,
    event_from_json,
    event_to_json,
)

POSITIVE = st.floats(min_value=1e-300, max_value=1e300)
EVENTS = st.one_of(
    st.builds(Gaussian, POSITIVE, st.floats(min_value=1e-12, max_value=1.0)),
    st.builds(Skellam, POSITIVE, POSITIVE, POSITIVE),
)


@settings(derandomize=True)
@given(EVENTS)
def test_an_event_comes_back_from_json_equal(event: Event) -> None:
    assert event_from_json(event_to_json(event)) == event


@pytest.mark.parametrize("value", [0.0, -1.0, math.nan, math.inf])
def test_noise_must_be_a_positive_number(value: float) -> None:
    with pytest.raises(ConfigError, match="noise_multiplier must be > 0"):
        Gaussian(value)
    with pytest.raises(ConfigError, match="variance must be > 0"):
        Skellam(1.0, 1.0, value)


@pytest.mark.parametrize("value", [0.0, -0.1, 1.1, math.nan])
def test_a_rate_is_a_probability(value: float) -> None:
    with pytest.raises(ConfigError, match="sampling must be in"):
        Gaussian(1.0, sampling=value)


@pytest.mark.parametrize("count", [0, -1, MAX_COUNT + 1, 1.0, True])
def test_a_count_is_a_positive_integer(count: int) -> None:
    with pytest.raises(ConfigError, match="count must be an integer"):
        Price(Gaussian(1.0), count=count)


@pytest.mark.parametrize("delta", [-1e-9, 1.0, math.nan])
def test_the_lost_delta_is_less_than_one(delta: float) -> None:
    with pytest.raises(ConfigError, match="delta must be in"):
        Price(Gaussian(1.0), delta=delta)


def test_a_price_of_many_releases_multiplies_both() -> None:
    assert Price(Gaussian(1.0), 3, 1e-9).times(4) == Price(Gaussian(1.0), 12, 4e-9)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "kind None"),
        ({"kind": ["gaussian"]}, "kind"),
        ({"kind": "laplace", "scale": 1.0}, "known: gaussian, skellam"),
        ({"kind": "gaussian"}, "malformed"),
        ({"kind": "gaussian", "noise_multiplier": 1.0, "more": 1.0}, "malformed"),
        ({"kind": "gaussian", "noise_multiplier": "1.0"}, "else than numbers"),
        ({"kind": "gaussian", "noise_multiplier": True}, "else than numbers"),
        ({"kind": "gaussian", "noise_multiplier": 10**400}, "malformed"),
        ({"kind": "gaussian", "noise_multiplier": -1.0}, "must be > 0"),
    ],
)
def test_what_is_no_event_is_refused(given: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        event_from_json(given)
