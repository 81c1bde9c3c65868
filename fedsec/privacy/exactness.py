"""How far noise may be from the distribution that the accountant reckons with.

Samplers invert a table of 192-bit cumulative probabilities. What is cut off in a tail and what
rounding moves is a statistical distance per draw; over all draws of a release it is added to delta.
"""

import math

SAMPLER_DISTANCE = 2.0**-160
"""Largest statistical distance per draw of any sampler in this package."""

MAX_DRAWS = 1 << 34
"""Most draws in one release: two for each entry of the largest model."""


def residue(epsilon: float) -> float:
    """Returns what the samplers' distance adds to the delta of one release, at `epsilon` <= 50.

    Two distributions that are each within a distance t of an (epsilon, delta) pair are an
    (epsilon, delta + (1 + e^epsilon) t) pair.
    """
    return MAX_DRAWS * SAMPLER_DISTANCE * (1 + math.exp(epsilon))
