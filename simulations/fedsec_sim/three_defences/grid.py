"""Which cells the map has, in the order in which they are worth computing."""

from collections.abc import Iterator
from itertools import product

from fedsec.plan.robust import RuleName
from fedsec_sim.three_defences.cell import Cell, Placement

RULES: tuple[RuleName, ...] = ("median", "trimmed-mean", "geometric-median", "centered-clipping")
EPSILONS: tuple[float | None, ...] = (None, 8.0, 50.0)
PERCENTS = (0, 1, 2, 5)
FACTORS = (10, 100)
PLACEMENTS: tuple[Placement, ...] = ("worst", "random")
SIZES = (5, 10)
FRONTIER_NODES, FRONTIER_EPSILON = 1000, 8.0
WAYS: tuple[tuple[RuleName, int, str], ...] = (
    ("median", 5, "plain"),
    ("caf", 20, "few-waves"),
    ("caf", 20, "three-waves"),
    ("caf", 20, "two-waves"),
    ("caf", 20, "two-rounds"),
    ("caf", 10, "two-waves"),
    ("cge", 20, "few-rounds"),
    ("caf", 20, "few-rounds"),
    ("caf", 20, "plain"),
    ("cge", 20, "plain"),
    ("cge", 20, "few-waves"),
    ("caf", 20, "waves"),
    ("median", 20, "plain"),
    ("median", 20, "few-waves"),
    ("caf", 10, "few-waves"),
    ("caf", 5, "plain"),
    ("cge", 5, "plain"),
    ("centered-clipping", 20, "plain"),
    ("median", 5, "few-rounds"),
    ("median", 5, "many-rounds"),
    ("median", 5, "waves"),
    ("median", 5, "local-work"),
    ("median", 5, "momentum"),
)
FURTHER: tuple[tuple[RuleName, int, str, float | None], ...] = (
    ("cge", 5, "plain", None),
    ("caf", 20, "few-waves", 8.0),
    ("caf", 20, "three-waves", 8.0),
    ("caf", 20, "two-waves", 8.0),
    ("caf", 5, "few-waves", 8.0),
    ("caf", 5, "plain", 50.0),
    ("caf", 20, "plain", 50.0),
)
"""What does well there, with its epsilon, for other shares of hostile nodes."""
TUNED = (3, 30)
"""Lengths that an attacker may try who knows what lengths the map was made for."""
"""Rule, nodes of a group, recipe: one thing changed at a time, then together."""


def cells() -> list[Cell]:
    """Returns all of them, each once."""
    made: dict[str, Cell] = {}
    for cell in _ordered():
        made.setdefault(cell.key, cell)
    return list(made.values())


def _ordered() -> Iterator[Cell]:
    """Yields cells: what is required first, the frontier next, the slow ones last."""
    yield from table("digits", 100)
    yield from frontier()
    yield from table("digits", 1000, placements=("worst",), sizes=(5, 1000), percents=(0, 2))
    yield from further()
    yield from table("mnist", 100, placements=("worst",), factors=(100,))
    yield from table("digits", 1000, placements=("worst",))
    yield from table("digits", 1000)
    yield from table("mnist", 100)
    yield from table("mnist", 1000, placements=("worst",))
    yield from table("mnist", 1000)


def table(
    data: str,
    nodes: int,
    *,
    placements: tuple[Placement, ...] = PLACEMENTS,
    factors: tuple[int, ...] = FACTORS,
    percents: tuple[int, ...] = PERCENTS,
    sizes: tuple[int, ...] = (),
    recipe: str = "plain",
) -> Iterator[Cell]:
    """Yields the cells of a part of the map, learned by one recipe."""
    wanted = sizes or (*SIZES, 1, nodes)
    for epsilon, size, percent in product(EPSILONS, wanted, percents):
        rules: tuple[RuleName, ...] = ("mean",) if size == nodes else RULES
        hostile = nodes * percent // 100
        attacks: list[tuple[int, Placement]] = list(product(factors, placements))
        if not hostile:
            attacks = [(0, "none")]
        elif size in {1, nodes}:  # it makes no difference who sits where
            attacks = [(factor, "worst") for factor in factors]
        for (factor, placement), rule in product(attacks, rules):
            yield Cell(data, nodes, epsilon, hostile, factor, placement, size, rule, recipe)


def frontier() -> Iterator[Cell]:
    """Yields what may help at 1,000 nodes and epsilon 8: one thing at a time, then together."""
    share = FRONTIER_NODES // 50
    lengths = [((100, 10, 0), WAYS), (TUNED, [way for way in WAYS if way[0] in {"caf", "cge"}])]
    for factors, ways in lengths:
        for (rule, size, recipe), factor in product(ways, factors):
            yield Cell(
                data="digits",
                nodes=FRONTIER_NODES,
                epsilon=FRONTIER_EPSILON,
                hostile=share if factor else 0,
                factor=factor,
                placement="worst" if factor else "none",
                size=size,
                rule=rule,
                recipe=recipe,
            )


def further() -> Iterator[Cell]:
    """Yields what does well at the frontier, for other shares of hostile nodes."""
    for (rule, size, recipe, epsilon), percent in product(FURTHER, PERCENTS):
        hostile = FRONTIER_NODES * percent // 100
        for factor in FACTORS if hostile else (0,):
            place: Placement = "worst" if hostile else "none"
            yield Cell(
                "digits", FRONTIER_NODES, epsilon, hostile, factor, place, size, rule, recipe
            )
