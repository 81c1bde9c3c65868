"""How a sum of integers with noise shares is set up: grid, words, and each node's share of noise.

Everything is decided before the first round, from public numbers. The grid is as fine as words,
sampler and rounding ask for:

    rounding    25 d <= (scale c)^2: it lengthens a vector of norm c by 0.5 % at most
    sampler     each share's standard deviation <= 4096 grid steps
    words       k standard deviations of the rotated sum fit into 2^(bits-1), k so that no entry
                wraps around in 999 of 1000 rounds

Sources: Kairouz, Liu, Steinke, ICML 2021, theorem 1 (norm after rounding) and section 4 (scale).
Agarwal, Kairouz, Liu, NeurIPS 2021 (noise).
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from fedsec.errors import ConfigError

BETA = math.exp(-0.5)
"""Of conditional rounding: a try fails with a probability of at most this."""

MIN_NORM = 64.0
"""Grid steps of the longest vector, at least: the price that a plan states holds from here on."""

MAX_SHARE = 4096.0
"""Largest standard deviation of a noise share, in grid steps: `Skellam` has no larger table."""

FINE = 5.0
"""Grid steps of the longest vector over sqrt(d): more would save less than 0.5 % of the noise."""

MOST = 2.0
"""How many times longer rounding may make the longest vector: so much more noise is needed."""

MAX_BITS = 32

WRAPS = 1e-3
"""Probability that any entry of a round's sum wraps around."""


@dataclass(frozen=True)
class NoisySum:
    """A sum over nodes, set up.

    Args:
        scale: Grid steps per unit.
        l2: Largest L2 norm of a node's integers, before noise.
        share: Variance of each node's noise, in grid steps squared.
        bits: Of the words.
        honest: How many shares every sum holds at least.
        nodes: How many it holds at most.
    """

    scale: float
    l2: float
    share: float
    bits: int
    honest: int
    nodes: int

    def std(self, nodes: int) -> float:
        """Returns the standard deviation per entry of the sum over `nodes`, in units."""
        return math.sqrt(nodes * self.share) / self.scale


def set_up(
    *, length: int, clip: float, nodes: int, honest: int, noise_multiplier: float, bits: int
) -> NoisySum:
    """Returns how the sum is carried out.

    Args:
        length: Entries of a rotated vector.
        clip: c, largest L2 norm of a node's vector.
        nodes: Most vectors in a sum.
        honest: Fewest noise shares in a sum; all noise that the guarantee needs is in them.
        noise_multiplier: Standard deviation of that noise over the norm after rounding.
        bits: A sum is read modulo 2^bits.

    Raises:
        ConfigError: The words are too short; says how many bits are enough.
    """
    need = _Need(length, nodes, honest, noise_multiplier)
    finest = max(FINE * math.sqrt(length), MIN_NORM)
    for enough in range(bits, MAX_BITS + 1):
        norm = _largest(partial(need.fits, enough), finest)
        l2 = rounded_norm(norm, length)
        if MIN_NORM <= l2 <= MOST * norm:
            break
    else:
        raise ConfigError(
            f"noise_multiplier = {noise_multiplier:g} over {honest} honest nodes of {nodes} needs "
            "shares of noise beyond what can be drawn; lower it or allow fewer dropouts"
        )
    if enough > bits:
        raise ConfigError(
            f"bits = {bits} cannot hold the sum of {nodes} nodes with noise multiplier "
            f"{noise_multiplier:g} and {length} entries; {enough} bits can"
        )
    return NoisySum(norm / clip, l2, need.share(norm), bits, honest, nodes)


@dataclass(frozen=True)
class _Need:
    """What a sum asks of its words and its sampler; arguments as of `set_up`."""

    length: int
    nodes: int
    honest: int
    noise_multiplier: float

    def share(self, norm: float) -> float:
        """Returns the variance of each node's noise at this norm before rounding, in grid steps."""
        return (self.noise_multiplier * rounded_norm(norm, self.length)) ** 2 / self.honest

    def fits(self, bits: int, norm: float) -> bool:
        """Whether sampler and words are large enough for this norm before rounding."""
        share = self.share(norm)
        spread = math.sqrt((self.nodes * norm) ** 2 / self.length + self.nodes * (0.25 + share))
        deviations = math.sqrt(2 * math.log(2 * self.length / WRAPS))
        return share <= MAX_SHARE**2 and deviations * spread < 2.0 ** (bits - 1)


def rounded_norm(norm: float, length: int) -> float:
    """Returns the largest L2 norm after conditional rounding, in grid steps.

    Args:
        norm: Largest L2 norm before rounding, in grid steps.
        length: Number of entries.

    >>> round(rounded_norm(5000.0, 1_000_000) / 5000.0, 4)
    1.0051
    """
    root = math.sqrt(length)
    slack = math.sqrt(2 * math.log(1 / BETA)) * (norm + root / 2)
    return min(norm + root, math.sqrt(norm**2 + length / 4 + slack))


def _largest(fits: Callable[[float], bool], finest: float) -> float:
    """Returns the largest norm before rounding, in grid steps, that fits; almost 0 if none does."""
    if fits(finest):
        return finest
    low, high = 0.0, finest
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low
