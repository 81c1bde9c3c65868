"""The run process of a coordinator that lies about groups to one of its nodes, a lie in each round.

In place of `fedsec_server.run_process`, which it is but for what one node, the victim, is told at one
stage. Where a lie needs another node, that is one of another group.
"""

import copy
import sys
from collections.abc import Callable, Iterable, Mapping

from flwr.app import Message, RecordDict

from fedsec.flower.messages import read_heading
from fedsec.flower.secure_messages import BODY, SECAGG, Stage, read_stage, request
from fedsec.secagg.group_messages import Entries, Reveal
from fedsec.secagg.messages import Roster, Survivors
from fedsec_server import run_process
from fedsec_server.grid import FleetGrid

Said = Mapping[int, bytes]


def another_seed(said: Said, victim: int, _other: int) -> bytes:
    """A nonce that its node did not commit itself to."""
    drawn = Entries.read(said[victim], "it")
    *rest, last = drawn.reveals
    return Entries(drawn.entries, (*rest, Reveal(bytes(32), last.signature))).to_bytes()


def fewer_nodes(said: Said, victim: int, _other: int) -> bytes:
    """A draw of all nodes but the last one."""
    drawn = Entries.read(said[victim], "it")
    return Entries(drawn.entries[:-1], drawn.reveals[:-1]).to_bytes()


def a_stranger(said: Said, victim: int, other: int) -> bytes:
    """The offer that a node of another group made for its own group, among the victim's."""
    mine, theirs = (Roster.read(said[node], "it").offers for node in (victim, other))
    (stranger,) = (offer for offer in theirs if offer.node == other)
    return Roster(tuple(sorted((*mine, stranger), key=lambda offer: offer.node))).to_bytes()


def fewer_of_the_group(said: Said, victim: int, _other: int) -> bytes:
    """The offers of the victim's group but for one, as if that node had been lost."""
    offers = Roster.read(said[victim], "it").offers
    lost = next(offer.node for offer in offers if offer.node != victim)
    return Roster(tuple(offer for offer in offers if offer.node != lost)).to_bytes()


def told_as(said: Said, _victim: int, other: int) -> bytes:
    """All that a node of another group is told."""
    return said[other]


def both_groups(said: Said, victim: int, other: int) -> bytes:
    """The nodes of both groups as survivors of one sum."""
    mine, theirs = (Survivors.read(said[node], "it").nodes for node in (victim, other))
    return Survivors(tuple(sorted(mine + theirs))).to_bytes()


def signatures_of_others(said: Said, victim: int, other: int) -> bytes:
    """The victim's group as survivors, as the other group signed for its own."""
    mine, theirs = (Survivors.read(said[node], "it") for node in (victim, other))
    return Survivors(mine.nodes, theirs.signatures).to_bytes()


Lie = Callable[[Said, int, int], bytes]
LIES: tuple[tuple[Stage, Lie | None], ...] = (
    (Stage.GROUPS, another_seed),
    (Stage.GROUPS, fewer_nodes),
    (Stage.OFFER, None),  # asks for an entry to another draw
    (Stage.NONCE, a_stranger),
    (Stage.NONCE, told_as),
    (Stage.NONCE, fewer_of_the_group),  # which its site does not allow
    (Stage.SHARES, told_as),
    (Stage.SHARES, a_stranger),
    (Stage.VECTOR, told_as),
    (Stage.SIGNATURE, told_as),
    (Stage.SIGNATURE, both_groups),
    (Stage.REVEAL, told_as),
    (Stage.REVEAL, signatures_of_others),
)
"""By round, from the first; then there are none."""


class LyingGrid(FleetGrid):
    """Puts the round's lie into what the victim is told."""

    groups: Mapping[int, bytes] = {}  # the roster that each node was shown last

    def push_messages(self, messages: Iterable[Message]) -> list[str]:
        sent = list(messages)
        said = {each.metadata.dst_node_id: body_of(each.content) for each in sent}
        if sent and read_stage(sent[0].content) is Stage.NONCE:
            self.groups = said
        for message in sent:
            self._deceive(message, said)
        return super().push_messages(sent)

    def _deceive(self, message: Message, said: Said) -> None:
        number, node = int(message.metadata.group_id), message.metadata.dst_node_id
        lies = dict(enumerate(LIES, 1))
        if number not in lies or node != min(self.get_node_ids()):
            return
        stage, lie = lies[number]
        if read_stage(message.content) is not stage:
            return
        if lie is None:
            heading = read_heading(message.content)
            message.content = request(Stage.ENTRY, heading, b"")
            return
        others = [each for each in said if self.groups.get(each) != self.groups.get(node)]
        content = copy.deepcopy(message.content)  # it may be that of other nodes, too
        content.config_records[SECAGG][BODY] = lie(said, node, min(others, default=node))
        message.content = content


def body_of(content: RecordDict) -> bytes:
    record = content.config_records.get(SECAGG)
    body = b"" if record is None else record.get(BODY, b"")
    assert isinstance(body, bytes)
    return body


if __name__ == "__main__":
    run_process.FleetGrid = LyingGrid  # type: ignore[misc]
    sys.exit(run_process.main(sys.argv[1:]))
