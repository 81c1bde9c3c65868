"""Who is in a session: its setting, its members, and everyone's place in the graph.

Node and coordinator make the same values, each from what it knows itself.
Specification: docs/spec/secagg.md, sections "Session", "Transcript" and "What a member checks".
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from fedsec.errors import ConfigError, ProtocolError
from fedsec.secagg.graph import around, ring
from fedsec.secagg.messages import Offer, Roster
from fedsec.secagg.parameters import Assumptions, Parameters, choose
from fedsec.secagg.session import Session, commit_nonce, graph_seed, make_transcript
from fedsec.secagg.shamir import MAX_INDEX

COORDINATOR = "coordinator"


@dataclass(frozen=True, slots=True)
class Setting:
    """What both sides know of a session before it begins.

    Args:
        session: What it is about.
        assumptions: What may go wrong in it; from the plan.
        quorum: Fewest nodes with which the plan wants a sum.
        most: Most members, so that no sum overflows.
        group: Signing keys by id of those who alone may be members, where groups were drawn.
    """

    session: Session
    assumptions: Assumptions
    quorum: int
    most: int = MAX_INDEX
    group: Mapping[int, bytes] | None = None

    def check_group(self, offer: Offer) -> None:
        """Returns when the owner of an offer may be a member.

        Raises:
            ProtocolError: ``not-in-group``.
        """
        if self.group is not None and self.group.get(offer.node) != offer.signing_key:
            raise ProtocolError(
                COORDINATOR,
                "not-in-group",
                f"node {offer.node} is not in this group with this signing key",
            )

    def parameters(self, members: int, lost: int = 0) -> Parameters:
        """Returns k, t and the rest for so many members.

        Args:
            members: n.
            lost: Who was shown to the others as a member, and has not revealed a nonce.

        Raises:
            ProtocolError: ``too-few-nodes``: there are fewer than the quorum, or none are safe;
                ``too-many-nodes``.
        """
        if members > self.most:
            raise ProtocolError(
                COORDINATOR, "too-many-nodes", f"{members} members, words are for {self.most}"
            )
        if members < self.quorum:
            raise too_few(f"{members} members, the plan's quorum is {self.quorum}")
        try:
            return choose(members, self.assumptions, lost)
        except ConfigError as error:
            raise too_few(str(error)) from error

    def least(self, parameters: Parameters) -> int:
        """Returns with how many survivors a sum may be opened, at least."""
        return max(self.quorum, parameters.least)


@dataclass(frozen=True, slots=True)
class Members:
    """The members of a session.

    Args:
        offers: By node id, rising.
        parameters: For so many.
        least: Fewest survivors.
        transcript: Binds everything to this session, 32 bytes.
        indices: By node id: where its shares are evaluated, its place on the roster, from 1.
        order: The ring: all ids in its order; empty in a complete graph.
        nonces: By node id; empty in semi-honest mode.
        lost: How many more were shown as members before nonces were revealed.
    """

    offers: Mapping[int, Offer]
    parameters: Parameters
    least: int
    transcript: bytes
    indices: Mapping[int, int]
    order: tuple[int, ...]
    nonces: Mapping[int, bytes]
    lost: int = 0

    @classmethod
    def of(cls, setting: Setting, roster: Roster, *, lost: int = 0) -> "Members":
        """Returns the members that a roster makes; its signatures and nonces were checked before.

        Raises:
            ProtocolError: ``too-few-nodes``.
        """
        parameters = setting.parameters(len(roster.offers), lost)
        transcript = make_transcript(
            setting.session,
            roster.offers,
            roster.nonces,
            neighbours=parameters.neighbours,
            threshold=parameters.threshold,
        )
        ids = [offer.node for offer in roster.offers]
        drawn = () if parameters.complete else ring(len(ids), graph_seed(transcript))
        return cls(
            offers={offer.node: offer for offer in roster.offers},
            parameters=parameters,
            least=setting.least(parameters),
            transcript=transcript,
            indices={node: place for place, node in enumerate(ids, 1)},
            order=tuple(ids[position] for position in drawn),
            nonces=roster.nonces,
            lost=lost,
        )

    def neighbours(self, node: int) -> tuple[int, ...]:
        """Returns a node's neighbours, rising."""
        if self.parameters.complete:
            return tuple(other for other in self.offers if other != node)
        return around(self.order, self.order.index(node), self.parameters.neighbours)

    def holders(self, node: int) -> tuple[int, ...]:
        """Returns who holds shares of a node's secrets: in a complete graph itself as well."""
        others = self.neighbours(node)
        return tuple(sorted((*others, node))) if self.parameters.complete else others

    def check_survivors(self, nodes: Sequence[int]) -> None:
        """Returns when a sum over `nodes` may be opened.

        Raises:
            ProtocolError: ``bad-survivors`` or ``too-few-nodes``.
        """
        if not self.offers.keys() >= set(nodes):
            raise bad_survivors("one of them is no member")
        if len(nodes) < self.least:
            raise too_few(f"{len(nodes)} survivors, at least {self.least} are needed")


def check_roster(setting: Setting, roster: Roster, trusted: Mapping[int, bytes] | None) -> None:
    """Returns when every offer is sound, and the federation's where that is known.

    Args:
        setting: Of the session.
        roster: As the coordinator sends it.
        trusted: Signing keys by node id, from the federation's signed roster; None if not pinned.

    Raises:
        ProtocolError: ``duplicate-key``, ``bad-signature``, ``not-in-group`` or
            ``not-on-roster``.
    """
    context = setting.session.context
    for name in ("signing_key", "mask_key", "seal_key"):
        if len({getattr(offer, name) for offer in roster.offers}) != len(roster.offers):
            what = name.replace("_", " ")
            raise ProtocolError(COORDINATOR, "duplicate-key", f"two members have the same {what}")
    for offer in roster.offers:
        offer.check(context)
        setting.check_group(offer)
        if trusted is not None and trusted.get(offer.node) != offer.signing_key:
            raise ProtocolError(
                COORDINATOR,
                "not-on-roster",
                f"node {offer.node} is not in the federation's roster with this signing key",
            )


def check_nonces(setting: Setting, roster: Roster) -> None:
    """Returns when every member's nonce is there and is the one that it committed to.

    Raises:
        ProtocolError: ``bad-nonce``.
    """
    if list(roster.nonces) != [offer.node for offer in roster.offers]:
        raise ProtocolError(COORDINATOR, "bad-nonce", "nonces and offers are not of the same nodes")
    for offer in roster.offers:
        if commit_nonce(setting.session, offer.node, roster.nonces[offer.node]) != offer.commitment:
            raise ProtocolError(
                COORDINATOR, "bad-nonce", f"the nonce of node {offer.node} breaks its commitment"
            )


def too_few(detail: str) -> ProtocolError:
    """Returns the error of a session that may not go on."""
    return ProtocolError(COORDINATOR, "too-few-nodes", detail)


def bad_survivors(detail: str) -> ProtocolError:
    """Returns the error of a set of survivors that cannot be."""
    return ProtocolError(COORDINATOR, "bad-survivors", f"the survivors are wrong: {detail}")
