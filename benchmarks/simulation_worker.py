"""One side of `simulation.py`, in a process and an environment of its own.

Reads its work as JSON from its input and writes one line of JSON. Imports only what its side needs.
"""

import importlib.util
import json
import os
import resource
import sys
import time
import types
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import nn

CASES: dict[str, dict[str, Any]] = {
    "A": {"nodes": 100, "cohort": 20, "batch": 16, "rate": 0.1, "shape": (1, 8, 8)},
    "B": {"nodes": 1000, "cohort": 50, "batch": 20, "rate": 0.05, "shape": (1, 28, 28)},
}
B_FLOPS = 91.0e6  # multiplications and additions of a node-update of B: 60 images, both passes


def plan_text(case: str, rounds: int, rule: str = "") -> str:
    """Returns the plan of a workload."""
    given = CASES[case]
    task = (
        'name = "digits"\noptions = { model = "mlp" }'
        if case == "A"
        else 'name = "fedsec_sim.workloads.images:made_task"\ndata = "made"'
    )
    robust = f'[robust]\nrule = "{rule}"\nbyzantine = 10\n' if rule else ""
    return (
        f'schema = 1\nname = "{case}"\n[task]\n{task}\n[training]\nrounds = {rounds}\n'
        f"batch_size = {given['batch']}\nlearning_rate = {given['rate']}\n"
        f"[nodes]\nmin_available = {given['nodes']}\nfraction = "
        f"{given['cohort'] / given['nodes']}\n[round]\nevaluate_every = 0\n{robust}"
    )


def model_of(case: str) -> nn.Module:
    """Returns the model, the same on every side."""
    torch.manual_seed(1)
    if case == "A":
        return nn.Sequential(nn.Flatten(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
    pool = nn.MaxPool2d(2)
    return nn.Sequential(
        nn.Conv2d(1, 6, 5), nn.ReLU(), pool, nn.Conv2d(6, 16, 5), nn.ReLU(), pool, nn.Flatten(),
        nn.Linear(256, 120), nn.ReLU(), nn.Linear(120, 84), nn.ReLU(), nn.Linear(84, 10),
    )  # fmt: skip


def parts_of(path: str) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Returns inputs and targets of each node."""
    kept = np.load(path)
    inputs, targets = torch.from_numpy(kept["inputs"]), torch.from_numpy(kept["targets"])
    rows, starts = torch.from_numpy(kept["rows"]), kept["starts"]
    cut = [rows[begin:end] for begin, end in pairwise(starts)]
    return [(inputs[part], targets[part]) for part in cut]


class Clock:
    """Both times of each round."""

    def __init__(self, cohort: int) -> None:
        self.cohort = cohort
        self.begun = time.perf_counter()
        self.cpu, self.wall = [time.process_time()], [self.begun]

    def lap(self) -> None:
        """Ends a round."""
        self.cpu.append(time.process_time())
        self.wall.append(time.perf_counter())

    def report(self) -> str:
        """Returns the line of JSON: medians are the reader's business."""
        cpu, wall = np.diff(self.cpu)[1:], np.diff(self.wall)[1:]
        updates = self.cohort * (len(self.wall) - 1)
        return json.dumps(
            {
                "cpu": (cpu / self.cohort).tolist(),
                "rate": (self.cohort / wall).tolist(),
                "whole": updates / (self.wall[-1] - self.begun),
                "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
            }
        )


def fedsec_side(job: dict[str, Any]) -> str:
    from fedsec.plan import FederationPlan  # noqa: PLC0415 - another side's environment lacks it
    from fedsec.tasks.task import Examples  # noqa: PLC0415 - as above
    from fedsec_sim.attacks.table import make_attack  # noqa: PLC0415 - as above
    from fedsec_sim.lab import Lab  # noqa: PLC0415 - as above
    from fedsec_sim.population import Parts, Population  # noqa: PLC0415 - as above
    from fedsec_sim.simulate import simulate  # noqa: PLC0415 - as above
    from fedsec_sim.threats import Threat  # noqa: PLC0415 - as above

    options, kept = job["options"], np.load(job["data"])
    pool = Examples(torch.from_numpy(kept["inputs"]), torch.from_numpy(kept["targets"]))
    plan = FederationPlan.parse(plan_text(job["case"], job["rounds"], options.get("rule", "")))
    attack = options.get("attack")
    clock = Clock(plan.nodes.cohort(plan.nodes.min_available))
    threat = Threat(200, make_attack(attack)) if attack else None
    lab = Lab(population=Population(Parts(pool, kept["rows"], kept["starts"])), threat=threat)
    simulate(plan, lab, workers=options.get("workers"), watch=_Laps(clock))
    return clock.report()


class _Laps:
    def __init__(self, clock: Clock) -> None:
        self.clock = clock

    def begin(self, about: object) -> None:
        del about

    def round(self, row: object) -> None:
        del row
        self.clock.lap()


def scale_side(job: dict[str, Any]) -> str:
    from fedsec_sim.lab import Lab  # noqa: PLC0415 - another side's environment lacks it
    from fedsec_sim.partitions import Drawn  # noqa: PLC0415 - as above
    from fedsec_sim.simulate import simulate  # noqa: PLC0415 - as above

    nodes = job["options"]["nodes"]
    text = plan_text("A", job["rounds"]).replace("min_available = 100", f"min_available = {nodes}")
    text = text.replace("fraction = 0.2", f"fraction = {1000 / nodes}")
    clock = Clock(1000)
    simulate(text, Lab(split=Drawn(16)), workers=1, watch=_Laps(clock))
    return clock.report()


def gemm_side(job: dict[str, Any]) -> str:
    """Times products of 1024 x 1024 matrices, as seconds for the operations of a node-update."""
    del job
    torch.set_num_threads(1)
    one = torch.rand(1024, 1024)
    seconds = []
    for _ in range(8):
        begun = time.process_time()
        one @ one
        seconds.append((time.process_time() - begun) * B_FLOPS / (2 * 1024**3))
    return json.dumps({"cpu": seconds[1:], "rate": [], "whole": 0.0, "peak": 0})


def flower_side(job: dict[str, Any]) -> str:
    """Trains in Flower's engine as its examples do, model and data kept in the actor."""
    import warnings  # noqa: PLC0415 - Flower's own

    warnings.simplefilter("ignore")
    from flwr.app import ArrayRecord, Message, RecordDict  # noqa: PLC0415 - another side lacks it
    from flwr.clientapp import ClientApp  # noqa: PLC0415 - as above
    from flwr.serverapp import ServerApp  # noqa: PLC0415 - as above
    from flwr.simulation import run_simulation  # noqa: PLC0415 - as above

    case, given, path = job["case"], CASES[job["case"]], job["data"]
    client, server, kept = ClientApp(), ServerApp(), {}
    clock = Clock(given["cohort"])

    @client.train()
    def train(message: Any, context: Any) -> Any:
        import simulation_worker as own  # noqa: PLC0415 - in the actor

        model, parts = own.actor_state(case, path)
        model.load_state_dict(message.content["arrays"].to_torch_state_dict())
        own.train_plainly(model, *parts[int(context.node_config["partition-id"])], given)
        content = RecordDict({"arrays": ArrayRecord(model.state_dict())})
        return Message(content, reply_to=message)

    @server.main()
    def main(grid: Any, context: Any) -> None:
        del context
        while len(ids := sorted(grid.get_node_ids())) < given["nodes"]:
            time.sleep(0.05)
        state, rng = model_of(case).state_dict(), np.random.default_rng(1)
        for _ in range(job["rounds"]):
            asked = [ids[place] for place in rng.choice(len(ids), given["cohort"], replace=False)]
            state = flower_round(grid, asked, state)
            clock.lap()
        kept["done"] = True

    backend = {"client_resources": {"num_cpus": 1, "num_gpus": 0.0}}
    run_simulation(server, client, given["nodes"], backend_config=backend)
    assert kept.get("done"), "Flower ended early"
    return clock.report()


def flower_round(grid: Any, nodes: list[int], state: dict[str, Any]) -> dict[str, Any]:
    """Returns the mean of what `nodes` train from `state`."""
    from flwr.app import ArrayRecord, Message, RecordDict  # noqa: PLC0415 - another side lacks it

    content = RecordDict({"arrays": ArrayRecord(state)})
    replies = list(grid.send_and_receive([Message(content, node, "train") for node in nodes]))
    found = [reply.content["arrays"].to_torch_state_dict() for reply in replies]
    return {name: torch.stack([each[name] for each in found]).mean(dim=0) for name in state}


_ACTOR: dict[str, Any] = {}


def actor_state(case: str, path: str) -> Any:
    if not _ACTOR:
        torch.set_num_threads(1)
        _ACTOR.update(model=model_of(case), parts=parts_of(path))
    return _ACTOR["model"], _ACTOR["parts"]


def train_plainly(
    model: nn.Module, x: torch.Tensor, y: torch.Tensor, given: dict[str, Any]
) -> None:
    """Trains one epoch with index tensors, the fastest plain way."""
    optimizer = torch.optim.SGD(model.parameters(), lr=given["rate"])
    for rows in torch.randperm(len(x)).split(given["batch"]):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x[rows]), y[rows]).backward()
        optimizer.step()


def pfl_side(job: dict[str, Any]) -> str:
    import logging  # noqa: PLC0415 - pfl writes a line per round

    from pfl.aggregate.simulate import SimulatedBackend  # noqa: PLC0415 - its environment only
    from pfl.algorithm.base import NNAlgorithmParams  # noqa: PLC0415 - as above
    from pfl.algorithm.federated_averaging import FederatedAveraging  # noqa: PLC0415 - as above
    from pfl.hyperparam import NNTrainHyperParams  # noqa: PLC0415 - as above
    from pfl.model.pytorch import PyTorchModel  # noqa: PLC0415 - as above

    logging.disable(logging.INFO)
    torch.set_num_threads(1)
    given = CASES[job["case"]]
    clock, module = Clock(given["cohort"]), Costed(model_of(job["case"]))
    data = pfl_data(given["nodes"], parts_of(job["data"]))
    params = NNAlgorithmParams(
        central_num_iterations=job["rounds"],
        evaluation_frequency=10**9,
        train_cohort_size=given["cohort"],
        val_cohort_size=0,
    )
    training = NNTrainHyperParams(
        local_num_epochs=1, local_learning_rate=given["rate"], local_batch_size=given["batch"]
    )
    FederatedAveraging().run(
        algorithm_params=params,
        backend=SimulatedBackend(training_data=data, val_data=data),
        model=PyTorchModel(module, torch.optim.SGD, torch.optim.SGD(module.parameters(), lr=1.0)),
        model_train_params=training,
        callbacks=[pfl_laps(clock)],
        send_metrics_to_platform=False,
    )
    return clock.report()


class Costed(nn.Module):
    """A model that knows its loss, as pfl wants it."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def loss(self, x: torch.Tensor, y: torch.Tensor) -> Any:
        """Returns the mean loss of a batch."""
        self.train()
        return nn.functional.cross_entropy(self.inner(x), y)

    def metrics(self, x: torch.Tensor, y: torch.Tensor) -> dict[str, Any]:
        """Returns none: nothing is evaluated."""
        del x, y
        return {}


def pfl_data(nodes: int, parts: list[tuple[torch.Tensor, torch.Tensor]]) -> Any:
    """Returns a federated data set that shuffles a node's examples whenever it is drawn."""
    from pfl.data.federated_dataset import FederatedDataset  # noqa: PLC0415 - its environment only
    from pfl.data.pytorch import PyTorchTensorDataset  # noqa: PLC0415 - as above

    rng = np.random.default_rng(1)

    def user(number: int) -> Any:
        x, y = parts[number]
        order = torch.from_numpy(rng.permutation(len(x)))
        return PyTorchTensorDataset((x[order], y[order]))

    return FederatedDataset(user, lambda: int(rng.integers(nodes)))


def pfl_laps(clock: Clock) -> Any:
    """Returns a callback that ends a lap with each round."""
    from pfl.callback.base import TrainingProcessCallback  # noqa: PLC0415 - its environment only
    from pfl.metrics import Metrics  # noqa: PLC0415 - as above

    class Laps(TrainingProcessCallback):  # type: ignore[misc] # pfl is not typed here
        def after_central_iteration(self, *_: Any, **__: Any) -> Any:
            clock.lap()
            return False, Metrics()

    return Laps()


def byzfl_side(job: dict[str, Any]) -> str:
    _stub_byzfl()
    from byzfl.fed_framework import Client, Server, models  # noqa: PLC0415 - its environment only

    torch.set_num_threads(1)
    given, parts = CASES[job["case"]], parts_of(job["data"])
    models.bench_model = lambda: model_of(job["case"])  # it finds models by name, in that module
    clock, rng = Clock(given["cohort"]), np.random.default_rng(1)
    common = {"model_name": "bench_model", "device": "cpu", "learning_rate": given["rate"]}
    common |= {"optimizer_name": "SGD", "weight_decay": 0.0, "milestones": []}
    common |= {"learning_rate_decay": 1.0}
    clients = []
    for x, y in parts:
        loader = torch.utils.data.DataLoader(
            torch.utils.data.TensorDataset(x, y), batch_size=given["batch"], shuffle=True
        )
        clients.append(
            Client(
                common
                | {"loss_name": "CrossEntropyLoss", "LabelFlipping": False, "nb_labels": 10}
                | {"momentum": 0.0, "training_dataloader": loader}
                | {"store_per_client_metrics": False}
            )
        )
    average = {"aggregator_info": {"name": "Average", "parameters": {}}, "pre_agg_list": []}
    server = Server(
        common
        | average
        | {"test_loader": clients[0].training_dataloader, "validation_loader": None}
    )
    for _ in range(job["rounds"]):
        asked = [clients[i] for i in rng.choice(len(clients), given["cohort"], replace=False)]
        weights = server.get_flat_parameters()
        for each in asked:
            each.set_parameters(weights)
            each.compute_model_update(len(each.training_dataloader))
        server.update_model_with_weights([each.get_flat_parameters() for each in asked])
        clock.lap()
    return clock.report()


def _stub_byzfl() -> None:
    """Keeps the package's own start from running: it wants torchvision and plots."""
    spec = importlib.util.find_spec("byzfl")
    assert spec is not None, "byzfl is not installed"
    package = types.ModuleType("byzfl")
    package.__path__ = list(spec.submodule_search_locations or ())
    sys.modules["byzfl"] = package


SIDES = {
    "fedsec": fedsec_side,
    "flower": flower_side,
    "pfl": pfl_side,
    "byzfl": byzfl_side,
    "scale": scale_side,
    "gemm": gemm_side,
}

if __name__ == "__main__":
    here = os.path.dirname(os.path.abspath(__file__))  # noqa: PTH100, PTH120 - before imports
    os.environ["PYTHONPATH"] = f"{here}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"
    work = json.load(sys.stdin)
    print(SIDES[work["side"]](work), flush=True)
