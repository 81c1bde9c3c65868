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


def training_seed(seed: int, round_number: int, node_id: int) -> int:
    """Returns the seed of a node's local training: wherever it runs, the same batches.

    Args:
        seed: The plan's ``training.seed``.
        round_number: From 1.
        node_id: Flower's, 64 bits with or without a sign.
    """
    return derive(seed, round_number, node_id % 2**64)


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seeds torch's generator of the CPU inside the block and puts it back as it was.

    `torch.manual_seed` draws the same numbers, but asks for other devices at each call, which
    takes longer than a step of a small model.
    """
    generator = torch.default_generator
    before = generator.get_state()
    generator.manual_seed(seed)
    try:
        yield
    finally:
        generator.set_state(before)
