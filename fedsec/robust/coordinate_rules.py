"""The mean, and rules that look at one coordinate at a time.

Sources: Yin, Chen, Ramchandran, Bartlett, "Byzantine-Robust Distributed Learning: Towards Optimal
Statistical Rates", ICML 2018, definitions 1 and 2 (median, trimmed mean). Xie, Koyejo, Gupta,
"Generalized Byzantine-tolerant SGD", arXiv:1802.10116, 2018, section 4 (mean around median).
"""

from dataclasses import dataclass

from fedsec.robust.faults import Faults, check_minority, need
from fedsec.robust.rule import Adjacency, Rule, TolerantRule


@dataclass(frozen=True)
class Mean(TolerantRule):
    """The mean, or the weighted mean. Withstands nothing: one row moves it anywhere.

    Time O(n d), memory O(d); one pass over the rows, more where one is unusable.

    Args:
        byzantine: How many unusable rows (not finite, wrong shape) may be left out, >= 0.

    >>> import numpy as np
    >>> Mean()(np.array([[1.0, 2.0], [3.0, 4.0]])).vector
    array([2., 3.])
    """

    weighted = True
    byzantine: Faults = 0

    def check(self, n: int) -> None:
        """Needs n >= f+1: one row that is left."""
        need("mean", n, self.f(n), self.f(n) + 1, "f+1")

    def lipschitz(self, n: int) -> float:
        """1/n; tight."""
        return 1 / n


@dataclass(frozen=True)
class Median(Rule):
    """The median of each coordinate; the mean of the two middle values where n is even.

    Withstands any minority, f < n/2, in each coordinate by itself. Time O(n log^2 n d), memory of
    one column block. Plain, its sensitivity is that of a single row; on bucket means it is useful.

    >>> import numpy as np
    >>> Median()(np.array([[1.0], [2.0], [900.0]])).vector
    array([2.])
    """

    @property
    def faults(self) -> Faults:
        """Any minority: as near to half of the rows as a count of them can tell."""
        return 0.5 - 1e-7

    def check(self, n: int) -> None:
        """Needs n >= 1."""
        need("median", n, 0, 1, "1")

    def lipschitz(self, n: int) -> float:
        """1 where n is odd, 1/2 where it is even; tight."""
        return 1.0 if n % 2 else 0.5

    def sensitivity(self, clip: float, n: int, adjacency: Adjacency) -> None:
        """None: one row can move the median as far as any rule can be moved."""
        del clip, n, adjacency


@dataclass(frozen=True)
class TrimmedMean(TolerantRule):
    """Leaves out the f largest and f smallest values of each coordinate and averages the rest.

    Withstands f < n/2. Time O(n log^2 n d), memory of one column block. With weights it leaves out
    the share of the f heaviest rows at either end.

    >>> import numpy as np
    >>> TrimmedMean(byzantine=1)(np.array([[1.0], [2.0], [3.0], [900.0]])).vector
    array([2.5])
    """

    weighted = True

    def check(self, n: int) -> None:
        """Needs n >= 2f+1."""
        check_minority("trimmed mean", n, self.f(n))

    def lipschitz(self, n: int) -> float:
        """1/(n-2f): with the rest fixed, a coordinate is a constant plus a clamp; tight."""
        return 1 / (n - 2 * self.f(n))


@dataclass(frozen=True)
class Meamed(TolerantRule):
    """Averages, in each coordinate, the n-f values nearest to the median (mean around median).

    Withstands f < n/2. Time O(n log^2 n d), memory of one column block. Of two values equally far
    on either side of the median the smaller is taken.

    >>> import numpy as np
    >>> Meamed(byzantine=1)(np.array([[1.0], [2.0], [3.0], [900.0]])).vector
    array([2.])
    """

    def check(self, n: int) -> None:
        """Needs n >= 2f+1."""
        check_minority("meamed", n, self.f(n))
