"""Rules that look at the distances among the updates.

Sources: Blanchard, El Mhamdi, Guerraoui, Stainer, "Machine Learning with Adversaries: Byzantine
Tolerant Gradient Descent", NeurIPS 2017, section 4 (Krum, Multi-Krum). El Mhamdi, Guerraoui,
Rouault, "The Hidden Vulnerability of Distributed Learning in Byzantium", ICML 2018, section 4
(Bulyan) and section 3 (minimum diameter, "brute"). Pillutla, Kakade, Harchaoui, "Robust Aggregation
for Federated Learning", IEEE TSP 2022, algorithm 2 (smoothed Weiszfeld). Allouah, Guerraoui,
Stephan, "Towards Trustworthy Federated Learning with Untrusted Participants", ICML 2025,
algorithm 2 (CAF). Shejwalkar, Houmansadr, "Manipulating the Byzantine", NDSS 2021, algorithm 2
(DnC). Farhadkhani, Guerraoui, Gupta, Hoang, Pinot, Stephan, "Robust Collaborative Learning with
Linear Gradient Overhead", ICML 2023, section 3 (MoNNA).
"""

import math
from dataclasses import dataclass

from fedsec.errors import ConfigError
from fedsec.robust.faults import at_least, check_minority, need, positive
from fedsec.robust.rule import TolerantRule


@dataclass(frozen=True)
class MultiKrum(TolerantRule):
    """Averages the `keep` updates whose nearest neighbours are nearest.

    Withstands f hostile rows if n >= 2f+3. Its paper proves m <= n-f-2; m = n-f is common and has
    a proof of its own (arXiv:2602.03899). Time O(n^2 d), memory O(n^2).

    Args:
        byzantine: f.
        keep: m, rows averaged, 1..n-f. None: n-f-2. 1 is Krum.
        neighbours: How many nearest others a score sums, 1..n-1. None: n-f-2, the paper's; the
            library byzfl and others take n-f-1.

    >>> import numpy as np
    >>> rows = np.array([[1.0], [1.1], [0.9], [1.0], [900.0]])
    >>> MultiKrum(byzantine=1, keep=4)(rows).vector
    array([1.])
    """

    keep: int | None = None
    neighbours: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, value in (("keep", self.keep), ("neighbours", self.neighbours)):
            if value is not None:
                at_least(name, value, 1)

    def check(self, n: int) -> None:
        """Needs n >= 2f+3, keep <= n-f and neighbours <= n-f-1."""
        f = self.f(n)
        need("krum", n, f, 2 * f + 3, "2f+3")
        if self.keep is not None and self.keep > n - f:
            raise ConfigError(f"keep must be <= n-f = {n - f}, got {self.keep}")
        if self.neighbours is not None and self.neighbours > n - f - 1:
            raise ConfigError(f"neighbours must be <= n-f-1 = {n - f - 1}, got {self.neighbours}")


@dataclass(frozen=True)
class Krum(TolerantRule):
    """Returns the one update whose nearest neighbours are nearest.

    Withstands f hostile rows if n >= 2f+3. Time O(n^2 d), memory O(n^2).

    Args:
        byzantine: f.
        neighbours: As for `MultiKrum`.
    """

    neighbours: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.neighbours is not None:
            at_least("neighbours", self.neighbours, 1)

    def check(self, n: int) -> None:
        """Needs n >= 2f+3 and neighbours <= n-f-1."""
        MultiKrum(self.byzantine, keep=1, neighbours=self.neighbours).check(n)


@dataclass(frozen=True)
class Bulyan(TolerantRule):
    """Picks n-2f updates by Krum, one after another; then a mean around the median of the picked.

    After each pick Krum runs again on what is left, with r-f-2 neighbours for r rows left (but at
    least one). Of the picked, each coordinate averages the n-4f values nearest to their median.
    Withstands f hostile rows if n >= 4f+3. Time O(n^2 d + n^3 log n), memory O(n^2) and one block.

    As coordinates average different rows there are no weights. A row's score is how many were
    picked before it: 0..n-2f-1 for those that count, n-2f for the others.
    """

    def check(self, n: int) -> None:
        """Needs n >= 4f+3."""
        need("bulyan", n, self.f(n), 4 * self.f(n) + 3, "4f+3")


@dataclass(frozen=True)
class GeometricMedian(TolerantRule):
    """The point whose distances to the updates sum to least, by smoothed Weiszfeld steps.

    Withstands f < n/2. Time O(n^2 d) whatever the number of steps, memory O(n^2). Starts at the
    origin, which for updates is the model that was sent: no row can move it.

    Args:
        byzantine: f; only counts unusable rows against it.
        smoothing: nu, the least distance that is divided by, > 0, in the unit of the updates.
        iterations: Most steps, >= 1; fewer if no weight changes by 1e-9 of itself.

    >>> import numpy as np
    >>> GeometricMedian(byzantine=1)(np.array([[0.0], [0.1], [900.0]])).vector.round(3)
    array([0.1])
    """

    weighted = True
    smoothing: float = 1e-6
    iterations: int = 200

    def __post_init__(self) -> None:
        super().__post_init__()
        positive("smoothing", self.smoothing)
        at_least("iterations", self.iterations, 1)

    def check(self, n: int) -> None:
        """Needs n >= 2f+1."""
        check_minority("geometric median", n, self.f(n))


@dataclass(frozen=True)
class MinimumDiameter(TolerantRule):
    """Averages the n-f updates of which the two farthest apart are nearest; exact.

    Of several such sets it takes the one that a fixed search meets first, from the most central
    row, whatever the order in which rows came. Withstands f < n/2.
    Time O(n^2 d) and a vertex cover search that is exponential in f at worst: milliseconds for
    f <= 20, a third of a second at n=100, f=40. Memory O(n^2).
    """

    def check(self, n: int) -> None:
        """Needs n >= 2f+1."""
        check_minority("minimum diameter", n, self.f(n))


@dataclass(frozen=True)
class Monna(TolerantRule):
    """Averages the n-f updates nearest to a trusted one, itself among them.

    In the paper each node trusts its own. Here it is one of the rows, or `Options.reference`, an
    update of the caller's own, which then is averaged with the n-f rows nearest to it. Withstands
    f < n/2 as long as the trusted one is honest. Time O(n d), memory of one block.

    Args:
        byzantine: f.
        trusted: Which row to trust, 0..n-1; None: the reference.
    """

    trusted: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.trusted is not None:
            at_least("trusted", self.trusted, 0)

    def check(self, n: int) -> None:
        """Needs n >= 2f+1, and the trusted row if it is one of them."""
        check_minority("monna", n, self.f(n))
        if self.trusted is not None and self.trusted >= n:
            raise ConfigError(f"trusted must be one of the rows 0..{n - 1}, got {self.trusted}")


@dataclass(frozen=True)
class Caf(TolerantRule):
    """Lowers the weight of rows along the widest direction, and keeps the narrowest mean seen.

    Covariance-bound agnostic filter. The spectrum is exact and needs no chance. Withstands f < n/2.
    Time O(n^2 d + n^4), memory O(n^2).
    """

    def check(self, n: int) -> None:
        """Needs n >= 2f+1."""
        check_minority("caf", n, self.f(n))


@dataclass(frozen=True)
class Dnc(TolerantRule):
    """Drops the rows that stand out along the widest direction of some sampled coordinates.

    Divide and conquer. Draws coordinates: needs `rng` unless `sample` covers all of them.
    Withstands f < n/2 attackers that shift a common direction. Time O(iterations n^2 sample + n d).

    Args:
        byzantine: f.
        iterations: Samples drawn; a row must pass all, >= 1.
        filter_factor: c; each sample drops ceil(c f) rows, > 0.
        sample: Coordinates drawn each time, >= 1.
    """

    iterations: int = 1
    filter_factor: float = 1.0
    sample: int = 10_000

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least("iterations", self.iterations, 1)
        at_least("sample", self.sample, 1)
        positive("filter_factor", self.filter_factor)

    def drops(self, f: int) -> int:
        """Returns how many rows a sample drops."""
        return math.ceil(self.filter_factor * f)

    def check(self, n: int) -> None:
        """Needs n >= 2f+1, and a row left when each sample drops others."""
        f = self.f(n)
        check_minority("dnc", n, f)
        least = self.iterations * self.drops(f) + 1
        need("dnc", n, f, least, "iterations*ceil(c*f)+1")
