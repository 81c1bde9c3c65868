"""The coordinator's half of a round: weights, the mean, and the step of the global model.

Rules turn the accepted updates (n, d) into one vector (d,); optimisers move the model along it.
Both are frozen values; what changes is the `ServerState`, which goes in and comes out, and which
can be stored after any round and continued bit by bit.

Sources: McMahan, Moore, Ramage, Hampson, Agueera y Arcas, "Communication-Efficient Learning of
Deep Networks from Decentralized Data", AISTATS 2017, algorithm 1 (FedAvg). Hsu, Qi, Brown,
arXiv:1909.06335, 2019, section 4.2 (FedAvgM). Reddi, Charles, Zaheer, Garrett, Rush, Konecny,
Kumar, McMahan, "Adaptive Federated Optimization", ICLR 2021, algorithm 2 (FedAdam).
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from fedsec.errors import ConfigError
from fedsec.vectors import Arrays, Layout, Vector

Matrix: TypeAlias = NDArray[np.float32]
Weights: TypeAlias = NDArray[np.float64]

_NOTHING: Mapping[str, Any] = MappingProxyType({})


class Rule(Protocol):
    """How updates become one."""

    def __call__(self, updates: Matrix, weights: Weights) -> Vector:
        """Returns one vector (d,).

        Args:
            updates: One accepted, finite update per row (n, d), n >= 1; never changed.
            weights: Share of each row (n,), >= 0, summing to 1.
        """
        ...


@dataclass(frozen=True, slots=True)
class Mean:
    """The weighted mean. One pass over the matrix; error about n rounding steps of float32.

    >>> Mean()(np.array([[1.0, 2.0], [3.0, 4.0]], np.float32), np.array([0.5, 0.5]))
    array([2., 3.], dtype=float32)
    """

    def __call__(self, updates: Matrix, weights: Weights) -> Vector:
        """Returns the mean (d,) of the rows of `updates`."""
        return weights.astype(np.float32) @ updates


@dataclass(frozen=True, slots=True)
class Weighting:
    """How much each node counts: alike, or by its number of examples up to a cap.

    Args:
        max_examples: The cap, >= 1; None: all nodes count alike.

    >>> Weighting(max_examples=100)([50, 1_000_000])
    array([0.33333333, 0.66666667])
    """

    max_examples: int | None = None

    def __post_init__(self) -> None:
        if self.max_examples is not None and self.max_examples < 1:
            raise ConfigError(f"max_examples must be >= 1, got {self.max_examples}")

    def __call__(self, examples: Sequence[int]) -> Weights:
        """Returns the share of each node (n,), summing to 1.

        Args:
            examples: As the nodes claim, each >= 1.

        Raises:
            ConfigError: There is no node.
        """
        if not examples:
            raise ConfigError("there is nothing to weigh: no node's reply was accepted")
        if self.max_examples is None:
            return np.full(len(examples), 1.0 / len(examples))
        capped = np.minimum(np.asarray(examples, np.float64), float(self.max_examples))
        shares: Weights = capped / capped.sum()
        return shares


@dataclass(frozen=True, eq=False)
class ServerState:
    """All that one round hands to the next.

    Args:
        round: Rounds completed.
        vector: The model's floating-point entries (d,).
        layout: What they are, in order.
        fixed: Arrays that are not averaged (integers, booleans); they stay as they were first made.
        slots: The optimiser's vectors (d,) by name.
        memory: What the combination remembers, by name.
    """

    round: int
    vector: Vector
    layout: Layout
    fixed: Arrays = field(default_factory=lambda: _NOTHING)
    slots: Mapping[str, Vector] = field(default_factory=lambda: _NOTHING)
    memory: Arrays = field(default_factory=lambda: _NOTHING)

    @classmethod
    def begin(cls, arrays: Arrays, optimizer: "ServerOptimizer") -> "ServerState":
        """Returns the state before the first round, for a model with these `arrays`.

        Raises:
            ConfigError: The model has no floating-point array, or one that cannot be trained.
        """
        layout = Layout.of(arrays)
        if layout.size == 0:
            raise ConfigError("the model has no floating-point array: there is nothing to train")
        fixed = {name: array.copy() for name, array in layout.fixed(arrays).items()}
        return cls(0, layout.flatten(arrays), layout, fixed, optimizer.slots(layout.size))

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Returns the model's arrays by name, in the layout's order."""
        made = self.layout.unflatten(self.vector) | dict(self.fixed)
        return {slot.name: made[slot.name] for slot in self.layout.slots}

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """Returns all arrays of the state, for storage; `to_json` is the rest of it."""
        fixed = {f"fixed/{name}": array for name, array in self.fixed.items()}
        slots = {f"slot/{name}": vector for name, vector in self.slots.items()}
        memory = {f"memory/{name}": array for name, array in self.memory.items()}
        return {"vector": self.vector, **fixed, **slots, **memory}

    def to_json(self) -> str:
        """Returns what of the state is no array."""
        return json.dumps({"round": self.round, "layout": self.layout.to_json()})

    @classmethod
    def from_arrays(cls, arrays: Arrays, text: str) -> "ServerState":
        """Returns the state that `to_arrays` and `to_json` stored.

        Raises:
            ConfigError: They are not of one state.
        """
        try:
            kept = json.loads(text)
            layout, round_number = Layout.from_json(kept["layout"]), int(kept["round"])
            vector = np.asarray(arrays["vector"])
        except (ValueError, TypeError, KeyError) as error:
            raise ConfigError(f"not a stored state: {error!r}") from error
        parts: dict[str, dict[str, NDArray[Any]]] = {"fixed": {}, "slot": {}, "memory": {}}
        for key, array in arrays.items():
            kind, _, name = key.partition("/")
            if kind in parts:
                parts[kind][name] = array
        vectors = [vector, *parts["slot"].values()]
        if any(v.dtype != np.float32 or v.shape != (layout.size,) for v in vectors):
            raise ConfigError(f"a stored state's vectors must be float32 ({layout.size},)")
        return cls(round_number, vector, layout, parts["fixed"], parts["slot"], parts["memory"])


class ServerOptimizer(Protocol):
    """How the model moves along an aggregate."""

    def slots(self, size: int, /) -> dict[str, Vector]:
        """Returns the optimiser's own vectors (d,) before the first round."""
        ...

    def step(self, state: ServerState, aggregate: Vector) -> ServerState:
        """Returns the state after a round whose rule returned `aggregate` (d,)."""
        ...


@dataclass(frozen=True, slots=True)
class FedAvg:
    """``w + learning_rate * aggregate``; with 1 the plain mean of the nodes' models."""

    learning_rate: float = 1.0

    def slots(self, _size: int, /) -> dict[str, Vector]:
        """Returns nothing: there is no memory."""
        return {}

    def step(self, state: ServerState, aggregate: Vector) -> ServerState:
        """See `ServerOptimizer`."""
        moved = state.vector + np.float32(self.learning_rate) * aggregate
        return replace(state, round=state.round + 1, vector=moved)


@dataclass(frozen=True, slots=True)
class FedAvgM:
    """Server momentum: ``m = momentum * m + aggregate; w + learning_rate * m``."""

    learning_rate: float = 1.0
    momentum: float = 0.9

    def slots(self, size: int, /) -> dict[str, Vector]:
        """Returns a zero momentum."""
        return {"momentum": np.zeros(size, np.float32)}

    def step(self, state: ServerState, aggregate: Vector) -> ServerState:
        """See `ServerOptimizer`."""
        momentum = np.float32(self.momentum) * state.slots["momentum"] + aggregate
        moved = state.vector + np.float32(self.learning_rate) * momentum
        return replace(state, round=state.round + 1, vector=moved, slots={"momentum": momentum})


@dataclass(frozen=True, slots=True)
class FedAdam:
    """Adam on the coordinator, as in the paper: no bias correction, first v is tau squared.

    ``m = beta_1 m + (1 - beta_1) a;  v = beta_2 v + (1 - beta_2) a^2;
    w + learning_rate * m / (sqrt(v) + tau)``
    """

    learning_rate: float = 0.03
    beta_1: float = 0.9
    beta_2: float = 0.99
    tau: float = 1e-3

    def slots(self, size: int, /) -> dict[str, Vector]:
        """Returns zero first moments and second moments of tau squared."""
        return {
            "first": np.zeros(size, np.float32),
            "second": np.full(size, self.tau**2, np.float32),
        }

    def step(self, state: ServerState, aggregate: Vector) -> ServerState:
        """See `ServerOptimizer`."""
        beta_1, beta_2 = np.float32(self.beta_1), np.float32(self.beta_2)
        one, rate, tau = np.float32(1), np.float32(self.learning_rate), np.float32(self.tau)
        first = beta_1 * state.slots["first"] + (one - beta_1) * aggregate
        second = beta_2 * state.slots["second"] + (one - beta_2) * aggregate * aggregate
        root: Vector = np.sqrt(second)
        moved = state.vector + rate * first / (root + tau)
        return replace(
            state,
            round=state.round + 1,
            vector=moved,
            slots={"first": first, "second": second},
        )
