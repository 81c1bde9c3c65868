"""`fedsec doctor`: says which of the usual causes keeps a node from its coordinator.

Where one side refuses the other in a TLS handshake, gRPC says UNAVAILABLE and no more. So each step
is taken by itself: files, name, port, TLS, certificates and clocks, and at last an RPC, in which
the coordinator says in words whether it admits this node.
"""

import asyncio
from datetime import datetime
from pathlib import Path

import grpc
import grpc.aio

from fedsec.console import safe
from fedsec.errors import FedsecError, IdentityError
from fedsec.wire.answers import refusal_of
from fedsec.wire.channels import open_channel
from fedsec.wire.credentials import node_credentials
from fedsec.wire.generated.fleet_pb2 import FetchRequest
from fedsec_client.agent import FATAL_SENTENCES, ExitCode
from fedsec_client.checks import check_directory
from fedsec_client.diagnosis import advised, judge, look_at
from fedsec_client.enrolment import Enrolment
from fedsec_client.findings import Finding, State
from fedsec_client.link import Link, LinkLostError
from fedsec_client.lock import is_running
from fedsec_client.probes import TIMEOUT_S

FETCH = "/fedsec.v1.Fleet/Fetch"
LARGE_OFFSET_S = 60.0
_ADVICE = {
    "revoked": FATAL_SENTENCES[ExitCode.REVOKED].capitalize() + ".",
    "version": FATAL_SENTENCES[ExitCode.VERSION].capitalize() + ".",
}


def examine(directory: Path, *, now: datetime, timeout_s: float = TIMEOUT_S) -> list[Finding]:
    """Returns what was found, in the order in which one thing depends on the other.

    Blocks; must not be called where an event loop runs. It does not disturb a running agent.

    Args:
        directory: Of the node.
        now: Aware time, by this machine's clock.
        timeout_s: For each step over the network.
    """
    found = check_directory(directory, now=now)
    try:
        enrolment = Enrolment.load(directory)
    except FedsecError:
        return [*found, *_skipped("coordinator", "certificates", "admission", "version")]
    network = _network(enrolment, now=now, timeout_s=timeout_s)
    if any(each.check == "certificates" and each.state is State.FAILED for each in network):
        # TLS has shown both sides, and knows better than our clock alone
        found = [each for each in found if each.check != "certificate"]
    return [*found, *network, _agent(directory), _clock(enrolment)]


def _agent(directory: Path) -> Finding:
    if is_running(directory):
        return Finding("agent", State.OK, detail="it is running")
    advice = f"Start it: fedsec node start {directory}"
    return Finding(
        "agent", State.NOTE, detail="it is not running: no run reaches this node", advice=advice
    )


def _network(enrolment: Enrolment, *, now: datetime, timeout_s: float) -> list[Finding]:
    try:
        seen = look_at(enrolment, timeout_s=timeout_s)
    except FedsecError as error:
        rest = _skipped("certificates", "admission", "version")
        return [_failed("coordinator", error), *rest]
    address = enrolment.record.fleet_address
    there = Finding("coordinator", State.OK, detail=f"{address} answers with TLS 1.3")
    try:
        judge(enrolment, seen, now=now)
    except FedsecError as error:
        return [there, _failed("certificates", error), *_skipped("admission", "version")]
    agreed = Finding("certificates", State.OK, detail="each side accepts the other's")
    return [there, agreed, *asyncio.run(_admission(enrolment, timeout_s))]


def _skipped(*checks: str) -> list[Finding]:
    return [Finding(check, State.SKIPPED) for check in checks]


async def _admission(enrolment: Enrolment, timeout_s: float) -> list[Finding]:
    """Asks the coordinator itself: by a session, or where the agent has one, by a small call."""
    own = enrolment.credentials
    credentials = node_credentials(own.servers_ca_pem, own.chain_pem, own.key_pem)
    link = Link(open_channel(enrolment.record.fleet_address, credentials))
    try:
        async with asyncio.timeout(timeout_s):
            await _ask(link.channel)
        admitted = Finding("admission", State.OK, detail="the coordinator admits this node")
        if is_running(enrolment.directory):
            skipped = "not asked: the agent is running, and its session would be replaced"
            return [admitted, Finding("version", State.SKIPPED, detail=skipped)]
        welcome = await link.open(())
        detail = f"the coordinator runs {safe(welcome.software, 100)}"
        return [admitted, Finding("version", State.OK, detail=detail)]
    except TimeoutError:
        error = IdentityError("no-answer", f"no answer within {timeout_s:g} s")
        return [_failed("admission", error), *_skipped("version")]
    except LinkLostError as lost:
        check = "version" if lost.code == "version" else "admission"
        return [_failed(check, IdentityError(lost.code, lost.detail))]
    finally:
        await link.close()


async def _ask(channel: grpc.aio.Channel) -> None:
    """Asks for content of no run: whoever gets none was admitted.

    Raises:
        LinkLostError: The coordinator does not admit this node, or is no coordinator.
    """
    method: grpc.aio.UnaryStreamMultiCallable[bytes, bytes] = channel.unary_stream(FETCH)
    call = method(FetchRequest(digest=bytes(32)).SerializeToString())
    try:
        await call.read()
    except grpc.aio.AioRpcError as error:
        if error.code() is not grpc.StatusCode.INVALID_ARGUMENT:
            raise LinkLostError(*refusal_of(error)) from error
    finally:
        call.cancel()


def _failed(check: str, error: FedsecError) -> Finding:
    if not isinstance(error, IdentityError):
        return Finding(check, State.FAILED, "config", str(error))
    advice = _ADVICE.get(error.code, "")
    detail = error.detail if advice else advised(error).detail
    return Finding(check, State.FAILED, error.code, detail, advice)


def _clock(enrolment: Enrolment) -> Finding:
    offset = enrolment.record.clock_offset_s
    if abs(offset) < LARGE_OFFSET_S:
        detail = "agreed with the coordinator's when the certificate was issued"
        return Finding("clock", State.OK, detail=detail)
    word = "behind" if offset > 0 else "ahead of"
    detail = f"was {abs(offset):.0f} s {word} the coordinator's when the certificate was issued"
    return Finding("clock", State.NOTE, detail=detail, advice="Set this machine's clock (NTP).")
