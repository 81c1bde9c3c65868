"""The model that a site would have alone: trained on its records only, told about at the end only."""

import json

import torch
from flwr.app import Context, RecordDict

from fedsec.flower.local import LocalGrid, node_contexts
from fedsec.flower.table import local_training
from fedsec.plan import FederationPlan
from fedsec.tasks.seeds import training_seed
from fedsec.tasks.tabular import breast_cancer
from fedsec.tasks.task import evaluate
from fedsec_client.alone import Alone, alone_of
from fedsec_client.client_app import app as client_app
from fedsec_server.server_app import app as server_app

PLAN = """
schema = 1
name = "alone or together"
[task]
name = "breast-cancer"
[training]
rounds = 3
learning_rate = 0.1
[nodes]
min_available = 3
[round]
compare_alone = true
"""


def test_a_comparison_in_one_key() -> None:
    config: dict[str, bool | int | float | str] = {"fedsec-plan": PLAN, "fedsec-data": "{}"}
    settings = json.dumps({"connector": "breast-cancer"})
    config["fedsec-data"] = settings
    contexts = node_contexts(3, config)
    grid = LocalGrid(dict.fromkeys(contexts, client_app), contexts)
    server_app(grid, Context(1, 1, {}, RecordDict(), config))
    rounds = [detail for kind, detail in grid.reports if kind == "round"]
    assert not any("alone" in json.dumps(each) for each in rounds[:-1])
    last = json.loads(json.dumps(rounds[-1]))
    assert set(last["sites"]) == {"100", "101", "102"}
    for site in last["sites"].values():
        assert set(site) >= {"examples", "loss", "accuracy", "alone-loss", "alone-accuracy"}
    records = sum(site["examples"] for site in last["sites"].values())
    hits = sum(site["examples"] * site["accuracy"] for site in last["sites"].values())
    assert abs(last["pooled"]["accuracy"] - hits / records) < 1e-12

    # the lone model of one site, by hand
    plan = FederationPlan.parse(PLAN)
    task = breast_cancer()
    data = task.load({"connector": "breast-cancer", "partition": 1, "partitions": 3})
    model = task.make_model({}, 1)
    for number in (1, 2, 3):
        local_training(plan.learning[1])(task, model, data.train, training_seed(1, number, 101))
    assert last["sites"]["101"]["alone-loss"] == evaluate(task, model, data.test)["loss"]


def test_rounds_that_were_missed_are_made_up_for() -> None:
    task = breast_cancer()
    data = task.load({"connector": "breast-cancer"})
    training = FederationPlan.parse(PLAN).learning[1]
    one, two = (Alone(task, task.make_model({}, 1), training, 7) for _ in range(2))
    one.advance(1, data)
    one.advance(3, data)
    two.advance(3, data)
    two.advance(2, data)
    assert torch.equal(one.model[0].weight, two.model[0].weight)
    assert one.figures(data) == two.figures(data)


def test_each_run_and_node_has_a_lone_model_of_its_own() -> None:
    assert alone_of(PLAN, 1, 7) is alone_of(PLAN, 1, 7)
    assert alone_of(PLAN, 1, 7) is not alone_of(PLAN, 2, 7)
    assert alone_of(PLAN, 1, 7) is not alone_of(PLAN, 1, 8)
