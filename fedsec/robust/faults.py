"""How many rows may be hostile, and what happens when more are found."""

import math
from collections.abc import Mapping
from operator import index
from types import MappingProxyType
from typing import SupportsIndex, TypeAlias

from fedsec.errors import ConfigError, FedsecError

Faults: TypeAlias = SupportsIndex | float
"""f: a count >= 0 (numpy's integers too), or a share of the rows in [0, 0.5) as a float."""


class TooManyFaults(FedsecError):
    """More rows are unusable than the rule was told to withstand; nothing was aggregated.

    Args:
        excluded: Why each unusable row is one, by its place among the rows.
        allowed: f, how many there may be.
        rows: n, how many rows there were.
    """

    def __init__(self, excluded: Mapping[int, str], allowed: int, rows: int) -> None:
        named = ", ".join(f"row {row}: {reason}" for row, reason in list(excluded.items())[:5])
        more = f" and {len(excluded) - 5} more" if len(excluded) > 5 else ""  # noqa: PLR2004 - five are shown
        super().__init__(
            f"{len(excluded)} of {rows} rows are unusable, byzantine = {allowed} may be: "
            f"{named}{more}; raise byzantine or find out what these nodes send"
        )
        self.excluded: Mapping[int, str] = MappingProxyType(dict(excluded))
        self.allowed = allowed
        self.rows = rows


def check_byzantine(byzantine: Faults) -> None:
    """Raises unless `byzantine` is a count >= 0 or a share of the rows in [0, 0.5).

    Raises:
        ConfigError: It is neither.
    """
    if isinstance(byzantine, float):
        if not 0.0 <= byzantine < 0.5:  # noqa: PLR2004 - half of the rows
            raise ConfigError(
                f"byzantine as a share of the rows must be in [0, 0.5), got {byzantine}; "
                "give a whole number for a count"
            )
        return
    count = index(byzantine)  # numpy's integers too
    if count < 0:
        raise ConfigError(f"byzantine must be >= 0, got {count}")


def count_byzantine(byzantine: Faults, n: int) -> int:
    """Returns f: `byzantine` itself, or that share of `n` rows rounded down.

    >>> count_byzantine(0.2, 10), count_byzantine(3, 10)
    (2, 3)
    """
    if isinstance(byzantine, float):
        return math.floor(byzantine * n + 1e-9)  # 0.29 * 100 is 28.999999999999996
    return index(byzantine)


def check_minority(name: str, n: int, f: int) -> None:
    """Raises unless 2f < n.

    Raises:
        ConfigError: Half of the rows, or more, may be hostile.
    """
    need(name, n, f, 2 * f + 1, "2f+1")


def need(name: str, n: int, f: int, least: int, formula: str) -> None:
    """Raises unless `n` >= `least`.

    Raises:
        ConfigError: It is not; the message shows `formula`.
    """
    if n < least:
        raise ConfigError(
            f"{name}: {n} updates are too few for byzantine = {f}: "
            f"need n >= {formula} = {least}; lower byzantine or ask for more nodes"
        )


def positive(name: str, value: float) -> None:
    """Raises unless `value` is finite and > 0.

    Raises:
        ConfigError: It is not.
    """
    if not (math.isfinite(value) and value > 0):
        raise ConfigError(f"{name} must be finite and > 0, got {value}")


def at_least(name: str, value: int, least: int) -> None:
    """Raises unless `value` >= `least`.

    Raises:
        ConfigError: It is not.
    """
    if value < least:
        raise ConfigError(f"{name} must be >= {least}, got {value}")
