"""Adversaries in a simulation: which nodes they are, what they train on, what they send."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch

from fedsec.errors import ConfigError
from fedsec.flower.strategy import Matrix
from fedsec.tasks.task import Examples
from fedsec.vectors import Vector
from fedsec_sim.attacks.poison import Poison
from fedsec_sim.attacks.table import DATA, make_attack, make_poison
from fedsec_sim.attacks.view import Attack, View
from fedsec_sim.chance import ADVERSARIES, ATTACK, TARGETS, generator
from fedsec_sim.collecting import Meddler, Turn
from fedsec_sim.population import Parts, Population
from fedsec_sim.spec import read_table


@dataclass(frozen=True)
class Threat:
    """What adversaries do.

    Args:
        byzantine: How many of all nodes they are, >= 1. A plan may count on fewer.
        attack: On updates; None: they send what they learned.
        poison: Of their data; None: they train on what they have.
        ids: Who they are; none: drawn from all.
    """

    byzantine: int
    attack: Attack | None = None
    poison: Poison | None = None
    ids: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if self.byzantine < 1:
            raise ConfigError(f"byzantine must be >= 1, got {self.byzantine}")
        if self.attack is None and self.poison is None:
            raise ConfigError("a threat needs an attack on updates or a poison of data")
        if self.ids and len(set(self.ids)) != self.byzantine:
            raise ConfigError(f"{len(set(self.ids))} ids of {self.byzantine} hostile nodes")

    def __str__(self) -> str:
        """Says it in a line: ``20 hostile: Alie(z=None, knowledge='omniscient')``."""
        done = ", ".join(str(each) for each in (self.attack, self.poison) if each is not None)
        named = f" (nodes {', '.join(map(str, self.ids))})" if self.ids else ""
        return f"{self.byzantine} hostile{named}: {done}"

    def members(self, population: Population, seed: int) -> tuple[int, ...]:
        """Returns the adversaries' ids, ascending.

        Raises:
            ConfigError: Nobody honest would be left, or an id is no node's.
        """
        count = len(population)
        for node in self.ids:
            if node not in population.position:
                raise ConfigError(f"hostile node {node} is none of the {count} nodes")
        if self.byzantine >= count:
            raise ConfigError(f"{self.byzantine} of {count} nodes are hostile: none is honest")
        if self.ids:
            return tuple(sorted(self.ids))
        drawn = generator(seed, ADVERSARIES).permutation(count)[: self.byzantine]
        return tuple(sorted(population.ids[place] for place in drawn))


def make_threat(
    byzantine: int,
    attack: str | Mapping[str, object] | Attack | None,
    poison: str | Mapping[str, object] | Poison | None = None,
) -> Threat | None:
    """Returns what adversaries do, as words, tables of a grid, or values say; None if nothing.

    Args:
        byzantine: How many they are.
        attack: What they send. A word or table may as well name a poison.
        poison: How they change their data.

    Raises:
        ConfigError: There is no such attack, or a parameter is unknown or out of range.
    """
    if isinstance(attack, str | Mapping):
        name, parameters = read_table(attack, "attack")
        if poison is None and name in DATA:
            attack, poison = None, make_poison(name, parameters)
        else:
            attack = make_attack(name, parameters)
    if isinstance(poison, str | Mapping):
        poison = make_poison(*read_table(poison, "poison"))
    if attack is None and poison is None:
        return None
    return Threat(byzantine, attack, poison)


def poisoned(
    population: Population, members: tuple[int, ...], poison: Poison, seed: int
) -> Population:
    """Returns a population in which `members` train on poisoned copies of their examples."""
    train = population.train
    inputs, targets = [train.pool.inputs], [train.pool.targets]
    rows, size = train.rows.copy(), len(train.pool)
    for member, node in enumerate(members):
        place = population.position[node]
        made = poison(train.examples(place), member, generator(seed, TARGETS, node))
        begin, end = train.starts[place : place + 2]
        if len(made) != end - begin:
            raise ConfigError(f"poison must keep the number of examples, {end - begin}")
        rows[begin:end] = np.arange(size, size + len(made))
        inputs.append(made.inputs)
        targets.append(made.targets)
        size += len(made)
    pool = Examples(torch.cat(inputs), torch.cat(targets))
    return replace(population, train=Parts(pool, rows, train.starts))


@dataclass(eq=False)
class Attacker:
    """Puts an attack among the rows; see `fedsec_sim.collecting.Meddler`.

    Args:
        attack: What the members do.
        members: Their ids.
        seed: Of all that they draw.
        rule: What the coordinator would make of rows, for attacks that try themselves out.
    """

    attack: Attack
    members: frozenset[int]
    seed: int
    rule: Callable[[Matrix, Turn], Vector]
    memory: dict[str, Any] = field(default_factory=dict)

    def __call__(self, rows: Matrix, turn: Turn) -> None:
        """Writes the rows of the members that are present; no other.

        Raises:
            ConfigError: Only adversaries were drawn: there is nobody to deceive.
        """
        bad = tuple(place for place, node in enumerate(turn.nodes) if node in self.members)
        if not bad:
            return
        self.attack(
            View(
                rows,
                bad,
                turn.round,
                generator(self.seed, ATTACK, turn.round, turn.attempt),
                lambda trial: self.rule(trial, turn),
                self.memory,
            )
        )


class Momentum:
    """Nodes that send a running sum instead of an update; see `fedsec_sim.collecting.Meddler`.

    ``m = decay * m + update``, kept by each node from round to round, as papers on robust rules
    have it. Deployed nodes keep nothing: this is for comparisons with such papers.

    Args:
        decay: In [0, 1).
        size: d.
    """

    def __init__(self, decay: float, size: int) -> None:
        if not 0 <= decay < 1:
            raise ConfigError(f"momentum must be in [0, 1), got {decay}")
        self._decay = np.float32(decay)
        self._kept: dict[int, Vector] = {}
        self._none = np.zeros(size, np.float32)

    def __call__(self, rows: Matrix, turn: Turn) -> None:
        """Writes every row."""
        for place, node in enumerate(turn.nodes):
            rows[place] += self._decay * self._kept.get(node, self._none)
            self._kept[node] = rows[place].copy()


@dataclass(frozen=True)
class Stages:
    """Meddlers one after another.

    Args:
        stages: In their order.
    """

    stages: tuple[Meddler, ...]

    def __call__(self, rows: Matrix, turn: Turn) -> None:
        """Lets each of them write."""
        for stage in self.stages:
            stage(rows, turn)
