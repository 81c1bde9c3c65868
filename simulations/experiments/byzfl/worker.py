"""Cells of the grid in byzfl 0.0.11, in an environment of its own; `run.py` starts it.

Reads a cell as a line of JSON, answers with one: accuracy on the test images, and processor
seconds of set-up, training and that test. Clients, server, attacks and rules are byzfl's; the round
below is that of its `benchmark/train.py`, which would also fetch data and write files.
"""

import importlib.util
import json
import sys
import time
import types
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


def stub_package() -> None:
    """Keeps the package's own start from running: it wants torchvision and plots."""
    spec = importlib.util.find_spec("byzfl")
    if spec is None:
        sys.exit("byzfl is not installed here")
    package = types.ModuleType("byzfl")
    package.__path__ = list(spec.submodule_search_locations or ())
    sys.modules["byzfl"] = package


def model() -> nn.Module:
    """Returns logistic regression on the pixels of an image."""
    return nn.Linear(784, 10)


def run(cell: dict[str, Any]) -> dict[str, float]:
    """Trains a cell; returns its accuracy and how long it took."""
    from byzfl.fed_framework.byzantine_client import ByzantineClient  # noqa: PLC0415 - stubbed first

    kept = np.load(cell["data"])
    arrays = {name: torch.from_numpy(kept[name]) for name in kept}
    begun = time.process_time()
    torch.manual_seed(cell["seed"])
    server, clients = sides(cell, arrays)
    attack = {**cell["attack"]["parameters"], **cell["pipeline"], "f": cell["byzantine"]}
    hostile = ByzantineClient(
        {"name": cell["attack"]["name"], "f": cell["byzantine"], "parameters": attack}
    )
    for _ in range(cell["steps"]):
        for each in clients:
            each.set_model_state(server.get_dict_parameters())
        for each in clients:
            each.compute_gradients()
        honest = [each.get_flat_gradients_with_momentum() for each in clients]
        server.update_model_with_gradients(honest + hostile.apply_attack(honest))
    accuracy = server.compute_test_accuracy()
    return {"accuracy": accuracy, "cpu_s": time.process_time() - begun}


def sides(cell: dict[str, Any], arrays: dict[str, torch.Tensor]) -> tuple[Any, list[Any]]:
    """Returns byzfl's server, with the first model, and its honest clients with their parts."""
    from byzfl.fed_framework import Client, Server, models  # noqa: PLC0415 - stubbed first

    models.own = model  # it finds models by name, in that module
    common = {"model_name": "own", "device": "cpu", "learning_rate": cell["rate"]}
    common |= {"optimizer_name": "SGD", "weight_decay": 0.0, "milestones": []}
    common |= {"learning_rate_decay": 1.0}
    own = {"loss_name": "CrossEntropyLoss", "LabelFlipping": False, "nb_labels": 10}
    own |= {"momentum": cell["momentum"], "store_per_client_metrics": False}
    clients = []
    for begin, end in pairwise(arrays["starts"].tolist()):
        rows = arrays["rows"][begin:end]
        part = TensorDataset(arrays["inputs"][rows], arrays["targets"][rows])
        loader = DataLoader(part, batch_size=cell["batch"], shuffle=True)
        clients.append(Client(common | own | {"training_dataloader": loader}))
    test = TensorDataset(arrays["test_inputs"], arrays["test_targets"])
    tests = {"test_loader": DataLoader(test, batch_size=1000), "validation_loader": None}
    server = Server(common | cell["pipeline"] | tests)
    torch.nn.utils.vector_to_parameters(arrays["first"], server.model.parameters())
    return server, clients


if __name__ == "__main__":
    stub_package()
    torch.set_num_threads(1)
    for line in sys.stdin:
        print(json.dumps(run(json.loads(line))), flush=True)
