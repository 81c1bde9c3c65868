"""Local privacy in a plain Flower app: `ClientApp(mods=[local_mod(...)])`.

    what is asked --> released before? --yes--> the stored update again
                           | no
                    within rounds and budget? --no--> refused, the app is not even run
                           | yes
                         app --> clip, noise --> stored --> charged --> model + update, alone

The noise is calibrated for `rounds` releases in a run; what this node's data may cost in all, over
all runs, its site says in a directory, see `fedsec.flower.privacy_directory`. No message changes
either. A release is named by what was asked: the same message again gets the same bytes.

The mod is part of the app: who chooses the app can leave it out, and plain Flower has the SuperLink
deliver the app. The site must have checked the app that its node runs. fedsec's own nodes stand
their guard around every app instead, see `fedsec.flower.node_privacy`.

Source: Kasiviswanathan, Lee, Nissim, Raskhodnikova, Smith, SIAM J. Comput. 2011 (the model). Balle,
Wang, ICML 2018, theorem 8 (the calibration: analytic, composed exactly over the rounds).
"""

import hashlib
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from flwr.app import ArrayRecord, Context, Message, MessageType, MetricRecord, RecordDict
from flwr.clientapp.typing import ClientAppCallable, Mod

from fedsec.errors import BudgetExhausted, ConfigError, PolicyRefusal, StateError
from fedsec.flower.app_plan import plan_of
from fedsec.flower.app_updates import difference, model_of
from fedsec.flower.arrays import pack
from fedsec.flower.messages import EXAMPLES
from fedsec.flower.perturb import Perturb
from fedsec.flower.privacy_directory import Kept, hold, locate
from fedsec.plan import FederationPlan
from fedsec.plan.terms import terms
from fedsec.privacy.events import Gaussian, Price
from fedsec.privacy.exactness import residue
from fedsec.privacy.keystream import Keystream
from fedsec.privacy.ledger import Charge, Terms
from fedsec.vectors import Arrays, Layout, Vector

_LOG = logging.getLogger(__name__)

WHAT = "local_mod"
METRICS = "metrics"
_MOST_ROUND = 2**31
_FAILED = "the app failed; why, says the log of this node alone: it might quote what the node has"


def local_mod(*, epsilon: float, delta: float, clip: float, rounds: int) -> Mod:
    """Returns the mod; put it first into the app's list, so that nothing gets around it.

    It hides what a node has from everybody, the coordinator included. Unit: the node. Adjacency:
    replace-one, any update is a neighbour of any other. Nothing leaves but the noised model: an app
    may report figures, they stay; `evaluate` is refused. Each node counts alike (``num-examples``
    is always 1). A model with entries that are NaN or infinite counts as one that did not move: it
    is noised and charged like any other.

    Not covered: whether and when a node answered. So whoever asks learns, as often as it asks and
    at no charge, whether the app raised, ended, or answered with anything but one model of the form
    that it was sent. An app must not do so on certain records alone, whatever model it is sent.

    Args:
        epsilon: The most that one run costs, at `delta`.
        delta: Of the guarantee.
        clip: Largest L2 norm of what a node changes about the model.
        rounds: Most releases of a node in one run.

    Raises:
        ConfigError: An argument is out of range.
    """
    plan = _plan(epsilon, delta, clip, rounds)
    privacy = plan.privacy
    if privacy is None:
        raise ConfigError(f"{WHAT}: nothing would be hidden")
    return _LocalMod(_Release(plan.digest, terms(plan), Perturb.of(privacy)))


@dataclass(frozen=True)
class _LocalMod:
    """Stands around an app: what it has trained leaves through `release` alone."""

    release: "_Release"

    def __call__(self, message: Message, context: Context, app: ClientAppCallable) -> Message:
        """Returns the noised model.

        Raises:
            PolicyRefusal: It asks for something else than training, there is no directory, or the
                node's budget does not allow it.
            ConfigError: What was sent, or what the app answered, is not one model of one form.
            StateError: The app failed, or this was released so long ago that it is not kept.
        """
        if message.metadata.message_type.partition(".")[0] != MessageType.TRAIN:
            raise PolicyRefusal(
                "under local privacy a node answers to train alone; what it measures on its "
                "examples is withheld (for FedAvg: fraction_evaluate=0.0)"
            )
        directory = locate(context.node_config)
        sent = model_of(message.content, "asked")
        (name,) = message.content.array_records
        question = _Question.of(message, context)

        def train() -> Vector:
            return difference(sent, _run(app, message, context))

        try:
            with hold(directory) as kept:
                update = self.release(kept, question, train)
        except BudgetExhausted as error:  # how much is left is the node's own business
            _LOG.error("%s", error)
            raise PolicyRefusal("this node's privacy budget does not allow it") from error
        return Message(_answer(name, sent, update), reply_to=message)


class _Question(NamedTuple):
    """What is asked; equal for equal messages of a run to a node."""

    run: int
    node: int
    round: int
    digest: str

    @classmethod
    def of(cls, message: Message, context: Context) -> "_Question":
        """Returns it, before the app can touch the message."""
        return cls(context.run_id, context.node_id, _round(message.content), _digest(message))


@dataclass(frozen=True)
class _Release:
    """How an update gets out.

    Args:
        plan: Digest of the parameters.
        terms: Price of one release, and how many a run may have.
        perturb: Clip and noise.
    """

    plan: str
    terms: Terms
    perturb: Perturb

    def __call__(self, kept: Kept, question: _Question, train: Callable[[], Vector]) -> Vector:
        """Returns the noised update (d,): made, stored and charged once.

        Raises:
            BudgetExhausted: The run had all its rounds, or the node's budget does not allow it.
        """
        charge = self._charge(question, kept.releases.name)
        of_run = [each for _, each in kept.ledger.entries() if each.run == charge.run]
        paid = any(each.key == charge.key for each in of_run)
        if not paid:
            if len(of_run) >= self.terms.releases:
                raise BudgetExhausted(
                    f"{charge.key}: the run had all of its {self.terms.releases} releases"
                )
            kept.ledger.check(charge)

        def make() -> Vector:
            if paid:
                raise StateError(f"{charge.key}: this was released, and what was is lost")
            return self.perturb(train(), Keystream())

        return kept.releases.once(charge.key, make, lambda: kept.ledger.charge(charge))

    def _charge(self, question: _Question, name: str) -> Charge:
        run = f"{question.run}/{name}"  # whoever lost the releases cannot reuse their keys
        return Charge(
            key=f"run {run} node {question.node} message {question.digest}",
            guarantee=self.terms.guarantee,
            price=self.terms.price,
            run=run,
            plan=self.plan,
            round=question.round,
        )


def _run(app: ClientAppCallable, message: Message, context: Context) -> RecordDict:
    """Returns the app's answer; its own words about a failure, which may quote data, stay here."""
    try:
        reply = app(message, context)
    except Exception as error:
        _LOG.exception("the app failed")
        raise StateError(_FAILED) from error
    if reply.has_error():
        _LOG.error("the app failed: %s", reply.error)
        raise StateError(_FAILED)
    return reply.content


def _answer(name: str, sent: Arrays, update: Vector) -> RecordDict:
    """Returns the model that the coordinator expects: what it sent, moved by `update` (d,)."""
    moves = Layout.of(sent).unflatten(update)
    with np.errstate(over="ignore", invalid="ignore"):  # float16, or a model that is not finite
        moved = {key: np.asarray(sent[key] + move) for key, move in moves.items()}
    arrays = ArrayRecord({key: pack(moved.get(key, array)) for key, array in sent.items()})
    return RecordDict({name: arrays, METRICS: MetricRecord({EXAMPLES: 1})})


def _digest(message: Message) -> str:
    """Returns a hash of all that a message asks."""
    digest = hashlib.sha256(message.metadata.message_type.encode())
    content = message.content
    for name, arrays in content.array_records.items():
        for key, array in arrays.items():
            head = name, key, array.dtype, tuple(array.shape), array.stype, len(array.data)
            digest.update(repr(head).encode())
            digest.update(array.data)
    for name, metrics in content.metric_records.items():
        digest.update(repr((name, sorted(metrics.items()))).encode())
    for name, config in content.config_records.items():
        digest.update(repr((name, sorted(config.items()))).encode())
    return digest.hexdigest()


def _round(content: RecordDict) -> int:
    """Returns the round by which Flower's strategies call it, for who reads the ledger; else 0."""
    found = [record.get("server-round") for record in content.config_records.values()]
    number = next((each for each in found if type(each) is int), 0)
    return number if 0 <= number < _MOST_ROUND else 0


def _plan(epsilon: float, delta: float, clip: float, rounds: int) -> FederationPlan:
    """Returns the plan that the arguments come to, with the least noise that is enough."""
    from fedsec.privacy.calibration import calibrate  # noqa: PLC0415 - the accountant takes seconds

    def made(noise_multiplier: float) -> FederationPlan:
        privacy = {
            "model": "local",
            "epsilon": float(epsilon),
            "delta": float(delta),
            "noise_multiplier": noise_multiplier,
            "clip": float(clip),
        }
        return plan_of(WHAT, rounds, privacy=privacy)

    made(1.0)  # the other arguments first
    one = Price(Gaussian(1.0), delta=residue(epsilon)).times(rounds).delta
    noise = calibrate(
        lambda multiplier: Price(Gaussian(multiplier), rounds, one), epsilon=epsilon, delta=delta
    )
    return made(noise)
