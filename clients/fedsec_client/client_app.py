"""The built-in ClientApp: trains and evaluates a task on this node's data.

It reads the plan from ``run_config["fedsec-plan"]`` and the settings of the data set that the plan
names, as JSON, from ``node_config["fedsec-data"]``. Under a plain Flower runtime these settings may
stand in ``run_config["fedsec-data"]``, the same for all nodes; which part of the data a node has
then follows from Flower's own ``partition-id`` and ``num-partitions``.
"""

import json
import logging
import math
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np
import torch
from flwr.app import Context, Message
from flwr.clientapp import ClientApp

from fedsec.errors import ConfigError, DataError, StateError
from fedsec.flower.messages import (
    EXAMPLES,
    LARGEST,
    TRAIN_LOSS,
    evaluate_reply,
    read_instruction,
    train_reply,
)
from fedsec.flower.table import local_training, private_training
from fedsec.plan import Data, FederationPlan
from fedsec.privacy.keystream import Keystream
from fedsec.privacy.ledger import Guarantee, Terms
from fedsec.tasks.arrays import get_arrays, set_arrays
from fedsec.tasks.seeds import training_seed
from fedsec.tasks.table import load_task
from fedsec.tasks.task import Examples, NodeData, Options, Task
from fedsec.tasks.task import evaluate as evaluate_task
from fedsec.vectors import Layout, Vector, is_finite
from fedsec_client.alone import Alone, alone_of

PLAN_KEY, DATA_KEY = "fedsec-plan", "fedsec-data"
KEPT = 64  # data sets and models that a process keeps; a node's worker needs one of each

app = ClientApp()

_LOG = logging.getLogger(__name__)


@app.train()
def train(message: Message, context: Context) -> Message:
    """Trains from the model that was sent; answers with the difference.

    Raises:
        ConfigError: The plan or the data's settings are wrong, or the model is not the task's.
        ProtocolError: The message is malformed.
        StateError: Training diverged, and the plan has neither [privacy] nor [secure_aggregation].
    """
    plan, bench, data = prepare(context)
    training = plan.learning[1]
    asked = read_instruction(message.content)
    seed = training_seed(training.seed, asked.heading.round, context.node_id)
    with bench.lock:
        set_arrays(bench.model, asked.arrays)
        measured = _measured(plan, bench, data.test)
        loss = _fit(plan, bench, data.train, seed)
        update = Layout.of(asked.arrays).change(asked.arrays, get_arrays(bench.model))
    if not is_finite(update):
        update = _diverged(plan, asked.heading.round, update)
    if plan.round.compare_alone:
        _alone(context).advance(asked.heading.round, data)
    if _hides(plan) and not math.isfinite(loss):
        loss = LARGEST  # it counts as the top of its range
    reply = train_reply(update, examples=len(data.train), loss=loss, more=measured)
    return Message(reply, reply_to=message)


def _hides(plan: FederationPlan) -> bool:
    """Whether to fail would tell the coordinator more of the records than the plan lets it see.

    A model can be made to diverge on certain records alone.
    """
    return plan.privacy is not None or plan.secure_aggregation is not None


def _diverged(plan: FederationPlan, number: int, update: Vector) -> Vector:
    """Returns zeros in the place of an update (d,) that is not finite, where failing would tell.

    Raises:
        StateError: Nothing is hidden.
    """
    why = (
        f"training diverged in round {number}: the update is not finite; "
        f"training.learning_rate = {plan.learning[1].learning_rate} may be too high"
    )
    if not _hides(plan):
        raise StateError(why)
    _LOG.warning("%s; with [privacy] or [secure_aggregation] it counts as zero", why)
    return np.zeros_like(update)


def _measured(plan: FederationPlan, bench: "Bench", test: Examples) -> dict[str, float]:
    """Returns what a plan with [privacy] asks of the model as it was sent, for the node's guard.

    What cannot be computed is missing, and the guard has a figure for that: scores of a model that
    was made so may fail on certain records alone, and to fail would tell.
    """
    asked = set(plan.privacy.metrics or ()) if plan.privacy is not None else set()
    asked -= {TRAIN_LOSS, EXAMPLES}
    if not asked or not len(test):
        return {}
    try:
        found = evaluate_task(bench.task, bench.model, test)
    except MemoryError:
        raise
    except Exception:  # noqa: BLE001 - a task's own metrics may raise anything
        _LOG.warning("the figures that the plan asks for count as missing", exc_info=True)
        return {}
    return {name: found[name] for name in asked & set(found) if math.isfinite(found[name])}


def _fit(plan: FederationPlan, bench: "Bench", examples: Examples, seed: int) -> float:
    """Trains the bench's model in place; returns the loss, 0 where it is nobody's business."""
    training, privacy = plan.learning[1], plan.privacy
    if privacy is None or privacy.model != "example":
        loss = local_training(training)(bench.task, bench.model, examples, seed)
        return loss if privacy is None or TRAIN_LOSS in (privacy.metrics or ()) else 0.0
    private_training(training, privacy)(bench.task, bench.model, examples, seed, Keystream())
    return 0.0


def example_terms(context: Context) -> Terms:
    """Returns what a plan with example-level privacy costs this node, whose examples it hides.

    Raises:
        ConfigError: The model or the loss mixes examples, or there are none.
    """
    plan, bench, data = prepare(context)
    training, privacy = plan.learning[1], plan.privacy
    if privacy is None:
        raise ConfigError("the plan has no [privacy]")
    if privacy.delta * len(data.train) > 1:
        raise ConfigError(
            f"privacy.delta = {privacy.delta:g} would allow one of this node's examples to be "
            "published as it is; lower it far below one over the number of examples"
        )
    with bench.lock:
        price = private_training(training, privacy).vetted(bench.task, bench.model, data.train)
    guarantee = Guarantee(
        "example",
        "add-or-remove",
        "coordinator",
        "this node's own software trains with DP-SGD; how many examples it has is no secret",
    )
    return Terms(guarantee, price, training.rounds)


@app.evaluate()
def evaluate(message: Message, context: Context) -> Message:
    """Answers with loss and metrics of the model that was sent on this node's test examples.

    Raises:
        ConfigError: As in `train`, or there are no test examples here.
        ProtocolError: The message is malformed.
    """
    plan, bench, data = prepare(context)
    asked = read_instruction(message.content)
    with bench.lock:
        set_arrays(bench.model, asked.arrays)
        metrics = evaluate_task(bench.task, bench.model, data.test)
    rounds = plan.learning[1].rounds
    if plan.round.compare_alone and asked.heading.round == rounds:
        alone = _alone(context)
        alone.advance(rounds, data)
        metrics |= alone.figures(data)
    return Message(evaluate_reply(len(data.test), metrics), reply_to=message)


@dataclass(frozen=True)
class Bench:
    """A task with a model to work on; whoever uses the model holds the lock."""

    task: Task
    model: torch.nn.Module
    lock: threading.Lock = field(default_factory=threading.Lock)


def prepare(context: Context) -> tuple[FederationPlan, Bench, NodeData]:
    """Returns what a round needs; the first call in a process reads the data and makes the model.

    A worker calls it before it says that it is ready, so that no round pays for it and data that
    cannot be used are a reason not to take part.

    Raises:
        ConfigError: The plan or the data's settings are wrong.
    """
    plan = _plan(str(context.run_config.get(PLAN_KEY, "")))
    task, training = plan.learning
    options = json.dumps(dict(task.options), sort_keys=True)
    settings = json.dumps(_data_settings(context), sort_keys=True)
    try:
        data = _data(task.name, plan.data, settings)
    except DataError as error:
        raise DataError(error.detail, task.data) from error
    except ConfigError as error:
        raise ConfigError(f"[data.{task.data}] {error}") from error
    return plan, _bench(task.name, plan.data, options, training.seed), data


def _alone(context: Context) -> Alone:
    return alone_of(str(context.run_config[PLAN_KEY]), context.run_id, context.node_id)


def _data_settings(context: Context) -> Mapping[str, object]:
    """Returns the table of the data set; JSON in a config value, as Flower's hold no tables."""
    own, shared = context.node_config, context.run_config
    text = own.get(DATA_KEY, shared.get(DATA_KEY))
    try:
        settings = json.loads(str(text)) if text is not None else {}
    except ValueError as error:
        raise ConfigError(f"{DATA_KEY} must be JSON: {error}") from error
    if not isinstance(settings, dict):
        raise ConfigError(f"{DATA_KEY} must be a JSON object, got {type(settings).__name__}")
    if DATA_KEY in own:
        return settings
    part, parts = own.get("partition-id"), own.get("num-partitions")
    if part is None or parts is None:
        raise ConfigError(
            f"this node has no data: neither node_config[{DATA_KEY!r}] nor Flower's "
            "node_config['partition-id'] and ['num-partitions'] are set"
        )
    return {"partition": part, "partitions": parts, **settings}


@lru_cache(maxsize=4)
def _plan(text: str) -> FederationPlan:
    if not text:
        raise ConfigError(f"run_config[{PLAN_KEY!r}] must hold the plan, as TOML; it is missing")
    return FederationPlan.parse(text)


@lru_cache(maxsize=KEPT)
def _data(task: str, data: Data | None, settings: str) -> NodeData:
    return load_task(task, data).load(json.loads(settings))


@lru_cache(maxsize=4)
def _bench(task: str, data: Data | None, options: str, seed: int) -> Bench:
    read: Options = json.loads(options)
    loaded = load_task(task, data)
    return Bench(loaded, loaded.make_model(read, seed))
