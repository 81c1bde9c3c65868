"""What a simulation tells while it goes on."""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Protocol

import torch

from fedsec.flower.reporting import ROUND, Json
from fedsec_sim.history import Row


class Watcher(Protocol):
    """Sees a simulation go on."""

    def begin(self, about: Row) -> None:
        """The first round is about to begin; see `History` for what `about` holds."""
        ...

    def round(self, row: Row) -> None:
        """A round is done."""
        ...


class Nobody:
    """Watches nothing."""

    def begin(self, about: Row) -> None:
        """See `Watcher`."""

    def round(self, row: Row) -> None:
        """See `Watcher`."""


NOBODY = Nobody()


class Record:
    """Keeps rounds' reports; see `fedsec.flower.reporting.Reporter`.

    Args:
        watch: Is shown each of them.
        figures: What else is to stand in a report, by how many rounds are done with it.
    """

    def __init__(self, watch: Watcher, figures: Callable[[int], Mapping[str, Json]]) -> None:
        self.rows: list[Row] = []
        self._watch = watch
        self._figures = figures
        self._before = time.perf_counter()

    def report(self, kind: str, detail: Mapping[str, Json]) -> None:
        """Keeps a round, with how many nodes it trained in a second unless that is a secret."""
        if kind != ROUND:
            return
        now = time.perf_counter()
        answered = detail.get("answered")
        row = {**detail, **self._figures(len(self.rows) + 1)}
        if isinstance(answered, list):
            row["updates_per_s"] = round(len(answered) / (now - self._before), 1)
        self._before = now
        self.rows.append(row)
        self._watch.round(row)


@contextmanager
def one_thread() -> Iterator[None]:
    """Keeps torch to one thread inside: a node's model is too small for two to agree on."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
