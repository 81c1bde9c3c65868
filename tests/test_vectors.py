"""Flattening and its inverse, for every mix of arrays; norms; the finite check."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from fedsec.errors import ConfigError
from fedsec.vectors import FIXED, FLOATS, MAX_SIZE, AnyArray, Layout, Slot, is_finite, norm

MODEL: dict[str, AnyArray] = {
    "weight": np.arange(6, dtype=np.float32).reshape(2, 3),
    "steps": np.array(7, np.int64),
    "bias": np.array([8.0], np.float64),
    "scale": np.array(9.0, np.float16),
    "empty": np.zeros((0, 3), np.float32),
}

arrays = st.dictionaries(
    st.text(max_size=5),
    st.sampled_from(sorted(FLOATS | FIXED)).flatmap(
        lambda dtype: npst.arrays(
            dtype,
            npst.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=3),
            elements=st.integers(0, 1) if dtype == "bool" else st.integers(0, 100),
        )
    ),
    max_size=5,
)


def test_the_order_is_the_mappings() -> None:
    layout = Layout.of(MODEL)
    assert layout.size == 8
    np.testing.assert_array_equal(layout.flatten(MODEL), [0, 1, 2, 3, 4, 5, 8, 9])
    shuffled = dict(reversed(MODEL.items()))
    np.testing.assert_array_equal(layout.flatten(shuffled), layout.flatten(MODEL))


@given(arrays)
def test_there_and_back(model: dict[str, AnyArray]) -> None:
    layout = Layout.of(model)
    vector = layout.flatten(model)
    back = layout.unflatten(vector) | layout.fixed(model)
    assert back.keys() == model.keys()
    for name, array in model.items():
        assert (back[name].dtype, back[name].shape) == (array.dtype, array.shape)
        np.testing.assert_array_equal(back[name], array)
        assert not np.shares_memory(back[name], vector)
    assert Layout.from_json(layout.to_json()) == layout


def test_a_row_of_a_matrix_is_written_in_place() -> None:
    layout = Layout.of(MODEL)
    matrix = np.full((2, layout.size), -1, np.float32)
    assert layout.flatten(MODEL, out=matrix[1]).base is matrix
    assert matrix[0].tolist() == [-1] * layout.size
    assert matrix[1].tolist() == [0, 1, 2, 3, 4, 5, 8, 9]


def test_a_change_costs_no_digits_that_both_models_share() -> None:
    before = {"w": np.array([1e9, 1e-3]), "h": np.array([1.0], np.float16)}
    after = {"w": np.array([1e9 + 2.0**-20, 2e-3]), "h": np.array([1.5], np.float16)}
    layout, row = Layout.of(before), np.empty(3, np.float32)

    assert layout.change(before, after, out=row) is row
    np.testing.assert_allclose(row, [2.0**-20, 1e-3, 0.5], rtol=1e-6)


def test_a_change_that_overflows_is_infinite() -> None:
    before, after = {"w": np.array([-1e308, 0.0])}, {"w": np.array([1e308, 1e39])}
    assert np.isposinf(Layout.of(before).change(before, after)).all()


def test_a_change_between_models_of_other_forms_is_refused() -> None:
    before, after = {"w": np.zeros(2)}, {"w": np.zeros(3)}
    with pytest.raises(ConfigError, match="shape"):
        Layout.of(before).change(before, after)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"bias": np.zeros((2,), np.float64)}, r"array 'bias' has shape \(2,\), want \(1,\)"),
        ({"bias": np.zeros((1,), np.float32)}, "array 'bias' has dtype float32, want float64"),
        ({"steps": np.array(7, np.int32)}, "array 'steps' has dtype int32, want int64"),
        ({"more": np.zeros(1)}, r"missing \[\], unknown \['more'\]"),
    ],
)
def test_other_arrays_are_refused(change: dict[str, AnyArray], sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        Layout.of(MODEL).flatten(MODEL | change)


def test_missing_arrays_and_wrong_vectors_are_refused() -> None:
    layout = Layout.of(MODEL)
    with pytest.raises(ConfigError, match=r"missing \['bias'"):
        layout.flatten({"weight": MODEL["weight"]})
    with pytest.raises(ConfigError, match=r"out has shape \(3,\), want \(8,\)"):
        layout.flatten(MODEL, out=np.zeros(3, np.float32))
    with pytest.raises(ConfigError, match=r"vector has shape \(9,\), want \(8,\)"):
        layout.unflatten(np.zeros(9, np.float32))


@pytest.mark.parametrize("dtype", ["complex64", "datetime64[s]", "object", "str"])
def test_a_dtype_without_a_mean_is_refused(dtype: str) -> None:
    with pytest.raises(ConfigError, match=r"array 'x' has dtype .*; allowed: bool, float16"):
        Layout.of({"x": np.zeros(1, dtype)})


@pytest.mark.parametrize("shape", [(-1,), (MAX_SIZE, 2)])
def test_impossible_shapes_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ConfigError, match="array 'x' has shape"):
        Slot("x", shape, "float32")


@pytest.mark.parametrize(
    "text",
    ["", "{}", "[1]", '[["a", [1]]]', '[["a", ["b"], "float32"]]', '[["a", [1], "complex64"]]',
     '[["a", [1], "float32"], ["a", [1], "float32"]]', "null", "[" * 100_000],
)  # fmt: skip
def test_what_is_no_layout_is_refused(text: str) -> None:
    if text == "{}":
        assert Layout.from_json(text).slots == ()
        return
    with pytest.raises(ConfigError):
        Layout.from_json(text)


def test_the_json_form_is_fixed() -> None:
    assert json.loads(Layout.of(MODEL).to_json())[1] == ["steps", [], "int64"]


@given(
    npst.arrays(np.float32, st.integers(0, 20), elements=st.floats(width=32)),
)
def test_finite_is_what_numpy_says(vector: AnyArray) -> None:
    assert is_finite(vector) == bool(np.isfinite(vector).all())


@pytest.mark.parametrize("value", [3e38, -3e38, 1e-45, -0.0])
def test_large_and_tiny_entries_are_finite(value: float) -> None:
    assert is_finite(np.full(100, value, np.float32))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("at", [0, 65_535, 65_536, 99_999])
def test_one_bad_entry_among_many_is_seen(value: float, at: int) -> None:
    vector = np.full(100_000, 3e38, np.float32)
    vector[at] = value
    assert not is_finite(vector)


def test_norms_do_not_overflow_and_match_float64() -> None:
    rng = np.random.default_rng(1)
    vector = rng.normal(size=200_001).astype(np.float32)
    assert norm(vector) == pytest.approx(
        float(np.linalg.norm(vector.astype(np.float64))), rel=1e-12
    )
    assert norm(np.full(4, 3e38, np.float32)) == pytest.approx(6e38, rel=1e-6)
    assert norm(np.zeros(0, np.float32)) == 0
