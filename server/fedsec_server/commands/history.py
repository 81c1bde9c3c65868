"""What a run's rounds told, as series to draw."""

import asyncio
import json
from collections.abc import Mapping
from dataclasses import dataclass, field

from fedsec.flower.reporting import NOISED, NOISED_OVER
from fedsec.wire.generated import admin_pb2 as pb
from fedsec_server.commands.reach import Reach
from fedsec_server.commands.rounds import numbers_of
from fedsec_server.commands.sites import HEADLINES, Sites

SILENCE_S = 2.0  # after which a run that goes on has told all that it had to tell
FINAL = frozenset({"finished", "failed", "stopped"})

Series = dict[int, float]

_NO_FIGURES = frozenset({"round", "rounds", "attempt", "examples", NOISED_OVER})


@dataclass
class History:
    """The rounds of one run, each figure by round.

    Attributes:
        run: As told last.
        seconds: That each round took.
        figures: Loss and other figures of all sites together, and the training's.
        sites: Each evaluation at the sites.
    """

    run: pb.Run = field(default_factory=pb.Run)
    seconds: Series = field(default_factory=dict)
    figures: dict[str, Series] = field(default_factory=dict)
    sites: dict[int, Sites] = field(default_factory=dict)

    def take(self, item: pb.RunEvent) -> None:
        """Takes a piece of news; what is no round is passed over."""
        if item.WhichOneof("kind") == "run":
            self.run = item.run
        elif item.event.kind == "round":
            self._round(json.loads(item.event.detail_json))

    @property
    def headline(self) -> str:
        """The figure, other than loss, that says how good the model is; empty if none is told."""
        known = [name for name in HEADLINES if name != "loss" and name in self.figures]
        return known[0] if known else ""

    def losses(self) -> dict[str, Series]:
        """Returns the loss in training and on tests, where told."""
        named = {"train_loss": "training", "loss": "tests"}
        return {label: self.figures[name] for name, label in named.items() if name in self.figures}

    def of_sites(self, name: str, names: Mapping[str, str]) -> dict[str, Series]:
        """Returns a figure of each site by the site's name."""
        lines: dict[str, Series] = {}
        for at, sites in sorted(self.sites.items()):
            for node, figures in sites.figures.items():
                if name in figures:
                    lines.setdefault(names.get(node, node), {})[at] = figures[name]
        return dict(sorted(lines.items()))

    def last_sites(self) -> Sites | None:
        """Returns the last evaluation at the sites."""
        return self.sites[max(self.sites)] if self.sites else None

    def _round(self, detail: Mapping[str, object]) -> None:
        number = detail.get("round")
        if not isinstance(number, int):
            return
        noised = numbers_of(detail.get(NOISED))  # "train-loss" is "train_loss" as well
        further = {key: value for key, value in noised.items() if "-" not in key}
        for name, value in numbers_of({**further, **detail}).items():
            if name == "seconds":
                self.seconds[number] = value
            elif name not in _NO_FIGURES and not name.startswith("bytes_"):
                self.figures.setdefault(name, {})[number] = value
        if (sites := Sites.of(detail)) is not None:
            self.sites[number] = sites


def read_history(way: Reach, run_id: int) -> History:
    """Returns all that a run told so far.

    Raises:
        FedsecError: The run is unknown, or the coordinator cannot be reached.
    """
    return asyncio.run(_read(way, run_id))


async def _read(way: Reach, run_id: int) -> History:
    history = History()
    news = way.stream("WatchRun", pb.WatchRunRequest(run_id=run_id), pb.RunEvent)
    try:
        while True:
            patience = None if history.run.state in FINAL else SILENCE_S
            history.take(await asyncio.wait_for(anext(news), patience))
    except (StopAsyncIteration, TimeoutError):
        return history
