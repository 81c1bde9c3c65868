"""Flower's Grid over a real fleet: what a ServerApp sends leaves through the coordinator.

    ServerApp (main thread)              reader thread                   coordinator
    push_messages ---------------------------------------- Push, memory file --->
    pull_messages, send_and_receive <--condition-- reply, memory file <----------
    get_node_ids <------------------condition----- Nodes, at every change <------

Every message gets exactly one reply: the node's, or an error that says what became of it, by the
message's deadline at the latest. Contents are decoded, and their hashes checked, in the thread that
asks for them; one that is not what it claims to be becomes an error reply that names the node.
"""

import json
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial

from flwr.app import Message, RecordDict
from flwr.serverapp import Grid
from google.protobuf.message import DecodeError

from fedsec import flwr_compat
from fedsec.errors import ProtocolError, StateError
from fedsec.flower.reporting import COHORT, ROUND, SECRET, Json
from fedsec.flwr_compat import NodeInfo, Run
from fedsec.wire.blobs import Blob
from fedsec.wire.codec import Encoder, decode
from fedsec.wire.generated import local_pb2
from fedsec.wire.generated.local_pb2 import (
    CancelMessages,
    Finished,
    Nodes,
    Push,
    Ready,
    RunCommand,
    RunnerFrame,
    RunRecord,
)
from fedsec.wire.generated.message_pb2 import Header
from fedsec.wire.headers import ErrorCode, new_message_id, reply_failure
from fedsec.wire.local import LocalSocket

PULL_S = 1.0  # for which `pull_messages` waits for the first reply
PATIENCE_S = 3.0  # for nodes to be ready, before it is told that the run waits for them
WAITING = "waiting-for-nodes"
SLACK_S = 1.0  # after a deadline, for the coordinator's own error replies to arrive


class RunStopped(SystemExit):
    """The run was stopped from outside; raised by every call of the Grid from then on.

    No `Exception`, so that an app that catches all its errors ends nevertheless.
    """


@dataclass(slots=True)
class _Asked:
    """A message whose reply was not handed over yet."""

    header: Header
    place: int  # in the order of pushing
    reply: Header | None = None
    content: Blob | None = None


class FleetGrid(Grid):
    """The Grid of a run process. Its methods may be called from any thread of the app.

    Args:
        socket: To the coordinator; owned from now on.
        run_id: The run.
        deadline_s: Seconds after which a message without reply gets an error reply, whatever its
            ttl and the app's timeout are.
        clock: Monotonic seconds.
    """

    def __init__(
        self,
        socket: LocalSocket,
        run_id: int,
        *,
        deadline_s: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._socket = socket
        self._run = flwr_compat.make_run(run_id)
        self._deadline_s = deadline_s
        self._clock = clock
        self._encoder = Encoder()
        self._news = threading.Condition()
        self._nodes = Nodes()
        self._names: dict[int, str] = {}
        self._asked: dict[str, _Asked] = {}
        self._pushed = 0
        self._moved = {"bytes_down": 0, "bytes_up": 0}
        self._ended = ""
        self._reader = threading.Thread(target=self._read_all, name="grid", daemon=True)
        self._reader.start()

    # --- Flower's Grid -----------------------------------------------------------------------

    def set_run(self, run: Run) -> None:
        """Replaces what `run` returns; the run that messages belong to stays the same."""
        self._run = run

    @property
    def run(self) -> Run:
        """A copy of the run."""
        return Run(**vars(self._run))

    def create_message(
        self,
        content: RecordDict,
        message_type: str,
        dst_node_id: int,
        group_id: str,
        ttl: float | None = None,
    ) -> Message:
        """Returns `Message(...)` of the same arguments."""
        return Message(content, dst_node_id, message_type, ttl=ttl, group_id=group_id)

    def get_node_ids(self) -> list[int]:
        """Returns the nodes that are connected and accepted the run, sorted. Costs nothing."""
        return [node.node_id for node in self._ready()]

    def get_nodes(self) -> list[NodeInfo]:
        """Returns the same nodes with the names that the operator gave them."""
        return [flwr_compat.make_node_info(node.node_id, node.name) for node in self._ready()]

    def push_messages(self, messages: Iterable[Message]) -> list[str]:
        """Sends messages, at once, and returns their ids.

        Raises:
            ValueError: One of them is a reply, or has no time left.
            ProtocolError: One of them cannot be encoded.
        """
        return self._push(list(messages), self._deadline_s)

    def pull_messages(self, message_ids: Iterable[str]) -> list[Message]:
        """Returns the replies that are there, each once, sorted by node.

        Waits for the first of them, at most a second; not at all when none is to be expected.
        """
        ids = set(message_ids)
        with self._news:
            self._wait(partial(self._any_reply, ids), self._clock() + PULL_S)
            taken = self._take(ids)
        return self._decode_all(taken)

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> list[Message]:
        """Sends messages and returns one reply to each, sorted by node.

        Args:
            messages: To nodes.
            timeout: Seconds; a message without reply by then gets an error reply.
        """
        seconds = self._deadline_s if timeout is None else min(timeout, self._deadline_s)
        ids = self._push(list(messages), seconds)
        replies = list(self._arrivals(ids, seconds))
        replies.sort(key=lambda pair: (pair[0].header.dst_node_id, pair[0].place))
        return [reply for _, reply in replies]

    # --- beyond Flower's Grid ----------------------------------------------------------------

    def report(self, kind: str, detail: Mapping[str, Json]) -> None:
        """Records an event of the run. See `fedsec.flower.reporting.Reporter`.

        A round's event gets the bytes of all messages since the one before, unless they would tell
        how many nodes were drawn in secret.
        """
        if kind == ROUND:
            with self._news:
                moved, self._moved = self._moved, dict.fromkeys(self._moved, 0)
            if detail.get(COHORT) != SECRET:
                detail = {**moved, **detail}
        self._send(RunnerFrame(record=RunRecord(kind=kind, detail_json=json.dumps(detail))))

    def arrivals(self, message_ids: Iterable[str], seconds: float) -> Iterator[Message]:
        """Yields the replies to messages that were pushed, each when it is there.

        One is decoded when it is asked for, so that only one need be in memory.

        Args:
            message_ids: Of the messages.
            seconds: After which a message without reply gets an error reply.
        """
        return (reply for _, reply in self._arrivals(message_ids, seconds))

    def name_of(self, node_id: int) -> str:
        """Returns what the operator calls a node."""
        with self._news:
            return self._names.get(node_id, f"node {node_id}")

    def await_nodes(self, count: int, seconds: float) -> None:
        """Waits until `count` nodes are connected and accepted the run.

        Raises:
            StateError: They were not after `seconds`; says who refused, why, and who is silent.
        """
        began = self._clock()
        if self._enough(count, began + min(seconds, PATIENCE_S)):
            return
        if seconds > PATIENCE_S:
            missing = [
                f"{len(self.get_node_ids())} of {count} nodes are ready",
                *self._missing(count),
            ]
            self.report(WAITING, {"reason": "; ".join(missing), "wait_s": seconds})
            if self._enough(count, began + seconds):
                return
        said = [f"only {len(self.get_node_ids())} of {count} nodes were ready after {seconds:g} s"]
        raise StateError("; ".join([*said, *self._missing(count)]))

    def _enough(self, count: int, limit: float) -> bool:
        with self._news:
            return self._wait(lambda: len(self._nodes.ready) >= count, limit)

    def _missing(self, count: int) -> Iterator[str]:
        """Yields who refused, who is silent, and how many are not there."""
        with self._news:
            nodes = self._nodes
        for each in nodes.refused:
            yield f"{each.node.name} refused: {each.reason}"
        if nodes.waiting:
            silent = ", ".join(node.name for node in nodes.waiting)
            yield f"connected, but without an answer yet: {silent}"
        missing = count - len(nodes.ready) - len(nodes.waiting) - len(nodes.refused)
        if missing > 0:
            yield f"{missing} more must connect, or nodes.min_available be lower"

    def ready(self) -> None:
        """Tells the coordinator that the app begins."""
        self._send(RunnerFrame(ready=Ready()))

    def finish(self, *, ok: bool, reason: str = "") -> None:
        """Tells the coordinator how the run ended."""
        self._send(RunnerFrame(finished=Finished(ok=ok, reason=reason)))

    # --- inside ------------------------------------------------------------------------------

    def _arrivals(
        self, message_ids: Iterable[str], seconds: float
    ) -> Iterator[tuple[_Asked, Message]]:
        missing = set(message_ids)
        end = self._clock() + seconds + SLACK_S
        while missing:
            with self._news:
                self._wait(partial(self._any_reply, missing), end)
                taken = self._take(missing) or self._give_up(missing)
            missing -= {asked.header.message_id for asked in taken}
            for asked in taken:  # the next ones arrive meanwhile
                yield asked, self._decode(asked)

    def _ready(self) -> list[local_pb2.NodeInfo]:
        with self._news:
            self._check_live()
            return list(self._nodes.ready)

    def _push(self, messages: list[Message], seconds: float) -> list[str]:
        for message in messages:
            if message.metadata.reply_to_message_id or not message.metadata.ttl > 0:
                raise ValueError(f"not a message that can be sent to a node: {message}")
            flwr_compat.set_message_id(message, new_message_id())
        encoded = self._encoder.encode_many(messages)
        try:
            with self._news:
                self._check_live()
                for header, _ in encoded:
                    self._asked[header.message_id] = _Asked(header, self._pushed)
                    self._pushed += 1
                    self._moved["bytes_down"] += header.ByteSize() + header.bulk.length
            for header, blob in encoded:
                push = Push(
                    header=header,
                    bulk_attached=blob is not None,
                    deadline=min(seconds, header.ttl),
                )
                self._send(RunnerFrame(push=push), blob)
        finally:
            for _, blob in encoded:
                if blob is not None:
                    blob.close()
        return [header.message_id for header, _ in encoded]

    def _send(self, frame: RunnerFrame, blob: Blob | None = None) -> None:
        try:
            self._socket.send(frame.SerializeToString(), [] if blob is None else [blob.fd])
        except BrokenPipeError:
            raise RunStopped("the coordinator is gone") from None

    def _wait(self, condition: Callable[[], bool], end: float) -> bool:
        """Waits, holding the lock, until the condition holds or the clock shows `end`."""
        while not condition():
            self._check_live()
            left = end - self._clock()
            if left <= 0:
                return False
            self._news.wait(left)
        return True

    def _check_live(self) -> None:
        if self._ended:
            raise RunStopped(self._ended)

    def _any_reply(self, message_ids: set[str]) -> bool:
        asked = [self._asked[m] for m in message_ids if m in self._asked]
        return not asked or any(each.reply is not None for each in asked)

    def _take(self, message_ids: set[str]) -> list[_Asked]:
        """Returns those that have a reply, by node, and forgets them."""
        there = [m for m in message_ids if m in self._asked and self._asked[m].reply is not None]
        taken = [self._asked.pop(message_id) for message_id in there]
        return sorted(taken, key=lambda asked: (asked.header.dst_node_id, asked.place))

    def _give_up(self, message_ids: set[str]) -> list[_Asked]:
        """Puts errors in the place of replies that even the coordinator did not send."""
        self._send(RunnerFrame(cancel=CancelMessages(message_id=sorted(message_ids))))
        asked = [self._asked.pop(message_id) for message_id in message_ids]
        for each in asked:
            code = ErrorCode.REPLY_MESSAGE_UNAVAILABLE
            name = self._names.get(each.header.dst_node_id, str(each.header.dst_node_id))
            each.reply = reply_failure(each.header, code, f"node {name} did not answer in time")
        return asked

    def _decode_all(self, taken: list[_Asked]) -> list[Message]:
        return [self._decode(asked) for asked in taken]

    def _decode(self, asked: _Asked) -> Message:
        """Returns the reply as the app sees it; an error reply if it is not what it claims."""
        reply, content = asked.reply, asked.content
        if reply is None:
            raise StateError(f"message {asked.header.message_id} has no reply to decode")
        try:
            with content if content is not None else nullcontext() as blob:
                return decode(reply, blob)
        except ProtocolError as error:
            node_id = asked.header.dst_node_id
            detail: dict[str, Json] = {
                "node": self.name_of(node_id),
                "node_id": node_id,
                "code": error.code,
                "reason": error.detail,
                "reply_to": asked.header.message_id,
            }
            self.report("reply-refused", detail)
            sentence = f"the reply of {self.name_of(node_id)} was refused: {error.detail}"
            code = ErrorCode.REPLY_MESSAGE_UNAVAILABLE
            return decode(reply_failure(asked.header, code, sentence), None)

    # --- the reader's thread -----------------------------------------------------------------

    def _read_all(self) -> None:
        reason = "the coordinator is gone"
        try:
            while (received := self._socket.receive()) is not None:
                frame, descriptors = received
                command = RunCommand.FromString(frame)
                if command.WhichOneof("kind") == "stop":
                    reason = "the run was stopped"
                    break
                self._on_command(command, descriptors)
        except (ProtocolError, DecodeError, OSError) as error:
            reason = f"the connection to the coordinator broke: {error}"
        finally:  # whatever it was, nobody may wait for ever
            with self._news:
                self._ended = reason
                self._news.notify_all()

    def _on_command(self, command: RunCommand, descriptors: list[int]) -> None:
        with self._news:
            if command.WhichOneof("kind") == "nodes":
                self._nodes = command.nodes
                self._names.update((node.node_id, node.name) for node in command.nodes.ready)
            elif command.WhichOneof("kind") == "reply":
                self._on_reply(command.reply, descriptors)
            self._news.notify_all()

    def _on_reply(self, reply: Header, descriptors: list[int]) -> None:
        content = None
        if descriptors:
            content = Blob.adopt(descriptors.pop(), reply.bulk.length)
        asked = self._asked.get(reply.reply_to)
        if asked is None or asked.reply is not None:  # given up in this very moment
            if content is not None:
                content.close()
            return
        asked.reply, asked.content = reply, content
        self._moved["bytes_up"] += reply.ByteSize() + reply.bulk.length
