"""Which engine trains a plan fastest: asked for by name, or found out."""

import time
from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

import numpy as np

from fedsec.errors import ConfigError
from fedsec.flower.strategy import Matrix
from fedsec.processors import processors
from fedsec.vectors import Vector
from fedsec_sim.engines.engine import Bench, Engine, Job
from fedsec_sim.engines.loop import Loop
from fedsec_sim.engines.vmap import Vmap, unsupported
from fedsec_sim.engines.workers import Workers

Kind: TypeAlias = Literal["auto", "loop", "vmap"]
KINDS: tuple[str, ...] = get_args(Kind)

PROBED = 4  # nodes on which both engines must agree
AGREEMENT = 1e-5  # relative plus absolute
WORTH_S = 0.05  # a round that takes less is not spread over processes
WARM_S = 0.2  # a probe that takes longer is not repeated
_ROUND = 1  # that is probed; its rows are thrown away


@dataclass(frozen=True, eq=False)
class Chosen:
    """An engine, and why it is this one.

    Args:
        engine: To use, and to close.
        reason: One line for people; "" where it was asked for.
    """

    engine: Engine
    reason: str


def choose(bench: Bench, sent: Vector, *, kind: Kind, workers: int | None, cohort: int) -> Chosen:
    """Returns the engine for a plan.

    Args:
        bench: What is trained.
        sent: The first model (d,).
        kind: ``"auto"`` takes vmap where it may and agrees with the loop, else the loop.
        workers: Processes; None: one for each processor where a round takes long enough.
        cohort: Nodes that are trained at once, at most.

    Raises:
        ConfigError: vmap was asked for and does not do for this model; says why.
    """
    if workers is not None and workers < 1:
        raise ConfigError(f"workers must be >= 1, got {workers}")
    engine, reason, seconds = _single(bench, sent, kind)
    if workers is None:
        workers = processors() if seconds * cohort > WORTH_S else 1
    # In parts that are smaller, bits would depend on the number of workers.
    step = min(engine.step, -(-cohort // workers)) if engine.independent else engine.step
    workers = min(workers, -(-cohort // step))
    if workers > 1:
        engine = Workers(engine, workers=workers, size=sent.size, nodes=cohort, step=step)
    return Chosen(engine, reason)


def _single(bench: Bench, sent: Vector, kind: Kind) -> tuple[Engine, str, float]:
    """Returns an engine for one process, why it was chosen, and its seconds for a node."""
    loop = Loop(bench)
    why = "" if kind == "loop" else unsupported(bench)
    if kind == "vmap" and why:
        raise ConfigError(f'engine "vmap" does not do here: {why}; use "auto" or "loop"')
    probe = _Probe(bench, sent)
    slow, expected = probe(loop)
    if kind == "loop" or why:
        return loop, f"loop, for {why}" if why else "", slow
    vmap = Vmap(bench)
    try:
        fast, got = probe(vmap)
    except Exception as error:  # noqa: BLE001 - what vmap cannot do, it says in many ways
        why = f"vmap cannot run the model: {str(error).splitlines()[0][:120]}"
    else:
        # Where training diverges it does so in both.
        if np.allclose(got, expected, rtol=AGREEMENT, atol=AGREEMENT, equal_nan=True):
            return vmap, "", fast
        apart = np.abs(got - expected).max()
        why = f"vmap differs from the loop by {apart:.1e}, more than {AGREEMENT:g}"
    if kind == "vmap":
        raise ConfigError(f'engine "vmap" does not do here: {why}; use "auto" or "loop"')
    return loop, f"loop, for {why}", slow


class _Probe:
    """Trains a few nodes, to compare engines."""

    def __init__(self, bench: Bench, sent: Vector) -> None:
        self._job = Job(_ROUND, sent, range(min(PROBED, len(bench.population))))

    def __call__(self, engine: Engine) -> tuple[float, Matrix]:
        """Returns the seconds for a node and the updates."""
        rows = engine.rows(len(self._job.nodes))
        seconds = self._once(engine, rows)
        if seconds < WARM_S:  # most of it may be what torch does once
            seconds = self._once(engine, rows)
        return seconds / len(rows), rows

    def _once(self, engine: Engine, rows: Matrix) -> float:
        started = time.perf_counter()
        engine.train(self._job, rows)
        return time.perf_counter() - started
