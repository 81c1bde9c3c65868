"""What came back in a round: accepted updates as one matrix, and who failed or was rejected, why.

One bad reply costs its sender, never the round.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
from flwr.app import Message, RecordDict

from fedsec.errors import ProtocolError
from fedsec.flower.messages import Metrics, read_evaluate_reply, read_train_reply
from fedsec.flower.strategy import Matrix

Reasons = Mapping[int, str]
MAX_REASON = 300  # characters of a peer's own words


@dataclass(frozen=True, eq=False)
class Accepted:
    """Replies that passed every check, and the others.

    Args:
        nodes: Ids of the accepted, ascending (n,).
        updates: Their updates (n, d), row by row; a view of memory that the next round reuses.
            Empty (n, 0) for evaluations.
        metrics: Their metrics (n,).
        failed: Why no answer came, by node id.
        rejected: What was wrong with an answer, by node id.
    """

    nodes: tuple[int, ...]
    updates: Matrix
    metrics: tuple[Metrics, ...]
    failed: Reasons
    rejected: Reasons

    @property
    def examples(self) -> list[int]:
        """Examples that each accepted node claims (n,)."""
        return [metrics.examples for metrics in self.metrics]

    @property
    def reasons(self) -> Reasons:
        """Why nodes do not count, whatever the cause, by node id."""
        return {**self.failed, **self.rejected}


class Gatherer:
    """Reads replies into one matrix, made once and reused round after round.

    Args:
        size: d, entries of an update.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._rows: Matrix = np.empty((0, size), np.float32)

    def updates(self, asked: Collection[int], replies: Iterable[Message], silent: str) -> Accepted:
        """Returns the accepted updates; those of the call before are overwritten.

        Args:
            asked: Node ids that were asked.
            replies: In any order.
            silent: The reason for a node from which nothing came.
        """
        if len(self._rows) < len(asked):
            self._rows = np.empty((len(asked), self._size), np.float32)
        answers, failed, rejected = sort_replies(asked, replies, silent)
        accepted: dict[int, Metrics] = {}
        for node, content in answers.items():
            row = self._rows[len(accepted)]  # of a rejected reply, the next one overwrites it
            try:
                accepted[node] = read_train_reply(str(node), content, row)
            except ProtocolError as error:
                rejected[node] = f"{error.code}: {error.detail}"
        return _accepted(accepted, self._rows[: len(accepted)], failed, rejected)


def evaluations(asked: Collection[int], replies: Iterable[Message], silent: str) -> Accepted:
    """Returns the accepted evaluations; arguments as of `Gatherer.updates`."""
    answers, failed, rejected = sort_replies(asked, replies, silent)
    accepted: dict[int, Metrics] = {}
    for node, content in answers.items():
        try:
            accepted[node] = read_evaluate_reply(str(node), content)
        except ProtocolError as error:
            rejected[node] = f"{error.code}: {error.detail}"
    return _accepted(accepted, np.empty((len(accepted), 0), np.float32), failed, rejected)


def sort_replies(
    asked: Collection[int], replies: Iterable[Message], silent: str
) -> tuple[dict[int, RecordDict], dict[int, str], dict[int, str]]:
    """Returns contents, failures and refusals by node id, ascending, so that no order matters.

    Of several replies of one node the first counts.
    """
    answers: dict[int, RecordDict] = {}
    failed: dict[int, str] = {}
    rejected: dict[int, str] = {}
    for reply in replies:
        node = reply.metadata.src_node_id
        if node not in asked:
            rejected[node] = "not-asked: an answer of a node that was not asked"
        elif node in answers or node in failed:
            continue
        elif reply.has_error():
            reason = reply.error.reason or f"error {reply.error.code}"
            failed[node] = " ".join(reason.split())[:MAX_REASON]
        else:
            answers[node] = reply.content
    failed |= {node: silent for node in asked if node not in answers and node not in failed}
    return dict(sorted(answers.items())), dict(sorted(failed.items())), rejected


def mean_metrics(accepted: Accepted, weights: np.typing.NDArray[np.float64]) -> dict[str, float]:
    """Returns the weighted mean of each metric that all accepted nodes, at least one, report."""
    common = set.intersection(*(set(metrics.values) for metrics in accepted.metrics))
    return {
        name: float(weights @ np.array([metrics.values[name] for metrics in accepted.metrics]))
        for name in sorted(common)
    }


def _accepted(
    metrics: Mapping[int, Metrics],
    updates: Matrix,
    failed: Mapping[int, str],
    rejected: Mapping[int, str],
) -> Accepted:
    return Accepted(
        tuple(metrics),
        updates,
        tuple(metrics.values()),
        MappingProxyType(dict(failed)),
        MappingProxyType(dict(sorted(rejected.items()))),
    )
