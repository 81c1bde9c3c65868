"""Content stays exactly as long as somebody needs it."""

import pytest

from fedsec.errors import ProtocolError, StateError
from fedsec.wire.blobs import Blob
from fedsec.wire.content import Manifest
from fedsec_server.contents import Contents

RUN = 7
DATA = b"some content" * 1000
MANIFEST = Manifest.of(DATA)


def is_closed(blob: Blob) -> bool:
    try:
        blob.duplicate_fd()
    except StateError:
        return True
    return False


def test_the_same_content_is_kept_once() -> None:
    contents, first, second = Contents(), Blob.write([DATA]), Blob.write([DATA])
    contents.keep(RUN, MANIFEST, first)
    contents.keep(RUN, MANIFEST, second)
    contents.keep(RUN, MANIFEST, None)  # known: it need not come again
    assert (is_closed(first), is_closed(second)) == (False, True)
    assert contents.held_bytes == len(DATA)
    for uses_left in (2, 1, 0):
        contents.release(RUN, MANIFEST.digest)
        assert is_closed(first) == (uses_left == 0)
    assert (len(contents), contents.held_bytes) == (0, 0)


def test_a_download_keeps_content_that_nobody_else_needs() -> None:
    contents, blob = Contents(), Blob.write([DATA])
    contents.keep(RUN, MANIFEST, blob)
    with contents.use(RUN, MANIFEST.digest) as (manifest, view):
        contents.release(RUN, MANIFEST.digest)
        assert manifest == MANIFEST
        assert view == DATA
    assert is_closed(blob)


def test_content_is_its_runs_own() -> None:
    contents = Contents()
    contents.keep(RUN, MANIFEST, Blob.write([DATA]))
    with pytest.raises(ProtocolError, match="no-content"), contents.use(8, MANIFEST.digest):
        pass
    with pytest.raises(ProtocolError, match="run 8: content-missing: a message names content of"):
        contents.keep(8, MANIFEST, None)
    contents.release(RUN, MANIFEST.digest)
    with pytest.raises(ProtocolError, match="no-content"), contents.use(RUN, MANIFEST.digest):
        pass
