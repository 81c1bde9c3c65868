"""A plan on one machine: `simulate(plan) -> History`.

The round loop, the weights, the rule and all else that a plan names are the coordinator's own;
nodes are trained by an engine instead of being asked. Given the same ids, plan and data, a
simulation gives what a federation gives.
"""

from pathlib import Path
from typing import Literal, TypeAlias

from flwr.serverapp import Grid

from fedsec.errors import ConfigError
from fedsec.flower.combination import Combination
from fedsec.plan import FederationPlan
from fedsec.processors import processors
from fedsec.tasks.task import Task
from fedsec_sim.engines.choose import Chosen, Kind, choose
from fedsec_sim.engines.loop import Loop
from fedsec_sim.history import History, Row
from fedsec_sim.lab import Lab
from fedsec_sim.record import NOBODY, Watcher, one_thread
from fedsec_sim.setting import Collecting, Setting, describe, prepare, read, run_rounds
from fedsec_sim.variation import AttackLike, RuleLike, vary

EngineName: TypeAlias = Literal["auto", "loop", "vmap", "ray", "ray-nodes", "network"]
"""The first three train in this process and its forks.

``"ray"``: Flower's simulation engine, one message per worker; ``"ray-nodes"``: one per node, as
when deployed; ``"network"``: a coordinator and nodes, processes with mutual TLS.
"""


def simulate(
    plan: FederationPlan | str | Path,
    lab: Lab | None = None,
    *,
    task: Task | None = None,
    rule: RuleLike | None = None,
    attack: AttackLike | None = None,
    byzantine: int | None = None,
    combine: Combination | None = None,
    collect: Collecting | None = None,
    engine: EngineName = "auto",
    workers: int | None = None,
    watch: Watcher = NOBODY,
) -> History:
    """Runs a whole plan and returns what happened; Ctrl-C ends it early, with what is done.

    Args:
        plan: Of the built-in app; or its TOML; or the file that holds it.
        lab: What a plan does not say: nodes, data, machines, adversaries.
        task: Instead of the one that the plan names.
        rule: Instead of the plan's: the name of a rule, or a table as ``[robust]`` in a plan;
            ``"none"``: the mean.
        attack: What adversaries do: a word as ``"alie:z=1.5"`` or ``"label-flip"``, or an attack.
        byzantine: How many they are; a `rule` is told the same number. None: one node in five.
        combine: Instead of what the plan makes of the rows.
        collect: Instead of what the plan lets the coordinator see of the nodes' rows.
        engine: Which one; ``"auto"`` takes vmap where it is right, else the loop.
        workers: Processes; None: one for each processor, where that pays.
        watch: Is shown what happens.

    Raises:
        ConfigError: Plan, data or engine do not fit together.
        StateError: A round did not come about.
    """
    text, made = read(plan)
    lab = lab or Lab()
    if rule is not None or attack is not None or byzantine is not None:
        made, lab = vary(made, lab, rule, attack, byzantine)
        text = None if rule is not None else text
    with one_thread():
        setting = prepare(made, lab, task, combine, collect)
        match engine:
            case "ray":
                return _on_ray(setting, workers or processors(), watch)
            case "ray-nodes":
                return _node_by_node(setting, _whole_text(text, engine), watch)
            case "network":
                return _on_network(setting, _whole_text(text, engine), watch)
        return _in_process(setting, engine, workers, watch)


def _in_process(setting: Setting, kind: Kind, workers: int | None, watch: Watcher) -> History:
    chosen = choose(
        setting.bench, setting.state.vector, kind=kind, workers=workers, cohort=setting.at_once
    )
    try:
        return run_rounds(setting, chosen, watch)
    finally:
        chosen.engine.close()


def _on_ray(setting: Setting, workers: int, watch: Watcher) -> History:
    from fedsec_sim.engines.ray_blocks import RayBlocks, Recipe, block_app  # noqa: PLC0415 - Ray's
    from fedsec_sim.runtimes import in_flower  # noqa: PLC0415 - brings the programs along

    def body(grid: Grid) -> History:
        nodes = sorted(grid.get_node_ids())
        blocks = RayBlocks(grid, nodes, setting.state.layout.size)
        return run_rounds(setting, Chosen(blocks, ""), watch)

    recipe = Recipe(setting.plan, setting.lab, setting.bench.task)
    return in_flower(body, block_app(recipe), workers)


def _node_by_node(setting: Setting, text: str, watch: Watcher) -> History:
    from fedsec_sim.runtimes import deployed_app, in_flower, partitions  # noqa: PLC0415 - as above

    _plain(setting, "ray-nodes")

    def body(grid: Grid) -> History:
        told: Row = {"engine": "ray-nodes", "ids": [*partitions(grid)]}
        chosen = Chosen(Loop(setting.bench), "")
        return run_rounds(setting, chosen, watch, grid=grid, told=told)

    app = deployed_app(text, setting.lab.settings(setting.plan))
    return in_flower(body, app, len(setting.bench.population))


def _on_network(setting: Setting, text: str, watch: Watcher) -> History:
    from fedsec_sim.runtimes import in_network  # noqa: PLC0415 - as above

    _plain(setting, "network")
    if setting.plan.robust is not None and setting.plan.robust.root is not None:
        raise ConfigError('engine "network" gives its coordinator no robust.root data; use another')
    return in_network(
        text,
        nodes=len(setting.bench.population),
        data=setting.lab.settings(setting.plan),
        name=setting.plan.learning[0].data,
        state=setting.state,
        about={**describe(setting), "engine": "network", "reason": ""},
        watch=watch,
    )


def _plain(setting: Setting, engine: str) -> None:
    """Raises ConfigError where nodes are to be other than deployed ones are."""
    lab = setting.lab
    if lab.population or lab.split or lab.systems or lab.threat or lab.momentum:
        raise ConfigError(
            f'engine "{engine}" runs nodes as deployed ones: no split, systems, attack or momentum'
        )


def _whole_text(text: str | None, engine: str) -> str:
    if text is None:
        raise ConfigError(
            f'engine "{engine}" wants the plan as TOML, byte for byte, or as a file, and no rule'
        )
    return text
