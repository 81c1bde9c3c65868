"""Instructions and replies: there and back, and a stable code for each way to be wrong."""

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord, RecordDict
from hypothesis import given
from hypothesis import strategies as st

from fedsec.errors import ProtocolError
from fedsec.flower.arrays import pack
from fedsec.flower.messages import (
    INSTRUCTION,
    METRICS,
    MODEL,
    UPDATE,
    Heading,
    evaluate_reply,
    instruction,
    read_evaluate_reply,
    read_heading,
    read_instruction,
    read_train_reply,
    train_reply,
)
from tests.flower.fakes import raw_reply

MODEL_ARRAYS = {"w": np.ones((2, 2), np.float32), "steps": np.array(3)}


def out() -> np.typing.NDArray[np.float32]:
    return np.zeros(3, np.float32)


def test_an_instruction_there_and_back() -> None:
    read = read_instruction(instruction(MODEL_ARRAYS, round_number=3, attempt=2, plan="abc"))
    assert read.heading == Heading(round=3, attempt=2, plan="abc")
    assert list(read.arrays) == ["w", "steps"]
    np.testing.assert_array_equal(read.arrays["w"], MODEL_ARRAYS["w"])
    assert read.arrays["steps"].shape == ()


@given(
    update=st.lists(
        st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=3, max_size=3
    ),
    examples=st.integers(1, 2**53),
    loss=st.floats(-1e300, 1e300),
)
def test_a_reply_to_train_there_and_back(update: list[float], examples: int, loss: float) -> None:
    row = out()
    sent = np.array(update, np.float32)
    read = read_train_reply("7", train_reply(sent, examples=examples, loss=loss), row)
    np.testing.assert_array_equal(row, sent)
    assert (read.examples, dict(read.values)) == (examples, {"train-loss": loss})


def test_a_reply_to_evaluate_there_and_back() -> None:
    read = read_evaluate_reply("7", evaluate_reply(5, {"loss": 0.5, "accuracy": 1}))
    assert (read.examples, dict(read.values)) == (5, {"loss": 0.5, "accuracy": 1.0})


def array(values: object, dtype: str = "float32") -> Array:
    return pack(np.array(values, dtype))


@pytest.mark.parametrize(
    ("content", "code", "detail"),
    [
        (RecordDict(), "bad-records", "records none, want 'metrics', 'update'"),
        (RecordDict({"x": ConfigRecord()}), "bad-records", "records 'x'"),
        (
            RecordDict({**raw_reply(), "more": ConfigRecord()}),
            "bad-records",
            "records 'metrics', 'more', 'update'",
        ),
        (
            RecordDict({UPDATE: MetricRecord(), METRICS: MetricRecord()}),
            "bad-update",
            "want one array, 'vector', got none",
        ),
        (
            RecordDict({UPDATE: ArrayRecord(), METRICS: MetricRecord()}),
            "bad-update",
            "want one array, 'vector', got none",
        ),
        (raw_reply(name="w"), "bad-update", "want one array, 'vector', got 'w'"),
        (raw_reply(array([1, 2])), "bad-update", r"'float32' (2,), want float32 (3,)"),
        (raw_reply(array([[1, 2, 3]])), "bad-update", r"'float32' (1, 3), want float32 (3,)"),
        (raw_reply(array([1, 2, 3], "float64")), "bad-update", "'float64' (3,), want float32 (3,)"),
        (raw_reply(array([1, 2, 3], "int32")), "bad-update", "'int32' (3,), want float32 (3,)"),
        (
            raw_reply(Array("float32", (3,), "numpy.ndarray", array([1, 2]).data)),
            "bad-update",
            "the update is malformed: the bytes are not a .npy file of float32 (3,)",
        ),
        (
            raw_reply(Array("float32", (3,), "pickle", b"\x80\x04.")),
            "bad-update",
            "the update is malformed: serialised as 'pickle'",
        ),
        (raw_reply(array([1, np.nan, 3])), "not-finite", "1 of 3 entries are NaN or infinite"),
        (raw_reply(array([np.inf, -np.inf, 3])), "not-finite", "2 of 3 entries are NaN or inf"),
        (raw_reply(metrics={}), "bad-metrics", "num-examples must be an integer in 1..90071992"),
        (raw_reply(metrics={"num-examples": 5}), "bad-metrics", "train-loss is missing"),
        (
            raw_reply(metrics={"num-examples": 5, "train-loss": float("nan")}),
            "bad-metrics",
            "'train-loss' must be a finite number, got nan",
        ),
        (
            raw_reply(metrics={"num-examples": 5, "train-loss": [0.5]}),
            "bad-metrics",
            "'train-loss' must be a finite number, got [0.5]",
        ),
        (
            raw_reply(metrics={"num-examples": 5, "train-loss": 0.5, "x": 10**400}),
            "bad-metrics",
            "'x' must be a finite number, got 1000",
        ),
        (
            raw_reply(metrics={f"m{i}": 1.0 for i in range(65)}),
            "bad-metrics",
            "more than 64 metrics",
        ),
        (raw_reply(metrics={"m" * 65: 1.0}), "bad-metrics", "64 letters in a name"),
    ],
)
def test_each_bad_reply_has_its_code_and_names_the_node(
    content: RecordDict, code: str, detail: str
) -> None:
    with pytest.raises(ProtocolError) as caught:
        read_train_reply("17", content, out())
    assert (caught.value.peer, caught.value.code) == ("17", code)
    assert detail in caught.value.detail


@pytest.mark.parametrize(
    "examples", [0, -1, 2**53 + 1, 2**63, 10**400, 1.0, float("nan"), float("inf"), [1], True]
)
def test_num_examples_is_a_count_or_the_reply_is_refused(examples: float | list[int]) -> None:
    content = raw_reply()
    # past the check of Flower's own record, which a peer's bytes need not have passed
    content.metric_records[METRICS].__dict__["_data"]["num-examples"] = examples
    with pytest.raises(ProtocolError, match="17: bad-metrics: num-examples must be an integer"):
        read_train_reply("17", content, out())


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (RecordDict(), "bad-records"),
        (raw_reply(), "bad-records"),
        (evaluate_reply(0, {"loss": 1.0}), "bad-metrics"),
        (evaluate_reply(1, {"accuracy": 1.0}), "bad-metrics"),
        (evaluate_reply(1, {"loss": float("inf")}), "bad-metrics"),
    ],
)
def test_each_bad_evaluation_has_its_code(content: RecordDict, code: str) -> None:
    with pytest.raises(ProtocolError) as caught:
        read_evaluate_reply("17", content)
    assert (caught.value.peer, caught.value.code) == ("17", code)


def test_a_truth_value_is_no_metric() -> None:
    content = raw_reply()
    content.metric_records[METRICS].__dict__["_data"]["train-loss"] = True
    with pytest.raises(ProtocolError, match="'train-loss' must be a finite number, got True"):
        read_train_reply("17", content, out())


def heading(**changed: object) -> RecordDict:
    content = instruction(MODEL_ARRAYS, round_number=3, plan="abc")
    for key, value in changed.items():
        content.config_records[INSTRUCTION][key] = value  # type: ignore[assignment]  # that is the point
    return content


@pytest.mark.parametrize(
    ("content", "detail"),
    [
        (RecordDict(), "record 'instruction' is missing"),
        (heading(round=0), "round must be an integer >= 1, got 0"),
        (heading(round=True), "round must be an integer >= 1, got True"),
        (heading(round="3"), "round must be an integer >= 1, got '3'"),
        (heading(attempt=0), "attempt must be an integer >= 1, got 0"),
        (heading(attempt=2**60), "attempt must be an integer >= 1, got"),
        (heading(plan=3), "plan must be a digest, got 3"),
    ],
)
def test_a_bad_heading_is_the_coordinators_fault(content: RecordDict, detail: str) -> None:
    with pytest.raises(ProtocolError) as caught:
        read_heading(content)
    assert (caught.value.peer, caught.value.code) == ("coordinator", "bad-instruction")
    assert detail in caught.value.detail


def test_a_bad_model_is_the_coordinators_fault() -> None:
    content = heading()
    del content[MODEL]
    with pytest.raises(ProtocolError, match="record 'model' is missing"):
        read_instruction(content)
    content[MODEL] = ArrayRecord({"w": Array("float32", (9,), "numpy.ndarray", b"")})
    with pytest.raises(ProtocolError, match="bad-instruction: array 'w': 0 bytes are too few"):
        read_instruction(content)
