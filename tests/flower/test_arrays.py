"""numpy in Flower's arrays: the same bytes as Flower's own, and nothing but those accepted."""

import math

import numpy as np
import pytest
from flwr.app import Array
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from fedsec.flower.arrays import pack, unpack
from fedsec.vectors import FIXED, FLOATS, AnyArray

SOUND = pack(np.arange(6, dtype=np.float32).reshape(2, 3))

any_array = st.sampled_from(sorted(FLOATS | FIXED)).flatmap(
    lambda dtype: npst.arrays(dtype, npst.array_shapes(min_dims=0, max_dims=4, min_side=0))
)


@given(any_array)
def test_it_is_flowers_own_form_and_comes_back(array: AnyArray) -> None:
    packed = pack(array)
    assert packed == Array(array)
    back = unpack(packed)
    assert (back.dtype, back.shape) == (array.dtype, array.shape)
    np.testing.assert_array_equal(back, array)
    assert not back.flags.writeable


@pytest.mark.parametrize(
    "array",
    [
        np.arange(6, dtype=np.float32).reshape(2, 3).T,
        np.asfortranarray(np.arange(6, dtype=np.float32).reshape(2, 3)),
        np.arange(6, dtype=">f4"),
        np.arange(12, dtype=np.int64)[::2],
    ],
)
def test_other_layouts_are_made_plain(array: AnyArray) -> None:
    np.testing.assert_array_equal(unpack(pack(array)), array)


def test_any_buffer_will_do() -> None:
    array = Array("float32", (2, 3), "numpy.ndarray", SOUND.data)
    array.data = memoryview(SOUND.data)  # type: ignore[assignment]  # as a codec without copies does
    np.testing.assert_array_equal(unpack(array), unpack(SOUND))


@pytest.mark.parametrize(
    ("field", "value", "sentence"),
    [
        ("stype", "pickle", "serialised as 'pickle'"),
        ("dtype", "object", "dtype 'object'; allowed: bool, float16"),
        ("dtype", "complex64", "dtype 'complex64'"),
        ("dtype", "float64", "134 bytes are too few|not a .npy file of float64"),
        ("dtype", "int32", "not a .npy file of int32"),
        ("shape", (3, 2), r"not a .npy file of float32 \(3, 2\)"),
        ("shape", (2**60, 2**60), "are too few for float32"),
        ("shape", (-1, -6), r"shape \(-1, -6\)"),
        ("shape", (1,) * 33, "shape"),
        ("shape", (2.0, 3), "shape"),
        ("shape", (True, 6), "shape"),
        ("data", SOUND.data[:-1], "not a .npy file"),
        ("data", SOUND.data + b"x", "not a .npy file"),
        ("data", b"", "0 bytes are too few"),
        ("data", SOUND.data.replace(b"False", b"True "), "not a .npy file"),
        ("data", SOUND.data.replace(b"<f4", b"|O8"), "not a .npy file"),
        ("data", b"\x80\x04" + SOUND.data[2:], "not a .npy file"),
    ],
)
def test_anything_else_is_refused(field: str, value: object, sentence: str) -> None:
    array = Array(SOUND.dtype, SOUND.shape, SOUND.stype, SOUND.data)
    setattr(array, field, value)
    with pytest.raises(ValueError, match=sentence):
        unpack(array)


@given(st.data())
def test_a_changed_byte_of_the_header_is_never_accepted(data: st.DataObject) -> None:
    size = math.prod(SOUND.shape) * 4
    at = data.draw(st.integers(0, len(SOUND.data) - size - 1))
    flip = data.draw(st.integers(1, 255))
    changed = bytearray(SOUND.data)
    changed[at] ^= flip
    with pytest.raises(ValueError, match=r"not a \.npy file"):
        unpack(Array(SOUND.dtype, SOUND.shape, SOUND.stype, bytes(changed)))
