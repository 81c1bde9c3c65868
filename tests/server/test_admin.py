"""The admin service over real mutual TLS: nodes that are invited, listed and revoked; its status."""

import asyncio
import json
from datetime import timedelta
from pathlib import Path

import grpc
import pytest

from fedsec.identity.names import Kind
from fedsec.identity.principals import principal_of
from fedsec.wire.generated import admin_pb2 as pb
from fedsec_server.settings import Limits
from fedsec_server.state.values import Revocation
from tests.server.deskrig import ANN, SETTINGS, desk, enrolment
from tests.wire.gated import refused, run

CONFIG = grpc.StatusCode.INVALID_ARGUMENT
STATE = grpc.StatusCode.FAILED_PRECONDITION


def test_an_invite_leads_to_the_enrol_port_and_pins_the_servers_ca(tmp_path: Path) -> None:
    async def main() -> None:
        async with desk(tmp_path) as here:
            request = pb.InviteNodeRequest(name="clinic-1")
            reply = await here.ask("InviteNode", request, pb.InviteNodeReply)
            assert reply.expires_at == pytest.approx(here.clock.unix + 24 * 3600)
            invite = await here.invite("clinic-2")
            assert invite.address == here.enrolment.address
            assert invite.servers_ca_fingerprint.hex() == here.pki.servers.fingerprint
            detail = await here.detail_of("node-invited")
            assert (detail["name"], detail["by"]) == ("clinic-2", ANN)
            assert reply.invite not in json.dumps(detail)

    run(main())


def test_an_invite_ends_with_the_servers_ca_that_it_pins(tmp_path: Path) -> None:
    async def main() -> None:
        async with desk(tmp_path) as here:
            end = here.clock.now + timedelta(hours=3)
            here.authorities.ends = {Kind.SERVER: end}
            request = pb.InviteNodeRequest(name="clinic-1")
            reply = await here.ask("InviteNode", request, pb.InviteNodeReply)
            assert reply.expires_at == pytest.approx(end.timestamp())
            brief = pb.InviteNodeRequest(name="clinic-2", valid_for=60)
            reply = await here.ask("InviteNode", brief, pb.InviteNodeReply)
            assert reply.expires_at == pytest.approx(here.clock.unix + 60)

    run(main())


def test_invites_differ(tmp_path: Path) -> None:
    async def main() -> None:
        async with desk(tmp_path) as here:
            tokens = {(await here.invite(f"clinic-{n}")).token for n in range(5)}
            assert len(tokens) == 5

    run(main())


@pytest.mark.parametrize(
    ("request_", "status", "sentence"),
    [
        (pb.InviteNodeRequest(name="Clinic 1"), CONFIG, "name 'Clinic 1' must be"),
        (pb.InviteNodeRequest(name=""), CONFIG, "name '' must be"),
        (pb.InviteNodeRequest(name="a", valid_for=-1), CONFIG, "an invite must be valid"),
        (pb.InviteNodeRequest(name="a", valid_for=1e9), CONFIG, "an invite must be valid"),
        (pb.InviteNodeRequest(name="a", valid_for=float("nan")), CONFIG, "an invite must be valid"),
        (pb.InviteNodeRequest(name="taken"), STATE, "node 'taken' has an invite"),
    ],
)
def test_a_bad_invitation_is_refused(
    tmp_path: Path, request_: pb.InviteNodeRequest, status: grpc.StatusCode, sentence: str
) -> None:
    async def main() -> None:
        async with desk(tmp_path) as here:
            await here.invite("taken")
            got, told = await refused(here.ask("InviteNode", request_, pb.InviteNodeReply))
            assert got is status
            assert sentence in told
            assert [node.name for node in here.store.nodes()] == ["taken"]

    run(main())


def test_nodes_are_limited(tmp_path: Path) -> None:
    async def main() -> None:
        settings = SETTINGS.model_copy(update={"limits": Limits(max_nodes=1)})
        async with desk(tmp_path, settings=settings) as here:
            await here.invite("a")
            status, told = await refused(here.invite("b"))
            assert status is STATE
            assert "limits.max_nodes is 1" in told

    run(main())


def test_nodes_are_listed_with_who_is_connected(tmp_path: Path) -> None:
    async def main() -> None:
        async with desk(tmp_path) as here:
            empty = await here.ask("ListNodes", pb.ListNodesRequest(), pb.ListNodesReply)
            assert list(empty.node) == []
            invite = await here.invite("a")
            enrolled = await here.enrol(enrolment(invite.token))
            await here.invite("b")
            here.presence.nodes = {enrolled.node_id}
            reply = await here.ask("ListNodes", pb.ListNodesRequest(), pb.ListNodesReply)
            assert [(node.name, node.state, node.connected) for node in reply.node] == [
                ("a", "enrolled", True),
                ("b", "invited", False),
            ]

    run(main())


def test_a_revoked_node_is_denied_in_memory_and_on_disk(tmp_path: Path) -> None:
    async def main() -> None:
        async with desk(tmp_path) as here:
            invite = await here.invite("clinic-1")
            reply = await here.enrol(enrolment(invite.token))
            who = principal_of(reply.chain_pem, issuer=here.pki.nodes.certificate, kind=Kind.NODE)
            here.presence.nodes = {reply.node_id}
            with here.denylist.watch(who) as cut:
                request = pb.RevokeNodeRequest(name="clinic-1", reason="lost\x1b[2J laptop")
                answer = await here.ask("RevokeNode", request, pb.RevokeNodeReply)
                async with asyncio.timeout(1):
                    await cut.wait()
            assert answer.was_connected is True
            assert here.store.denied(here.clock.unix).serials == {who.serial}
            assert here.store.denied(here.clock.unix).identities == {who.spiffe_id: "clinic-1"}
            detail = await here.detail_of("node-revoked")
            assert detail["serials"] == [f"{who.serial:x}"]
            assert detail["by"] == ANN
            status, told = await refused(here.ask("RevokeNode", request, pb.RevokeNodeReply))
            assert status is STATE
            assert "is revoked already" in told

    run(main())


def test_revocation_is_finished_when_the_caller_hangs_up(tmp_path: Path) -> None:
    """The database says revoked: then the live list must say so too, whoever still listens."""

    async def main() -> None:
        async with desk(tmp_path) as here:
            invite = await here.invite("clinic-1")
            reply = await here.enrol(enrolment(invite.token))
            who = principal_of(reply.chain_pem, issuer=here.pki.nodes.certificate, kind=Kind.NODE)
            real, entered = here.store.revoke_node, asyncio.Event()
            loop = asyncio.get_running_loop()
            go_on = asyncio.Event()

            def slow(name: str, reason: str, now: float) -> Revocation:
                revoked = real(name, reason, now)
                loop.call_soon_threadsafe(entered.set)
                asyncio.run_coroutine_threadsafe(go_on.wait(), loop).result()
                return revoked

            here.store.revoke_node = slow  # type: ignore[method-assign]
            with here.denylist.watch(who) as cut:
                request = pb.RevokeNodeRequest(name="clinic-1")
                asking = asyncio.create_task(here.ask("RevokeNode", request, pb.RevokeNodeReply))
                await entered.wait()
                asking.cancel()
                await asyncio.wait({asking})
                go_on.set()
                async with asyncio.timeout(2):
                    await cut.wait()
            assert here.denylist.is_denied(who)

    run(main())


@pytest.mark.parametrize("method", ["ShowNode", "RevokeNode"])
def test_an_unknown_node_is_named(tmp_path: Path, method: str) -> None:
    async def main() -> None:
        async with desk(tmp_path) as here:
            kinds = {
                "ShowNode": (pb.ShowNodeRequest(name="nobody"), pb.ShowNodeReply),
                "RevokeNode": (pb.RevokeNodeRequest(name="nobody"), pb.RevokeNodeReply),
            }
            request, reply = kinds[method]
            status, told = await refused(here.ask(method, request, reply))
            assert status is STATE
            assert "no node is called 'nobody'; `fedsec node list` shows all" in told

    run(main())


def test_status_counts(tmp_path: Path) -> None:
    async def main() -> None:
        async with desk(tmp_path) as here:
            invite = await here.invite("a")
            reply = await here.enrol(enrolment(invite.token))
            await here.invite("b")
            here.presence.nodes = {reply.node_id}
            await here.submit()
            got = await here.ask("Status", pb.StatusRequest(), pb.StatusReply)
            assert got.federation == "fed.example"
            assert got.software.startswith("fedsec ")
            assert (got.nodes_enrolled, got.nodes_connected, got.runs_active) == (1, 1, 1)
            assert (got.started_at, got.certificate_expires_at) == (here.clock.unix, 99.0)

    run(main())
