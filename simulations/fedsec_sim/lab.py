"""What a plan does not say: who takes part, with which data, on what machines, and who cheats."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from fedsec.data.settings import CONNECTORS, READERS
from fedsec.errors import ConfigError
from fedsec.flower.reporting import Json
from fedsec.flower.robust import RootUpdate
from fedsec.flower.strategy import Matrix
from fedsec.flower.table import local_training
from fedsec.plan import FederationPlan
from fedsec.plan.figures import joined_of
from fedsec.tasks.task import Task
from fedsec.vectors import Vector
from fedsec_sim.collecting import Attendance, Meddler, Turn, everybody
from fedsec_sim.defences import Joining, LocalNoise
from fedsec_sim.engines.engine import Bench
from fedsec_sim.partitions import Split
from fedsec_sim.population import Population, load_population
from fedsec_sim.roots import RootOnce, root_examples
from fedsec_sim.systems import Clockwork, Systems
from fedsec_sim.threats import Attacker, Momentum, Stages, Threat, poisoned
from fedsec_sim.workloads.pool import pool_of


@dataclass(frozen=True, eq=False)
class Lab:
    """The surroundings of a simulated plan.

    Args:
        nodes: How many; None: as many as the plan waits for.
        split: How the task's pool of examples is divided; None: nodes read data as deployed ones.
        data: The nodes' settings of the data set, where there is no split.
        root: The coordinator's settings of the data that the plan's ``robust.root`` names, as in
            its `server.toml`; none: 100 of the nodes' examples are drawn.
        ids: Flower's ids of the nodes, in the order of their partitions; none: from 100 on.
        population: Nodes that are made already; then nothing of the above counts.
        systems: Speeds and losses; None: all answer.
        threat: Adversaries; None: all are honest.
        momentum: Decay of a sum of updates that nodes keep and send, in [0, 1); see `Momentum`.
    """

    nodes: int | None = None
    split: Split | None = None
    data: Mapping[str, object] = field(default_factory=dict)
    root: Mapping[str, object] = field(default_factory=dict)
    ids: tuple[int, ...] = ()
    population: Population | None = None
    systems: Systems | None = None
    threat: Threat | None = None
    momentum: float = 0.0

    @property
    def meddles(self) -> bool:
        """Whether somebody changes updates."""
        return self.momentum > 0 or (self.threat is not None and self.threat.attack is not None)

    def populate(self, plan: FederationPlan, task: Task) -> Population:
        """Returns the nodes, the adversaries' data poisoned.

        Raises:
            ConfigError: There are too few examples, or settings are wrong.
        """
        made, seed = self._clean(plan, task), plan.learning[1].seed
        if self.threat is None or self.threat.poison is None:
            return made
        return poisoned(made, self.threat.members(made, seed), self.threat.poison, seed)

    def _clean(self, plan: FederationPlan, task: Task) -> Population:
        """Returns the nodes before any is poisoned."""
        seed, count = plan.learning[1].seed, self.nodes or plan.nodes.min_available
        if self.population is not None:
            return self.population
        if self.split is not None:
            return Population(self.split(pool_of(task), count, seed))
        return load_population(task, count, self.settings(plan), self.ids)

    def settings(self, plan: FederationPlan) -> Mapping[str, object]:
        """Returns the nodes' settings of the data set, with the connector where there is but one.

        Raises:
            ConfigError: The task reads files, and nobody says which.
        """
        name = plan.learning[0].name
        readers = [each for each in CONNECTORS if READERS.get(each) == name]
        if "connector" in self.data or not readers:
            return self.data
        if len(readers) == 1:
            return {"connector": readers[0], **self.data}
        kinds = ", ".join(readers)
        raise ConfigError(
            f'task "{name}" reads files, and a plan does not say which: give what a node has under '
            f"[data.{plan.learning[0].data}], e.g. --data connector={readers[0]} --data KEY=VALUE "
            f"(connectors: {kinds}; their keys: `fedsec node data reference`); the records are "
            "divided among the nodes"
        )

    def root_update(self, plan: FederationPlan, task: Task) -> RootUpdate | None:
        """Returns what makes the update that the plan's rule trusts; None where it trusts none.

        Raises:
            ConfigError: The settings are wrong, or are given and the plan reads none.
        """
        if plan.robust is None or plan.robust.root is None:
            if self.root:
                raise ConfigError("root data are given, but the plan has no robust.root")
            return None
        clean, seed = self._clean(plan, task), plan.learning[1].seed
        return RootOnce(plan, task, root_examples(task, clean, self.root, seed))

    def attend(self, plan: FederationPlan, bench: Bench) -> Attendance:
        """Returns who answers in a round."""
        if self.systems is None:
            return everybody
        training, population = local_training(plan.learning[1]), bench.population

        def work(node: int) -> int:
            examples = int(population.train.sizes[population.position[node]])
            if training.steps is None:
                return examples * (training.epochs or 1)
            return min(training.batch_size, examples) * training.steps

        return Clockwork(
            self.systems,
            work,
            size=4 * bench.layout.size,
            deadline_s=plan.round.deadline_s,
            seed=plan.learning[1].seed,
        )

    def meddle(
        self, plan: FederationPlan, bench: Bench, rule: Callable[[Matrix, Turn], Vector]
    ) -> Meddler | None:
        """Returns who changes updates; `rule` is what adversaries may try them out on."""
        stages: list[Meddler] = []
        if self.momentum:
            stages.append(Momentum(self.momentum, bench.layout.size))
        if plan.privacy is not None and plan.privacy.model == "local":
            stages.append(LocalNoise(plan))
        if (joined := joined_of(plan)) is not None:
            stages.append(Joining(joined))
        if self.threat is not None and self.threat.attack is not None:
            members = self.senders(plan, bench.population)
            stages.append(Attacker(self.threat.attack, members, plan.learning[1].seed, rule))
        return Stages(tuple(stages)) if stages else None

    def senders(self, plan: FederationPlan, population: Population) -> frozenset[int]:
        """Returns the ids of adversaries that send what they like, whatever their software does."""
        if self.threat is None or self.threat.attack is None:
            return frozenset()
        return frozenset(self.threat.members(population, plan.learning[1].seed))

    def describe(self) -> dict[str, Json]:
        """Returns what a history says about these surroundings."""
        told: dict[str, Json] = {name: str(value) for name, value in sorted(self.data.items())}
        told |= {f"root.{name}": str(value) for name, value in sorted(self.root.items())}
        told |= {"momentum": self.momentum} if self.momentum else {}
        said = {"split": self.split, "systems": self.systems, "threat": self.threat}
        return told | {name: str(value) for name, value in said.items() if value is not None}
