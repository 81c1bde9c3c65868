"""What holds of every row of the tables of attacks."""

from typing import Any

import numpy as np
import pytest

from fedsec.errors import ConfigError
from fedsec_sim.attacks.table import DATA, UPDATES, make_attack, make_poison
from fedsec_sim.attacks.view import View
from tests.simulations.attacks.federation import accuracy


def view(seed: int = 4, byzantine: tuple[int, ...] = (1, 4, 9)) -> View:
    rows = np.random.default_rng(seed).standard_normal((11, 30)).astype(np.float32)
    return View(rows, byzantine, 2, np.random.default_rng(6), lambda x: np.median(x, axis=0))


@pytest.mark.parametrize("name", UPDATES)
def test_only_the_adversaries_rows_are_written(name: str) -> None:
    seen = view()
    before = seen.rows.copy()
    make_attack(name)(seen)
    honest = [i for i in range(11) if i not in seen.byzantine]
    assert np.array_equal(seen.rows[honest], before[honest])
    assert not np.array_equal(seen.rows[list(seen.byzantine)], before[list(seen.byzantine)])
    assert seen.rows.dtype == np.float32


@pytest.mark.parametrize("name", UPDATES)
def test_the_same_view_gives_the_same_rows(name: str) -> None:
    first, second = view(), view()
    make_attack(name)(first)
    make_attack(name)(second)
    assert np.array_equal(first.rows, second.rows, equal_nan=True)


@pytest.mark.parametrize("name", UPDATES)
def test_where_the_adversaries_sit_does_not_matter(name: str) -> None:
    """Honest rows that lie together are read in place, others are gathered: the same comes out."""
    together, apart = view(byzantine=(8, 9, 10)), view(byzantine=(8, 9, 10))
    places = [0, 8, 1, 2, 9, 3, 4, 5, 10, 6, 7]
    spread = View(apart.rows[places], (1, 4, 8), 2, apart.rng, apart.rule)
    make_attack(name)(together)
    make_attack(name)(spread)
    np.testing.assert_allclose(
        spread.rows[[1, 4, 8]], together.rows[[8, 9, 10]], rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize("name", [*UPDATES, *DATA])
def test_each_names_its_paper_and_what_it_knows(name: str) -> None:
    entry = {**UPDATES, **DATA}[name]
    assert entry.paper
    assert entry.knowledge


# Label-sorted digits, ten nodes of which three attack, forty rounds, the plain mean: 0.899 without
# an attack, 0.647 when the three send nothing. At most this with the attack:
HARM = [
    ("sign-flip", {}, 0.20),
    ("scaling", {"factor": 10.0}, 0.20),
    ("reverse", {"length": 100.0}, 0.20),
    ("gaussian", {}, 0.60),
    ("zero", {}, 0.68),
    ("constant", {}, 0.20),
    ("nan", {}, 0.0),
    ("free-rider", {}, 0.68),
    ("ipm", {"epsilon": 5.0}, 0.20),
    ("alie", {"z": 3.0}, 0.20),
    ("optimised-ipm", {}, 0.20),
    ("optimised-alie", {}, 0.20),
    ("mimic", {}, 0.68),
    ("min-max", {"perturbation": "unit"}, 0.20),
    ("min-sum", {"perturbation": "unit"}, 0.25),
    ("fang-krum", {}, 0.55),
    ("fang-trimmed-mean", {}, 0.65),
]


def test_the_mean_learns_without_an_attack() -> None:
    assert accuracy(None, sorted_by_label=True) >= 0.89


@pytest.mark.parametrize(("name", "parameters", "most"), HARM)
@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # the model overflows: that is the harm
def test_the_mean_loses_what_is_stated(name: str, parameters: dict[str, Any], most: float) -> None:
    assert accuracy(make_attack(name, parameters), sorted_by_label=True) <= most


def test_every_attack_but_the_one_for_backdoors_is_in_the_list_of_harm() -> None:
    assert {name for name, _, _ in HARM} == set(UPDATES) - {"model-replacement"}


def test_a_name_or_parameter_that_does_not_exist_is_refused_with_those_that_do() -> None:
    with pytest.raises(ConfigError, match="there is no attack 'alia'; there are: sign-flip"):
        make_attack("alia")
    with pytest.raises(ConfigError, match="alie has no parameter 'epsilon'; allowed: z, knowledge"):
        make_attack("alie", {"epsilon": 1})
    with pytest.raises(ConfigError, match="optimised-alie has no parameter 'base'"):
        make_attack("optimised-alie", {"base": 1})
    with pytest.raises(ConfigError, match="there is no attack 'flip'; there are: label-flip"):
        make_poison("flip")
    with pytest.raises(ConfigError, match=r"pair-flip: .*missing"):
        make_poison("pair-flip")


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("sign-flip", {"scale": 0.0}),
        ("scaling", {"factor": float("inf")}),
        ("reverse", {"length": 0.0}),
        ("gaussian", {"std": -1.0}),
        ("constant", {"value": float("nan")}),
        ("ipm", {"epsilon": -0.1}),
        ("alie", {"z": float("nan")}),
        ("mimic", {"warmup": 0}),
        ("optimised-ipm", {"evaluations": 0}),
        ("free-rider", {"decay": -1.0}),
        ("model-replacement", {"learning_rate": 0.0}),
    ],
)
def test_a_parameter_out_of_range_is_named(name: str, parameters: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=f"{next(iter(parameters))} must be"):
        make_attack(name, parameters)


@pytest.mark.parametrize(
    ("name", "parameters", "message"),
    [
        ("alie", {"z": "x"}, "alie: z = 'x': want a valid number"),
        ("mimic", {"warmup": 1.5}, "mimic: warmup = '1.5': want a valid integer"),
        ("min-max", {"perturbation": "far"}, "want 'unit', 'std' or 'sign'"),
        ("pair-flip", {"source": 1}, "pair-flip: target is missing"),
    ],
)
def test_a_parameter_of_another_type_is_named(
    name: str, parameters: dict[str, Any], message: str
) -> None:
    make = make_poison if name in DATA else make_attack
    with pytest.raises(ConfigError, match=message):
        make(name, parameters)


@pytest.mark.parametrize("byzantine", [(), (1, 1), (2, 1), (-1,), (11,), tuple(range(11))])
def test_a_view_checks_who_the_adversaries_are(byzantine: tuple[int, ...]) -> None:
    with pytest.raises(ConfigError):
        view(byzantine=byzantine)
