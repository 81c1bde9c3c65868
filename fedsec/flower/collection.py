"""How updates get from the nodes to rows: one row per node, per group of nodes, or one in all.

    Attempt ---> Collection ---> Collected ---> Combination ---> one vector
                 who sent what                  fedsec.flower.combination

Here each node sends its update in plain; secure aggregation is another collection.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from flwr.app import Message, MessageType, RecordDict
from flwr.serverapp import Grid

from fedsec.errors import FedsecError, ProtocolError
from fedsec.flower.clock import CLOCK, POLL_S, Clock
from fedsec.flower.messages import Metrics, read_bare_train_reply, read_train_reply
from fedsec.flower.replies import Reasons, frozen, sort_replies
from fedsec.flower.strategy import Matrix, Weighting, Weights
from fedsec.vectors import Vector, is_longer

LONGEST = 1e15
"""L2 norm beyond which no honest node's update can be; squares of its entries fit into float32."""


class AttemptMissed(FedsecError):
    """This attempt at a round gives no result; the round is tried again, or the run fails.

    Args:
        reason: One sentence for people.
        failed: Why nodes gave no answer, by id.
        rejected: What was wrong with nodes' answers, by id.
    """

    def __init__(self, reason: str, failed: Reasons, rejected: Reasons) -> None:
        super().__init__(reason)
        self.failed = frozen(failed)
        self.rejected = frozen(rejected)

    @property
    def reasons(self) -> Reasons:
        """What is held against nodes, whatever the cause, by id."""
        return {**self.failed, **self.rejected}


@dataclass(frozen=True, eq=False)
class Attempt:
    """One try at a round.

    Args:
        round: From 1.
        number: Of the attempt, from 1; a repeated round trains from the same model.
        cohort: Ids of the nodes that are asked, ascending.
        content: What they are asked: model and instruction.
    """

    round: int
    number: int
    cohort: tuple[int, ...]
    content: RecordDict


@dataclass(frozen=True, eq=False)
class Collected:
    """The rows of an attempt, and what became of each node.

    Args:
        rows: Means of the updates of each group (m, d), all finite; a view of memory that the next
            attempt reuses. May be empty.
        groups: Ids of the nodes in each row (m,), ascending; one id each where nodes send in plain.
        weights: How much each row counts (m,), > 0, to no fixed sum.
        metrics: What each row's nodes report, means over them (m,); empty where it is withheld.
        failed: Why no answer came, by node id.
        rejected: What was wrong with an answer, by node id.
        asked: How many nodes were to be in a row; None: the whole cohort.
    """

    rows: Matrix
    groups: tuple[tuple[int, ...], ...]
    weights: Weights
    metrics: tuple[Metrics, ...]
    failed: Reasons
    rejected: Reasons
    asked: int | None = None

    @property
    def nodes(self) -> tuple[int, ...]:
        """Ids of the nodes whose updates are in a row, ascending."""
        return tuple(sorted(node for group in self.groups for node in group))


@runtime_checkable
class Arrivals(Protocol):
    """Hands replies over one by one, as they come. A Grid may; fedsec's own does."""

    def arrivals(self, message_ids: Iterable[str], seconds: float) -> Iterator[Message]:
        """Yields the replies to messages that were pushed, until all are there or time is up."""
        ...


@dataclass(frozen=True, slots=True)
class Post:
    """Sends messages to nodes and waits for what they answer.

    Args:
        grid: Reaches the nodes.
        deadline_s: Seconds for a node to answer.
        clock: For tests.
    """

    grid: Grid
    deadline_s: float
    clock: Clock = CLOCK

    def ask(
        self, contents: Mapping[int, RecordDict], message_type: str, round_number: int
    ) -> list[Message]:
        """Sends each node its content; returns the replies that came in time, in any order."""
        if not contents:  # a cohort that was drawn in secret may be empty
            return []
        messages = self._messages(contents, message_type, round_number)
        return list(self.grid.send_and_receive(messages, timeout=self.deadline_s))

    def exchange(
        self, contents: Mapping[int, RecordDict], message_type: str, round_number: int
    ) -> Iterator[Message]:
        """Sends each node its content; yields the replies as they come, so that none need wait.

        Ends when all have answered or the deadline has passed.
        """
        messages = self._messages(contents, message_type, round_number)
        waiting = set(self.grid.push_messages(messages))
        if isinstance(self.grid, Arrivals):
            yield from self.grid.arrivals(waiting, self.deadline_s)
            return
        end = self.clock.now() + self.deadline_s
        while waiting:
            came = list(self.grid.pull_messages(waiting))
            for reply in came:
                waiting.discard(reply.metadata.reply_to_message_id)
            yield from came
            if self.clock.now() >= end:
                return
            if not came:
                self.clock.sleep(POLL_S)

    def _messages(
        self, contents: Mapping[int, RecordDict], message_type: str, round_number: int
    ) -> list[Message]:
        return [
            Message(
                content,
                dst_node_id=node,
                message_type=message_type,
                group_id=str(round_number),
                ttl=self.deadline_s,
            )
            for node, content in contents.items()
        ]

    @property
    def silent(self) -> str:
        """The reason for a node from which nothing came."""
        return f"no answer within {self.deadline_s:g} s (round.deadline_s)"


def too_large(longest: float) -> str:
    """Returns why an update that is longer than that is refused."""
    return f"too-large: the update is longer than {longest:g}"


class Collection(Protocol):
    """How the updates of an attempt become rows."""

    def __call__(self, post: Post, attempt: Attempt) -> Collected:
        """Asks the cohort to train and returns the rows.

        One bad reply costs its sender, never the others. Whether enough nodes are in is for the
        caller to judge.

        Raises:
            AttemptMissed: There can be no rows, e.g. since too few took part in a protocol.
        """
        ...


class Plain:
    """Each node sends its update as it is: one row per node.

    The matrix is made once and reused; the rows of the call before are overwritten.

    Args:
        size: d, entries of an update.
        weigh: How much each node counts.
        withheld: Whether nodes send nothing but their update; then all count alike.
        longest: L2 norm beyond which an update is refused, for it would spoil the model for good.
    """

    def __init__(
        self, size: int, weigh: Weighting, *, withheld: bool = False, longest: float = LONGEST
    ) -> None:
        self._size = size
        self._weigh = weigh
        self._withheld = withheld
        self._longest = longest
        self._rows: Matrix = np.empty((0, size), np.float32)

    def __call__(self, post: Post, attempt: Attempt) -> Collected:
        """See `Collection`."""
        contents = dict.fromkeys(attempt.cohort, attempt.content)
        replies = post.ask(contents, MessageType.TRAIN, attempt.round)
        answers, failed, rejected = sort_replies(attempt.cohort, replies, post.silent)
        if len(self._rows) < len(answers):
            self._rows = np.empty((len(attempt.cohort), self._size), np.float32)
        accepted: dict[int, Metrics | None] = {}
        for node, content in answers.items():
            row = self._rows[len(accepted)]  # of a rejected reply, the next one overwrites it
            try:
                accepted[node] = self._read(str(node), content, row)
            except ProtocolError as error:
                rejected[node] = f"{error.code}: {error.detail}"
                continue
            if is_longer(row, self._longest):
                del accepted[node]
                rejected[node] = too_large(self._longest)
        metrics = tuple(each for each in accepted.values() if each is not None)
        return Collected(
            rows=self._rows[: len(accepted)],
            groups=tuple((node,) for node in accepted),
            weights=self._weights(len(accepted), metrics),
            metrics=metrics,
            failed=frozen(failed),
            rejected=frozen(rejected),
        )

    def _read(self, peer: str, content: RecordDict, row: Vector) -> Metrics | None:
        if self._withheld:
            read_bare_train_reply(peer, content, row)
            return None
        return read_train_reply(peer, content, row)

    def _weights(self, nodes: int, metrics: Sequence[Metrics]) -> Weights:
        if self._withheld or not nodes:
            return np.full(nodes, 1.0 / max(1, nodes))
        return self._weigh([each.examples for each in metrics])
