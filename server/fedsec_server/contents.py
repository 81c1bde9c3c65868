"""Bulk content on its way to nodes: each piece once, as long as somebody needs it.

A run hands content over as a memory file, beside each message that carries it. The first one is
kept, further ones are the same bytes and are closed. Every unanswered message that carries the
content is one use of it, every download that runs is another; after the last one it is let go.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from fedsec.errors import ProtocolError
from fedsec.wire.blobs import Blob
from fedsec.wire.content import Manifest


@dataclass(slots=True)
class _Piece:
    manifest: Manifest
    blob: Blob
    uses: int


class Contents:
    """Content of all runs, by run and digest. Who adds a use releases it."""

    def __init__(self) -> None:
        self._pieces: dict[tuple[int, bytes], _Piece] = {}

    def keep(self, run_id: int, manifest: Manifest, blob: Blob | None) -> None:
        """Adds a use. `blob`, owned from now on, may be None when the content is known.

        Raises:
            ProtocolError: ``content-missing``: it is neither known nor here.
        """
        key = run_id, manifest.digest
        piece = self._pieces.get(key)
        if piece is not None:
            piece.uses += 1
            if blob is not None:
                blob.close()
        elif blob is not None:
            self._pieces[key] = _Piece(manifest, blob, uses=1)
        else:
            raise ProtocolError(
                f"run {run_id}",
                "content-missing",
                f"a message names content of {manifest.length} bytes that did not come with it",
            )

    def release(self, run_id: int, digest: bytes) -> None:
        """Takes a use back."""
        key = run_id, digest
        piece = self._pieces[key]
        piece.uses -= 1
        if not piece.uses:
            del self._pieces[key]
            piece.blob.close()

    @contextmanager
    def use(self, run_id: int, digest: bytes) -> Iterator[tuple[Manifest, memoryview]]:
        """Gives the content, mapped; it stays until the end of the block.

        Raises:
            ProtocolError: ``no-content``: it is not here (any more).
        """
        piece = self._pieces.get((run_id, digest))
        if piece is None:
            raise ProtocolError("", "no-content", "this content is not needed any more")
        piece.uses += 1
        try:
            yield piece.manifest, piece.blob.view()
        finally:
            self.release(run_id, digest)

    @property
    def held_bytes(self) -> int:
        """Bytes of all content that is kept."""
        return sum(piece.blob.length for piece in self._pieces.values())

    def __len__(self) -> int:
        return len(self._pieces)
