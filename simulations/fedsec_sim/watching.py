"""How a simulation shows itself: a progress bar on a terminal, a line per round in a pipe."""

import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from fedsec.console import console, format_duration, safe, say
from fedsec.flower.reporting import Json
from fedsec_sim.history import Log, Row
from fedsec_sim.record import Watcher

SHOWN = (("train_loss", "train loss"), ("loss", "loss"), ("accuracy", "accuracy"))
MORE = (("attack_success", "attack success"), ("epsilon", "epsilon"))


class Screen(Watcher, Protocol):
    """A watcher that is told when it is over."""

    def end(self) -> None:
        """Nothing more comes."""
        ...


@dataclass
class Lines:
    """One line at the beginning, and one for each round."""

    started: float = field(default_factory=time.monotonic)

    def begin(self, about: Row) -> None:
        """See `Watcher`."""
        say(headline(about))

    def round(self, row: Row) -> None:
        """See `Watcher`."""
        width = len(str(row["rounds"]))
        say(f"round {row['round']:>{width}}/{row['rounds']}  {figures(row)}")

    def end(self) -> None:
        """See `Screen`."""


class Bar:
    """A progress bar with the figures of the last round."""

    def __init__(self) -> None:
        self._progress = Progress(
            TextColumn("round"),
            MofNCompleteColumn(),
            BarColumn(bar_width=20),
            TextColumn("{task.fields[figures]}", markup=False),
            TimeRemainingColumn(),
            console=console(),
        )
        self._task = self._progress.add_task("", total=None, figures="")

    def begin(self, about: Row) -> None:
        """See `Watcher`."""
        say(headline(about))
        self._progress.start()

    def round(self, row: Row) -> None:
        """See `Watcher`."""
        done, total = int(str(row["round"])), int(str(row["rounds"]))
        self._progress.update(self._task, completed=done, total=total, figures=figures(row))

    def end(self) -> None:
        """See `Screen`."""
        self._progress.stop()


class Silence:
    """Shows nothing."""

    def begin(self, about: Row) -> None:
        """See `Watcher`."""

    def round(self, row: Row) -> None:
        """See `Watcher`."""

    def end(self) -> None:
        """See `Screen`."""


@dataclass(frozen=True)
class All:
    """Several watchers and a file that grows.

    Args:
        watchers: Told in this order.
        log: Takes a line for each round; None: nothing is written.
    """

    watchers: Sequence[Watcher]
    log: Log | None = None

    def begin(self, about: Row) -> None:
        """See `Watcher`."""
        if self.log:
            self.log.begin(about)
        for each in self.watchers:
            each.begin(about)

    def round(self, row: Row) -> None:
        """See `Watcher`."""
        if self.log:
            self.log.write(row)
        for each in self.watchers:
            each.round(row)


def screen(*, silent: bool) -> Screen:
    """Returns what suits the present stdout."""
    if silent:
        return Silence()
    return Bar() if sys.stdout.isatty() else Lines()


def headline(about: Row) -> str:
    """Returns what is simulated and how, in one line."""
    reason = f" ({safe(about['reason'])})" if about.get("reason") else ""
    return (
        f"{safe(about['name'])}: {about['nodes']} nodes, {about['cohort']} in a round, "
        f"seed {about['seed']}, engine {about['engine']}{reason}"
    )


def figures(row: Row) -> str:
    """Returns the figures of a round that people follow."""
    parts = [f"{word} {_number(row[name])}" for name, word in (*SHOWN, *MORE) if name in row]
    missing = len(_mapping(row.get("failed"))) + len(_mapping(row.get("rejected")))
    if missing:
        parts.append(f"{missing} missing")
    if "simulated_s" in row:
        parts.append(f"simulated {format_duration(float(str(row['simulated_s'])))}")
    if "updates_per_s" in row:
        parts.append(f"{row['updates_per_s']:.0f} updates/s")
    return "  ".join(parts)


def _number(value: Json) -> str:
    return f"{value:.4f}" if isinstance(value, int | float) else "-"


def _mapping(value: Json) -> dict[str, Json]:
    return value if isinstance(value, dict) else {}
