"""Where an app says what happened: the coordinator's log over fedsec, a logger elsewhere."""

import json
import logging
from collections.abc import Mapping
from typing import Protocol, TypeAlias, runtime_checkable

Json: TypeAlias = bool | int | float | str | list["Json"] | Mapping[str, "Json"] | None

ROUND, MODEL, NODES, NOTE = "round", "model", "nodes", "note"

NOISED = "noised"
"""In a round's event: noised means of figures, of the model that the round began with."""
NOISED_OVER = "noised_over"
"""In a round's event: the number of nodes that the noised means are over."""
CENTRAL = "central"
"""In a round's event that tells of sites, too: names of the figures that are of central tests."""
COHORT, SECRET = "cohort", "secret"
"""In a round's event whose nodes are drawn in secret: nothing in it may depend on who they were."""


@runtime_checkable
class Reporter(Protocol):
    """Takes events of a run. A Grid may be one: fedsec's own is."""

    def report(self, kind: str, detail: Mapping[str, Json]) -> None:
        """Records an event.

        Args:
            kind: ``"round"``: a completed round; ``"model"``: a stored model; ``"nodes"``: how each
                node came into a round's aggregate; ``"note"``: anything else worth knowing, e.g.
                an attempt that missed the quorum.
            detail: Its particulars. Never update vectors, never secrets.
        """
        ...


@runtime_checkable
class Names(Protocol):
    """Knows what people call a node. A Grid may."""

    def name_of(self, node_id: int) -> str:
        """Returns the name for messages to people, e.g. ``"clinic-3"``."""
        ...


class LogReporter:
    """Writes events to the logger ``fedsec.run``, one JSON object each."""

    def __init__(self) -> None:
        self._logger = logging.getLogger("fedsec.run")

    def report(self, kind: str, detail: Mapping[str, Json]) -> None:
        """See `Reporter`."""
        self._logger.info("%s %s", kind, json.dumps(detail))


def reporter_of(grid: object) -> Reporter:
    """Returns `grid` where it takes events, else a logger."""
    return grid if isinstance(grid, Reporter) else LogReporter()


def name_of(grid: object, node_id: int) -> str:
    """Returns what people call a node: by name where `grid` knows it, else ``"node 17"``."""
    return grid.name_of(node_id) if isinstance(grid, Names) else f"node {node_id}"
