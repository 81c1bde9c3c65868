"""An array that was received behaves as Flower's own, and is copied when somebody asks for it."""

import copy
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord
from numpy.typing import NDArray

from fedsec.flower.arrays import unpack
from fedsec.flwr_arrays import Body, ReceivedArray, body_of
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
