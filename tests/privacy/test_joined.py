"""Update and figures in one vector: as long as is covered, each with the noise that is its own."""

import itertools
import math

import numpy as np
import pytest

from fedsec.privacy.figures import Figures
from fedsec.privacy.gaussian import remaining
from fedsec.privacy.joined import Joined

FIGURES = Figures((("train-loss", 0.0, 4.0), ("accuracy", 0.0, 1.0), ("balance", -3.0, 1.0)), 2.5)
ROUND, CLIP = 1.2, 0.5
JOINED = Joined(FIGURES, CLIP, remaining(ROUND, 2.5))


def test_no_node_sends_more_than_is_covered() -> None:
    """The longest update and all corners of figures, claimed within and beyond their ranges."""
    rng = np.random.default_rng(1)
    update = rng.normal(size=40).astype(np.float32)
    for length, claim in itertools.product((1e-3, CLIP, 1e18), (0.1, 0.5, 3e38)):
        row = update * np.float32(length / np.linalg.norm(update))
        sent = JOINED(np.append(row, np.array([claim, -claim, claim], np.float32)))
        assert np.linalg.norm(sent) <= JOINED.norm * (1 + 1e-6)
    assert np.linalg.norm(sent) == pytest.approx(JOINED.norm, rel=1e-6)  # and it is reached
    assert np.linalg.norm(sent[:40]) == pytest.approx(CLIP, rel=1e-6)


def test_what_is_short_is_sent_as_it_is() -> None:
    row = np.array([0.1, -0.2, 0.5, -0.5, 0.25], np.float32)
    sent = JOINED(row)
    assert sent.dtype == np.float32
    assert sent[:2].tolist() == row[:2].tolist()
    assert (sent[2:] / JOINED.weight).tolist() == pytest.approx([0.5, -0.5, 0.25])


def test_one_noise_is_each_parts_own_and_the_rounds_in_all() -> None:
    noise = ROUND * JOINED.norm  # standard deviation of each entry
    assert noise / CLIP == pytest.approx(remaining(ROUND, 2.5))
    assert noise / (JOINED.weight * math.sqrt(3) / 2) == pytest.approx(2.5)


def test_what_is_not_finite_stays_so() -> None:
    with np.errstate(invalid="ignore"):
        for wrong in (math.nan, math.inf):
            assert not np.isfinite(JOINED(np.array([wrong, 1, 0, 0, 0], np.float32))).all()
            assert not np.isfinite(JOINED(np.array([1, 1, 0, math.nan, 0], np.float32))).all()
