"""What a coordinator's process sends in tests of the codec."""

import numpy as np
import pytest
from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict

from fedsec import flwr_compat
from fedsec.wire import headers

RUN, NODE = 7, 1 << 63


def weights(size: int = 1000, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(size).astype(np.float32)


def content(size: int = 1000) -> RecordDict:
    return RecordDict(
        {
            "arrays": ArrayRecord([weights(size), np.zeros((0, 3))]),
            "config": ConfigRecord({"lr": 0.1, "server-round": 3}),
            "metrics": MetricRecord({"loss": float("nan"), "steps": [1, 2]}),
        }
    )


def instruction(records: RecordDict | None = None, **changes: object) -> Message:
    options = {"dst_node_id": NODE, "message_type": "train", "group_id": "3", "ttl": 60.0}
    return Message(records if records is not None else content(), **{**options, **changes})


def become_coordinator(monkeypatch: pytest.MonkeyPatch) -> None:
    """Gives the process the identity of a coordinator's, until the test ends."""
    identity = flwr_compat.TaskIdentity
    for name in ("_run_id", "_node_id", "_task_id"):
        monkeypatch.setattr(identity, name, getattr(identity, name))
    flwr_compat.become(RUN, headers.COORDINATOR_NODE_ID, 3)
