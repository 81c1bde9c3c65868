"""An array that was received behaves as Flower's own, and is copied when somebody asks for it."""

import copy
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, RecordDict
from numpy.typing import NDArray

from fedsec.flower.arrays import unpack
from fedsec.flwr_arrays import Body, ReceivedArray, body_of
from fedsec.flwr_compat import Envelope, make_message
from fedsec.wire.codec import Encoder, decode
from fedsec.wire.mapped import map_file
from fedsec.wire.npy import DTYPES, make_header

NUMBERS = np.arange(6, dtype=np.float32).reshape(2, 3)


def received(array: NDArray[Any] = NUMBERS) -> ReceivedArray:
    """Returns `array` as it comes off the wire."""
    header = make_header(DTYPES[array.dtype.str], array.shape)
    view = memoryview(array.tobytes())
    return ReceivedArray(Body(array.dtype, array.shape, header, view))


@pytest.mark.parametrize("descr", DTYPES)
@pytest.mark.parametrize("shape", [(6,), (2, 3), (1, 1, 6), ()])
def test_it_holds_what_flowers_own_holds(descr: str, shape: tuple[int, ...]) -> None:
    array = np.arange(max(1, np.prod(shape, dtype=int))).reshape(shape).astype(descr)
    got, own = received(array), Array(array)
    assert (got.dtype, got.shape, got.stype, got.data) == (
        own.dtype,
        own.shape,
        own.stype,
        own.data,
    )
    assert got.data is got.data
    np.testing.assert_array_equal(received(array).numpy(), array, strict=True)


def test_nothing_is_copied_before_somebody_asks() -> None:
    array = received()
    body = body_of(array)
    assert body is not None
    assert np.shares_memory(unpack(array), body.array())
    assert body_of(array) is body
    assert array.data
    assert body_of(array) is None


def test_each_numpy_array_is_the_callers_own() -> None:
    array = received()
    one, other = array.numpy(), array.numpy()
    one[:] = 7
    np.testing.assert_array_equal(other, NUMBERS)
    np.testing.assert_array_equal(array.numpy(), NUMBERS)
    assert not unpack(array).flags.writeable


def test_it_equals_flowers_own_both_ways() -> None:
    other = Array(NUMBERS + 1)
    assert received() == Array(NUMBERS)
    assert Array(NUMBERS) == received()
    assert received() == received()
    assert received() != other
    assert other != received()
    assert received() != "array"
    assert ArrayRecord({"a": received()}) == ArrayRecord({"a": Array(NUMBERS)})


def test_flower_names_and_stores_it_as_its_own() -> None:
    got, own = received(), Array(NUMBERS)
    assert got.object_id == own.object_id
    assert Array.inflate(got.deflate(), got.children) == own
    got.data = Array(NUMBERS + 1).data
    assert got.object_id == Array(NUMBERS + 1).object_id


def test_new_data_take_the_place_of_what_came() -> None:
    array = received()
    array.data = Array(NUMBERS * 2).data
    np.testing.assert_array_equal(array.numpy(), NUMBERS * 2)
    np.testing.assert_array_equal(unpack(array), NUMBERS * 2)
    assert body_of(array) is None


def test_a_statement_that_was_changed_is_not_overlooked() -> None:
    array = received()
    array.shape = (3, 2)
    assert body_of(array) is None
    with pytest.raises(ValueError, match=r"not a \.npy file of float32"):
        unpack(array)
    np.testing.assert_array_equal(array.numpy(), Array("", (), array.stype, array.data).numpy())
    array.stype = "other"
    with pytest.raises(TypeError, match="Unsupported serialization type"):
        array.numpy()


def pickled(array: Array) -> Array:
    """Returns it as it comes out of another process."""
    there: Array = pickle.loads(pickle.dumps(array))  # noqa: S301 - made one line before
    return there


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, pickled])
def test_a_copy_is_flowers_own(copied: Callable[[Array], Array]) -> None:
    twin = copied(received())
    assert type(twin) is Array
    assert twin == Array(NUMBERS)


def test_a_record_makes_what_it_makes_of_flowers_own() -> None:
    record = ArrayRecord({"a": received()})
    np.testing.assert_array_equal(record.to_numpy_ndarrays()[0], NUMBERS)
    assert record.count_bytes() == ArrayRecord({"a": Array(NUMBERS)}).count_bytes()


def test_one_numpy_array_is_what_came_itself_and_nobody_else_sees_what_is_written_to_it() -> None:
    numbers = np.arange(1 << 19, dtype=np.float32).reshape(2, -1)
    array = over_a_blob(numbers)
    body = body_of(array)
    assert body is not None
    first, second = array.numpy(), array.numpy()
    assert not first.flags.owndata
    assert second.flags.owndata
    assert first.flags.writeable
    assert first.ctypes.data % 64 == 0
    first += 1
    np.testing.assert_array_equal(first, numbers + 1, strict=True)
    np.testing.assert_array_equal(second, numbers, strict=True)
    np.testing.assert_array_equal(array.numpy(), numbers)
    np.testing.assert_array_equal(body.array(), numbers)
    del array, body, second
    np.testing.assert_array_equal(first, numbers + 1)


def test_who_asks_for_the_bytes_does_not_keep_the_content_too() -> None:
    for use in (lambda a: a.data, lambda a: setattr(a, "data", Array(NUMBERS).data)):
        array = over_a_blob(np.zeros(1 << 19, np.float32))
        assert array._own  # type: ignore[attr-defined]
        use(array)
        assert not array._own  # type: ignore[attr-defined]


def test_an_array_that_is_little_of_what_came_does_not_keep_all_of_it() -> None:
    large, larger = np.zeros(1 << 18, np.float32), np.zeros(1 << 20, np.float32)
    assert not over_a_blob(larger, large).numpy().flags.owndata
    assert over_a_blob(larger, large, which=1).numpy().flags.owndata


def test_an_array_that_begins_at_an_odd_place_is_copied() -> None:
    numbers = np.arange(1 << 19, dtype=np.float32)
    array = over_a_blob(np.zeros(3, np.uint8), numbers, which=1)
    copied = array.numpy()
    assert copied.flags.owndata
    assert copied.flags.aligned
    np.testing.assert_array_equal(copied, numbers)


def test_where_the_system_maps_no_more_arrays_are_copied(monkeypatch: pytest.MonkeyPatch) -> None:
    numbers = np.arange(1 << 19, dtype=np.float32)

    def refuse(fd: int, length: int, *, own: bool = False) -> memoryview:
        if own:
            raise OSError(12, "Cannot allocate memory")
        return map_file(fd, length)

    monkeypatch.setattr("fedsec.wire.blobs.map_file", refuse)
    copied = over_a_blob(numbers).numpy()
    assert copied.flags.owndata
    np.testing.assert_array_equal(copied, numbers)


def over_a_blob(*arrays: NDArray[Any], which: int = 0) -> Array:
    """Returns one of `arrays` as it comes out of a message that brought them all."""
    record = ArrayRecord({str(place): Array(array) for place, array in enumerate(arrays)})
    message = make_message(
        Envelope("1" * 32, "", 1, 2, 0, "", 1.0, 60.0, "train"), RecordDict({"arrays": record})
    )
    header, blob = Encoder().encode_many([message])[0]
    assert blob is not None
    with blob:
        content = decode(header, blob).content
    return content.array_records["arrays"][str(which)]
