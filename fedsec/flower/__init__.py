"""The defences as parts of Flower: a strategy, a mod around the app, and what the two say.

For a ServerApp of one's own: ``from fedsec.flower import RobustFedAvg``.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fedsec.flower.robust_fedavg import RobustFedAvg

__all__ = ["RobustFedAvg"]


def __getattr__(name: str) -> object:
    """Returns what is named in `__all__`; a node's worker needs none of it and does not wait."""
    if name == "RobustFedAvg":
        from fedsec.flower.robust_fedavg import RobustFedAvg  # noqa: PLC0415 - see above

        return RobustFedAvg
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
