"""One canonical form for what is signed, hashed and sent: fixed-length fields, lists with a count.

Two different messages never have the same bytes: every field has a fixed length or a length before
it. A reader checks a count against the bytes that are there before it makes anything, and refuses
bytes that are left over. Specification: docs/spec/secagg.md, section "Encodings".
"""

from collections.abc import Callable
from itertools import pairwise
from struct import Struct

from fedsec.errors import ProtocolError

_PREFIX = "fedsec-v1/secagg/"


def label(purpose: str) -> bytes:
    """Returns the bytes that begin whatever is hashed, signed or derived for one purpose."""
    return f"{_PREFIX}{purpose}\0".encode("ascii")


u8: Callable[[int], bytes] = Struct(">B").pack
"""Returns a number in 0..255 as one byte."""

u32: Callable[[int], bytes] = Struct(">I").pack
"""Returns a number in 0..2^32-1 as 4 bytes, big-endian."""

u64: Callable[[int], bytes] = Struct(">Q").pack
"""Returns a number in 0..2^64-1 as 8 bytes, big-endian."""


class Reader:
    """Reads fields one after the other.

    Args:
        data: The message; not copied.
        peer: Whose it is, for errors.
        what: Its name, for errors.
    """

    __slots__ = ("_data", "_peer", "_place", "_what")

    def __init__(self, data: bytes, peer: str, what: str) -> None:
        self._data = memoryview(data)
        self._peer = peer
        self._what = what
        self._place = 0

    def take(self, length: int) -> bytes:
        """Returns the next `length` bytes.

        Raises:
            ProtocolError: ``malformed``, there are fewer.
        """
        end = self._place + length
        if end > len(self._data):
            raise self._malformed(f"it ends after {len(self._data)} bytes, {end} are needed")
        taken = bytes(self._data[self._place : end])
        self._place = end
        return taken

    def u8(self) -> int:
        """Returns the next byte as a number."""
        return self.take(1)[0]

    def u32(self) -> int:
        """Returns the next 4 bytes as a number."""
        return int.from_bytes(self.take(4), "big")

    def u64(self) -> int:
        """Returns the next 8 bytes as a number."""
        return int.from_bytes(self.take(8), "big")

    def count(self, item_bytes: int) -> int:
        """Returns the number of items that follow, each of `item_bytes`.

        Raises:
            ProtocolError: ``malformed``, there are not so many bytes.
        """
        count = self.u32()
        left = len(self._data) - self._place
        if count * item_bytes > left:
            raise self._malformed(f"{count} items of {item_bytes} bytes in {left} bytes")
        return count

    def end(self) -> None:
        """Ends the message.

        Raises:
            ProtocolError: ``malformed``, bytes are left.
        """
        left = len(self._data) - self._place
        if left:
            raise self._malformed(f"{left} bytes follow its end")

    def _malformed(self, detail: str) -> ProtocolError:
        return ProtocolError(self._peer, "malformed", f"{self._what}: {detail}")


def check_ascending(numbers: list[int], peer: str, what: str) -> None:
    """Returns when `numbers` rise strictly, so that a set has one form.

    Raises:
        ProtocolError: ``malformed``.
    """
    if any(a >= b for a, b in pairwise(numbers)):
        raise ProtocolError(peer, "malformed", f"{what}: node ids must rise strictly")
