"""A plan on one machine: `simulate(plan) -> History`.

The round loop, the weights, the rule and all else that a plan names are the coordinator's own;
nodes are trained by an engine instead of being asked. Given the same ids, plan and data, a
simulation gives what a federation gives.
"""

import math
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from flwr.app import Message, RecordDict
from flwr.serverapp import Grid

from fedsec.errors import ConfigError
from fedsec.flower.combination import Combination, Weighted
from fedsec.flower.messages import Metrics
from fedsec.flower.replies import mean_metrics
from fedsec.flower.reporting import ROUND, Json
from fedsec.flower.rounds import Evaluation, Rounds
from fedsec.flower.strategy import Mean, ServerState
from fedsec.flower.table import ALGORITHMS, combination, weighting
from fedsec.flwr_compat import Run
from fedsec.plan import FederationPlan
from fedsec.tasks.arrays import get_arrays, set_arrays
from fedsec.tasks.table import load_task
from fedsec.tasks.task import Task, evaluate
from fedsec_sim.collecting import Attendance, Meddler, Simulated, everybody, wave
from fedsec_sim.engines.choose import Kind, choose
from fedsec_sim.engines.engine import Bench
from fedsec_sim.history import History, Row
from fedsec_sim.population import Population, load_population


class Watcher(Protocol):
    """Sees a simulation go on."""

    def begin(self, about: Row) -> None:
        """The first round is about to begin; see `History` for what `about` holds."""
        ...

    def round(self, row: Row) -> None:
        """A round is done."""
        ...


class Nobody:
    """Watches nothing."""

    def begin(self, about: Row) -> None:
        """See `Watcher`."""

    def round(self, row: Row) -> None:
        """See `Watcher`."""


NOBODY = Nobody()


@dataclass(frozen=True, eq=False)
class Lab:
    """What a plan does not say: who takes part, and what goes wrong.

    Args:
        population: The nodes; None: as many as the plan asks for, with the task's own data.
        nodes: How many, where `population` is None.
        data: The nodes' settings of the data set, where `population` is None.
        attend: Who answers in a round.
        meddle: An attack on the updates.
    """

    population: Population | None = None
    nodes: int | None = None
    data: Mapping[str, object] = field(default_factory=dict)
    attend: Attendance = everybody
    meddle: Meddler | None = None


def simulate(
    plan: FederationPlan | str | Path,
    *,
    lab: Lab | None = None,
    task: Task | None = None,
    combine: Combination | None = None,
    engine: Kind = "auto",
    workers: int | None = None,
    watch: Watcher = NOBODY,
) -> History:
    """Runs a whole plan and returns what happened; Ctrl-C ends it early, with what is done.

    Args:
        plan: Of the built-in app; or its TOML; or the file that holds it.
        lab: Nodes and attacks.
        task: Instead of the one that the plan names.
        combine: Instead of what the plan makes of the rows.
        engine: ``"loop"``, ``"vmap"``, or ``"auto"`` to take the faster one that is right.
        workers: Processes; None: one for each processor, where that pays.
        watch: Is shown what happens.

    Raises:
        ConfigError: Plan, data or engine do not fit together.
        StateError: A round did not come about.
    """
    plan, lab = read(plan), lab or Lab()
    wanted, training = plan.learning
    task = task or load_task(wanted.name)
    with one_thread():
        population = lab.population or load_population(
            task, lab.nodes or plan.nodes.min_available, lab.data
        )
        check_size(plan, population)
        bench = Bench.of(plan, task, population)
        state = ServerState.begin(get_arrays(bench.model), ALGORITHMS[training.algorithm](training))
        combine = combine or combination(plan)
        whole = lab.meddle is not None or combine != Weighted(Mean())
        cohort = plan.nodes.cohort(len(population))
        at_once = cohort if whole else min(cohort, wave(state.layout.size))
        chosen = choose(bench, state.vector, kind=engine, workers=workers, cohort=at_once)
        collect = Simulated(
            chosen.engine,
            population,
            state.layout,
            weighting(training),
            whole=whole,
            attend=lab.attend,
            meddle=lab.meddle,
        )
        about = describe(plan, population) | {
            "cohort": cohort,
            "engine": chosen.engine.name,
            "reason": chosen.reason,
        }
        watch.begin(about)
        record = _Record(watch)
        rounds = Rounds(
            plan,
            _Roll(population.ids),
            record,
            size=state.layout.size,
            evaluation=_evaluation(plan, bench),
            collect=collect,
            combine=combine,
        )
        interrupted = False
        try:
            for number in range(1, training.rounds + 1):
                state = rounds(state, number)
        except KeyboardInterrupt:
            interrupted = True
        finally:
            chosen.engine.close()
    return History(about, tuple(record.rows), state, interrupted)


def read(plan: FederationPlan | str | Path) -> FederationPlan:
    """Returns the plan that somebody gave as a value, as TOML, or as a file.

    Raises:
        ConfigError: It is wrong, cannot be read, or is for a Flower app.
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
            f"the plan is for the Flower app {plan.app.name!r}: simulate it with `flwr run`, or "
            'with engine = "network"'
        )
    return plan


def check_size(plan: FederationPlan, population: Population) -> None:
    """Raises ConfigError if there are fewer nodes than the plan waits for."""
    if len(population) < plan.nodes.min_available:
        raise ConfigError(
            f"{len(population)} nodes are fewer than nodes.min_available = "
            f"{plan.nodes.min_available}, for which the run would wait"
        )


def describe(plan: FederationPlan, population: Population) -> dict[str, Json]:
    """Returns what a history says about a simulation, but for the engine."""
    wanted, training = plan.learning
    return {
        "name": plan.name,
        "plan": plan.digest,
        "task": wanted.name,
        "nodes": len(population),
        "seed": training.seed,
        "fedsec": version("fedsec"),
        "torch": torch.__version__,
        "numpy": np.__version__,
    }


@contextmanager
def one_thread() -> Iterator[None]:
    """Keeps torch to one thread inside: a node's model is too small for two to agree on."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


class _Record:
    """Keeps rounds' reports; see `fedsec.flower.reporting.Reporter`."""

    def __init__(self, watch: Watcher) -> None:
        self.rows: list[Row] = []
        self._watch = watch
        self._before = time.perf_counter()

    def report(self, kind: str, detail: Mapping[str, Json]) -> None:
        """Keeps a round, with how many nodes it trained in a second."""
        if kind != ROUND:
            return
        now = time.perf_counter()
        answered = detail["answered"]
        trained = len(answered) if isinstance(answered, list) else 0
        row = {**detail, "updates_per_s": round(trained / (now - self._before), 1)}
        self._before = now
        self.rows.append(row)
        self._watch.round(row)


class _Roll(Grid):
    """Knows who is there, and reaches nobody: in a simulation nobody is asked."""

    def __init__(self, ids: Sequence[int]) -> None:
        self._ids = ids

    def get_node_ids(self) -> Iterable[int]:
        """Returns all ids."""
        return self._ids

    def set_run(self, run: Run) -> None:
        """Is not needed."""
        raise NotImplementedError

    @property
    def run(self) -> Run:
        """There is none."""
        raise NotImplementedError

    def create_message(
        self,
        content: RecordDict,
        message_type: str,
        dst_node_id: int,
        group_id: str,
        ttl: float | None = None,
    ) -> Message:
        """Is not needed."""
        raise NotImplementedError

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Is not needed."""
        raise NotImplementedError

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Is not needed."""
        raise NotImplementedError

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> Iterable[Message]:
        """Is not needed."""
        raise NotImplementedError


def _evaluation(plan: FederationPlan, bench: Bench) -> Evaluation:
    """Returns how a state is evaluated: centrally where the task has data for it, else by nodes."""
    central, tests = bench.task.central_test(), bench.population.test
    weigh = weighting(plan.learning[1])

    def evaluation(state: ServerState) -> Mapping[str, float]:
        set_arrays(bench.model, state.arrays())
        if central is not None:
            return evaluate(bench.task, bench.model, central)
        if tests is None:
            return {}
        found = []
        for node, size in enumerate(tests.sizes.tolist()):
            values = evaluate(bench.task, bench.model, tests.examples(node))
            if all(map(math.isfinite, values.values())):
                found.append(Metrics(size, values))
        weights = weigh([each.examples for each in found]) if found else np.zeros(0)
        return mean_metrics(found, weights)

    return evaluation
