"""Whom TLS refuses, in the log of events: read from what gRPC says on stderr.

A handshake that fails never reaches the gate, and gRPC tells no program of it. But its core writes
one line, with the reason and without the address:

    I1127 00:59:56.900597 30177 ssl_transport_security.cc:2563] Handshake failed with error
    SSL_ERROR_SSL: error:1000007d:SSL routines:OPENSSL_internal:CERTIFICATE_VERIFY_FAILED: ...

So stderr is led through a pipe of our own, and on to where it went before, but for what gRPC says
because it was made to talk: the log of events has that in the coordinator's own words. The cost:
what is written in the very moment in which the process is killed may be lost with the pipe.
"""

import os
import re
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from fedsec.wire.call import Refusal

METHOD = "(TLS handshake)"  # in the place of a method's name
UNKNOWN = "unknown"
_STDERR = 2
_LONGEST = 8 << 10  # bytes of a line that are looked at
_REASON = 200  # characters
# From the beginning of a line, which no text of a peer can be: our own lines begin with a time.
_REFUSED = re.compile(
    rb"[IWE]\d{4} [\d:.]+ +\d+ ssl_transport_security\w*\.cc:\d+\] Handshake failed with error "
    rb"(?P<kind>\w+)(?:: error:\w+:[\w. ]{1,40} routines:"  # not of SSL alone: ECDSA, X.509, ...
    rb"OPENSSL_internal:(?P<code>\w+)(?:: (?P<why>.*))?)?"
)
# What gRPC says of itself below a warning, and its warning that it was made to say so much.
_CHATTER = re.compile(
    rb"I\d{4} [\d:.]+ +\d+ [\w.]+:\d+\] "
    rb"|W\d{4} [\d:.]+ +\d+ log\.cc:\d+\] Log level \w+ is not suitable for production"
)


def refusal_in(line: bytes) -> Refusal | None:
    """Returns the refusal that a line of gRPC's core tells of; None for any other line.

    >>> line = b"I1127 00:59:56.9   77 ssl_transport_security.cc:1] Handshake failed with error "
    >>> refusal_in(line + b"SSL_ERROR_SSL: error:1:SSL routines:OPENSSL_internal:HTTP_REQUEST").code
    'tls-http-request'
    """
    found = _REFUSED.match(line)
    if found is None:
        return None
    kind = (found["code"] or found["kind"]).decode("ascii", "replace")
    why = (found["why"] or b"").decode("ascii", "replace")[:_REASON]
    code = f"tls-{kind.lower().replace('_', '-')[:60]}"
    reason = "TLS refused the connection" + (f": {why}" if why else "")
    return Refusal(METHOD, UNKNOWN, None, code, reason)


class Watch:
    """Looks at each line of stderr, and tells of refusals whoever wants to know.

    Args:
        whole: Whether gRPC's own lines go on to where stderr goes, too.
    """

    def __init__(self, *, whole: bool = False) -> None:
        self._whole = whole
        self._tell: Callable[[Refusal], object] | None = None

    @contextmanager
    def telling(self, tell: Callable[[Refusal], object]) -> Iterator[None]:
        """Hands each refusal to `tell`, in a thread of its own, until the end of the block.

        Args:
            tell: Must not wait.
        """
        self._tell = tell
        try:
            yield
        finally:
            self._tell = None

    def takes(self, line: bytes) -> bool:
        """Looks at a line; says whether it need not go on, for the log of events has it."""
        tell = self._tell
        if tell is not None and (refusal := refusal_in(line)):
            tell(refusal)
        return not self._whole and _CHATTER.match(line) is not None


@contextmanager
def handshakes_watched(*, whole: bool = False) -> Iterator[Watch]:
    """Reads along on stderr until the end of the block.

    Args:
        whole: Whether gRPC's own lines go on to stderr, too.
    """
    watch = Watch(whole=whole)
    before = os.dup(_STDERR)
    ours, theirs = os.pipe()
    sys.stderr.flush()
    os.dup2(theirs, _STDERR)
    os.close(theirs)
    reader = threading.Thread(
        target=_read_along, args=(ours, before, watch), name="handshakes", daemon=True
    )
    reader.start()
    try:
        yield watch
    finally:
        sys.stderr.flush()
        os.dup2(before, _STDERR)  # which closes the pipe, unless another process holds it
        reader.join(1.0)


def _read_along(ours: int, before: int, watch: Watch) -> None:
    rest, looked_at = b"", True
    while data := os.read(ours, 1 << 16):
        *lines, rest = (rest + data).split(b"\n")
        for line in lines:
            if not (looked_at and watch.takes(line)):
                _write(before, line + b"\n")
            looked_at = True
        if len(rest) > _LONGEST:  # what is left of it is in the middle of a line, not a line
            _write(before, rest)
            rest, looked_at = b"", False
    _write(before, rest)
    os.close(ours)
    os.close(before)


def _write(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    with suppress(OSError):  # nobody reads stderr any more, or its disk is full
        while view:
            view = view[os.write(descriptor, view) :]
