"""The one door through which every RPC of every kind comes in.

    TLS 1.3? certificate of this listener's CA? valid now? revoked? role? rate? open calls?
        --no--> status and sentence to the caller, a `Refusal` to the log
        --yes-> the handler runs as a child task, until the first of
                  it ends | certificate expires | revoked | CA replaced | patience ends

TLS looks at a certificate once, at the handshake, and not at all when a session is resumed. So a
stream outlives its certificate, and an expired certificate comes back in through resumption. What
the handshake proved is therefore checked again here, at each RPC and while it runs.
"""

import asyncio
import logging
import re
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from ipaddress import IPv4Address, ip_address, ip_network
from typing import Any, NoReturn
from urllib.parse import unquote

import grpc
import grpc.aio
from cryptography import x509

from fedsec.errors import ConfigError, IdentityError, ProtocolError
from fedsec.identity.authorities import issuer_of_kind
from fedsec.identity.certificates import load_certificates
from fedsec.identity.names import Kind, Principal
from fedsec.identity.principals import admit, principal_of
from fedsec.wire.answers import Answer, Reports, answer_to
from fedsec.wire.call import Call, CallFailed, Handler, Method, Refusal
from fedsec.wire.denylist import Denylist
from fedsec.wire.jumps import Jumps
from fedsec.wire.rates import RateLimiter

__all__ = ["Call", "Denylist", "Gate", "Handler", "Method", "RateLimiter", "Refusal"]

MAX_OPEN = 64  # RPCs of one identity at a time
PATIENCE_S = 120.0  # for an RPC that is not long-lived

_MAX_CACHED = 4096  # certificates whose principal is remembered
_LONGEST_WAIT_S = 86_400.0  # without a certificate that expires before
_AFTER_EXPIRY_S = 0.002  # a timer may fire a little early
_CLEAN_UP_S = 5.0  # that a handler has after its cancellation, before the caller is told
_TLS_1_3 = b"TLSv1.3"

_LOG = logging.getLogger(__name__)

Context = grpc.aio.ServicerContext[bytes, bytes]


def utc_now() -> datetime:
    """Returns the time as certificates see it, aware UTC."""
    return datetime.now(UTC)


@dataclass(frozen=True, slots=True)
class _Visitor:
    """Who stands at the door: `key` is what limits are counted by."""

    method: str
    peer: str
    key: str
    certificate: bytes | None = None
    principal: Principal | None = None


class Gate:
    """Admits RPCs on one listener, and ends them when the reason for admission ends.

    Belongs to one event loop; every method is called in its thread.

    Args:
        issuers: PEM of the CA whose certificates this listener takes, and while it is replaced of
            its successor; None for the listener for enrolment, which takes anyone and counts by
            address.
        kind: What that CA's principals are; None with `issuers` None.
        denylist: Shared by all listeners.
        limiter: Tokens per identity (per address on the listener for enrolment).
        on_refusal: Gets every refusal, at most a few per second and peer. Must not block.
        clock: Aware UTC.
        max_open: RPCs that one identity may have open at a time, >= 1.
        patience_s: Seconds after which an RPC that is not long-lived is ended.

    Raises:
        ConfigError: `issuers` and `kind` do not belong together.
        IdentityError: One of `issuers` is no issuing CA.
    """

    def __init__(
        self,
        issuers: bytes | None,
        kind: Kind | None,
        denylist: Denylist,
        limiter: RateLimiter,
        on_refusal: Callable[[Refusal], None],
        *,
        clock: Callable[[], datetime] = utc_now,
        max_open: int = MAX_OPEN,
        patience_s: float = PATIENCE_S,
    ) -> None:
        self._kind = kind
        self._issuers = _load_issuers(issuers, kind)
        self._denylist = denylist
        self._limiter = limiter
        self._clock = clock
        self._max_open = max_open
        self._patience_s = patience_s
        self._reports = Reports(on_refusal)
        self._principals: OrderedDict[bytes, Principal] = OrderedDict()
        self._open: Counter[str] = Counter()
        self._running: set[asyncio.Event] = set()
        self._jumps = Jumps(clock, self._look_again, lambda: bool(self._running))

    def generic_handler(self, methods: Iterable[Method]) -> grpc.GenericRpcHandler:
        """Returns what a gRPC server asks for each RPC. It answers for every path there is.

        Raises:
            ConfigError: Two rows of one name; roles where nobody has one, or none where all have.
        """
        table: dict[str, Method] = {}
        for method in methods:
            if method.name in table:
                raise ConfigError(f"two rows for {method.name}")
            if bool(method.roles) != bool(self._issuers):
                raise ConfigError(
                    f"{method.name}: a row names roles exactly where the listener asks for "
                    f"certificates, got {sorted(method.roles)}"
                )
            table[method.name] = method
        return _Door(self, table)

    def replace_issuers(self, issuers: bytes) -> None:
        """Takes certificates of these CAs from now on; ends the streams of any other one.

        Raises:
            ConfigError: The listener takes no certificates.
            IdentityError: One of `issuers` is no issuing CA, or one of another kind.
        """
        if self._kind is None:
            raise ConfigError("the listener for enrolment has no issuer to replace")
        self._issuers = _load_issuers(issuers, self._kind)
        self._principals.clear()
        self._look_again()

    @property
    def open_calls(self) -> int:
        """How many RPCs are open now."""
        return self._open.total()

    async def serve(self, method: Method | None, name: str, context: Context) -> None:
        """Admits or refuses one RPC and sees it to its end.

        Args:
            method: Its row; None when the listener has none for it.
            name: Path, as the peer wrote it.
            context: gRPC's.
        """
        peer = context.peer()
        visitor = _Visitor(_printable(name), peer, _host(peer))
        try:
            visitor = self._identify(visitor, context)
            row = self._check(visitor, method)
        except Exception as error:  # noqa: BLE001 - whatever happens here must refuse
            await self._end(visitor, context, answer_to(error, visitor.method))
        self._open[visitor.key] += 1
        try:
            await self._run(visitor, row, context)
        except Exception as error:  # noqa: BLE001 - no text of an unknown error may leave
            await self._end(visitor, context, answer_to(error, visitor.method))
        finally:
            self._open[visitor.key] -= 1
            if not self._open[visitor.key]:
                del self._open[visitor.key]

    def _identify(self, visitor: _Visitor, context: Context) -> _Visitor:
        """Says who calls, from TLS alone."""
        facts = context.auth_context()
        version = next(iter(facts.get("ssl_tls_version", ())), b"none")
        if version != _TLS_1_3:
            shown = version.decode("ascii", "replace")
            raise IdentityError("tls-version", f"this port speaks TLS 1.3 only, not {shown}")
        if not self._issuers:
            return visitor
        certificate = next(iter(facts.get("x509_pem_cert", ())), None)
        if certificate is None:
            raise IdentityError("no-certificate", "this port asks for a certificate")
        principal = self._principal(certificate)
        return _Visitor(visitor.method, visitor.peer, principal.spiffe_id, certificate, principal)

    def _principal(self, certificate: bytes) -> Principal:
        """Returns whom a PEM speaks for. The signature is checked once per certificate."""
        known = self._principals.get(certificate)
        if known is None:
            known = self._read(certificate)
            self._principals[certificate] = known
            if len(self._principals) > _MAX_CACHED:
                self._principals.popitem(last=False)
        return known

    def _read(self, certificate: bytes) -> Principal:
        if not self._issuers or self._kind is None:
            raise ConfigError("a listener without an issuer knows no principals")
        *others, last = self._issuers
        for issuer in others:
            try:
                return principal_of(certificate, issuer=issuer, kind=self._kind)
            except IdentityError as error:
                if error.code != "wrong-issuer":
                    raise
        return principal_of(certificate, issuer=last, kind=self._kind)

    def _still_good(self, visitor: _Visitor) -> None:
        """Checks what may end while an RPC runs: issuer, validity, denylist."""
        if visitor.certificate is not None:
            principal = self._principal(visitor.certificate)
            admit(principal, now=self._clock())
            self._denylist.check(principal)

    def _check(self, visitor: _Visitor, method: Method | None) -> Method:
        self._still_good(visitor)
        if method is None:
            raise CallFailed(
                grpc.StatusCode.UNIMPLEMENTED,
                f"this port has no method {visitor.method}",
                "unknown-method",
            )
        if visitor.principal is not None and visitor.principal.role not in method.roles:
            raise CallFailed(
                grpc.StatusCode.PERMISSION_DENIED,
                f"{_in_words(visitor.method)} is for {', '.join(sorted(method.roles))}, "
                f"not for {visitor.principal.label}",
                "role",
            )
        self._limiter.take(visitor.key)
        if self._open[visitor.key] >= self._max_open:
            raise ProtocolError(
                visitor.key, "too-many-open", f"{self._max_open} calls are open already"
            )
        return method

    async def _run(self, visitor: _Visitor, method: Method, context: Context) -> None:
        # Sent alone and awaited here: a first write that is cancelled half-way would leave gRPC
        # unable to send any status, and the caller waiting for ever.
        await context.send_initial_metadata(())
        call = Call(
            visitor.principal, visitor.peer, visitor.method, _reader(context), context.write
        )
        child: asyncio.Future[None] = asyncio.ensure_future(method.handler(call))
        try:
            await self._watch(visitor, method, child)
        finally:
            child.cancel()
            _, unwilling = await asyncio.wait({child}, timeout=_CLEAN_UP_S)
            if unwilling:
                _LOG.error("%s does not end when cancelled; its caller is gone", method.name)
            elif not child.cancelled():
                child.exception()  # seen: it was raised above, or nobody is left to hear it

    async def _watch(
        self, visitor: _Visitor, method: Method, child: "asyncio.Future[None]"
    ) -> None:
        """Waits for the handler, and raises what ends it before."""
        end = None if method.long_lived else asyncio.get_running_loop().time() + self._patience_s
        self._jumps.watch()
        with self._denylist.watch(visitor.principal) as event:
            self._running.add(event)
            waiter = asyncio.ensure_future(event.wait())
            awaited: set[asyncio.Future[Any]]
            try:
                while not child.done():
                    if waiter.done():
                        event.clear()
                        waiter = asyncio.ensure_future(event.wait())
                    self._still_good(visitor)
                    timeout = self._seconds_left(visitor, end)
                    awaited = {child, waiter}
                    await asyncio.wait(
                        awaited, timeout=timeout, return_when=asyncio.FIRST_COMPLETED
                    )
            finally:
                waiter.cancel()
                self._running.discard(event)
        if child.cancelled():
            raise CallFailed(grpc.StatusCode.ABORTED, "the coordinator ended this call")
        child.result()

    def _look_again(self) -> None:
        """Has every running RPC looked at again."""
        for event in self._running:
            event.set()

    def _seconds_left(self, visitor: _Visitor, end: float | None) -> float:
        """Seconds until the next look is due: expiry, or the end of patience."""
        left = _LONGEST_WAIT_S
        if visitor.principal is not None:
            life = visitor.principal.not_after - self._clock()
            left = min(left, max(0.0, life.total_seconds()) + _AFTER_EXPIRY_S)
        if end is not None:
            patience = end - asyncio.get_running_loop().time()
            if patience <= 0:
                raise CallFailed(
                    grpc.StatusCode.DEADLINE_EXCEEDED,
                    f"{visitor.method} took more than {self._patience_s:g} s",
                )
            left = min(left, patience)
        return left

    async def _end(self, visitor: _Visitor, context: Context, answer: Answer) -> NoReturn:
        """Reports and answers. Until the status is out, the RPC counts as open."""
        if answer.reported:
            self._reports.report(
                visitor.key,
                Refusal(
                    visitor.method, visitor.peer, visitor.principal, answer.code, answer.sentence
                ),
            )
        await context.abort(answer.status, answer.details)


class _Door(grpc.GenericRpcHandler):
    """Says "stream-stream over raw bytes" for every path, known or not."""

    def __init__(self, gate: Gate, table: dict[str, Method]) -> None:
        self._gate = gate
        self._known = {name: self._handler(method, name) for name, method in table.items()}

    def service(
        self, handler_call_details: grpc.HandlerCallDetails
    ) -> "grpc.RpcMethodHandler[bytes, bytes]":
        name = handler_call_details.method
        return self._known.get(name) or self._handler(None, name)

    def _handler(self, method: Method | None, name: str) -> "grpc.RpcMethodHandler[bytes, bytes]":
        async def behaviour(_requests: object, context: Context) -> None:
            await self._gate.serve(method, name, context)

        # The stubs know the threaded server's handlers only; grpc.aio takes a coroutine here.
        coroutine: Any = behaviour
        return grpc.stream_stream_rpc_method_handler(coroutine)


def _load_issuers(issuers: bytes | None, kind: Kind | None) -> tuple[x509.Certificate, ...]:
    if (issuers is None) != (kind is None):
        raise ConfigError("a gate gets issuers and the kind of their principals, or neither")
    if issuers is None:
        return ()
    certificates = load_certificates(issuers)
    for certificate in certificates:
        _, its_kind = issuer_of_kind(certificate)
        if its_kind is not kind:
            raise IdentityError(
                "wrong-kind", f"the CA signs for {its_kind}, the gate is for {kind}"
            )
    return certificates


def _reader(context: Context) -> Callable[[], Any]:
    async def read() -> bytes | None:
        data = await context.read()
        return data if isinstance(data, bytes) else None  # gRPC's own mark for the end

    return read


def _printable(name: str) -> str:
    return "".join(c if c.isprintable() else "?" for c in name[:100])


def _in_words(method: str) -> str:
    """Returns what a method does, from its path.

    >>> _in_words("/fedsec.v1.Admin/InviteNode")
    '"invite node"'
    """
    words = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", method.rpartition("/")[2])
    return f'"{words.lower()}"'


def _host(peer: str) -> str:
    """Returns what limits are counted by: an IPv4 address, or the /64 that an IPv6 address is in.

    gRPC writes ``ipv4:10.0.0.7:41000`` and ``ipv6:%5B2001:db8::7%5D:41000``; whoever has one
    address of a /64 has them all.
    """
    host = unquote(peer).rpartition(":")[0].partition(":")[2].strip("[]")
    try:
        address = ip_address(host.partition("%")[0])
    except ValueError:
        return peer.rpartition(":")[0]
    if isinstance(address, IPv4Address):
        return str(address)
    return str(ip_network((address, 64), strict=False))
