"""Many nodes' seeds are those that each node would derive by itself, bit for bit."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedsec.tasks.seeds import training_seed
from fedsec_sim.seeds import training_seeds

NODES = st.lists(st.integers(-(2**63), 2**64 - 1), max_size=5)


@given(st.integers(0, 2**63 - 1), st.integers(0, 2**32 + 5), NODES)
def test_seeds_of_many_nodes_are_those_of_each(
    seed: int, round_number: int, ids: list[int]
) -> None:
    alone = [training_seed(seed, round_number, node_id) for node_id in ids]
    assert training_seeds(seed, round_number, ids) == alone


@pytest.mark.parametrize("seed", [0, 1, 2**32 - 1, 2**32, 2**63 - 1])
def test_seeds_at_the_edges_of_words(seed: int) -> None:
    ids = [0, 1, 2**32 - 1, 2**32, 2**63, 2**64 - 1, -1]
    assert training_seeds(seed, 1, ids) == [training_seed(seed, 1, node_id) for node_id in ids]
