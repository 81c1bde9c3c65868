"""A task of one's own: 569 real biopsies (scikit-learn), benign or malignant, from 30 measurements.

There is no central test set, so the nodes evaluate. Run this file to try the plan beside it with
four nodes in this process:

    python examples/own_task.py

In a federation the same plan is submitted with `fedsec run submit`, and each node's `node.toml`
says which data it has:

    [data.biopsies]
    connector = "biopsies"
    partition = 0
    partitions = 4
"""

from collections.abc import Mapping
from pathlib import Path

import torch
from flwr.app import Context, RecordDict
from sklearn.datasets import load_breast_cancer
from torch import Tensor, nn

from fedsec.flower.local import LocalGrid, node_contexts
from fedsec.tasks.partition import iid
from fedsec.tasks.seeds import seeded
from fedsec.tasks.settings import Settings
from fedsec.tasks.task import Examples, NodeData, Options
from fedsec_client.client_app import app as client_app
from fedsec_server.server_app import app as server_app


class Biopsies:
    """Each method is one of `fedsec.tasks.task.Task`, where it is described."""

    name = "biopsies"

    def make_model(self, options: Options, seed: int) -> nn.Module:
        """One hidden layer of ``options["hidden"]`` units."""
        settings = Settings(options, "task.options.")
        hidden = settings.integer("hidden", low=1, high=1024, default=16)
        settings.end()
        with seeded(seed):
            return nn.Sequential(
                nn.BatchNorm1d(30, affine=False),  # the measurements differ widely in scale
                nn.Linear(30, hidden),
                nn.ReLU(),
                nn.Linear(hidden, 1),
            )

    def load(self, settings: Mapping[str, object]) -> NodeData:
        """A real task would open this site's file or database here."""
        read = Settings(settings)
        read.choice("connector", ("biopsies",), default="biopsies")
        parts = read.integer("partitions", low=1, high=100)
        part = read.integer("partition", low=0, high=parts - 1)
        read.end()
        found = load_breast_cancer()
        inputs = torch.tensor(found.data, dtype=torch.float32)
        targets = torch.tensor(found.target, dtype=torch.float32)
        rows = torch.from_numpy(iid(len(targets), parts, seed=1)[part])
        everything = Examples(inputs, targets)
        cut = len(rows) // 5
        return NodeData(train=everything.take(rows[cut:]), test=everything.take(rows[:cut]))

    def central_test(self) -> Examples | None:
        """None: no data leave the sites, not even for tests."""
        return None

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Cross entropy of one logit."""
        return nn.functional.binary_cross_entropy_with_logits(outputs[:, 0], targets)

    def metrics(self, outputs: Tensor, targets: Tensor) -> Mapping[str, float]:
        """Share of right answers."""
        return {"accuracy": float(((outputs[:, 0] > 0) == (targets > 0)).double().mean())}


task = Biopsies()


def main() -> None:
    """Runs the plan and prints what each evaluation says."""
    plan = Path(__file__).with_name("own_task.plan.toml").read_text(encoding="utf-8")
    config: dict[str, bool | int | float | str] = {"fedsec-plan": plan}
    contexts = node_contexts(4, config)
    grid = LocalGrid(dict.fromkeys(contexts, client_app), contexts)
    server_app(grid, Context(1, 1, {}, RecordDict(), config))
    for kind, detail in grid.reports:
        if kind == "round" and "accuracy" in detail:
            print(
                f"round {detail['round']}: loss {detail['loss']:.3f}, "
                f"accuracy {detail['accuracy']:.3f} on the nodes' own tests"
            )


if __name__ == "__main__":
    main()
