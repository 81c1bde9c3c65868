"""The one door: every kind of RPC, every check, every error. Over mutual TLS on loopback."""

import logging
from collections.abc import AsyncIterator
from datetime import timedelta

import grpc
import grpc.aio
import pytest

from fedsec.errors import (
    BudgetExhausted,
    ConfigError,
    IdentityError,
    PolicyRefusal,
    ProtocolError,
    StateError,
)
from fedsec.identity.names import Kind, Role
from fedsec.wire.answers import error_of, refusal_of
from fedsec.wire.call import Call, CallFailed, Method, Refusal, server_stream
from fedsec.wire.call import unary as answer_one
from fedsec.wire.denylist import Denylist
from fedsec.wire.gate import Gate, utc_now
from fedsec.wire.generated import fleet_pb2 as pb
from fedsec.wire.rates import RateLimiter
from tests.pki import make_pki
from tests.wire.gated import (
    ADMIN,
    ECHO,
    NODES,
    ONCE,
    WHO,
    gated,
    once,
    refused,
    run,
    stream,
    unary,
    until,
)

RENEW = "/fedsec.v1.Fleet/Renew"
SLOW = "/test.Service/Slow"


async def _letters() -> AsyncIterator[bytes]:
    for letter in (b"a", b"b", b"c"):
        yield letter


def test_all_four_kinds_of_clients_come_through_the_same_door() -> None:
    async def main() -> None:
        async with gated() as world, world.channel() as channel:
            assert await unary(channel, ONCE.name, b"1") == b"1"
            one_many: grpc.aio.UnaryStreamMultiCallable[bytes, bytes]
            one_many = channel.unary_stream(ECHO.name)
            assert [reply async for reply in one_many(b"2")] == [b"2"]
            many_one: grpc.aio.StreamUnaryMultiCallable[bytes, bytes]
            many_one = channel.stream_unary(ONCE.name)
            assert await many_one(_letters()) == b"a"
            many_many: grpc.aio.StreamStreamMultiCallable[bytes, bytes]
            many_many = channel.stream_stream(ECHO.name)
            assert [reply async for reply in many_many(_letters())] == [b"a", b"b", b"c"]
            assert world.refusals == []

    run(main())


def test_a_generated_style_client_with_messages_works() -> None:
    async def renew(call: Call, request: pb.RenewRequest) -> pb.RenewReply:
        return pb.RenewReply(chain_pem=request.csr_der + b"!")

    method = Method(RENEW, NODES, answer_one(pb.RenewRequest, renew))

    async def main() -> None:
        async with gated([method]) as world, world.channel() as channel:
            call = channel.unary_unary(
                RENEW,
                request_serializer=pb.RenewRequest.SerializeToString,
                response_deserializer=pb.RenewReply.FromString,
            )
            reply = await call(pb.RenewRequest(csr_der=b"csr"))
            assert reply.chain_pem == b"csr!"

    run(main())


def test_a_server_stream_gets_its_one_request() -> None:
    async def count(call: Call, request: pb.FetchRequest) -> None:
        for _ in range(request.first_chunk):
            await call.send(pb.ContentFrame(chunk=b"c"))

    method = Method("/test/Count", NODES, server_stream(pb.FetchRequest, count))

    async def main() -> None:
        async with gated([method]) as world, world.channel() as channel:
            call: grpc.aio.UnaryStreamMultiCallable[bytes, bytes] = channel.unary_stream(
                "/test/Count"
            )
            request = pb.FetchRequest(first_chunk=3).SerializeToString()
            assert len([frame async for frame in call(request)]) == 3

    run(main())


def test_the_caller_is_who_the_certificate_says() -> None:
    async def main() -> None:
        async with gated() as world:
            assert await world.ask(world.pki.node("5" * 32)) == b"node 55555555"

    run(main())


def test_a_malformed_message_is_answered_and_logged() -> None:
    async def never(call: Call, request: pb.RenewRequest) -> pb.RenewReply:
        raise AssertionError("the handler ran")

    method = Method(RENEW, NODES, answer_one(pb.RenewRequest, never))

    async def main() -> None:
        async with gated([method]) as world, world.channel() as channel:
            status, details = await refused(unary(channel, RENEW, b"\xff\xff\xff"))
            assert status is grpc.StatusCode.INVALID_ARGUMENT
            assert details == "malformed: 3 bytes are no fedsec.v1.RenewRequest"
            (refusal,) = world.refusals
            assert (refusal.code, refusal.method) == ("malformed", RENEW)
            assert refusal.principal is not None
            # the same for a call that brings no request at all
            call = stream(channel, RENEW)
            await call.done_writing()
            status, details = await refused(call.read())
            assert status is grpc.StatusCode.INVALID_ARGUMENT
            assert "brought no RenewRequest" in details

    run(main())


def test_a_role_that_is_not_in_the_row_is_refused() -> None:
    async def main() -> None:
        async with gated() as world:
            leaf = world.pki.node()
            status, details = await refused(world.ask(leaf, ADMIN.name))
            assert status is grpc.StatusCode.PERMISSION_DENIED
            assert details.startswith('role: "admin" is for admin, not for node ')
            assert world.codes() == ["role"]
            assert await world.ask(leaf)  # the same node goes on with what it may do

    run(main())


def test_people_are_told_apart_by_their_role() -> None:
    rows = [
        Method("/a/Write", frozenset({Role.ADMIN}), once),
        Method("/a/Read", frozenset({Role.ADMIN, Role.AUDITOR}), once),
    ]

    async def main() -> None:
        async with gated(rows, kind=Kind.PERSON) as world:
            admin = world.pki.person("ann", Role.ADMIN)
            auditor = world.pki.person("bob", Role.AUDITOR)
            assert await world.ask(admin, "/a/Write") == b"x"
            assert await world.ask(auditor, "/a/Read") == b"x"
            status, details = await refused(world.ask(auditor, "/a/Write"))
            assert status is grpc.StatusCode.PERMISSION_DENIED
            assert "auditor bob" in details

    run(main())


@pytest.mark.parametrize("name", ["/no.Such/Method", "/x\n\x1b[31m", "/" + "y" * 500])
def test_an_unknown_method_is_refused_by_the_gate_and_logged_harmlessly(name: str) -> None:
    async def main() -> None:
        async with gated() as world, world.channel() as channel:
            status, _ = await refused(unary(channel, name))
            assert status in {grpc.StatusCode.UNIMPLEMENTED, grpc.StatusCode.INTERNAL}
            for refusal in world.refusals:
                assert refusal.code == "unknown-method"
                assert len(refusal.method) <= 100
                assert refusal.method.isprintable()

    run(main())


@pytest.mark.parametrize(
    ("error", "status", "details", "logged"),
    [
        (ProtocolError("node x", "bad-hash", "d"), "INVALID_ARGUMENT", "bad-hash: d", True),
        (ProtocolError("node x", "too-large", "d"), "RESOURCE_EXHAUSTED", "too-large: d", True),
        (IdentityError("bad-token", "d"), "UNAUTHENTICATED", "bad-token: d", True),
        (PolicyRefusal("not here"), "PERMISSION_DENIED", "policy: not here", True),
        (ConfigError("rounds is 0"), "INVALID_ARGUMENT", "config: rounds is 0", False),
        (StateError("no run 7"), "FAILED_PRECONDITION", "state: no run 7", False),
        (BudgetExhausted("spent"), "FAILED_PRECONDITION", "state: spent", False),
        (ProtocolError("", "odd", "two\nlines\x00 " + "é" * 2000), "INVALID_ARGUMENT", None, True),
    ],
)
def test_errors_of_ours_reach_the_caller_as_status_and_sentence(
    error: Exception, status: str, details: str | None, logged: bool
) -> None:
    async def fails(call: Call) -> None:
        raise error

    async def main() -> None:
        async with gated([Method("/t/F", NODES, fails)]) as world:
            got, text = await refused(world.ask(None, "/t/F"))
            assert got is grpc.StatusCode[status]
            assert details is None or text == details
            assert len(text) < 1100
            assert "\n" not in text
            assert bool(world.refusals) is logged

    run(main())


def test_no_other_errors_text_gets_out(caplog: pytest.LogCaptureFixture) -> None:
    async def leaks(call: Call) -> None:
        raise ValueError("the password is hunter2")

    async def main() -> str:
        async with gated([Method("/t/F", NODES, leaks)]) as world:
            status, details = await refused(world.ask(None, "/t/F"))
            assert status is grpc.StatusCode.INTERNAL
            assert "hunter2" not in details
            assert "hunter2" not in world.refusals[0].reason
            return details.split("incident ")[1]

    with caplog.at_level(logging.ERROR):
        incident = run(main())
    assert f"incident {incident} in /t/F" in caplog.text
    assert "hunter2" in caplog.text  # the log has the traceback


def test_a_handler_may_end_its_call_with_any_status() -> None:
    async def fails(call: Call) -> None:
        raise CallFailed(grpc.StatusCode.NOT_FOUND, "no node of this name")

    async def main() -> None:
        async with gated([Method("/t/F", NODES, fails)]) as world, world.channel() as channel:
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await unary(channel, "/t/F")
            assert caught.value.code() is grpc.StatusCode.NOT_FOUND
            assert refusal_of(caught.value) == ("not-found", "no node of this name")
            assert isinstance(error_of(caught.value), StateError)

    run(main())


def test_the_rate_limit_counts_by_identity_not_by_connection() -> None:
    async def main() -> None:
        limiter = RateLimiter(0.001, 3)
        async with gated(limiter=limiter) as world:
            greedy, modest = world.pki.node(), world.pki.node()
            for _ in range(3):
                await world.ask(greedy)
            status, details = await refused(world.ask(greedy))
            assert status is grpc.StatusCode.RESOURCE_EXHAUSTED
            assert details.startswith("rate: more than 0.001 calls per second")
            assert await world.ask(modest)
            assert world.codes() == ["rate"]

    run(main())


def test_the_number_of_open_calls_is_limited_by_identity() -> None:
    async def main() -> None:
        async with gated(max_open=2) as world:
            leaf = world.pki.node()
            async with world.channel(leaf) as one, world.channel(leaf) as two:
                streams = [stream(one), stream(two)]
                for open_one in streams:
                    await open_one.write(b"x")
                    await open_one.read()
                status, details = await refused(unary(one, WHO.name))
                assert status is grpc.StatusCode.RESOURCE_EXHAUSTED
                assert details == "too-many-open: 2 calls are open already"
                assert await world.ask(None)
                streams[0].cancel()
                await until(lambda: world.gate.open_calls == 1)
                assert await unary(one, WHO.name)

    run(main())


def test_a_refused_flood_is_reported_a_bounded_number_of_times() -> None:
    async def main() -> None:
        async with gated() as world, world.channel() as channel:
            for _ in range(60):
                await refused(unary(channel, ADMIN.name))
            assert 20 <= len(world.refusals) <= 30
            assert all(refusal.unreported == 0 for refusal in world.refusals[:20])

    run(main())


def test_a_log_that_fails_neither_opens_nor_closes_the_door(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def full_disk(refusal: Refusal) -> None:
        raise OSError("no space left")

    async def main() -> None:
        async with gated() as world, world.channel() as channel:
            world.gate._reports._on_refusal = full_disk
            status, _ = await refused(unary(channel, ADMIN.name))
            assert status is grpc.StatusCode.PERMISSION_DENIED
            assert await unary(channel, WHO.name)

    with caplog.at_level(logging.ERROR):
        run(main())
    assert "the log of refusals failed" in caplog.text


def test_the_clock_of_the_coordinator_alone_decides_about_validity() -> None:
    """Ten minutes of skew either way: TLS, by the machine's clock, lets all of these in."""
    skew = timedelta(0)

    async def main() -> None:
        nonlocal skew
        async with gated(clock=lambda: utc_now() + skew) as world:
            leaf = world.pki.node(lifetime=timedelta(minutes=9))
            assert await world.ask(leaf)
            skew = timedelta(minutes=10)
            status, details = await refused(world.ask(leaf))
            assert status is grpc.StatusCode.UNAUTHENTICATED
            assert details.startswith("expired: the certificate of node ")
            skew = timedelta(minutes=-10)
            status, details = await refused(world.ask(leaf))
            assert status is grpc.StatusCode.UNAUTHENTICATED
            assert details.startswith("not-yet-valid: ")
            skew = timedelta(0)
            assert await world.ask(leaf)
            assert world.codes() == ["expired", "not-yet-valid"]

    run(main())


def test_the_listener_for_enrolment_takes_anyone_and_counts_by_address() -> None:
    row = Method("/t/Enrol", frozenset(), once)

    async def main() -> None:
        limiter = RateLimiter(0.001, 2)
        async with gated([row], kind=None, limiter=limiter) as world:
            for _ in range(2):
                async with world.anonymous() as channel:
                    assert await unary(channel, "/t/Enrol", b"token") == b"token"
            async with world.anonymous() as channel:
                status, _ = await refused(unary(channel, "/t/Enrol"))
            assert status is grpc.StatusCode.RESOURCE_EXHAUSTED
            (refusal,) = world.refusals
            assert refusal.principal is None
            assert refusal.peer.startswith("ipv")

    run(main())


def test_a_handler_that_needs_a_caller_refuses_an_anonymous_one() -> None:
    async def who(call: Call) -> None:
        await call.write(call.caller().label.encode())

    async def main() -> None:
        async with gated([Method("/t/Who", frozenset(), who)], kind=None) as world:
            async with world.anonymous() as channel:
                status, details = await refused(unary(channel, "/t/Who"))
            assert status is grpc.StatusCode.INVALID_ARGUMENT
            assert details == "anonymous: /t/Who needs a certificate"

    run(main())


def test_nonsense_in_the_table_is_refused_before_anything_listens() -> None:
    pki = make_pki()

    def gate(kind: Kind | None) -> Gate:
        ca = pki.issuer(kind).certificate_pem if kind else None
        return Gate(ca, kind, Denylist(), RateLimiter(1, 1), print)

    with pytest.raises(ConfigError, match=r"two rows for /test\.Service/Once"):
        gate(Kind.NODE).generic_handler([ONCE, ONCE])
    with pytest.raises(ConfigError, match="names roles exactly where"):
        gate(None).generic_handler([ONCE])
    with pytest.raises(ConfigError, match="names roles exactly where"):
        gate(Kind.NODE).generic_handler([Method("/a/B", frozenset(), once)])
    with pytest.raises(ConfigError, match="the kind of their principals, or neither"):
        Gate(None, Kind.NODE, Denylist(), RateLimiter(1, 1), print)
    with pytest.raises(IdentityError, match="wrong-kind"):
        Gate(pki.people.certificate_pem, Kind.NODE, Denylist(), RateLimiter(1, 1), print)
    with pytest.raises(ConfigError, match="no issuer to replace"):
        gate(None).replace_issuers(pki.nodes.certificate_pem)
