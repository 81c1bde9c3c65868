"""Who sums with whom, where the nodes of a run are split into groups with a sum each.

    n nodes, size g     floor(n / g) groups, as equal as can be: of g and g + 1 nodes where n allows
    seed                drawn by all nodes together, so that nobody chose who is with whom

Sums of groups are fewer things to compare than updates, and more than one sum: robust rules work on
them, and a node hides among those of its group. One hostile node spoils the sum of its group.

Source: He, Karimireddy, Jaggi, "Byzantine-Robust Learning on Heterogeneous Datasets via Bucketing",
ICLR 2022 (means of buckets); Velicheti, Xia, Koyejo, "Secure Byzantine-Robust Distributed Learning
via Clustering", 2021, arXiv 2110.02940 (the buckets summed in secret). Specification:
docs/spec/secagg-groups.md.
"""

from collections.abc import Callable, Collection
from fractions import Fraction
from math import comb

from fedsec.errors import ConfigError
from fedsec.secagg.codec import label
from fedsec.secagg.shuffle import shuffled

LEAST_SIZE = 4
"""Nodes of the smallest group: three honest ones and one that is not; none of them may leave."""

_GROUPS = label("groups")
_BY_ITSELF = 1000  # nodes; beyond, bounds are near enough that blocks of numbers have one


def group_sizes(nodes: int, size: int) -> tuple[int, ...]:
    """Returns how many nodes each group has: `size` or more, no two groups differing by over one.

    They are `size` and `size` + 1 wherever so many nodes can be split into such; always for
    `size` (`size` - 1) nodes or more.

    Args:
        nodes: n.
        size: g, of the smallest group.

    Raises:
        ConfigError: `size` is less than 4, or the nodes make less than two groups.

    >>> group_sizes(27, 5)
    (6, 6, 5, 5, 5)
    """
    if size < LEAST_SIZE:
        raise ConfigError(f"a group must have {LEAST_SIZE} nodes or more, got {size}")
    if nodes < 2 * size:
        raise ConfigError(
            f"{nodes} nodes make less than two groups of {size}; at least {2 * size} are needed"
        )
    groups = nodes // size
    least, larger = divmod(nodes, groups)
    return (least + 1,) * larger + (least,) * (groups - larger)


def draw_groups(nodes: Collection[int], size: int, seed: bytes) -> tuple[tuple[int, ...], ...]:
    """Returns the ids of the nodes of each group, ascending; every split is alike likely.

    Args:
        nodes: Ids of all nodes, in any order, each once.
        size: g, of the smallest group.
        seed: 32 bytes that nobody could choose.

    Raises:
        ConfigError: See `group_sizes`; the seed has another length; an id stands there twice.

    >>> draw_groups(range(100, 109), 4, bytes(32))
    ((100, 101, 105, 106, 107), (102, 103, 104, 108))
    """
    ids = sorted(set(nodes))
    if len(ids) != len(nodes):
        raise ConfigError("a node is to be in two places: its id stands there twice")
    sizes = group_sizes(len(ids), size)
    order = iter(shuffled(len(ids), _GROUPS, seed))
    return tuple(tuple(sorted(ids[next(order)] for _ in range(many))) for many in sizes)


def crowding(nodes: int, corrupt: int, size: int, most: int, draws: int = 1) -> float:
    """Returns a bound on the probability that some group has more than `most` corrupt nodes.

    The sum over all groups, so never below the truth; over all draws, since whoever sees one may
    have it repeated.

    Args:
        nodes: n.
        corrupt: C, how many of them are corrupt.
        size: g, of the smallest group.
        most: Corrupt nodes that a group withstands.
        draws: How often groups may be drawn before some stand, >= 1.

    Raises:
        ConfigError: See `group_sizes`.

    >>> round(crowding(1000, 20, 10, 3), 4)
    0.0023
    """
    sizes = group_sizes(nodes, size)
    total = sum(sizes.count(drawn) * _more(nodes, corrupt, drawn, most) for drawn in set(sizes))
    return min(1.0, float(draws * total))


def largest_group(fewest: int, size: int) -> int:
    """Returns how many nodes a group has at most, of however many nodes from `fewest` on.

    Of the nodes that make k groups, the most make the largest; more groups have less over.

    Args:
        fewest: n, at least two groups' worth.
        size: g, of the smallest group.

    >>> largest_group(11, 5)
    7
    """
    groups = fewest // size
    most = min(size * (groups + 1), size * (size - 1)) - 1
    return max(size + 1, -(-most // groups))


def most_crowding(
    nodes: tuple[int, int], corrupt_of: Callable[[int], int], size: int, most: int, draws: int = 1
) -> float:
    """Returns a bound on `crowding` that holds for however many nodes are split of a range.

    It need not be largest at either end: of 10 nodes one may be corrupt, of 11 two. Up to 1000 each
    number is reckoned by itself; above they come in blocks of a 100th, each with the fewest nodes
    to draw from, the most corrupt ones, and the most and largest groups of the block.

    Args:
        nodes: The fewest and the most.
        corrupt_of: From n to C; never falls.
        size: g, of the smallest group.
        most: Corrupt nodes that a group withstands.
        draws: How often groups may be drawn before some stand, >= 1.

    Raises:
        ConfigError: See `group_sizes`.

    >>> round(most_crowding((10, 20), lambda n: (n + 9) // 10, 5, 1), 4)
    0.4615
    """
    low, high = nodes
    found = 0.0
    while low <= high and found < 1.0:
        end = min(high, low + low // 100) if low > _BY_ITSELF else low
        if end == low:
            found = max(found, crowding(low, corrupt_of(low), size, most, draws))
        else:
            largest = max(-(-many // (many // size)) for many in range(low, end + 1))
            one = _more(low, min(low, corrupt_of(end)), largest, most)
            found = max(found, float(draws * (end // size) * one))
        low = end + 1
    return min(1.0, found)


def _more(nodes: int, corrupt: int, drawn: int, most: int) -> Fraction:
    """Returns the probability that more than `most` of `drawn` nodes are corrupt."""
    top, rest = min(drawn, corrupt), nodes - corrupt
    ways, term = 0, comb(corrupt, top) * comb(rest, drawn - top)
    for many in range(top, most, -1):
        ways += term
        term = term * many * (rest - drawn + many) // ((corrupt - many + 1) * (drawn - many + 1))
    return Fraction(ways, comb(nodes, drawn))
