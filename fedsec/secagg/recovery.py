"""From revealed shares to the masks that must come off, and to who lied if they do not fit.

A secret is combined from exactly t shares and compared with what its owner committed to. Only if
the two differ is each share compared with its own commitment: that tells a holder that lies from an
owner that shared badly. Specification: docs/spec/secagg.md, section "What the coordinator checks,
and blame".
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from fedsec.secagg.keys import (
    Stream,
    agree,
    commit_seed,
    mask_stream,
    private_key,
    public_of,
    self_stream,
)
from fedsec.secagg.masks import Words, apply
from fedsec.secagg.membership import Members
from fedsec.secagg.messages import Revealed, SealedShares, Shares
from fedsec.secagg.sealing import Kind, commit_share
from fedsec.secagg.session import Session
from fedsec.secagg.shamir import combine


@dataclass(frozen=True, slots=True)
class Lost:
    """The attempt gives no sum.

    Args:
        reason: One sentence.
        blamed: Nodes that are at fault, each with the reason; the next attempt leaves them out.
    """

    reason: str
    blamed: Mapping[int, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Evidence:
    """What the coordinator holds when it opens a sum.

    Args:
        session: What the sum is about.
        members: Of the session.
        shares: By owner, of those that shared.
        complaints: By survivor: owners of bad shares.
        survivors: Whose vectors are in the sum.
        revealed: By holder.
    """

    session: Session
    members: Members
    shares: Mapping[int, Shares]
    complaints: Mapping[int, tuple[int, ...]]
    survivors: tuple[int, ...]
    revealed: Mapping[int, tuple[Revealed, ...]]


class _LostError(Exception):
    """Carries `Lost` out of the search."""

    def __init__(self, lost: Lost) -> None:
        super().__init__(lost.reason)
        self.lost = lost


class _Fits(Protocol):
    def __call__(self, owner: int, secret: int, /) -> bool:
        """Returns whether `secret` is the one that `owner` committed to."""
        ...


def remove_masks(total: Words, evidence: Evidence) -> Mapping[int, str] | Lost:
    """Takes all masks off `total`, in place.

    Returns:
        The nodes that lied without effect, with the reason; or that the sum is lost, `total` then
        being as it was.
    """
    try:
        seeds, keys, blamed = _recover(evidence)
        added, removed = _streams(evidence, seeds, keys)
    except _LostError as error:
        return error.lost
    apply(total, added, removed)
    return blamed


def _recover(evidence: Evidence) -> tuple[dict[int, int], dict[int, int], dict[int, str]]:
    """Returns the survivors' seeds, the private keys of those that were lost, and the blamed."""
    by_owner: dict[int, dict[int, int]] = {owner: {} for owner in evidence.shares}
    for holder in sorted(evidence.revealed):
        for each in evidence.revealed[holder]:
            by_owner[each.owner][holder] = each.value
    transcript, offers = evidence.members.transcript, evidence.members.offers

    def seed_fits(owner: int, seed: int, /) -> bool:
        committed = evidence.shares[owner].seed_commitment
        return commit_seed(seed, transcript, owner) == committed

    def key_fits(owner: int, key: int, /) -> bool:
        return key < 1 << 255 and public_of(key) == offers[owner].mask_key

    alive, blamed = set(evidence.survivors), dict[int, str]()
    index = evidence.members.indices
    seeds, keys = {}, {}
    lost: _LostError | None = None
    for owner, given in by_owner.items():
        search = _Search(evidence, index, owner, given, blamed)
        try:
            if owner in alive:
                seeds[owner] = search.find(Kind.SEED, seed_fits)
            else:
                keys[owner] = search.find(Kind.KEY, key_fits)
        except _LostError as error:  # goes on: whoever else lied is to be named too
            lost = lost or error
    if lost is not None:
        raise lost
    return seeds, keys, blamed


@dataclass(frozen=True, slots=True)
class _Search:
    """For one owner's secret; `given` are shares by holder, `blamed` takes whoever lied."""

    evidence: Evidence
    index: Mapping[int, int]
    owner: int
    given: Mapping[int, int]
    blamed: dict[int, str]

    def find(self, kind: Kind, fits: _Fits) -> int:
        """Returns the secret that the owner committed to."""
        secret = self._combine(self.given)
        if secret is not None and fits(self.owner, secret):
            return secret
        good = self._good_shares(kind)
        secret = self._combine(good)
        if secret is None and self.owner in self.given:  # its own share: the result vouches for it
            secret = self._combine({**good, self.owner: self.given[self.owner]})
        if secret is None:
            raise self._too_few(len(good))
        if fits(self.owner, secret):
            return secret
        why = "the shares that it gave out do not give the secret that it committed to"
        self.blamed[self.owner] = why
        raise _LostError(Lost(f"node {self.owner} lied: {why}", self.blamed))

    def _combine(self, shares: Mapping[int, int]) -> int | None:
        threshold = self.evidence.members.parameters.threshold
        if len(shares) < threshold:
            return None
        some = sorted(shares)[:threshold]
        return combine({self.index[holder]: shares[holder] for holder in some})

    def _good_shares(self, kind: Kind) -> dict[int, int]:
        """Returns the shares that agree with the owner's commitments; blames other holders."""
        transcript = self.evidence.members.transcript
        entries = {entry.peer: entry for entry in self.evidence.shares[self.owner].entries}
        good = {}
        for holder, value in self.given.items():
            if holder == self.owner:  # committed to by nothing
                continue
            made = commit_share(transcript, kind, self.owner, holder, value)
            if made == _commitment(entries[holder], kind):
                good[holder] = value
            else:
                self.blamed[holder] = f"it revealed another share of node {self.owner} than it got"
        return good

    def _too_few(self, good: int) -> _LostError:
        members, complaints = self.evidence.members, self.evidence.complaints
        against = sum(self.owner in owners for owners in complaints.values())
        if against > members.parameters.corrupt:
            self.blamed[self.owner] = f"{against} holders complain of its shares"
        reason = (
            f"{good} good shares of a secret of node {self.owner} were revealed, the threshold is "
            f"{members.parameters.threshold}"
        )
        return _LostError(Lost(reason, self.blamed))


def _commitment(entry: SealedShares, kind: Kind) -> bytes:
    return entry.seed_commitment if kind is Kind.SEED else entry.key_commitment


def _streams(
    evidence: Evidence, seeds: Mapping[int, int], keys: Mapping[int, int]
) -> tuple[list[Stream], list[Stream]]:
    """Returns the streams to add to the sum, and those to take away."""
    session, members = evidence.session, evidence.members
    bits, alive = session.word_bits, set(evidence.survivors)
    removed = [self_stream(seeds[node], members.transcript, node, bits) for node in seeds]
    added: list[Stream] = []
    for gone, key in keys.items():
        private = private_key(key)
        for node in members.neighbours(gone):
            if node not in alive:
                continue
            secret = agree(private, members.offers[node].mask_key, str(node))
            stream = mask_stream(secret, members.transcript, gone, node, bits)
            # the survivor added it where the one that is gone has the higher id
            (removed if gone > node else added).append(stream)
    return added, removed
