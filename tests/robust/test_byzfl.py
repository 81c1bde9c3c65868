"""A second opinion: the library byzfl 0.0.11, where it defines a rule as we do or can be told to.

Where its definitions differ from the papers', and so from our defaults:
Krum and Multi-Krum sum the distances to n-f-1 others (the paper: n-f-2), Multi-Krum averages n-f rows
(the paper proves n-f-2); its geometric median takes three steps with nu = 0.1; its CAF makes one power
step from a random start where ours takes the exact spectrum; of equally good sets its MDA takes the
first, ours the first that its search meets. NaN or infinite rows spoil many of its rules.
"""

import importlib
import importlib.util
import itertools
import sys
import types
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from fedsec.robust import (
    Arc,
    CenteredClipping,
    Clip,
    GeometricMedian,
    Krum,
    Meamed,
    Mean,
    Median,
    MinimumDiameter,
    Monna,
    MultiKrum,
    Nnm,
    Pipeline,
    TrimmedMean,
)

if importlib.util.find_spec("byzfl") is None:
    pytest.skip("byzfl is not installed: pip install -e '.[dev]'", allow_module_level=True)

Rows = NDArray[np.float32]
SIZES = [(10, 2), (20, 4), (26, 5), (51, 10)]


def aggregators() -> Any:
    """Its rules alone: the package as a whole imports torchvision and draws plots."""
    if "byzfl" not in sys.modules:
        spec = importlib.util.find_spec("byzfl")
        assert spec is not None
        package = types.ModuleType("byzfl")
        package.__path__ = list(spec.submodule_search_locations or ())
        sys.modules["byzfl"] = package
    return importlib.import_module("byzfl.aggregators")


def rows_of(n: int, d: int = 2000, seed: int = 1) -> Rows:
    return np.random.default_rng(seed).normal(size=(n, d)).astype(np.float32)


def theirs(name: str, rows: Rows, f: int, before: str | None = None) -> Rows:
    b = aggregators()
    made = {
        "mean": b.Average,
        "median": b.Median,
        "trimmed mean": lambda: b.TrMean(f),
        "meamed": lambda: b.Meamed(f),
        "krum": lambda: b.Krum(f),
        "multi-krum": lambda: b.MultiKrum(f),
        "geometric median": lambda: b.GeometricMedian(nu=0.1, T=3),
        "centred clipping": lambda: b.CenteredClipping(L=3, tau=10.0),
        "monna": lambda: b.MoNNA(f),
    }[name]()
    tensor = torch.from_numpy(rows.astype(np.float64))  # where float32 does not decide
    if before is not None:
        tensor = {"nnm": b.NNM(f), "arc": b.ARC(f), "clip": b.Clipping(c=20.0)}[before](tensor)
    found: Rows = made(tensor).numpy()
    return found


def ours(name: str, rows: Rows, f: int, before: str | None = None) -> Rows:
    n = len(rows)
    rule = {
        "mean": Mean(),
        "median": Median(),
        "trimmed mean": TrimmedMean(f),
        "meamed": Meamed(f),
        "krum": Krum(f, neighbours=n - f - 1),
        "multi-krum": MultiKrum(f, keep=n - f, neighbours=n - f - 1),
        "geometric median": GeometricMedian(f, smoothing=0.1, iterations=3),
        "centred clipping": CenteredClipping(f, radius=10.0, iterations=3),
        "monna": Monna(f, trusted=0),
    }[name]
    stages = {None: (), "nnm": (Nnm(f),), "arc": (Arc(f),), "clip": (Clip(20.0),)}[before]
    found: Rows = Pipeline(rule, stages)(rows).vector
    return found


@pytest.mark.parametrize(("n", "f"), SIZES)
@pytest.mark.parametrize(
    "name",
    [
        "mean", "median", "trimmed mean", "meamed", "krum", "multi-krum", "geometric median",
        "centred clipping", "monna",
    ],
)  # fmt: skip
def test_rules_agree(name: str, n: int, f: int) -> None:
    rows = rows_of(n)
    wanted = theirs(name, rows, f)
    np.testing.assert_allclose(ours(name, rows, f), wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("n", "f"), SIZES)
@pytest.mark.parametrize("before", ["nnm", "arc", "clip"])
@pytest.mark.parametrize("name", ["mean", "median", "trimmed mean", "krum", "geometric median"])
def test_pre_aggregations_agree(name: str, before: str, n: int, f: int) -> None:
    rows = rows_of(n) * np.linspace(0.5, 1.5, n, dtype=np.float32)[:, None]
    wanted = theirs(name, rows, f, before)
    np.testing.assert_allclose(ours(name, rows, f, before), wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("seed", range(8))
def test_minimum_diameters_agree(seed: int) -> None:
    """Of sets with the same diameter either may be taken; the diameters are the same."""
    n, f = 10, 3
    rows = rows_of(n, d=6, seed=seed).astype(np.float64)
    found = MinimumDiameter(f)(rows)
    assert found.weights is not None
    their = aggregators().MDA(f)(torch.from_numpy(rows)).numpy()
    sets = [list(kept) for kept in itertools.combinations(range(n), n - f)]
    (chosen,) = [kept for kept in sets if np.allclose(rows[kept].mean(axis=0), their, atol=1e-5)]
    mine = np.flatnonzero(found.weights).tolist()
    assert mine in sets
    assert diameter(rows[mine]) == diameter(rows[chosen])


def diameter(rows: NDArray[np.float64]) -> float:
    return max(float(np.linalg.norm(a - b)) for a, b in itertools.combinations(rows, 2))


@pytest.mark.parametrize("n", [30, 100])
def test_near_rows_far_from_the_origin_they_tell_apart_by_rounding_and_we_do_not(n: int) -> None:
    """Spread 1e-4 of what all rows have in common, as where whole models are handed in."""
    wrong = 0
    for seed in range(3):
        rng = np.random.default_rng(seed)
        spread = rng.normal(size=(n, 20_000)) * np.linspace(1, 2, n)[:, None]
        rows = (rng.normal(size=20_000) + 1e-4 * spread).astype(np.float32)
        f = n // 5
        right = rows[krum_pick(rows.astype(np.float64), n - f - 1)]
        np.testing.assert_array_equal(Krum(f, neighbours=n - f - 1)(rows).vector, right)
        wrong += not np.array_equal(aggregators().Krum(f)(torch.from_numpy(rows)).numpy(), right)
    assert wrong >= 2


def krum_pick(rows: NDArray[np.float64], neighbours: int) -> int:
    gaps = np.array([((rows - row) ** 2).sum(axis=1) for row in rows])
    return int(np.sort(gaps, axis=1)[:, 1 : neighbours + 1].sum(axis=1).argmin())


def test_a_row_that_is_not_finite_spoils_theirs_and_not_ours() -> None:
    rows = rows_of(20)
    rows[3] = np.nan
    their = aggregators().Median()(torch.from_numpy(rows)).numpy()
    assert not np.isfinite(their).all()
    mine = Median()(rows)
    assert np.isfinite(mine.vector).all()
    assert [suspect.row for suspect in mine.suspects] == [3]
