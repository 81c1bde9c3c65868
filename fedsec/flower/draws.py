"""Who takes part in a round: a share of those who are ready, drawn openly, or each in secret.

Source of the secret draw: Abadi et al., "Deep Learning with Differential Privacy", CCS 2016,
section 3 (Poisson sampling).
"""

import hashlib
import hmac
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol


class Draw(Protocol):
    """Draws the cohort of an attempt."""

    def __call__(self, ready: Sequence[int], round_number: int, attempt: int) -> list[int]:
        """Returns ids of nodes, ascending; a subset of `ready`.

        Args:
            ready: Ids of the nodes that can be asked now.
            round_number: From 1.
            attempt: From 1.
        """
        ...


@dataclass(frozen=True)
class Ranked:
    """A random set of the plan's size, from a public seed.

    Every node has a random rank that depends on seed, round, attempt and its id alone, so that who
    else is ready changes nothing between two nodes.

    Args:
        seed: Of the plan.
        size: From how many are ready to how many are drawn.
    """

    seed: int
    size: Callable[[int], int]

    def __call__(self, ready: Sequence[int], round_number: int, attempt: int) -> list[int]:
        """See `Draw`."""

        def rank(node: int) -> bytes:
            words = f"cohort {self.seed} {round_number} {attempt} {node}"
            return hashlib.sha256(words.encode()).digest()

        return sorted(sorted(ready, key=rank)[: self.size(len(ready))])


@dataclass(frozen=True)
class Poisson:
    """Each node by itself, with the same probability; maybe none. Who was drawn is a secret.

    A repeated round keeps its draw: the attempt does not matter. Drawn anew, the draw of a round
    that comes about would tell more than the accountant reckons with. Of more nodes than
    `population` the same ones are left out in every round: sums are divided by a public number.

    Args:
        rate: Probability, in (0, 1).
        population: How many nodes can be drawn.
        key: 32 bytes that nobody else knows; from the operating system, except in simulations.
    """

    rate: float
    population: int
    key: bytes = field(default_factory=lambda: os.urandom(32), repr=False)

    def __call__(self, ready: Sequence[int], round_number: int, attempt: int) -> list[int]:
        """See `Draw`."""
        del attempt
        members = sorted(ready, key=lambda node: self._word(f"member {node}"))[: self.population]
        below = int(self.rate * 2.0**64)
        return sorted(n for n in members if self._word(f"draw {round_number} {n}") < below)

    def _word(self, about: str) -> int:
        """Returns 64 bits that only this key gives."""
        return int.from_bytes(hmac.digest(self.key, about.encode(), "sha256")[:8], "big")
