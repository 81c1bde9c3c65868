"""Accuracy under differential privacy: our models of it beside Flower's central one.

Nodes train multinomial regression on handwritten digits: MNIST's 10,000 test images (of which a
fifth is held out) over 100 and 1,000 nodes, and scikit-learn's digits over 50. The same data, local
work and number of nodes per round for everybody; epsilon and delta are those of the whole training.

    central      a Poisson cohort in secret, privacy loss accounting; fixed or adaptive clip
    local        every node adds the noise itself, all nodes in every round
    distributed  shares of noise on integers of 12, 16 or 20 bits; beside central at the same
                 multiplier, clip and denominator, all nodes in every round
    flower       DifferentialPrivacyServerSideFixedClipping; its accountant claims no amplification,
                 so its guarantee holds against those who know who was drawn, ours does not

A ratio is of accuracies; a line for each case says how many standard errors the difference is.

    python benchmarks/privacy_utility.py [--quick] [--only NAME] [--json FILE] [--plot FILE]
"""

import gzip
import logging
import math
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import matplotlib as mpl
import numpy as np
from common import Result, arguments, compare, publish
from flwr.app import ArrayRecord, MetricRecord, RecordDict
from flwr.serverapp.strategy import DifferentialPrivacyServerSideFixedClipping, FedAvg
from sklearn.datasets import load_digits

from fedsec.encoding import Rotated, padded, word_type
from fedsec.errors import ConfigError
from fedsec.flower.collection import Attempt, Collected
from fedsec.flower.perturb import Perturb
from fedsec.flower.private import Central
from fedsec.flwr_compat import Envelope, make_message
from fedsec.plan import FederationPlan
from fedsec.privacy.accounting import renyi
from fedsec.privacy.calibration import calibrate
from fedsec.privacy.distributed import set_up
from fedsec.privacy.events import Gaussian, Price
from fedsec.privacy.keystream import Keystream
from fedsec.privacy.skellam import Skellam
from fedsec_sim.workloads.files import data_file

mpl.use("Agg")

DELTA, ROUNDS, CLASSES = 1e-5, 30, 10
EPSILONS = (1.0, 3.0, 8.0, math.inf)
FEW = 100  # nodes up to which what each node does by itself is measured
CHANCE = 100 / CLASSES
FLOWER = "flwr 1.41 central, fixed clip"


@dataclass(frozen=True, eq=False)
class Problem:
    """A data set over nodes.

    Attributes:
        name: With the number of nodes.
        features: (nodes, m, k).
        labels: One-hot (nodes, m, 10).
        test: Features and labels that no node holds.
        rate: Of the nodes that take part in a round.
        clip: L2 norm of an update.
        learning_rate: Of a local step; there are five.
    """

    name: str
    features: np.ndarray
    labels: np.ndarray
    test: tuple[np.ndarray, np.ndarray]
    rate: float
    clip: float
    learning_rate: float

    @property
    def nodes(self) -> int:
        """How many there are."""
        return len(self.features)

    @property
    def size(self) -> int:
        """d, entries of the model."""
        return (self.features.shape[2] + 1) * CLASSES

    def updates(self, weights: np.ndarray, nodes: np.ndarray) -> np.ndarray:
        """Returns what these nodes answer (m, d): five full-batch steps from `weights`."""
        inputs, wanted = self.features[nodes], self.labels[nodes]
        local = np.repeat(weights.reshape(1, -1, CLASSES), len(nodes), axis=0)
        for _ in range(5):
            scores = inputs @ local[:, :-1] + local[:, -1:]
            scores -= scores.max(axis=2, keepdims=True)
            likely = np.exp(scores)
            likely /= likely.sum(axis=2, keepdims=True)
            error = (likely - wanted) / inputs.shape[1]
            local[:, :-1] -= self.learning_rate * (inputs.transpose(0, 2, 1) @ error)
            local[:, -1] -= self.learning_rate * error.sum(axis=1)
        return (local.reshape(len(nodes), -1) - weights).astype(np.float32)

    def accuracy(self, weights: np.ndarray) -> float:
        """Returns the share of test images that are recognised, in percent."""
        features, labels = self.test
        matrix = weights.reshape(-1, CLASSES)
        found = (features @ matrix[:-1] + matrix[-1]).argmax(axis=1)
        return float((found == labels).mean()) * 100


def make_problem(name: str, nodes: int, rate: float, clip: float, learning_rate: float) -> Problem:
    """Returns a data set, divided among nodes alike."""
    features, labels = mnist() if name == "mnist" else digits()
    order = np.random.default_rng(88).permutation(len(labels))
    held, rest = order[: len(order) // 5], order[len(order) // 5 :]
    each = len(rest) // nodes
    rest = rest[: each * nodes]
    return Problem(
        f"{name} n={nodes}",
        features[rest].reshape(nodes, each, -1),
        np.eye(CLASSES, dtype=np.float32)[labels[rest]].reshape(nodes, each, CLASSES),
        (features[held], labels[held]),
        rate,
        clip,
        learning_rate,
    )


@cache
def mnist() -> tuple[np.ndarray, np.ndarray]:
    """Returns images (10000, 784), of mean length 1, and labels."""
    images, labels = (
        np.frombuffer(gzip.decompress(data_file(f"mnist/t10k-{kind}-ubyte.gz").read_bytes()), "u1")
        for kind in ("images-idx3", "labels-idx1")
    )
    features = images[16:].reshape(-1, 784).astype(np.float32)
    return features / np.linalg.norm(features, axis=1).mean(), labels[8:].astype(np.intp)


def digits() -> tuple[np.ndarray, np.ndarray]:
    """Returns images (1797, 64), of mean length 1, and labels."""
    features, labels = load_digits(return_X_y=True)
    features = features.astype(np.float32)
    return features / np.linalg.norm(features, axis=1).mean(), labels


# --- how a round's updates become one vector ------------------------------------------------------

Step = Callable[[np.ndarray, np.random.Generator], np.ndarray]
"""From the model to the vector along which it moves."""


@cache
def multiplier(epsilon: float, rate: float) -> float:
    """Returns the noise that keeps all rounds within epsilon."""
    return calibrate(
        lambda z: Price(Gaussian(z, sampling=rate), ROUNDS), epsilon=epsilon, delta=DELTA
    )


@cache
def flower_multiplier(epsilon: float) -> float:
    """Returns the noise by Renyi and without amplification, as Flower's accountant reckons."""
    low, high = 0.05, 1000.0
    while high / low > 1.0001:
        middle = math.sqrt(low * high)
        enough = renyi([Price(Gaussian(middle), ROUNDS)], DELTA) <= epsilon
        low, high = (low, middle) if enough else (middle, high)
    return high


def central(problem: Problem, epsilon: float, seed: int, *, rate: float, adapt: bool) -> Step:
    """Returns our central privacy; without noise for an infinite epsilon."""
    noise = 1e-4 if math.isinf(epsilon) else multiplier(epsilon, rate)
    return at(problem, max(noise, 0.05), seed, rate=rate, adapt=adapt)


def at(problem: Problem, noise: float, seed: int, *, rate: float, adapt: bool = False) -> Step:
    """Returns our central privacy at this multiplier."""
    plan = FederationPlan.parse(
        f"""
        schema = 1
        name = "utility"
        [task]
        name = "digits"
        [training]
        rounds = {ROUNDS}
        [nodes]
        min_available = {problem.nodes}
        [privacy]
        model = "central"
        epsilon = 50.0
        delta = {DELTA}
        noise_multiplier = {noise}
        clip = {problem.clip}
        {f"sampling = {rate}" if rate < 1 else ""}
        {"clip_quantile = 0.5" if adapt else ""}
        {f"clip_noise = {max(0.05 * rate * problem.nodes, noise)}" if adapt else ""}
        """
    )
    combine = Central(
        plan,
        lambda _round, _attempt, make: make(),
        Keystream(seed.to_bytes(32, "big")),
        np.random.default_rng,
    )
    memory: list[dict[str, np.ndarray]] = [{}]

    def step(weights: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        drawn = np.flatnonzero(rng.random(problem.nodes) < rate)
        rows = problem.updates(weights, drawn)
        groups = tuple((int(node),) for node in drawn)
        collected = Collected(rows, groups, np.ones(len(rows)), (), {}, {})
        made = combine(Attempt(1, 1, tuple(drawn), RecordDict()), collected, memory[0])
        memory[0] = dict(made.memory)
        return made.vector

    return step


def local(problem: Problem, epsilon: float, seed: int) -> Step:
    """Returns local privacy: the plain mean of what all nodes noised."""
    perturb = Perturb(problem.clip, multiplier(epsilon, 1.0))
    source = Keystream(seed.to_bytes(32, "big"))

    def step(weights: np.ndarray, _rng: np.random.Generator) -> np.ndarray:
        rows = problem.updates(weights, np.arange(problem.nodes))
        return np.mean([perturb(row, source) for row in rows], axis=0)

    return step


def distributed(problem: Problem, noise: float, seed: int, bits: int) -> Step:
    """Returns distributed privacy: integers with noise shares, added modulo 2^bits."""
    n, source = problem.nodes, Keystream(seed.to_bytes(32, "big"))
    found = set_up(
        length=padded(problem.size), clip=problem.clip, nodes=n, honest=n, noise_multiplier=noise,
        bits=bits,
    )  # fmt: skip
    code = Rotated(problem.size, problem.clip, found.scale, bits, bytes(32), Skellam(found.share))
    turns = iter(range(ROUNDS))

    def step(weights: np.ndarray, _rng: np.random.Generator) -> np.ndarray:
        turned = replace(code, seed=(seed * ROUNDS + next(turns)).to_bytes(32, "big"))
        total = np.zeros(turned.length, word_type(bits))
        for row in problem.updates(weights, np.arange(n)):
            total += turned.encode(row, source)
        return turned.decode(total) / n

    return step


def flower(problem: Problem, epsilon: float, seed: int) -> Step:
    """Returns Flower's central privacy; its noise comes from numpy's global generator."""
    asked = round(problem.nodes * problem.rate)
    noise = 0.0 if math.isinf(epsilon) else flower_multiplier(epsilon)
    strategy = DifferentialPrivacyServerSideFixedClipping(FedAvg(), noise, problem.clip, asked)
    np.random.seed(seed)  # noqa: NPY002 - the generator that Flower uses

    def step(weights: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        drawn = rng.choice(problem.nodes, asked, replace=False)
        strategy.current_arrays = ArrayRecord([weights])
        rows = problem.updates(weights, drawn)
        replies = [reply(weights + row, node) for node, row in enumerate(rows)]
        arrays, _ = strategy.aggregate_train(1, replies)
        return arrays.to_numpy_ndarrays()[0] - weights

    return step


def reply(model: np.ndarray, node: int) -> object:
    """Returns a node's answer, as Flower has it."""
    metrics = MetricRecord({"num-examples": 1})
    content = RecordDict({"arrays": ArrayRecord([model]), "metrics": metrics})
    of = Envelope("m", "i", 1, node + 1, 0, "1", time.time(), 60.0, "train")
    return make_message(of, content)


def trained(problem: Problem, step: Step, seed: int) -> float:
    """Returns the accuracy after all rounds, in percent."""
    rng = np.random.default_rng(seed)
    weights = np.zeros(problem.size, np.float32)
    for _ in range(ROUNDS):
        weights = (weights + step(weights, rng)).astype(np.float32)
    return problem.accuracy(weights)


# --- what is compared -----------------------------------------------------------------------------


def results(problems: list[Problem], epsilons: tuple[float, ...], seeds: int) -> Iterator[Result]:
    """Yields every case, each as it is measured."""
    for problem in problems:
        for epsilon in epsilons:
            yield from beside_flower(problem, epsilon, seeds)
        if problem.nodes <= FEW:
            yield from by_bits(problem, seeds)


def beside_flower(problem: Problem, epsilon: float, seeds: int) -> Iterator[Result]:
    """Yields our models of privacy at one epsilon."""

    def several(made: Callable[[int], Step]) -> list[float]:
        return [trained(problem, made(seed), seed) for seed in range(1, seeds + 1)]

    rate = problem.rate
    theirs = several(lambda seed: flower(problem, epsilon, seed))
    ours = {
        "central": several(lambda s: central(problem, epsilon, s, rate=rate, adapt=False)),
        "central, adaptive clip": several(
            lambda s: central(problem, epsilon, s, rate=rate, adapt=True)
        ),
    }
    if math.isfinite(epsilon) and problem.nodes <= FEW:
        ours["local"] = several(lambda seed: local(problem, epsilon, seed))
    for name, mine in ours.items():
        case = f"{problem.name} {name} epsilon={epsilon:g}"
        yield told(case, mine, theirs, FLOWER)


def by_bits(problem: Problem, seeds: int) -> Iterator[Result]:
    """Yields distributed privacy beside central, both with all nodes, at the same multiplier."""
    noise = multiplier(8.0, 1.0)
    plain = [trained(problem, at(problem, noise, s, rate=1.0), s) for s in range(1, seeds + 1)]
    for bits in (12, 16, 20):
        try:
            mine = [
                trained(problem, distributed(problem, noise, s, bits), s)
                for s in range(1, seeds + 1)
            ]
        except ConfigError as error:
            print(f"{problem.name} distributed {bits} bits: not possible: {error}")
            continue
        yield told(f"{problem.name} distributed {bits} bits", mine, plain, "central, all nodes")


def told(case: str, ours: list[float], peer: list[float], peer_name: str) -> Result:
    """Returns the comparison, after a line that says how sure it is."""
    error = math.sqrt((statistics.variance(ours) + statistics.variance(peer)) / len(ours))
    gap = statistics.mean(ours) - statistics.mean(peer)
    sure = f"{gap / error:+.1f} standard errors" if error else "no spread"
    print(f"{case}: {gap:+.2f} points, {sure}", flush=True)
    return compare(case, "accuracy", "%", ours=ours, peer=peer, peer_name=peer_name)


def plot(found: list[Result], file: Path) -> None:
    """Draws accuracy over epsilon, one panel for each problem."""
    import matplotlib.pyplot as plt  # noqa: PLC0415 - after the backend is chosen

    rows = [(*r.case.rsplit(" epsilon=", 1), r) for r in found if " epsilon=" in r.case]
    names = list(dict.fromkeys(" ".join(case.split()[:2]) for case, _, _ in rows))
    figure, axes = plt.subplots(1, len(names), figsize=(5 * len(names), 4), squeeze=False)
    for axis, name in zip(axes[0], names, strict=True):
        lines: dict[str, dict[str, float]] = {}
        for case, epsilon, result in rows:
            if case.startswith(name):
                lines.setdefault(case.removeprefix(name + " "), {})[epsilon] = result.ours
                lines.setdefault(FLOWER, {})[epsilon] = result.peer
        for label, line in lines.items():
            axis.plot(list(line), list(line.values()), marker="o", label=label)
        axis.axhline(CHANCE, color="grey", linestyle=":", linewidth=1)
        axis.set(title=name, xlabel="epsilon", ylabel="accuracy in %")
    axes[0][0].legend(fontsize="small")
    figure.tight_layout()
    figure.savefig(file, dpi=120)


def main() -> None:
    """Runs what the command line asks for."""
    parser = arguments(__doc__ or "")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw accuracy over epsilon, PNG")
    parser.add_argument("--only", metavar="NAME", help='one data set, e.g. "mnist n=100"')
    options = parser.parse_args()
    logging.getLogger("flwr").setLevel(logging.ERROR)
    sizes = [("digits", 50, 0.2, 0.5, 1.0)]
    if not options.quick:
        sizes += [("mnist", 100, 0.2, 0.5, 1.0), ("mnist", 1000, 0.1, 0.5, 1.0)]
    chosen = [size for size in sizes if options.only in {None, f"{size[0]} n={size[1]}"}]
    problems = [make_problem(*size) for size in chosen]
    epsilons, seeds = ((3.0, math.inf), 3) if options.quick else (EPSILONS, 5)
    found = list(results(problems, epsilons, seeds))
    publish(found, options.json)
    if options.plot:
        plot(found, options.plot)


if __name__ == "__main__":
    main()
