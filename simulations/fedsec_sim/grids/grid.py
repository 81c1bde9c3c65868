"""What an experiment varies, from TOML; each cell is one simulation, named by its content."""

import hashlib
import itertools
import json
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias, get_args

from pydantic import BeforeValidator, Field

from fedsec.errors import ConfigError
from fedsec.plan.reading import read_toml
from fedsec.plan.sections import Section, Title
from fedsec_sim.spec import read_settings
from fedsec_sim.systems import make_systems

MAX_BYTES = 1 << 18


def _as_tuple(given: object) -> object:
    return tuple(given) if isinstance(given, list) else given


NONE = "none"
Axis: TypeAlias = Literal["plan", "rule", "attack", "split", "systems", "byzantine", "seed"]
AXES: tuple[str, ...] = get_args(Axis)
Holders: TypeAlias = Literal["all", "honest"]
Values: TypeAlias = Annotated[
    tuple[Any, ...], BeforeValidator(_as_tuple), Field(min_length=1, max_length=1000)
]
Counts: TypeAlias = Annotated[
    tuple[Annotated[int, Field(ge=0, le=100_000)], ...],
    BeforeValidator(_as_tuple),
    Field(min_length=1, max_length=1000),
]
Axes: TypeAlias = Annotated[tuple[Axis, ...], BeforeValidator(_as_tuple)]


class Grid(Section):
    """An experiment.

    Args:
        schema_version: Of this form; ``schema`` in the file.
        name: For people.
        plans: Files, relative to the grid's own.
        rules: Tables as ``[robust]`` in a plan, without ``byzantine``, or a rule's name;
            ``"none"``: the plan as it is. A table may have a ``label``.
        attacks: ``"none"``, or attacks on updates or through data, as ``fedsec sim attacks`` lists.
        splits: How examples are divided; ``"none"``: nodes read data as deployed ones do.
        systems: Machines: ``"none"``, words ``"dropout=0.1,stragglers=0.2"`` or tables of
            `fedsec_sim.systems.Systems`; a table may have a ``label``. With ``figure =
            "simulated_s"`` their time is compared.
        byzantine: How many nodes are hostile; a plan's rule is told the same number.
        seeds: Of the plan; mean figures are over seeds.
        nodes: How many; as the plan waits for if left out.
        honest: With it, nodes are so many and the adversaries on top.
        holders: Among whom a split divides examples: ``"all"`` nodes, or the ``"honest"`` ones;
            then adversaries hold copies of what honest nodes have, as in the library byzfl.
        momentum: Of nodes' updates; see `fedsec_sim.threats.Momentum`.
        figure: What is compared.
        last: Over how many last evaluations its mean is taken.
        rows: Axis of the tables' rows.
        columns: Axis of their columns.
        worst: Axes of which the worst value counts.
    """

    schema_version: Literal[1] = Field(alias="schema")
    name: Title
    plans: Values
    rules: Values = (NONE,)
    attacks: Values = (NONE,)
    splits: Values = (NONE,)
    systems: Values = (NONE,)
    byzantine: Counts = (0,)
    seeds: Counts = (1,)
    nodes: Annotated[int, Field(ge=1, le=1_000_000)] | None = None
    honest: Annotated[int, Field(ge=1, le=1_000_000)] | None = None
    holders: Holders = "all"
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.0
    figure: str = "accuracy"
    last: Annotated[int, Field(ge=1, le=1000)] = 1
    rows: Axis = "rule"
    columns: Axis = "attack"
    worst: Axes = ()


@dataclass(frozen=True, slots=True)
class Cell:
    """One simulation of a grid.

    Args:
        labels: What it is, by axis, in words.
        plan: The base plan's tables.
        rule: The table ``[robust]``, or empty.
        attack: Name and parameters, or empty.
        split: Name and parameters, or empty.
        systems: Parameters, or empty.
        byzantine: Hostile nodes.
        seed: Of the plan.
        nodes: How many, or None.
        holders: Who holds examples of their own.
        momentum: Of nodes' updates.
        figure: What is taken from it.
        last: Over how many evaluations.
    """

    labels: Mapping[str, str]
    plan: Mapping[str, Any]
    rule: Mapping[str, Any]
    attack: Mapping[str, Any]
    split: Mapping[str, Any]
    systems: Mapping[str, Any]
    byzantine: int
    seed: int
    nodes: int | None
    holders: Holders
    momentum: float
    figure: str
    last: int

    @property
    def key(self) -> str:
        """32 hex digits that follow from all of it but the words, and from fedsec's version."""
        said = {name: _plain(value) for name, value in _fields(self).items() if name != "labels"}
        # So that cells without these keep the names that they had.
        if not self.systems:
            del said["systems"]
        if self.holders == "all":
            del said["holders"]
        said["fedsec"] = version("fedsec")
        text = json.dumps(said, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:32]


def read_grid(path: Path) -> tuple[Grid, list[Cell]]:
    """Returns a grid and its cells.

    Raises:
        ConfigError: The file or a plan's cannot be read, or something in the grid is wrong.
    """
    grid = read_toml(Grid, _read(path), what=str(path), max_bytes=MAX_BYTES)
    if grid.rows == grid.columns or {grid.rows, grid.columns} & set(grid.worst):
        raise ConfigError("the grid: rows, columns and worst must be different axes")
    if grid.nodes is not None and grid.honest is not None:
        raise ConfigError("the grid: nodes and honest both say how many there are; give one")
    if grid.holders == "honest" and (grid.honest is None or NONE in grid.splits):
        raise ConfigError('the grid: holders = "honest" needs honest = N and a split in every cell')
    return grid, list(_cells(grid, path.parent))


def _cells(grid: Grid, folder: Path) -> Iterator[Cell]:
    plans = {name: _tables(folder / str(name)) for name in grid.plans}
    product = itertools.product(
        grid.plans,
        grid.rules,
        grid.attacks,
        grid.splits,
        grid.systems,
        grid.byzantine,
        grid.seeds,
    )
    for plan, rule, attack, split, systems, byzantine, seed in product:
        named = map(label, (rule, attack, split, systems))
        values = (Path(str(plan)).stem, *named, byzantine, seed)
        yield Cell(
            labels=dict(zip(AXES, map(str, values), strict=True)),
            plan=plans[plan],
            rule=_table(rule, "rules", "rule"),
            attack=_table(attack, "attacks", "name"),
            split=_table(split, "splits", "name"),
            systems=_systems(systems),
            byzantine=byzantine,
            seed=seed,
            nodes=grid.honest + byzantine if grid.honest is not None else grid.nodes,
            holders=grid.holders,
            momentum=grid.momentum,
            figure=grid.figure,
            last=grid.last,
        )


def label(value: object) -> str:
    """Returns a value of a grid in a few words."""
    if not isinstance(value, Mapping):
        return str(value)
    if "label" in value:
        return str(value["label"])
    first = [str(value[key]) for key in ("rule", "name") if key in value]
    rest = [f"{k}={v}" for k, v in value.items() if k not in {"rule", "name"}]
    return " ".join([*first, *rest])


def _table(value: object, where: str, key: str) -> Mapping[str, Any]:
    if value == NONE:
        return {}
    if isinstance(value, str):
        return {key: value}
    if isinstance(value, Mapping) and isinstance(value.get(key), str):
        return {name: each for name, each in value.items() if name != "label"}
    raise ConfigError(f"the grid: {where}: want a name or a table with a {key}, got {value}")


def _systems(value: object) -> Mapping[str, Any]:
    if value == NONE:
        return {}
    if isinstance(value, str):
        value = read_settings(value.split(","), "the grid: systems")
    if not isinstance(value, Mapping):
        raise ConfigError(f"the grid: systems: want a table, got {value}")
    given = {name: each for name, each in value.items() if name != "label"}
    make_systems(given, "the grid: systems:")
    return given


def _tables(path: Path) -> Mapping[str, Any]:
    try:
        return tomllib.loads(_read(path))
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path} is no TOML: {error}") from error


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ConfigError(f"{path} cannot be read: {reason}") from error


def _fields(cell: Cell) -> dict[str, Any]:
    return {name: getattr(cell, name) for name in cell.__slots__}


def _plain(value: object) -> object:
    return dict(value) if isinstance(value, Mapping) else value
