"""The run loop of the built-in app: `(state, round) -> state`.

    draw a cohort --> train --> check replies --> quorum? --yes--> rule --> step --> evaluate
         ^                                           | no
         +------------- up to round.attempts --------+--> the run fails, saying who and why

A round depends on the state, the plan, who is ready and what the nodes answer, on nothing else; so
a run that continues from a stored state does what it would have done.
"""

import hashlib
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from flwr.app import Message, MessageType, RecordDict
from flwr.serverapp import Grid

from fedsec.errors import StateError
from fedsec.flower.messages import TRAIN_LOSS, instruction
from fedsec.flower.replies import Accepted, Gatherer, Reasons, evaluations, mean_metrics
from fedsec.flower.reporting import NOTE, ROUND, Json, Reporter, name_of
from fedsec.flower.strategy import Mean, Rule, ServerState
from fedsec.flower.table import ALGORITHMS, weighting
from fedsec.plan import FederationPlan
from fedsec.vectors import is_finite

Evaluation = Callable[[ServerState], Mapping[str, float]]
POLL_S = 0.1
MAX_NAMED = 20  # nodes in one sentence


@dataclass(frozen=True, slots=True)
class Clock:
    """Time, as a value, so that tests need not wait. Seconds."""

    now: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep


MEAN, CLOCK = Mean(), Clock()


@dataclass(frozen=True, slots=True)
class Trained:
    """A round that reached its quorum: the new state, the replies, and which attempt it was."""

    state: ServerState
    accepted: Accepted
    attempt: int


class Rounds:
    """Carries out rounds of a plan, one call each.

    Args:
        plan: For the built-in app.
        grid: Reaches the nodes.
        reporter: Learns of every round.
        size: d, entries of the model's vector.
        evaluation: Of a state on data that no node holds; None: the nodes evaluate.
        rule: From updates to one vector.
        clock: For tests.
    """

    def __init__(
        self,
        plan: FederationPlan,
        grid: Grid,
        reporter: Reporter,
        *,
        size: int,
        evaluation: Evaluation | None = None,
        rule: Rule = MEAN,
        clock: Clock = CLOCK,
    ) -> None:
        self._plan = plan
        _, self._training = plan.learning
        self._grid = grid
        self._reporter = reporter
        self._evaluation = evaluation
        self._rule = rule
        self._clock = clock
        self._optimizer = ALGORITHMS[self._training.algorithm](self._training)
        self._weighting = weighting(self._training)
        self._gatherer = Gatherer(size)

    def __call__(self, state: ServerState, round_number: int) -> ServerState:
        """Returns the state after `round_number`; `state` is that after the round before.

        Raises:
            StateError: The quorum was missed in every attempt; names who failed and why.
        """
        if state.round != round_number - 1:
            raise StateError(
                f"round {round_number} cannot follow a state after round {state.round}"
            )
        started = self._clock.now()
        trained = self._train(state, round_number)
        figures = self._evaluate(trained.state)
        self._report(trained, figures, self._clock.now() - started)
        return trained.state

    def wait_for(self, count: int) -> list[int]:
        """Returns the ids of the ready nodes, ascending, once there are `count`.

        Raises:
            StateError: There are not so many within nodes.wait_s.
        """
        limit = self._clock.now() + self._plan.nodes.wait_s
        while True:
            ready = sorted(self._grid.get_node_ids())
            if len(ready) >= count:
                return ready
            if self._clock.now() >= limit:
                raise StateError(
                    f"{len(ready)} nodes are ready, {count} are needed; waited "
                    f"{self._plan.nodes.wait_s:g} s (nodes.wait_s)"
                )
            self._clock.sleep(POLL_S)

    def _train(self, state: ServerState, round_number: int) -> Trained:
        quorum, attempts = self._plan.nodes.quorum, self._plan.round.attempts
        content = instruction(state.arrays(), round_number=round_number, plan=self._plan.digest)
        for attempt in range(1, attempts + 1):
            cohort = self.draw(self.wait_for(quorum), round_number, attempt)
            replies, silent = self._ask(cohort, MessageType.TRAIN, content, round_number)
            accepted = self._gatherer.updates(cohort, replies, silent)
            if len(accepted.nodes) >= quorum:
                shares = self._weighting(accepted.examples)
                stepped = self._optimizer.step(state, self._rule(accepted.updates, shares))
                if not is_finite(stepped.vector):
                    raise StateError(
                        f"the model is no longer finite after round {round_number}: an update was "
                        "too large, or training.server_learning_rate is too high"
                    )
                return Trained(stepped, accepted, attempt)
            self._report_missed(accepted, round_number, attempt, len(cohort))
        raise StateError(
            f"round {round_number} missed the quorum in {attempts} of {attempts} attempts: "
            f"{len(accepted.nodes)} of {len(cohort)} nodes gave a usable answer in the last one, "
            f"nodes.quorum = {quorum}. {self._blame(accepted.reasons)}"
        )

    def draw(self, ready: Sequence[int], round_number: int, attempt: int) -> list[int]:
        """Returns the cohort, ascending: a random set of the plan's size, from the plan's seed.

        Every node has a random rank that depends on seed, round, attempt and its id alone, so
        that who else is ready changes nothing between two nodes.
        """

        def rank(node: int) -> bytes:
            words = f"cohort {self._training.seed} {round_number} {attempt} {node}"
            return hashlib.sha256(words.encode()).digest()

        return sorted(sorted(ready, key=rank)[: self._plan.nodes.cohort(len(ready))])

    def _ask(
        self, nodes: Sequence[int], message_type: str, content: RecordDict, round_number: int
    ) -> tuple[list[Message], str]:
        """Sends `content` to `nodes`; returns the replies and what to say of those without one."""
        deadline = self._plan.round.deadline_s
        messages = [
            Message(
                content,
                dst_node_id=node,
                message_type=message_type,
                group_id=str(round_number),
                ttl=deadline,
            )
            for node in nodes
        ]
        replies = list(self._grid.send_and_receive(messages, timeout=deadline))
        return replies, f"no answer within {deadline:g} s (round.deadline_s)"

    def _evaluate(self, state: ServerState) -> dict[str, Json]:
        """Returns what a round's report says about the quality of the model, if it is due."""
        every, last = self._plan.round.evaluate_every, self._training.rounds
        if every == 0 or (state.round % every and state.round != last):
            return {}
        if self._evaluation is not None:
            return _finite(self._evaluation(state))
        nodes = sorted(self._grid.get_node_ids())
        content = instruction(state.arrays(), round_number=state.round, plan=self._plan.digest)
        replies, silent = self._ask(nodes, MessageType.EVALUATE, content, state.round)
        accepted = evaluations(nodes, replies, silent)
        figures: dict[str, Json] = {}
        if accepted.nodes:
            figures |= _finite(mean_metrics(accepted, self._weighting(accepted.examples)))
        return figures | {
            "evaluated": list(accepted.nodes),
            "evaluation_failed": {str(node): why for node, why in accepted.reasons.items()},
        }

    def _report(self, trained: Trained, figures: Mapping[str, Json], seconds: float) -> None:
        accepted = trained.accepted
        shares = self._weighting(accepted.examples)
        loss = mean_metrics(accepted, shares)[TRAIN_LOSS]
        detail: dict[str, Json] = {
            "round": trained.state.round,
            "rounds": self._training.rounds,
            "attempt": trained.attempt,
            "seconds": round(seconds, 4),
            "train_loss": loss,
            "examples": sum(accepted.examples),
        }
        self._reporter.report(ROUND, detail | _who(accepted) | dict(figures))

    def _report_missed(
        self, accepted: Accepted, round_number: int, attempt: int, asked: int
    ) -> None:
        text = (
            f"round {round_number}, attempt {attempt}: {len(accepted.nodes)} of {asked} nodes "
            f"gave a usable answer, nodes.quorum = {self._plan.nodes.quorum}"
        )
        detail: dict[str, Json] = {"text": text, "round": round_number, "attempt": attempt}
        self._reporter.report(NOTE, detail | _who(accepted))

    def _blame(self, reasons: Reasons) -> str:
        named = [
            f"{name_of(self._grid, node)}: {why}" for node, why in list(reasons.items())[:MAX_NAMED]
        ]
        more = len(reasons) - len(named)
        return "; ".join(named) + (f"; and {more} more" if more else "")


def _finite(figures: Mapping[str, float]) -> dict[str, Json]:
    """Returns figures for JSON, which knows neither NaN nor infinity."""
    return {name: value if math.isfinite(value) else None for name, value in figures.items()}


def _who(accepted: Accepted) -> dict[str, Json]:
    return {
        "answered": list(accepted.nodes),
        "failed": {str(node): why for node, why in accepted.failed.items()},
        "rejected": {str(node): why for node, why in accepted.rejected.items()},
    }
