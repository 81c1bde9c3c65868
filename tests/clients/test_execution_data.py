"""A worker reads the site's data before it takes part, and says what is wrong with them."""

import json
import os
from pathlib import Path

import pytest
from flwr.app import Message, RecordDict

from fedsec import flwr_compat
from fedsec.errors import ConfigError, DataError, PolicyRefusal
from fedsec.plan.example import EXAMPLE
from fedsec.wire.generated.local_pb2 import WorkerFrame, WorkerStart
from fedsec.wire.local import LocalSocket, socket_pair
from fedsec_client.client_app import _data
from fedsec_client.execution import Execution, _RejectedError, _start
from fedsec_client.settings import PrivacyBudget
from fedsec_client.site import BUILT_IN_CLIENT, DATA_KEY, Site

PRIVATE = """
schema = 1
name = "private"
[task]
name = "digits"
[training]
rounds = 5
[nodes]
min_available = 3
[privacy]
model = "{model}"
epsilon = {epsilon}
delta = 1e-5
noise_multiplier = 1.0
clip = 1.0
"""


SECURE = """
schema = 1
name = "secure"
[task]
name = "digits"
[training]
rounds = 5
[nodes]
min_available = 5
[secure_aggregation]
mode = "semi-honest"
clip = 1.0
"""


@pytest.fixture(autouse=True)
def _own_identity(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("_run_id", "_node_id", "_task_id"):
        monkeypatch.setattr(flwr_compat.TaskIdentity, name, None)


def start(directory: Path, partition: int, plan: str = EXAMPLE) -> WorkerStart:
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
        plan=plan,
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


@pytest.mark.parametrize("model", ["local", "central"])
def test_a_plan_that_costs_more_than_it_says_is_refused(tmp_path: Path, model: str) -> None:
    """Whoever wrote it: without a cap of the site the node has no other bound."""
    lying = PRIVATE.format(model=model, epsilon=1.0)
    with pytest.raises(
        PolicyRefusal, match=r"^the plan would cost more than privacy\.epsilon = 1 "
    ):
        Execution.load(start(tmp_path, 3, lying))
    assert Execution.load(start(tmp_path, 3, PRIVATE.format(model=model, epsilon=50.0)))


@pytest.mark.parametrize(
    ("plan", "leaves"),
    [
        (EXAMPLE, True),
        (PRIVATE.format(model="central", epsilon=50.0), False),
        (SECURE, False),
    ],
)
def test_an_exception_s_text_stays_where_the_plan_hides_updates(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], plan: str, *, leaves: bool
) -> None:
    asked = start(tmp_path, 3, plan)
    asked.signing_key = bytes(range(32))
    execution = Execution.load(asked)

    def failing(*_: object) -> None:
        raise IndexError("Target 17 is out of bounds.")

    execution._mod = failing  # type: ignore[assignment]
    with pytest.raises(_RejectedError) as caught:
        execution._run(Message(RecordDict(), dst_node_id=7, message_type="train"))
    assert ("17" in caught.value.reason) is leaves
    assert "Target 17" in capsys.readouterr().err  # worker.log


def told_at_start(directory: Path, plan: str) -> str:
    """What leaves the node when a worker of the plan does not start."""
    ours, agent = socket_pair()
    with agent, ours:
        assert _start(LocalSocket(ours), start(directory, 3, plan)) is None
        received = LocalSocket(agent).receive()
    assert received is not None
    return WorkerFrame.FromString(received[0]).refusal.reason


@pytest.mark.parametrize("plan", [EXAMPLE, PRIVATE.format(model="central", epsilon=50.0)])
def test_what_a_task_s_own_reading_raises_stays_in_the_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], plan: str
) -> None:
    def failing(*_: object) -> None:
        raise SyntaxError("broken PNG file (chunk b'\\x01Bob')")

    monkeypatch.setattr("fedsec_client.client_app._data", failing)
    told = told_at_start(tmp_path, plan)
    assert told == "the app cannot be prepared (SyntaxError); why is in worker.log"
    assert "Bob" in capsys.readouterr().err  # worker.log


def test_of_a_file_that_cannot_be_read_the_name_of_the_data_set_leaves_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def failing(*_: object) -> None:
        raise DataError("cat/1.png cannot be read as an image (SyntaxError)")

    monkeypatch.setattr("fedsec_client.client_app._data", failing)
    told = told_at_start(tmp_path, EXAMPLE)
    assert told.startswith('its data set "digits" cannot be used; `fedsec node data check digits`')
    assert "[data.digits] cat/1.png" in capsys.readouterr().err


def test_what_fails_on_an_example_before_the_first_round_stays_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(_context: object) -> None:
        raise IndexError("Target 17 is out of bounds.")

    monkeypatch.setattr("fedsec_client.client_app.example_terms", failing)
    with pytest.raises(ConfigError) as caught:
        Execution.load(start(tmp_path, 3, PRIVATE.format(model="example", epsilon=50.0)))
    assert str(caught.value) == "the model fails on this node's examples; why is in worker.log"
