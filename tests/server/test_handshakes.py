"""What gRPC's core says on stderr of whom TLS refuses, read along."""

import os
import subprocess
import sys

import pytest

from fedsec_server.handshakes import refusal_in

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


def on_stderr(inside: str, options: str = "") -> tuple[list[bytes], list[bytes]]:
    """Runs a program that writes to stderr while it is read; returns the words told, the lines."""
    script = (
        "import os, sys\nfrom fedsec_server.handshakes import handshakes_watched\nseen = []\n"
        f"with handshakes_watched({options}) as watch:\n"
        "    telling = watch.telling(seen.append)\n"
        "    telling.__enter__()\n"  # to the end: stderr is read by and by
        f"    {inside}\n"
        "print(*[each.code for each in seen])\nprint('after', file=sys.stderr)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, check=True, env=os.environ.copy()
    )
    return done.stdout.split(), done.stderr.split(b"\n")


def test_what_goes_to_stderr_still_goes_there_whole_and_in_order() -> None:
    writes = f"[os.write(2, b'%d %s\\n' % (i, b'x' * 100)) for i in range(2000)]; {said(WARNING)}"
    told, lines = on_stderr(writes)
    assert told == []
    assert [int(line.split()[0]) for line in lines[:2000]] == list(range(2000))
    assert lines[2000:] == [WARNING, b"after", b""]


def said(*lines: bytes) -> str:
    return f"os.write(2, {b''.join(line + bytes([10]) for line in lines)!r})"


def test_what_grpc_was_made_to_say_is_told_and_not_shown() -> None:
    chatter = (CHATTER, HEAD + b"something else", VERIFY)
    told, lines = on_stderr(f"{said(b'before', *chatter)}; os.write(2, b'unfinished')")
    assert told == [b"tls-certificate-verify-failed"]
    assert lines == [b"before", b"unfinishedafter", b""]
    told, lines = on_stderr(said(*chatter), "whole=True")
    assert told == [b"tls-certificate-verify-failed"]
    assert lines == [*chatter, b"after", b""]


def test_the_middle_of_a_long_line_is_no_line() -> None:
    """However long what a peer makes another program write: it cannot begin a line with it."""
    much = 1 << 16  # as much as is read at once
    told, lines = on_stderr(f"os.write(2, b'x' * {much}); {said(VERIFY)}")
    assert told == []
    assert lines == [b"x" * much + VERIFY, b"after", b""]
