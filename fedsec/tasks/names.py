"""The names of the built-in tasks, for who must know them without loading torch."""

from fedsec.plan.data import MODELS

BUILT_IN = tuple(MODELS)
