"""The coordinator's half of a secure sum over a Grid: the cohort's updates become one row.

    offer --> [nonce] --> shares --> vector --> [signature] --> reveal --> one row
                    a node that fails at a stage is lost from there on

Masked vectors are added up as they come, each once, so that the memory needed does not grow with
the number of nodes. A node that is found to lie is left out of the run's later sums.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType

import numpy as np
from flwr.app import Message, MessageType, RecordDict

from fedsec.errors import ConfigError, ProtocolError
from fedsec.flower.collection import Attempt, AttemptMissed, Collected, Post
from fedsec.flower.messages import Heading, Metrics, read_heading
from fedsec.flower.replies import MAX_REASON, frozen
from fedsec.flower.secure_messages import Stage, read_reply, request, with_stage
from fedsec.flower.secure_session import make_setting
from fedsec.flower.sums import SumForm, sum_form
from fedsec.plan import FederationPlan
from fedsec.secagg import coordinator, stages
from fedsec.secagg.coordinator import Ask, Close, Opened, Received
from fedsec.secagg.masks import Words, word_type
from fedsec.secagg.messages import Delivery, Roster, Survivors
from fedsec.secagg.recovery import Lost

STAGE_OF: Mapping[type[stages.State], Stage] = MappingProxyType(
    {
        stages.Offering: Stage.OFFER,
        stages.Revealing: Stage.NONCE,
        stages.Sharing: Stage.SHARES,
        stages.Masking: Stage.VECTOR,
        stages.Confirming: Stage.SIGNATURE,
        stages.Unmasking: Stage.REVEAL,
    }
)

LONG = frozenset({Stage.OFFER, Stage.VECTOR})
"""Stages in which nodes train or send much; they get the whole of the plan's deadline."""

SHORT_S = 60.0
"""Seconds for any other stage, so that a node that is silent in each costs the others little."""


@dataclass(slots=True)
class _Sum:
    """One attempt that is under way."""

    post: Post
    heading: Heading
    state: stages.State
    like: Words
    failed: dict[int, str] = field(default_factory=dict)
    rejected: dict[int, str] = field(default_factory=dict)


class SecureSum:
    """One row for the whole cohort: the mean of the updates of all that came through.

    Args:
        plan: With secure aggregation.
        size: d, entries of an update.
        trusted: Signing keys by node id, from the federation's signed roster; a node that others
            would refuse is refused here first. None where there is no roster.
    """

    def __init__(
        self, plan: FederationPlan, size: int, trusted: Mapping[int, bytes] | None = None
    ) -> None:
        self._plan = plan
        self._size = size
        self._trusted = trusted
        self._liars: dict[int, str] = {}

    def __call__(self, post: Post, attempt: Attempt) -> Collected:
        """See `fedsec.flower.collection.Collection`."""
        heading = read_heading(attempt.content)
        form = sum_form(self._plan, self._size, heading)
        setting = make_setting(self._plan, form, post.grid.run.run_id, heading)
        invited = frozenset(attempt.cohort) - self._liars.keys()
        session = setting.session
        like = np.broadcast_to(np.zeros((), word_type(session.word_bits)), (session.words,))
        run = _Sum(post, heading, stages.Offering(setting, invited, self._trusted), like)
        run.rejected |= {node: why for node, why in self._liars.items() if node in attempt.cohort}
        first = with_stage(attempt.content)
        opened = self._carry_out(run, dict.fromkeys(sorted(invited), first))
        try:
            return _collected(form, opened, run)
        except ConfigError as error:  # a node may add any word to the sum of the weights
            raise AttemptMissed(str(error), run.failed, run.rejected) from error

    def _carry_out(self, run: _Sum, contents: Mapping[int, RecordDict]) -> Opened:
        while True:
            stage = STAGE_OF[type(run.state)]
            _exchange(run, stage, contents)
            run.state, effect = coordinator.step(run.state, Close())
            match effect:
                case Ask(requests):
                    contents = _contents(run, requests)
                case Opened():
                    self._blame(run, effect.blamed)
                    return effect
                case Lost():
                    self._blame(run, effect.blamed)
                    raise AttemptMissed(
                        f"the secure sum is lost at stage {stage}: {effect.reason}",
                        run.failed,
                        run.rejected,
                    )
                case None:
                    raise AttemptMissed("the secure sum is over", run.failed, run.rejected)

    def _blame(self, run: _Sum, blamed: Mapping[int, str]) -> None:
        """Remembers liars for the rest of the run, and says so."""
        told = {node: f"bad-share: {why}" for node, why in blamed.items()}
        self._liars |= told
        run.rejected |= told


def _contents(
    run: _Sum, requests: Mapping[int, Roster | Delivery | Survivors]
) -> dict[int, RecordDict]:
    """Returns the messages of a stage; what is the same for several nodes is made once."""
    stage, made = STAGE_OF[type(run.state)], dict[int, RecordDict]()
    for each in requests.values():
        if id(each) not in made:
            made[id(each)] = request(stage, run.heading, each.to_bytes())
    return {node: made[id(each)] for node, each in requests.items()}


def _exchange(run: _Sum, stage: Stage, contents: Mapping[int, RecordDict]) -> None:
    """Takes one stage's answers as they come; notes who gave none, or a bad one."""
    answered, post = set(), run.post
    if stage not in LONG:
        post = replace(post, deadline_s=min(post.deadline_s, SHORT_S))
    for reply in post.exchange(contents, MessageType.TRAIN, run.heading.round):
        node = reply.metadata.src_node_id
        answered.add(node)
        _take(run, stage, node, reply)
    for node in contents.keys() - answered:
        run.failed[node] = f"stage {stage}: {post.silent}"


def _take(run: _Sum, stage: Stage, node: int, reply: Message) -> None:
    if reply.has_error():
        reason = reply.error.reason or f"error {reply.error.code}"
        run.failed[node] = f"stage {stage}: {' '.join(reason.split())[:MAX_REASON]}"
        return
    try:
        message = read_reply(stage, reply.content, str(node), run.like)
        run.state, _ = coordinator.step(run.state, Received(node, message))
    except ProtocolError as error:
        run.rejected[node] = f"{error.code}: {error.detail}"


def _collected(form: SumForm, opened: Opened, run: _Sum) -> Collected:
    summed = form.decode(opened.total, len(opened.survivors))
    metrics: tuple[Metrics, ...] = ()
    if summed.figures:
        metrics = (Metrics(summed.total or len(opened.survivors), summed.figures),)
    alive = set(opened.survivors)
    return Collected(
        rows=summed.mean[np.newaxis],
        groups=(opened.survivors,),
        weights=np.array([summed.weight]),
        metrics=metrics,
        failed=frozen({node: why for node, why in run.failed.items() if node not in alive}),
        rejected=frozen(run.rejected),
    )
