"""What a coordinator asks stage by stage in an attempt at secure sums, and who fails at which."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import TypeAlias

from flwr.app import Message, MessageType, RecordDict

from fedsec.errors import ProtocolError
from fedsec.flower.collection import Post
from fedsec.flower.messages import Heading
from fedsec.flower.replies import MAX_REASON
from fedsec.flower.secure_messages import Stage

LONG = frozenset({Stage.OFFER, Stage.VECTOR})
"""Stages in which nodes train or send much; they get the whole of the plan's deadline."""

SHORT_S = 60.0
"""Seconds for any other stage, so that a node that is silent in each costs the others little."""

Take: TypeAlias = Callable[[int, RecordDict], None]
"""Takes an answer, with the node that sent it; raises ProtocolError for a bad one."""


@dataclass(slots=True)
class Talk:
    """One attempt.

    Args:
        post: Reaches the nodes.
        heading: Which attempt.
        failed: Why no answer came, by node id.
        rejected: What was wrong with an answer, by node id.
    """

    post: Post
    heading: Heading
    failed: dict[int, str] = field(default_factory=dict)
    rejected: dict[int, str] = field(default_factory=dict)

    def ask(
        self,
        stage: Stage,
        contents: Mapping[int, RecordDict],
        take: Take,
    ) -> None:
        """Sends each node its content and takes the answers as they come, each at its cost.

        Args:
            stage: Of the messages.
            contents: By node id.
            take: Is given each answer.
        """
        answered, post = set(), self.post
        if stage not in LONG:
            post = replace(post, deadline_s=min(post.deadline_s, SHORT_S))
        for reply in post.exchange(contents, MessageType.TRAIN, self.heading.round):
            answered.add(reply.metadata.src_node_id)
            self._take(stage, reply, take)
        for node in contents.keys() - answered:
            self.failed[node] = f"stage {stage}: {post.silent}"

    def _take(self, stage: Stage, reply: Message, take: Take) -> None:
        node = reply.metadata.src_node_id
        if reply.has_error():
            reason = reply.error.reason or f"error {reply.error.code}"
            self.failed[node] = f"stage {stage}: {' '.join(reason.split())[:MAX_REASON]}"
            return
        try:
            take(node, reply.content)
        except ProtocolError as error:
            self.rejected[node] = f"{error.code}: {error.detail}"
