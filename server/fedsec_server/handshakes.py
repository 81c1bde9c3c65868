"""Whom TLS refuses, in the log of events: read from what gRPC says on stderr.

A handshake that fails never reaches the gate, and gRPC tells no program of it. But its core writes
one line, with the reason and without the address:

    I1127 00:59:56.900597 30177 ssl_transport_security.cc:2563] Handshake failed with error
    SSL_ERROR_SSL: error:1000007d:SSL routines:OPENSSL_internal:CERTIFICATE_VERIFY_FAILED: ...

So what is written to file descriptor 2 is led through a pipe of our own, and on to where it went
before. What Python writes to `sys.stderr` goes past the pipe.

Who writes there never waits: gRPC writes while it holds Python's global lock, and the thread that
reads would need that lock. So where more comes at once than the pipe holds, lines are lost; so is
what is in the pipe when the process is killed.

Not led on are the refusals that were told, and lines that gRPC writes at level INFO, at which it
speaks only because `grpc_words` made it: nobody sees those. An operator who asks for INFO or DEBUG
sees all, for stderr is left alone; whom TLS refuses is then told there and nowhere else.
"""

import asyncio
import fcntl
import os
import re
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, redirect_stderr, suppress

from fedsec.wire.call import Refusal

METHOD = "(TLS handshake)"  # in the place of a method's name
UNKNOWN = "unknown"
_STDERR = 2
_LONGEST = 8 << 10  # bytes of a line that are looked at
_REASON = 200  # characters
_PIPE = 1 << 20  # bytes, as many as Linux lets anybody have; some 4,000 lines
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
    """Looks at lines that gRPC wrote, and tells of refusals whoever wants to know."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._tell: Callable[[Refusal], object] | None = None

    @asynccontextmanager
    async def telling(self, tell: Callable[[Refusal], object]) -> AsyncIterator[None]:
        """Calls `tell` with each refusal, in the loop that runs, until the end of the block.

        Args:
            tell: Must not wait.
        """
        loop = asyncio.get_running_loop()
        with self._lock:
            self._tell = lambda refusal: loop.call_soon_threadsafe(tell, refusal)
        try:
            yield
        finally:
            with self._lock:
                self._tell = None
            await asyncio.sleep(0)  # until `tell` has all that was on its way

    def takes(self, line: bytes) -> bool:
        """Looks at a line; says whether it need not go on: it was told, or it is chatter."""
        refusal = refusal_in(line)
        if refusal is None:
            return _CHATTER.match(line) is not None
        with self._lock:
            if self._tell is None:
                return False
            self._tell(refusal)
            return True


@contextmanager
def handshakes_watched(*, whole: bool = False) -> Iterator[Watch]:
    """Reads along on stderr until the end of the block.

    Args:
        whole: Leave stderr alone, for the operator wants all that gRPC says; nothing is told then.
    """
    watch = Watch()
    if whole:
        yield watch
        return
    before = os.dup(_STDERR)
    ours, theirs = os.pipe()
    reader = threading.Thread(
        target=_read_along, args=(ours, before, watch), name="handshakes", daemon=True
    )
    try:
        reader.start()
    except BaseException:
        for each in (before, ours, theirs):
            os.close(each)
        raise
    try:
        with _python_past(before), _led_into(theirs):
            yield watch
    finally:
        reader.join(1.0)


@contextmanager
def _python_past(before: int) -> Iterator[None]:
    """Lets Python's own stderr wait and lose nothing, as ever."""
    was = sys.stderr
    was.flush()
    with (
        open(os.dup(before), "w", 1, was.encoding, was.errors) as to,  # noqa: PTH123
        redirect_stderr(to),
    ):
        yield


@contextmanager
def _led_into(pipe: int) -> Iterator[None]:
    """Lets stderr lead into a pipe, which is closed at the end, and write without waiting."""
    before = os.dup(_STDERR)
    os.set_blocking(pipe, False)
    with suppress(OSError):  # this user has too many large ones; the pipe is smaller then
        fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, _PIPE)
    os.dup2(pipe, _STDERR)
    os.close(pipe)
    try:
        yield
    finally:
        os.dup2(before, _STDERR)  # which ends the reading, unless another process holds the pipe
        os.close(before)


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
