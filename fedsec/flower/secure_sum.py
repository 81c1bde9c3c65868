"""The coordinator's half of secure sums over a Grid: one row for all nodes, or one for each group.

    [groups, once] --> offer --> [nonce] --> shares --> vector --> [signature] --> reveal --> rows
                         a node that fails at a stage is lost from there on

Sums of several groups go through the stages side by side. Masked vectors are added up as they come,
each once, so that the memory needed does not grow with the number of nodes. A node that is found to
lie is left out of the run's later sums; a group that loses its sum is a missing row. Where too few
nodes are left for a round, no sum is opened: nodes train alike in its next attempt, and two sums
that differ by a node would tell that node's update.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType

import numpy as np
from flwr.app import RecordDict

from fedsec.errors import ConfigError, ProtocolError
from fedsec.flower.asked import digest_of
from fedsec.flower.collection import Attempt, AttemptMissed, Collected, Post
from fedsec.flower.group_draw import Group, GroupDraw
from fedsec.flower.messages import Metrics, read_heading
from fedsec.flower.replies import frozen
from fedsec.flower.secure_messages import Stage, read_reply, request, with_stage
from fedsec.flower.secure_session import make_setting
from fedsec.flower.sums import SumForm, Summed, row_of, sum_form
from fedsec.flower.talk import Talk
from fedsec.plan import FederationPlan
from fedsec.plan.privacy import answers_needed
from fedsec.plan.visibility import group_size
from fedsec.secagg import coordinator, stages
from fedsec.secagg.coordinator import Ask, Close, Opened, Received
from fedsec.secagg.masks import Words, word_type
from fedsec.secagg.messages import Delivery, Roster, Survivors
from fedsec.secagg.recovery import Lost
from fedsec.vectors import Vector

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


@dataclass(slots=True)
class _Sum:
    """The sum of all nodes, or of a group, under way.

    Args:
        state: Of the protocol.
        like: Shape and dtype of a masked vector.
        nodes: Ids of those who may be in it, whether they are there or not.
        requests: What to send next, by node.
        end: How it ended.
    """

    state: stages.State
    like: Words
    nodes: tuple[int, ...]
    requests: Mapping[int, Roster | Delivery | Survivors] = field(default_factory=dict)
    end: Opened | Lost | None = None


class SecureSum:
    """Rows of nodes that nobody sees one by one.

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
        self._groups = None if group_size(plan) is None else GroupDraw(plan, trusted)

    def __call__(self, post: Post, attempt: Attempt) -> Collected:
        """See `fedsec.flower.collection.Collection`."""
        talk = Talk(post, read_heading(attempt.content))
        form = sum_form(self._plan, self._size, talk.heading)
        sums = self._begin(talk, attempt, form)
        known = {node for each in sums for node in each.nodes} | set(attempt.cohort)
        talk.rejected |= {node: why for node, why in self._liars.items() if node in known}
        needed = answers_needed(self._plan) if self._plan.built_in else 0
        left = _carry_out(talk, sums, with_stage(attempt.content), needed)
        for each in sums:
            self._judge(talk, each)
        if left is not None:
            why = f"{left} nodes are left, nodes.quorum = {needed}; no sum was opened"
            raise AttemptMissed(why, talk.failed, talk.rejected)
        return self._collected(talk, form, sums)

    def _begin(self, talk: Talk, attempt: Attempt, form: SumForm) -> list[_Sum]:
        """Returns the sums, those who are ready invited."""
        groups: Sequence[Group | None] = (None,)
        asked = digest_of(attempt.content)
        if self._groups is not None:
            groups = self._groups(talk, attempt.cohort)
        ready, made = set(attempt.cohort), []
        for number, group in enumerate(groups):
            nodes = attempt.cohort if group is None else tuple(sorted(group))
            of = None if group is None else (number, group)
            run_id = talk.post.grid.run.run_id
            setting = make_setting(self._plan, form, run_id, talk.heading, asked, group=of)
            invited = frozenset(ready.intersection(nodes) - self._liars.keys())
            talk.failed |= {node: "it is not there" for node in nodes if node not in ready}
            words, bits = setting.session.words, setting.session.word_bits
            like = np.broadcast_to(np.zeros((), word_type(bits)), (words,))
            made.append(_Sum(stages.Offering(setting, invited, self._trusted), like, nodes))
        return made

    def _judge(self, talk: Talk, run: _Sum) -> None:
        """Remembers liars for the rest of the run, and says so."""
        if run.end is not None:
            told = {node: f"bad-share: {why}" for node, why in run.end.blamed.items()}
            self._liars |= told
            talk.rejected |= told

    def _collected(self, talk: Talk, form: SumForm, sums: Sequence[_Sum]) -> Collected:
        """Returns the rows of the sums that were opened; one sum that was not is no round."""
        rows, weights, groups, told = list[Vector](), list[float](), list[tuple[int, ...]](), []
        for each in sums:
            try:
                summed, survivors = _opened(form, each)
            except AttemptMissed as missed:
                if self._groups is None:
                    raise AttemptMissed(str(missed), talk.failed, talk.rejected) from missed
                why = dict.fromkeys(each.nodes, f"its group has no sum: {missed}")
                talk.failed = {**why, **talk.failed}
                continue
            many = len(survivors)
            row, weight = row_of(self._plan, summed, answered=many, nodes=len(each.nodes))
            rows.append(row)
            weights.append(weight)
            groups.append(survivors)
            if summed.figures:
                told.append(Metrics(summed.total or many, summed.figures))
        alive = {node for group in groups for node in group}
        return Collected(
            rows=np.array(rows, np.float32).reshape(len(rows), self._size),
            groups=tuple(groups),
            weights=np.array(weights),
            metrics=tuple(told),
            failed=frozen({node: why for node, why in talk.failed.items() if node not in alive}),
            rejected=frozen(talk.rejected),
            asked=sum(len(each.nodes) for each in sums),
        )


def _carry_out(talk: Talk, sums: Sequence[_Sum], first: RecordDict, needed: int) -> int | None:
    """Has all sums go through the stages side by side, to their ends.

    Returns:
        None; or how many nodes were left in all sums, fewer than `needed`, so that none was opened.
    """
    running = list(sums)
    while running:
        stage = STAGE_OF[type(running[0].state)]
        at = {node: each for each in running for node in each.state.waiting}
        if stage is Stage.REVEAL and len(at) < needed:
            return len(at)
        if stage is Stage.OFFER:
            contents = dict.fromkeys(sorted(at), first)
        else:
            contents = _contents(talk, stage, running)

        def take(
            node: int, content: RecordDict, at: Mapping[int, _Sum] = at, stage: Stage = stage
        ) -> None:
            run = at.get(node)
            if run is None:
                raise ProtocolError(str(node), "not-asked", "it was asked for nothing here")
            try:
                message = read_reply(stage, content, str(node), run.like)
                run.state, _ = coordinator.step(run.state, Received(node, message))
            finally:
                content.clear()  # Flower's records refer to themselves, and would outlive the sum

        talk.ask(stage, contents, take)
        for each in running:
            _close(each)
        running = [each for each in running if each.end is None]
    return None


def _close(run: _Sum) -> None:
    stage = STAGE_OF[type(run.state)]
    run.state, effect = coordinator.step(run.state, Close())
    match effect:
        case Ask(requests):
            run.requests = requests
        case Opened():
            run.end = effect
        case Lost(reason, blamed):
            run.end = Lost(f"the secure sum is lost at stage {stage}: {reason}", blamed)
        case None:
            run.end = Lost("the secure sum is over")


def _contents(talk: Talk, stage: Stage, running: Sequence[_Sum]) -> dict[int, RecordDict]:
    """Returns the messages of a stage; what is the same for several nodes is made once."""
    asked = {node: each for run in running for node, each in run.requests.items()}
    made = dict[int, RecordDict]()
    for each in asked.values():
        if id(each) not in made:
            made[id(each)] = request(stage, talk.heading, each.to_bytes())
    return {node: made[id(each)] for node, each in asked.items()}


def _opened(form: SumForm, run: _Sum) -> tuple[Summed, tuple[int, ...]]:
    """Returns what a sum says, and whose vectors are in it; AttemptMissed where there is none."""
    match run.end:
        case Opened(total, survivors):
            try:
                return form.decode(total, len(survivors)), survivors
            except ConfigError as error:  # a node may add any word to the sum of the weights
                raise AttemptMissed(str(error), {}, {}) from error
        case Lost(reason):
            raise AttemptMissed(reason, {}, {})
        case None:
            raise AttemptMissed("the secure sum did not end", {}, {})
