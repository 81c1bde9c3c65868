"""The form that all measurements share: one table, one JSON list, ours beside the peer's."""

import argparse
import json
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from fedsec.console import format_bytes, format_duration, show, table

Metric = Literal["time", "cpu_time", "rate", "bytes", "memory", "accuracy"]
HIGHER_IS_BETTER = {"rate", "accuracy"}


@dataclass(frozen=True)
class Result:
    """One case, measured for us and for the peer in the same run.

    Attributes:
        case: What and how big, e.g. ``"median n=50 d=1000000"``.
        metric: Of which kind the numbers are; a rate or an accuracy is better when it is higher.
        unit: Of `ours` and `peer`.
        ours: Median.
        peer: Median.
        peer_name: With its version.
        ratio: How many times better ours is; below 1 it is worse.
        runs: How many values each median is of.
    """

    case: str
    metric: Metric
    unit: str
    ours: float
    peer: float
    peer_name: str
    ratio: float
    runs: int


def compare(
    case: str,
    metric: Metric,
    unit: str,
    *,
    ours: Sequence[float],
    peer: Sequence[float],
    peer_name: str,
) -> Result:
    """Returns the comparison of the medians of two equally long lists of values."""
    assert len(ours) == len(peer), "both are measured equally often"
    mine, theirs = statistics.median(ours), statistics.median(peer)
    ratio = mine / theirs if metric in HIGHER_IS_BETTER else theirs / mine
    return Result(case, metric, unit, mine, theirs, peer_name, ratio, len(ours))


def arguments(description: str) -> argparse.ArgumentParser:
    """Returns the options that every benchmark has."""
    form = argparse.RawDescriptionHelpFormatter  # a module docstring, laid out by hand
    parser = argparse.ArgumentParser(description=description, formatter_class=form)
    parser.add_argument("--quick", action="store_true", help="end within 60 s on two cores")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the results there too")
    return parser


def publish(results: Iterable[Result], file: Path | None) -> None:
    """Prints the table and, if `file` is given, writes the JSON list."""
    results = list(results)
    columns = ["case", "metric", ">fedsec", ">peer", ">times better", ">runs", "peer's name"]
    rows = [
        (
            result.case,
            result.metric,
            shown(result.ours, result.unit),
            shown(result.peer, result.unit),
            ratio_words(result.ratio),
            result.runs,
            result.peer_name,
        )
        for result in results
    ]
    show(table(columns, rows))
    if file:
        text = json.dumps([asdict(result) for result in results], indent=2)
        file.write_text(text + "\n", encoding="utf-8")


def ratio_words(ratio: float) -> str:
    """Returns a ratio for people: a digit after the point, two where ours is worse."""
    return f"{ratio:.1f}" if ratio >= 1 else f"{ratio:.2f}"


def shown(value: float, unit: str) -> str:
    """Returns a value with its unit, for people."""
    match unit:
        case "s":
            return format_duration(value)
        case "B" if value >= 1000:
            return format_bytes(value)
        case _:
            return f"{value:.4g} {unit}"
