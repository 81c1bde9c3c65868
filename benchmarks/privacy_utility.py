"""Accuracy under differential privacy: our models of it beside Flower's.

Nodes train multinomial regression on handwritten digits (`utility_problems.py`): MNIST over 100 and
1,000 nodes, scikit-learn's digits over 50. The same data, local work and number of nodes per round
for everybody; epsilon and delta are those of the whole training.

    central      a Poisson cohort in secret, privacy loss accounting; fixed or adaptive clip; beside
                 Flower's DifferentialPrivacyServerSideFixedClipping, whose accountant claims no
                 amplification: it holds against those who know who was drawn, ours does not
    local        every node adds the noise itself, all nodes in every round; beside Flower's
                 LocalDpMod, whose formula knows one release: each gets its share of epsilon, delta
    distributed  shares of noise on integers of 12, 16 or 20 bits; beside central at the same
                 multiplier, clip and denominator, all nodes in every round
    example      DP-SGD on each node, all of its examples in each step; hides examples, not nodes;
                 beside the same training without noise

Ratios are of accuracies; each case says how many standard errors the difference is.

    python benchmarks/privacy_utility.py [--quick] [--only NAME] [--part PART ...] [--epsilon E]
                                         [--seeds N] [--plot FILE] [--resume FILE]
"""

import json
import logging
import math
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import numpy as np
import torch
from common import Result, arguments, compare, publish
from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp.mod import LocalDpMod
from flwr.serverapp.strategy import DifferentialPrivacyServerSideFixedClipping, FedAvg
from torch import nn
from utility_plot import plot
from utility_problems import CLASSES, STEPS, Problem, make_problem

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
from fedsec.tasks.digits import Digits
from fedsec.tasks.private_training import PrivateTraining
from fedsec.tasks.task import Examples
from fedsec.tasks.training import LocalTraining

DELTA, ROUNDS = 1e-5, 30
EPSILONS = (1.0, 3.0, 8.0, math.inf)
BITS = (12, 16, 20)
FEW = 100  # nodes up to which each node's own training with DP-SGD is measured
EXAMPLE_CLIP = 1.0  # of an example's gradient, whose norm is at most 1.5
CHANCE = 100 / CLASSES
FLOWER = "flwr 1.41 central, fixed clip"
FLOWER_LOCAL = "flwr 1.41 LocalDpMod"
PLAIN = "the same without noise"
SAME = "central, all nodes"

Step = Callable[[np.ndarray, np.random.Generator], np.ndarray]
"""From the model to the vector along which it moves."""


@cache
def multiplier(epsilon: float, rate: float, releases: int = ROUNDS) -> float:
    """Returns the noise that keeps all releases within epsilon."""
    return calibrate(
        lambda z: Price(Gaussian(z, sampling=rate), releases), epsilon=epsilon, delta=DELTA
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


# --- how a round's updates become one vector ------------------------------------------------------


def central(problem: Problem, epsilon: float, seed: int, *, rate: float, adapt: bool) -> Step:
    """Returns our central privacy; without noise for an infinite epsilon."""
    noise = 0.05 if math.isinf(epsilon) else multiplier(epsilon, rate)
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


def example(problem: Problem, epsilon: float, seed: int) -> Step:
    """Returns the mean of what nodes train by DP-SGD; hardly any noise for an infinite epsilon."""
    each, source = problem.features.shape[1], Keystream(seed.to_bytes(32, "big"))
    work = LocalTraining(
        epochs=None, steps=STEPS, batch_size=each, learning_rate=problem.learning_rate
    )
    noise = 0.01 if math.isinf(epsilon) else multiplier(epsilon, 1.0, ROUNDS * STEPS)
    train, task = PrivateTraining(work, EXAMPLE_CLIP, noise), Digits()
    inputs = torch.from_numpy(problem.features)
    targets = torch.from_numpy(problem.labels.argmax(axis=2))
    model = nn.Linear(problem.features.shape[2], CLASSES)

    def step(weights: np.ndarray, _rng: np.random.Generator) -> np.ndarray:
        matrix = torch.from_numpy(weights.reshape(-1, CLASSES))
        total = torch.zeros_like(matrix)
        for node in range(problem.nodes):
            with torch.no_grad():
                model.weight.copy_(matrix[:-1].T)
                model.bias.copy_(matrix[-1])
            train(task, model, Examples(inputs[node], targets[node]), seed, source)
            total[:-1] += model.weight.detach().T
            total[-1] += model.bias.detach()
        return (total / problem.nodes - matrix).numpy().ravel()

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


def flower_local(problem: Problem, epsilon: float, seed: int) -> Step:
    """Returns the mean of what Flower's mod lets out; two updates are up to two clips apart."""
    mod = LocalDpMod(problem.clip, 2 * problem.clip, epsilon / ROUNDS, DELTA / ROUNDS)
    np.random.seed(seed)  # noqa: NPY002 - the generator that Flower uses
    context = Context(1, 1, {}, RecordDict(), {})

    def step(weights: np.ndarray, _rng: np.random.Generator) -> np.ndarray:
        total = np.zeros(problem.size)
        for row in problem.updates(weights, np.arange(problem.nodes)):
            made = mod(reply(weights, 0), context, lambda _m, _c, row=row: reply(weights + row, 0))
            total += next(iter(made.content.array_records.values())).to_numpy_ndarrays()[0]
        return (total / problem.nodes - weights).astype(np.float32)

    return step


def reply(model: np.ndarray, node: int) -> Message:
    """Returns a node's answer, as Flower has it."""
    metrics = MetricRecord({"num-examples": 1})
    content = RecordDict({"arrays": ArrayRecord([model]), "metrics": metrics})
    of = Envelope("m", "i", 1, node + 1, 0, "1", time.time(), 60.0, "train")
    return make_message(of, content)


# --- what is compared -----------------------------------------------------------------------------


@dataclass(frozen=True)
class Trainings:
    """Carries trainings out, each one once: what is in the file is not done again.

    Args:
        seeds: How many of each.
        file: Keeps the accuracies, one line each; None: nowhere.
    """

    seeds: int
    file: Path | None

    def __call__(self, problem: Problem, name: str, made: Callable[[int], Step]) -> list[float]:
        """Returns the accuracies (in percent) of a training with each seed."""
        return [
            self._once(f"{problem.name} {name} seed={seed}", problem, made, seed)
            for seed in range(1, self.seeds + 1)
        ]

    def _once(self, key: str, problem: Problem, made: Callable[[int], Step], seed: int) -> float:
        lines = self.file.read_text().splitlines() if self.file and self.file.exists() else []
        known = dict(json.loads(line) for line in lines)
        if key not in known:
            known[key] = trained(problem, made(seed), seed)
            if self.file:
                with self.file.open("a") as kept:
                    kept.write(json.dumps([key, known[key]]) + "\n")
        return known[key]


def trained(problem: Problem, step: Step, seed: int) -> float:
    """Returns the accuracy after all rounds, in percent."""
    rng = np.random.default_rng(seed)
    weights = np.zeros(problem.size, np.float32)
    for _ in range(ROUNDS):
        weights = (weights + step(weights, rng)).astype(np.float32)
    return problem.accuracy(weights)


def at_center(problem: Problem, epsilon: float, run: Trainings) -> Iterator[Result]:
    """Yields central privacy beside Flower's."""
    of, rate = f"epsilon={epsilon:g}", problem.rate
    theirs = run(problem, f"flower {of}", lambda s: flower(problem, epsilon, s))
    for name, adapt in (("central", False), ("central, adaptive clip", True)):
        mine = run(
            problem,
            f"{name} {of}",
            lambda s, adapt=adapt: central(problem, epsilon, s, rate=rate, adapt=adapt),
        )
        yield told(f"{problem.name} {name} {of}", mine, theirs, FLOWER)


def on_nodes(problem: Problem, epsilon: float, run: Trainings) -> Iterator[Result]:
    """Yields the models whose noise nodes add."""
    if math.isinf(epsilon):
        return
    of, noise = f"epsilon={epsilon:g}", multiplier(epsilon, 1.0)
    mine = run(problem, f"local {of}", lambda s: local(problem, epsilon, s))
    theirs = run(problem, f"flower-local {of}", lambda s: flower_local(problem, epsilon, s))
    yield told(f"{problem.name} local {of}", mine, theirs, FLOWER_LOCAL)
    plain = run(problem, f"all nodes {of}", lambda s: at(problem, noise, s, rate=1.0))
    for bits in BITS:
        name = f"distributed {bits} bits {of}"
        try:
            mine = run(problem, name, lambda s, b=bits: distributed(problem, noise, s, b))
        except ConfigError as error:
            print(f"{problem.name} {name}: not possible: {error}")
            continue
        yield told(f"{problem.name} {name}", mine, plain, SAME)


def by_example(problem: Problem, epsilon: float, run: Trainings) -> Iterator[Result]:
    """Yields DP-SGD on each node, which takes longest."""
    if math.isinf(epsilon) or problem.nodes > FEW:
        return
    of = f"epsilon={epsilon:g}"
    mine = run(problem, f"example {of}", lambda s: example(problem, epsilon, s))
    theirs = run(problem, "example", lambda s: example(problem, math.inf, s))
    yield told(f"{problem.name} example {of}", mine, theirs, PLAIN)


PARTS = {"central": at_center, "nodes": on_nodes, "example": by_example}
"""What is compared, from what is quick to what takes longest."""


def told(case: str, ours: list[float], peer: list[float], peer_name: str) -> Result:
    """Returns the comparison, after a line that says how sure it is."""
    error = math.sqrt((statistics.variance(ours) + statistics.variance(peer)) / len(ours))
    gap = statistics.mean(ours) - statistics.mean(peer)
    sure = f"{gap / error:+.1f} standard errors" if error else "no spread"
    print(f"{case}: {gap:+.2f} points, {sure}", flush=True)
    return compare(case, "accuracy", "%", ours=ours, peer=peer, peer_name=peer_name)


def main() -> None:
    """Runs what the command line asks for."""
    parser = arguments(__doc__ or "")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw accuracy over epsilon, PNG")
    parser.add_argument("--only", metavar="NAME", help='one data set, e.g. "mnist n=100"')
    parser.add_argument(
        "--part", choices=PARTS, nargs="+", help="where the noise is added: only that"
    )
    parser.add_argument("--epsilon", type=float, help="only this one")
    parser.add_argument("--seeds", type=int, help="of each training (default: 5, quick: 3)")
    parser.add_argument("--resume", type=Path, metavar="FILE", help="keep each training's accuracy")
    options = parser.parse_args()
    logging.getLogger("flwr").setLevel(logging.ERROR)
    torch.set_num_threads(1)
    sizes = [("digits", 50, 0.2, 0.5, 1.0)]
    if not options.quick:
        sizes += [("mnist", 100, 0.2, 0.5, 1.0), ("mnist", 1000, 0.1, 0.5, 1.0)]
    chosen = [size for size in sizes if options.only in {None, f"{size[0]} n={size[1]}"}]
    epsilons, seeds = ((3.0, math.inf), 3) if options.quick else (EPSILONS, 5)
    epsilons = (options.epsilon,) if options.epsilon else epsilons
    run = Trainings(options.seeds or seeds, options.resume)
    problems = [make_problem(*size) for size in chosen]
    parts = options.part or [*PARTS][: 2 if options.quick else None]
    found = [
        result
        for part in parts
        for problem in problems
        for epsilon in epsilons
        for result in PARTS[part](problem, epsilon, run)
    ]
    publish(found, options.json)
    if options.plot:
        plot(found, options.plot, peers={FLOWER, FLOWER_LOCAL}, chance=CHANCE)


if __name__ == "__main__":
    main()
