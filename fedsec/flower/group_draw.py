"""The coordinator's half of drawing groups over a Grid, in the first round of a run.

    entry --> part --> groups       docs/spec/secagg-groups.md, section "Exchange"

The outcome stands for the run. Who was not told of it, or did not take it, is told in the next
attempt; who entered a draw and gave it up is left out of the draws to come.
"""

from collections.abc import Collection, Mapping
from typing import TypeAlias

from flwr.app import RecordDict

from fedsec.errors import ProtocolError
from fedsec.flower.collection import AttemptMissed
from fedsec.flower.secure_messages import Stage, read_grouping_reply, request
from fedsec.flower.secure_session import make_split
from fedsec.flower.talk import Take, Talk
from fedsec.plan import FederationPlan
from fedsec.secagg import grouping
from fedsec.secagg.group_messages import Entries, Entry, Reveal, Split, groups_of, seed_of
from fedsec.secagg.grouping import Entering, Revealing
from fedsec.secagg.recovery import Lost

Group: TypeAlias = Mapping[int, bytes]
"""Signing keys by node id."""


class GroupDraw:
    """Draws the groups of a run once, and keeps them.

    Args:
        plan: With groups.
        trusted: Signing keys by node id, from the federation's signed roster; None if there is
            none.
    """

    def __init__(self, plan: FederationPlan, trusted: Mapping[int, bytes] | None) -> None:
        self._plan = plan
        self._trusted = trusted
        self._drawn: tuple[Split, Entries] | None = None
        self._told: set[int] = set()
        self._out: dict[int, str] = {}

    def __call__(self, talk: Talk, ready: Collection[int]) -> tuple[Group, ...]:
        """Returns the groups, drawn now if they were not before.

        Args:
            talk: Of the attempt.
            ready: Ids of the nodes that can be asked.

        Raises:
            AttemptMissed: There is no draw: too few nodes take part, or one gave it up.
        """
        if self._drawn is None:
            self._drawn = self._draw(talk, ready)
        split, drawing = self._drawn
        keys = {entry.node: entry.signing_key for entry in drawing.entries}
        self._tell(talk, keys.keys() & set(ready), seed_of(split, drawing))
        drawn = groups_of(split, drawing)
        return tuple({node: keys[node] for node in group} for group in drawn)

    def _draw(self, talk: Talk, ready: Collection[int]) -> tuple[Split, Entries]:
        split = make_split(self._plan, talk.post.grid.run.run_id, talk.heading)
        invited = frozenset(ready) - self._out.keys()
        entering = _entries(talk, Entering(split, invited, self._trusted))
        revealing = grouping.show(entering)
        if isinstance(revealing, Lost):
            raise self._missed(revealing, talk)
        drawing = grouping.draw(_reveals(talk, revealing))
        if isinstance(drawing, Lost):
            raise self._missed(drawing, talk)
        return split, drawing

    def _tell(self, talk: Talk, nodes: Collection[int], seed: bytes) -> None:
        """Tells the outcome to those in it that have not acknowledged it."""

        def take(node: int, content: RecordDict) -> None:
            if read_grouping_reply(Stage.GROUPS, content, str(node)) != seed:
                raise ProtocolError(str(node), "bad-seed", "it drew other groups")
            self._told.add(node)

        waiting = set(nodes) - self._told
        if waiting and self._drawn is not None:
            _ask_all(talk, Stage.GROUPS, self._drawn[1].to_bytes(), waiting, take)

    def _missed(self, lost: Lost, talk: Talk) -> AttemptMissed:
        """Remembers who gave a draw up."""
        self._out |= lost.blamed
        rejected = {**lost.blamed, **talk.rejected}
        return AttemptMissed(f"no groups were drawn: {lost.reason}", talk.failed, rejected)


def _entries(talk: Talk, state: Entering) -> Entering:
    def take(node: int, content: RecordDict) -> None:
        nonlocal state
        entry = read_grouping_reply(Stage.ENTRY, content, str(node))
        if isinstance(entry, Entry):
            state = grouping.take_entry(state, node, entry)

    _ask_all(talk, Stage.ENTRY, b"", state.invited, take)
    return state


def _reveals(talk: Talk, state: Revealing) -> Revealing:
    def take(node: int, content: RecordDict) -> None:
        nonlocal state
        reveal = read_grouping_reply(Stage.PART, content, str(node))
        if isinstance(reveal, Reveal):
            state = grouping.take_reveal(state, node, reveal)

    nodes = [entry.node for entry in state.shown.entries]
    _ask_all(talk, Stage.PART, state.shown.to_bytes(), nodes, take)
    return state


def _ask_all(talk: Talk, stage: Stage, body: bytes, nodes: Collection[int], take: Take) -> None:
    content = request(stage, talk.heading, body)
    talk.ask(stage, dict.fromkeys(sorted(nodes), content), take)
