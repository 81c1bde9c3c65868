"""Who is whose neighbour in a round: everybody up to 64 nodes, above that a random ring.

Nodes are put into a random order, the ring, and each is the neighbour of the k/2 before it and the
k/2 after it. Who knows the roster and the seed can draw the ring again, so no node has to believe
what it is told about its neighbours.

Source: Bell et al., CCS 2020, section 3.1 (the graph is theirs up to its order, which they draw at
random, too). Byte form of the draw: docs/spec/secagg-graph.md.
"""

from collections.abc import Sequence

from fedsec.errors import ConfigError
from fedsec.secagg.parameters import Parameters
from fedsec.secagg.shuffle import SEED_BYTES, shuffled

_LABEL = b"fedsec-v1/secagg-ring\x00"


def neighbours(parameters: Parameters, seed: bytes) -> tuple[tuple[int, ...], ...]:
    """Returns for each node the positions of its neighbours, ascending, without its own.

    A position is a node's place, from 0, among the nodes of the round in ascending order of their
    ids. Being neighbours is mutual. Costs O(n k) time and memory.

    Args:
        parameters: Of the round.
        seed: 32 bytes that nobody could choose; not looked at where all are neighbours.

    Raises:
        ConfigError: The seed has another length.

    >>> neighbours(Parameters(4, neighbours=3, threshold=3, corrupt=1, dropouts=0), bytes(32))
    ((1, 2, 3), (0, 2, 3), (0, 1, 3), (0, 1, 2))
    """
    if len(seed) != SEED_BYTES:
        raise ConfigError(f"the seed of a ring must have {SEED_BYTES} bytes, got {len(seed)}")
    nodes = parameters.nodes
    if parameters.complete:
        return tuple(tuple(other for other in range(nodes) if other != own) for own in range(nodes))
    order = ring(nodes, seed)
    found: list[tuple[int, ...]] = [()] * nodes
    for place, position in enumerate(order):
        found[position] = around(order, place, parameters.neighbours)
    return tuple(found)


def around(order: Sequence[int], place: int, count: int) -> tuple[int, ...]:
    """Returns the neighbours, ascending, of whoever is at `place` in the ring `order`.

    Args:
        order: The ring, from any of its places.
        place: Index in it.
        count: k, even, less than the ring is long.
    """
    steps = (*range(-(count // 2), 0), *range(1, count // 2 + 1))
    return tuple(sorted(order[(place + step) % len(order)] for step in steps))


def ring(nodes: int, seed: bytes) -> list[int]:
    """Returns the positions 0..nodes-1 in the order that `seed` draws, each order alike likely."""
    return shuffled(nodes, _LABEL, seed)
