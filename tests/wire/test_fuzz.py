"""100,000 bad messages: typed errors, bounded memory, and what is accepted is canonical.

Inputs are random bytes, or mutations of valid messages at each layer: the header, the skeleton, the
bulk (named anew, so that hashes do not stop it), the `.npy` blobs of an app, and local frames.
Mutations are blind or know the structure: see tests/wire/mutations.py.
"""

import io
import random
import socket
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord, RecordDict

from fedsec.errors import ProtocolError
from fedsec.wire import codec, headers, npy
from fedsec.wire.content import CHUNK_BYTES, Manifest
from fedsec.wire.generated import message_pb2 as pb
from fedsec.wire.local import LocalSocket, socket_pair
from fedsec.wire.records import LIMITS, Limits, decode_records, encode_records
from tests.wire.mutations import (
    BLIND,
    BOUNDARIES,
    HEADER,
    RECORDS,
    forget_the_peak,
    mutate,
    peak_memory,
)

INPUTS = 100_000
MOST_GROWTH = 64 << 20
TIGHT = Limits(max_skeleton=120, max_records=2, max_entries=4, max_items=3, max_name=2)


@dataclass
class Tally:
    """What became of the inputs."""

    inputs: int = 0
    mutants: int = 0
    deep: int = 0  # mutants that passed the outer layers and reached the innermost parser
    accepted: int = 0  # mutants that are still valid
    codes: Counter[str] = field(default_factory=Counter)


# Valid messages.


def some_array(rng: random.Random) -> Array:
    descr = rng.choice(sorted(npy.DTYPES))
    axes = rng.choice([0, 1, 1, 2, 3, 64])
    shape = tuple(1 if axes == 64 else rng.randrange(4) for _ in range(axes))
    count = int(np.prod(shape, dtype=int)) * npy.DTYPES[descr].itemsize
    top = 1 if descr == "|b1" else 255
    content = bytes(rng.randint(0, top) for _ in range(count))
    array = np.frombuffer(content, dtype=descr).reshape(shape)
    return Array(rng.choice([array, np.asfortranarray(array), array.astype(f">{descr[1:]}")]))


def some_value(rng: random.Random, *, metric: bool) -> object:
    values = [rng.choice([-1, 1]) * rng.getrandbits(60), rng.random(), 1 << 63, [], [0.1, -0.0]]
    values += [[1, -300], [0, 1 << 63]]
    if not metric:
        values += ["text", b"octets", True, ["a", "", "bé"], [b"", b"xy"], [True, False]]
    return rng.choice(values)


def some_records(rng: random.Random) -> RecordDict:
    def record() -> ArrayRecord | MetricRecord | ConfigRecord:
        keys = [f"k{n}" for n in range(rng.randrange(6))]
        return rng.choice(
            [
                ArrayRecord({key: some_array(rng) for key in keys}),
                MetricRecord({key: some_value(rng, metric=True) for key in keys}),
                ConfigRecord({key: some_value(rng, metric=False) for key in keys}),
            ]
        )

    return RecordDict({"" if n == 1 else f"r{n}": record() for n in range(rng.randrange(4))})


@cache
def corpus() -> list[tuple[pb.Header, bytes]]:
    """Valid headers, each with its bulk; some failures, and one with its skeleton in the tail."""
    rng = random.Random(1)
    out = []
    for number in range(60):
        records = some_records(rng)
        if number == 7:
            records["big"] = ConfigRecord({"k": bytes(70_000)})
        skeleton, bodies = encode_records(records)
        tail = skeleton if number == 7 else b""
        bulk = b"".join([*bodies, tail])
        header = pb.Header(
            message_id=headers.new_message_id(),
            reply_to=headers.new_message_id() if number % 2 else "",
            run_id=rng.getrandbits(64),
            src_node_id=1,
            dst_node_id=rng.getrandbits(64),
            group_id="3",
            created_at=1.7e9,
            ttl=60.0,
            message_type=rng.choice(["train", "evaluate.a", "query", "get_parameters"]),
            skeleton=b"" if tail else skeleton,
            skeleton_tail=len(tail),
            bulk=Manifest.of(bulk).to_proto() if bulk else None,
        )
        if number % 9 == 8:
            header, bulk = headers.reply_failure(header, 2, "broke"), b""
        out.append((header, bulk))
    return out


# One receiver per layer. Each returns the code of the refusal, or "accepted".


def receive(data: bytes, bulk: bytes | None, limits: Limits = LIMITS) -> str:
    try:
        header = headers.parse_header(data, max_bytes=1 << 30)
        message = codec.decode(header, bulk, limits=limits)
    except ProtocolError as error:
        return error.code
    if message.has_content():
        skeleton, bodies = encode_records(message.content)
        again = [*bodies, skeleton] if header.skeleton_tail else bodies
        assert b"".join(again) == (bulk or b"")
    return "accepted"


def receive_records(skeleton: bytes, bulk: bytes, limits: Limits) -> str:
    try:
        records = decode_records(skeleton, bulk, limits)
    except ProtocolError as error:
        return error.code
    again, bodies = encode_records(records)
    assert (again, b"".join(bodies)) == (skeleton, bulk), "content with two encodings"
    return "accepted"


def receive_from_app(array: Array) -> str:
    """The app is not trusted either: what it puts into an array meets the same parser."""
    try:
        _, bodies = encode_records(RecordDict({"a": ArrayRecord({"w": array})}), LIMITS)
    except ProtocolError as error:
        return error.code
    loaded = np.load(io.BytesIO(array.data), allow_pickle=False)
    little = loaded.astype(loaded.dtype.newbyteorder("<"))
    assert b"".join(bodies) == little.tobytes(order="C") or loaded.dtype.kind in "fc"  # NaNs
    return "accepted"


def receive_frames(stream: bytes) -> str:
    peer, ours = socket_pair()
    with peer:
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
        peer.sendall(stream)
    receiver = LocalSocket(ours)
    try:
        while receiver.receive(5) is not None:
            pass
    except ProtocolError as error:
        return error.code
    finally:
        receiver.close()
    return "accepted"


# One attack per kind of input.


def attack_header(rng: random.Random) -> str:
    header, bulk = rng.choice(corpus())
    return receive(mutate(rng, header.SerializeToString(), HEADER), bulk or None)


def attack_header_fields(rng: random.Random) -> str:
    """Puts an extreme value into one field or two, in valid encoding."""
    header, bulk = rng.choice(corpus())
    mutant = pb.Header.FromString(header.SerializeToString())
    texts = ["", "x", "f" * 32, "train.", "é" * 200, "g" * 300]
    times = [float("nan"), float("inf"), -1.0, 0.0, 1e300]
    octets = [b"", b"x", bytes(1 << 16), bytes((1 << 16) + 1)]
    extremes: dict[str, list[object]] = {
        **dict.fromkeys(("message_id", "reply_to", "group_id", "message_type"), texts),
        **dict.fromkeys(("created_at", "ttl"), times),
        **dict.fromkeys(("run_id", "src_task_id", "skeleton_tail"), BOUNDARIES),
        "skeleton": octets,
    }
    for name in rng.sample(sorted(extremes), rng.choice([1, 1, 2])):
        setattr(mutant, name, rng.choice(extremes[name]))
    match rng.randrange(8):
        case 0:
            mutant.failure.reason = rng.choice(["", "why", "w" * 20_000])
        case 1:
            length = rng.choice([1, CHUNK_BYTES, CHUNK_BYTES + 1, rng.choice(BOUNDARIES)])
            sizes = rng.choice(
                [[], [32], [32, 32], [31], [0] * 100_000 if rng.random() < 0.02 else []]
            )
            mutant.bulk.CopyFrom(pb.Manifest(length=length, sha256=map(bytes, sizes)))
    data = mutant.SerializeToString()
    return receive(data + bytes(headers.MAX_HEADER_BYTES) * (rng.random() < 0.001), bulk or None)


def attack_skeleton(rng: random.Random) -> str:
    header, bulk = rng.choice(corpus())
    limits = rng.choice([LIMITS, LIMITS, TIGHT])
    return receive_records(mutate(rng, header.skeleton, RECORDS), bulk, limits)


def attack_bulk(rng: random.Random) -> str:
    header, bulk = rng.choice(corpus())
    changed = rng.choice(BLIND)(rng, bulk) or b"\0"
    mutant = pb.Header.FromString(header.SerializeToString())
    if rng.random() < 0.7:  # else it does not match its name
        mutant.bulk.CopyFrom(Manifest.of(changed).to_proto())
    return receive(mutant.SerializeToString(), changed, rng.choice([LIMITS, TIGHT]))


def attack_npy(rng: random.Random) -> str:
    array = some_array(rng)
    array.data = rng.choice(BLIND)(rng, array.data)
    if rng.random() < 0.02:
        array.stype = "torch.tensor"
    return receive_from_app(array)


def attack_frames(rng: random.Random) -> str:
    frames = [bytes(rng.randrange(40)) for _ in range(3)]
    stream = b"".join(len(frame).to_bytes(4, "big") + frame for frame in frames)
    return receive_frames(rng.choice(BLIND)(rng, stream))


def attack_at_random(rng: random.Random) -> str:
    data = rng.randbytes(rng.choice([0, 1, 5, 30, 300]))
    match rng.randrange(4):
        case 0:
            return receive(data, rng.choice([None, data]))
        case 1:
            return receive_records(data, b"", LIMITS)
        case 2:
            return receive_from_app(Array("", (), "numpy.ndarray", b"\x93NUMPY\x01\x00" + data))
        case _:
            return receive_from_app(Array("", (), "numpy.ndarray", data))


# Shares of the inputs, whether they are mutants, and which codes tell that the innermost parser
# was reached.
WALKED = {"bad-skeleton", "bad-dtype", "bad-shape", "bad-length"}
ATTACKS: list[tuple[float, Callable[[random.Random], str], bool, set[str]]] = [
    (0.15, attack_at_random, False, set()),
    (0.20, attack_header, True, WALKED),
    (0.10, attack_header_fields, True, WALKED),
    (0.35, attack_skeleton, True, {*WALKED, "accepted", "too-large"}),
    (0.05, attack_bulk, True, {*WALKED, "accepted"}),
    (0.12, attack_npy, True, {"bad-dtype", "bad-shape", "accepted"}),
    (0.03, attack_frames, True, {"cut-frame", "accepted"}),
]


def run(count: int, seed: int) -> Tally:
    rng = random.Random(seed)
    tally = Tally()
    for share, attack, is_mutation, deep in ATTACKS:
        for _ in range(round(share * count)):
            code = attack(rng)  # anything but a ProtocolError fails the test here
            tally.inputs += 1
            tally.codes[code] += 1
            if is_mutation:
                tally.mutants += 1
                tally.deep += code in deep
                tally.accepted += code == "accepted"
    return tally


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_hundred_thousand_bad_messages() -> None:
    run(1000, seed=0)  # warms up caches
    forget_the_peak()
    before = peak_memory()
    tally = run(INPUTS, seed=1)
    growth = peak_memory() - before
    assert tally.inputs == INPUTS
    assert tally.mutants >= INPUTS // 2
    assert growth < MOST_GROWTH
    assert tally.deep >= tally.mutants // 3, tally
    assert tally.accepted >= tally.mutants // 50, tally
    frequent = {code for code, count in tally.codes.items() if count >= 5}
    assert frequent >= {
        *("accepted", "too-large", "unencodable", "unexpected-content", "no-content"),
        *("bad-header", "bad-manifest", "bad-hash", "bad-length", "cut-frame"),
        *("bad-skeleton", "bad-dtype", "bad-shape", "bad-npy"),
    }, tally


def test_a_few_bad_messages_quickly() -> None:
    tally = run(1500, seed=2)
    assert tally.deep >= tally.mutants // 3
    assert tally.accepted > 0
