"""A worker reads the site's data before it takes part, and says what is wrong with them."""

import json
import os
from pathlib import Path

import pytest

from fedsec import flwr_compat
from fedsec.errors import ConfigError
from fedsec.plan.example import EXAMPLE
from fedsec.wire.generated.local_pb2 import WorkerStart
from fedsec_client.client_app import _data
from fedsec_client.execution import Execution
from fedsec_client.settings import PrivacyBudget
from fedsec_client.site import BUILT_IN_CLIENT, DATA_KEY, Site


@pytest.fixture(autouse=True)
def _own_identity(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("_run_id", "_node_id", "_task_id"):
        monkeypatch.setattr(flwr_compat.TaskIdentity, name, None)


def start(directory: Path, partition: int) -> WorkerStart:
    data = {"connector": "digits", "partition": partition, "partitions": 10}
    site = Site(
        client=BUILT_IN_CLIENT,
        directory="",
        node_config={DATA_KEY: json.dumps(data)},
        max_content_bytes=1 << 20,
        memory_mb=0,
        ledger=os.fspath(directory / "privacy.ledger"),
        budget=PrivacyBudget(),
    )
    return WorkerStart(
        run_id=1,
        node_id=7,
        plan=EXAMPLE,
        settings_json=site.model_dump_json(),
        state_directory=os.fspath(directory),
    )


def test_data_are_there_before_the_first_round(tmp_path: Path) -> None:
    _data.cache_clear()
    Execution.load(start(tmp_path, partition=3))
    assert _data.cache_info().currsize == 1


def test_data_that_cannot_be_used_are_a_reason_not_to_take_part(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"\[data\.digits\] partition"):
        Execution.load(start(tmp_path, partition=10))
