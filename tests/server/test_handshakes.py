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


def test_what_goes_to_stderr_still_goes_there_whole_and_in_order() -> None:
    script = (
        "import os, sys\nfrom fedsec_server.handshakes import handshakes_watched\nseen = []\n"
        "with handshakes_watched(seen.append):\n"
        "    for number in range(2000):\n        print(number, 'x' * 100, file=sys.stderr)\n"
        f"    os.write(2, {VERIFY + bytes([10])!r})\n"
        "print(len(seen), seen[0].code)\nprint('after', file=sys.stderr)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, check=True, env=os.environ.copy()
    )
    assert done.stdout.split() == [b"1", b"tls-certificate-verify-failed"]
    lines = done.stderr.splitlines()
    assert [int(line.split()[0]) for line in lines[:2000]] == list(range(2000))
    assert lines[2000:] == [VERIFY, b"after"]
