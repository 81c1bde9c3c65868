"""One cell of the map: a federation, its defences and who attacks it; and what it came to."""

from dataclasses import asdict, dataclass
from typing import Literal, TypeAlias

from fedsec.plan.robust import RuleName
from fedsec_sim.three_defences.recipes import RECIPES, SEED, Recipe

Placement: TypeAlias = Literal["none", "worst", "random"]
Before: TypeAlias = Literal["", "nnm", "arc"]

CLIP = 1.0


@dataclass(frozen=True, slots=True)
class Cell:
    """A federation of the map.

    Attributes:
        data: ``"digits"`` or ``"mnist"``.
        nodes: n.
        epsilon: Of the whole run for each node, zero-out, at delta 1e-5; None: no noise.
        hostile: f, hostile nodes.
        factor: How many times longer than the clip their updates are; 0 where there are none.
        placement: ``"worst"``: as many groups have one as can be; ``"random"``: as it happens.
        size: g, nodes of a sum: 1: each is seen; n: one sum of all.
        rule: What is made of the rows.
        recipe: How it is learned.
        before: What is done to the rows before the rule; "": nothing.
        seed: Of who has which examples, of groups, of noise.
    """

    data: str
    nodes: int
    epsilon: float | None
    hostile: int
    factor: int
    placement: Placement
    size: int
    rule: RuleName
    recipe: str = "plain"
    before: Before = ""
    seed: int = SEED

    @property
    def key(self) -> str:
        """Names the cell in a file."""
        return " ".join(f"{name}={value}" for name, value in asdict(self).items())

    @property
    def combined(self) -> str:
        """What is made of the rows, in words."""
        return f"{self.before} + {self.rule}" if self.before else self.rule

    @property
    def rows(self) -> int:
        """G, what the rule gets."""
        return self.nodes // self.size

    @property
    def refused(self) -> str:
        """Why a plan would be refused; "" where it would not."""
        if self.rule != "mean" and 2 * self.hostile >= self.rows:
            return f"{self.hostile} hostile nodes may spoil half of {self.rows} sums"
        return ""

    @property
    def how(self) -> Recipe:
        """How it is learned."""
        return RECIPES[self.recipe][self.data, self.nodes]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a cell came to.

    Attributes:
        accuracy: Of the last model on examples that no node has.
        multiplier: Of the noise, over the clip after rounding; 0: no noise.
        noise: Standard deviation of the noise in a row, all entries together, over the clip.
    """

    accuracy: float
    multiplier: float = 0.0
    noise: float = 0.0
