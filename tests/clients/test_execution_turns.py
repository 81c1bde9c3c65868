"""What a worker has written down when its app fails, and what a crafted model cannot make fail."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from flwr.app import RecordDict

from fedsec import flwr_compat
from fedsec.flower.messages import instruction
from fedsec.flower.secure_messages import with_stage
from fedsec.ledgerfile import LedgerFile
from fedsec.plan import FederationPlan
from fedsec.wire.generated.local_pb2 import Peer, WorkerStart
from fedsec.wire.generated.message_pb2 import Header
from fedsec.wire.headers import ErrorCode
from fedsec_client.execution import Execution
from fedsec_client.settings import PrivacyBudget
from fedsec_client.site import BUILT_IN_CLIENT, DATA_KEY, Site
from tests.clients.coordinator import NODE_ID, RUN_ID
from tests.clients.orders import encoded
from tests.clients.test_client_app import CRAFTED
from tests.flower.fakes import raising

PLAN = """
schema = 1
name = "a test"
[task]
name = "breast-cancer"
options = { model = "logistic" }
[training]
rounds = 3
[nodes]
min_available = 5
"""
SECURE = '[secure_aggregation]\nmode = "semi-honest"\nclip = 1.0\n'
LOCAL = """
[privacy]
model = "local"
epsilon = 50.0
delta = 1e-5
noise_multiplier = 3.0
clip = 1.0
metrics = { auc = [0.0, 1.0] }
"""
ARRAYS = {"0.weight": np.zeros((2, 30), np.float32), "0.bias": np.zeros(2, np.float32)}


@pytest.fixture(autouse=True)
def _own_identity(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("_run_id", "_node_id", "_task_id"):
        monkeypatch.setattr(flwr_compat.TaskIdentity, name, None)


def load(directory: Path, plan: str, **roster: object) -> Execution:
    """Returns a fresh worker of one node; what it kept lies in the directory."""
    site = Site(
        client=BUILT_IN_CLIENT,
        directory="",
        node_config={
            DATA_KEY: json.dumps({"connector": "breast-cancer", "partition": 0, "partitions": 5})
        },
        max_content_bytes=1 << 20,
        memory_mb=0,
        ledger=os.fspath(directory / "privacy.ledger"),
        budget=PrivacyBudget(),
    )
    state = directory / "state"
    state.mkdir(mode=0o700, exist_ok=True)
    return Execution.load(
        WorkerStart(
            run_id=RUN_ID,
            node_id=NODE_ID,
            plan=plan,
            settings_json=site.model_dump_json(),
            state_directory=os.fspath(state),
            signing_key=bytes(range(32)) if "secure" in plan else b"",
            **roster,  # type: ignore[arg-type]
        )
    )


def train(plan: str, arrays: dict[str, np.ndarray], attempt: int = 1) -> RecordDict:
    digest = FederationPlan.parse(plan).digest
    return instruction(arrays, round_number=1, attempt=attempt, plan=digest)


def ask(execution: Execution, content: RecordDict) -> Header:
    """Returns the reply's header; each message has an id of its own."""
    header, blob = encoded(content, run_id=RUN_ID)
    assert blob is not None
    with blob:
        reply, told = execution.answer(header, [os.dup(blob.fd)])
    if told is not None:
        told.close()
    return reply


def fail_always(execution: Execution) -> None:
    execution._app = raising(IndexError("of a record"))  # type: ignore[assignment]


def break_nothing(_execution: Execution) -> None:
    """The message itself is such that the app fails."""


@pytest.mark.parametrize(
    ("spoil", "arrays"), [(fail_always, ARRAYS), (break_nothing, {"w": ARRAYS["0.bias"]})]
)
def test_a_turn_whose_app_failed_is_not_begun_again_by_a_fresh_worker(
    tmp_path: Path, spoil: Callable[[Execution], None], arrays: dict[str, np.ndarray]
) -> None:
    plan = PLAN + SECURE
    execution = load(tmp_path, plan)
    spoil(execution)
    failure = ask(execution, with_stage(train(plan, arrays))).failure
    assert failure.code == ErrorCode.CLIENT_APP_RAISED_EXCEPTION
    for _ in range(2):  # the worker is renewed each time
        execution = load(tmp_path, plan)
        spoil(execution)
        failure = ask(execution, with_stage(train(plan, arrays))).failure
        assert failure.code == ErrorCode.MOD_FAILED_PRECONDITION
        assert "a secure sum is made once" in failure.reason
    reply = ask(load(tmp_path, plan), with_stage(train(plan, ARRAYS, attempt=2)))
    assert not reply.HasField("failure"), reply.failure.reason


def test_a_turn_that_cannot_be_kept_is_told_and_the_app_does_not_run(tmp_path: Path) -> None:
    plan = PLAN + SECURE
    execution = load(tmp_path, plan)
    fail_always(execution)
    shutil.rmtree(tmp_path / "state")
    failure = ask(execution, with_stage(train(plan, ARRAYS))).failure
    assert failure.code == ErrorCode.CLIENT_APP_RAISED_EXCEPTION
    assert failure.reason.startswith("the app failed: its context.state cannot be kept: cannot ")


@pytest.mark.parametrize(("until", "refused"), [(1, True), (2**33, False)])
def test_a_worker_begins_no_round_by_a_roster_that_has_expired(
    tmp_path: Path, until: int, refused: bool
) -> None:
    plan = PLAN + SECURE.replace("semi-honest", "malicious")
    member = Peer(node_id=NODE_ID, signing_key=bytes(32))
    execution = load(tmp_path, plan, member=[member], roster_until=until)
    reply = ask(execution, with_stage(train(plan, ARRAYS)))
    assert reply.HasField("failure") == refused
    if refused:
        assert "the federation's roster expired at 1970-01-01 00:00:01 UTC" in reply.failure.reason


def test_a_model_made_to_diverge_gets_an_answer_in_a_secure_sum(tmp_path: Path) -> None:
    plan = PLAN + SECURE
    reply = ask(load(tmp_path, plan), with_stage(train(plan, CRAFTED)))
    assert not reply.HasField("failure"), reply.failure.reason


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # of sums of NaN, on the way to the error
def test_a_model_made_to_fail_in_scoring_is_answered_and_charged(tmp_path: Path) -> None:
    """Of NaN there is no area under the curve, which the plan asks for."""
    plan = PLAN + LOCAL
    reply = ask(load(tmp_path, plan), train(plan, CRAFTED))
    assert not reply.HasField("failure"), reply.failure.reason
    assert len(list(LedgerFile(tmp_path / "privacy.ledger").entries())) == 1
