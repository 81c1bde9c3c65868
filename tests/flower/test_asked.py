"""All who sum together must have been asked the same: one digest of an instruction's records."""

from collections.abc import Callable, Iterable
from copy import deepcopy

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict

from fedsec.errors import StateError
from fedsec.flower.asked import digest_of
from fedsec.flower.messages import instruction
from fedsec.flower.secure_messages import Stage, read_stage, with_stage
from fedsec.flwr_compat import Envelope, make_message
from fedsec.wire.codec import Encoder, decode
from tests.flower.secure import FIRST, SecureGrid, secure_plan
from tests.flower.test_secure_sum import MALICIOUS, UPDATES, begin, rounds


def content() -> RecordDict:
    return RecordDict(
        {
            "model": ArrayRecord(
                {
                    "weight": Array(np.arange(6, dtype=np.float32).reshape(2, 3)),
                    "bias": Array(np.zeros(2, np.float32)),
                }
            ),
            "figures": MetricRecord({"loss": 0.5, "counts": [1, 2]}),
            "config": ConfigRecord(
                {"on": True, "rate": 0.1, "name": "a", "key": b"k", "many": [1.0, 2.0], "steps": 1}
            ),
        }
    )


def test_it_is_the_same_at_both_ends_of_the_wire() -> None:
    sent = content()
    sent["large"] = ArrayRecord({"a": Array(np.arange(1 << 19, dtype=np.float32))})
    of = Envelope("1" * 32, "", 1, 2, 0, "", 1.0, 60.0, "train")
    header, blob = Encoder().encode_many([make_message(of, sent)])[0]
    came = decode(header, blob).content
    assert digest_of(came) == digest_of(sent)
    assert digest_of(with_stage(came)) == digest_of(sent)  # the stage is no part of it


def another_entry(made: RecordDict) -> None:
    made["model"]["bias"] = Array(np.array([0, 1e-30], np.float32))  # type: ignore[index]


def another_order(made: RecordDict) -> None:
    model = made["model"]
    made["model"] = ArrayRecord({name: model[name] for name in ("bias", "weight")})  # type: ignore[index]


def another_shape(made: RecordDict) -> None:
    made["model"]["weight"] = Array(np.arange(6, dtype=np.float32).reshape(3, 2))  # type: ignore[index]


def another_name(made: RecordDict) -> None:
    made["model2"] = made.pop("model")


def another_value(made: RecordDict) -> None:
    made["config"]["steps"] = 0  # type: ignore[index]


def another_type(made: RecordDict) -> None:
    made["config"]["steps"] = True  # type: ignore[index]


def one_record_more(made: RecordDict) -> None:
    made["more"] = ConfigRecord({})


@pytest.mark.parametrize(
    "change",
    [
        another_entry,
        another_order,
        another_shape,
        another_name,
        another_value,
        another_type,
        one_record_more,
    ],
)
def test_whatever_is_another_makes_another_digest(change: Callable[[RecordDict], None]) -> None:
    made = content()
    change(made)
    assert digest_of(made) != digest_of(content())


def test_records_come_in_any_order() -> None:
    made = content()
    assert digest_of(RecordDict(dict(reversed(made.items())))) == digest_of(made)


class TwoModels(SecureGrid):
    """Shows all nodes but one another model: if they send nothing for it, the sum is its update."""

    victim = FIRST + 2

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        sent = list(messages)
        for message in sent:
            if read_stage(message.content) is Stage.OFFER:
                if message.metadata.dst_node_id == self.victim:
                    continue
                shown = deepcopy(message.content)
                dead = instruction({"w": np.full(3, -1e6, np.float32)}, round_number=1, plan="")
                for name, record in dead.array_records.items():
                    shown[name] = record
                message.content = shown
        return super().push_messages(sent)


@pytest.mark.parametrize("section", ['mode = "semi-honest"\nclip = 10.0', MALICIOUS])
def test_a_model_that_is_another_for_one_node_makes_no_sum(section: str) -> None:
    agreed = secure_plan(section)
    grid = TwoModels(agreed, UPDATES)
    with pytest.raises(StateError, match="bad-signature"):
        rounds(agreed, grid)(begin(), 1)
    assert not any(
        each.content.config_records.get("fedsec.secagg", {}).get("stage") == Stage.VECTOR
        for each in grid.came
        if not each.has_error() and each.metadata.src_node_id == TwoModels.victim
    )
