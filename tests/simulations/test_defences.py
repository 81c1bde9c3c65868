"""Privacy and secure sums in simulation: the plan's own arithmetic, the same bits every time."""

import numpy as np
import pytest

from fedsec.commands.spending import noise_of_figures
from fedsec.errors import ConfigError
from fedsec.plan import FederationPlan
from fedsec.plan.terms import terms
from fedsec.privacy.accounting import spent
from fedsec_sim.attacks.table import make_attack
from fedsec_sim.history import History
from fedsec_sim.lab import Lab
from fedsec_sim.simulate import simulate
from fedsec_sim.threats import Threat

PLAN = """\
schema = 1
name = "defended"
[task]
name = "digits"
options = { model = "mlp" }
[training]
rounds = 2
learning_rate = 0.1
[nodes]
min_available = 10
"""
PRIVACY = (
    '[privacy]\nmodel = "{}"\nclip = 1.0\nnoise_multiplier = 1.0\nepsilon = 50.0\ndelta = 1e-5\n'
)
SUM = '[secure_aggregation]\nmode = "semi-honest"\nclip = 5.0\nmax_nodes = 10\n'


def run(text: str, lab: Lab | None = None) -> History:
    return simulate(text, lab, engine="loop", workers=1)


def vector(history: History) -> np.ndarray:
    assert history.state is not None
    return history.state.vector


@pytest.mark.parametrize("model", ["central", "local"])
def test_noise_follows_from_the_seed_and_its_price_is_told(model: str) -> None:
    text = PLAN + PRIVACY.format(model)
    history, again = run(text), run(text)
    assert np.array_equal(vector(history), vector(again))
    other = run(text.replace("rounds = 2", "rounds = 2\nseed = 2"))
    assert not np.array_equal(vector(history), vector(other))
    priced = terms(FederationPlan.parse(text))
    assert history.last("epsilon") == pytest.approx(spent([priced.whole], 1e-5), rel=0.02)
    assert history.series("epsilon")[0][1] < history.last("epsilon")
    assert history.series("train_loss") == []  # withheld, as it would be


def test_central_noise_is_as_strong_as_the_plan_says() -> None:
    plain = vector(run(PLAN.replace("rounds = 2", "rounds = 1")))
    noisy = vector(run((PLAN + PRIVACY.format("central")).replace("rounds = 2", "rounds = 1")))
    # clip / n; the mean itself moves by less than a hundredth of that in an entry
    assert np.std(noisy - plain) == pytest.approx(0.1, rel=0.05)


def test_local_noise_is_on_every_update() -> None:
    plain = vector(run(PLAN.replace("rounds = 2", "rounds = 1")))
    noisy = vector(run((PLAN + PRIVACY.format("local")).replace("rounds = 2", "rounds = 1")))
    assert np.std(noisy - plain) == pytest.approx(2 / np.sqrt(10), rel=0.05)


def test_a_secure_sum_is_the_mean_to_a_grid_step() -> None:
    plain, summed = run(PLAN), run(PLAN + SUM)
    np.testing.assert_allclose(vector(summed), vector(plain), atol=1e-4)
    assert not np.array_equal(vector(summed), vector(plain))
    assert summed.rounds[0]["answered"] == plain.rounds[0]["answered"]
    assert np.array_equal(vector(summed), vector(run(PLAN + SUM)))


def test_adversaries_act_under_the_defences() -> None:
    threat = Lab(threat=Threat(2, make_attack("ipm", {"epsilon": 5.0})))
    for text in (PLAN + SUM, PLAN + PRIVACY.format("central")):
        assert not np.allclose(vector(run(text, threat)), vector(run(text)), atol=1e-3)
    tries = Lab(threat=Threat(2, make_attack("optimised-ipm")))
    with pytest.raises(ConfigError, match="cannot try a rule out under central privacy"):
        run(PLAN + PRIVACY.format("central"), tries)


def test_figures_that_the_plan_asks_for_are_told_under_noise() -> None:
    told = "metrics = { train-loss = [0, 4], num-examples = [0, 200] }\nmetrics_noise = MUCH\n"
    for model, much in (("central", 3.0), ("local", 3.0), ("distributed", 3.0)):
        text = PLAN + PRIVACY.format(model) + told.replace("MUCH", str(much))
        text += SUM.replace("clip = 5.0\n", "") if model == "distributed" else ""
        history, true = run(text), run(PLAN)
        std = noise_of_figures(FederationPlan.parse(text), len(vector(history)))
        (first, plain) = history.rounds[0]["noised"], true.rounds[0]
        assert isinstance(first, dict)
        assert 0 < abs(first["train-loss"] - plain["train_loss"]) < 6 * std["train-loss"]
        each = float(str(plain["examples"])) / 10
        assert 0 < abs(first["num-examples"] - each) < 6 * std["num-examples"]
        assert run(text).rounds[0]["noised"] == first


def test_what_is_no_business_of_rows_is_refused() -> None:
    asked = PLAN + PRIVACY.format("central") + "metrics = { accuracy = [0, 1] }\n"
    with pytest.raises(ConfigError, match=r"privacy\.metrics: accuracy is not simulated"):
        run(asked)
    threat = Lab(threat=Threat(2, make_attack("ipm", {"epsilon": 5.0})))
    with pytest.raises(ConfigError, match="attacks change updates, not figures"):
        run(asked.replace("accuracy", "train-loss"), threat)
    with pytest.raises(ConfigError, match=r'privacy\.model = "example" is not simulated'):
        run(PLAN + PRIVACY.format("example"))
