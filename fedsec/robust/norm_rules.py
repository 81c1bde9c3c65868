"""Rules that look at how long the updates are, and at how they lie to a vector one trusts.

Sources: Karimireddy, He, Jaggi, "Learning from History for Byzantine Robust Optimization", ICML
2021, algorithm 2 (centred clipping). Gupta, Liu, Vaidya, "Byzantine Fault-Tolerant Distributed
Machine Learning using Norm-Based Comparative Gradient Elimination", DSN-W 2021, section 3 (CGE).
Cao, Fang, Liu, Gong, "FLTrust: Byzantine-robust Federated Learning via Trust Bootstrapping", NDSS
2021, algorithm 2.
"""

from dataclasses import dataclass

from fedsec.robust.faults import at_least, check_minority, need, positive
from fedsec.robust.rule import Adjacency, TolerantRule, row_change


@dataclass(frozen=True)
class CenteredClipping(TolerantRule):
    """Steps `iterations` times by the mean of the differences to where it stands, clipped.

    Starts at `reference`, e.g. the last aggregate, or at the origin: the state goes in explicitly
    and the result is the next one. Withstands f up to about n/10. Time O(n d) for one step from
    the origin, else O(n^2 d); memory O(n^2).

    Args:
        byzantine: f; only counts unusable rows against it.
        radius: tau, the longest step a row can ask for, > 0, in the unit of the updates.
        iterations: L, steps, >= 1.
    """

    radius: float
    iterations: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        positive("radius", self.radius)
        at_least("iterations", self.iterations, 1)

    def check(self, n: int) -> None:
        """Needs n >= 2f+1."""
        check_minority("centred clipping", n, self.f(n))

    def lipschitz(self, n: int) -> float:
        """L/n: clipping does not expand, and a step does not expand in where it starts."""
        return self.iterations / n

    def sensitivity(self, clip: float, n: int, adjacency: Adjacency) -> float:
        """L min(2 tau, change of the row)/n; holds for a public start."""
        self.check(n)
        return self.iterations * min(2 * self.radius, row_change(clip, adjacency)) / n


@dataclass(frozen=True)
class Cge(TolerantRule):
    """Averages the n-f shortest updates (comparative gradient elimination).

    Withstands f < n/2 rows that are too long; a hostile row of ordinary length passes.
    Time O(n d), memory O(n).
    """

    def check(self, n: int) -> None:
        """Needs n >= 2f+1."""
        check_minority("cge", n, self.f(n))


@dataclass(frozen=True)
class FlTrust(TolerantRule):
    """Weighs each update by its cosine to `reference`, cut at 0, and gives all of them its length.

    `reference` is the update that the coordinator computes on clean root data of its own.
    Withstands any number of hostile rows as far as the root data are good; where no update points
    the reference's way the result is the zero vector. Time O(n d), memory of one block.

    Args:
        byzantine: How many unusable rows may be left out, >= 0.
    """

    def check(self, n: int) -> None:
        """Needs n >= f+1: one row that is left."""
        need("fltrust", n, self.f(n), self.f(n) + 1, "f+1")
