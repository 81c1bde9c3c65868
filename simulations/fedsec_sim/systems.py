"""Machines of unequal speed: who is late, who is lost, and how long a round would have taken.

Time here is simulated: nobody waits. A node's speed is its own for the whole run; whether it is
lost or straggles is drawn anew in each attempt.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields

from fedsec.errors import ConfigError
from fedsec.flower.collection import Attempt
from fedsec.flower.replies import Reasons
from fedsec_sim.chance import SYSTEMS, generator

LOST = "the connection was lost (simulated)"


@dataclass(frozen=True, slots=True)
class Systems:
    """What machines and their lines are like.

    Args:
        examples_per_s: Examples that the median node trains on in a second, > 0.
        spread: Of the nodes' speeds: standard deviation of their logarithm, >= 0.
        bytes_per_s: Of each node's line, down and up, > 0.
        latency_s: Seconds for any answer, >= 0.
        dropout: Chance that a node that was asked is lost, in [0, 1).
        stragglers: Chance that a node is slow this time, in [0, 1].
        slowdown: How many times longer a straggler then takes, >= 1.
    """

    examples_per_s: float = 1000.0
    spread: float = 0.5
    bytes_per_s: float = 1e6
    latency_s: float = 0.1
    dropout: float = 0.0
    stragglers: float = 0.0
    slowdown: float = 10.0

    def __post_init__(self) -> None:
        for name in ("examples_per_s", "bytes_per_s"):
            if not getattr(self, name) > 0:
                raise ConfigError(f"{name} must be > 0, got {getattr(self, name)}")
        if not 0 <= self.dropout < 1:
            raise ConfigError(f"dropout must be in [0, 1), got {self.dropout}")
        if not 0 <= self.stragglers <= 1:
            raise ConfigError(f"stragglers must be in [0, 1], got {self.stragglers}")
        if self.spread < 0 or self.latency_s < 0 or self.slowdown < 1:
            raise ConfigError(
                f"spread and latency_s must be >= 0 and slowdown >= 1, got {self.spread}, "
                f"{self.latency_s} and {self.slowdown}"
            )

    def seconds(self, node: int, *, examples: int, size: int, seed: int) -> float:
        """Returns how long a node takes that does not straggle.

        Args:
            node: Its id.
            examples: That it trains on in a round, all passes together.
            size: Of an update, bytes; as many travel down.
            seed: Of the speeds.
        """
        normal = generator(seed, SYSTEMS, node).normal()
        rate = self.examples_per_s * math.exp(self.spread * normal)
        return self.latency_s + examples / rate + 2 * size / self.bytes_per_s


def make_systems(given: Mapping[str, object], where: str) -> Systems:
    """Returns machines as a table describes them.

    Args:
        given: Fields of `Systems`.
        where: It stands, for errors.

    Raises:
        ConfigError: A key is unknown or its value out of range.
    """
    known = [field.name for field in fields(Systems)]
    for key, value in given.items():
        if key not in known:
            raise ConfigError(f"{where} {key}: unknown; known: {', '.join(known)}")
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise ConfigError(f"{where} {key} = {value}: want a number")
    return Systems(**{key: float(str(value)) for key, value in given.items()})


class Clockwork:
    """Systems at work in a run; see `fedsec_sim.collecting.Attendance`.

    Args:
        systems: What machines are like.
        work: How many examples a node trains on in a round, by its id.
        size: Of an update, bytes.
        deadline_s: The plan's.
        seed: Of all that is drawn.
    """

    def __init__(
        self,
        systems: Systems,
        work: Callable[[int], int],
        *,
        size: int,
        deadline_s: float,
        seed: int,
    ) -> None:
        self._systems = systems
        self._work = work
        self._size = size
        self._deadline_s = deadline_s
        self._seed = seed
        self._usual: dict[int, float] = {}
        self.now_s = 0.0

    def __call__(self, attempt: Attempt) -> tuple[Sequence[int], Reasons]:
        """Returns who answers in time; the clock moves on to the last answer, or the deadline."""
        present: list[int] = []
        failed: dict[int, str] = {}
        longest = 0.0
        draws = generator(self._seed, SYSTEMS, 0, attempt.round, attempt.number).random(
            (len(attempt.cohort), 2)
        )
        for node, (luck, pace) in zip(attempt.cohort, draws, strict=True):
            seconds = self._seconds(node)
            if pace < self._systems.stragglers:
                seconds *= self._systems.slowdown
            if luck < self._systems.dropout:
                failed[node] = LOST
            elif seconds > self._deadline_s:
                failed[node] = f"no answer within {self._deadline_s:g} s (round.deadline_s)"
                longest = self._deadline_s
            else:
                present.append(node)
                longest = max(longest, seconds)
        self.now_s += longest
        return present, failed

    def _seconds(self, node: int) -> float:
        if node not in self._usual:
            self._usual[node] = self._systems.seconds(
                node, examples=self._work(node), size=self._size, seed=self._seed
            )
        return self._usual[node]
