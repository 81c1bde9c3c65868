"""Lines drawn in characters: whatever the values are, there is a drawing."""

import math

import pytest

from fedsec.commands.characters import drawing


@pytest.mark.parametrize(
    ("values", "left_out"),
    [
        ([0.5, math.inf, 0.25], 1),
        ([0.5, math.nan, -math.inf], 2),
        ([math.nan], 1),
        ([1e308, -1e308, 1.0], 2),
        ([1e300, -1e300, 0.0], 0),
        ([], 0),
    ],
)
def test_values_that_cannot_be_drawn_are_left_out_and_counted(
    values: list[float], left_out: int
) -> None:
    made = drawing("loss", {"": dict(enumerate(values)), "b": {0: 1.0}}, width=60, height=8)
    assert ("not finite" in made) is bool(left_out)
    assert not left_out or f"loss ({left_out} not finite, left out)" in made
    assert len(made.splitlines()) >= 8
