"""Chance in simulations: counted, not streamed, so that no draw depends on another.

A generator follows from (seed, purpose, round, number). Nothing here is fit for noise that protects
somebody: whoever knows the seed knows all.
"""

import numpy as np

ADVERSARIES, ATTACK, RULE, PARTS, SYSTEMS, NOISE, TARGETS, CODE, COHORT, GROUPS, ROOT = range(1, 12)
"""Purposes. Local training and cohorts draw as deployed nodes and coordinators do."""

_PLACE = 0x5AB  # apart from other seed sequences of the same words


def generator(seed: int, purpose: int, *numbers: int) -> np.random.Generator:
    """Returns a new generator for `purpose`; `numbers` say which round, attempt or node."""
    return np.random.default_rng(np.random.SeedSequence((_PLACE, purpose, seed, *numbers)))
