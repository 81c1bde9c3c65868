"""The n-f rows of least diameter, exactly.

A set of rows has diameter at most t if and only if the rest covers every edge of the graph that
joins rows farther apart than t. So the least t with a vertex cover of at most f is looked for
among the sorted distances, and a cover by bounded search: at a vertex of highest degree, either it
is in the cover or all of its neighbours are.

Source: Downey, Fellows, "Fixed-parameter tractability and completeness I", SIAM J. Comput. 24,
1995, for the bounded search tree.
"""

import numpy as np

from fedsec.robust.aggregate import Doubles


def least_diameter(distances: Doubles, f: int) -> list[int]:
    """Returns the places of n-f rows with the least possible diameter, ascending.

    Args:
        distances: Of each two rows, squared or not (n, n), symmetric, zero on the diagonal.
        f: How many rows to leave out, 0 <= f < n.
    """
    n = len(distances)
    levels = np.unique(distances)
    low, high = 0, len(levels) - 1
    best = 0
    while low <= high:  # the least level that has a cover; the highest one has the empty cover
        middle = (low + high) // 2
        cover = _cover(_graph(distances > levels[middle]), (1 << n) - 1, f)
        if cover is None:
            low = middle + 1
        else:
            best, high = cover, middle - 1
    kept = [row for row in range(n) if not best >> row & 1]
    while len(kept) > n - f:  # ties left room: drop who is farthest from the others
        sums = distances[np.ix_(kept, kept)].sum(axis=1)
        del kept[int(np.argmax(sums))]
    return kept


def _graph(edges: np.ndarray[tuple[int, ...], np.dtype[np.bool_]]) -> list[int]:
    """Returns the neighbours of each vertex as the bits of one integer."""
    packed = np.packbits(edges, axis=1, bitorder="little")
    return [int.from_bytes(row.tobytes(), "little") for row in packed]


def _cover(graph: list[int], alive: int, budget: int) -> int | None:
    """Returns a vertex cover of at most `budget` vertices among `alive`, as bits, or None."""
    taken = 0
    while True:
        degrees = [((graph[v] & alive).bit_count(), v) for v in range(len(graph)) if alive >> v & 1]
        degrees = [pair for pair in degrees if pair[0]]
        if not degrees:
            return taken
        degree, vertex = max(degrees)
        if sum(d for d, _ in degrees) > 2 * budget * degree:
            return None  # each vertex covers at most `degree` edges
        if degree <= budget and degree > 1:
            break
        # More neighbours than the budget: it must be in. A single edge: either end will do.
        taken |= 1 << vertex
        alive &= ~(1 << vertex)
        budget -= 1
    without = alive & ~(1 << vertex)
    found = _cover(graph, without, budget - 1)
    if found is not None:
        return taken | found | 1 << vertex
    neighbours = graph[vertex] & alive
    found = _cover(graph, without & ~neighbours, budget - degree)
    return None if found is None else taken | found | neighbours
