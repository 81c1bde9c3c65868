"""A node's state as bytes, for where one process serves one stage and the next another.

Whoever holds these bytes holds the node's secrets: they are for the node's own store, for the
length of a session. What can be made again from the roster is made again.
"""

from collections.abc import Mapping

from fedsec.errors import ProtocolError, StateError
from fedsec.secagg.codec import Reader, u32, u64
from fedsec.secagg.keys import KEY_BYTES
from fedsec.secagg.membership import Members, Setting
from fedsec.secagg.messages import NONCE_BYTES, Offer, Roster, read_ids, write_ids
from fedsec.secagg.node import (
    Finished,
    Masked,
    MaskSecrets,
    Offered,
    Revealing,
    Secrets,
    Shared,
    State,
)
from fedsec.secagg.shamir import SHARE_BYTES

_HELD_BYTES = 8 + 2 * SHARE_BYTES
_OWN = "this node's store"


def write_state(state: State) -> dict[str, bytes]:
    """Returns the state's fields by name; `read_state` reads them."""
    match state:
        case Offered(secrets=secrets, offer=offer):
            return {"offered": offer.to_bytes(), "secrets": _write_secrets(secrets)}
        case Revealing(secrets=secrets, offer=offer, offers=offers):
            shown = Roster(offers).to_bytes()
            kept = {"revealing": shown, "secrets": _write_secrets(secrets)}
            return {**kept, "offer": offer.to_bytes()}
        case Shared(secrets=secrets, members=members, openers=openers, own=own):
            left = _number(secrets.mask) + _number(secrets.seed)
            kept = {"shared": _write_members(members), "secrets": left}
            return {**kept, "openers": _write_openers(openers), "own": _write_own(own)}
        case Masked():
            held = b"".join(
                u64(owner) + _number(seed) + _number(key)
                for owner, (seed, key) in sorted(state.held.items())
            )
            return {
                "masked": _write_members(state.members),
                "peers": write_ids(sorted(state.peers)),
                "held": u32(len(state.held)) + held,
                "own": _write_own(state.own),
                "survivors": write_ids(state.survivors),
            }
        case Finished():
            return {"finished": b""}


def read_state(setting: Setting, kept: Mapping[str, bytes]) -> State:
    """Returns the state that `write_state` wrote.

    Raises:
        StateError: It is something else, or of another session.
    """
    try:
        return _read_state(setting, kept)
    except (ProtocolError, KeyError, ValueError) as error:
        raise StateError(f"what was kept of a secure sum cannot be read: {error}") from error


def _read_state(setting: Setting, kept: Mapping[str, bytes]) -> State:
    if "offered" in kept:
        offer = Offer.read(kept["offered"], _OWN)
        return Offered(setting, _read_secrets(kept["secrets"]), offer)
    if "revealing" in kept:
        offers = Roster.read(kept["revealing"], _OWN).offers
        offer = Offer.read(kept["offer"], _OWN)
        return Revealing(setting, _read_secrets(kept["secrets"]), offer, offers)
    if "shared" in kept:
        return Shared(
            setting,
            _read_mask_secrets(kept["secrets"]),
            _read_members(setting, kept["shared"]),
            _read_openers(kept["openers"]),
            _read_own(kept["own"]),
        )
    if "masked" in kept:
        return Masked(
            setting,
            _read_members(setting, kept["masked"]),
            frozenset(read_ids(kept["peers"], _OWN, "peers")),
            _read_held(kept["held"]),
            _read_own(kept["own"]),
            read_ids(kept["survivors"], _OWN, "survivors"),
        )
    return Finished()


def _write_secrets(secrets: Secrets) -> bytes:
    return b"".join((*map(_number, (secrets.mask, secrets.seal, secrets.seed)), secrets.nonce))


def _read_secrets(data: bytes) -> Secrets:
    reader = Reader(data, _OWN, "secrets")
    mask, seal, seed = (int.from_bytes(reader.take(KEY_BYTES), "big") for _ in range(3))
    nonce = reader.take(NONCE_BYTES)
    reader.end()
    return Secrets(mask, seal, seed, nonce)


def _read_mask_secrets(data: bytes) -> MaskSecrets:
    reader = Reader(data, _OWN, "secrets")
    mask, seed = (int.from_bytes(reader.take(KEY_BYTES), "big") for _ in range(2))
    reader.end()
    return MaskSecrets(mask, seed)


def _write_members(members: Members) -> bytes:
    return u32(members.lost) + Roster(tuple(members.offers.values()), members.nonces).to_bytes()


def _read_members(setting: Setting, data: bytes) -> Members:
    lost, roster = int.from_bytes(data[:4], "big"), Roster.read(data[4:], _OWN)
    return Members.of(setting, roster, lost=lost)


def _write_openers(openers: Mapping[int, bytes]) -> bytes:
    return u32(len(openers)) + b"".join(u64(owner) + openers[owner] for owner in openers)


def _read_openers(data: bytes) -> dict[int, bytes]:
    reader = Reader(data, _OWN, "keys of seals")
    openers = {reader.u64(): reader.take(KEY_BYTES) for _ in range(reader.count(8 + KEY_BYTES))}
    reader.end()
    return openers


def _read_held(data: bytes) -> dict[int, tuple[int, int]]:
    reader = Reader(data, _OWN, "shares")
    held = {}
    for _ in range(reader.count(_HELD_BYTES)):
        owner = reader.u64()
        seed, key = (int.from_bytes(reader.take(SHARE_BYTES), "big") for _ in range(2))
        held[owner] = (seed, key)
    reader.end()
    return held


def _write_own(own: int | None) -> bytes:
    return b"" if own is None else _number(own)


def _read_own(data: bytes) -> int | None:
    return int.from_bytes(data, "big") if data else None


def _number(value: int) -> bytes:
    return value.to_bytes(SHARE_BYTES, "big")
