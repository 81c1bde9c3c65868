"""The only module that touches Flower's internals.

fedsec runs Flower's `ServerApp` and `ClientApp` on a runtime of its own. What a runtime must set
and Flower does not publish is wrapped here: the identity of the process, the metadata of a message,
the `Run`. tests/test_flwr_compat.py checks each of them, and fails on another version of flwr.
"""

from dataclasses import dataclass

import flwr
from flwr.app import Error, Message, Metadata, RecordDict
from flwr.app.message import make_message as _make_message
from flwr.proto.node_pb2 import NodeInfo
from flwr.supercore.run import Run
from flwr.supercore.task_identity import TaskIdentity

from fedsec.errors import ConfigError

__all__ = [
    "SUPPORTED",
    "Envelope",
    "NodeInfo",
    "Run",
    "become",
    "check_version",
    "envelope",
    "make_message",
    "make_node_info",
    "make_run",
    "set_message_id",
]

SUPPORTED = "1.41"


@dataclass(frozen=True, slots=True)
class Envelope:
    """What Flower calls the metadata of a message.

    Args:
        message_id: 32 hex digits; empty until the message is sent.
        reply_to: `message_id` of the instruction that this answers; empty in an instruction.
        run_id, src_node_id, dst_node_id, src_task_id, dst_task_id: From and to whom.
        group_id: Free text of the app, often the round.
        created_at, ttl: Unix seconds; seconds for which message and answer are of use.
        message_type: ``train``, ``evaluate`` or ``query``, perhaps with ``.action``.
    """

    message_id: str
    reply_to: str
    run_id: int
    src_node_id: int
    dst_node_id: int
    group_id: str
    created_at: float
    ttl: float
    message_type: str
    src_task_id: int | None = None
    dst_task_id: int | None = None


def check_version() -> None:
    """Checks the installed flwr.

    Raises:
        ConfigError: It is not the version whose internals this module knows.
    """
    if not flwr.__version__.startswith(SUPPORTED + "."):
        raise ConfigError(
            f"fedsec works with flwr {SUPPORTED}.*, installed is {flwr.__version__}: "
            f"pip install 'flwr~={SUPPORTED}.0'"
        )


def become(run_id: int, node_id: int, task_id: int) -> None:
    """Gives this process its identity, which Flower puts into each message that an app makes.

    There is one identity for the whole process, so a process serves one run.
    """
    TaskIdentity.run_id = run_id
    TaskIdentity.node_id = node_id
    TaskIdentity.task_id = task_id


def envelope(message: Message) -> Envelope:
    """Returns the metadata of `message`."""
    it = message.metadata
    ids = (it.message_id, it.reply_to_message_id, it.run_id, it.src_node_id, it.dst_node_id)
    times = (it.created_at, it.ttl)
    return Envelope(*ids, it.group_id, *times, it.message_type, it.src_task_id, it.dst_task_id)


def make_message(of: Envelope, content: RecordDict | Error) -> Message:
    """Returns a message with this metadata and this content or error.

    Raises:
        ValueError: Flower knows no such message type.
    """
    ids = (of.run_id, of.message_id, of.src_node_id, of.dst_node_id, of.reply_to)
    times, tasks = (of.created_at, of.ttl), (of.src_task_id, of.dst_task_id)
    metadata = Metadata(*ids, of.group_id, *times, of.message_type, *tasks)
    if isinstance(content, Error):
        return _make_message(metadata, error=content)
    return _make_message(metadata, content=content)


def set_message_id(message: Message, message_id: str) -> None:
    """Gives `message` the id under which it is sent, as every Grid must."""
    message.metadata.__dict__["_message_id"] = message_id


def make_run(run_id: int) -> Run:
    """Returns what `Grid.run` yields: a run of which nothing but the id is known to Flower."""
    return Run.create_empty(run_id)


def make_node_info(node_id: int, name: str) -> NodeInfo:
    """Returns what `Grid.get_nodes` yields for one node."""
    return NodeInfo(node_id=node_id, name=name)
