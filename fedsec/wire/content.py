"""Names bulk content by what is in it.

Content is cut into chunks of 1 MiB, each with its SHA-256; the hash of the whole is the hash over
the chunks' hashes::

    digest = SHA-256("fedsec-v1/content" || 0x00 || u64be(length) || sha256[0] || sha256[1] || ...)

so that a transfer can be checked chunk by chunk, taken up again after a cut, and named by 32 bytes.
Spec: docs/spec/wire.md, "Content".
"""

import hashlib
import hmac
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

from fedsec.errors import ProtocolError
from fedsec.wire.generated import message_pb2 as pb
from fedsec.wire.parallel import for_each

CHUNK_BYTES = 1 << 20
HASH_BYTES = 32
LABEL = b"fedsec-v1/content\0"

Buffer = bytes | bytearray | memoryview


Chunk = list[memoryview]
"""The bytes of one chunk, in as many pieces as they come in."""


def chunks_of(parts: Iterable[Buffer]) -> list[Chunk]:
    """Cuts `parts`, laid end to end, into chunks; copies nothing. Bytes of each: 1 MiB, or less."""
    chunks: list[Chunk] = []
    room = 0
    for part in parts:
        view = memoryview(part).cast("B")
        while len(view):
            if not room:
                chunks.append([])
                room = CHUNK_BYTES
            piece, view = view[:room], view[room:]
            chunks[-1].append(piece)
            room -= len(piece)
    return chunks


def length_of(chunks: Iterable[Chunk]) -> int:
    """Returns the bytes of all chunks together."""
    return sum(len(piece) for chunk in chunks for piece in chunk)


def hash_of(chunk: Chunk) -> bytes:
    """Returns the SHA-256 of a chunk."""
    hashed = hashlib.sha256()
    for piece in chunk:
        hashed.update(piece)
    return hashed.digest()


def chunk_count(length: int) -> int:
    """Returns how many chunks `length` bytes are cut into."""
    return -(-length // CHUNK_BYTES)


@dataclass(frozen=True)
class Manifest:
    """Length and chunk hashes of one piece of content.

    Args:
        length: Bytes, > 0.
        chunks: SHA-256 of each chunk, 32 bytes each, ceil(length / 1 MiB) of them.

    Raises:
        ProtocolError: ``bad-manifest``, the numbers do not fit together.
    """

    length: int
    chunks: tuple[bytes, ...]

    def __post_init__(self) -> None:
        if self.length <= 0:
            raise ProtocolError("", "bad-manifest", f"length must be > 0, got {self.length}")
        if len(self.chunks) != chunk_count(self.length):
            raise ProtocolError(
                "",
                "bad-manifest",
                f"{self.length} bytes are {chunk_count(self.length)} chunks, "
                f"got {len(self.chunks)} hashes",
            )
        for chunk_hash in self.chunks:
            if len(chunk_hash) != HASH_BYTES:
                raise ProtocolError(
                    "", "bad-manifest", f"a hash is 32 bytes, got {len(chunk_hash)}"
                )

    @classmethod
    def of(cls, view: Buffer) -> "Manifest":
        """Returns the manifest of `view`, > 0 bytes. One SHA-256 pass."""
        return cls.of_parts((view,))

    @classmethod
    def of_parts(cls, parts: Iterable[Buffer]) -> "Manifest":
        """Returns the manifest of `parts` laid end to end, without joining them."""
        chunks = chunks_of(parts)
        return cls(length_of(chunks), tuple(for_each(hash_of, chunks)))

    @classmethod
    def from_proto(cls, message: pb.Manifest, max_bytes: int) -> "Manifest":
        """Returns the manifest that a peer sent.

        Raises:
            ProtocolError: ``too-large``, it names more than `max_bytes`; ``bad-manifest``.
        """
        if message.length > max_bytes:
            raise ProtocolError(
                "", "too-large", f"content of {message.length} bytes, at most {max_bytes} accepted"
            )
        if len(message.sha256) != chunk_count(message.length):  # before the hashes are copied
            raise ProtocolError(
                "",
                "bad-manifest",
                f"{message.length} bytes are {chunk_count(message.length)} chunks, "
                f"got {len(message.sha256)} hashes",
            )
        return cls(message.length, tuple(message.sha256))

    def to_proto(self) -> pb.Manifest:
        """Returns the wire form."""
        return pb.Manifest(length=self.length, sha256=self.chunks)

    @cached_property
    def digest(self) -> bytes:
        """The 32 bytes that name the content."""
        head = LABEL + self.length.to_bytes(8, "big")
        return hashlib.sha256(head + b"".join(self.chunks)).digest()

    def chunk_length(self, index: int) -> int:
        """Returns the bytes of chunk `index`: 1 MiB, or less for the last one.

        Raises:
            ProtocolError: ``bad-chunk``, there is no such chunk.
        """
        if not 0 <= index < len(self.chunks):
            raise ProtocolError(
                "", "bad-chunk", f"chunk {index} does not exist, there are {len(self.chunks)}"
            )
        return min(CHUNK_BYTES, self.length - index * CHUNK_BYTES)

    def check_chunk(self, index: int, view: Buffer) -> None:
        """Checks one chunk's length and hash.

        Raises:
            ProtocolError: ``bad-chunk``, its number or length; ``bad-hash``, its content.
        """
        want = self.chunk_length(index)
        if len(view) != want:
            raise ProtocolError(
                "", "bad-chunk", f"chunk {index} has {len(view)} bytes, want {want}"
            )
        if not hmac.compare_digest(hashlib.sha256(view).digest(), self.chunks[index]):
            raise ProtocolError(
                "", "bad-hash", f"chunk {index} of {len(self.chunks)} is not what was announced"
            )

    def check(self, view: Buffer) -> None:
        """Checks the whole content, chunk by chunk. One SHA-256 pass.

        Raises:
            ProtocolError: ``bad-length`` or ``bad-hash``.
        """
        if len(view) != self.length:
            raise ProtocolError(
                "", "bad-length", f"content has {len(view)} bytes, {self.length} were announced"
            )
        whole = memoryview(view)

        def check_one(index: int) -> None:
            start = index * CHUNK_BYTES
            self.check_chunk(index, whole[start : start + CHUNK_BYTES])

        for_each(check_one, range(len(self.chunks)))
