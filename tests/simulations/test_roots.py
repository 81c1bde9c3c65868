"""A simulated coordinator with clean data of its own."""

from dataclasses import replace

import numpy as np
import pytest

from fedsec.errors import ConfigError
from fedsec.flower.collection import Attempt
from fedsec.flower.messages import instruction
from fedsec.flower.root import RootTraining
from fedsec.plan import FederationPlan
from fedsec.tasks.arrays import get_arrays
from fedsec.tasks.digits import Digits
from fedsec.vectors import Vector
from fedsec_sim.attacks.table import make_attack, make_poison
from fedsec_sim.lab import Lab
from fedsec_sim.partitions import Iid
from fedsec_sim.roots import DRAWN, root_examples
from fedsec_sim.simulate import simulate
from fedsec_sim.threats import Threat

PLAN = """\
schema = 1
name = "roots"
[task]
name = "digits"
options = { model = "mlp" }
[training]
rounds = 6
local_epochs = 3
learning_rate = 0.1
momentum = 0.9
[nodes]
min_available = 10
"""
FLTRUST = PLAN + '[robust]\nrule = "fltrust"\nbyzantine = 4\nroot = "clean"\n'
MOST = Threat(6, make_attack("sign-flip", {"scale": 4.0}))


def test_clean_data_of_the_coordinators_withstand_a_hostile_majority() -> None:
    lab = Lab(split=Iid(), threat=MOST)
    assert simulate(PLAN, lab, workers=1).accuracy < 0.3
    assert simulate(FLTRUST, lab, workers=1).accuracy > 0.75


def test_root_data_are_drawn_from_examples_that_nobody_poisoned() -> None:
    task, plan = Digits(), FederationPlan.parse(FLTRUST)
    poison = Threat(9, poison=make_poison("label-flip", {}))
    clean = Lab(split=Iid()).populate(plan, task)
    drawn = root_examples(task, clean, {}, 1)
    assert len(drawn) == DRAWN
    pool = clean.train.pool
    labels = {x.numpy().tobytes(): int(y) for x, y in zip(pool.inputs, pool.targets, strict=True)}
    pairs = zip(drawn.inputs, drawn.targets, strict=True)
    assert all(labels[x.numpy().tobytes()] == int(y) for x, y in pairs)
    trusted, poisoned = (
        lab.root_update(plan, task) for lab in (Lab(split=Iid()), Lab(split=Iid(), threat=poison))
    )
    assert trusted is not None
    assert poisoned is not None
    assert np.array_equal(trusted(attempt(task)), poisoned(attempt(task)))


def test_root_data_may_be_read_as_a_coordinator_does() -> None:
    lab = Lab(split=Iid(), root={"partition": 3, "partitions": 20})
    history = simulate(FLTRUST, lab, workers=1)
    assert history.about["root.partitions"] == "20"
    assert history.accuracy > 0.5
    with pytest.raises(ConfigError, match="the root data: partition = 3: allowed"):
        simulate(FLTRUST, replace(lab, root={"partition": 3, "partitions": 2}), workers=1)
    with pytest.raises(ConfigError, match="root data are given, but the plan has no"):
        simulate(PLAN, lab, workers=1)


def attempt(task: Digits, number: int = 1) -> Attempt:
    arrays = get_arrays(task.make_model({"model": "mlp"}, 1))
    return Attempt(1, number, (), instruction(arrays, round_number=1, attempt=number, plan="x"))


def test_who_tries_the_rule_out_costs_no_further_training(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    train = RootTraining.__call__

    def counted(self: RootTraining, asked: Attempt) -> Vector:
        calls.append((asked.round, asked.number))
        return train(self, asked)

    monkeypatch.setattr(RootTraining, "__call__", counted)
    threat = Threat(3, make_attack("optimised-ipm", {"evaluations": 4}))
    simulate(FLTRUST, Lab(split=Iid(), threat=threat), workers=1)
    assert calls == [(number, 1) for number in range(1, 7)]


def test_a_real_coordinator_in_a_simulation_has_no_root_data() -> None:
    with pytest.raises(ConfigError, match='"network" gives its coordinator no robust'):
        simulate(FLTRUST, engine="network")
