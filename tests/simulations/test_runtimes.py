"""One plan, unchanged, with a robust rule: in process, on Ray and over a network the same result.

The same to within 1e-5 of a weight: engines sum in orders of their own. Data drawn otherwise are told apart.
"""

import numpy as np
import pytest

from fedsec.errors import ConfigError
from fedsec_sim.lab import Lab
from fedsec_sim.partitions import Iid
from fedsec_sim.simulate import simulate

PLAN = """\
schema = 1
name = "everywhere"
[task]
name = "digits"
options = { model = "mlp" }
[training]
rounds = 2
local_steps = 2
learning_rate = 0.1
[nodes]
min_available = 3
[round]
reconnect_s = 30
deadline_s = 120
[robust]
rule = "trimmed-mean"
byzantine = 1
before = ["nnm"]
[model]
save_every = 0
"""
DATA = {"split": "dirichlet", "alpha": 1.0, "seed": 5}


def same_as_in_process(ids: object, vector: np.ndarray) -> None:
    assert isinstance(ids, list)
    lab = Lab(data=DATA, ids=tuple(ids))
    for engine in ("loop", "vmap"):
        here = simulate(PLAN, lab, engine=engine, workers=1)  # type: ignore[arg-type]
        assert here.state is not None
        np.testing.assert_allclose(here.state.vector, vector, rtol=1e-5, atol=1e-6)
    others = simulate(PLAN, Lab(data=DATA), engine="loop", workers=1)
    assert others.state is not None
    assert not np.allclose(others.state.vector, vector, rtol=1e-5, atol=1e-6)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_over_a_network() -> None:
    history = simulate(PLAN, Lab(data=DATA), engine="network")
    assert [row["round"] for row in history.rounds] == [1, 2]
    assert history.state is not None
    same_as_in_process(history.about["ids"], history.state.vector)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.filterwarnings("ignore")  # Ray's and Flower's own
def test_on_ray() -> None:
    pytest.importorskip("ray")
    blocks = simulate(PLAN, Lab(data=DATA), engine="ray", workers=2)
    here = simulate(PLAN, Lab(data=DATA), engine="loop", workers=1)
    assert blocks.state is not None
    assert here.state is not None
    np.testing.assert_allclose(blocks.state.vector, here.state.vector, rtol=1e-5, atol=1e-6)
    nodes = simulate(PLAN, Lab(data=DATA), engine="ray-nodes")
    assert nodes.state is not None
    same_as_in_process(nodes.about["ids"], nodes.state.vector)


@pytest.mark.parametrize("engine", ["ray-nodes", "network"])
def test_deployed_nodes_are_as_they_are(engine: str) -> None:
    with pytest.raises(ConfigError, match="runs nodes as deployed ones"):
        simulate(PLAN, Lab(split=Iid()), engine=engine)  # type: ignore[arg-type]
