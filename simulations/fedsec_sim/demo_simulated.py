"""The simulated parts of the demo: without an attack, without a defence, and with privacy."""

from fedsec_sim.attacks.plain import Reverse
from fedsec_sim.demo_plans import CLIP, DATA, PRIVATE_NODES, Curve, defended, private, undefended
from fedsec_sim.history import History
from fedsec_sim.hostile_worker import TIMES
from fedsec_sim.lab import Lab
from fedsec_sim.partitions import Iid
from fedsec_sim.simulate import simulate
from fedsec_sim.threats import Threat


def attack_free(nodes: int, rounds: int) -> Curve:
    """Returns the fleet's plan where all nodes are honest."""
    return _curve("no attack", simulate(defended(nodes, rounds), Lab(data=DATA)))


def attacked(nodes: int, rounds: int, hostile: int) -> Curve:
    """Returns the fleet's plan under the fleet's attack, simulated."""
    lab = Lab(data=DATA, threat=_threat(hostile))
    return _curve("defended, poisoned", simulate(defended(nodes, rounds), lab))


def without_defence(nodes: int, rounds: int, hostile: int) -> Curve:
    """Returns the plain mean under the fleet's attack."""
    lab = Lab(data=DATA, threat=_threat(hostile))
    return _curve("undefended, poisoned", simulate(undefended(nodes, rounds), lab))


def with_privacy() -> Curve:
    """Returns a thousand nodes with distributed privacy, and what it costs them."""
    history = simulate(private(), Lab(nodes=PRIVATE_NODES, split=Iid()))
    return _curve("1,000 nodes, private", history, history.last("epsilon"))


def _threat(hostile: int) -> Threat:
    return Threat(hostile, Reverse(TIMES * CLIP))


def _curve(name: str, history: History, epsilon: float | None = None) -> Curve:
    return Curve(name, tuple(history.series("accuracy")), epsilon)
