"""Which records are for tests, and how inputs are scaled."""

import numpy as np
import pytest
from sklearn.preprocessing import StandardScaler

from fedsec.data.records import Records
from fedsec.data.scaling import Scaling
from fedsec.data.settings import Test
from fedsec.data.splitting import held_out
from fedsec.errors import DataError


def some(targets: list[float], test: list[bool] | None = None) -> Records:
    inputs = np.zeros((len(targets), 1), np.float32)
    return Records(inputs, np.array(targets), ("a",), None if test is None else np.array(test))


def test_each_class_gives_its_share() -> None:
    records = some([0.0] * 80 + [1.0] * 20)
    mask = held_out(records, Test(fraction=0.25), classes=True)
    assert (mask[:80].sum(), mask[80:].sum()) == (20, 5)


def test_a_draw_is_repeatable_and_follows_the_seed() -> None:
    records = some([0.0, 1.0] * 50)
    one = held_out(records, Test(seed=3), classes=False)
    np.testing.assert_array_equal(one, held_out(records, Test(seed=3), classes=False))
    assert (one != held_out(records, Test(seed=4), classes=False)).any()
    assert one.sum() == 20


def test_a_class_of_two_is_on_both_sides() -> None:
    mask = held_out(some([0.0] * 10 + [1.0, 1.0]), Test(fraction=0.1), classes=True)
    assert mask[10:].sum() == 1


def test_the_files_own_split_counts() -> None:
    mask = held_out(some([0.0, 0.0, 1.0], [True, False, True]), Test(), classes=True)
    assert mask.tolist() == [True, False, True]


def test_a_split_that_leaves_nothing_is_refused() -> None:
    named = Test(column="set", value="t")
    with pytest.raises(
        DataError, match=r'of 2 records none is left to train on, by test\.value = "t'
    ):
        held_out(some([0.0, 1.0], [True, True]), named, classes=True)
    with pytest.raises(
        DataError, match=r"of 1 records none is left to test on, by test.fraction = 0.2"
    ):
        held_out(some([0.0]), Test(), classes=True)


def test_scaling_is_scikit_learns_and_leaves_constants_at_zero() -> None:
    inputs = np.random.default_rng(0).normal(5, 3, (50, 3)).astype(np.float32)
    inputs[:, 1] = 7
    expected = StandardScaler().fit_transform(inputs)
    np.testing.assert_allclose(Scaling.of(inputs)(inputs), expected, atol=2e-6)


def test_images_are_scaled_by_channel() -> None:
    inputs = np.random.default_rng(0).normal(5, 3, (9, 2, 4, 4)).astype(np.float32)
    scaled = Scaling.of(inputs)(inputs)
    np.testing.assert_allclose(scaled.mean(axis=(0, 2, 3)), 0, atol=1e-6)
    np.testing.assert_allclose(scaled.std(axis=(0, 2, 3)), 1, atol=1e-5)
