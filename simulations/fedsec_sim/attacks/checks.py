"""Checks of an attack's parameters."""

import math

from fedsec.errors import ConfigError


def finite(name: str, value: float) -> None:
    """Raises unless `value` is finite.

    Raises:
        ConfigError: Naming parameter, value and range.
    """
    if not math.isfinite(value):
        raise ConfigError(f"{name} must be a finite number, got {value}")


def positive(name: str, value: float) -> None:
    """Raises unless `value` is a finite number > 0.

    Raises:
        ConfigError: Naming parameter, value and range.
    """
    if not (math.isfinite(value) and value > 0):
        raise ConfigError(f"{name} must be a finite number > 0, got {value}")


def at_least(name: str, value: float, least: float) -> None:
    """Raises unless `value` is a finite number >= `least`.

    Raises:
        ConfigError: Naming parameter, value and range.
    """
    if not (math.isfinite(value) and value >= least):
        raise ConfigError(f"{name} must be a finite number >= {least}, got {value}")
