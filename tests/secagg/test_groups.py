"""Groups: everyone draws the same ones, and how likely one is to hold many corrupt nodes."""

import hashlib
import json
from fractions import Fraction
from math import ceil, comb
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedsec.errors import ConfigError
from fedsec.secagg.groups import (
    LEAST_SIZE,
    crowding,
    draw_groups,
    group_sizes,
    largest_group,
    most_crowding,
)

VECTORS = json.loads((Path(__file__).parents[1] / "vectors" / "secagg-groups.json").read_text())


def seed(number: int) -> bytes:
    return hashlib.sha256(b"a test's seed %d" % number).digest()


@pytest.mark.parametrize("vector", VECTORS["groups"])
def test_groups_of_the_vectors(vector: dict[str, object]) -> None:
    nodes, size = vector["nodes"], vector["size"]
    assert isinstance(nodes, list)
    assert isinstance(size, int)
    drawn_from = bytes.fromhex(str(vector["seed"]))
    if "error" in vector:
        with pytest.raises(ConfigError):
            draw_groups(nodes, size, drawn_from)
        return
    found = draw_groups(nodes, size, drawn_from)
    assert [list(group) for group in found] == vector["groups"]


@pytest.mark.parametrize("vector", VECTORS["crowding"])
def test_crowding_of_the_vectors(vector: dict[str, float]) -> None:
    asked = [int(vector[key]) for key in ("nodes", "corrupt", "size", "most", "draws")]
    assert crowding(*asked) == pytest.approx(vector["bound"], rel=1e-9, abs=1e-300)


@given(st.integers(LEAST_SIZE, 40), st.integers(2, 1000))
def test_sizes_are_g_and_one_more_wherever_that_is_possible(size: int, groups: int) -> None:
    for nodes in (groups * size, groups * size + 1, groups * (size + 1), groups * size + size - 1):
        sizes = group_sizes(nodes, size)
        assert sum(sizes) == nodes
        assert size <= min(sizes) <= max(sizes) <= min(sizes) + 1
        possible = any(many * size <= nodes <= many * (size + 1) for many in range(nodes))
        assert (set(sizes) <= {size, size + 1}) is possible


@given(st.integers(LEAST_SIZE, 20), st.data())
def test_the_largest_group_is_that_of_any_number_of_nodes(size: int, data: st.DataObject) -> None:
    fewest = data.draw(st.integers(2 * size, size * (size + 1)))
    enough = size * (size - 1)  # from here on groups have g and g + 1
    seen = [max(group_sizes(nodes, size)) for nodes in range(fewest, max(fewest, enough) + size)]
    assert largest_group(fewest, size) == max(size + 1, *seen)


@pytest.mark.parametrize(
    ("nodes", "size", "why"),
    [
        (9, 5, "9 nodes make less than two groups of 5; at least 10 are needed"),
        (100, 3, "a group must have 4 nodes or more, got 3"),
    ],
)
def test_too_few_nodes_and_too_small_groups_are_refused(nodes: int, size: int, why: str) -> None:
    with pytest.raises(ConfigError, match=why):
        group_sizes(nodes, size)


def test_the_order_in_which_nodes_are_named_does_not_matter() -> None:
    nodes = [31, 7, 1 << 60, 4, 19, 2, 100, 55, 8]
    assert draw_groups(nodes, 4, seed(1)) == draw_groups(sorted(nodes), 4, seed(1))
    assert draw_groups(nodes, 4, seed(1)) != draw_groups(nodes, 4, seed(2))


def exactly(nodes: int, corrupt: int, size: int, most: int) -> Fraction:
    """The probability that some group has more than `most` corrupt nodes, by counting."""
    ways = [1]  # coefficient i: splits of i corrupt nodes over the groups so far
    for many in group_sizes(nodes, size):
        longer = [0] * (len(ways) + most)
        for before, count in enumerate(ways):
            for here in range(most + 1):
                longer[before + here] += count * comb(many, here)
        ways = longer
    fine = ways[corrupt] if corrupt < len(ways) else 0
    return 1 - Fraction(fine, comb(nodes, corrupt))


@given(st.integers(4, 6), st.integers(2, 8), st.integers(0, 5), st.data())
def test_the_bound_is_never_below_the_truth_and_near_it_where_it_is_small(
    size: int, groups: int, most: int, data: st.DataObject
) -> None:
    nodes = size * groups + data.draw(st.integers(0, size - 1))
    corrupt = data.draw(st.integers(0, nodes))
    bound, truth = crowding(nodes, corrupt, size, most), exactly(nodes, corrupt, size, most)
    assert bound >= float(truth) * (1 - 1e-12)
    if bound < 0.1:
        assert float(truth) >= bound * 0.85
    assert crowding(nodes, corrupt, size, most, draws=3) == pytest.approx(min(1, 3 * bound))


@pytest.mark.parametrize(
    ("low", "high", "size", "most", "one_in"),
    [(10, 20, 5, 1, 10), (100, 700, 9, 3, 50), (900, 1300, 10, 4, 50)],
)
def test_one_bound_holds_for_however_many_nodes_come(
    low: int, high: int, size: int, most: int, one_in: int
) -> None:
    def corrupt_of(nodes: int) -> int:
        return ceil(nodes / one_in)

    worst = max(crowding(n, corrupt_of(n), size, most, 2) for n in range(low, high + 1))
    ends = max(crowding(n, corrupt_of(n), size, most, 2) for n in (low, high))
    bound = most_crowding((low, high), corrupt_of, size, most, 2)
    assert ends < worst <= bound <= 2 * worst
    assert high > 1000 or bound == worst


def test_the_bound_is_what_happens() -> None:
    nodes, corrupt, size, most, tries = 24, 4, 4, 1, 6_000
    crowded = sum(
        any(sum(node < corrupt for node in group) > most for group in groups)
        for groups in (draw_groups(range(nodes), size, seed(number)) for number in range(tries))
    )
    truth = float(exactly(nodes, corrupt, size, most))
    spread = 5 * (truth * (1 - truth) / tries) ** 0.5
    assert abs(crowded / tries - truth) < spread
    assert abs(crowded / tries - 1.1 * truth) > spread  # the test sees a tenth
