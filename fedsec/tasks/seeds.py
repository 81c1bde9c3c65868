"""Randomness by purpose: the same numbers for the same seed, whatever ran before.

For training and simulation only; nothing here is fit for noise that protects somebody.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch


def derive(*words: int) -> int:
    """Returns 63 bits that follow from `words` (each >= 0); different words, unrelated bits."""
    state = np.random.SeedSequence(words).generate_state(1, np.uint64)
    return int(state[0]) >> 1


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seeds torch's global generator inside the block and puts it back as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield
