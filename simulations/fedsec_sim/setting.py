"""A simulation made ready, and its rounds: the coordinator's own loop on simulated nodes."""

from collections.abc import Callable
from collections.abc import Collection as Ids
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from types import MappingProxyType
from typing import TypeAlias

import numpy as np
import torch
from flwr.serverapp import Grid

from fedsec.errors import ConfigError
from fedsec.flower.collection import Collection
from fedsec.flower.combination import Combination
from fedsec.flower.messages import EXAMPLES, TRAIN_LOSS
from fedsec.flower.reporting import Json
from fedsec.flower.rounds import Rounds
from fedsec.flower.strategy import ServerState
from fedsec.flower.sums import row_of, sum_form
from fedsec.flower.table import ALGORITHMS, longest, weighting
from fedsec.plan import FederationPlan
from fedsec.plan.figures import figures_of, width
from fedsec.plan.visibility import fewest_in_a_sum, group_size
from fedsec.secagg.groups import draw_groups
from fedsec.secagg.shuffle import SEED_BYTES
from fedsec.tasks.arrays import get_arrays
from fedsec.tasks.table import load_task
from fedsec.tasks.task import Task
from fedsec_sim.attacks.poison import BadNets
from fedsec_sim.chance import GROUPS, generator
from fedsec_sim.collecting import Attendance, Simulated, wave
from fedsec_sim.combining import Seeded
from fedsec_sim.defences import drawn_openly, epsilon
from fedsec_sim.engines.choose import Chosen
from fedsec_sim.engines.engine import Bench
from fedsec_sim.evaluation import evaluation
from fedsec_sim.history import History, Row
from fedsec_sim.lab import Lab
from fedsec_sim.record import Record, Watcher
from fedsec_sim.roll import Roll
from fedsec_sim.secret_sums import Groups, SecretSums, together
from fedsec_sim.systems import Clockwork

Collecting: TypeAlias = Callable[[Collection], Collection]
"""From what collects a row of each node to what collects the rows that the coordinator sees."""


@dataclass(frozen=True, eq=False)
class Setting:
    """All that a simulation needs but an engine.

    Args:
        plan: What is learned.
        lab: What the plan does not say.
        bench: Task, nodes, model.
        state: Before the first round.
        combine: What is made of the rows.
        collect: What the coordinator sees of the nodes' rows; None: what the plan says.
    """

    plan: FederationPlan
    lab: Lab
    bench: Bench
    state: ServerState
    combine: Seeded
    collect: Collecting | None = None

    @property
    def whole(self) -> bool:
        """Whether the rows themselves are wanted."""
        guarded = self.plan.privacy is not None or self.plan.secure_aggregation is not None
        guarded = guarded or self.collect is not None
        return guarded or self.lab.meddles or not self.combine.is_mean

    @property
    def cohort(self) -> int:
        """Nodes of a round."""
        return self.plan.nodes.cohort(len(self.bench.population))

    @property
    def at_once(self) -> int:
        """Most nodes that an engine is given at a time."""
        return self.cohort if self.whole else min(self.cohort, wave(self.state.layout.size))


def prepare(
    plan: FederationPlan,
    lab: Lab,
    task: Task | None,
    combine: Combination | None,
    collect: Collecting | None,
) -> Setting:
    """Returns all that a simulation needs but an engine.

    Raises:
        ConfigError: Plan and surroundings do not fit together.
    """
    wanted, training = plan.learning
    if lab.threat is not None and figures_of(plan.privacy) is not None:
        raise ConfigError("attacks change updates, not figures: leave privacy.metrics out")
    task = task or load_task(wanted.name, plan.data)
    population = lab.populate(plan, task)
    if len(population) < plan.nodes.min_available:
        raise ConfigError(
            f"{len(population)} nodes are fewer than nodes.min_available = "
            f"{plan.nodes.min_available}, for which the run would wait"
        )
    bench = Bench.of(plan, task, population)
    state = ServerState.begin(get_arrays(bench.model), ALGORITHMS[training.algorithm](training))
    combined = Seeded(plan, combine, lab.root_update(plan, task))
    return Setting(plan, lab, bench, state, combined, collect)


def run_rounds(
    setting: Setting,
    chosen: Chosen,
    watch: Watcher,
    *,
    grid: Grid | None = None,
    told: Row = MappingProxyType({}),
) -> History:
    """Runs all rounds and returns their history.

    Args:
        setting: What is simulated.
        chosen: Trains the nodes; not used with a `grid`.
        watch: Is shown what happens.
        grid: Reaches nodes that are asked as deployed ones are; None: the engine trains them.
        told: What the history says beside the rest.
    """
    plan, lab, bench, state = setting.plan, setting.lab, setting.bench, setting.state
    weigh = weighting(plan.learning[1])
    attend = lab.attend(plan, bench)
    collect = _collection(setting, chosen, attend) if grid is None else None
    record = Record(watch, _figures(plan, attend))
    rounds = Rounds(
        plan,
        grid or Roll(bench.population.ids),
        record,
        size=state.layout.size,
        evaluation=evaluation(bench, weigh, _backdoor(lab)),
        collect=collect,
        combine=setting.combine,
    )
    rounds.draw = drawn_openly(rounds.draw, plan.learning[1].seed)
    about = {**describe(setting), "engine": chosen.engine.name, "reason": chosen.reason, **told}
    watch.begin(about)
    interrupted = False
    try:
        for number in range(1, plan.learning[1].rounds + 1):
            state = rounds(state, number)
    except KeyboardInterrupt:
        interrupted = True
    return History(about, tuple(record.rows), state, interrupted)


def _backdoor(lab: Lab) -> BadNets | None:
    poison = lab.threat.poison if lab.threat else None
    return poison if isinstance(poison, BadNets) else None


def _figures(plan: FederationPlan, attend: Attendance) -> Callable[[int], Row]:
    """Returns what a simulation knows of a round beside its report: simulated time, and epsilon."""
    spent = epsilon(plan)

    def figures(done: int) -> Row:
        clock = attend.now_s if isinstance(attend, Clockwork) else None
        return {**({} if clock is None else {"simulated_s": round(clock, 3)}), **spent(done)}

    return figures


def _collection(setting: Setting, chosen: Chosen, attend: Attendance) -> Collection:
    """Returns what takes the place of messages: an engine, and the sum where the plan has one."""
    plan, lab, bench = setting.plan, setting.lab, setting.bench
    layout = setting.state.layout
    rows = Simulated(
        chosen.engine,
        bench.population,
        layout,
        weighting(plan.learning[1]),
        whole=setting.whole,
        withheld=plan.privacy is not None and plan.secure_aggregation is None,
        longest=longest(plan),
        figures=figures_of(plan.privacy),
        attend=attend,
        meddle=lab.meddle(plan, bench, setting.combine.trial),
    )
    if setting.collect is not None:
        return setting.collect(rows)
    if plan.secure_aggregation is None:
        return rows
    return sums_of(plan, rows, width(plan, layout.size), lab.senders(plan, bench.population))


def sums_of(
    plan: FederationPlan, rows: Collection, size: int, hostile: Ids[int] = frozenset()
) -> SecretSums:
    """Returns the sums that a coordinator sees under a plan with secure aggregation.

    Args:
        plan: Says who is added up with whom, and how.
        rows: Collects the nodes' updates.
        size: d, entries of what a node sends.
        hostile: Ids of nodes that keep to no clip.
    """
    return SecretSums(
        rows,
        lambda _nodes, heading: sum_form(plan, size, heading),
        plan.learning[1].seed,
        groups=groups_of(plan),
        hostile=hostile,
        row=lambda summed, answered, nodes: row_of(plan, summed, answered=answered, nodes=nodes),
        least=1 if group_size(plan) is None else fewest_in_a_sum(plan),
    )


def groups_of(plan: FederationPlan) -> Groups:
    """Returns how a cohort is split: as deployed nodes do it, but by a seed that follows."""
    size = group_size(plan)
    if size is None:
        return together
    seed = generator(plan.learning[1].seed, GROUPS).bytes(SEED_BYTES)
    return lambda cohort: draw_groups(cohort, size, seed)


def read(plan: FederationPlan | str | Path) -> tuple[str | None, FederationPlan]:
    """Returns the TOML, if there is any, and the plan that somebody gave as value, TOML or file.

    Raises:
        ConfigError: It is wrong, cannot be read, or asks for what is not simulated.
    """
    if isinstance(plan, Path):
        try:
            plan = plan.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"the plan cannot be read: {error}") from error
    text = plan if isinstance(plan, str) else None
    if isinstance(plan, str):
        plan = FederationPlan.parse(plan)
    if not plan.built_in:
        raise ConfigError(
            f"the plan is for the Flower app {plan.app.name!r}: simulate it with `flwr run`"
        )
    if plan.privacy is not None and plan.privacy.model == "example":
        raise ConfigError('privacy.model = "example" is not simulated: it is the nodes\' training')
    told = plan.privacy.metrics if plan.privacy is not None else None
    if further := set(told or ()) - {TRAIN_LOSS, EXAMPLES}:
        raise ConfigError(
            f"privacy.metrics: {', '.join(sorted(further))} is not simulated: simulated nodes tell "
            f"{TRAIN_LOSS} and {EXAMPLES}; evaluate on the central test set instead"
        )
    return text, plan


def describe(setting: Setting) -> dict[str, Json]:
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
        **({} if plan.robust is None else {"rule": plan.robust.rule}),
        **lab.describe(),
        "fedsec": version("fedsec"),
        "torch": torch.__version__,
        "numpy": np.__version__,
    }
