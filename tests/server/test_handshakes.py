"""What gRPC's core says on stderr of whom TLS refuses, read along."""

import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from fedsec.wire.call import Refusal
from fedsec_server.coordinator import coordinate
from fedsec_server.handshakes import Watch, refusal_in
from fedsec_server.state.store import Store
from tests.server.coordinatorrig import make_place
from tests.wire.gated import run

HEAD = b"I1127 00:59:56.900597   30177 ssl_transport_security.cc:2563] "
FAILED = HEAD + b"Handshake failed with error SSL_ERROR_SSL: error:1000007d:SSL routines:"
VERIFY = FAILED + b"OPENSSL_internal:CERTIFICATE_VERIFY_FAILED: certificate has expired"


def test_a_refused_certificate() -> None:
    refusal = refusal_in(VERIFY)
    assert refusal is not None
    assert (refusal.code, refusal.principal) == ("tls-certificate-verify-failed", None)
    assert refusal.reason == "TLS refused the connection: certificate has expired"


def test_a_signature_of_somebody_else() -> None:
    """It is another part of the TLS library that finds it."""
    line = FAILED.replace(b"SSL routines", b"ECDSA routines")
    refusal = refusal_in(line + b"OPENSSL_internal:BAD_SIGNATURE: certificate signature failure")
    assert refusal is not None
    assert refusal.code == "tls-bad-signature"
    assert refusal.reason == "TLS refused the connection: certificate signature failure"


@pytest.mark.parametrize(
    "line",
    [
        b"",
        HEAD + b"something else",
        b"01:02:03 run-refused: (reason=" + VERIFY + b")",  # what a peer wrote, in our own log
        b" " + VERIFY,
        VERIFY.replace(b"ssl_transport_security.cc", b"other.cc"),
    ],
)
def test_any_other_line(line: bytes) -> None:
    assert refusal_in(line) is None


def test_a_long_and_strange_reason_is_cut() -> None:
    refusal = refusal_in(FAILED + b"OPENSSL_internal:" + b"A" * 500 + b": " + b"\xff" * 5000)
    assert refusal is not None
    assert len(refusal.code) <= 64
    assert len(refusal.reason) < 300


CHATTER = (
    b"W1127 22:59:43.724799   12296 log.cc:102] Log level INFO is not suitable for production."
)
WARNING = b"E1127 22:59:43.724799   12296 tcp_server.cc:7] no memory"


SCRIPT = """
import asyncio, ctypes, os, sys
from fedsec_server.handshakes import handshakes_watched
seen = []
async def main():
    with handshakes_watched({options}) as watch:
        {first}
        {inside}
    await asyncio.sleep(0)  # what was told comes to the loop
asyncio.run(main())
print(*[each.code for each in seen])
print("after", file=sys.stderr)
"""
# Entered and not left: stderr is read by and by.
TOLD = "telling = watch.telling(seen.append); await telling.__aenter__()"
NO_LONGER = f"{TOLD}; await telling.__aexit__(None, None, None)"
VANISH = 2000  # lines, twice what the pipe holds
# C code that does not let go of Python's lock while it writes, and Python between it.
HOLDING = f"""
        write = ctypes.PyDLL(None).write
        for i in range({VANISH}):
            write(2, b"c" * 1023 + bytes([10]), 1024)
            print(i, file=sys.stderr)
"""


def on_stderr(
    inside: str, options: str = "", *, first: str = TOLD
) -> tuple[list[bytes], list[bytes]]:
    """Runs a program that writes to stderr while it is read; returns the words told, the lines."""
    script = SCRIPT.format(options=options, first=first, inside=inside)
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, check=True, timeout=60
    )
    return done.stdout.split(), done.stderr.split(b"\n")


def test_what_goes_to_stderr_still_goes_there_whole_and_in_order() -> None:
    writes = f"[os.write(2, b'%d %s\\n' % (i, b'x' * 100)) for i in range(500)]; {said(WARNING)}"
    told, lines = on_stderr(writes)
    assert told == []
    assert [int(line.split()[0]) for line in lines[:500]] == list(range(500))
    assert lines[500:] == [WARNING, b"after", b""]


def said(*lines: bytes) -> str:
    return f"os.write(2, {b''.join(line + bytes([10]) for line in lines)!r})"


def test_what_grpc_was_made_to_say_is_told_and_not_shown() -> None:
    chatter = (CHATTER, HEAD + b"something else", VERIFY)
    told, lines = on_stderr(f"{said(b'before', *chatter)}; os.write(2, b'unfinished')")
    assert told == [b"tls-certificate-verify-failed"]
    assert lines == [b"before", b"unfinishedafter", b""]


@pytest.mark.parametrize("first", ["pass", NO_LONGER])
def test_a_refusal_that_nobody_is_told_of_is_shown(first: str) -> None:
    told, lines = on_stderr(said(VERIFY, HEAD + b"something else"), first=first)
    assert told == []
    assert lines == [VERIFY, b"after", b""]


def test_all_is_shown_to_an_operator_who_asked_for_it() -> None:
    chatter = (CHATTER, HEAD + b"something else", VERIFY)
    told, lines = on_stderr(said(*chatter), "whole=True")
    assert told == []
    assert lines == [*chatter, b"after", b""]


@pytest.mark.parametrize("options", ["", "whole=True"])
def test_whoever_writes_while_he_holds_pythons_lock_does_not_wait_for_it(options: str) -> None:
    """And what Python itself writes is all there."""
    _, lines = on_stderr(HOLDING, options)
    assert [int(line) for line in lines if line.isdigit()] == list(range(VANISH))
    assert lines[-2:] == [b"after", b""]
    of_c = [line for line in lines if line.startswith(b"c")]
    assert set(of_c) == {b"c" * 1023}
    assert len(of_c) == VANISH or not options


def test_stderr_is_as_it_was_if_no_thread_can_be_started() -> None:
    script = (
        "import os, sys, threading\nfrom fedsec_server.handshakes import handshakes_watched\n"
        "def start(self): raise RuntimeError('no more threads')\n"
        "threading.Thread.start = start\n"
        "before = os.fstat(2), os.listdir('/proc/self/fd')\n"
        "try:\n    handshakes_watched().__enter__()\n"
        "except RuntimeError as error: print(error, file=sys.stderr)\n"
        "print((os.fstat(2), os.listdir('/proc/self/fd')) == before)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, check=True, timeout=60
    )
    assert (done.stdout, done.stderr) == (b"True\n", b"no more threads\n")


def test_the_middle_of_a_long_line_is_no_line() -> None:
    """However long what a peer makes another program write: it cannot begin a line with it."""
    much = 1 << 14  # more than is looked at, and no more than any pipe holds
    told, lines = on_stderr(f"os.write(2, b'x' * {much}); {said(VERIFY)}")
    assert told == []
    assert lines == [b"x" * much + VERIFY, b"after", b""]


def test_refusals_are_recorded_before_anything_listens_and_until_nothing_does(
    tmp_path: Path,
) -> None:
    layout = make_place(tmp_path).layout
    listened = []

    class Refusing(Watch):
        """Sees a refusal at the very beginning and at the very end."""

        @asynccontextmanager
        async def telling(self, tell: Callable[[Refusal], object]) -> AsyncIterator[None]:
            async with super().telling(tell):
                listened.append(layout.listening.exists())
                assert self.takes(VERIFY)
                yield
                listened.append(layout.listening.exists())
                assert self.takes(VERIFY)

    async def main() -> None:
        async with coordinate(layout, 1, watch=Refusing()):
            assert layout.listening.exists()

    run(main(), 60)
    assert listened == [False, False]
    store = Store.open(layout.database)
    refused = [each.detail["code"] for each in store.events() if each.kind == "rpc-refused"]
    store.close()
    assert refused == ["tls-certificate-verify-failed"] * 2
