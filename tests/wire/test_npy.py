"""The .npy reader against numpy itself, in both directions, and against what numpy would evaluate."""

import io
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.lib import format as numpy_format
from numpy.typing import NDArray

from fedsec.errors import ProtocolError
from fedsec.wire import npy
from fedsec.wire.npy import DTYPES, NpyHeader, canonical_body, make_header, parse_header

Anything = NDArray[np.generic]

SHAPES = st.one_of(
    st.just(()),
    st.lists(st.integers(0, 6), min_size=1, max_size=5).map(tuple),
    st.just((1,) * 64),
    st.just((0, 1 << 40)),
)


def saved(array: Anything, version: tuple[int, int] | None = None) -> bytes:
    buffer = io.BytesIO()
    if version is None:
        np.save(buffer, array, allow_pickle=False)
    else:
        numpy_format.write_array(buffer, array, version=version, allow_pickle=False)
    return buffer.getvalue()


def blob(text: str, body: bytes = b"", *, magic: bytes = b"\x93NUMPY\x01\x00") -> bytes:
    """Returns a .npy blob with any header."""
    return magic + len(text).to_bytes(2, "little") + text.encode("latin1") + body


def test_the_whitelist_is_numpys_own_names() -> None:
    for descr, dtype in DTYPES.items():
        numpys = np.dtype(descr)
        assert (numpys.str, str(numpys), numpys.itemsize) == (descr, dtype.name, dtype.itemsize)
        assert dtype.descr == descr
        assert not numpys.hasobject


@given(st.sampled_from(sorted(DTYPES)), SHAPES)
def test_the_header_is_byte_for_byte_numpys(descr: str, shape: tuple[int, ...]) -> None:
    array = np.zeros(shape, dtype=descr)
    header = make_header(DTYPES[descr], shape)
    assert header + array.tobytes() == saved(array)
    assert parse_header(header + array.tobytes()) == NpyHeader(DTYPES[descr], shape, len(header))


@given(
    st.sampled_from(sorted(DTYPES)),
    SHAPES,
    st.tuples(st.sampled_from("CF"), st.sampled_from("<>")),
    st.sampled_from([(1, 0), (2, 0), None]),
    st.randoms(use_true_random=False),
)
def test_every_array_of_numpys_is_read_and_made_canonical(
    descr: str,
    shape: tuple[int, ...],
    layout: tuple[str, str],
    version: tuple[int, int] | None,
    random: object,
) -> None:
    """Bit by bit, NaN payloads included: the body is random."""
    count = math.prod(shape) * DTYPES[descr].itemsize
    content = random.randbytes(count)
    if descr == "|b1":
        content = bytes(byte & 1 for byte in content)
    native = np.frombuffer(content, dtype=descr).reshape(shape)
    order, endian = layout
    array = np.asarray(native, order=order)
    if endian == ">":
        array = array.byteswap().view(array.dtype.newbyteorder(">"))
    data = saved(array, version)
    header = parse_header(data)
    assert (header.dtype, header.shape) == (DTYPES[descr], shape)
    assert bytes(canonical_body(data, header)) == content


def test_a_canonical_body_is_not_copied() -> None:
    data = saved(np.arange(6.0).reshape(2, 3))
    body = canonical_body(data, parse_header(data))
    assert isinstance(body, memoryview)
    assert body.obj is data


GOOD = "{'descr': '<f4', 'fortran_order': False, 'shape': (2,), }\n"

BAD_HEADERS = [
    "",
    "\n",
    "{}\n",
    GOOD[:-1],
    GOOD + "\n",
    "\n" + GOOD,
    " " + GOOD,
    GOOD.replace("'", '"'),
    GOOD.replace("False", "0"),
    GOOD.replace("False", "None"),
    GOOD.replace(", }", "}"),
    GOOD.replace(" 'shape'", "'shape'"),
    GOOD.replace("'descr': '<f4', ", ""),
    GOOD.replace("(2,)", "2"),
    GOOD.replace("(2,)", "(2)"),
    GOOD.replace("(2,)", "[2]"),
    GOOD.replace("(2,)", "(2,,)"),
    GOOD.replace("(2,)", "(,)"),
    GOOD.replace("(2,)", "(2, )"),
    GOOD.replace("(2,)", "(-2,)"),
    GOOD.replace("(2,)", "(+2,)"),
    GOOD.replace("(2,)", "(02,)"),
    GOOD.replace("(2,)", "(2L,)"),
    GOOD.replace("(2,)", "(2.0,)"),
    GOOD.replace("(2,)", "(1_0,)"),
    GOOD.replace("(2,)", "(1,2)"),
    GOOD.replace("(2,)", "(\xb2,)"),  # a digit to str.isdigit
    GOOD.replace("(2,)", "(" + "9" * 20 + ",)"),
    GOOD.replace("(2,)", "(__import__('os').system('true'),)"),
    GOOD.replace("'<f4'", "[('a', '<f4')]"),
    GOOD.replace("'<f4'", "('<f4', (2,))"),
    GOOD.replace("<f4", "f4"),
    GOOD.replace("<f4", "=f4"),
    GOOD.replace("<f4", "<f4\0"),
    GOOD.replace("<f4", "<f4, <f4"),
    GOOD.replace("<f4", "<M8[ns]"),
    GOOD.replace(", }", ", 'more': 1, }"),
    GOOD + " " * 70_000,
]


@pytest.mark.parametrize("text", BAD_HEADERS)
def test_a_header_that_numpy_would_not_write_is_refused(text: str) -> None:
    data = blob(text[:65535], bytes(8))
    with pytest.raises(ProtocolError) as caught:
        parse_header(data)
    assert caught.value.code == "bad-npy"


@pytest.mark.parametrize(
    "descr",
    [
        "|O",
        "|O8",
        "<O8",
        "|V8",
        "|S5",
        "<U5",
        "<M8",
        "<m8",
        "<f16",
        "<c32",
        "<f1",
        "<i16",
        "<b1",
        "|f4",
        "<i1",
        "<u1",
        "|i4",
        ">b1",
        "|a5",
        "<F4",
        "<f0",
        "<f",
    ],
)
def test_any_other_kind_of_element_is_refused(descr: str) -> None:
    with pytest.raises(ProtocolError) as caught:
        parse_header(blob(GOOD.replace("<f4", descr), bytes(8)))
    assert caught.value.code == "bad-dtype"


def test_an_array_of_objects_is_refused_unopened() -> None:
    class Trap:
        def __reduce__(self) -> tuple[object, ...]:
            return (pytest.fail, ("it was unpickled",))

    buffer = io.BytesIO()
    np.save(buffer, np.array([Trap()], dtype=object), allow_pickle=True)
    with pytest.raises(ProtocolError, match=r"bad-dtype: elements of type '\|O'"):
        parse_header(buffer.getvalue())


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "must be what numpy.save writes"),
        (b"\x93NUMPY\x01\x00\x00", "must be what numpy.save writes"),
        (b"PK\x03\x04" + bytes(20), "must be what numpy.save writes"),
        (b"\x80\x04\x95" + bytes(20), "must be what numpy.save writes"),
        (b"\x93NUMPX\x01\x00" + bytes(20), "must be what numpy.save writes"),
        (blob(GOOD, bytes(8), magic=b"\x93NUMPY\x03\x00"), "format version 3.0"),
        (blob(GOOD, bytes(8), magic=b"\x93NUMPY\x00\x00"), "format version 0.0"),
        (blob(GOOD, bytes(8), magic=b"\x93NUMPY\x01\x01"), "format version 1.1"),
        (blob(GOOD, bytes(8))[:40], "longer than can be"),
        (b"\x93NUMPY\x02\x00" + (1 << 31).to_bytes(4, "little") + bytes(99), "longer than can be"),
        (b"\x93NUMPY\x02\x00" + (10_001).to_bytes(4, "little") + bytes(20_000), "longer than can"),
        (blob(GOOD, bytes(7)), "has 8 bytes, got 7"),
        (blob(GOOD, bytes(9)), "has 8 bytes, got 9"),
        (blob(GOOD, b""), "has 8 bytes, got 0"),
        (blob(GOOD.replace("(2,)", "(0,)"), bytes(1)), "has 0 bytes, got 1"),
        (blob(GOOD.replace("(2,)", "()"), bytes(8)), "has 4 bytes, got 8"),
        (blob(GOOD.replace("(2,)", "(1000000, 1000000)"), bytes(8)), "has 4000000000000 bytes"),
    ],
)
def test_another_format_or_length_is_refused(data: bytes, says: str) -> None:
    with pytest.raises(ProtocolError, match=says) as caught:
        parse_header(data)
    assert caught.value.code == "bad-npy"


@pytest.mark.parametrize(
    "shape",
    [
        (1,) * 65,
        (9_999_999_999_999_999_999,),
        (1 << 61, 1),
        (1 << 31, 1 << 31),
        (1 << 62, 4, 0),  # empty, and yet numpy cannot make it
        (65536,) * 4,  # the product is 0 modulo 2^64
    ],
)
def test_a_shape_that_cannot_be_is_refused(shape: tuple[int, ...]) -> None:
    text = GOOD.replace("(2,)", repr(shape))
    with pytest.raises(ProtocolError) as caught:
        parse_header(blob(text, bytes(8)))
    assert caught.value.code == "bad-shape"


def test_the_largest_shape_is_the_one_that_numpy_has_too() -> None:
    f4 = DTYPES["<f4"]
    assert npy.body_length(f4, ((1 << 61) - 1, 0)) == 0
    np.zeros(((1 << 61) - 1, 0), dtype="<f4")
    with pytest.raises(ProtocolError):
        npy.body_length(f4, (1 << 61, 0))
    with pytest.raises(ValueError, match=r"too (big|large)"):
        np.zeros((1 << 61, 0), dtype="<f4")


def test_a_huge_header_does_not_hang() -> None:
    text = (
        "{'descr': '<f4', 'fortran_order': False, 'shape': (" + "1, " * 3000 + "1), }" + " " * 900
    )
    with pytest.raises(ProtocolError):
        parse_header(blob(text, bytes(4)))


def test_a_truth_value_is_zero_or_one() -> None:
    data = saved(np.array([0, 1, 2], dtype=np.uint8).view(bool))
    with pytest.raises(ProtocolError, match="truth values of an array are not all 0 or 1"):
        canonical_body(data, parse_header(data))
