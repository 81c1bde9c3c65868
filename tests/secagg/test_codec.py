"""Messages: what is written is read back; anything else is refused, in bounded memory."""

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedsec.errors import ProtocolError
from fedsec.secagg import messages
from fedsec.secagg.sealing import Kind
from tests.memory import peak_of

IDS = st.lists(st.integers(0, 2**64 - 1), max_size=5, unique=True).map(sorted).map(tuple)
KEYS = st.binary(min_size=32, max_size=32)
SIGNATURES = st.binary(min_size=64, max_size=64)
OFFERS = st.builds(
    messages.Offer, st.integers(0, 2**64 - 1), KEYS, KEYS, KEYS, KEYS, signature=SIGNATURES
)
ENTRIES = st.builds(
    messages.SealedShares,
    st.integers(0, 2**64 - 1),
    st.binary(min_size=80, max_size=80),
    KEYS,
    KEYS,
)


def rising(items: list[messages.SealedShares]) -> tuple[messages.SealedShares, ...]:
    return tuple({item.peer: item for item in sorted(items, key=lambda e: e.peer)}.values())


ROWS = st.lists(ENTRIES, max_size=4).map(rising)


@given(offers=st.lists(OFFERS, max_size=4), nonces=st.dictionaries(st.integers(0, 99), KEYS))
def test_rosters(offers: list[messages.Offer], nonces: dict[int, bytes]) -> None:
    by_id = {offer.node: offer for offer in offers}
    roster = messages.Roster(tuple(by_id[n] for n in sorted(by_id)), nonces)
    assert messages.Roster.read(roster.to_bytes(), "") == roster


@given(node=st.integers(0, 2**64 - 1), commitment=KEYS, entries=ROWS, signature=SIGNATURES)
def test_shares(
    node: int, commitment: bytes, entries: tuple[messages.SealedShares, ...], signature: bytes
) -> None:
    shares = messages.Shares(node, commitment, entries, signature)
    assert messages.Shares.read(shares.to_bytes(), "") == shares
    delivery = messages.Delivery(entries)
    assert messages.Delivery.read(delivery.to_bytes(), "") == delivery


@given(nodes=IDS, signatures=st.dictionaries(st.integers(0, 99), SIGNATURES, max_size=3))
def test_survivors(nodes: tuple[int, ...], signatures: dict[int, bytes]) -> None:
    survivors = messages.Survivors(nodes, signatures)
    assert messages.Survivors.read(survivors.to_bytes(), "") == survivors
    assert messages.read_ids(messages.write_ids(nodes), "", "ids") == nodes


@given(owners=IDS, kind=st.sampled_from(Kind), value=st.integers(0, 2**256 - 190))
def test_revealed(owners: tuple[int, ...], kind: Kind, value: int) -> None:
    shares = tuple(messages.Revealed(owner, kind, value) for owner in owners)
    assert messages.read_revealed(messages.write_revealed(shares), "") == shares


Reader = Callable[[bytes, str], object]
READERS: list[Reader] = [
    messages.Offer.read,
    messages.Roster.read,
    messages.Shares.read,
    messages.Delivery.read,
    messages.Survivors.read,
    messages.read_revealed,
    lambda data, peer: messages.read_ids(data, peer, "ids"),
]


@given(data=st.binary(max_size=600), reader=st.sampled_from(READERS))
def test_any_bytes_are_a_message_or_malformed(data: bytes, reader: Reader) -> None:
    code = peer = None
    try:
        reader(data, "node 3")
    except ProtocolError as error:
        code, peer = error.code, error.peer
    assert (code, peer) in {(None, None), ("malformed", "node 3")}


@pytest.mark.parametrize("reader", READERS[1:])
def test_a_claimed_count_allocates_nothing(reader: Reader) -> None:
    def refused() -> None:
        with pytest.raises(ProtocolError, match=r"4294967295 items of \d+ bytes in \d+ bytes"):
            reader(bytes([0xFF]) * 44, "")

    assert peak_of(refused) < 100_000
