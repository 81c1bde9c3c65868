"""The stages of the coordinator's half: what it holds while it waits, and for whom it waits.

The one value that changes in place is the running sum: it belongs to the state that holds it.
Specification: docs/spec/secagg.md, section "Exchange".
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

from fedsec.secagg.masks import Words
from fedsec.secagg.membership import Members, Setting
from fedsec.secagg.messages import Offer, Revealed, Shares


@dataclass(frozen=True, slots=True)
class Offering:
    """Key offers, by node.

    Args:
        setting: Of the session.
        invited: Who may make an offer.
        trusted: Signing keys by node id, from the federation's signed roster, if there is one: an
            offer with another key is refused here, since every node would refuse it.
        offers: Those made.
    """

    setting: Setting
    invited: frozenset[int]
    trusted: Mapping[int, bytes] | None = None
    offers: Mapping[int, Offer] = field(default_factory=dict)

    @property
    def waiting(self) -> frozenset[int]:
        """Nodes whose answer is still out."""
        return self.invited - self.offers.keys()


@dataclass(frozen=True, slots=True)
class Revealing:
    """Nonces, by node."""

    setting: Setting
    offers: Mapping[int, Offer]
    nonces: Mapping[int, bytes] = field(default_factory=dict)

    @property
    def waiting(self) -> frozenset[int]:
        """Nodes whose answer is still out."""
        return frozenset(self.offers.keys() - self.nonces.keys())


@dataclass(frozen=True, slots=True)
class Sharing:
    """Messages of shares, by owner."""

    setting: Setting
    members: Members
    shares: Mapping[int, Shares] = field(default_factory=dict)

    @property
    def waiting(self) -> frozenset[int]:
        """Nodes whose answer is still out."""
        return frozenset(self.members.offers.keys() - self.shares.keys())


@dataclass(frozen=True, slots=True)
class Masking:
    """Masked vectors: their running sum, and whose are in it.

    Args:
        setting: Of the session.
        members: Of the session.
        shares: By owner, of those that shared.
        total: The sum so far (d,).
        complaints: By node whose vector is in the sum: owners of bad shares.
    """

    setting: Setting
    members: Members
    shares: Mapping[int, Shares]
    total: Words
    complaints: Mapping[int, tuple[int, ...]] = field(default_factory=dict)

    @property
    def waiting(self) -> frozenset[int]:
        """Nodes whose answer is still out."""
        return frozenset(self.shares.keys() - self.complaints.keys())


@dataclass(frozen=True, slots=True)
class Confirming:
    """Signatures on the survivors."""

    masking: Masking
    survivors: tuple[int, ...]
    signatures: Mapping[int, bytes] = field(default_factory=dict)

    @property
    def waiting(self) -> frozenset[int]:
        """Nodes whose answer is still out."""
        return frozenset(self.survivors) - self.signatures.keys()


@dataclass(frozen=True, slots=True)
class Unmasking:
    """Revealed shares, by holder; `asked` are those that came through all stages before."""

    masking: Masking
    survivors: tuple[int, ...]
    asked: frozenset[int]
    revealed: Mapping[int, tuple[Revealed, ...]] = field(default_factory=dict)

    @property
    def waiting(self) -> frozenset[int]:
        """Nodes whose answer is still out."""
        return self.asked - self.revealed.keys()


@dataclass(frozen=True, slots=True)
class Closed:
    """The sum was told, or the attempt is lost."""

    @property
    def waiting(self) -> frozenset[int]:
        """Nodes whose answer is still out."""
        return frozenset()


State: TypeAlias = Offering | Revealing | Sharing | Masking | Confirming | Unmasking | Closed
