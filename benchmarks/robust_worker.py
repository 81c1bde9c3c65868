"""Times one side of `robust.py` in a process, and an environment, of its own.

Reads ``{"side", "threads", "cases": [{"rule", "n", "d", "f", "runs"}]}`` from its input and writes
one JSON line for each case: processor and wall seconds of each run, and some entries of the result.
It imports only what its side needs.
"""

import importlib.util
import json
import os
import sys
import time
import types
from collections.abc import Callable
from typing import Any

Timed = Callable[[], Any]
AS_A_STRATEGY = ", as a strategy"
SAMPLE = 64  # entries of the result that are compared


def fedsec_side(rule: str, rows: Any, f: int, threads: int) -> Timed:
    from fedsec import robust as r  # noqa: PLC0415 - another side's environment lacks it
    from fedsec.robust.engine import premix  # noqa: PLC0415 - as above

    n = len(rows)
    if rule.endswith(AS_A_STRATEGY):
        return as_a_strategy(rule.removesuffix(AS_A_STRATEGY), rows, f)
    # Defined as byzfl defines them, so that both do the same work.
    made = {
        "mean": r.Mean(),
        "median": r.Median(),
        "trimmed mean": r.TrimmedMean(f),
        "meamed": r.Meamed(f),
        "krum": r.Krum(f, neighbours=n - f - 1),
        "multi-krum": r.MultiKrum(f, keep=n - f, neighbours=n - f - 1),
        "flower krum": r.Krum(f),
        "flower multi-krum": r.MultiKrum(f, keep=n - f),
        "geometric median": r.GeometricMedian(f, smoothing=0.1, iterations=3),
        "centred clipping": r.CenteredClipping(f, radius=100.0),
        "caf": r.Caf(f),
        "monna": r.Monna(f, trusted=0),
        "minimum diameter": r.MinimumDiameter(f),
        "bulyan": r.Bulyan(f),
    }
    before = {"nnm": r.Nnm(f), "arc": r.Arc(f)}
    if rule == "nnm":
        return lambda: premix((r.Nnm(f),), rows, threads=threads).rows[0]
    if rule.endswith(", accurate"):
        # Two equal rows cannot be certified: the products are formed in float32, then in float64.
        rows = rows.copy()
        rows[1] = rows[0]
    diagnose = rule.endswith(", diagnosed")
    *stages, name = rule.partition(",")[0].split(" + ")
    pipeline = r.Pipeline(made[name], tuple(before[stage] for stage in stages))
    # The peers tell nothing about the rows either; ", diagnosed" is what a coordinator runs.
    return lambda: pipeline(rows, threads=threads, diagnose=diagnose).vector


def as_a_strategy(rule: str, rows: Any, f: int) -> Timed:
    """Returns `RobustFedAvg` at work on replies, as Flower's strategies are."""
    import numpy as np  # noqa: PLC0415 - another side's environment need not have it

    from fedsec.flower import RobustFedAvg  # noqa: PLC0415 - as above

    name = rule.removeprefix("flower ")
    options = {"keep": len(rows) - f} if name == "multi-krum" else {}
    byzantine = 0 if name == "mean" else f
    strategy = RobustFedAvg(name.replace(" ", "-"), byzantine, options=options)

    def call(records: list[Any]) -> Any:
        # What `configure_train` would have sent, and to whom
        strategy._sent = {"0": np.zeros(rows.shape[1], rows.dtype)}
        strategy._asked = tuple(range(1, len(rows) + 1))
        arrays, _ = strategy.aggregate_train(1, records)
        assert arrays is not None
        return arrays.to_numpy_ndarrays()[0]

    return on_replies(call, rows)


def byzfl_side(rule: str, rows: Any, f: int, threads: int) -> Timed:
    import torch  # noqa: PLC0415 - another side's environment need not have it

    torch.set_num_threads(threads)
    b = _byzfl_aggregators()
    made = {
        "mean": b.Average(),
        "median": b.Median(),
        "trimmed mean": b.TrMean(f),
        "meamed": b.Meamed(f),
        "krum": b.Krum(f),
        "multi-krum": b.MultiKrum(f),
        "geometric median": b.GeometricMedian(nu=0.1, T=3),
        "centred clipping": b.CenteredClipping(L=1, tau=100.0),
        "caf": b.CAF(f),
        "monna": b.MoNNA(f),
        "minimum diameter": b.MDA(f),
    }
    tensor = torch.from_numpy(rows.copy())  # ARC writes to its input
    *stages, name = rule.partition(",")[0].split(" + ")
    if rule == "nnm":
        stages, name = ["nnm"], "mean"
    before = [{"nnm": b.NNM(f), "arc": b.ARC(f)}[stage] for stage in stages]

    def call() -> Any:
        made["centred clipping"].m = None  # it would go on from its last result
        mixed = tensor
        for stage in before:
            mixed = stage(mixed)
        return made[name](mixed).numpy()

    def first_mixed_row() -> Any:
        return b.NNM(f)(tensor)[0].numpy()

    return first_mixed_row if rule == "nnm" else call


def _byzfl_aggregators() -> Any:
    """Returns its aggregators alone: the package as a whole also wants torchvision and plots."""
    if "byzfl" not in sys.modules:
        spec = importlib.util.find_spec("byzfl")
        assert spec is not None, "byzfl is not installed"
        package = types.ModuleType("byzfl")
        package.__path__ = list(spec.submodule_search_locations or ())
        sys.modules["byzfl"] = package
    return importlib.import_module("byzfl.aggregators")


def flower_side(rule: str, rows: Any, f: int, threads: int) -> Timed:
    import logging  # noqa: PLC0415 - Flower logs each call

    from flwr.serverapp import strategy  # noqa: PLC0415 - as above

    del threads  # its arithmetic is numpy's: the environment variables decide
    logging.getLogger("flwr").setLevel(logging.ERROR)
    n = len(rows)
    made: dict[str, Any] = {
        "mean": strategy.FedAvg(),
        "median": strategy.FedMedian(),
        "trimmed mean": strategy.FedTrimmedAvg(beta=f / n),
        "flower krum": strategy.Krum(num_malicious_nodes=f),
        "flower multi-krum": strategy.MultiKrum(num_malicious_nodes=f, num_nodes_to_select=n - f),
        "bulyan": strategy.Bulyan(num_malicious_nodes=f),
    }
    name = rule.removesuffix(AS_A_STRATEGY)

    def call(records: list[Any]) -> Any:
        arrays, _ = made[name].aggregate_train(1, records)
        return arrays.to_numpy_ndarrays()[0]

    return on_replies(call, rows)


def on_replies(aggregate: Callable[[list[Any]], Any], rows: Any) -> Timed:
    """Returns `aggregate` at work on one reply for each row."""
    from flwr.app import ArrayRecord, MetricRecord, RecordDict  # noqa: PLC0415 - as above

    from fedsec.flwr_compat import Envelope, make_message  # noqa: PLC0415 - as above

    records: list[Any] = []

    def prepare() -> None:  # strategies take the arrays out of replies: they are made for each run
        records.clear()
        for node, row in enumerate(rows):
            content = RecordDict(
                {"arrays": ArrayRecord([row]), "metrics": MetricRecord({"num-examples": 1})}
            )
            of = Envelope("m", "i", 1, node + 1, 0, "1", time.time(), 60.0, "train")
            records.append(make_message(of, content))

    def call() -> Any:
        return aggregate(list(records))

    call.prepare = prepare  # type: ignore[attr-defined]  # read by `timed`
    return call


def timed(call: Timed, runs: int) -> dict[str, Any]:
    """Runs `call` as often, after one run that is not counted if there are several."""
    cpu, wall, result = [], [], None
    for number in range(runs + (runs > 1)):
        getattr(call, "prepare", lambda: None)()
        before, started = time.process_time(), time.perf_counter()
        result = call()
        if number or runs == 1:
            cpu.append(time.process_time() - before)
            wall.append(time.perf_counter() - started)
    assert result is not None
    step = max(1, len(result) // SAMPLE)
    return {"cpu": cpu, "wall": wall, "sample": [float(value) for value in result[::step]]}


def read_pass(rows: Any) -> Timed:
    """One read of every entry: no rule can be faster."""

    def call() -> Any:
        rows.reshape(-1).dot(rows.reshape(-1))
        return rows[0]

    return call


def main() -> None:
    job = json.load(sys.stdin)
    for name in ("OMP", "OPENBLAS", "MKL"):
        os.environ[f"{name}_NUM_THREADS"] = str(job["threads"])
    import numpy as np  # noqa: PLC0415 - after the variables that it reads

    sides = {"fedsec": fedsec_side, "byzfl": byzfl_side, "flower": flower_side}
    made: tuple[int, int] | None = None
    rows = np.empty((0, 0), np.float32)
    for case in job["cases"]:
        size = (case["n"], case["d"])
        if made != size:
            rows = np.random.default_rng(0).standard_normal(size, dtype=np.float32)
            rows *= np.float32(0.1)
            made = size
        if case["rule"] == "read":
            call = read_pass(rows)
        else:
            side = sides[job["side"]]
            call = side(case["rule"], rows, case["f"], job["threads"])
        print(json.dumps(timed(call, case["runs"])), flush=True)


if __name__ == "__main__":
    main()
