"""Runs the cells of a grid side by side; what is done is kept and never done again."""

import copy
import json
import math
import multiprocessing
import statistics
import subprocess
import time
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal, TypeAlias

import torch
from pydantic import ValidationError

from fedsec.errors import ConfigError, FedsecError
from fedsec.plan import FederationPlan
from fedsec.plan.compat import refusals
from fedsec_sim.grids.grid import Cell
from fedsec_sim.lab import Lab
from fedsec_sim.partitions import HonestOnly, make_split
from fedsec_sim.population import FIRST_ID
from fedsec_sim.simulate import simulate
from fedsec_sim.spec import parse_spec
from fedsec_sim.systems import make_systems
from fedsec_sim.threats import make_threat

Status: TypeAlias = Literal["done", "refused", "failed"]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a cell.

    Args:
        key: Of the cell.
        labels: Of the cell, by axis.
        status: ``"refused"``: by the plan's own check; ``"failed"``: by a round.
        reason: Why it was refused or failed.
        value: The figure; None if there is none.
        series: (round, figure) of each evaluation.
        research: Whether it ran although the plan refuses it.
        seed: Of the plan.
        seconds: That it took.
        commit: Of the sources, ``"-dirty"`` after it if they were changed; "" if unknown.
        versions: Of what it ran on.
    """

    key: str
    labels: Mapping[str, str]
    status: Status
    reason: str
    value: float | None
    series: list[list[float]]
    research: bool
    seed: int
    seconds: float
    commit: str
    versions: Mapping[str, str]


def run_cells(
    cells: Iterable[Cell], folder: Path, *, workers: int, research: bool
) -> Iterator[tuple[Outcome, bool]]:
    """Yields each outcome with whether it was there already; the new ones as they come.

    Args:
        cells: To run.
        folder: Holds one small file for each outcome, by the cell's key.
        workers: Cells that run at once, one thread each.
        research: Run what the plan refuses, in simulation, and say so in the outcome.
    """
    folder.mkdir(parents=True, exist_ok=True)
    missing: dict[str, Cell] = {}
    for cell in cells:
        kept = read_outcome(folder / f"{cell.key}.json", research=research)
        if kept is None:
            missing[cell.key] = cell
        else:
            yield replace(kept, labels=dict(cell.labels)), True
    commit = find_commit()
    context = multiprocessing.get_context("fork")
    with ProcessPoolExecutor(workers, mp_context=context) as pool:
        waiting = [pool.submit(run_cell, cell, research, commit) for cell in missing.values()]
        try:
            for done in as_completed(waiting):
                outcome = done.result()
                text = json.dumps(asdict(outcome), indent=1) + "\n"
                (folder / f"{outcome.key}.json").write_text(text, encoding="utf-8")
                yield outcome, False
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def read_outcome(path: Path, *, research: bool) -> Outcome | None:
    """Returns a kept outcome; None if there is none, or one that research would replace."""
    try:
        kept = Outcome(**json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return None
    except (ValueError, TypeError, OSError) as error:
        raise ConfigError(f"{path} is no outcome of a grid; remove it: {error}") from error
    return None if research and kept.status == "refused" else kept


def run_cell(cell: Cell, research: bool, commit: str) -> Outcome:
    """Runs one simulation; what goes wrong is part of the outcome."""
    torch.set_num_threads(1)
    started = time.perf_counter()
    status: Status = "done"
    reason, series, against = "", [], False
    try:
        plan, refused = plan_of(cell)
        against = bool(refused)
        if refused and not research:
            status, reason = "refused", refused
        else:
            history = simulate(plan, lab_of(cell), workers=1)
            series = [[float(number), value] for number, value in history.series(cell.figure)]
            if not series:
                status, reason = "failed", f"there is no figure {cell.figure!r}"
    except FedsecError as error:
        status, reason = "failed", str(error)
    return Outcome(
        key=cell.key,
        labels=dict(cell.labels),
        status=status,
        reason=reason,
        value=statistics.fmean(value for _, value in series[-cell.last :]) if series else None,
        series=series,
        research=against and status == "done",
        seed=cell.seed,
        seconds=round(time.perf_counter() - started, 2),
        commit=commit,
        versions={name: version(name) for name in ("fedsec", "torch", "numpy")},
    )


def plan_of(cell: Cell) -> tuple[FederationPlan, str]:
    """Returns a cell's plan, and why a coordinator would not take it; "" if it would.

    Raises:
        ConfigError: It is no plan at all.
    """
    tables: dict[str, Any] = copy.deepcopy(dict(cell.plan))
    tables.setdefault("training", {})["seed"] = cell.seed
    if cell.rule:
        tables["robust"] = {**cell.rule, "byzantine": cell.byzantine}
    if cell.nodes is not None:
        tables["nodes"] = {"min_available": cell.nodes, **_without_count(tables.get("nodes", {}))}
    try:
        plan = FederationPlan.model_validate(tables)
    except ValidationError as error:
        raise ConfigError(f"the plan with this cell's values is wrong: {error}") from error
    return plan, "; ".join(f"{refusal.key}: {refusal.reason}" for refusal in refusals(plan))


def lab_of(cell: Cell) -> Lab:
    """Returns a cell's surroundings."""
    threat, split = None, make_split(*_named(cell.split)) if cell.split else None
    if cell.attack and cell.byzantine:
        name, parameters = _named(cell.attack)
        threat = make_threat(cell.byzantine, {"name": name, **parameters})
    if cell.holders == "honest" and cell.nodes is not None and split is not None:
        split, end = HonestOnly(split, cell.byzantine), FIRST_ID + cell.nodes
        threat = threat and replace(threat, ids=tuple(range(end - cell.byzantine, end)))
    return Lab(
        nodes=cell.nodes,
        split=split,
        systems=make_systems(cell.systems, "systems:") if cell.systems else None,
        threat=threat,
        momentum=cell.momentum,
    )


def find_commit() -> str:
    """Returns the commit of the sources that run, "" if they are in no repository."""
    here = Path(__file__).parent
    try:
        commit = _git(here, "rev-parse", "--short=12", "HEAD")
        return commit + ("-dirty" if _git(here, "status", "--porcelain", "-uno") else "")
    except (OSError, subprocess.SubprocessError):
        return ""


def _git(folder: Path, *words: str) -> str:
    done = subprocess.run(
        ["git", *words], cwd=folder, capture_output=True, text=True, check=True, timeout=30
    )
    return done.stdout.strip()


def _named(table: Mapping[str, Any]) -> tuple[str, dict[str, object]]:
    """Returns name and parameters; a bare name may be a word as on the command line."""
    if set(table) == {"name"}:
        return parse_spec(str(table["name"]))
    return str(table["name"]), {key: value for key, value in table.items() if key != "name"}


def _without_count(nodes: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in nodes.items() if key != "min_available"}


def finite(value: float | None) -> float:
    """Returns the value, NaN for None."""
    return math.nan if value is None else value
