"""What a release shows of its own privacy: tests with stated power, and two figures from canaries.

A canary is a unit whose update is as long as the clip allows, in a random direction that only the
auditor knows. How well the release tells which canaries were in it is how little privacy it gives.

    noise     chi-square: rejects noise that is 10 % too small
    estimate  one-shot: what a Gaussian mechanism would cost that shows canaries so well
    bound     one-run: at least so much epsilon the mechanism has, at a stated confidence

Sources: Andrew, Kairouz, Oh, Oprea, McMahan, Suriyakumar, "One-shot Empirical Privacy Estimation
for Federated Learning", ICLR 2024, section 3, in the form with equal variances (the estimate).
Steinke, Nasr, Jagielski, "Privacy Auditing with One (1) Training Run", NeurIPS 2023, theorem 3.1
(the bound).
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from fedsec.errors import ConfigError

Doubles = NDArray[np.float64]

LEVEL = 1e-6
"""Chance of each test to reject an honest mechanism."""

MIN_SIZE = 5_000
"""Entries of a release from which `noise_p` rejects 10 % too little noise, 999 times of 1,000."""

FEW = 1_250
"""Entries, of as many releases as it takes, from which it rejects 15 % too little as often."""

SHARES = (0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
"""Of all canaries: how many are guessed at, best scores first; the level is shared among these."""

_SIGMAS = 4.0  # of the estimate's own error
_FAINT = 1e-3  # a signal over noise that costs nothing worth a figure
_STEPS = 60  # of a bisection
_MOST = 50.0  # epsilon


def noise_p(noise: Doubles, std: float) -> float:
    """Returns how likely a sample variance so small is, if the noise has `std` per entry.

    Args:
        noise: Of one release (d,), d >= MIN_SIZE for the stated power.
        std: As claimed, > 0.
    """
    statistic = float(np.dot(noise, noise)) / std**2
    return float(stats.chi2.cdf(statistic, noise.size))


def shape_p(noise: Doubles) -> float:
    """Returns how likely it is that noise of one Gaussian looks so: entries left out do not."""
    std = float(noise.std())
    return float(stats.kstest(noise / std, "norm").pvalue) if std > 0 else 0.0


@dataclass(frozen=True, slots=True)
class Estimate:
    """What canaries show.

    Args:
        epsilon: Of a Gaussian mechanism that would show them as well.
        low: Of one that shows them less well by four standard errors: more than chance explains.
    """

    epsilon: float
    low: float


def one_shot(
    cosines: Doubles, size: int, gaussian: Callable[[float], float], *, reach: float = 1.0
) -> Estimate:
    """Returns the estimate from canaries that were all in.

    Not a certificate: it holds for the Gaussian mechanism, in the limit.

    Args:
        cosines: Between the release and each canary's direction (k,).
        size: d, entries of the release.
        gaussian: From a noise multiplier to its epsilon.
        reach: Of the adjacency: how far neighbours are apart, over a canary's length.
    """
    mean, error = math.sqrt(size) * float(np.mean(cosines)), 1 / math.sqrt(len(cosines))
    found, low = (reach * each for each in (mean, mean - _SIGMAS * error))
    return Estimate(*(gaussian(1 / each) if each > _FAINT else 0.0 for each in (found, low)))


def one_run(scores_in: Doubles, scores_out: Doubles, delta: float, *, level: float = 0.05) -> float:
    """Returns an epsilon that the mechanism has at least, at confidence ``1 - level``.

    Each canary was in by a fair coin. Sound for whatever the mechanism is.

    Args:
        scores_in: Of canaries that were in (k,).
        scores_out: Of the others (l,).
        delta: Of the guarantee.
        level: Chance that the bound is too high.

    Raises:
        ConfigError: There is no canary.
    """
    scores = np.concatenate([scores_in, scores_out])
    if not scores.size:
        raise ConfigError("there are no canaries")
    truth = np.concatenate([np.ones(scores_in.size, bool), np.zeros(scores_out.size, bool)])
    ordered = truth[np.argsort(-scores, kind="stable")]
    best = 0.0
    for share in SHARES:
        half = max(1, round(share * scores.size / 2))
        correct = int(ordered[:half].sum() + (~ordered[-half:]).sum())
        best = max(best, _rejected(2 * half, correct, scores.size, delta, level / len(SHARES)))
    return best


def _rejected(guesses: int, correct: int, canaries: int, delta: float, level: float) -> float:
    """Returns the largest epsilon under which so many correct guesses are too unlikely."""
    low, high = 0.0, _MOST
    if _tail(guesses, correct, canaries, low, delta) > level:
        return 0.0
    for _ in range(_STEPS):
        middle = (low + high) / 2
        if _tail(guesses, correct, canaries, middle, delta) <= level:
            low = middle
        else:
            high = middle
    return low


def _tail(guesses: int, correct: int, canaries: int, epsilon: float, delta: float) -> float:
    """Returns how likely so many correct guesses are at most, under (epsilon, delta)."""
    odds = 1 / (1 + math.exp(-epsilon))
    fewer = np.arange(correct - 1, -1, -1)
    above = stats.binom.sf(fewer - 1, guesses, odds)  # P[at least correct - i], i = 1..correct
    reached = float(stats.binom.sf(correct - 1, guesses, odds))
    slack = float(np.max((above - reached) / np.arange(1, correct + 1))) if correct else 0.0
    return reached + 2 * canaries * delta * max(0.0, slack)


def directions(count: int, size: int, rng: np.random.Generator) -> NDArray[np.float32]:
    """Returns random unit vectors (count, size)."""
    drawn = rng.standard_normal((count, size), dtype=np.float32)
    drawn /= np.linalg.norm(drawn, axis=1, keepdims=True)
    return drawn


def worst_rows(
    count: int, size: int, clip: float, rng: np.random.Generator
) -> Sequence[tuple[str, NDArray[np.float32]]]:
    """Returns sets of rows (count, size) in which moving the first one moves a rule the most.

    Balanced sets reach the bounds of trimmed means and medians; rows far too long find a clip that
    is missing, or that comes after the mean.

    Args:
        count: Rows, >= 1.
        size: d.
        clip: Largest L2 norm that the mechanism is said to let through.
        rng: Of one of the directions.
    """
    spread = np.full(size, 1 / math.sqrt(size), np.float32)
    single = np.zeros(size, np.float32)
    single[0] = 1.0
    signs = np.where(np.arange(count) % 2, -1.0, 1.0).astype(np.float32)[:, None]
    alone = np.zeros((count, 1), np.float32)
    alone[0] = 1.0
    found = []
    for name, direction in (
        ("spread", spread),
        ("single", single),
        ("random", directions(1, size, rng)[0]),
    ):
        for shape, pattern in (("alone", alone), ("balanced", signs), ("alike", np.abs(signs))):
            for length in (1.0, 1000.0):
                rows = (clip * length * pattern * direction).astype(np.float32)
                found.append((f"{shape}, {name}, {length:g} clips", rows))
    return found
