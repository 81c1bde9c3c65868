"""How a demo shows itself: a live table on a terminal, plain lines in a pipe, nothing for JSON."""

import time
from collections import deque
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Protocol

from rich.console import Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from fedsec.console import console, format_bytes, format_duration, safe, say, table

_ROUNDS_SHOWN = 12
_STARTING, _READY = "is starting", "is ready"
_PER_SECOND = 8  # redraws of the live table


@dataclass(frozen=True, slots=True)
class Round:
    """What a round's event says, by names that people read.

    Attributes:
        number: 1 to `rounds`.
        rounds: Of the plan.
        answered: Names of the nodes that are in the mean.
        missing: Reasons by name of the nodes that were asked and are not in it.
        loss: On test data; None where it was not evaluated.
        accuracy: Likewise.
        seconds: From the drawing of the cohort to the evaluated model.
        moved: Bytes of all messages, both ways.
    """

    number: int
    rounds: int
    answered: tuple[str, ...]
    missing: dict[str, str]
    loss: float | None
    accuracy: float | None
    seconds: float
    moved: int


class Screen(Protocol):
    """What a demo tells whoever watches it."""

    def step(self, text: str) -> None:
        """Something is done."""
        ...

    def node(self, name: str, state: str) -> None:
        """A node changed."""
        ...

    def round(self, done: Round) -> None:
        """A round is complete."""
        ...

    def running(self) -> AbstractContextManager[object]:
        """Is held while the run goes on."""
        ...


class Silence:
    """Shows nothing."""

    def step(self, text: str) -> None:
        """See `Screen`."""

    def node(self, name: str, state: str) -> None:
        """See `Screen`."""

    def round(self, done: Round) -> None:
        """See `Screen`."""

    def running(self) -> AbstractContextManager[object]:
        """See `Screen`."""
        return nullcontext()


@dataclass
class Lines:
    """One line for everything that happens, with the seconds since the start."""

    started: float = field(default_factory=time.monotonic)

    def step(self, text: str) -> None:
        """See `Screen`."""
        say(self._timed(text))

    def node(self, name: str, state: str) -> None:
        """See `Screen`."""
        self.step(f"{name} {state}")

    def round(self, done: Round) -> None:
        """See `Screen`."""
        missing = "".join(
            f"; {safe(why) if name in why else f'{name}: {safe(why)}'}"
            for name, why in done.missing.items()
        )
        asked = len(done.answered) + len(done.missing)
        self.step(
            f"round {done.number:2}/{done.rounds}  {len(done.answered):2} of {asked:2} answered  "
            f"loss {_figure(done.loss)}  accuracy {_figure(done.accuracy)}  "
            f"{format_duration(done.seconds)}{missing}"
        )

    def running(self) -> AbstractContextManager[object]:
        """See `Screen`."""
        return nullcontext()

    def _timed(self, text: str) -> str:
        return f"{time.monotonic() - self.started:5.1f} s  {text}"


class Tables(Lines):
    """Lines before and after; while the run goes on, tables that are drawn anew in place."""

    def __init__(self, nodes: list[str]) -> None:
        super().__init__()
        self._states = dict.fromkeys(nodes, _STARTING)
        self._answers = dict.fromkeys(nodes, 0)
        self._last = dict.fromkeys(nodes, 0)
        self._rounds: deque[Round] = deque(maxlen=_ROUNDS_SHOWN)
        self._notes: list[str] = []
        self._live: Live | None = None

    def step(self, text: str) -> None:
        """See `Screen`."""
        if self._live is None:
            super().step(text)
        else:  # above the tables, which stay
            self._live.console.print(Text(self._timed(text)))

    def node(self, name: str, state: str) -> None:
        """See `Screen`."""
        self._states[name] = state
        number = self._rounds[-1].number + 1 if self._rounds else 1
        self._notes.append(f"round {number}: {name} {state}")
        self._draw()

    def round(self, done: Round) -> None:
        """See `Screen`."""
        self._rounds.append(done)
        for name in done.answered:
            self._answers[name] = self._answers.get(name, 0) + 1
            self._last[name] = done.number
            if self._states[name] == _STARTING:
                self._states[name] = _READY
        self._draw()

    def running(self) -> AbstractContextManager[object]:
        """See `Screen`."""
        self._live = Live(self._picture(), console=console(), refresh_per_second=_PER_SECOND)
        return self._live

    def _draw(self) -> None:
        if self._live is not None:
            self._live.update(self._picture())

    def _picture(self) -> Group:
        notes = [Text(note, style="yellow") for note in self._notes]
        return Group("", self._node_table(), "", self._round_table(), *notes)

    def _node_table(self) -> Table:
        rows = [
            (name, state, self._answers[name], self._last[name] or None)
            for name, state in self._states.items()
        ]
        return table(["node", "state", ">answers", ">last round"], rows)

    def _round_table(self) -> Table:
        rows = [
            (
                f"{done.number}/{done.rounds}",
                f"{len(done.answered)} of {len(done.answered) + len(done.missing)}",
                _figure(done.loss),
                _figure(done.accuracy),
                format_duration(done.seconds),
                format_bytes(done.moved),
                ", ".join(done.missing),
            )
            for done in self._rounds
        ]
        headings = [">round", ">answered", ">loss", ">accuracy", ">time", ">moved", "missing"]
        return table(headings, rows)


def _figure(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"
