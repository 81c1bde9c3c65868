"""The defences as parts of Flower: a strategy, a mod around the app, and what the two say.

For an app of one's own: ``from fedsec.flower import RobustFedAvg, SecureStrategy, local_mod``.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fedsec.flower.app_mod import secure_mod
    from fedsec.flower.local_privacy import local_mod
    from fedsec.flower.private_fedavg import PrivateFedAvg
    from fedsec.flower.robust_fedavg import RobustFedAvg
    from fedsec.flower.secure_strategy import SecureStrategy

__all__ = ["PrivateFedAvg", "RobustFedAvg", "SecureStrategy", "local_mod", "secure_mod"]

_MODULES = {
    "PrivateFedAvg": "private_fedavg",
    "RobustFedAvg": "robust_fedavg",
    "SecureStrategy": "secure_strategy",
    "local_mod": "local_privacy",
    "secure_mod": "app_mod",
}


def __getattr__(name: str) -> object:
    """Returns what is named in `__all__`; a node's worker needs none of it and does not wait."""
    if name in _MODULES:
        return getattr(import_module(f"fedsec.flower.{_MODULES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
