"""The admin service over real mutual TLS: what people command, and what is recorded of it."""

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator
from contextlib import aclosing, suppress
from datetime import timedelta
from pathlib import Path

import grpc
import pytest

from fedsec.files import write_private
from fedsec.flower.records import NodeRecord, RecordFiles
from fedsec.identity.names import Kind, Role
from fedsec.identity.principals import principal_of
from fedsec.wire.generated import admin_pb2 as pb
from fedsec_server.settings import Limits
from fedsec_server.state.values import Revocation, RunState
from tests.server.deskrig import SETTINGS, Desk, desk, enrolment
from tests.wire.gated import refused, run, until

ANN = "spiffe://fed.example/person/admin/ann"
CONFIG = grpc.StatusCode.INVALID_ARGUMENT
STATE = grpc.StatusCode.FAILED_PRECONDITION


# --- nodes -------------------------------------------------------------------------------------


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


# --- runs --------------------------------------------------------------------------------------


async def submitted(here: Desk) -> int:
    reply = await here.ask("SubmitRun", pb.SubmitRunRequest(plan="schema = 1"), pb.SubmitRunReply)
    return reply.run_id


def test_a_run_is_submitted_by_who_calls(tmp_path: Path) -> None:
    runs = tmp_path.resolve() / "runs"

    async def main() -> None:
        async with desk(tmp_path) as here:
            run_id = await submitted(here)
            assert here.runs.asked == [("submit", ANN)]
            listed = await here.ask("ListRuns", pb.ListRunsRequest(), pb.ListRunsReply)
            assert [(each.run_id, each.state) for each in listed.run] == [(run_id, "pending")]
            assert listed.run[0].directory == str(runs / str(run_id))
            shown = await here.ask("ShowRun", pb.ShowRunRequest(run_id=run_id), pb.ShowRunReply)
            assert shown.plan == "schema = 1"
            stop = pb.StopRunRequest(run_id=run_id)
            stopped = await here.ask("StopRun", stop, pb.StopRunReply)
            assert (stopped.state, here.runs.asked[-1]) == ("stopped", ("stop", ANN))

    run(main())


@pytest.mark.parametrize("run_id", [1, 2**63, 2**64 - 1])
def test_an_unknown_run_is_named(tmp_path: Path, run_id: int) -> None:
    async def main() -> None:
        async with desk(tmp_path) as here:
            asked = [
                here.ask("ShowRun", pb.ShowRunRequest(run_id=run_id), pb.ShowRunReply),
                here.ask("FetchModel", pb.FetchModelRequest(run_id=run_id), pb.ModelChunk),
                here.ask("WatchRun", pb.WatchRunRequest(run_id=run_id), pb.RunEvent),
            ]
            for ask in asked:
                status, told = await refused(ask)
                assert status is STATE
                assert f"there is no run {run_id}" in told

    run(main())


def watching(here: Desk, run_id: int) -> AsyncIterator[pb.RunEvent]:
    return here.stream("WatchRun", pb.WatchRunRequest(run_id=run_id), pb.RunEvent)


def test_a_watcher_sees_what_was_and_what_comes_until_the_end(tmp_path: Path) -> None:
    async def main() -> None:
        async with desk(tmp_path) as here:
            run_id = await submitted(here)
            here.recorder.record("round", f"run {run_id}", {"round": 1}, run_id)
            here.recorder.record("round", "run 7", {"round": 1}, 7)  # of another one
            states, rounds = [], []
            async for item in watching(here, run_id):
                if item.WhichOneof("kind") == "run":
                    states.append(item.run.state)
                    continue
                rounds.append(json.loads(item.event.detail_json)["round"])
                if rounds[-1] == 1:
                    here.store.set_run_state(run_id, RunState.RUNNING, now=1.0)
                    here.recorder.record("round", f"run {run_id}", {"round": 2}, run_id)
                if rounds[-1] == 2:
                    here.recorder.record("round", f"run {run_id}", {"round": 3}, run_id)
                if rounds[-1] == 3:
                    here.store.set_run_state(run_id, RunState.FINISHED, now=2.0)
                    here.recorder.record("run-finished", f"run {run_id}", {"round": 3}, run_id)
            assert rounds[:3] == [1, 2, 3]
            assert states == ["pending", "running", "finished"]

    run(main())


def test_watching_an_ended_run_ends(tmp_path: Path) -> None:
    async def main() -> None:
        async with desk(tmp_path) as here:
            run_id = await submitted(here)
            here.store.set_run_state(run_id, RunState.FAILED, now=1.0, reason="no quorum")
            items = [item async for item in watching(here, run_id)]
            assert [(item.run.state, item.run.reason) for item in items] == [
                ("failed", "no quorum")
            ]

    run(main())


def test_a_long_history_comes_complete_and_in_order(tmp_path: Path) -> None:
    async def main() -> None:
        async with desk(tmp_path) as here:
            run_id = await submitted(here)
            for number in range(1203):
                here.store.append_event("round", "run", {"round": number}, at=1.0, run_id=run_id)
            here.store.set_run_state(run_id, RunState.FINISHED, now=1.0)
            items = [item async for item in watching(here, run_id)]
            events = [item.event for item in items if item.WhichOneof("kind") == "event"]
            numbers = [json.loads(event.detail_json)["round"] for event in events]
            assert numbers == list(range(1203))
            request = pb.ShowRunRequest(run_id=run_id)
            shown = await here.ask("ShowRun", request, pb.ShowRunReply)
            newest = json.loads(shown.event[-1].event.detail_json)["round"]
            assert (len(shown.event), newest) == (1000, 1202)

    run(main(), seconds=60)


def test_an_answer_never_grows_over_what_grpc_carries(tmp_path: Path) -> None:
    async def main() -> None:
        async with desk(tmp_path) as here:
            run_id = await submitted(here)
            for number in range(400):
                detail = {"n": number, "text": "x" * 20_000}
                here.store.append_event("note", "run", detail, at=1.0, run_id=run_id)
            request = pb.ShowRunRequest(run_id=run_id)
            shown = await here.ask("ShowRun", request, pb.ShowRunReply)
            assert 100 < len(shown.event) < 400
            assert json.loads(shown.event[-1].event.detail_json)["n"] == 399

    run(main())


def test_watchers_leave_nothing_behind(tmp_path: Path) -> None:
    async def main() -> None:
        async with desk(tmp_path) as here:
            run_id = await submitted(here)
            async with aclosing(watching(here, run_id)) as items:  # type: ignore[type-var]
                first = await anext(aiter(items))
                assert first.run.state == "pending"
            await until(lambda: not here.admin.gate.open_calls)
            assert here.recorder._wakers == {}

    run(main())


def test_a_model_comes_in_pieces_and_whole(tmp_path: Path) -> None:
    async def main() -> None:
        async with desk(tmp_path) as here:
            run_id = await submitted(here)
            content = bytes(range(256)) * 10_000  # 2.5 MB: three pieces
            (tmp_path / f"{run_id}-4.safetensors").write_bytes(content)
            request = pb.FetchModelRequest(run_id=run_id, round=4)
            chunks = [
                each.data
                async for each in here.stream(
                    "FetchModel", request, pb.ModelChunk, role=Role.OPERATOR
                )
            ]
            assert [len(chunk) for chunk in chunks] == [1 << 20, 1 << 20, len(content) - (2 << 20)]
            assert hashlib.sha256(b"".join(chunks)).digest() == hashlib.sha256(content).digest()
            detail = await here.detail_of("model-taken")
            assert detail["by"] == "spiffe://fed.example/person/operator/ann"

    run(main())


def test_a_model_that_is_not_there_is_named(tmp_path: Path) -> None:
    async def main() -> None:
        async with desk(tmp_path) as here:
            request = pb.FetchModelRequest(run_id=await submitted(here))
            status, told = await refused(here.ask("FetchModel", request, pb.ModelChunk))
            assert status is STATE
            assert "has stored no model yet" in told

    run(main())


def test_records_of_nodes_are_for_operators_and_those_withheld_are_noted(tmp_path: Path) -> None:
    async def main() -> None:
        async with desk(tmp_path) as here:
            open_run, private = await submitted(here), await submitted(here)
            told: dict[str, object] = {
                "round": 1,
                "nodes": [
                    {"nodes": [2**63 + 5], "weight": 0.5, "rank": 1, "norm": 2.0, "cosine": -0.25},
                    {"nodes": [7], "excluded": "not-finite: 1 of 3", "weight": True, "rank": -1},
                    "no record",
                ],
            }
            for number in (1, 2):
                here.store.append_event(
                    "nodes", "", {**told, "round": number}, at=1.0, run_id=open_run
                )
            RecordFiles(here.layout.run(private) / "records")(3, [NodeRecord((9,), norm=1.5)])

            async def ask(run_id: int, number: int = 0) -> pb.ShowRecordsReply:
                request = pb.ShowRecordsRequest(run_id=run_id, round=number)
                return await here.ask(
                    "ShowRecords", request, pb.ShowRecordsReply, role=Role.OPERATOR
                )

            assert (await ask(open_run)).round == 2
            reply = await ask(open_run, 1)
            assert (reply.round, reply.withheld) == (1, False)
            first, second = reply.row
            assert list(first.node_id) == [2**63 + 5]
            assert (first.weight, first.rank, first.norm, first.cosine) == (0.5, 1, 2.0, -0.25)
            assert second.excluded == "not-finite: 1 of 3"
            assert not second.HasField("rank")
            assert not [e for e in here.store.events() if e.kind == "records-read"]

            reply = await ask(private)
            assert (reply.round, reply.withheld, reply.row[0].norm) == (3, True, 1.5)
            detail = await here.detail_of("records-read")
            assert detail == {"by": "spiffe://fed.example/person/operator/ann", "round": 3}

            for run_id, number in ((open_run, 9), (private, 1), (77, 0)):
                status, sentence = await refused(ask(run_id, number))
                assert status is STATE
                assert "has no records of nodes of round" in sentence or "no run 77" in sentence
            request = pb.ShowRecordsRequest(run_id=private)
            status, _ = await refused(
                here.ask("ShowRecords", request, pb.ShowRecordsReply, role=Role.AUDITOR)
            )
            assert status is grpc.StatusCode.PERMISSION_DENIED

    run(main())


@pytest.mark.parametrize("content", [b"{", b"[1]", b'{"round": 1, "nodes": 5}', b"[" * 100_000])
def test_a_file_that_holds_no_records_harms_nobody(tmp_path: Path, content: bytes) -> None:
    """The run's process may write anything into its directory."""

    async def main() -> None:
        async with desk(tmp_path) as here:
            run_id = await submitted(here)
            records = here.layout.run(run_id) / "records"
            RecordFiles(records)(1, [])
            write_private(records / "round-00001.json", content)
            (records / "round-x.json").write_bytes(b"")
            request = pb.ShowRecordsRequest(run_id=run_id)
            with suppress(grpc.aio.AioRpcError):
                reply = await here.ask("ShowRecords", request, pb.ShowRecordsReply)
                assert not reply.row
            await here.ask("Status", pb.StatusRequest(), pb.StatusReply)

    run(main())


# --- the coordinator ---------------------------------------------------------------------------


def test_status_counts(tmp_path: Path) -> None:
    async def main() -> None:
        async with desk(tmp_path) as here:
            invite = await here.invite("a")
            reply = await here.enrol(enrolment(invite.token))
            await here.invite("b")
            here.presence.nodes = {reply.node_id}
            await submitted(here)
            got = await here.ask("Status", pb.StatusRequest(), pb.StatusReply)
            assert got.federation == "fed.example"
            assert got.software.startswith("fedsec ")
            assert (got.nodes_enrolled, got.nodes_connected, got.runs_active) == (1, 1, 1)
            assert (got.started_at, got.certificate_expires_at) == (here.clock.unix, 99.0)

    run(main())
