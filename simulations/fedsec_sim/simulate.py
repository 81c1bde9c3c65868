"""A plan on one machine: `simulate(plan) -> History`.

The round loop, the weights, the rule and all else that a plan names are the coordinator's own;
nodes are trained by an engine instead of being asked. Given the same ids, plan and data, a
simulation gives what a federation gives.
"""

from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch

from fedsec.errors import ConfigError
from fedsec.flower.combination import Combination
from fedsec.flower.reporting import Json
from fedsec.flower.rounds import Rounds
from fedsec.flower.strategy import ServerState
from fedsec.flower.table import ALGORITHMS, weighting
from fedsec.plan import FederationPlan
from fedsec.tasks.arrays import get_arrays
from fedsec.tasks.table import load_task
from fedsec.tasks.task import Task
from fedsec_sim.attacks.poison import BadNets
from fedsec_sim.collecting import Simulated, wave
from fedsec_sim.combining import Seeded
from fedsec_sim.engines.choose import Chosen, Kind, choose
from fedsec_sim.engines.engine import Bench
from fedsec_sim.evaluation import evaluation
from fedsec_sim.history import History
from fedsec_sim.lab import Lab
from fedsec_sim.record import NOBODY, Record, Watcher, one_thread
from fedsec_sim.roll import Roll


def simulate(
    plan: FederationPlan | str | Path,
    lab: Lab | None = None,
    *,
    task: Task | None = None,
    combine: Combination | None = None,
    engine: Kind = "auto",
    workers: int | None = None,
    watch: Watcher = NOBODY,
) -> History:
    """Runs a whole plan and returns what happened; Ctrl-C ends it early, with what is done.

    Args:
        plan: Of the built-in app; or its TOML; or the file that holds it.
        lab: What a plan does not say: nodes, data, machines, adversaries.
        task: Instead of the one that the plan names.
        combine: Instead of what the plan makes of the rows.
        engine: ``"loop"``, ``"vmap"``, or ``"auto"`` to take the faster one that is right.
        workers: Processes; None: one for each processor, where that pays.
        watch: Is shown what happens.

    Raises:
        ConfigError: Plan, data or engine do not fit together.
        StateError: A round did not come about.
    """
    plan = read(plan)
    with one_thread():
        setting = _prepare(plan, lab or Lab(), task, combine)
        chosen = choose(
            setting.bench,
            setting.state.vector,
            kind=engine,
            workers=workers,
            cohort=setting.at_once,
        )
        try:
            return _run(setting, chosen, watch)
        finally:
            chosen.engine.close()


@dataclass(frozen=True, eq=False)
class _Setting:
    """All that a simulation needs but an engine."""

    plan: FederationPlan
    lab: Lab
    bench: Bench
    state: ServerState
    combine: Seeded

    @property
    def whole(self) -> bool:
        """Whether the rows themselves are wanted."""
        return self.lab.meddles or not self.combine.is_mean

    @property
    def cohort(self) -> int:
        return self.plan.nodes.cohort(len(self.bench.population))

    @property
    def at_once(self) -> int:
        """Most nodes that an engine is given at a time."""
        return self.cohort if self.whole else min(self.cohort, wave(self.state.layout.size))


def _prepare(
    plan: FederationPlan, lab: Lab, task: Task | None, combine: Combination | None
) -> _Setting:
    wanted, training = plan.learning
    task = task or load_task(wanted.name, plan.data)
    population = lab.populate(plan, task)
    if len(population) < plan.nodes.min_available:
        raise ConfigError(
            f"{len(population)} nodes are fewer than nodes.min_available = "
            f"{plan.nodes.min_available}, for which the run would wait"
        )
    bench = Bench.of(plan, task, population)
    state = ServerState.begin(get_arrays(bench.model), ALGORITHMS[training.algorithm](training))
    return _Setting(plan, lab, bench, state, Seeded(plan, combine))


def _run(setting: _Setting, chosen: Chosen, watch: Watcher) -> History:
    plan, lab, bench, state = setting.plan, setting.lab, setting.bench, setting.state
    weigh = weighting(plan.learning[1])
    attend = lab.attend(plan, bench)
    collect = Simulated(
        chosen.engine,
        bench.population,
        state.layout,
        weigh,
        whole=setting.whole,
        attend=attend,
        meddle=lab.meddle(plan, bench, setting.combine.trial),
    )
    record = Record(watch, lab.figures(attend))
    poison = lab.threat.poison if lab.threat else None
    rounds = Rounds(
        plan,
        Roll(bench.population.ids),
        record,
        size=state.layout.size,
        evaluation=evaluation(bench, weigh, poison if isinstance(poison, BadNets) else None),
        collect=collect,
        combine=setting.combine,
    )
    about = describe(setting) | {"engine": chosen.engine.name, "reason": chosen.reason}
    watch.begin(about)
    interrupted = False
    try:
        for number in range(1, plan.learning[1].rounds + 1):
            state = rounds(state, number)
    except KeyboardInterrupt:
        interrupted = True
    return History(about, tuple(record.rows), state, interrupted)


def read(plan: FederationPlan | str | Path) -> FederationPlan:
    """Returns the plan that somebody gave as a value, as TOML, or as a file.

    Raises:
        ConfigError: It is wrong, cannot be read, or asks for what is not simulated.
    """
    if isinstance(plan, Path):
        try:
            plan = plan.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"the plan cannot be read: {error}") from error
    if isinstance(plan, str):
        plan = FederationPlan.parse(plan)
    if not plan.built_in:
        raise ConfigError(
            f"the plan is for the Flower app {plan.app.name!r}: simulate it with `flwr run`"
        )
    for key in ("privacy", "secure_aggregation"):
        if getattr(plan, key) is not None:
            raise ConfigError(f"[{key}] is not simulated yet: take it out of a copy of the plan")
    return plan


def describe(setting: _Setting) -> dict[str, Json]:
    """Returns what a history says about a simulation, but for the engine."""
    plan, lab = setting.plan, setting.lab
    wanted, training = plan.learning
    return {
        "name": plan.name,
        "plan": plan.digest,
        "task": wanted.name,
        "nodes": len(setting.bench.population),
        "cohort": setting.cohort,
        "seed": training.seed,
        **lab.describe(),
        "fedsec": version("fedsec"),
        "torch": torch.__version__,
        "numpy": np.__version__,
    }
