"""The run loop of the built-in app: `(state, round) -> state`.

    draw a cohort --> collect --> quorum? --yes--> combine --> step --> evaluate
         ^                          | no              | too little for what the plan promises
         +--- up to round.attempts -+-----------------+--> the run fails, saying who and why

How updates are collected and what is made of them are values that follow from the plan
(`fedsec.flower.table`): a `Collection` and a `Combination`.

A round depends on the state, the plan, who is ready and what the nodes answer, on nothing else; so
a run that continues from a stored state does what it would have done.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from flwr.app import MessageType
from flwr.serverapp import Grid

from fedsec.errors import StateError
from fedsec.flower.clock import CLOCK, POLL_S, Clock
from fedsec.flower.collection import Attempt, AttemptMissed, Collected, Collection, Post
from fedsec.flower.combination import Combination, Combined
from fedsec.flower.figures import figures_of
from fedsec.flower.messages import TRAIN_LOSS, instruction
from fedsec.flower.records import NodeRecord, records_json
from fedsec.flower.replies import Reasons, evaluations, mean_metrics
from fedsec.flower.reporting import (
    CENTRAL,
    COHORT,
    NODES,
    NOTE,
    ROUND,
    SECRET,
    Json,
    Reporter,
    name_of,
)
from fedsec.flower.strategy import ServerState
from fedsec.flower.table import ALGORITHMS, collection, combination, drawing, weighting
from fedsec.plan import FederationPlan
from fedsec.plan.privacy import answers_needed, drawn_in_secret
from fedsec.vectors import is_finite

Evaluation = Callable[[ServerState], Mapping[str, float]]
MAX_NAMED = 20  # nodes in one sentence


@dataclass(frozen=True, slots=True)
class Trained:
    """A round that came about: the new state, what it was made of, and in which attempt."""

    state: ServerState
    attempt: Attempt
    collected: Collected
    combined: Combined


class Rounds:
    """Carries out rounds of a plan, one call each.

    Args:
        plan: For the built-in app.
        grid: Reaches the nodes.
        reporter: Learns of every round.
        size: d, entries of the model's vector.
        evaluation: Of a state on data that no node holds; None: the nodes evaluate.
        collect: How updates become rows; None: as the plan says.
        combine: What is made of the rows; None: as the plan says.
        keep_records: Is given each round's records of nodes; None: they are reported.
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
        collect: Collection | None = None,
        combine: Combination | None = None,
        keep_records: Callable[[int, Sequence[NodeRecord]], None] | None = None,
        clock: Clock = CLOCK,
    ) -> None:
        self._plan = plan
        self._digest = plan.digest
        _, self._training = plan.learning
        self._grid = grid
        self._reporter = reporter
        self._evaluation = evaluation
        self._keep_records = keep_records or self._report_records
        self._clock = clock
        self._optimizer = ALGORITHMS[self._training.algorithm](self._training)
        self._weighting = weighting(self._training)
        self._needed = answers_needed(plan)
        self.draw = drawing(plan)
        self._post = Post(grid, plan.round.deadline_s, clock)
        self._collect = collect or collection(plan, size)
        self._combine = combine or combination(plan)

    def __call__(self, state: ServerState, round_number: int) -> ServerState:
        """Returns the state after `round_number`; `state` is that after the round before.

        Raises:
            StateError: No attempt came about; names who failed and why.
            BudgetExhausted: The round would cost more privacy than is left.
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
        attempts = self._plan.round.attempts
        for number in range(1, attempts + 1):
            cohort = self.draw(self.wait_for(self._needed), round_number, number)
            content = instruction(
                state.arrays(), round_number=round_number, attempt=number, plan=self._digest
            )
            attempt = Attempt(round_number, number, tuple(cohort), content)
            try:
                return self._try(state, attempt)
            except AttemptMissed as error:
                missed = error
                self._report_missed(attempt, missed)
        raise StateError(
            f"round {round_number} did not come about in {attempts} of {attempts} attempts "
            f"(round.attempts); in the last one {missed}. {self._blame(missed.reasons)}".strip()
        )

    def _try(self, state: ServerState, attempt: Attempt) -> Trained:
        """Returns the round that `attempt` gives; AttemptMissed if it gives none."""
        collected = self._collect(self._post, attempt)
        answered = len(collected.nodes)
        if answered < self._needed:
            raise AttemptMissed(
                f"{answered} of {len(attempt.cohort)} nodes gave a usable answer, "
                f"nodes.quorum = {self._needed}",
                collected.failed,
                collected.rejected,
            )
        combined = self._combine(attempt, collected, state.memory)
        stepped = self._optimizer.step(state, combined.vector)
        if not is_finite(stepped.vector):
            raise StateError(
                f"the model is no longer finite after round {attempt.round}: an update was "
                "too large, or training.server_learning_rate is too high"
            )
        return Trained(replace(stepped, memory=combined.memory), attempt, collected, combined)

    def _evaluate(self, state: ServerState) -> dict[str, Json]:
        """Returns what a round's report says about the quality of the model, if it is due."""
        every, last = self._plan.round.evaluate_every, self._training.rounds
        if every == 0 or (state.round % every and state.round != last):
            return {}
        central = {} if self._evaluation is None else _finite(self._evaluation(state))
        compares = self._plan.round.compare_alone and state.round == last
        if self._evaluation is not None and not compares:
            return central
        if self._plan.secure_aggregation is not None or self._plan.privacy is not None:
            return central  # a node's answer would be its own loss
        told: dict[str, Json] = {CENTRAL: list(central)} if central else {}
        return self._evaluate_at_sites(state) | central | told

    def _evaluate_at_sites(self, state: ServerState) -> dict[str, Json]:
        """Returns what the nodes find on their own tests, and who gave no answer."""
        nodes = sorted(self._grid.get_node_ids())
        content = instruction(state.arrays(), round_number=state.round, plan=self._digest)
        replies = self._post.ask(dict.fromkeys(nodes, content), MessageType.EVALUATE, state.round)
        accepted = evaluations(nodes, replies, self._post.silent)
        return figures_of(accepted, self._weighting) | {
            "evaluated": list(accepted.nodes),
            "evaluation_failed": {str(node): why for node, why in accepted.reasons.items()},
        }

    def _report(self, trained: Trained, figures: Mapping[str, Json], seconds: float) -> None:
        collected = trained.collected
        detail: dict[str, Json] = {
            "round": trained.attempt.round,
            "rounds": self._training.rounds,
            "attempt": trained.attempt.number,
        }
        if not drawn_in_secret(self._plan):  # a round of an empty cohort is over at once
            detail["seconds"] = round(seconds, 4)
        if collected.metrics:  # else they are withheld
            metrics = mean_metrics(collected.metrics, collected.weights)
            if TRAIN_LOSS in metrics:
                detail["train_loss"] = metrics[TRAIN_LOSS]
            if self._plan.secure_aggregation is None or self._training.weighting == "examples":
                detail["examples"] = sum(each.examples for each in collected.metrics)
        combined = trained.combined
        if combined.records:
            self._keep_records(trained.attempt.round, combined.records)
        who = self._who(collected)
        self._reporter.report(ROUND, detail | who | dict(combined.figures) | dict(figures))

    def _who(self, collected: Collected) -> dict[str, Json]:
        """Returns who answered and who did not, unless the draw is a secret."""
        if drawn_in_secret(self._plan):
            return {COHORT: SECRET}
        return {"answered": list(collected.nodes), **_reasons(collected)}

    def _report_records(self, round_number: int, records: Sequence[NodeRecord]) -> None:
        self._reporter.report(NODES, records_json(round_number, records))

    def _report_missed(self, attempt: Attempt, missed: AttemptMissed) -> None:
        detail: dict[str, Json] = {
            "text": f"round {attempt.round}, attempt {attempt.number}: {missed}",
            "round": attempt.round,
            "attempt": attempt.number,
        }
        self._reporter.report(NOTE, detail | _reasons(missed))

    def _blame(self, reasons: Reasons) -> str:
        named = [
            f"{name_of(self._grid, node)}: {why}" for node, why in list(reasons.items())[:MAX_NAMED]
        ]
        more = len(reasons) - len(named)
        return "; ".join(named) + (f"; and {more} more" if more else "")


def _finite(figures: Mapping[str, float]) -> dict[str, Json]:
    """Returns figures for JSON, which knows neither NaN nor infinity."""
    return {name: value if math.isfinite(value) else None for name, value in figures.items()}


def _reasons(found: Collected | AttemptMissed) -> dict[str, Json]:
    """Returns who failed and who was rejected, why; JSON's keys are text."""
    return {
        "failed": {str(node): why for node, why in found.failed.items()},
        "rejected": {str(node): why for node, why in found.rejected.items()},
    }
