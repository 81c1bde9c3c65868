"""What a caller is told when an RPC fails, and what the log is told.

An error of our own tree becomes a status with its code and sentence. Anything else becomes INTERNAL
with a random number under which the log has the rest: an unknown text may hold a secret.
"""

import logging
import secrets
from collections.abc import Callable
from dataclasses import dataclass, replace

import grpc
import grpc.aio

from fedsec.errors import (
    ConfigError,
    FedsecError,
    IdentityError,
    PolicyRefusal,
    ProtocolError,
    StateError,
)
from fedsec.wire.call import CallFailed, Refusal
from fedsec.wire.rates import RateLimiter

MAX_SENTENCE = 1000  # characters; a status travels as a header, which is at most 8 KiB

_LOG = logging.getLogger(__name__)
_RESOURCE_CODES = frozenset({"rate", "too-many-open", "too-large", "too-many-uploads", "no-room"})
_REPORTS_PER_S = 0.5
_REPORTS_BURST = 20
_MAX_KEYS = 10_000


@dataclass(frozen=True, slots=True)
class Answer:
    """How an RPC ends that failed.

    Args:
        status: gRPC's status.
        code: One stable word.
        sentence: For a person.
        reported: Whether it concerns security, so that the log keeps it as a `Refusal`.
    """

    status: grpc.StatusCode
    code: str
    sentence: str
    reported: bool = True

    @property
    def details(self) -> str:
        """The text of the status, ``"code: sentence"``; `refusal_of` takes it apart."""
        return f"{self.code}: {self.sentence}"


def answer_to(error: Exception, method: str) -> Answer:
    """Returns what to tell the caller of `method` whose handler raised `error`."""
    answer = _answer_to(error, method)
    return replace(answer, sentence=_one_line(answer.sentence))


def _answer_to(error: Exception, method: str) -> Answer:
    match error:
        case CallFailed():
            answer = Answer(error.status, error.code, error.sentence)
        case IdentityError():
            answer = Answer(grpc.StatusCode.UNAUTHENTICATED, error.code, error.detail)
        case ProtocolError():
            scarce = error.code in _RESOURCE_CODES
            status = (
                grpc.StatusCode.RESOURCE_EXHAUSTED if scarce else grpc.StatusCode.INVALID_ARGUMENT
            )
            answer = Answer(status, error.code, error.detail)
        case PolicyRefusal():
            answer = Answer(grpc.StatusCode.PERMISSION_DENIED, "policy", str(error))
        case ConfigError():
            answer = Answer(grpc.StatusCode.INVALID_ARGUMENT, "config", str(error), reported=False)
        case grpc.aio.BaseError():  # gRPC's own: there is nobody left to answer
            answer = Answer(grpc.StatusCode.CANCELLED, "lost", "the call is over", reported=False)
        case FedsecError():
            status = grpc.StatusCode.FAILED_PRECONDITION
            answer = Answer(status, "state", str(error), reported=False)
        case _:
            answer = _incident(error, method)
    return answer


def _incident(error: Exception, method: str) -> Answer:
    number = secrets.token_hex(4)
    _LOG.error("incident %s in %s", number, method, exc_info=error)
    return Answer(
        grpc.StatusCode.INTERNAL,
        "internal",
        f"the other end failed; its log has the reason as incident {number}",
    )


class Reports:
    """Hands refusals to the log, not more than it can bear of one peer.

    Args:
        on_refusal: Where they go.
    """

    def __init__(self, on_refusal: Callable[[Refusal], None]) -> None:
        self._on_refusal = on_refusal
        self._budget = RateLimiter(_REPORTS_PER_S, _REPORTS_BURST, max_keys=_MAX_KEYS)
        self._unreported: dict[str, int] = {}

    def report(self, key: str, refusal: Refusal) -> None:
        """Reports a refusal of the peer `key`, or counts it for its next one."""
        try:
            self._budget.take(key)
        except ProtocolError:
            if len(self._unreported) < _MAX_KEYS or key in self._unreported:
                self._unreported[key] = self._unreported.get(key, 0) + 1
            return
        refusal = replace(refusal, unreported=self._unreported.pop(key, 0))
        who = refusal.principal.label if refusal.principal else refusal.peer
        _LOG.warning("refused %s to %s: %s: %s", refusal.method, who, refusal.code, refusal.reason)
        try:
            self._on_refusal(refusal)
        except Exception:  # noqa: BLE001 - a full disk must not open or close the door
            _LOG.exception("the log of refusals failed")


def refusal_of(error: grpc.aio.AioRpcError) -> tuple[str, str]:
    """Returns (code, sentence) of what the other end said, at the caller's side.

    The code is that of the errors above, or gRPC's status in lower case, e.g. ``"unavailable"``,
    where the other end is not ours or was never reached.
    """
    details = error.details() or ""
    code, colon, sentence = details.partition(": ")
    if colon and code.replace("-", "").isalnum() and code == code.lower():
        return code, sentence
    return _word(error.code()), details


def error_of(error: grpc.aio.AioRpcError) -> FedsecError:
    """Returns the other end's refusal as an error of our tree."""
    code, sentence = refusal_of(error)
    match error.code():
        case grpc.StatusCode.UNAUTHENTICATED:
            return IdentityError(code, sentence)
        case grpc.StatusCode.PERMISSION_DENIED:
            return PolicyRefusal(sentence)
        case grpc.StatusCode.INVALID_ARGUMENT if code == "config":
            return ConfigError(sentence)
        case grpc.StatusCode.INVALID_ARGUMENT | grpc.StatusCode.RESOURCE_EXHAUSTED:
            return ProtocolError("", code, sentence)
        case grpc.StatusCode.UNAVAILABLE | grpc.StatusCode.DEADLINE_EXCEEDED:
            return StateError(f"the coordinator cannot be reached: {sentence}")
        case _:
            return StateError(sentence or code)


def _word(status: grpc.StatusCode) -> str:
    return status.name.lower().replace("_", "-")


def _one_line(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= MAX_SENTENCE else line[: MAX_SENTENCE - 3] + "..."
