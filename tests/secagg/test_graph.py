"""The graph of a round: the same for everybody, mutual, and each ring alike likely."""

import hashlib
import itertools
import json
import subprocess
import sys
from collections import Counter
from fractions import Fraction
from functools import cache
from pathlib import Path

import pytest
from scipy.stats import chi2

from fedsec.errors import ConfigError
from fedsec.secagg.graph import neighbours, ring
from fedsec.secagg.parameters import Assumptions, Mode, Parameters, choose

VECTORS = json.loads((Path(__file__).parents[1] / "vectors" / "secagg-graph.json").read_text())


def seed(number: int) -> bytes:
    return hashlib.sha256(b"a test's seed %d" % number).digest()


@pytest.mark.parametrize("nodes", [65, 100, 257])
def test_neighbours_are_mutual_and_k_in_number(nodes: int) -> None:
    parameters = choose(nodes, Assumptions(Mode.MALICIOUS))
    graph = neighbours(parameters, seed(1))
    for own, around in enumerate(graph):
        assert len(set(around)) == parameters.neighbours
        assert list(around) == sorted(around)
        assert own not in around
        assert all(own in graph[other] for other in around)


def test_another_seed_is_another_ring_and_a_complete_graph_knows_no_seed() -> None:
    sparse, few = choose(100, Assumptions(Mode.MALICIOUS)), choose(64, Assumptions(Mode.MALICIOUS))
    assert neighbours(sparse, seed(1)) != neighbours(sparse, seed(2))
    assert neighbours(few, seed(1)) == neighbours(few, seed(2))


def test_a_seed_of_another_length_is_refused() -> None:
    with pytest.raises(ConfigError, match="32 bytes, got 31"):
        neighbours(choose(100, Assumptions(Mode.MALICIOUS)), bytes(31))


def digest_of_all() -> str:
    """SHA-256 over parameters and graph of every number of nodes in 3..200, in both modes."""
    found = hashlib.sha256()
    for mode, nodes in itertools.product(Mode, range(3, 201)):
        try:
            parameters = choose(nodes, Assumptions(mode))
        except ConfigError as error:
            found.update(str(error).encode())
            continue
        found.update(repr((parameters, neighbours(parameters, seed(nodes)))).encode())
    return found.hexdigest()


def test_another_process_comes_to_the_same_parameters_and_graph() -> None:
    program = "from tests.secagg.test_graph import digest_of_all; print(digest_of_all())"
    root = Path(__file__).parents[2]
    other = subprocess.run(
        [sys.executable, "-c", program], cwd=root, capture_output=True, text=True, check=True
    )
    assert other.stdout.strip() == digest_of_all()


@pytest.mark.parametrize("vector", VECTORS["rings"], ids=lambda vector: f"n={vector['nodes']}")
def test_rings_of_the_vectors(vector: dict[str, object]) -> None:
    assert ring(int(str(vector["nodes"])), bytes.fromhex(str(vector["seed"]))) == vector["order"]


@pytest.mark.parametrize("vector", VECTORS["graphs"], ids=lambda vector: f"n={vector['nodes']}")
def test_graphs_of_the_vectors(vector: dict[str, object]) -> None:
    parameters = Parameters(
        int(str(vector["nodes"])), int(str(vector["neighbours"])), 2, corrupt=1, dropouts=0
    )
    graph = neighbours(parameters, bytes.fromhex(str(vector["seed"])))
    assert [list(around) for around in graph] == vector["graph"]


def test_the_parameters_of_the_vectors() -> None:
    for vector in VECTORS["parameters"]:
        corrupt, dropout = Fraction(vector["corrupt"]), Fraction(vector["dropout"])
        assumptions = Assumptions(Mode(vector["mode"]), corrupt, dropout, draws=vector["draws"])
        if "error" in vector:
            with pytest.raises(ConfigError):
                choose(vector["nodes"], assumptions, vector["lost"])
            continue
        got = choose(vector["nodes"], assumptions, vector["lost"])
        wanted = [vector[key] for key in ("neighbours", "threshold", "least")]
        assert [got.neighbours, got.threshold, got.least] == wanted


def excess(counts: Counter[tuple[int, ...]], cells: int) -> float:
    """Chi-square of `counts` against equal shares, over its bound at one false alarm in 10^6."""
    expected = counts.total() / cells
    seen = sum(count**2 for count in counts.values()) / expected - counts.total()
    return float(seen / chi2.isf(1e-6, cells - 1))


@cache
def drawn() -> Counter[tuple[int, ...]]:
    return Counter(tuple(ring(4, seed(number))) for number in range(60_000))


@pytest.mark.slow
def test_every_order_is_alike_likely() -> None:
    orders = drawn()
    assert len(orders) == 24
    assert excess(orders, 24) < 1


def test_the_test_of_orders_notices_a_tenth_more_of_half_of_them() -> None:
    orders = drawn().copy()
    for order in list(orders)[:12]:
        orders[order] = orders[order] * 11 // 10
    assert excess(orders, 24) > 1
