"""Which cells the map has, in the order in which they are worth computing."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product

from fedsec.plan.robust import RuleName
from fedsec_sim.three_defences.cell import Before, Cell, Placement
from fedsec_sim.three_defences.recipes import SEED

RULES: tuple[RuleName, ...] = ("median", "trimmed-mean", "geometric-median", "centered-clipping")
EPSILONS: tuple[float | None, ...] = (None, 8.0, 50.0)
PERCENTS = (0, 1, 2, 5)
FACTORS = (10, 100)
PLACEMENTS: tuple[Placement, ...] = ("worst", "random")
SIZES = (5, 10)
DATA, NODES = ("digits", "mnist"), (100, 1000)
FRONTIER_NODES, FRONTIER_EPSILON, FRONTIER_PERCENT = 1000, 8.0, 2
TUNED = (3, 30)
"""Lengths that an attacker may try who knows what lengths the map was made for."""
SEEDS = tuple(range(SEED, SEED + 5))


@dataclass(frozen=True, slots=True)
class Way:
    """How rows are made, combined and learned from.

    Attributes:
        rule: What is made of the rows.
        size: Nodes of a group.
        recipe: How it is learned.
        before: What is done to the rows before the rule.
    """

    rule: RuleName
    size: int
    recipe: str = "plain"
    before: Before = ""

    @property
    def words(self) -> str:
        """What it is, in a few words."""
        rule = f"{self.before} + {self.rule}" if self.before else self.rule
        return f"{rule}, groups of {self.size}, {self.recipe}"

    @classmethod
    def of(cls, cell: Cell) -> "Way":
        """Returns that of a cell."""
        return cls(cell.rule, cell.size, cell.recipe, cell.before)


HEADLINE = Way("caf", 20, "few-waves")
"""What comes nearest to all three at epsilon 8."""

SEEDED = (
    HEADLINE,
    Way("cge", 20),
    Way("caf", 20, "waves"),
    Way("caf", 20, "few-waves", "nnm"),
)
"""Computed with several seeds."""

WAYS: tuple[Way, ...] = (
    Way("median", 5),
    HEADLINE,
    Way("caf", 24, "few-waves"),
    Way("caf", 20, "three-waves"),
    Way("caf", 20, "two-waves"),
    Way("caf", 20, "annealed"),
    Way("caf", 20, "momentum"),
    Way("caf", 20, "local-work"),
    Way("caf", 20, "few-waves", "nnm"),
    Way("caf", 20, "few-waves", "arc"),
    Way("centered-clipping", 20, "few-waves"),
    Way("centered-clipping", 20),
    Way("caf", 20),
    Way("caf", 20, "few-rounds"),
    Way("caf", 20, "waves"),
    Way("caf", 20, "two-rounds"),
    Way("median", 20),
    Way("median", 20, "few-waves"),
    Way("median", 20, "few-waves", "nnm"),
    Way("cge", 20),
    Way("cge", 20, "few-rounds"),
    Way("cge", 20, "few-waves"),
    Way("caf", 10, "few-waves"),
    Way("caf", 10, "two-waves"),
    Way("caf", 5),
    Way("cge", 5),
    Way("median", 5, "few-rounds"),
    Way("median", 5, "many-rounds"),
    Way("median", 5, "waves"),
    Way("median", 5, "local-work"),
    Way("median", 5, "momentum"),
)
"""At 1,000 nodes and epsilon 8: one thing changed at a time, and together."""

FURTHER: tuple[tuple[Way, float | None], ...] = (
    (HEADLINE, 8.0),
    (Way("caf", 20, "three-waves"), 8.0),
    (Way("caf", 20, "two-waves"), 8.0),
    (Way("caf", 5), 50.0),
    (Way("caf", 20), 50.0),
)
"""What does well there, with its epsilon, for other shares of hostile nodes."""

REMEDIES: tuple[Way, ...] = (
    Way("cge", 5),
    Way("caf", 5),
    Way("median", 5, before="nnm"),
    Way("trimmed-mean", 5, before="nnm"),
    Way("median", 5, before="arc"),
    Way("median", 9),
    Way("median", 5, "many-rounds"),
    Way("median", 5, "small-steps"),
    Way("median", 5, "local-work"),
)
"""Without noise, where the median is led astray by how much honest nodes differ."""


MNIST_WAYS: tuple[Way, ...] = (
    HEADLINE,
    Way("caf", 20, "few-rounds"),
    Way("caf", 20),
    Way("cge", 20, "few-waves"),
    Way("caf", 10, "few-waves"),
    Way("caf", 5),
)
"""With MNIST, eight digits on each of 1,000 nodes: what did well with digits."""

MNIST_FURTHER: tuple[Way, ...] = (HEADLINE, Way("caf", 20), Way("caf", 5))
"""The same at epsilon 50."""

AVERAGING = tuple(way for way in REMEDIES if way.rule == "cge" or way.before == "nnm")
"""Those of them that average what honest nodes differ by."""


def cells() -> list[Cell]:
    """Returns all of them, each once."""
    made: dict[str, Cell] = {}
    for cell in _ordered():
        made.setdefault(cell.key, cell)
    return list(made.values())


def _ordered() -> Iterator[Cell]:
    """Yields cells: what is required first, the frontier next, the slow ones last."""
    yield from table("digits", 100)
    yield from table("digits", 1000, placements=("worst",), sizes=(5, 1000), epsilons=(None,))
    yield from attacked(REMEDIES, None, (5, 0, 2))
    yield from seeds()
    yield from frontier()
    yield from further()
    yield from table("digits", 1000, placements=("worst",), sizes=(5, 10, 1000))
    yield from table("mnist", 100, placements=("worst",), factors=(100,))
    yield from table("digits", 1000, placements=("worst",))
    yield from table("digits", 1000)
    yield from table("mnist", 100)
    yield from attacked(AVERAGING, None, (5, 0, 2), data="mnist")
    yield from mnist_frontier()
    yield from attacked(MNIST_FURTHER, 50.0, PERCENTS, data="mnist")
    yield from seeds((HEADLINE,), "mnist")
    yield from table("mnist", 1000, placements=("worst",))
    yield from table("mnist", 1000)


def table(
    data: str,
    nodes: int,
    *,
    placements: tuple[Placement, ...] = PLACEMENTS,
    factors: tuple[int, ...] = FACTORS,
    sizes: tuple[int, ...] = (),
    epsilons: tuple[float | None, ...] = EPSILONS,
) -> Iterator[Cell]:
    """Yields the cells of a part of the map, learned by the plain recipe."""
    wanted = sizes or (*SIZES, 1, nodes)
    for epsilon, size, percent in product(epsilons, wanted, PERCENTS):
        rules: tuple[RuleName, ...] = ("mean",) if size == nodes else RULES
        hostile = nodes * percent // 100
        attacks: list[tuple[int, Placement]] = list(product(factors, placements))
        if not hostile:
            attacks = [(0, "none")]
        elif size in {1, nodes}:  # it makes no difference who sits where
            attacks = [(factor, "worst") for factor in factors]
        for (factor, placement), rule in product(attacks, rules):
            yield Cell(data, nodes, epsilon, hostile, factor, placement, size, rule)


def setup(cell: Cell) -> str:
    """Returns what is seen and what is made of it, in a few words."""
    if cell.size == 1:
        return f"each update, {cell.rule}"
    if cell.size == cell.nodes:
        return "one sum, mean"
    return f"groups of {cell.size}, {cell.rule}"


def frontier() -> Iterator[Cell]:
    """Yields what may help at 1,000 nodes and epsilon 8."""
    yield from attacked(WAYS, FRONTIER_EPSILON, (FRONTIER_PERCENT, 0))
    spectral = [way for way in WAYS if way.rule in {"caf", "cge"}]
    yield from attacked(spectral, FRONTIER_EPSILON, (FRONTIER_PERCENT,), factors=TUNED)


def mnist_frontier() -> Iterator[Cell]:
    """Yields the same with MNIST, for all shares of hostile nodes."""
    yield from attacked(MNIST_WAYS, FRONTIER_EPSILON, PERCENTS, data="mnist")
    yield from attacked(
        MNIST_WAYS, FRONTIER_EPSILON, (FRONTIER_PERCENT,), factors=TUNED, data="mnist"
    )


def further() -> Iterator[Cell]:
    """Yields what does well at the frontier, for other shares of hostile nodes."""
    for way, epsilon in FURTHER:
        yield from attacked([way], epsilon, PERCENTS)


def seeds(ways: Sequence[Way] = SEEDED, data: str = "digits") -> Iterator[Cell]:
    """Yields the best ways with several seeds."""
    for way, seed in product(ways, SEEDS):
        factors = (*FACTORS, *TUNED) if way == HEADLINE else FACTORS
        yield from attacked(
            [way], FRONTIER_EPSILON, (FRONTIER_PERCENT, 0), factors=factors, seed=seed, data=data
        )


def attacked(
    ways: Sequence[Way],
    epsilon: float | None,
    percents: Sequence[int],
    *,
    factors: Sequence[int] = FACTORS,
    seed: int = SEED,
    data: str = "digits",
) -> Iterator[Cell]:
    """Yields ways of 1,000 nodes, so many percent of them hostile in the worst places."""
    for way, percent in product(ways, percents):
        hostile = FRONTIER_NODES * percent // 100
        for factor in factors if hostile else (0,):
            yield Cell(
                data=data,
                nodes=FRONTIER_NODES,
                epsilon=epsilon,
                hostile=hostile,
                factor=factor,
                placement="worst" if hostile else "none",
                size=way.size,
                rule=way.rule,
                recipe=way.recipe,
                before=way.before,
                seed=seed,
            )
