"""Secure sums in a ServerApp of one's own: any of Flower's averaging strategies, around sums.

    from fedsec.flower import SecureStrategy

    strategy = SecureStrategy(FedAvg(fraction_evaluate=0.0), plan, run_config=context.run_config)
    result = strategy.start(grid=grid, initial_arrays=ArrayRecord(model.state_dict()))

The strategy inside draws the nodes and moves the model as ever. What it is handed of a round is one
answer in the place of all: the mean of the models, weighted as the plan says. It must be one that
averages; a rule that compares the nodes' models has nothing to compare. Nodes do not evaluate: each
answer would be a figure of one node. Pass ``evaluate_fn`` to ``start``.
"""

from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType

from flwr.app import ArrayRecord, ConfigRecord, Message, MessageType, MetricRecord, RecordDict
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Result, Strategy

from fedsec.errors import ConfigError, StateError
from fedsec.flower.app_updates import model_of
from fedsec.flower.arrays import pack
from fedsec.flower.collection import Attempt, AttemptMissed, Collected, Post
from fedsec.flower.messages import EXAMPLES, INSTRUCTION, Heading, heading_record
from fedsec.flower.publishing import RunConfig
from fedsec.flower.secure_messages import RUN_CONFIG
from fedsec.flower.secure_sum import SecureSum
from fedsec.flwr_compat import Run
from fedsec.plan import FederationPlan
from fedsec.vectors import Layout

Evaluate = Callable[[int, ArrayRecord], MetricRecord | None]
NO_CONFIG: RunConfig = MappingProxyType({})


class SecureStrategy:
    """Carries out a strategy's rounds as secure sums.

    Args:
        inner: One of Flower's strategies that average, e.g. FedAvg, FedAvgM, FedAdam.
        plan: For a Flower app, with secure aggregation.
        trusted: Signing keys by node id, from the federation's signed roster: in malicious mode a
            node that the others would refuse is left out first. None: not known here.
        run_config: The ServerApp's. On plain Flower each node compares its own with it: one that
            was configured otherwise trains otherwise, and is in no sum.

    Raises:
        ConfigError: The plan has no secure aggregation.
    """

    def __init__(
        self,
        inner: Strategy,
        plan: FederationPlan,
        trusted: Mapping[int, bytes] | None = None,
        *,
        run_config: RunConfig = NO_CONFIG,
    ) -> None:
        if plan.secure_aggregation is None:
            raise ConfigError("the plan has no [secure_aggregation]")
        self._inner = inner
        self._plan = plan
        self._trusted = trusted
        self._run_config = run_config

    def start(
        self,
        grid: Grid,
        initial_arrays: ArrayRecord,
        *,
        num_rounds: int = 3,
        timeout: float = 3600,
        train_config: ConfigRecord | None = None,
        evaluate_fn: Evaluate | None = None,
    ) -> Result:
        """Runs the strategy; arguments as of Flower's `Strategy.start`.

        Raises:
            StateError: A round came about in none of the plan's attempts.
        """
        return self._inner.start(
            grid=SummingGrid(grid, self._plan, self._trusted, self._run_config),
            initial_arrays=initial_arrays,
            num_rounds=num_rounds,
            timeout=timeout,
            train_config=train_config,
            evaluate_fn=evaluate_fn,
        )


class SummingGrid(Grid):
    """A Grid whose nodes answer a round of training together, with one mean.

    Args:
        grid: Reaches the nodes.
        plan: With secure aggregation.
        trusted: As of `SecureStrategy`.
        run_config: As of `SecureStrategy`.
    """

    def __init__(
        self,
        grid: Grid,
        plan: FederationPlan,
        trusted: Mapping[int, bytes] | None = None,
        run_config: RunConfig = NO_CONFIG,
    ) -> None:
        self._grid = grid
        self._plan = plan
        self._trusted = trusted
        self._run_config = ConfigRecord(dict(run_config))
        self._round = 0
        self._sum: SecureSum | None = None

    def set_run(self, run: Run) -> None:
        """See `Grid`."""
        self._grid.set_run(run)

    @property
    def run(self) -> Run:
        """See `Grid`."""
        return self._grid.run

    def create_message(
        self,
        content: RecordDict,
        message_type: str,
        dst_node_id: int,
        group_id: str,
        ttl: float | None = None,
    ) -> Message:
        """See `Grid`."""
        return self._grid.create_message(content, message_type, dst_node_id, group_id, ttl)

    def get_node_ids(self) -> Iterable[int]:
        """See `Grid`."""
        return self._grid.get_node_ids()

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Refuses: no single answer is to be had."""
        raise StateError(
            f"{len(list(messages))} messages were pushed; under secure aggregation a round is "
            "asked for by send_and_receive"
        )

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Returns nothing; see `push_messages`."""
        del message_ids
        return []

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> Iterable[Message]:
        """Returns one answer for all who were asked to train; none for an evaluation.

        Raises:
            StateError: The sum came about in none of the plan's attempts; says why.
        """
        asked = [each for each in messages if each.metadata.message_type == MessageType.TRAIN]
        if not asked:
            return []
        self._round += 1
        attempts, missed = self._plan.round.attempts, AttemptMissed("nobody was asked", {}, {})
        seconds = self._plan.round.deadline_s
        post = Post(self._grid, seconds if timeout is None else min(timeout, seconds))
        for number in range(1, attempts + 1):
            try:
                return [self._answer(asked, self._collect(post, asked, number))]
            except AttemptMissed as error:
                missed = error
        reasons = "; ".join(f"node {node}: {why}" for node, why in missed.reasons.items())
        raise StateError(
            f"round {self._round} did not come about in {attempts} attempts (round.attempts); in "
            f"the last one {missed}. {reasons}".strip()
        )

    def _collect(self, post: Post, asked: list[Message], number: int) -> Collected:
        content = asked[0].content
        heading = Heading(self._round, number, self._plan.digest)
        ours = {INSTRUCTION: heading_record(heading)}
        if self._run_config:
            ours[RUN_CONFIG] = self._run_config
        told = RecordDict({**dict(content.items()), **ours})
        cohort = tuple(sorted(each.metadata.dst_node_id for each in asked))
        if self._sum is None:
            size = Layout.of(model_of(content, "asked")).size
            self._sum = SecureSum(self._plan, size, self._trusted)
        return self._sum(post, Attempt(self._round, number, cohort, told))

    def _answer(self, asked: list[Message], collected: Collected) -> Message:
        """Returns the mean of the models as if one node had answered with it."""
        content = asked[0].content
        sent = model_of(content, "asked")
        layout = Layout.of(sent)
        moved = layout.unflatten(layout.flatten(sent) + collected.rows[0]) | layout.fixed(sent)
        (name,) = content.array_records
        arrays = ArrayRecord({slot.name: pack(moved[slot.name]) for slot in layout.slots})
        figures: dict[str, int | float | list[int] | list[float]] = {
            EXAMPLES: max(1, round(float(collected.weights[0])))
        }
        for metrics in collected.metrics:
            figures |= {key: value for key, value in metrics.values.items() if key != EXAMPLES}
        told = RecordDict({name: arrays, "metrics": MetricRecord(figures)})
        return Message(told, reply_to=asked[0])
