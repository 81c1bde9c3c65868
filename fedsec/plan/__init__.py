"""What is to be learned, by whom and how: `FederationPlan`, from TOML. No I/O, no torch."""

from fedsec.plan.data import Data
from fedsec.plan.example import toml_example
from fedsec.plan.federation import BUILT_IN_APP, FederationPlan
from fedsec.plan.privacy import Privacy
from fedsec.plan.robust import Robust
from fedsec.plan.sections import App, Model, Nodes, Round, Task, Training

__all__ = [
    "BUILT_IN_APP",
    "App",
    "Data",
    "FederationPlan",
    "Model",
    "Nodes",
    "Privacy",
    "Robust",
    "Round",
    "Task",
    "Training",
    "toml_example",
]
