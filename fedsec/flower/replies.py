"""What came back from nodes: contents by node, and who failed or was rejected, why.

One bad reply costs its sender, never the round.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
from flwr.app import Message, RecordDict

from fedsec.errors import ProtocolError
from fedsec.flower.messages import Metrics, read_evaluate_reply
from fedsec.flower.strategy import Weights

Reasons = Mapping[int, str]
MAX_REASON = 300  # characters of a peer's own words


@dataclass(frozen=True, eq=False)
class Evaluations:
    """Evaluations that passed every check, and the others.

    Args:
        nodes: Ids of the accepted, ascending (n,).
        metrics: Their metrics (n,).
        failed: Why no answer came, by node id.
        rejected: What was wrong with an answer, by node id.
    """

    nodes: tuple[int, ...]
    metrics: tuple[Metrics, ...]
    failed: Reasons
    rejected: Reasons

    @property
    def reasons(self) -> Reasons:
        """Why nodes do not count, whatever the cause, by node id."""
        return {**self.failed, **self.rejected}


def evaluations(asked: Collection[int], replies: Iterable[Message], silent: str) -> Evaluations:
    """Returns the accepted evaluations; arguments as of `sort_replies`."""
    answers, failed, rejected = sort_replies(asked, replies, silent)
    accepted: dict[int, Metrics] = {}
    for node, content in answers.items():
        try:
            accepted[node] = read_evaluate_reply(str(node), content)
        except ProtocolError as error:
            rejected[node] = f"{error.code}: {error.detail}"
    return Evaluations(tuple(accepted), tuple(accepted.values()), frozen(failed), frozen(rejected))


def sort_replies(
    asked: Collection[int], replies: Iterable[Message], silent: str
) -> tuple[dict[int, RecordDict], dict[int, str], dict[int, str]]:
    """Returns contents, failures and refusals by node id, ascending, so that no order matters.

    Of several replies of one node the first counts.

    Args:
        asked: Node ids that were asked.
        replies: In any order.
        silent: The reason for a node from which nothing came.
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


def mean_metrics(metrics: Sequence[Metrics], weights: Weights) -> dict[str, float]:
    """Returns the weighted mean of each metric that all of `metrics` hold; none of none.

    Args:
        metrics: Of each node or group (n,).
        weights: How much each counts (n,), to any sum > 0.
    """
    if not metrics:
        return {}
    shares = weights / weights.sum()
    common = set.intersection(*(set(each.values) for each in metrics))
    return {
        name: float(shares @ np.array([each.values[name] for each in metrics]))
        for name in sorted(common)
    }


def frozen(reasons: Reasons) -> Reasons:
    """Returns a copy that nobody can change, ascending by node id."""
    return MappingProxyType(dict(sorted(reasons.items())))
