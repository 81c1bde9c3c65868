"""The Grid against a coordinator that the test plays, over a real socket pair."""

import json
import os
import threading
import time
from collections.abc import Callable, Iterator

import numpy as np
import pytest
from flwr.app import ArrayRecord, Message, RecordDict
from flwr.serverapp import Grid

from fedsec import flwr_compat
from fedsec.errors import ProtocolError, StateError
from fedsec.flower.reporting import Names, Reporter
from fedsec.wire.blobs import Blob
from fedsec.wire.generated.local_pb2 import (
    NodeInfo,
    NodeRefusal,
    Nodes,
    Push,
    RunCommand,
    RunnerFrame,
    Stop,
)
from fedsec.wire.headers import COORDINATOR_NODE_ID, ErrorCode, new_message_id, reply_failure
from fedsec.wire.local import LocalSocket, socket_pair
from fedsec_server import grid as grid_module
from fedsec_server.grid import FleetGrid, RunStopped

RUN = 4711
Pushed = tuple[Push, Blob | None]


class Coordinator:
    """The coordinator's end: takes what the Grid sends, says what the test wants."""

    def __init__(self, socket: LocalSocket) -> None:
        self._socket = socket

    def say(self, command: RunCommand, blob: Blob | None = None) -> None:
        self._socket.send(command.SerializeToString(), [blob.fd] if blob else [])

    def nodes(self, *node_ids: int, **others: object) -> None:
        ready = [NodeInfo(node_id=n, name=f"node-{n}") for n in node_ids]
        self.say(RunCommand(nodes=Nodes(ready=ready, **others)))  # type: ignore[arg-type]

    def frame(self) -> tuple[RunnerFrame, Blob | None]:
        received = self._socket.receive(10)
        assert received is not None
        frame = RunnerFrame.FromString(received[0])
        blob = Blob.adopt(received[1][0], frame.push.header.bulk.length) if received[1] else None
        return frame, blob

    def pushed(self, count: int) -> list[Pushed]:
        frames = [self.frame() for _ in range(count)]
        assert all(frame.WhichOneof("kind") == "push" for frame, _ in frames)
        return [(frame.push, blob) for frame, blob in frames]

    def echo(self, pushed: Pushed, *, node: int = 0, content: Blob | None = None) -> None:
        """Answers with the same content."""
        push, blob = pushed
        header = reply_failure(push.header, 0, "")
        header.ClearField("failure")
        header.skeleton = push.header.skeleton
        header.src_node_id = node or push.header.dst_node_id
        if blob is not None:
            header.bulk.CopyFrom(push.header.bulk)
        self.say(RunCommand(reply=header), content or blob)

    def fail(self, pushed: Pushed, reason: str) -> None:
        reply = reply_failure(pushed[0].header, ErrorCode.NODE_UNAVAILABLE, reason)
        self.say(RunCommand(reply=reply))

    def hang_up(self) -> None:
        self._socket.close()


@pytest.fixture
def coordinator_and_grid() -> Iterator[tuple[Coordinator, FleetGrid]]:
    flwr_compat.become(RUN, COORDINATOR_NODE_ID, 0)
    ours, theirs = socket_pair()
    coordinator = Coordinator(LocalSocket(ours))
    local = LocalSocket(theirs)
    grid = FleetGrid(local, RUN, deadline_s=30.0)
    yield coordinator, grid
    coordinator.hang_up()
    grid._reader.join(10)
    local.close()


Pair = tuple[Coordinator, FleetGrid]


def content(value: float = 1.0, size: int = 50_000) -> RecordDict:
    return RecordDict({"arrays": ArrayRecord([np.full(size, value, np.float32)])})


def message(node: int, records: RecordDict | None = None) -> Message:
    return Message(records or content(), node, "train")


def in_thread(work: Callable[[], list[Message]]) -> Callable[[], list[Message]]:
    """Starts `work`, which waits for replies; the result joins it."""
    results: list[list[Message]] = []
    thread = threading.Thread(target=lambda: results.append(work()))
    thread.start()

    def join() -> list[Message]:
        thread.join(20)
        return results[0]

    return join


def test_it_is_what_flower_and_our_apps_expect(coordinator_and_grid: Pair) -> None:
    _, grid = coordinator_and_grid
    assert isinstance(grid, Grid)
    assert isinstance(grid, Reporter)
    assert isinstance(grid, Names)
    assert grid.run.run_id == RUN
    grid.set_run(flwr_compat.make_run(5))
    assert grid.run.run_id == 5
    made = grid.create_message(content(), "query.action", 11, "group", ttl=5.0)
    assert (made.metadata.dst_node_id, made.metadata.ttl) == (11, 5.0)


def test_nodes_are_pushed_not_asked_for(coordinator_and_grid: Pair) -> None:
    coordinator, grid = coordinator_and_grid
    assert grid.get_node_ids() == []
    coordinator.nodes(11, 12)
    grid.await_nodes(2, 10)
    assert grid.get_node_ids() == [11, 12]
    assert [(n.node_id, n.name) for n in grid.get_nodes()] == [(11, "node-11"), (12, "node-12")]
    coordinator.nodes(12)
    while grid.get_node_ids() != [12]:
        time.sleep(0.001)
    assert grid.name_of(11) == "node-11"  # also when it has gone
    assert grid.name_of(99) == "node 99"


def test_replies_come_sorted_by_node_whoever_was_first(coordinator_and_grid: Pair) -> None:
    coordinator, grid = coordinator_and_grid
    join = in_thread(lambda: grid.send_and_receive([message(n) for n in (13, 11, 12)]))
    pushed = coordinator.pushed(3)
    for each in (pushed[2], pushed[0], pushed[1]):
        coordinator.echo(each)
    replies = join()
    assert [reply.metadata.src_node_id for reply in replies] == [11, 12, 13]
    for reply in replies:
        (array,) = reply.content.array_records["arrays"].to_numpy_ndarrays()
        assert np.array_equal(array, np.ones(50_000, np.float32))


def test_shared_arrays_are_written_once(coordinator_and_grid: Pair) -> None:
    """Every message brings the same file; the arrays were written and hashed once."""
    coordinator, grid = coordinator_and_grid
    shared = content()
    ids = grid.push_messages([message(n, shared) for n in (11, 12, 13)])
    pushed = coordinator.pushed(3)
    assert [push.header.message_id for push, _ in pushed] == ids
    assert len(set(ids)) == 3
    assert len({os.fstat(blob.fd).st_ino for _, blob in pushed if blob}) == 1
    assert len({push.header.bulk.SerializeToString() for push, _ in pushed}) == 1
    for push, _ in pushed:
        assert push.header.src_node_id == COORDINATOR_NODE_ID
        assert push.header.run_id == RUN
        assert 0 < push.deadline <= 30.0


def test_the_deadline_is_the_shortest_of_ttl_timeout_and_plan(coordinator_and_grid: Pair) -> None:
    coordinator, grid = coordinator_and_grid
    short = Message(content(), 11, "train", ttl=2.0)
    join = in_thread(lambda: grid.send_and_receive([short, message(12)], timeout=7.0))
    pushed = coordinator.pushed(2)
    assert [push.deadline for push, _ in pushed] == [2.0, 7.0]
    for each in pushed:
        coordinator.echo(each)
    assert len(join()) == 2
    grid.push_messages([message(11)])
    assert coordinator.pushed(1)[0][0].deadline == 30.0


def test_errors_in_the_place_of_replies_are_handed_over(coordinator_and_grid: Pair) -> None:
    coordinator, grid = coordinator_and_grid
    join = in_thread(lambda: grid.send_and_receive([message(11), message(12)]))
    good, lost = coordinator.pushed(2)
    coordinator.fail(lost, "node node-12 was lost")
    coordinator.echo(good)
    first, second = join()
    assert first.has_content()
    assert (second.error.code, second.error.reason) == (5, "node node-12 was lost")
    assert second.metadata.src_node_id == 12


def test_a_coordinator_that_says_nothing_is_not_waited_for(
    coordinator_and_grid: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(grid_module, "SLACK_S", 0.05)
    coordinator, grid = coordinator_and_grid
    began = time.monotonic()
    (reply,) = grid.send_and_receive([message(11)], timeout=0.1)
    assert 0.15 <= time.monotonic() - began < 5
    assert reply.error.code == ErrorCode.REPLY_MESSAGE_UNAVAILABLE
    assert reply.error.reason == "node 11 did not answer in time"
    ((push, _),) = coordinator.pushed(1)
    cancel, _ = coordinator.frame()
    assert list(cancel.cancel.message_id) == [push.header.message_id]
    coordinator.echo((push, None))  # too late: nobody asks for it
    assert grid.pull_messages([push.header.message_id]) == []


def test_pull_waits_for_the_first_reply_and_gives_each_once(coordinator_and_grid: Pair) -> None:
    coordinator, grid = coordinator_and_grid
    ids = grid.push_messages([message(11), message(12)])
    pushed = coordinator.pushed(2)
    join = in_thread(lambda: grid.pull_messages(ids))
    coordinator.echo(pushed[1])
    assert [reply.metadata.src_node_id for reply in join()] == [12]
    coordinator.echo(pushed[0])
    assert [reply.metadata.src_node_id for reply in grid.pull_messages(ids)] == [11]
    began = time.monotonic()
    assert grid.pull_messages(ids) == []
    assert grid.pull_messages(["unheard"]) == []
    assert time.monotonic() - began < grid_module.PULL_S  # nothing is to be expected


def test_pull_waits_no_longer_than_a_second(
    coordinator_and_grid: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(grid_module, "PULL_S", 0.05)
    _, grid = coordinator_and_grid
    ids = grid.push_messages([message(11)])
    began = time.monotonic()
    assert grid.pull_messages(ids) == []
    assert 0.05 <= time.monotonic() - began < 1


def test_content_that_lies_becomes_an_error_and_a_record(coordinator_and_grid: Pair) -> None:
    coordinator, grid = coordinator_and_grid
    coordinator.nodes(11)
    grid.await_nodes(1, 10)
    join = in_thread(lambda: grid.send_and_receive([message(11)]))
    push, blob = coordinator.pushed(1)[0]
    assert blob is not None
    forged = bytearray(blob.view())
    forged[-1] ^= 1
    coordinator.echo((push, blob), content=Blob.write([forged]))
    (reply,) = join()
    assert reply.error.code == ErrorCode.REPLY_MESSAGE_UNAVAILABLE
    assert str(reply.error.reason).startswith("the reply of node-11 was refused: ")
    frame, _ = coordinator.frame()
    assert frame.record.kind == "reply-refused"
    assert '"node": "node-11"' in frame.record.detail_json
    assert '"code": "bad-hash"' in frame.record.detail_json


def test_a_round_is_reported_with_the_bytes_that_moved(coordinator_and_grid: Pair) -> None:
    coordinator, grid = coordinator_and_grid
    join = in_thread(lambda: grid.send_and_receive([message(11), message(12)]))
    for each in coordinator.pushed(2):
        coordinator.echo(each)
    join()
    grid.report("round", {"round": 1, "loss": 0.5})
    grid.report("round", {"round": 2})
    grid.report("model", {"path": "models/1"})
    grid.report("round", {"round": 3, "cohort": "secret"})  # its size would tell
    first, second, third, fourth = (coordinator.frame()[0].record for _ in range(4))
    assert json.loads(fourth.detail_json) == {"round": 3, "cohort": "secret"}
    moved = json.loads(first.detail_json)
    assert moved["round"] == 1
    for key in ("bytes_down", "bytes_up"):
        assert 400_000 <= moved[key] < 402_000
    assert json.loads(second.detail_json) == {"bytes_down": 0, "bytes_up": 0, "round": 2}
    assert json.loads(third.detail_json) == {"path": "models/1"}


def test_what_cannot_be_sent_is_refused_before_anything_is(coordinator_and_grid: Pair) -> None:
    _, grid = coordinator_and_grid
    instruction = message(11)
    flwr_compat.set_message_id(instruction, new_message_id())
    reply = Message(content(), reply_to=instruction)
    with pytest.raises(ValueError, match="not a message that can be sent"):
        grid.push_messages([message(11), reply])
    bad = message(11)
    bad.content.array_records["arrays"]["0"].stype = "pickle"
    with pytest.raises(ProtocolError):
        grid.push_messages([bad])
    assert grid._asked == {}


def test_a_run_that_waits_says_so_and_for_how_long(
    coordinator_and_grid: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(grid_module, "PATIENCE_S", 0.02)
    coordinator, grid = coordinator_and_grid
    coordinator.nodes(11, waiting=[NodeInfo(node_id=12, name="slow")])
    while grid.get_node_ids() != [11]:
        time.sleep(0.001)
    join = in_thread(lambda: grid.await_nodes(3, 10))
    frame, _ = coordinator.frame()
    assert frame.record.kind == "waiting-for-nodes"
    told = json.loads(frame.record.detail_json)
    assert told["wait_s"] == 10
    assert told["reason"] == (
        "1 of 3 nodes are ready; connected, but without an answer yet: slow; "
        "1 more must connect, or nodes.min_available be lower"
    )
    coordinator.nodes(11, 12, 13)
    join()


def test_await_nodes_says_who_is_missing_and_why(coordinator_and_grid: Pair) -> None:
    coordinator, grid = coordinator_and_grid
    coordinator.nodes(
        11,
        waiting=[NodeInfo(node_id=12, name="slow")],
        refused=[NodeRefusal(node=NodeInfo(node_id=13, name="strict"), reason="not here")],
    )
    grid.await_nodes(1, 10)
    with pytest.raises(StateError) as caught:
        grid.await_nodes(5, 0.05)
    assert str(caught.value) == (
        "only 1 of 5 nodes were ready after 0.05 s; strict refused: not here; connected, but "
        "without an answer yet: slow; 2 more must connect, or nodes.min_available be lower"
    )


@pytest.mark.parametrize(
    ("end", "reason"),
    [
        (lambda coordinator: coordinator.say(RunCommand(stop=Stop())), "the run was stopped"),
        (lambda coordinator: coordinator.hang_up(), "the coordinator is gone"),
        (lambda coordinator: coordinator._socket.send(b"\xff"), "connection to the coordinator"),
    ],
)
def test_a_stopped_run_ends_at_its_next_call(
    coordinator_and_grid: Pair, end: Callable[[Coordinator], None], reason: str
) -> None:
    coordinator, grid = coordinator_and_grid
    waiting = threading.Thread(target=lambda: ended.append(attempt(grid)))
    ended: list[str] = []
    waiting.start()
    end(coordinator)
    waiting.join(10)
    assert reason in ended[0]
    with pytest.raises(RunStopped):
        grid.get_node_ids()
    with pytest.raises(RunStopped):
        grid.push_messages([message(11)])


def attempt(grid: FleetGrid) -> str:
    """Waits in the Grid, as an app that catches every `Exception`."""
    try:
        grid.await_nodes(1, 20)
    except Exception:  # noqa: BLE001
        return "caught by the app"
    except RunStopped as stopped:
        return str(stopped)
    return "not ended"
