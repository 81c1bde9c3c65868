"""Mutations of valid protobuf and of other bytes, and a measure of memory.

Blind mutations take bytes as they are; knowing ones read the protobuf into a tree, change one field
and write it again with all lengths put right, so that the change reaches the innermost parser.
"""

import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

BOUNDARIES = [0, 1, 2, 3, 7, 8, 63, 64, 65, 127, 128, 255, 256, 1 << 14, 1 << 16, (1 << 16) + 1]
BOUNDARIES += [1 << 20, 1 << 31, 1 << 32, (1 << 53) - 1, 1 << 61, 1 << 62, 1 << 63, (1 << 64) - 1]

# What lies inside a field of messages, by number: None is a leaf.
LEAF: dict[int, object] = {}
SCALARS = {1: {n: {1: LEAF} if n in {7, 8, 9, 10, 11, 13} else LEAF for n in range(1, 14)}}
RECORDS = {1: {1: LEAF, 2: {1: {1: LEAF, 2: LEAF, 3: LEAF}}, 3: SCALARS, 4: SCALARS}}
HEADER = {13: RECORDS, 12: {1: LEAF, 2: LEAF}, 15: {1: LEAF, 2: LEAF}}


@dataclass
class Field:
    """One protobuf field: its tag, and a number, bytes, or fields."""

    tag: int
    value: "int | bytes | list[Field]"


def varint(number: int) -> bytes:
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*out, number])


def take_varint(data: bytes, at: int) -> tuple[int, int]:
    shift = value = 0
    while data[at] & 0x80:
        value |= (data[at] & 0x7F) << shift
        shift += 7
        at += 1
    return value | data[at] << shift, at + 1


def parse(data: bytes, schema: dict[int, object]) -> list[Field]:
    """Reads valid protobuf into a tree that can be changed and written again."""
    found, at = [], 0
    while at < len(data):
        tag, at = take_varint(data, at)
        value: int | bytes | list[Field]
        if tag & 7 == 0:
            value, at = take_varint(data, at)
        else:
            length, at = (8, at) if tag & 7 == 1 else take_varint(data, at)
            value, at = data[at : at + length], at + length
            inner = schema.get(tag >> 3)
            if inner:
                value = parse(value, inner)
        found.append(Field(tag, value))
    return found


def build(fields: list[Field]) -> bytes:
    out = b""
    for one in fields:
        value = build(one.value) if isinstance(one.value, list) else one.value
        out += varint(one.tag)
        if isinstance(value, int):
            out += varint(value)
        else:
            out += value if one.tag & 7 == 1 else varint(len(value)) + value
    return out


def every_list(fields: list[Field]) -> Iterator[list[Field]]:
    yield fields
    for one in fields:
        if isinstance(one.value, list):
            yield from every_list(one.value)


# Blind mutations: bytes in, bytes out.


def flip_bits(rng: random.Random, data: bytes) -> bytes:
    out = bytearray(data or b"\0")
    for _ in range(rng.choice([1, 1, 1, 2, 5])):
        out[rng.randrange(len(out))] ^= 1 << rng.randrange(8)
    return bytes(out)


def truncate(rng: random.Random, data: bytes) -> bytes:
    return data[: rng.randrange(len(data) + 1)]


def splice(rng: random.Random, data: bytes) -> bytes:
    at, start = rng.randrange(len(data) + 1), rng.randrange(len(data) + 1)
    return data[:at] + data[start : start + rng.randrange(1, 40)] + data[at + rng.randrange(3) :]


def edit_byte(rng: random.Random, data: bytes) -> bytes:
    at = rng.randrange(len(data) + 1)
    return data[:at] + varint(rng.choice(BOUNDARIES)) + data[at + 1 :]


BLIND = [flip_bits, truncate, splice, edit_byte]


# Mutations that know the structure; lengths around the change are put right.


def edit_number(rng: random.Random, siblings: list[Field], at: int) -> None:
    one = siblings[at]
    if isinstance(one.value, int):
        one.value = rng.choice(BOUNDARIES)
    elif isinstance(one.value, bytes):  # a shape, or packed numbers
        one.value += varint(rng.choice(BOUNDARIES))


def edit_length(rng: random.Random, siblings: list[Field], at: int) -> None:
    one = siblings[at]
    value = build(one.value) if isinstance(one.value, list) else one.value
    if isinstance(value, bytes):
        extra = rng.choice([-2, -1, 1, 2, 8])
        one.value = value[:extra] if extra < 0 else value + bytes(extra)


def edit_tag(rng: random.Random, siblings: list[Field], at: int) -> None:
    siblings[at].tag = rng.choice([siblings[at].tag ^ 1 << rng.randrange(7), rng.randrange(256)])


def duplicate(rng: random.Random, siblings: list[Field], at: int) -> None:
    siblings.insert(rng.randrange(len(siblings) + 1), siblings[at])


def delete(rng: random.Random, siblings: list[Field], at: int) -> None:
    del siblings[at]


def swap(rng: random.Random, siblings: list[Field], at: int) -> None:
    other = rng.randrange(len(siblings))
    siblings[at], siblings[other] = siblings[other], siblings[at]


def change_inside(rng: random.Random, siblings: list[Field], at: int) -> None:
    one = siblings[at]
    if isinstance(one.value, bytes):
        one.value = rng.choice(BLIND)(rng, one.value)


KNOWING = [edit_number, edit_length, edit_tag, duplicate, delete, swap, change_inside]


def mutate(rng: random.Random, data: bytes, schema: dict[int, object]) -> bytes:
    """Returns a mutation of valid `data`, never `data` itself."""
    if rng.random() < 0.4:
        out = rng.choice(BLIND)(rng, data)
    else:
        tree = parse(data, schema)
        lists = [one for one in every_list(tree) if one]
        if lists:
            siblings = rng.choice(lists)
            rng.choice(KNOWING)(rng, siblings, rng.randrange(len(siblings)))
        out = build(tree)
    return out if out != data else data + bytes([rng.randrange(256)])


def peak_memory() -> int:
    """Returns the most memory that was resident, in bytes."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(status.partition("VmHWM:")[2].split()[0]) << 10


def forget_the_peak() -> None:
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
