"""The package that `fedsec task new NAME` writes."""

PROJECT = """\
[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"

[project]
name = "{name}"
version = "0.1.0"
dependencies = ["fedsec"]
"""

INIT = '''\
"""A task of one's own. In a plan: `name = "{name}:task"`; change what you need."""

import torch
from torch import nn

from fedsec.tasks.seeds import seeded
from fedsec.tasks.task import Examples, NodeData


class Task:
    """What is learned; `fedsec.tasks.task.Task` says what each method must do."""

    name = "{name}"

    def make_model(self, options, seed):
        with seeded(seed):
            return nn.Linear(2, 2)

    def load(self, settings):
        """Read this site's records here; `settings` is the table [data.NAME] of its node.toml."""
        made = torch.Generator().manual_seed(int(settings.get("partition", 0)))
        inputs = torch.randn(200, 2, generator=made)
        everything = Examples(inputs, (inputs[:, 0] > inputs[:, 1]).long())
        rows = torch.arange(200)
        return NodeData(train=everything.take(rows[:160]), test=everything.take(rows[160:]))

    def central_test(self):
        return None  # the nodes test on their own records

    def loss(self, outputs, targets):
        return nn.functional.cross_entropy(outputs, targets)

    def metrics(self, outputs, targets):
        return {{"accuracy": float((outputs.argmax(dim=1) == targets).double().mean())}}


task = Task()
'''

PLAN = """\
schema = 1
name = "{name}"
[task]
name = "{name}:task"
data = "{name}"
[training]
rounds = 5
learning_rate = 0.5
[nodes]
min_available = 3
quorum = 2
"""


def files(name: str) -> dict[str, str]:
    """Returns what the package holds, by file.

    Args:
        name: Of the package.
    """
    texts = {
        "pyproject.toml": PROJECT,
        f"{name}/__init__.py": INIT,
        "plan.toml": PLAN,
    }
    return {path: text.format(name=name) for path, text in texts.items()}
