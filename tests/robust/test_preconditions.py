"""On how many rows each rule and pre-aggregation insists, as its table says and as it does."""

import math
import re
from collections.abc import Callable

import pytest

from fedsec.errors import ConfigError
from fedsec.robust import (
    PREMIXES,
    RULES,
    Arc,
    Bucketing,
    Bulyan,
    Caf,
    CenteredClipping,
    Cge,
    Clip,
    Dnc,
    FlTrust,
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
    Rule,
    TrimmedMean,
)

MADE: dict[str, Callable[[int], Rule | Pipeline]] = {
    "mean": Mean,
    "median": lambda _: Median(),
    "trimmed-mean": TrimmedMean,
    "meamed": Meamed,
    "krum": Krum,
    "multi-krum": MultiKrum,
    "bulyan": Bulyan,
    "geometric-median": GeometricMedian,
    "minimum-diameter": MinimumDiameter,
    "monna": lambda f: Monna(f, trusted=0),
    "centered-clipping": lambda f: CenteredClipping(f, radius=1.0),
    "cge": Cge,
    "caf": Caf,
    "dnc": lambda f: Dnc(f, iterations=2, filter_factor=0.7),
    "fltrust": FlTrust,
    "nnm": lambda f: Pipeline(Median(), (Nnm(f),)),
    "bucketing": lambda f: Pipeline(Median(), (Bucketing(3, f),)),
    "clip": lambda _: Pipeline(Median(), (Clip(1.0),)),
    "arc": lambda f: Pipeline(Median(), (Arc(f),)),
}


def promised(text: str, n: int, f: int) -> bool:
    """The precondition as the table writes it: conditions on n and f, and words."""
    known = {"n": n, "f": f, "s": 3, "c": 0.7, "iterations": 2, "ceil": math.ceil}
    for clause in re.sub(r"\(f < n/10 advised\)", "", text).split(","):
        if re.search(r"[<>]", clause) and "keep" not in clause:
            condition = re.sub(r"(\d|c) ?([fns])(?![a-z])", r"\1*\2", clause)
            if not eval(condition, {"__builtins__": {}}, known):  # noqa: S307 - our own table
                return False
    return True


@pytest.mark.parametrize("name", [*RULES, *PREMIXES])
def test_the_precondition_in_the_table_is_the_one_that_is_enforced(name: str) -> None:
    entry = RULES[name] if name in RULES else PREMIXES[name]
    for f in range(1 if name == "median" else 6):
        for n in range(1, 40):
            made = MADE[name](f)
            if promised(entry.precondition, n, f):
                made.check(n)
            else:
                with pytest.raises(ConfigError, match=f"{n} updates are too few"):
                    made.check(n)


@pytest.mark.parametrize("f", range(4))
def test_the_least_n_of_each_paper(f: int) -> None:
    for rule, least in [
        (Mean(f), f + 1),
        (TrimmedMean(f), 2 * f + 1),
        (Krum(f), 2 * f + 3),
        (MultiKrum(f), 2 * f + 3),
        (Bulyan(f), 4 * f + 3),
        (Dnc(f, iterations=3, filter_factor=1.5), max(3 * math.ceil(1.5 * f) + 1, 2 * f + 1)),
        (Pipeline(Median(), (Bucketing(3, f),)), 6 * f + 1),
    ]:
        rule.check(least)
        if least > 1:
            with pytest.raises(ConfigError, match="too few"):
                rule.check(least - 1)


def test_a_share_of_the_rows_is_not_one_less_by_rounding() -> None:
    assert 0.29 * 100 < 29
    assert TrimmedMean(0.29).f(100) == 29
    assert TrimmedMean(0.29).f(99) == 28
