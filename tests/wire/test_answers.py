"""What a caller reads out of a refusal, and what the log is told of a flood."""

import grpc
import grpc.aio
import pytest

from fedsec.errors import (
    ConfigError,
    FedsecError,
    IdentityError,
    PolicyRefusal,
    ProtocolError,
    StateError,
)
from fedsec.wire.answers import Reports, answer_to, error_of, refusal_of
from fedsec.wire.call import Refusal

METHOD = "/test.Service/Method"


def failed(status: grpc.StatusCode, details: str) -> grpc.aio.AioRpcError:
    return grpc.aio.AioRpcError(status, grpc.aio.Metadata(), grpc.aio.Metadata(), details=details)


@pytest.mark.parametrize(
    "error",
    [
        IdentityError("revoked", "node 5 was revoked"),
        PolicyRefusal("this site does not allow it"),
        ConfigError("rounds must be >= 1, got 0"),
        ProtocolError("", "bad-hash", "chunk 3 is not what was announced"),
        ProtocolError("", "too-large", "at most 5 bytes"),
        StateError("there is no run 7"),
    ],
)
def test_an_error_comes_out_at_the_other_end_as_it_went_in(error: FedsecError) -> None:
    answer = answer_to(error, METHOD)
    arrived = error_of(failed(answer.status, answer.details))
    assert type(arrived) is type(error)
    assert str(arrived) == str(error)


@pytest.mark.parametrize(
    ("status", "details", "want"),
    [
        (
            "UNAUTHENTICATED",
            "revoked: node 5 was revoked: ask",
            ("revoked", "node 5 was revoked: ask"),
        ),
        (
            "UNAVAILABLE",
            "failed to connect; last error: x",
            ("unavailable", "failed to connect; last error: x"),
        ),
        ("UNIMPLEMENTED", "Method not found!", ("unimplemented", "Method not found!")),
        ("DEADLINE_EXCEEDED", "", ("deadline-exceeded", "")),
        ("INTERNAL", "Traceback: boom", ("internal", "Traceback: boom")),
    ],
)
def test_a_refusal_of_ours_is_told_from_grpcs_own(
    status: str, details: str, want: tuple[str, str]
) -> None:
    assert refusal_of(failed(grpc.StatusCode[status], details)) == want


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        ("UNAUTHENTICATED", IdentityError),
        ("PERMISSION_DENIED", PolicyRefusal),
        ("INVALID_ARGUMENT", ProtocolError),
        ("RESOURCE_EXHAUSTED", ProtocolError),
        ("UNAVAILABLE", StateError),
        ("DEADLINE_EXCEEDED", StateError),
        ("INTERNAL", StateError),
        ("UNIMPLEMENTED", StateError),
    ],
)
def test_whatever_grpc_says_becomes_an_error_of_our_tree(
    status: str, kind: type[FedsecError]
) -> None:
    assert type(error_of(failed(grpc.StatusCode[status], "anything"))) is kind


def test_grpcs_own_errors_in_a_handler_are_no_incident(caplog: pytest.LogCaptureFixture) -> None:
    """They come when the caller has gone, which is nobody's fault."""
    answer = answer_to(grpc.aio.UsageError("RPC already finished."), METHOD)
    assert (answer.status, answer.reported) == (grpc.StatusCode.CANCELLED, False)
    assert caplog.text == ""


def test_the_unreported_are_counted_and_told_with_the_next_one() -> None:
    now = 0.0
    seen: list[Refusal] = []
    reports = Reports(seen.append)
    reports._budget._clock = lambda: now
    refusal = Refusal(METHOD, "ipv4:10.0.0.1:5", None, "role", "not for you")
    for _ in range(50):
        reports.report("10.0.0.1", refusal)
    assert [one.unreported for one in seen] == [0] * 20
    reports.report("10.0.0.2", refusal)  # another peer's are not concerned
    assert len(seen) == 21
    now = 10.0
    reports.report("10.0.0.1", refusal)
    assert seen[-1].unreported == 30
    reports.report("10.0.0.1", refusal)
    assert seen[-1].unreported == 0
