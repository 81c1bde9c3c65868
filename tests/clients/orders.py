"""Messages to the scripted app, and its replies, as they travel."""

import time
from pathlib import Path

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Message, RecordDict
from numpy.typing import NDArray

from fedsec import flwr_compat
from fedsec.wire import codec
from fedsec.wire.blobs import Blob
from fedsec.wire.generated.message_pb2 import Header
from fedsec.wire.headers import new_message_id
from tests.clients.coordinator import NODE_ID, RUN_ID

SCRIPTED = Path(__file__).parent / "apps" / "scripted"
PLAN = """
schema = 1
name = "scripted"
[app]
name = "scripted"
[nodes]
min_available = 2
"""
SETTINGS = f"""
schema = 1
[policy]
allowed_apps = ["scripted"]
[apps.scripted]
directory = "{SCRIPTED}"
[node_config]
site = "clinic"
"""


def order(
    what: str,
    *,
    arrays: list[NDArray[np.float32]] | None = None,
    ttl: float = 60.0,
    run_id: int = RUN_ID,
    kind: str = "train",
    **more: int | str,
) -> tuple[Header, Blob | None]:
    """Returns a message that orders `what` of the scripted app."""
    content = RecordDict({"order": ConfigRecord({"what": what, **more})})
    if arrays is not None:
        content["arrays"] = ArrayRecord(arrays)
    return encoded(content, ttl=ttl, run_id=run_id, kind=kind)


def encoded(
    content: RecordDict, *, ttl: float = 60.0, run_id: int = RUN_ID, kind: str = "train"
) -> tuple[Header, Blob | None]:
    """Returns a message of the coordinator to the node, ready to be pushed."""
    envelope = flwr_compat.Envelope(
        message_id=new_message_id(),
        reply_to="",
        run_id=run_id,
        src_node_id=1,
        dst_node_id=NODE_ID,
        group_id="",
        created_at=time.time(),
        ttl=ttl,
        message_type=kind,
    )
    return codec.encode(flwr_compat.make_message(envelope, content))


def read(header: Header, content: Blob | None) -> Message:
    """Returns the reply; checks its hashes as the coordinator's end does."""
    if content is None:
        return codec.decode(header, None)
    return codec.decode(header, content.view())
