"""What a node does for its own privacy in a run, around the app, so that no app can leave it out.

    train --> released before? --yes--> the stored update again
                   | no
              app --> transform (clip, noise) --> stored --> charged --> update alone

What the app measured stays here, except the figures that the plan asks for: each is kept to its
range, stands behind the update in the same vector, and is noised with it.

Of the four models two are wholly the node's: local privacy and example-level privacy. With
distributed privacy the release is the sum, so a node pays before its masked vector leaves, in every
attempt: from there on others can open the sum without it. What the coordinator promises (central)
is reserved in the node's ledger when it takes part; it costs nothing more to send its update.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from flwr.app import Context, Message, MessageType
from flwr.clientapp.typing import ClientAppCallable

from fedsec.errors import BudgetExhausted, PolicyRefusal
from fedsec.flower.messages import (
    EXAMPLES,
    Heading,
    Metrics,
    bare_train_reply,
    read_heading,
    read_update,
)
from fedsec.flower.publishing import Publish
from fedsec.privacy.figures import Figures
from fedsec.vectors import Vector

_LOG = logging.getLogger(__name__)

Transform: TypeAlias = Callable[[Vector, Heading], Vector]
"""From an update (d,) to what is sent (d,)."""


class _AppFailedError(Exception):
    """The app answered with an error; nothing was released."""

    def __init__(self, reply: Message) -> None:
        super().__init__()
        self.reply = reply


@dataclass(frozen=True)
class NodePrivacy:
    """The node's half of a plan's privacy.

    Args:
        publish: Stores and charges each release once; None where the node itself releases nothing
            that it vouches for (central).
        transform: What an update goes through before it is released.
        pay: Charges a round and attempt before this node's vector goes into a sum (distributed);
            None where there is no noise of the node's in it.
        figures: That the plan asks for; None: they are withheld.
    """

    publish: Publish | None
    transform: Transform
    pay: Callable[[int, int], None] | None = None
    figures: Figures | None = None

    def __call__(self, message: Message, context: Context, app: ClientAppCallable) -> Message:
        """Returns the reply to a message that the guard let through.

        Raises:
            PolicyRefusal: It asks for figures, or for a release that the node's budget does not
                allow.
            ProtocolError: The app's reply holds no update.
        """
        if message.metadata.message_type != MessageType.TRAIN:
            raise PolicyRefusal(
                "the plan has [privacy]: what a node measures on its examples is withheld"
            )
        heading = read_heading(message.content)

        def make() -> Vector:
            reply = app(message, context)
            if reply.has_error():
                raise _AppFailedError(reply)
            return self.transform(self._told(*read_update(reply.content)), heading)

        try:
            if self.publish is None:
                update = make()
            else:
                update = self.publish(heading.round, heading.attempt, make)
        except _AppFailedError as error:
            return error.reply
        except BudgetExhausted as error:
            raise refusal(error) from error
        return Message(bare_train_reply(update), reply_to=message)

    def _told(self, update: Vector, metrics: Metrics) -> Vector:
        """Returns the update, with the encoded figures that are told behind it."""
        if self.figures is None:
            return update
        values = {**metrics.values, EXAMPLES: metrics.examples}
        return np.append(update, self.figures.encode(values))

    def before_vector(self, heading: Heading) -> None:
        """Returns when this node's masked vector of an attempt may leave: its release is paid for.

        Raises:
            PolicyRefusal: The node's budget does not allow it.
        """
        if self.pay is None:
            return
        try:
            self.pay(heading.round, heading.attempt)
        except BudgetExhausted as error:
            raise refusal(error) from error


def refusal(error: BudgetExhausted) -> PolicyRefusal:
    """Returns what the coordinator is told; how much is left is the node's own business."""
    _LOG.error("%s", error)
    return PolicyRefusal("this node's privacy budget (policy.budget) does not allow it")


def unchanged(update: Vector, heading: Heading) -> Vector:
    """Returns the update as it is: training itself has made it private, or others will."""
    del heading
    return update
