"""All runs of a coordinator: queued, started, stopped, and what became of them.

    submit --> pending (queued: `limits.max_runs` are active) --> pending (started) --> running
    pending, running --> finished | failed | stopped

A run is active from the start of its process to the end of it. What is pending when the
coordinator ends is queued again at its next start, for nothing of it has happened yet; what was
running is failed then, with the reason.
"""

import asyncio
import json
import logging
import time
from collections import deque
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path

from fedsec.data.files import anchored
from fedsec.errors import ConfigError, FedsecError, StateError
from fedsec.files import make_private_directory, write_private
from fedsec.identity.names import parse_spiffe
from fedsec.plan import FederationPlan
from fedsec.wire.generated.local_pb2 import Peer, PrivacyLedger, RunStart
from fedsec_server.events import run_subject
from fedsec_server.exchange import Exchange
from fedsec_server.journal import Journal
from fedsec_server.kinds import is_own
from fedsec_server.layout import Layout
from fedsec_server.rosters import Published, required
from fedsec_server.runner import PATIENCE, Outcome, Patience, Runner
from fedsec_server.settings import ServerSettings
from fedsec_server.spent import charges_here, check_spent
from fedsec_server.state.store import Store
from fedsec_server.state.values import RunRecord, RunState

BUILT_IN = "fedsec_server.server_app:app"
ROUND, MODEL = "round", "model"  # kinds of events that an app reports and we look at

_LOG = logging.getLogger(__name__)
_MAX_QUEUED = 1000
_SHUT_DOWN = "the coordinator was shut down"


class RunManager:
    """Starts and stops runs. Belongs to the event loop; one per coordinator.

    Args:
        exchange: Where run processes meet the fleet.
        store: Keeps runs.
        journal: Takes events and changes of state, in order.
        settings: Limits and installed apps.
        layout: Where the runs' directories lie.
        patience: How long a run process is waited for.
        clock: Unix seconds.
    """

    def __init__(
        self,
        exchange: Exchange,
        *,
        store: Store,
        journal: Journal,
        settings: ServerSettings,
        layout: Layout,
        patience: Patience = PATIENCE,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._exchange = exchange
        self._store = store
        self._journal = journal
        self._settings = settings
        self._layout = layout
        self._patience = patience
        self._clock = clock
        self._queue: deque[RunRecord] = deque()
        self._active: dict[int, tuple[Runner, asyncio.Task[None]]] = {}
        self._closing = False

    async def start(self) -> None:
        """Takes up what an earlier coordinator left: fails what was running, queues the rest."""
        for run in await self._journal.write(self._store.runs):
            if run.state is RunState.RUNNING:
                reason = "the coordinator ended while the run was active; submit its plan again"
                await self._end(run.run_id, Outcome(RunState.FAILED, reason))
            elif run.state is RunState.PENDING:
                self._queue.append(run)
        try:
            await asyncio.to_thread(self._check_spent)
        except FedsecError as error:
            _LOG.warning("%s", error)
        self._start_queued()

    async def submit(self, plan_toml: str, by: str) -> int:
        """Takes a new run of a plan and returns its id. It starts now, or when there is room.

        Args:
            plan_toml: The plan's text.
            by: SPIFFE id of who submits it.

        Raises:
            ConfigError: The plan is wrong, or names an app or root data that are not here.
            StateError: The coordinator is shutting down, too many runs are queued, the plan
                needs a signed roster and there is none that holds, or the plan spends privacy and
                the ledger has forgotten what was spent.
        """
        plan = await asyncio.to_thread(FederationPlan.parse, plan_toml)  # it may take its time
        self._app(plan)
        self._root_data(plan)
        await asyncio.to_thread(self._roster, plan)
        await asyncio.to_thread(self._check_spent, plan_toml)
        if self._closing:
            raise StateError("the coordinator is shutting down; submit the plan when it is back")
        if len(self._queue) >= _MAX_QUEUED:
            raise StateError(f"{_MAX_QUEUED} runs are queued already; stop some, or wait")
        run = await self._journal.write(self._create, plan, plan_toml, by)
        detail = {"name": run.name, "plan_digest": run.plan_digest, "by": by}
        self._note("run-submitted", run.run_id, detail)
        self._queue.append(run)
        self._start_queued()
        return run.run_id

    async def stop(self, run_id: int, by: str) -> RunState:
        """Stops a run at any stage and returns its state once it has ended.

        A run that has ended stays as it ended. A process that does not end by itself is killed
        within `patience`.

        Raises:
            StateError: There is no such run.
        """
        *_, role, name = parse_spiffe(by)
        reason = f"stopped by {role} {name}"
        for run in self._queue:
            if run.run_id == run_id:
                self._queue.remove(run)
                await self._end(run_id, Outcome(RunState.STOPPED, reason))
                break
        if run_id in self._active:
            runner, task = self._active[run_id]
            runner.stop(reason)
            await asyncio.wait({task})
        return (await self._journal.write(self._store.run, run_id)).state

    async def model_path(self, run_id: int, round_number: int = 0) -> Path:
        """Returns the file of a model that the run reported; `round_number` 0: the newest.

        Raises:
            StateError: There is no such run, or no such model (yet).
        """
        return await asyncio.to_thread(self._find_model, run_id, round_number)

    @property
    def active(self) -> int:
        """How many runs have a process now."""
        return len(self._active)

    async def close(self) -> None:
        """Ends all active runs: their processes are told, later killed. Queued ones stay so.

        Cancelled, it kills them at once.
        """
        self._closing = True
        tasks = [task for _, task in self._active.values()]
        for runner, _ in list(self._active.values()):
            runner.stop(_SHUT_DOWN)
        try:
            await asyncio.gather(*tasks)
        except asyncio.CancelledError:  # which went to the tasks, too
            await asyncio.gather(*tasks, return_exceptions=True)
            raise

    # --- inside ------------------------------------------------------------------------------

    def _app(self, plan: FederationPlan) -> tuple[str, str]:
        """Returns (directory, "module:attribute") of the app that a plan names."""
        if plan.built_in:
            return "", BUILT_IN
        installed = self._settings.apps.get(plan.app.name)
        if installed is None:
            names = ", ".join(sorted(self._settings.apps)) or "none"
            raise ConfigError(
                f"app.name: {plan.app.name!r} is not installed on this coordinator; installed "
                f"besides 'fedsec': {names}. An operator adds it to [apps] in server.toml"
            )
        return installed.directory or "", installed.server or ""

    def _roster(self, plan: FederationPlan) -> Published | None:
        """Returns the signed roster by which the plan's nodes go; None where they need none."""
        secure = plan.secure_aggregation
        if secure is None or secure.mode != "malicious":
            return None
        return required(self._layout, now=datetime.fromtimestamp(self._clock(), UTC))

    def _check_spent(self, plan: str | None = None) -> None:
        """Refuses a ledger that has forgotten, for a plan that is charged there or None."""
        if plan is None or charges_here(plan):
            check_spent(self._layout.ledger, self._store.runs())

    def _root_data(self, plan: FederationPlan) -> str:
        """Returns the table of the data that the plan's rule trusts, as JSON; "" where none."""
        name = plan.robust.root if plan.robust is not None else None
        if name is None:
            return ""
        if name not in self._settings.data:
            names = ", ".join(sorted(self._settings.data)) or "none"
            raise ConfigError(
                f"robust.root: this coordinator has no data {name!r}; it has: {names}. An operator "
                f"adds [data.{name}] to server.toml"
            )
        options = self._settings.data[name].options
        return json.dumps(anchored(options, self._layout.directory), sort_keys=True)

    def _create(self, plan: FederationPlan, plan_toml: str, by: str) -> RunRecord:
        """Makes the run's row and directory. In the journal's thread."""
        run = self._store.create_run(
            name=plan.name,
            plan=plan_toml,
            plan_digest=plan.digest,
            rounds=plan.training.rounds if plan.training else 0,
            submitted_by=by,
            now=self._clock(),
        )
        directory = self._layout.run(run.run_id)
        make_private_directory(directory)
        make_private_directory(directory / "models")
        write_private(directory / "plan.toml", plan_toml.encode())
        return run

    def _find_model(self, run_id: int, round_number: int) -> Path:
        self._store.run(run_id)
        directory = self._layout.run(run_id).resolve()
        for event in reversed(self._store.events(run_id=run_id)):
            if event.kind != MODEL or round_number not in {0, event.detail.get("round")}:
                continue
            path = (directory / str(event.detail.get("path", ""))).resolve()
            if path.is_relative_to(directory) and path.is_file():
                return path
        which = f"of round {round_number} " if round_number else ""
        raise StateError(f"run {run_id} has stored no model {which}(yet); see `fedsec run show`")

    def _start_queued(self) -> None:
        while self._queue and len(self._active) < self._settings.limits.max_runs:
            if self._closing:
                return
            run = self._queue.popleft()
            try:
                runner = self._runner(run)
            except FedsecError as error:  # the app was uninstalled while the run was queued
                self._write_end(run.run_id, Outcome(RunState.FAILED, str(error)))
                continue
            task = asyncio.create_task(self._run(run, runner))
            self._active[run.run_id] = runner, task

    def _runner(self, run: RunRecord) -> Runner:
        plan = FederationPlan.parse(run.plan)
        app_directory, app = self._app(plan)
        roster = self._roster(plan)
        keys = roster.roster.keys if roster else {}
        budget = self._settings.privacy
        start = RunStart(
            run_id=run.run_id,
            plan=run.plan,
            directory=str(self._layout.run(run.run_id).resolve()),
            app_directory=app_directory,
            app=app,
            root_data=self._root_data(plan),
            member=[Peer(node_id=node, signing_key=key) for node, key in keys.items()],
            ledger=PrivacyLedger(
                path=str(self._layout.ledger.resolve()),
                epsilon=budget.epsilon or 0.0,
                delta=budget.delta or 0.0,
            ),
        )
        return Runner(
            start,
            reconnect_s=plan.round.reconnect_s,
            roster=roster.signed if roster else b"",
            exchange=self._exchange,
            on_ready=lambda: self._on_ready(run.run_id),
            on_record=lambda kind, detail: self._on_record(run.run_id, kind, detail),
            patience=self._patience,
        )

    async def _run(self, run: RunRecord, runner: Runner) -> None:
        run_id = run.run_id
        try:
            outcome = await self._unpaid(run) or await runner.run()
        except asyncio.CancelledError:
            self._write_end(run_id, Outcome(RunState.STOPPED, _SHUT_DOWN))
            raise
        except OSError as error:
            outcome = Outcome(RunState.FAILED, f"the run's process cannot be started: {error}")
        except Exception:  # noqa: BLE001 - whatever it was, the run has ended by it
            _LOG.exception("run %d", run_id)
            outcome = Outcome(RunState.FAILED, "the coordinator failed at it; see its log")
        await self._end(run_id, outcome)
        del self._active[run_id]
        self._start_queued()

    async def _unpaid(self, run: RunRecord) -> Outcome | None:
        """Returns how a run ends at once, whose ledger has forgotten what was spent."""
        try:
            await asyncio.to_thread(self._check_spent, run.plan)
        except FedsecError as error:
            return Outcome(RunState.FAILED, str(error))
        return None

    def _on_ready(self, run_id: int) -> None:
        self._set_state(run_id, Outcome(RunState.RUNNING))
        self._note("run-started", run_id)

    def _on_record(self, run_id: int, kind: str, detail: Mapping[str, object]) -> None:
        if is_own(kind):
            _LOG.error("run %d reported %r, which is for the coordinator to say", run_id, kind)
            return
        completed = detail.get("round")
        if kind == ROUND and isinstance(completed, int):
            self._journal.soon(self._store.set_run_round, run_id, completed)
        self._note(kind, run_id, detail)

    async def _end(self, run_id: int, outcome: Outcome) -> None:
        self._write_end(run_id, outcome)
        await self._journal.write(lambda: None)  # until all before it is written

    def _write_end(self, run_id: int, outcome: Outcome) -> None:
        self._set_state(run_id, outcome)
        self._note(f"run-{outcome.state.value}", run_id, {"reason": outcome.reason})

    def _set_state(self, run_id: int, outcome: Outcome) -> None:
        def write() -> None:
            self._store.set_run_state(
                run_id, outcome.state, now=self._clock(), reason=outcome.reason
            )

        self._journal.soon(write)

    def _note(self, kind: str, run_id: int, detail: Mapping[str, object] | None = None) -> None:
        self._journal.note(kind, run_subject(run_id), detail, run_id)
