"""What the built-in apps say to each other: records of a Flower message, made and checked here.

    train      coordinator: "model" (arrays), "instruction" (round, attempt, plan)
               node:        "update" (one vector: trained minus sent), "metrics", which a plan
                            with privacy leaves out
    evaluate   coordinator: "model", "instruction"
               node:        "metrics"

An update is one float32 vector (d,) in the order of the model's `Layout`, since clipping, noise,
masks and robust rules all work on that vector. A reply is read only into what its form allows:
nothing is allocated for a length that a peer merely claims, nothing is unpickled.
"""

import reprlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, MetricRecord, RecordDict
from numpy.typing import NDArray

from fedsec.errors import ProtocolError
from fedsec.flower.arrays import pack, unpack
from fedsec.vectors import Vector, is_finite

MODEL, INSTRUCTION, UPDATE, METRICS = "model", "instruction", "update", "metrics"
VECTOR = "vector"
ROUND, ATTEMPT, PLAN = "round", "attempt", "plan"
EXAMPLES, TRAIN_LOSS, LOSS = "num-examples", "train-loss", "loss"

MAX_EXAMPLES = 2**53  # beyond it a float64 no longer counts one by one
MAX_METRICS = 64
MAX_NAME = 64
LARGEST = 1e300  # of a metric; sums of them stay finite
COORDINATOR = "coordinator"


@dataclass(frozen=True, slots=True)
class Heading:
    """Which turn an instruction belongs to.

    Args:
        round: From 1.
        attempt: At this round, from 1.
        plan: Digest of the plan.
    """

    round: int
    attempt: int
    plan: str


@dataclass(frozen=True, slots=True)
class Instruction:
    """What a node is asked for: to work on the model `arrays` in the turn `heading`."""

    heading: Heading
    arrays: Mapping[str, NDArray[Any]]


@dataclass(frozen=True, slots=True)
class Metrics:
    """Figures that a node reports, means over `examples` of its own examples."""

    examples: int
    values: Mapping[str, float]


def instruction(
    arrays: Mapping[str, NDArray[Any]], *, round_number: int, attempt: int = 1, plan: str
) -> RecordDict:
    """Returns the content of a train or evaluate message, the same for every node.

    Args:
        arrays: The model's arrays by name.
        round_number: Counted from 1.
        attempt: At this round, counted from 1.
        plan: Digest of the plan.
    """
    return RecordDict(
        {
            MODEL: ArrayRecord({name: pack(array) for name, array in arrays.items()}),
            INSTRUCTION: heading_record(Heading(round_number, attempt, plan)),
        }
    )


def heading_record(heading: Heading) -> ConfigRecord:
    """Returns the record that says which turn an instruction belongs to."""
    return ConfigRecord({ROUND: heading.round, ATTEMPT: heading.attempt, PLAN: heading.plan})


def read_heading(content: RecordDict) -> Heading:
    """Returns which turn an instruction belongs to; its model is not looked at.

    Raises:
        ProtocolError: ``bad-instruction``.
    """
    record = content.config_records.get(INSTRUCTION)
    if record is None:
        raise _bad_instruction(f"record {INSTRUCTION!r} is missing")
    plan = record.get(PLAN)
    if not isinstance(plan, str):
        raise _bad_instruction(f"{PLAN} must be a digest, got {_show(plan)}")
    return Heading(_counted(record, ROUND), _counted(record, ATTEMPT), plan)


def read_instruction(content: RecordDict) -> Instruction:
    """Returns what the coordinator asks for; the arrays are read-only views of the message.

    Raises:
        ProtocolError: ``bad-instruction``: a record is missing or malformed.
    """
    heading = read_heading(content)
    model = content.array_records.get(MODEL)
    if model is None:
        raise _bad_instruction(f"record {MODEL!r} is missing")
    arrays = {}
    for name, array in model.items():
        try:
            arrays[name] = unpack(array)
        except ValueError as error:
            raise _bad_instruction(f"array {_show(name)}: {error}") from error
    return Instruction(heading, arrays)


def train_reply(
    update: Vector, *, examples: int, loss: float, more: Mapping[str, float] = MappingProxyType({})
) -> RecordDict:
    """Returns a node's answer to train.

    Args:
        update: Trained minus sent (d,).
        examples: Examples trained on.
        loss: Mean training loss over them.
        more: Further figures by name.
    """
    reply = bare_train_reply(update)
    reply[METRICS] = MetricRecord({EXAMPLES: examples, TRAIN_LOSS: loss, **more})
    return reply


def bare_train_reply(update: Vector) -> RecordDict:
    """Returns a node's answer to train that says nothing but the update (d,)."""
    return RecordDict({UPDATE: ArrayRecord({VECTOR: pack(update)})})


def evaluate_reply(examples: int, values: Mapping[str, float]) -> RecordDict:
    """Returns a node's answer to evaluate: means over `examples` examples."""
    return RecordDict({METRICS: MetricRecord({EXAMPLES: examples, **values})})


def read_train_reply(peer: str, content: RecordDict, out: Vector) -> Metrics:
    """Writes the update of a node's reply to `out` and returns its metrics.

    Args:
        peer: Who sent it, for errors.
        content: Of the reply.
        out: Row (d,) for the update; holds anything if this raises.

    Raises:
        ProtocolError: As `read_bare_train_reply`, and ``bad-metrics``: num-examples or the loss is
            missing or out of range.
    """
    _check_records(peer, content, {UPDATE, METRICS})
    _read_update(peer, content, out)
    return _metrics(peer, content, TRAIN_LOSS)


def read_bare_train_reply(peer: str, content: RecordDict, out: Vector) -> None:
    """Writes the update of a reply that holds nothing else to `out`.

    Args:
        peer: Who sent it, for errors.
        content: Of the reply.
        out: Row (d,) for the update; holds anything if this raises.

    Raises:
        ProtocolError: With one of the codes
            ``bad-records``   other records than those that are due;
            ``bad-update``    not one vector named "vector", float32 (d,);
            ``not-finite``    an entry of it is NaN or infinite.
    """
    _check_records(peer, content, {UPDATE})
    _read_update(peer, content, out)


def _read_update(peer: str, content: RecordDict, out: Vector) -> None:
    arrays = content.array_records.get(UPDATE)
    if arrays is None or set(arrays) != {VECTOR}:
        raise ProtocolError(
            peer, "bad-update", f"want one array, {VECTOR!r}, got {_names(arrays or ())}"
        )
    array = arrays[VECTOR]
    if array.dtype != "float32" or tuple(array.shape) != out.shape:
        got = f"{_show(array.dtype)} {tuple(array.shape)[:8]}"
        raise ProtocolError(peer, "bad-update", f"the update is {got}, want float32 {out.shape}")
    try:
        out[:] = unpack(array)
    except ValueError as error:
        raise ProtocolError(peer, "bad-update", f"the update is malformed: {error}") from error
    if not is_finite(out):
        bad = int(np.count_nonzero(~np.isfinite(out)))
        raise ProtocolError(peer, "not-finite", f"{bad} of {out.size} entries are NaN or infinite")


def read_update(content: RecordDict) -> tuple[Vector, Metrics]:
    """Returns update (d,) and metrics of this node's own app, for what stands around it.

    Where metrics are withheld the update counts as one example's.

    Raises:
        ProtocolError: As in `read_train_reply`.
    """
    record = content.array_records.get(UPDATE, ArrayRecord())
    shape = tuple(record[VECTOR].shape) if VECTOR in record else ()
    out = np.empty(shape if len(shape) == 1 else (0,), np.float32)
    if METRICS not in content:
        read_bare_train_reply("app", content, out)
        return out, Metrics(1, {})
    return out, read_train_reply("app", content, out)


def read_evaluate_reply(peer: str, content: RecordDict) -> Metrics:
    """Returns the metrics of a node's reply to evaluate.

    Raises:
        ProtocolError: ``bad-records`` or ``bad-metrics``, as in `read_train_reply`.
    """
    _check_records(peer, content, {METRICS})
    return _metrics(peer, content, LOSS)


def _metrics(peer: str, content: RecordDict, needed: str) -> Metrics:
    record = content.metric_records.get(METRICS, MetricRecord())
    if not len(record) <= MAX_METRICS or any(len(name) > MAX_NAME for name in record):
        raise ProtocolError(
            peer, "bad-metrics", f"more than {MAX_METRICS} metrics or {MAX_NAME} letters in a name"
        )
    examples = record.get(EXAMPLES)
    if type(examples) is not int or not 1 <= examples <= MAX_EXAMPLES:
        raise ProtocolError(
            peer,
            "bad-metrics",
            f"{EXAMPLES} must be an integer in 1..{MAX_EXAMPLES}, got {_show(examples)}",
        )
    if needed not in record:
        raise ProtocolError(peer, "bad-metrics", f"{needed} is missing")
    values: dict[str, float] = {}
    for name, value in record.items():
        if name == EXAMPLES:
            continue
        values[name] = _number(peer, name, value)
    return Metrics(examples, values)


def _number(peer: str, name: str, value: object) -> float:
    match value:
        case bool():
            pass
        case int() | float() if -LARGEST <= value <= LARGEST:  # not so for NaN
            return float(value)
    raise ProtocolError(
        peer, "bad-metrics", f"{_show(name)} must be a finite number, got {_show(value)}"
    )


def _check_records(peer: str, content: RecordDict, wanted: set[str]) -> None:
    if set(content) != wanted:
        raise ProtocolError(
            peer, "bad-records", f"records {_names(content)}, want {_names(sorted(wanted))}"
        )


def _counted(record: ConfigRecord, name: str) -> int:
    number = record.get(name)
    if type(number) is not int or not 1 <= number <= MAX_EXAMPLES:
        raise _bad_instruction(f"{name} must be an integer >= 1, got {_show(number)}")
    return number


def _bad_instruction(detail: str) -> ProtocolError:
    return ProtocolError(COORDINATOR, "bad-instruction", detail)


def _names(names: Iterable[str]) -> str:
    return ", ".join(_show(name) for name in sorted(names)[:5]) or "none"


def _show(value: object) -> str:
    """Returns a peer's value fit for a log: one line, short."""
    return reprlib.repr(value)[:80]
