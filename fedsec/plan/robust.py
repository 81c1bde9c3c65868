"""`[robust]`: how many nodes may be hostile, and what is made of the updates in spite of them."""

from collections.abc import Iterator
from dataclasses import Field, fields
from typing import Annotated, Any, Literal, TypeAlias

import pydantic
from pydantic import BeforeValidator, model_validator

from fedsec.errors import ConfigError
from fedsec.plan.sections import Options, Scalars, Section
from fedsec.robust.faults import check_minority, count_byzantine
from fedsec.robust.pipeline import Pipeline
from fedsec.robust.premixing import Arc, Bucketing, Clip, Nnm, Premix
from fedsec.robust.table import RULES

RuleName: TypeAlias = Literal[
    "mean",
    "median",
    "trimmed-mean",
    "meamed",
    "krum",
    "multi-krum",
    "bulyan",
    "geometric-median",
    "minimum-diameter",
    "monna",
    "centered-clipping",
    "cge",
    "caf",
    "dnc",
    "fltrust",
]
_MANY = 100_000
TRUSTING = frozenset({"monna", "fltrust"})
"""Rules that go by an update which the coordinator makes on clean data of its own."""

DataName: TypeAlias = Annotated[str, pydantic.Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$")]


def _by_name(given: object) -> object:
    """Returns ``{"name": given}`` for a bare name."""
    return {"name": given} if isinstance(given, str) else given


class Stage(Section):
    """One pre-aggregation: its name, or a table with its name and parameters.

    Args:
        name: Which one.
        size: Of ``"bucketing"``: updates in a bucket; 2 if left out.
        norm: Of ``"clip"``: the longest that an update may be, in the L2 norm.
    """

    name: Literal["nnm", "bucketing", "clip", "arc"]
    size: Annotated[int, pydantic.Field(ge=1, le=_MANY)] | None = None
    norm: Annotated[float, pydantic.Field(gt=0, le=1e18)] | None = None

    @model_validator(mode="before")
    @classmethod
    def _fill(cls, given: Any) -> Any:
        if isinstance(given, dict) and given.get("name") == "bucketing":
            return {"size": 2, **given}
        return given

    def __str__(self) -> str:
        return " ".join([self.name, *(f"{x:g}" for x in (self.size, self.norm) if x is not None)])

    def made(self, byzantine: int) -> Premix:
        """Returns the pre-aggregation.

        Raises:
            ConfigError: A parameter is missing.
        """
        match self.name:
            case "nnm":
                return Nnm(byzantine)
            case "arc":
                return Arc(byzantine)
            case "bucketing" if self.size is not None:
                return Bucketing(self.size, byzantine)
            case "clip" if self.norm is not None:
                return Clip(self.norm)
        raise ConfigError(f"{self.name} lacks its parameter")

    def problems(self) -> Iterator[str]:
        """Yields what is wrong with the parameters, one sentence each."""
        if self.name == "clip" and self.norm is None:
            yield 'missing: write { name = "clip", norm = 1.0 }'
        if self.name != "clip" and self.norm is not None:
            yield f'norm = {self.norm} is read by "clip" only, this is "{self.name}"'
        if self.name != "bucketing" and self.size is not None:
            yield f'size = {self.size} is read by "bucketing" only, this is "{self.name}"'


WEIGHT_CAP = 3.0
"""`Robust.weight_cap` where a plan says none."""


class Robust(Section):
    """What is made of the updates when some nodes may be hostile.

    Args:
        rule: From many updates to one; `fedsec robust list` shows all.
        byzantine: How many of the nodes drawn for a round may be hostile: a count, or a share of
            them in [0, 0.5).
        before: Pre-aggregations, applied in this order.
        options: Parameters of the rule, e.g. ``keep = 5`` for ``"multi-krum"``.
        on_suspect: ``"log"``: nodes that stand out are named in the results. ``"exclude"``: the
            rule runs once more without their updates of this round.
        root: Of ``"fltrust"`` and ``"monna"``, which trust it: clean data of the coordinator's, by
            the name of a table ``[data.NAME]`` in its `server.toml`. In each round it trains on
            them as a node would.
        weight_cap: With training.weighting = ``"examples"``: no node counts for more than so many
            times an equal share; 3 if left out.
    """

    rule: RuleName
    byzantine: (
        Annotated[int, pydantic.Field(ge=0, le=_MANY)]
        | Annotated[float, pydantic.Field(ge=0, lt=0.5)]
    )
    before: Annotated[
        tuple[Annotated[Stage, BeforeValidator(_by_name)], ...],
        BeforeValidator(lambda given: tuple(given) if isinstance(given, list) else given),
    ] = ()
    options: Scalars = Options()
    on_suspect: Literal["log", "exclude"] = "log"
    root: DataName | None = None
    weight_cap: Annotated[float, pydantic.Field(ge=1, le=_MANY)] | None = None

    def count(self, drawn: int) -> int:
        """Returns f, how many of `drawn` nodes may be hostile."""
        return count_byzantine(self.byzantine, drawn)

    def pipeline(self, byzantine: int) -> Pipeline:
        """Returns rule and pre-aggregations for at most `byzantine` hostile rows.

        Raises:
            ConfigError: A parameter is missing or out of range.
        """
        options = dict(self.options)
        if "byzantine" in parameters(self.rule):
            options["byzantine"] = byzantine
        rule = RULES[self.rule].made_by(**options)
        return Pipeline(rule, tuple(stage.made(byzantine) for stage in self.before))

    def check(self, rows: int, byzantine: int) -> None:
        """Raises unless the promise holds when `byzantine` of `rows` rows may be hostile.

        Raises:
            ConfigError: It does not; the message says what is needed.
        """
        if self.rule == "median":  # which has no parameter that tells it
            check_minority("median", rows, byzantine)
        self.pipeline(byzantine).check(rows)


def sentence(robust: Robust) -> str:
    """Returns the section in words."""
    given = ", ".join(f"{key} {value}" for key, value in robust.options.items())
    rule = f"{robust.rule} ({given})" if given else robust.rule
    many = robust.byzantine
    hostile = f"{many:.4g} times the nodes" if isinstance(many, float) else f"{many} of the nodes"
    withstands = f"withstands {hostile if robust.rule != 'mean' else 'no hostile node'}"
    what = "left out of their round" if robust.on_suspect == "exclude" else "named"
    stages = [*map(str, robust.before), rule]
    trusts = "" if robust.root is None else f" trusting the coordinator's data {robust.root}"
    return f"{', then '.join(stages)}{trusts}; {withstands}; suspects are {what}"


def parameters(rule: str) -> dict[str, Field[Any]]:
    """Returns the parameters of `rule` by name; rows have no order that a plan could go by."""
    return {field.name: field for field in fields(RULES[rule].made_by) if field.name != "trusted"}
