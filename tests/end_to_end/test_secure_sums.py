"""A secure sum over mutual TLS by real nodes: the same model as without, and no node's figures."""

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from fedsec.errors import StateError
from fedsec_sim.loopback import LoopbackFederation

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

SECONDS = 240.0
PLAN = """
schema = 1
name = "sums"
[task]
name = "digits"
options = { model = "mlp" }
[training]
rounds = 1
[nodes]
min_available = 4
[round]
evaluate_every = 0
"""
SECURE = PLAN + '[secure_aggregation]\nmode = "malicious"\nclip = 100.0\n'


def trained(federation: LoopbackFederation, plan: str) -> tuple[dict[str, np.ndarray], int]:
    """Runs a plan; returns its model and the run's id."""
    run_id = federation.submit(plan)
    federation.wait_for_run(run_id, SECONDS)
    (model,) = federation.events(run_id, "model")
    return load_file(federation.layout.run(run_id) / str(model["path"])), run_id


def test_a_secure_sum_gives_the_mean_and_no_figure_of_a_node(tmp_path: Path) -> None:
    with LoopbackFederation(tmp_path / "federation", forked=True) as federation:
        federation.add_nodes(4)
        plain, _ = trained(federation, PLAN)
        with pytest.raises(StateError, match="needs a roster that the root has signed"):
            federation.submit(SECURE)
        federation.publish_roster()
        secure, run_id = trained(federation, SECURE)
        (figures,) = federation.events(run_id, "round")
    for name, array in plain.items():
        # Four updates, each rounded to steps of 100 * 100 / 2^31; and float32 sums in any order.
        np.testing.assert_allclose(secure[name], array, atol=2e-5)
    assert len(figures["answered"]) == 4  # type: ignore[arg-type]
    assert not {"sites", "train_loss", "pooled"} & figures.keys()
