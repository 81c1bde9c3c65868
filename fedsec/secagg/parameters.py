"""How many neighbours, which threshold: from what may go wrong to the parameters of a round.

    n nodes, C corrupt, D dropped out     what may go wrong, stated by the plan
    k neighbours                          a node shares pairwise masks, and shares, with each
    t threshold                           so many shares open a secret, fewer tell nothing

Up to 64 nodes everybody is everybody's neighbour and nothing is left to chance. Above, nodes sit in
a ring in random order and have k/2 neighbours on each side; the smallest even k is taken for which
each of these fails with a probability below the bound stated:

    connected   the honest survivors form one piece        2^-(security_bits + 1)
    private     no node has t or more corrupt neighbours   2^-(security_bits + 1)
    correct     every node has t or more live neighbours   2^-correctness_bits

Probabilities are ratios of integers and are compared as such, so that every node and the
coordinator come to the same answer on any machine.

Source: Bell, Bonawitz, Gascon, Lepoint, Raykova, "Secure Single-Server Aggregation with
(Poly)Logarithmic Overhead", CCS 2020, section 3; the rules for few nodes are fedsec's own, see
docs/spec/secagg-graph.md.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import StrEnum
from fractions import Fraction
from functools import lru_cache
from math import ceil, comb, floor

from fedsec.errors import ConfigError, PolicyRefusal

COMPLETE_UP_TO = 64
"""So many nodes are each other's neighbours all; above, the graph is a random ring."""
LEAST_HONEST = 3
"""A sum tells of fewer honest nodes than this more than it should."""
MOST_NODES = 100_000


class Mode(StrEnum):
    """Against which coordinator a round is safe."""

    SEMI_HONEST = "semi-honest"
    MALICIOUS = "malicious"

    @property
    def security_bits(self) -> int:
        """Bits of security against chance, of one sum. A malicious coordinator may begin 2^40."""
        return 80 if self is Mode.MALICIOUS else 40

    def covers(self, asked: "Mode") -> bool:
        """True where this mode protects against all that `asked` does."""
        return self is Mode.MALICIOUS or asked is Mode.SEMI_HONEST


@dataclass(frozen=True, slots=True)
class Assumptions:
    """What may go wrong in a round, and how surely it must be withstood.

    Args:
        mode: Which coordinator.
        corrupt: Share of the nodes that may collude with it and with each other, in [0, 1).
        dropout: Share of the nodes that may leave after the first stage, in [0, 1).
        security_bits: -log2 of the chance that an input is not protected; the mode's if left out.
        correctness_bits: -log2 of the chance that a sum is lost although few enough dropped out.
        draws: How often the ring may be drawn anew for one sum, >= 1; who sees each may choose.
            Those of a reveal come on top.
        least_corrupt: Nodes that may collude however few there are, >= 1.

    Raises:
        ConfigError: A value is out of range.
    """

    mode: Mode
    corrupt: Fraction = Fraction(1, 10)
    dropout: Fraction = Fraction(1, 10)
    security_bits: int = 0
    correctness_bits: int = 30
    draws: int = 1
    least_corrupt: int = 1

    def __post_init__(self) -> None:
        for name in ("corrupt", "dropout"):
            value = getattr(self, name)
            if not 0 <= value < 1:
                raise ConfigError(f"{name} must be in [0, 1), got {value}")
        for name in ("correctness_bits", "draws", "least_corrupt"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be >= 1, got {getattr(self, name)}")
        if self.security_bits == 0:
            object.__setattr__(self, "security_bits", self.mode.security_bits)
        if self.security_bits < 1:
            raise ConfigError(f"security_bits must be >= 1, got {self.security_bits}")

    def drawn_after_reveal(self, nodes: int, lost: int) -> "Assumptions":
        """Returns them with the draws counted that are left once all nonces are known.

        A lying coordinator then leaves out whom it likes, and can look at the graph of each choice
        beforehand: there are C(nodes + lost, lost). Half of the chance of failure is for none lost,
        a quarter for one, and so on. In semi-honest mode there is no reveal.

        Args:
            nodes: n, members whose nonces are known.
            lost: Nodes that were shown to the others as members, and are left out since.
        """
        if self.mode is not Mode.MALICIOUS:
            return self
        return replace(self, draws=self.draws * comb(nodes + lost, lost) << lost + 1)

    def corrupt_of(self, nodes: int) -> int:
        """Returns C, how many of `nodes` may be corrupt: never none."""
        return max(self.least_corrupt, ceil(self.corrupt * nodes))

    def dropouts_of(self, nodes: int) -> int:
        """Returns D, how many of `nodes` may drop out."""
        return floor(self.dropout * nodes)


@dataclass(frozen=True, slots=True)
class Parameters:
    """Of one round.

    Args:
        nodes: n, nodes whose keys are on the round's roster.
        neighbours: k, of each node; n - 1 in the complete graph.
        threshold: t, shares that open a secret.
        corrupt: C, colluding nodes that are withstood.
        dropouts: Nodes that may leave after the roster stands, the sum still coming about.
    """

    nodes: int
    neighbours: int
    threshold: int
    corrupt: int
    dropouts: int

    @property
    def complete(self) -> bool:
        """Whether all are neighbours. Then each node keeps a share of its own secret as well."""
        return self.neighbours == self.nodes - 1

    @property
    def least(self) -> int:
        """With fewer nodes left than this no sum may be opened."""
        return self.nodes - self.dropouts


@dataclass(frozen=True, slots=True)
class Minima:
    """What a site asks of a round beyond the plan: it takes part in no other.

    Args:
        cohort: Least nodes of a round.
        neighbours: Least k.
        threshold: Least t.
        group: Least nodes of a group, where each has a sum of its own: as drawn, and whenever a sum
            begins.
        attempts: Most attempts at a round, each of which may end in a sum; 0 sets no limit.
    """

    cohort: int = 1
    neighbours: int = 0
    threshold: int = 0
    group: int = 1
    attempts: int = 0

    def check_attempts(self, attempts: int) -> None:
        """Returns when a plan allows no more attempts at a round than the site does.

        Raises:
            PolicyRefusal: It allows more.
        """
        if self.attempts and attempts > self.attempts:
            raise PolicyRefusal(
                f"round.attempts = {attempts} is more than this node's "
                f"policy.max_attempts = {self.attempts}"
            )

    def check_cohort(self, nodes: int) -> None:
        """Returns when a round has as many nodes as the site wants.

        Raises:
            PolicyRefusal: It has not.
        """
        _check(self.cohort, nodes, "nodes", "min_cohort")

    def check_group(self, nodes: int) -> None:
        """Returns when a group has as many nodes as the site wants.

        Raises:
            PolicyRefusal: It has not.
        """
        _check(self.group, nodes, "nodes in a group", "min_group")

    def check(self, parameters: Parameters, *, group: bool = False) -> None:
        """Returns when a sum is of as many nodes and shares as the site wants.

        Args:
            parameters: Of the sum.
            group: Whether it is a group's; who is left out of it does not hide anybody.

        Raises:
            PolicyRefusal: It is not; says which.
        """
        (self.check_group if group else self.check_cohort)(parameters.nodes)
        for asked, got, what, key in (
            (self.neighbours, parameters.neighbours, "neighbours", "min_neighbours"),
            (self.threshold, parameters.threshold, "shares that open a secret", "min_threshold"),
        ):
            _check(asked, got, what, key)


def _check(asked: int, got: int, what: str, key: str) -> None:
    if got < asked:
        raise PolicyRefusal(f"{got} {what}, less than this node's policy.{key} = {asked}")


@dataclass(frozen=True, slots=True)
class Ring:
    """The smallest ring that holds.

    Args:
        neighbours: k, even.
        lowest: The lowest threshold that is private.
        highest: The highest threshold that is correct.
    """

    neighbours: int
    lowest: int
    highest: int


@lru_cache(maxsize=256)
def choose(nodes: int, assumptions: Assumptions, lost: int = 0) -> Parameters:
    """Returns the parameters of a round of `nodes`.

    Of the thresholds that hold the highest is taken: what chance leaves over goes to privacy.
    Takes milliseconds up to 1,000 nodes, about a second at 100,000; the answer is kept.

    Args:
        nodes: n, members.
        assumptions: What may go wrong.
        lost: Nodes that were lost when nonces were revealed; see `Assumptions.drawn_after_reveal`.

    Raises:
        ConfigError: None holds; the sentence names the nearest assumptions that can be met.

    >>> choose(10, Assumptions(Mode.SEMI_HONEST))
    Parameters(nodes=10, neighbours=9, threshold=7, corrupt=1, dropouts=3)
    >>> choose(100, Assumptions(Mode.SEMI_HONEST))
    Parameters(nodes=100, neighbours=22, threshold=12, corrupt=10, dropouts=10)
    """
    if not 1 <= nodes <= MOST_NODES:
        raise ConfigError(f"nodes must be in 1..{MOST_NODES}, got {nodes}")
    corrupt, dropouts = assumptions.corrupt_of(nodes), assumptions.dropouts_of(nodes)
    counted = assumptions.drawn_after_reveal(nodes, lost)
    found = _choose(nodes, corrupt, dropouts, counted)
    if found is None:
        raise ConfigError(_why_not(nodes, corrupt, dropouts, counted))
    return found


def smallest_ring(nodes: int, corrupt: int, dropouts: int, assumptions: Assumptions) -> Ring | None:
    """Returns the ring of the smallest even k in 2..n-2 that holds; None where none does.

    Args:
        nodes: n, >= 1.
        corrupt: C.
        dropouts: D.
        assumptions: Mode, bits and draws; its shares are not read.
    """
    for neighbours in range(2, nodes - 1, 2):
        if not _is_connected(nodes, neighbours, corrupt + dropouts, assumptions):
            continue
        lowest = _lowest_private(nodes, neighbours, corrupt, assumptions)
        highest = _highest_correct(nodes, neighbours, dropouts, assumptions)
        if lowest <= highest:
            return Ring(neighbours, lowest, highest)
    return None


def _choose(nodes: int, corrupt: int, dropouts: int, assumptions: Assumptions) -> Parameters | None:
    most_dropouts = nodes - corrupt - LEAST_HONEST
    if dropouts > most_dropouts:
        return None
    majority = (nodes + corrupt) // 2 + 1  # so many of either share cannot both be found
    if nodes <= COMPLETE_UP_TO:
        threshold = max(2 * nodes // 3 + 1, majority)
        allowed = min(nodes - threshold, most_dropouts)
        if dropouts > allowed:
            return None
        return Parameters(nodes, nodes - 1, threshold, corrupt, allowed)
    ring = smallest_ring(nodes, corrupt, dropouts, assumptions)
    if ring is not None:
        return Parameters(nodes, ring.neighbours, ring.highest, corrupt, dropouts)
    lowest = majority if assumptions.mode is Mode.MALICIOUS else corrupt + 1
    if lowest > nodes - dropouts:
        return None
    return Parameters(nodes, nodes - 1, nodes - dropouts, corrupt, dropouts)


def _is_connected(nodes: int, neighbours: int, bad: int, assumptions: Assumptions) -> bool:
    """Whether two runs of k/2 bad nodes that cut the ring are unlikely enough."""
    pairs = nodes * (nodes - neighbours - 1)  # twice as many as there are
    chance = pairs * comb(bad, neighbours) * assumptions.draws << assumptions.security_bits
    return chance <= comb(nodes, neighbours)


def _lowest_private(nodes: int, neighbours: int, corrupt: int, assumptions: Assumptions) -> int:
    """Returns the least t, 2 or more, that corrupt neighbours cannot turn against a node."""
    bits = assumptions.security_bits + 1
    rare = _rare(nodes, corrupt, neighbours, times=nodes * assumptions.draws << bits)
    if assumptions.mode is Mode.MALICIOUS:  # t shares of either kind must not both be found
        return max(2, (neighbours + rare - 1) // 2 + 1)
    return max(2, rare)


def _highest_correct(nodes: int, neighbours: int, dropouts: int, assumptions: Assumptions) -> int:
    """Returns the largest t that the live neighbours of every node reach."""
    times = nodes << assumptions.correctness_bits
    return neighbours - _rare(nodes, dropouts, neighbours, times=times) + 1


def _rare(nodes: int, marked: int, drawn: int, *, times: int) -> int:
    """Returns the least a with times * P[a or more marked] <= 1, `drawn` taken from `nodes`.

    The number of marked nodes among the drawn is hypergeometric.
    """
    top, rest = min(drawn, marked), nodes - marked
    ways, limit = 0, comb(nodes, drawn) // times
    term = comb(marked, top) * comb(rest, drawn - top)
    for many in range(top, -1, -1):
        ways += term
        if ways > limit:
            return many + 1
        term = term * many * (rest - drawn + many) // ((marked - many + 1) * (drawn - many + 1))
    return 0


def _why_not(nodes: int, corrupt: int, dropouts: int, assumptions: Assumptions) -> str:
    """Returns a sentence on what cannot be met, and on what nearest to it can."""

    def holds(nodes: int, corrupt: int, dropouts: int) -> bool:
        return _choose(nodes, corrupt, dropouts, assumptions) is not None

    ways = []
    fewer = _largest(dropouts, lambda some: holds(nodes, corrupt, some))
    if fewer is not None:
        ways.append(f"dropout = {_decimal(fewer, nodes, ceil)}")
    fewer = _largest(corrupt, lambda some: some < 1 or holds(nodes, some, dropouts))
    if fewer:
        ways.append(f"corrupt = {_decimal(fewer, nodes, floor)}")
    for more in range(nodes + 1, COMPLETE_UP_TO + 1):
        if holds(more, assumptions.corrupt_of(more), assumptions.dropouts_of(more)):
            ways.append(f"{more} nodes")
            break
    return (
        f"secure aggregation among {nodes} nodes in {assumptions.mode} mode cannot withstand "
        f"{corrupt} corrupt and {dropouts} that drop out so that {LEAST_HONEST} honest are left; "
        f"it can with {', or with '.join(ways) or 'neither fewer of one nor of the other'}"
    )


def _largest(below: int, holds: Callable[[int], bool]) -> int | None:
    """Returns the largest number in 0..below-1 that holds, where smaller ones hold too."""
    low, high = -1, below
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if holds(middle) else (low, middle)
    return low if low >= 0 else None


def _decimal(part: int, nodes: int, rounding: Callable[[Fraction], int]) -> str:
    """Returns the shortest decimal less than 1/nodes away from part/nodes on the one side."""
    exact = Fraction(part, nodes)
    for scale in (10, 100, 1_000, 10_000, 100_000):
        rounded = Fraction(rounding(exact * scale), scale)
        if abs(rounded - exact) * nodes < 1:
            return f"{float(rounded):g}"
    return f"{float(exact):g}"
