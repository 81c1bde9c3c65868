"""The admin service over real mutual TLS: runs that are submitted, watched, stopped and read."""

import hashlib
import json
from collections.abc import AsyncIterator
from contextlib import aclosing, suppress
from pathlib import Path

import grpc
import pytest

from fedsec.files import write_private
from fedsec.flower.records import NodeRecord, RecordFiles
from fedsec.identity.names import Role
from fedsec.wire.generated import admin_pb2 as pb
from fedsec_server.state.values import RunState
from tests.server.deskrig import ANN, Desk, desk
from tests.wire.gated import refused, run, until

STATE = grpc.StatusCode.FAILED_PRECONDITION


def test_a_run_is_submitted_by_who_calls(tmp_path: Path) -> None:
    runs = tmp_path.resolve() / "runs"

    async def main() -> None:
        async with desk(tmp_path) as here:
            run_id = await here.submit()
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
            run_id = await here.submit()
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
            run_id = await here.submit()
            here.store.set_run_state(run_id, RunState.FAILED, now=1.0, reason="no quorum")
            items = [item async for item in watching(here, run_id)]
            assert [(item.run.state, item.run.reason) for item in items] == [
                ("failed", "no quorum")
            ]

    run(main())


def test_a_long_history_comes_complete_and_in_order(tmp_path: Path) -> None:
    async def main() -> None:
        async with desk(tmp_path) as here:
            run_id = await here.submit()
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
            run_id = await here.submit()
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
            run_id = await here.submit()
            async with aclosing(watching(here, run_id)) as items:  # type: ignore[type-var]
                first = await anext(aiter(items))
                assert first.run.state == "pending"
            await until(lambda: not here.admin.gate.open_calls)
            assert here.recorder._wakers == {}

    run(main())


def test_a_model_comes_in_pieces_and_whole(tmp_path: Path) -> None:
    async def main() -> None:
        async with desk(tmp_path) as here:
            run_id = await here.submit()
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
            request = pb.FetchModelRequest(run_id=await here.submit())
            status, told = await refused(here.ask("FetchModel", request, pb.ModelChunk))
            assert status is STATE
            assert "has stored no model yet" in told

    run(main())


TOLD: dict[str, object] = {
    "nodes": [
        {"nodes": [2**63 + 5], "weight": 0.5, "rank": 1, "norm": 2.0, "cosine": -0.25},
        {"nodes": [7], "excluded": "not-finite: 1 of 3", "weight": True, "rank": -1},
        "no record",
    ],
}


async def records(here: Desk, run_id: int, number: int = 0) -> pb.ShowRecordsReply:
    request = pb.ShowRecordsRequest(run_id=run_id, round=number)
    return await here.ask("ShowRecords", request, pb.ShowRecordsReply, role=Role.OPERATOR)


def test_records_of_nodes_are_shown_as_far_as_they_are_records(tmp_path: Path) -> None:
    async def main() -> None:
        async with desk(tmp_path) as here:
            run_id = await here.submit()
            for number in (1, 2):
                here.store.append_event(
                    "nodes", "", {**TOLD, "round": number}, at=1.0, run_id=run_id
                )
            assert (await records(here, run_id)).round == 2
            reply = await records(here, run_id, 1)
            assert (reply.round, reply.withheld) == (1, False)
            first, second = reply.row
            assert list(first.node_id) == [2**63 + 5]
            assert (first.weight, first.rank, first.norm, first.cosine) == (0.5, 1, 2.0, -0.25)
            assert second.excluded == "not-finite: 1 of 3"
            assert not second.HasField("rank")
            assert not [e for e in here.store.events() if e.kind == "records-read"]
            for unknown, number in ((run_id, 9), (77, 0)):
                status, sentence = await refused(records(here, unknown, number))
                assert status is STATE
                assert "has no records of nodes of round" in sentence or "no run 77" in sentence

    run(main())


def test_records_that_are_withheld_are_for_operators_and_reading_is_noted(tmp_path: Path) -> None:
    async def main() -> None:
        async with desk(tmp_path) as here:
            run_id = await here.submit()
            RecordFiles(here.layout.run(run_id) / "records")(3, [NodeRecord((9,), norm=1.5)])
            reply = await records(here, run_id)
            assert (reply.round, reply.withheld, reply.row[0].norm) == (3, True, 1.5)
            detail = await here.detail_of("records-read")
            assert detail == {"by": "spiffe://fed.example/person/operator/ann", "round": 3}
            status, sentence = await refused(records(here, run_id, 1))
            assert status is STATE
            assert "has no records of nodes of round" in sentence
            request = pb.ShowRecordsRequest(run_id=run_id)
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
            run_id = await here.submit()
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
