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

from collections.abc import Collection
from fractions import Fraction
from math import comb

from fedsec.errors import ConfigError
from fedsec.secagg.codec import label
from fedsec.secagg.shuffle import shuffled

LEAST_SIZE = 4
"""Nodes of the smallest group: three honest ones and one that is not; none of them may leave."""

_GROUPS = label("groups")


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
    total = Fraction(0)
    sizes = group_sizes(nodes, size)
    for drawn in set(sizes):
        ways = sum(
            comb(corrupt, many) * comb(nodes - corrupt, drawn - many)
            for many in range(most + 1, min(drawn, corrupt) + 1)
        )
        total += sizes.count(drawn) * Fraction(ways, comb(nodes, drawn))
    return min(1.0, float(draws * total))
