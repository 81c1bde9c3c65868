"""Neighbours and threshold: published tables, tails by enumeration, a ring thrown many times."""

import itertools
import random
import re
from fractions import Fraction
from math import comb

import pytest
from scipy.stats import hypergeom

from fedsec.errors import ConfigError, PolicyRefusal
from fedsec.secagg.graph import neighbours
from fedsec.secagg.parameters import (
    COMPLETE_UP_TO,
    Assumptions,
    Minima,
    Mode,
    Parameters,
    Ring,
    _rare,
    choose,
    smallest_ring,
)

# Rings by the method of Bell et al. section 3 at 40 and 30 bits, corrupt and dropped rounded down;
# computed apart from fedsec with the logarithms of SciPy's tails. Rows: n = 10 ... 100,000.
NODES = (10, 30, 100, 300, 1000, 3000, 10_000, 100_000)
THIRD = Fraction(1, 3)
SEMI_HONEST = {
    ("0.05", "0.05"): "2,2-2 4,2-3 12,6-7 26,14-14 34,18-19 36,20-20 38,21-21 40,22-22",
    ("0.05", "0.10"): "4,2-3 6,2-3 16,6-6 32,15-15 40,19-19 44,21-21 46,22-22 52,25-25",
    ("0.10", "0.05"): "2,2-2 6,4-5 16,11-11 32,20-20 42,25-26 46,28-28 48,29-29 52,31-31",
    ("0.10", "0.10"): "4,2-3 8,4-5 22,11-12 42,22-23 52,28-28 58,31-31 60,32-32 66,35-35",
    ("0.20", "0.10"): "4,3-3 10,7-7 32,21-22 58,36-36 76,47-47 84,51-51 90,55-55 98,59-60",
    ("0.20", "0.20"): "6,3-4 14,7-8 42,21-22 80,42-42 112,59-59 126,66-66 136,71-71 150,78-78",
    ("1/3", "0.05"): "4,4-4 12,11-11 34,29-29 64,49-49 86,64-64 96,71-71 104,77-77 114,84-84",
    ("1/3", "0.10"): "6,4-5 14,11-11 42,32-32 82,57-57 114,78-78 132,90-90 144,98-98 156,106-106",
    (
        "0.50",
        "0.10",
    ): "8,6-7 20,16-17 58,48-48 126,97-97 200,151-151 244,183-183 270,202-202 298,222-222",
}
MALICIOUS = {
    ("0.05", "0.05"): "2,2-2 4,3-3 16,11-11 42,29-29 62,43-43 68,47-47 74,51-51 80,55-55",
    ("0.05", "0.10"): "4,3-3 8,5-5 26,16-16 60,38-38 90,58-58 106,69-69 114,74-74 124,80-80",
    ("0.10", "0.05"): "2,2-2 6,5-5 22,17-17 52,38-38 76,55-55 86,62-62 94,68-68 100,72-72",
    ("0.10", "0.10"): "4,3-3 10,7-7 32,22-22 76,52-52 114,78-78 132,90-90 144,98-98 156,106-106",
    (
        "0.20",
        "0.10",
    ): "6,5-5 14,11-11 42,32-32 102,75-75 162,118-118 194,141-141 216,157-157 236,171-171",
    (
        "0.20",
        "0.20",
    ): "8,6-6 20,14-14 62,42-42 172,116-116 340,229-229 478,322-322 566,381-381 648,436-436",
    (
        "1/3",
        "0.05",
    ): "4,4-4 14,13-13 42,37-37 92,77-77 152,124-124 186,151-151 206,167-167 224,181-181",
    (
        "1/3",
        "0.10",
    ): "6,5-5 18,15-15 54,44-44 140,110-110 248,192-192 322,249-249 364,281-281 406,313-313",
}
# Few nodes: corrupt, threshold, dropouts; None is refused.
FEW = (3, 4, 5, 6, 8, 10, 16, 20, 32, 48, 64)
TENTH_OF_FEW = (None, (1, 3, 0), (1, 4, 1), (1, 5, 1), (1, 6, 2), (1, 7, 3), (2, 11, 5), (2, 14, 6), (4, 22, 10), (5, 33, 15), (7, 43, 21))  # fmt: skip
FIFTH_OF_FEW = (None, (1, 3, 0), (1, 4, 1), (2, 5, 1), (2, 6, 2), (2, 7, 3), (4, 11, 5), (4, 14, 6), (7, 22, 10), (10, 33, 15), (13, 43, 21))  # fmt: skip
THIRD_OF_FEW = (None, None, (2, 4, 0), (2, 5, 1), (3, 6, 2), (4, 8, 2), (6, 12, 4), (7, 14, 6), (11, 22, 10), (16, 33, 15), (22, 44, 20))  # fmt: skip


def rows(
    table: dict[tuple[str, str], str], mode: Mode
) -> list[tuple[Mode, Fraction, Fraction, int, Ring]]:
    found = []
    for (corrupt, dropout), cells in table.items():
        for nodes, cell in zip(NODES, cells.split(), strict=True):
            numbers = [int(number) for number in re.split("[,-]", cell)]
            found.append((mode, Fraction(corrupt), Fraction(dropout), nodes, Ring(*numbers)))
    return found


@pytest.mark.parametrize(
    ("mode", "corrupt", "dropout", "nodes", "ring"),
    rows(SEMI_HONEST, Mode.SEMI_HONEST) + rows(MALICIOUS, Mode.MALICIOUS),
)
def test_the_published_rings(
    mode: Mode, corrupt: Fraction, dropout: Fraction, nodes: int, ring: Ring
) -> None:
    assumptions = Assumptions(mode, corrupt, dropout, security_bits=40)
    assert smallest_ring(nodes, int(corrupt * nodes), int(dropout * nodes), assumptions) == ring


@pytest.mark.parametrize("mode", Mode)
@pytest.mark.parametrize(
    ("corrupt", "row"),
    [(Fraction(1, 10), TENTH_OF_FEW), (Fraction(1, 5), FIFTH_OF_FEW), (THIRD, THIRD_OF_FEW)],
)
def test_few_nodes_are_all_neighbours(
    mode: Mode, corrupt: Fraction, row: tuple[tuple[int, int, int] | None, ...]
) -> None:
    assumptions = Assumptions(mode, corrupt, dropout=Fraction(0))
    for nodes, wanted in zip(FEW, row, strict=True):
        if wanted is None:
            with pytest.raises(ConfigError, match="it can with"):
                choose(nodes, assumptions)
            continue
        got = choose(nodes, assumptions)
        assert (got.corrupt, got.threshold, got.dropouts) == wanted
        assert got.complete
        assert got.least == nodes - got.dropouts == max(got.threshold, got.corrupt + 3)


@pytest.mark.parametrize("nodes", range(4, 9))
def test_a_rare_number_of_marked_neighbours_by_counting_draws(nodes: int) -> None:
    for marked, drawn in itertools.product(range(nodes + 1), range(1, nodes)):
        draws = [
            sum(x < marked for x in draw) for draw in itertools.combinations(range(nodes), drawn)
        ]
        for times in (1, 2, 3, 7, 50, 10_000):
            chances = [
                Fraction(sum(found >= many for found in draws), len(draws))
                for many in range(drawn + 2)
            ]
            wanted = next(many for many, chance in enumerate(chances) if times * chance <= 1)
            assert _rare(nodes, marked, drawn, times=times) == wanted


@pytest.mark.parametrize(
    ("nodes", "marked", "drawn"), [(100, 10, 32), (1000, 100, 114), (30, 3, 6)]
)
@pytest.mark.parametrize("bits", [5, 20, 41])
def test_a_rare_number_of_marked_neighbours_by_scipy(
    nodes: int, marked: int, drawn: int, bits: int
) -> None:
    rare = _rare(nodes, marked, drawn, times=1 << bits)
    assert hypergeom.sf(rare - 1, nodes, marked, drawn) <= 2.0**-bits
    assert hypergeom.sf(rare - 2, nodes, marked, drawn) > 2.0**-bits


def colluding(parameters: Parameters, rng: random.Random) -> int:
    """Returns how many corrupt neighbours the worst-off node has, on a ring thrown anew."""
    graph = neighbours(parameters, rng.randbytes(32))
    corrupt = set(rng.sample(range(parameters.nodes), parameters.corrupt))
    return max(sum(other in corrupt for other in around) for around in graph)


@pytest.mark.slow
def test_a_ring_thrown_many_times_keeps_its_word_and_no_lower_threshold_does() -> None:
    bits, throws = 4, 600
    assumptions = Assumptions(Mode.SEMI_HONEST, Fraction(1, 5), Fraction(1, 20), security_bits=bits)
    ring = smallest_ring(120, 24, 6, assumptions)
    assert ring is not None
    parameters = Parameters(120, ring.neighbours, ring.lowest, corrupt=24, dropouts=6)
    rng = random.Random(5)
    worst = [colluding(parameters, rng) for _ in range(throws)]
    allowed = throws / 2 ** (bits + 1)  # 18.75; three standard deviations are 13
    assert sum(many >= ring.lowest for many in worst) <= allowed
    assert sum(many >= ring.lowest - 2 for many in worst) > allowed + 13


def test_a_malicious_coordinator_costs_security_for_every_draw() -> None:
    one = choose(100, Assumptions(Mode.MALICIOUS))
    assert Assumptions(Mode.MALICIOUS).security_bits == 80
    assert (one.neighbours, one.threshold) == (32, 22)
    many = choose(1000, Assumptions(Mode.MALICIOUS, draws=1 << 40))
    assert many == choose(1000, Assumptions(Mode.MALICIOUS, security_bits=120))
    assert many.neighbours > choose(1000, Assumptions(Mode.MALICIOUS)).neighbours


@pytest.mark.parametrize("mode", Mode)
@pytest.mark.parametrize(
    ("nodes", "corrupt", "dropout"),
    [(10, "1/10", "2/5"), (8, "1/2", "1/4"), (20, "9/10", "0"), (3, "1/10", "0"), (100, "3/10", "2/5"), (300, "1/2", "1/2"), (70, "2/5", "1/2")],
)  # fmt: skip
def test_what_a_refusal_proposes_holds(mode: Mode, nodes: int, corrupt: str, dropout: str) -> None:
    asked = Assumptions(mode, Fraction(corrupt), Fraction(dropout))
    try:
        choose(nodes, asked)
    except ConfigError as error:
        refusal = str(error)
    else:
        assert (mode, nodes) in {(Mode.SEMI_HONEST, 70), (Mode.SEMI_HONEST, 100)}
        return
    proposals = re.search("it can with (.*)", refusal)
    assert proposals
    for proposal in proposals[1].split(", or with "):
        match proposal.split():
            case ["dropout", "=", value]:
                choose(nodes, Assumptions(mode, asked.corrupt, Fraction(value)))
            case ["corrupt", "=", value]:
                choose(nodes, Assumptions(mode, Fraction(value), asked.dropout))
            case [more, "nodes"]:
                choose(int(more), asked)
            case _:
                raise AssertionError(proposal)


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ({"corrupt": Fraction(1)}, "corrupt must be in"),
        ({"dropout": Fraction(-1, 10)}, "dropout must be in"),
        ({"security_bits": -1}, "security_bits must be >= 1, got -1"),
        ({"correctness_bits": 0}, "correctness_bits must be >= 1, got 0"),
        ({"draws": 0}, "draws must be >= 1, got 0"),
    ],
)
def test_assumptions_out_of_range(given: dict[str, Fraction | int], named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        Assumptions(Mode.SEMI_HONEST, **given)  # type: ignore[arg-type]


@pytest.mark.parametrize("nodes", [0, 100_001])
def test_a_number_of_nodes_out_of_range(nodes: int) -> None:
    with pytest.raises(ConfigError, match=f"nodes must be in 1..100000, got {nodes}"):
        choose(nodes, Assumptions(Mode.SEMI_HONEST))


def test_where_no_ring_holds_all_are_neighbours() -> None:
    crowded = Assumptions(Mode.MALICIOUS, Fraction(1, 10), Fraction(9, 20))
    got = choose(66, crowded)
    assert (got.complete, got.corrupt, got.threshold, got.least) == (True, 7, 37, 37)
    with pytest.raises(ConfigError, match="in malicious mode"):
        choose(66, Assumptions(Mode.MALICIOUS, Fraction(1, 10), Fraction(1, 2)))


def test_above_the_few_a_corrupt_node_is_expected_all_the_same() -> None:
    assert choose(COMPLETE_UP_TO + 1, Assumptions(Mode.SEMI_HONEST, Fraction(0))).corrupt == 1


def test_a_mode_covers_what_is_asked() -> None:
    assert Mode.MALICIOUS.covers(Mode.SEMI_HONEST)
    assert Mode.SEMI_HONEST.covers(Mode.SEMI_HONEST)
    assert not Mode.SEMI_HONEST.covers(Mode.MALICIOUS)


@pytest.mark.parametrize(
    ("minima", "named"),
    [
        (Minima(cohort=11), "10 nodes, less than this node's policy.min_cohort = 11"),
        (Minima(neighbours=12), "9 neighbours, less than this node's policy.min_neighbours = 12"),
        (
            Minima(threshold=8),
            "7 shares that open a secret, less than this node's policy.min_threshold = 8",
        ),
    ],
)
def test_a_site_asks_for_more(minima: Minima, named: str) -> None:
    parameters = choose(10, Assumptions(Mode.SEMI_HONEST))
    Minima(cohort=10, neighbours=9, threshold=7).check(parameters)
    with pytest.raises(PolicyRefusal, match=re.escape(named)):
        minima.check(parameters)


def test_after_the_reveal_each_choice_of_whom_to_leave_out_is_a_draw() -> None:
    """The chance that any choice isolates a node, summed over all choices, is below 2^-sigma."""
    assumptions, shown = Assumptions(Mode.MALICIOUS, draws=3), 1000
    chance = Fraction(0)
    for lost in range(101):
        n = shown - lost
        found = choose(n, assumptions, lost)
        k, bad = found.neighbours, found.corrupt + found.dropouts
        cut = Fraction(n * (n - k - 1) * comb(bad, k), 2 * comb(n, k))
        surrounded = 2 * found.threshold - k  # so many corrupt ones give shares of either kind
        ways = sum(
            comb(found.corrupt, i) * comb(n - found.corrupt, k - i)
            for i in range(surrounded, k + 1)
        )
        chance += 3 * comb(shown, lost) * (cut + n * Fraction(ways, comb(n, k)))
    assert chance <= Fraction(1, 2**80)
    uncounted = choose(n, assumptions)
    assert uncounted.neighbours < found.neighbours


@pytest.mark.parametrize(("nodes", "mode"), [(64, Mode.MALICIOUS), (1000, Mode.SEMI_HONEST)])
def test_where_no_graph_is_drawn_after_a_reveal_a_loss_there_changes_nothing(
    nodes: int, mode: Mode
) -> None:
    assert choose(nodes, Assumptions(mode), 6) == choose(nodes, Assumptions(mode))
