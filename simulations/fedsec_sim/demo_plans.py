"""What the demo runs: two plans, and the comparison that has no defence. No torch in here."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

NODES, GROUP = 25, 5
ROUNDS = 8
CLIP = 1.0
PRIVATE_NODES = 1000

ACCURATE, CLOSE, PRIVATE, RUINED, BUDGET = 0.90, 0.03, 0.85, 0.80, 10.0
"""What the screen promises: accuracy without an attack, how far below it with one, with privacy;
what the undefended mean does not reach; and the most epsilon."""

DATA: Mapping[str, str | int] = MappingProxyType({"split": "iid", "seed": 1})
"""How the digits are divided among the fleet's nodes."""

_LEARNING = """\
schema = 1
name = "{name}"
{visibility}
[task]
name = "digits"
options = {{ model = "logistic" }}

[training]
rounds = {rounds}
local_steps = {steps}
batch_size = 64
learning_rate = {rate}
momentum = 0.0
server_learning_rate = {server_rate}
seed = 1

[nodes]
min_available = {nodes}
wait_s = 300

[round]
deadline_s = 60
"""

_GROUPS = """
[secure_aggregation]
mode = "malicious"
clip = {clip}
group_size = {group}
max_nodes = {nodes}

[robust]
rule = "median"
byzantine = {hostile}
"""

_PRIVACY = """
[privacy]
model = "distributed"
epsilon = 10.0
delta = 1e-5
noise_multiplier = 1.4
clip = 1.0
bits = 20
dropouts = 100
corrupt = 100

[secure_aggregation]
mode = "malicious"
max_nodes = {nodes}
"""


def hostile_of(nodes: int) -> int:
    """Returns how many hostile nodes the groups of so many nodes withstand."""
    return (nodes // GROUP - 1) // 2


def defended(nodes: int, rounds: int) -> str:
    """Returns the plan of the fleet: groups in secret, a robust rule over them, no noise."""
    groups = _GROUPS.format(clip=CLIP, group=GROUP, nodes=nodes, hostile=hostile_of(nodes))
    return _plan("demo", nodes, rounds, visibility='visibility = "groups"\n') + groups


def undefended(nodes: int, rounds: int) -> str:
    """Returns the same learning without any defence."""
    return _plan("demo, undefended", nodes, rounds)


def private() -> str:
    """Returns the plan of a thousand nodes whose one sum is noised by themselves."""
    learning = _LEARNING.format(
        name="demo, private",
        visibility="",
        rounds=6,
        steps=1,
        rate=1.0,
        server_rate=4.0,
        nodes=PRIVATE_NODES,
    )
    quorum = f"min_available = {PRIVATE_NODES}\nquorum = {PRIVATE_NODES - 100}"
    learning = learning.replace(f"min_available = {PRIVATE_NODES}", quorum)
    learning += "attempts = 1\n"  # each would be a release, and cost
    return learning + _PRIVACY.format(nodes=PRIVATE_NODES)


def _plan(name: str, nodes: int, rounds: int, visibility: str = "") -> str:
    return _LEARNING.format(
        name=name,
        visibility=visibility,
        rounds=rounds,
        steps=10,
        rate=0.25,
        server_rate=1.0,
        nodes=nodes,
    )


@dataclass(frozen=True, slots=True)
class Curve:
    """Accuracy, round by round.

    Attributes:
        name: For people.
        points: Round and accuracy.
        epsilon: For each node, of the whole run; None: no noise, so no guarantee.
    """

    name: str
    points: tuple[tuple[int, float], ...]
    epsilon: float | None = None

    @property
    def accuracy(self) -> float:
        """After the last round; 0 if there was none."""
        return self.points[-1][1] if self.points else 0.0
