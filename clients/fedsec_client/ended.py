"""Runs that are over on this node: none is taken up again.

A run's state says which rounds a node has taken part in, and which group it is in. It goes with the
run. Whoever could have a run offered again under its old id would find a node that knows nothing
of it: a round's secure sum could be had twice, groups drawn until they suit.
"""

from collections.abc import Iterable
from pathlib import Path

from fedsec.errors import ConfigError, FedsecError
from fedsec.files import read_private, write_private

FILE_NAME = "ended-runs"
_MOST_BYTES = 64 << 20  # of some million runs


class EndedRuns:
    """The ids of runs that are over, a line each, in a file that outlives the agent.

    Args:
        directory: Of the node.

    Raises:
        ConfigError: The file is not what this program writes, or cannot be read.
    """

    def __init__(self, directory: Path) -> None:
        self._path = directory / FILE_NAME
        self._known = self._written = self._read()

    def __contains__(self, run_id: int) -> bool:
        return run_id in self._known

    def add(self, run_ids: Iterable[int]) -> bool:
        """Writes down that runs are over; says whether that is on the disk."""
        self._known = self._known.union(run_ids)
        if self._known == self._written:
            return True
        lines = (f"{each}\n" for each in sorted(self._known))
        try:
            write_private(self._path, "".join(lines).encode())
        except (FedsecError, OSError):
            return False
        self._written = self._known
        return True

    def _read(self) -> frozenset[int]:
        if not self._path.exists():
            return frozenset()
        try:
            lines = read_private(self._path, limit=_MOST_BYTES).decode("ascii").splitlines()
            return frozenset(map(int, lines))
        except ValueError as error:
            raise ConfigError(
                f"{self._path} is damaged: {error}. Without it a coordinator could have runs that "
                "are over begun again. If you trust it, remove the file"
            ) from error
