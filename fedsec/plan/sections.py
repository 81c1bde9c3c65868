"""The tables of a plan, each a frozen value that has been checked.

Ranges stand at the fields, so that an error can name them; what depends on several fields
stands in `fedsec.plan.compat`.
"""

import math
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Annotated, Any, Literal, Self, TypeAlias, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ModelWrapValidatorHandler,
    PlainSerializer,
    StrictBool,
    StrictFloat,
    StrictInt,
    StrictStr,
    model_validator,
)

Algorithm: TypeAlias = Literal["fedavg", "fedprox", "fedavgm", "fedadam"]
Scalar: TypeAlias = StrictBool | StrictInt | StrictFloat | StrictStr
Value = TypeVar("Value")


class Frozen(Mapping[str, Value]):
    """Values by name that cannot change underway, as a plan must not."""

    __slots__ = ("_values",)

    def __init__(self, values: Mapping[str, Value] | None = None) -> None:
        self._values = dict(values or {})

    def __getitem__(self, key: str) -> Value:
        return self._values[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __repr__(self) -> str:
        return repr(self._values)

    def __hash__(self) -> int:
        return hash(frozenset(self._values.items()))

    def __deepcopy__(self, memo: object) -> Self:
        return self


class Options(Frozen[Scalar]):
    """Text, numbers and truth values by name."""

    __slots__ = ()


Scalars: TypeAlias = Annotated[Mapping[str, Scalar], AfterValidator(Options), PlainSerializer(dict)]


def _ranges(given: Mapping[str, list[float]]) -> Mapping[str, tuple[float, float]]:
    return Frozen({name: (float(low), float(high)) for name, (low, high) in given.items()})


MetricName: TypeAlias = Annotated[
    str,
    Field(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$",
        description="1..64 letters, digits, '.', '_' or '-', a letter or digit first",
    ),
]
Range: TypeAlias = Annotated[
    list[Annotated[float, Field(ge=-1e6, le=1e6)]],
    Field(min_length=2, max_length=2, description="[low, high], numbers in -1e6..1e6"),
]
Ranges: TypeAlias = Annotated[
    Mapping[MetricName, Range], AfterValidator(_ranges), PlainSerializer(dict)
]

AppName: TypeAlias = Annotated[
    str,
    Field(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$",
        description="1..63 letters, digits, '.', '_' or '-', a letter or digit first",
    ),
]
DataName: TypeAlias = Annotated[
    str,
    Field(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,62}$",
        description="1..63 letters, digits, '_' or '-', a letter or digit first",
    ),
]
TaskName: TypeAlias = Annotated[
    str,
    Field(
        pattern=r"^([a-z0-9][a-z0-9-]*|[A-Za-z_][A-Za-z0-9_.]*:[A-Za-z_][A-Za-z0-9_]*)$",
        max_length=200,
        description='the name of a built-in task or "module:attribute"',
    ),
]
Title: TypeAlias = Annotated[
    str,
    Field(
        pattern=r"^[^\x00-\x1f\x7f]{1,100}$",
        description="1..100 characters without control characters",
    ),
]

Count: TypeAlias = Annotated[int, Field(ge=1, le=1_000_000)]
Period: TypeAlias = Annotated[int, Field(ge=0, le=1_000_000)]
Seconds: TypeAlias = Annotated[float, Field(gt=0, le=604_800)]
Rate: TypeAlias = Annotated[float, Field(gt=0, le=1_000)]
Decay: TypeAlias = Annotated[float, Field(ge=0, lt=1)]


class Section(BaseModel):
    """A table of the plan: frozen, no unknown keys, no conversion of types, no NaN."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class App(Section):
    """Which program runs: ``"fedsec"`` is built in, others are installed by the operators.

    Args:
        name: ``"fedsec"`` or the name of a Flower app known to coordinator and nodes.
        config: Overrides of the Flower app's run_config.
    """

    name: AppName = "fedsec"
    config: Scalars = Options()


class Task(Section):
    """What is learned.

    Args:
        name: A built-in task or one's own as ``module:attribute``.
        data: Name of the data set in each node's settings; a built-in task's own name if left out.
        options: What the task understands, e.g. ``model = "cnn"``.
    """

    name: TaskName
    data: DataName
    options: Scalars = Options()

    @model_validator(mode="before")
    @classmethod
    def _fill(cls, given: Any) -> Any:
        if isinstance(given, dict) and "data" not in given:
            name = given.get("name")
            if isinstance(name, str) and ":" not in name:
                return {**given, "data": name}
        return given


OWN_KEYS: Mapping[str, Mapping[str, float]] = MappingProxyType(
    {
        "fedavg": {},
        "fedprox": {"proximal_mu": 0.01},
        "fedavgm": {"server_momentum": 0.9},
        "fedadam": {"beta_1": 0.9, "beta_2": 0.99, "tau": 1e-3},
    }
)
"""Keys that only one algorithm reads, with their defaults."""

SERVER_LEARNING_RATES: Mapping[str, float] = MappingProxyType(
    {"fedavg": 1.0, "fedprox": 1.0, "fedavgm": 1.0, "fedadam": 0.03}
)


class Training(Section):
    """How it is learned. A key that the algorithm does not read is ``None``.

    Args:
        rounds: Rounds to complete.
        algorithm: How the coordinator moves the model; ``"fedprox"`` also changes the nodes' loss.
        server_learning_rate: Step along the mean update; 0.03 for ``"fedadam"``, else 1.
        server_momentum: Of ``"fedavgm"``.
        beta_1: Of ``"fedadam"``: decay of the first moment.
        beta_2: Of ``"fedadam"``: decay of the second moment.
        tau: Of ``"fedadam"``: adaptivity, the smallest denominator.
        proximal_mu: Of ``"fedprox"``: weight of the pull towards the model that was sent.
        local_epochs: Passes over a node's data per round; 1 if neither this nor steps is given.
        local_steps: Batches per round instead.
        batch_size: Examples per local step.
        optimizer: The nodes' optimiser.
        learning_rate: The nodes' learning rate.
        momentum: The nodes' momentum, for ``"sgd"``.
        weighting: ``"uniform"``: each node counts alike. ``"examples"``: by its number of examples.
        max_examples: With ``"examples"``: no node counts for more than so many.
        seed: All that is drawn is drawn from it: first model, cohorts, batches.
    """

    rounds: Count
    algorithm: Algorithm = "fedavg"
    server_learning_rate: Rate
    server_momentum: Decay | None = None
    beta_1: Decay | None = None
    beta_2: Decay | None = None
    tau: Annotated[float, Field(gt=0, le=1)] | None = None
    proximal_mu: Annotated[float, Field(gt=0, le=1_000)] | None = None
    local_epochs: Annotated[int, Field(ge=1, le=10_000)] | None = None
    local_steps: Count | None = None
    batch_size: Count = 32
    optimizer: Literal["sgd", "adam"] = "sgd"
    learning_rate: Rate = 0.05
    momentum: Decay | None = None
    weighting: Literal["uniform", "examples"] = "uniform"
    max_examples: Annotated[int, Field(ge=1, le=2**53)] | None = None
    seed: Annotated[int, Field(ge=0, le=2**63 - 1)] = 1

    @model_validator(mode="before")
    @classmethod
    def _fill(cls, given: Any) -> Any:
        if not isinstance(given, dict):
            return given
        algorithm = str(given.get("algorithm", "fedavg"))
        # For an unknown algorithm its own error says enough.
        filled: dict[str, Any] = {"server_learning_rate": SERVER_LEARNING_RATES.get(algorithm, 1.0)}
        filled |= OWN_KEYS.get(algorithm, {})
        if "local_epochs" not in given and "local_steps" not in given:
            filled["local_epochs"] = 1
        if given.get("optimizer", "sgd") == "sgd":
            filled["momentum"] = 0.0
        return filled | given


class Nodes(Section):
    """Who must be there.

    Args:
        min_available: Nodes that must be ready before the run starts.
        quorum: Nodes whose answer a round needs; as many as are drawn if left out.
        fraction: Share of the ready nodes that is drawn for a round.
        wait_s: Seconds to wait for `min_available` before the run fails.
    """

    min_available: Annotated[int, Field(ge=1, le=100_000)] = 2
    quorum: Annotated[int, Field(ge=1, le=100_000)]
    fraction: Annotated[float, Field(gt=0, le=1)] = 1.0
    wait_s: Seconds = 300.0

    @model_validator(mode="wrap")
    @classmethod
    def _fill(cls, given: Any, handler: ModelWrapValidatorHandler[Self]) -> Self:
        if not isinstance(given, dict) or "quorum" in given:
            return handler(given)
        available, fraction = given.get("min_available", 2), given.get("fraction", 1.0)
        numbers = type(available) is int and type(fraction) in {int, float}
        quorum = share(available, fraction) if numbers and 0 < fraction <= 1 else 1
        made = handler({**given, "quorum": min(max(quorum, 1), 100_000)})
        made.__pydantic_fields_set__.discard("quorum")  # the file did not say it
        return made

    def cohort(self, ready: int) -> int:
        """Returns how many of `ready` nodes a round draws.

        Never fewer than the quorum while enough are ready: a draw that cannot succeed is no draw.
        """
        return min(ready, max(self.quorum, share(ready, self.fraction)))


def share(available: int, fraction: float) -> int:
    """Returns `fraction` of `available`, rounded down, at least 1."""
    return max(1, math.floor(available * fraction + 1e-9))  # 0.07 * 100 is a hair above 7


class Round(Section):
    """How long a round may take and what happens when it does not come about.

    Args:
        deadline_s: Seconds for a node to answer.
        reconnect_s: Seconds in which a lost node may come back before its answer counts as failed.
        attempts: How often a round that misses the quorum is tried in all.
        evaluate_every: Rounds from one evaluation to the next, and after the last; 0 for never.
        compare_alone: Whether each node also trains a model by itself, which never leaves it, and
            after the last round tells how that one does on its tests. Doubles a node's work.
    """

    deadline_s: Seconds = 600.0
    reconnect_s: Annotated[float, Field(ge=0, le=604_800)] = 3.0
    attempts: Annotated[int, Field(ge=1, le=1_000)] = 3
    evaluate_every: Period = 1
    compare_alone: bool | None = None


class Model(Section):
    """What is kept.

    Args:
        save_every: Rounds from one stored model to the next; 0 stores the final one only.
    """

    save_every: Period = 0
