"""What comes back at a stage of a secure sum is read only into what its form allows."""

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord, RecordDict

from fedsec.errors import ProtocolError
from fedsec.flower.arrays import pack
from fedsec.flower.secure_messages import Stage, read_reply
from fedsec.secagg.node import Upload

LIKE = np.zeros(3, np.uint32)
NO_ONE = bytes(4)


def said(stage: str, body: object, **more: object) -> RecordDict:
    record = ConfigRecord({"stage": stage, "body": body})  # type: ignore[dict-item]
    return RecordDict({"fedsec.secagg": record, **more})  # type: ignore[dict-item]


def masked(array: Array, name: str = "vector") -> ArrayRecord:
    return ArrayRecord({name: array})


def test_a_masked_vector_is_read_as_it_is() -> None:
    words = np.array([1, 2, 2**32 - 1], np.uint32)
    upload = read_reply(Stage.VECTOR, said("vector", NO_ONE, masked=masked(pack(words))), "7", LIKE)
    assert isinstance(upload, Upload)
    assert upload.words.tolist() == words.tolist()
    assert upload.complaints == ()


GOOD = pack(LIKE)


@pytest.mark.parametrize(
    ("stage", "content", "code"),
    [
        (Stage.OFFER, RecordDict({"metrics": MetricRecord({"loss": 0.5})}), "undefended"),
        (Stage.OFFER, said("shares", bytes(200)), "malformed"),
        (Stage.OFFER, said("offer", "text"), "malformed"),
        (Stage.OFFER, said("offer", bytes(199)), "malformed"),
        (Stage.OFFER, said("offer", bytes(200), metrics=MetricRecord({"a": 1})), "bad-records"),
        (Stage.NONCE, said("nonce", bytes(31)), "malformed"),
        (Stage.SIGNATURE, said("signature", bytes(65)), "malformed"),
        (Stage.VECTOR, said("vector", NO_ONE), "bad-records"),
        (Stage.VECTOR, said("vector", b"", masked=masked(GOOD)), "malformed"),
        (Stage.VECTOR, said("vector", NO_ONE, masked=masked(GOOD, "other")), "bad-vector"),
        (Stage.VECTOR, said("vector", NO_ONE, masked=MetricRecord({"a": 1})), "bad-vector"),
        (
            Stage.VECTOR,
            said("vector", NO_ONE, masked=masked(pack(np.zeros(4, np.uint32)))),
            "bad-vector",
        ),
        (
            Stage.VECTOR,
            said("vector", NO_ONE, masked=masked(pack(np.zeros(3, np.uint16)))),
            "bad-vector",
        ),
        (
            Stage.VECTOR,
            said("vector", NO_ONE, masked=masked(Array("uint32", (3,), "numpy.ndarray", b"short"))),
            "bad-vector",
        ),
    ],
)
def test_anything_else_is_refused_with_its_sender(
    stage: Stage, content: RecordDict, code: str
) -> None:
    with pytest.raises(ProtocolError) as raised:
        read_reply(stage, content, "node 7", LIKE)
    assert (raised.value.peer, raised.value.code) == ("node 7", code)
