"""The robust rules as a strategy for any Flower ServerApp, on any of Flower's runtimes.

    from fedsec.flower import RobustFedAvg

    strategy = RobustFedAvg(rule="trimmed-mean", byzantine=3, before=["nnm"])
    result = strategy.start(grid=grid, initial_arrays=ArrayRecord(model.state_dict()))

The words are those of `[robust]` in a plan. Nodes answer with whole models, as for Flower's FedAvg;
what the rule sees is how each differs from the model that was sent, so that no precision is lost to
what all have in common. Integers and truth values (counters of BatchNorm) stay as they were sent.
"""

import math
import statistics
from collections.abc import Callable, Iterable, Sequence

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.serverapp import Grid
from flwr.serverapp.strategy import FedAvg, Strategy

from fedsec.errors import ConfigError
from fedsec.flower.arrays import pack, unpack
from fedsec.flower.collection import LONGEST, Attempt, AttemptMissed, Collected, too_large
from fedsec.flower.combination import Combination
from fedsec.flower.records import NodeRecord
from fedsec.flower.replies import sort_replies
from fedsec.flower.robust import RobustCombination
from fedsec.flower.strategy import Matrix
from fedsec.plan import Robust
from fedsec.plan.reading import list_problems, read_mapping
from fedsec.plan.robust import TRUSTING
from fedsec.plan.robust_rules import problems
from fedsec.vectors import Arrays, Layout, Vector, is_finite, is_longer

SILENT = "no answer in time"
HERE = "server-app"  # stands where a plan names root data
SUSPECTS, EXCLUDED = "robust-suspects", "robust-excluded"


class RobustFedAvg(Strategy):
    """Flower's FedAvg with a Byzantine-robust rule in place of the mean.

    What does not fit the model that was sent is left out and counts against `byzantine`. If there
    is more of it, or if too few answer for the rule's promise, `aggregate_train` raises: nothing
    weaker takes the rule's place. Nodes count alike, whatever number of examples they claim; of
    each metric that most of them report, the median over the nodes is told.

    Args:
        rule: Name of a rule; `fedsec robust list` shows all.
        byzantine: How many of the nodes asked may be hostile: a count, or a share in [0, 0.5).
        before: Pre-aggregations: names, or tables such as ``{"name": "clip", "norm": 1.0}``.
        options: Parameters of the rule.
        on_suspect: ``"exclude"`` runs the rule again without those that stand out.
        root: For ``"fltrust"`` and ``"monna"``: trains the model that is sent on clean data of the
            ServerApp's own, as the nodes do, and returns it.
        inner: Draws nodes and makes messages; Flower's FedAvg as it comes if left out.

    Attributes:
        records: What is recorded of each node, by round; never vectors.

    Raises:
        ConfigError: An argument is wrong; the message lists all that are.
    """

    def __init__(
        self,
        rule: str,
        byzantine: float,
        *,
        before: Sequence[str | dict[str, object]] = (),
        options: dict[str, int | float] | None = None,
        on_suspect: str = "log",
        root: Callable[[ArrayRecord], ArrayRecord] | None = None,
        inner: FedAvg | None = None,
    ) -> None:
        given = {
            "rule": rule,
            "byzantine": byzantine,
            "before": list(before),
            "options": options or {},
            "on_suspect": on_suspect,
        }
        if root is not None:
            given["root"] = HERE
        robust = read_mapping(Robust, given, what="RobustFedAvg")
        if robust.rule in TRUSTING and root is None:
            raise ConfigError(
                f'RobustFedAvg: "{rule}" trusts an update on clean data: give root, a function '
                "from the model that is sent to the one trained on them"
            )
        wrong = [f"{refusal.key.removeprefix('robust.')}: {refusal.reason}"
                 for refusal in problems(robust)]  # fmt: skip
        if wrong:
            raise ConfigError(list_problems("RobustFedAvg", wrong))
        self.records: dict[int, tuple[NodeRecord, ...]] = {}
        self._combine: Combination = RobustCombination(
            robust, root=None if root is None else self._root_update
        )
        self._root = root
        self._inner = FedAvg() if inner is None else inner
        self._memory: Arrays = {}
        self._sent: Arrays = {}
        self._asked: tuple[int, ...] = ()
        self._rows: Matrix = np.empty((0, 0), np.float32)

    def summary(self) -> None:
        """See `Strategy`."""
        self._inner.summary()

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """See `Strategy`; remembers what was sent and to whom."""
        messages = list(self._inner.configure_train(server_round, arrays, config, grid))
        self._sent = {name: array.numpy() for name, array in arrays.items()}
        self._asked = tuple(sorted(message.metadata.dst_node_id for message in messages))
        return messages

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Returns the next model and the medians of the metrics; nothing if nobody was asked.

        Raises:
            AttemptMissed: More than `byzantine` replies cannot be used, or too few are left.
        """
        if not self._asked:
            return None, None
        layout = Layout.of(self._sent)
        collected, contents = self._collect(layout, replies)
        attempt = Attempt(server_round, 1, self._asked, RecordDict())
        try:
            combined = self._combine(attempt, collected, self._memory)
        except AttemptMissed as missed:
            named = "; ".join(f"node {node}: {why}" for node, why in missed.reasons.items())
            raise AttemptMissed(f"{missed}. {named}", missed.failed, missed.rejected) from missed
        self._memory = combined.memory
        self.records[server_round] = combined.records
        metrics = median_metrics(contents)
        metrics[SUSPECTS] = sum(record.suspect is not None for record in combined.records)
        metrics[EXCLUDED] = sum(record.excluded is not None for record in combined.records)
        return self._moved(layout, combined.vector), metrics

    def configure_evaluate(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """See `Strategy`."""
        return self._inner.configure_evaluate(server_round, arrays, config, grid)

    def aggregate_evaluate(
        self, server_round: int, replies: Iterable[Message]
    ) -> MetricRecord | None:
        """Returns the median of the metrics over the nodes; None if no node answered."""
        del server_round
        contents = [reply.content for reply in replies if reply.has_content()]
        return median_metrics(contents) if contents else None

    def _collect(
        self, layout: Layout, replies: Iterable[Message]
    ) -> tuple[Collected, list[RecordDict]]:
        """Returns what each node changed about the model, one row per usable reply."""
        answers, failed, rejected = sort_replies(self._asked, replies, SILENT)
        rows = self._matrix(len(answers), layout.size)
        used: dict[int, RecordDict] = {}
        for node, content in answers.items():
            row = rows[len(used)]  # of a rejected reply, the next one overwrites it
            try:
                layout.change(self._sent, _arrays(content), out=row)
            except (ConfigError, ValueError) as error:
                rejected[node] = f"bad-arrays: {error}"
                continue
            if is_longer(row, LONGEST) and is_finite(row):
                rejected[node] = too_large(LONGEST)
                continue
            used[node] = content
        groups = tuple((node,) for node in used)
        weights = np.ones(len(used))
        collected = Collected(rows[: len(used)], groups, weights, (), failed, rejected)
        return collected, list(used.values())

    def _matrix(self, rows: int, size: int) -> Matrix:
        """Returns memory for the rows, of the round before if that is enough."""
        if len(self._rows) < rows or self._rows.shape[1] != size:
            self._rows = np.empty((rows, size), np.float32)
        return self._rows

    def _root_update(self, _attempt: Attempt) -> Vector:
        """Returns what the ServerApp's own data change about the model that was sent.

        Raises:
            ConfigError: It is not that model any more, or not finite.
        """
        if self._root is None:
            raise ConfigError("there is no root")
        sent = ArrayRecord({name: pack(array) for name, array in self._sent.items()})
        trained = {name: array.numpy() for name, array in self._root(sent).items()}
        update = Layout.of(self._sent).change(self._sent, trained)
        if not is_finite(update):
            raise ConfigError("root returned a model that is not finite")
        return update

    def _moved(self, layout: Layout, update: Vector) -> ArrayRecord:
        changes = layout.unflatten(update)
        return ArrayRecord(
            {
                name: pack(array + changes[name] if name in changes else array)
                for name, array in self._sent.items()
            }
        )


def median_metrics(contents: Sequence[RecordDict]) -> MetricRecord:
    """Returns the median of each number that more than half of the replies report."""
    values: dict[str, list[float]] = {}
    for content in contents:
        for record in content.values():  # `metric_records` makes a dictionary each time
            if not isinstance(record, MetricRecord):
                continue
            for name, value in record.items():
                if isinstance(value, int | float) and math.isfinite(value):
                    values.setdefault(name, []).append(float(value))
    half = len(contents) / 2
    return MetricRecord({n: statistics.median(v) for n, v in values.items() if len(v) > half})


def _arrays(content: RecordDict) -> Arrays:
    """Returns the arrays of a reply.

    Raises:
        ValueError: There is not one record of arrays, or an array is malformed.
    """
    records = [record for record in content.values() if isinstance(record, ArrayRecord)]
    if len(records) != 1:
        raise ValueError(f"{len(records)} records of arrays, want one")
    return {name: unpack(array) for name, array in records[0].items()}
