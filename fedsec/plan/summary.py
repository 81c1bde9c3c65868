"""A plan in sentences, for people who are about to start it or to agree to it."""

from collections.abc import Iterator, Mapping

from fedsec.plan import figures, secure_aggregation
from fedsec.plan.data import sentence as data_sentence
from fedsec.plan.federation import FederationPlan
from fedsec.plan.privacy import Privacy, drawn_in_secret, honest, population
from fedsec.plan.robust import sentence as robust_sentence
from fedsec.plan.sections import Scalar, Task, Training
from fedsec.plan.visibility import group_size

ALGORITHMS = {
    "fedavg": "FedAvg",
    "fedprox": "FedProx",
    "fedavgm": "FedAvg with server momentum",
    "fedadam": "FedAdam",
}
PRIVACY = {
    "central": "the coordinator adds noise to the aggregate",
    "local": "each node adds noise to its update",
    "distributed": "each node adds its share of noise to a sum of integers",
    "example": "each node trains with noise on its gradients",
}
OPTIMIZERS = {"sgd": "SGD", "adam": "Adam"}


def summary(plan: FederationPlan) -> list[tuple[str, str]]:
    """Returns rows of subject and sentence; every value that the run depends on is among them."""
    return list(_rows(plan))


def _rows(plan: FederationPlan) -> Iterator[tuple[str, str]]:
    yield "name", plan.name
    yield "digest", plan.digest
    if plan.task is None or plan.training is None:
        config = _options(plan.app.config)
        yield "app", f'the Flower app "{plan.app.name}"' + (f" with {config}" if config else "")
        yield "", "the app decides what is learned, by whom, and what is kept"
    else:
        yield "task", _task(plan.task)
        if plan.data is not None:
            yield "data", data_sentence(plan.data)
        yield "training", _training(plan.training)
        yield "a node", _local(plan.training)
        yield "weights", _weights(plan.training)
    if plan.privacy is not None:
        yield "privacy", _privacy(plan, plan.privacy)
        if plan.secure_aggregation is None:  # else it says so
            yield "figures", figures.sentence(plan)
    if plan.robust is not None:
        yield "robust", robust_sentence(plan.robust)
    yield "nodes", _nodes(plan)
    yield "a round", _round(plan)
    yield from secure_aggregation.sentences(plan)
    if plan.training is not None:
        last = f"round {plan.training.rounds}"
        yield "evaluated", _evaluated(plan, last)
        if plan.round.compare_alone:
            yield "alone", "each node trains a second model by itself, to compare: twice the work"
        yield "models kept", _period(plan.model.save_every, last) or f"after {last}"


def _evaluated(plan: FederationPlan, last: str) -> str:
    when = _period(plan.round.evaluate_every, last) or "never"
    if when == "never" or (plan.secure_aggregation is None and plan.privacy is None):
        return when
    return f"{when}, on the task's central examples if it has any: no node is asked for its own"


def _task(task: Task) -> str:
    options = _options(task.options)
    with_options = f" with {options}" if options else ""
    return f'{task.name}{with_options}, on each node\'s data set "{task.data}"'


def _training(training: Training) -> str:
    own = {
        "server learning rate": training.server_learning_rate,
        "momentum": training.server_momentum,
        "beta_1": training.beta_1,
        "beta_2": training.beta_2,
        "tau": training.tau,
    }
    given = ", ".join(f"{name} {value:g}" for name, value in own.items() if value is not None)
    name = ALGORITHMS[training.algorithm]
    return f"{training.rounds} rounds of {name}, {given}, seed {training.seed}"


def _local(training: Training) -> str:
    steps, epochs = training.local_steps, training.local_epochs
    work = _count(steps, "step") if steps is not None else _count(epochs or 1, "epoch")
    optimizer = f"{OPTIMIZERS[training.optimizer]}, learning rate {training.learning_rate:g}"
    momentum = f", momentum {training.momentum:g}" if training.momentum else ""
    pull = f", proximal term {training.proximal_mu:g}" if training.proximal_mu else ""
    batch = _count(training.batch_size, "example")
    return f"trains {work} in batches of {batch}; {optimizer}{momentum}{pull}"


def _weights(training: Training) -> str:
    if training.weighting == "uniform":
        return "every node counts alike"
    return f"by examples, no node for more than {training.max_examples}"


def _privacy(plan: FederationPlan, privacy: Privacy) -> str:
    who = PRIVACY[privacy.model]
    if privacy.clip_quantile is not None:
        clip = f"clip from {privacy.clip:g} towards the {privacy.clip_quantile:g} quantile"
    else:
        clip = f"clip {privacy.clip:g}"
    rate = privacy.sampling
    drawn = f", each drawn with probability {rate:g} in secret" if rate is not None else ""
    share = ""
    if privacy.model == "distributed":
        of = "them" if group_size(plan) is None else "each group"
        share = f", at least {honest(plan)} of {of} honest"
    return (
        f"{who}, noise multiplier {privacy.noise_multiplier:g}, {clip}; of {population(plan)} "
        f"nodes{drawn}{share}; at most epsilon {privacy.epsilon:g} at delta {privacy.delta:g}"
    )


def _nodes(plan: FederationPlan) -> str:
    nodes = plan.nodes
    start = f"the run starts when {nodes.min_available} are ready, within {nodes.wait_s:g} s"
    if not plan.built_in:
        return start
    if drawn_in_secret(plan):
        return f"{start}; a round draws in secret and goes on with whoever answers"
    drawn = "all" if nodes.fraction == 1 else f"{nodes.fraction:g} of those"
    return f"{start}; a round draws {drawn} that are ready, {nodes.quorum} must answer"


def _round(plan: FederationPlan) -> str:
    limits = (
        f"a node has {plan.round.deadline_s:g} s to answer, "
        f"a lost one {plan.round.reconnect_s:g} s to come back"
    )
    if not plan.built_in:
        return limits
    return f"{limits}; {_count(plan.round.attempts, 'attempt')} before the run fails"


def _period(every: int, last: str) -> str:
    if every == 0:
        return ""
    return "after every round" if every == 1 else f"after every {every} rounds and after {last}"


def _options(options: Mapping[str, Scalar]) -> str:
    return ", ".join(f"{key} = {value!r}" for key, value in options.items())


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
