"""The stages of a secure sum as Flower messages.

Each is a `train` message with a record ``fedsec.secagg``: the name of the stage and the bytes of
docs/spec/secagg.md. The first one also carries the model; the vector comes back as an array.

    stage       coordinator sends          node answers
    entry       -                          entry               once in a run, where there are
    part        list of entries            revealed nonce      groups
    groups      list, revealed nonces      the seed
    offer       (the model)                key offer
    nonce       roster                     nonce
    shares      roster                     shares
    vector      delivery                   complaints; array of words
    signature   survivors                  signature
    reveal      survivors                  revealed shares
"""

from enum import StrEnum

from flwr.app import ArrayRecord, ConfigRecord, RecordDict

from fedsec.errors import ProtocolError
from fedsec.flower.arrays import pack, unpack
from fedsec.flower.messages import COORDINATOR, INSTRUCTION, Heading, heading_record
from fedsec.secagg.group_messages import Entries, Entry, Reveal
from fedsec.secagg.keys import SIGNATURE_BYTES
from fedsec.secagg.masks import Words
from fedsec.secagg.messages import (
    NONCE_BYTES,
    Delivery,
    Offer,
    Revealed,
    Roster,
    Shares,
    Survivors,
    read_ids,
    read_revealed,
    write_ids,
    write_revealed,
)
from fedsec.secagg.node import Effect, Upload

SECAGG = "fedsec.secagg"
RUN_CONFIG = "fedsec.run-config"
"""Record of what each app is to be configured with, where a runtime of others configures it."""
MASKED, VECTOR = "masked", "vector"
STAGE, BODY = "stage", "body"


class Stage(StrEnum):
    """Of a secure sum, in order."""

    ENTRY = "entry"
    PART = "part"
    GROUPS = "groups"
    OFFER = "offer"
    NONCE = "nonce"
    SHARES = "shares"
    VECTOR = "vector"
    SIGNATURE = "signature"
    REVEAL = "reveal"


def request(stage: Stage, heading: Heading, body: bytes) -> RecordDict:
    """Returns the content of a stage's message."""
    return RecordDict({INSTRUCTION: heading_record(heading), SECAGG: _record(stage, body)})


def with_stage(content: RecordDict) -> RecordDict:
    """Returns the content of an instruction to train, with the first stage's record."""
    return RecordDict({**dict(content.items()), SECAGG: _record(Stage.OFFER, b"")})


def read_stage(content: RecordDict) -> Stage | None:
    """Returns which stage an instruction is of; None for one outside of any secure sum.

    Raises:
        ProtocolError: ``bad-instruction``.
    """
    record = content.config_records.get(SECAGG)
    if record is None:
        return None
    try:
        return Stage(str(record.get(STAGE)))
    except ValueError as error:
        raise ProtocolError(COORDINATOR, "bad-instruction", "there is no such stage") from error


def read_request(stage: Stage, content: RecordDict) -> Roster | Delivery | Survivors:
    """Returns what the coordinator sends at a stage after the first.

    Raises:
        ProtocolError: ``malformed``.
    """
    body = _body(content, stage, COORDINATOR)
    match stage:
        case Stage.NONCE | Stage.SHARES:
            return Roster.read(body, COORDINATOR)
        case Stage.VECTOR:
            return Delivery.read(body, COORDINATOR)
        case _:
            return Survivors.read(body, COORDINATOR)


GROUPING = frozenset({Stage.ENTRY, Stage.PART, Stage.GROUPS})
"""Stages in which groups are drawn."""

BEGINNINGS = frozenset({Stage.ENTRY, Stage.OFFER})
"""Stages that begin something: what began before its time was up is carried to its end."""


def read_grouping_request(stage: Stage, content: RecordDict) -> Entries | None:
    """Returns what the coordinator sends as groups are drawn; None where that is nothing.

    Raises:
        ProtocolError: ``malformed``.
    """
    body = _body(content, stage, COORDINATOR)
    return None if stage is Stage.ENTRY else Entries.read(body, COORDINATOR)


def grouping_reply(stage: Stage, body: bytes) -> RecordDict:
    """Returns a node's answer as groups are drawn."""
    return RecordDict({SECAGG: _record(stage, body)})


def read_grouping_reply(stage: Stage, content: RecordDict, peer: str) -> Entry | Reveal | bytes:
    """Returns what a node answers as groups are drawn.

    Raises:
        ProtocolError: ``undefended``, ``malformed`` or ``bad-records``.
    """
    body = _body(content, stage, peer)
    _check_records(content, {SECAGG}, peer)
    match stage:
        case Stage.ENTRY:
            return Entry.read(body, peer)
        case Stage.PART:
            return Reveal.read(body, peer)
        case _:
            return body


def reply(stage: Stage, effect: Offer | Effect) -> RecordDict:
    """Returns a node's answer at a stage."""
    match effect:
        case Offer() | Shares():
            return RecordDict({SECAGG: _record(stage, effect.to_bytes())})
        case Upload(words, complaints):
            masked = ArrayRecord({VECTOR: pack(words)})
            return RecordDict({SECAGG: _record(stage, write_ids(complaints)), MASKED: masked})
        case bytes():
            return RecordDict({SECAGG: _record(stage, effect)})
        case _:
            return RecordDict({SECAGG: _record(stage, write_revealed(effect))})


def read_reply(
    stage: Stage, content: RecordDict, peer: str, like: Words
) -> Offer | bytes | Shares | Upload | tuple[Revealed, ...]:
    """Returns what a node answers at a stage.

    Args:
        stage: The one asked for.
        content: Of the reply.
        peer: Who sent it, for errors.
        like: Shape and dtype of a masked vector.

    Raises:
        ProtocolError: ``undefended``: it is no answer within a secure sum at all; ``malformed``,
            ``bad-records`` or ``bad-vector``.
    """
    body = _body(content, stage, peer)
    wanted = {SECAGG, MASKED} if stage is Stage.VECTOR else {SECAGG}
    _check_records(content, wanted, peer)
    match stage:
        case Stage.OFFER:
            return Offer.read(body, peer)
        case Stage.SHARES:
            return Shares.read(body, peer)
        case Stage.VECTOR:
            return Upload(_words(content, peer, like), read_ids(body, peer, "the complaints"))
        case Stage.REVEAL:
            return read_revealed(body, peer)
        case _:
            length = NONCE_BYTES if stage is Stage.NONCE else SIGNATURE_BYTES
            if len(body) != length:
                raise ProtocolError(peer, "malformed", f"{stage} has {len(body)} bytes")
            return body


def _check_records(content: RecordDict, wanted: set[str], peer: str) -> None:
    if set(content) != wanted:
        raise ProtocolError(peer, "bad-records", f"want {', '.join(sorted(wanted))} and no others")


def _record(stage: Stage, body: bytes) -> ConfigRecord:
    return ConfigRecord({STAGE: stage.value, BODY: body})


def _body(content: RecordDict, stage: Stage, peer: str) -> bytes:
    record = content.config_records.get(SECAGG)
    if record is None:
        raise ProtocolError(
            peer, "undefended", f"it answers without a record {SECAGG!r}: its app has no defence"
        )
    body = record.get(BODY)
    if record.get(STAGE) != stage or not isinstance(body, bytes):
        raise ProtocolError(peer, "malformed", f"its record {SECAGG!r} is not of stage {stage}")
    return body


def _words(content: RecordDict, peer: str, like: Words) -> Words:
    arrays = content.get(MASKED)  # not by the view array_records, which would hold the array too
    if not isinstance(arrays, ArrayRecord) or set(arrays) != {VECTOR}:
        raise ProtocolError(peer, "bad-vector", f"want one array, {VECTOR!r}")
    array = arrays[VECTOR]
    if array.dtype != like.dtype.name or tuple(array.shape) != like.shape:
        raise ProtocolError(
            peer, "bad-vector", f"the masked vector is not {like.dtype.name} {like.shape}"
        )
    try:
        return unpack(array)
    except ValueError as error:
        raise ProtocolError(peer, "bad-vector", f"the masked vector: {error}") from error
