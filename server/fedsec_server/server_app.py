"""The built-in ServerApp: trains the plan's task over the grid, round by round.

It reads the plan from ``run_config["fedsec-plan"]`` and keeps models under
``run_config["fedsec-directory"]``, in ``models/``; without a directory it keeps none and says so.
Data that a rule trusts are named by ``run_config["fedsec-root"]``.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from flwr.app import Context
from flwr.serverapp import Grid, ServerApp

from fedsec import __version__
from fedsec.artifacts import write_model
from fedsec.errors import ConfigError, DataError
from fedsec.flower.publishing import DIRECTORY_KEY, take_on
from fedsec.flower.records import DIRECTORY, NodeRecord, RecordFiles
from fedsec.flower.reporting import MODEL, NOTE, Reporter, reporter_of
from fedsec.flower.robust import RootUpdate
from fedsec.flower.root import RootTraining
from fedsec.flower.rounds import Evaluation, Rounds
from fedsec.flower.strategy import ServerState
from fedsec.flower.table import ALGORITHMS, collection, combination
from fedsec.plan import FederationPlan
from fedsec.tasks.arrays import get_arrays, set_arrays
from fedsec.tasks.table import load_task
from fedsec.tasks.task import Task, evaluate

PLAN_KEY, ROSTER_KEY, ROOT_KEY = "fedsec-plan", "fedsec-roster", "fedsec-root"

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Runs the whole plan.

    Raises:
        ConfigError: The plan is wrong, or the task or its options are.
        StateError: Too few nodes came, or a round missed its quorum in every attempt.
        BudgetExhausted: The plan, or a release of it, costs more privacy than is left.
    """
    text = context.run_config.get(PLAN_KEY)
    if not isinstance(text, str):
        raise ConfigError(f"run_config[{PLAN_KEY!r}] must hold the plan, as TOML; it is missing")
    plan = FederationPlan.parse(text)
    wanted, training = plan.learning
    task = load_task(wanted.name, plan.data)
    model = task.make_model(wanted.options, training.seed)
    state = ServerState.begin(get_arrays(model), ALGORITHMS[training.algorithm](training))
    reporter = reporter_of(grid)
    publish = take_on(plan, context.run_config, run=context.run_id)
    rounds = Rounds(
        plan,
        grid,
        reporter,
        size=state.layout.size,
        collect=collection(plan, state.layout.size, roster_keys(context)),
        evaluation=central_evaluation(plan, task),
        keep_records=records_keeper(plan, context),
        combine=combination(plan, publish=publish, root=root_update(plan, task, context)),
    )
    keep = keeper(plan, context, reporter)
    rounds.wait_for(plan.nodes.min_available)
    run(rounds, state, training.rounds, keep)


def roster_keys(context: Context) -> dict[int, bytes] | None:
    """Returns the signing keys of the roster that the run's nodes go by; None where there is none.

    Raises:
        ConfigError: ``run_config["fedsec-roster"]`` is not what the run process writes.
    """
    text = context.run_config.get(ROSTER_KEY)
    if text is None:
        return None
    try:
        return {int(node): bytes.fromhex(key) for node, key in json.loads(str(text)).items()}
    except (ValueError, AttributeError, TypeError) as error:
        raise ConfigError(f"run_config[{ROSTER_KEY!r}] is no object of keys by node id") from error


def root_update(plan: FederationPlan, task: Task, context: Context) -> RootUpdate | None:
    """Returns what makes the update that the plan's rule trusts; None where it trusts none.

    The data's table is JSON in ``run_config["fedsec-root"]``; they are read once, here.

    Raises:
        ConfigError: The table is wrong.
        DataError: The data cannot be used.
    """
    text = context.run_config.get(ROOT_KEY)
    name = plan.robust.root if plan.robust is not None else None
    if name is None or text is None:
        return None
    try:
        return RootTraining(plan, task, task.load(json.loads(str(text))).train)
    except DataError as error:
        raise DataError(error.detail, name) from error
    except (ConfigError, ValueError) as error:
        raise ConfigError(f"[data.{name}] {error}") from error


def run(
    rounds: Callable[[ServerState, int], ServerState],
    state: ServerState,
    last: int,
    keep: Callable[[ServerState], None],
) -> ServerState:
    """Returns the state after round `last`; continues wherever `state` is.

    Args:
        rounds: Carries out one round.
        state: Of the first round to continue from.
        last: Number of the last round.
        keep: Is shown every new state.
    """
    for number in range(state.round + 1, last + 1):
        state = rounds(state, number)
        keep(state)
    return state


def central_evaluation(plan: FederationPlan, task: Task) -> Evaluation | None:
    """Returns how a state is evaluated on the task's central test set; None if it has none."""
    data = task.central_test()
    if data is None:
        return None
    wanted, training = plan.learning
    model = task.make_model(wanted.options, training.seed)

    def evaluation(state: ServerState) -> Mapping[str, float]:
        set_arrays(model, state.arrays())
        return evaluate(task, model, data)

    return evaluation


def records_keeper(
    plan: FederationPlan, context: Context
) -> Callable[[int, Sequence[NodeRecord]], None] | None:
    """Returns what keeps the records of nodes; None: they are reported with the rounds.

    Central privacy does not cover them: they stay in a file of the coordinator's operator, or,
    without a directory, nowhere.
    """
    if plan.privacy is None or plan.privacy.model != "central":
        return None
    directory = context.run_config.get(DIRECTORY_KEY)
    return (
        RecordFiles(Path(str(directory)) / DIRECTORY) if directory else lambda _round, _told: None
    )


def keeper(
    plan: FederationPlan, context: Context, reporter: Reporter
) -> Callable[[ServerState], None]:
    """Returns what stores a state's model, if the plan wants that one, and reports it."""
    directory = context.run_config.get(DIRECTORY_KEY)
    if not directory:
        reporter.report(NOTE, {"text": f"no {DIRECTORY_KEY!r} is set: the model is not kept"})
        return lambda _state: None
    base = Path(str(directory))
    try:
        (base / "models").mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"{DIRECTORY_KEY} = {base}: no models can be kept: {error}") from error
    wanted, training = plan.learning

    def keep(state: ServerState) -> None:
        every, final = plan.model.save_every, state.round == training.rounds
        if not final and (every == 0 or state.round % every):
            return
        name = f"models/round-{state.round:05d}.safetensors"
        metadata = {
            "plan": plan.digest,
            "round": str(state.round),
            "run": str(context.run_id),
            "task": wanted.name,
            "software": f"fedsec {__version__}",
        }
        digest = write_model(base / name, state.arrays(), metadata)
        reporter.report(
            MODEL, {"round": state.round, "path": name, "digest": digest, "final": final}
        )

    return keep
