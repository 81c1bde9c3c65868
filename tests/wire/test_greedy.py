"""Messages made to cost memory: at the limits they are bounded, one beyond they cost nothing."""

from collections.abc import Callable

import pytest

from fedsec.errors import ProtocolError
from fedsec.wire.headers import MAX_SKELETON
from fedsec.wire.records import LIMITS, decode_records
from tests.wire.mutations import forget_the_peak, peak_memory, varint

MOST_GROWTH = 64 << 20


def wrapped(tag: int, body: bytes) -> bytes:
    return varint(tag) + varint(len(body)) + body


def packed(body: bytes) -> bytes:
    return wrapped(10, body)


def list_of(number: int, body: bytes) -> bytes:
    """Returns a skeleton of one config whose value is one list."""
    return wrapped(10, wrapped(34, wrapped(10, wrapped(number << 3 | 2, body))))


def entries_of(kind: int, rest: bytes, count: int) -> bytes:
    """Returns a skeleton of one record with many entries."""
    keys = (b"\x0a\x03%c%c%c" % (n & 127, n >> 7 & 127, n >> 14) for n in range(count))
    return wrapped(10, wrapped(kind << 3 | 2, b"".join(wrapped(10, key + rest) for key in keys)))


def one_text(length: int) -> bytes:
    """Returns a skeleton of `length` bytes: one text, which takes four bytes for each of one."""
    start = "\U0001f33b".encode()
    for guess in range(length - 40, length):
        skeleton = wrapped(10, wrapped(34, wrapped(10, wrapped(34, start + b"a" * guess))))
        if len(skeleton) == length:
            return skeleton
    raise AssertionError(length)


ITEMS, ENTRIES = LIMITS.max_items, LIMITS.max_entries

GREEDY: dict[str, Callable[[int], bytes]] = {
    "integers": lambda more: list_of(7, packed(b"\xac\x02" * (ITEMS + more))),
    "small integers": lambda more: list_of(7, packed(b"\0" * (ITEMS + more))),
    "truths": lambda more: list_of(11, packed(b"\1" * (ITEMS + more))),
    "reals": lambda more: list_of(8, packed(bytes(range(8)) * (ITEMS + more))),
    "texts": lambda more: list_of(9, b"\x0a\x05a\xf0\x9f\x8c\xbb" * (ITEMS + more)),
    "empty texts": lambda more: list_of(9, b"\x0a\x00" * (ITEMS + more)),
    "octets": lambda more: list_of(10, b"\x0a\x02ab" * (ITEMS + more)),
    "metrics": lambda more: entries_of(3, b"\x10\x02", ENTRIES + more),
    "arrays": lambda more: entries_of(2, b"\x12\x03<f4\x1a\x01\0", ENTRIES + more),
    "one text": lambda more: one_text(MAX_SKELETON + more),
}


def code_of(skeleton: bytes) -> str:
    try:
        decode_records(skeleton, b"")
    except ProtocolError as error:
        return error.code
    return "accepted"


@pytest.mark.slow
@pytest.mark.parametrize("name", GREEDY)
def test_memory_is_bounded_at_the_limit_and_spared_beyond(name: str) -> None:
    for more, code, most in ((0, "accepted", MOST_GROWTH), (1, "too-large", MOST_GROWTH // 4)):
        skeleton = GREEDY[name](more)
        forget_the_peak()
        before = peak_memory()
        assert code_of(skeleton) == code
        assert peak_memory() - before < most


@pytest.mark.parametrize("length", [b"\xff\xff\xff\x7f", b"\xff" * 9 + b"\1"])
def test_an_announced_length_costs_nothing(length: bytes) -> None:
    forget_the_peak()
    before = peak_memory()
    assert code_of(b"\x0a" + length) == "bad-skeleton"
    assert peak_memory() - before < 1 << 20
