"""Names to attacks: one literal each, with what people ask of them."""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Generic, TypeVar

from fedsec.errors import ConfigError
from fedsec_sim.attacks.adaptive import Optimised
from fedsec_sim.attacks.colluding import Alie, Ipm, MinMax, MinSum
from fedsec_sim.attacks.fang import FangKrum, FangTrimmedMean
from fedsec_sim.attacks.mimic import Mimic
from fedsec_sim.attacks.plain import (
    Constant,
    FreeRider,
    GaussianNoise,
    ModelReplacement,
    NanBomb,
    Reverse,
    Scaling,
    SignFlip,
    Zero,
)
from fedsec_sim.attacks.poison import BadNets, LabelFlip, PairFlip, Poison
from fedsec_sim.attacks.view import Attack
from fedsec_sim.spec import build

Made = TypeVar("Made")


@dataclass(frozen=True, slots=True)
class Entry(Generic[Made]):
    """A row of a table of attacks.

    Attributes:
        made_by: A dataclass; its fields are the parameters.
        paper: First author, venue and year.
        knowledge: What adversaries must know.
        fixed: Parameters that the name stands for; nobody sets them.
    """

    made_by: Callable[..., Made]
    paper: str
    knowledge: str
    fixed: Mapping[str, object] = field(default_factory=dict)

    @property
    def parameters(self) -> list[str]:
        """Names of what may be given."""
        fields = inspect.signature(self.made_by).parameters
        return [name for name in fields if name not in self.fixed]


OWN, ALL = "own update", "all updates"
EITHER, RULE = "all updates, or the adversaries'", "all updates and the rule"

UPDATES: Mapping[str, Entry[Attack]] = MappingProxyType(
    {
        "sign-flip": Entry(SignFlip, "Li, AAAI 2019", OWN),
        "scaling": Entry(Scaling, "-", OWN),
        "reverse": Entry(Reverse, "-", OWN),
        "gaussian": Entry(GaussianNoise, "Blanchard, NeurIPS 2017", "nothing"),
        "zero": Entry(Zero, "-", "nothing"),
        "constant": Entry(Constant, "Li, AAAI 2019", "nothing"),
        "nan": Entry(NanBomb, "-", "nothing"),
        "free-rider": Entry(FreeRider, "Fraboni, AISTATS 2021", "nothing"),
        "model-replacement": Entry(ModelReplacement, "Bagdasaryan, AISTATS 2020", OWN),
        "ipm": Entry(Ipm, "Xie, UAI 2019", EITHER),
        "alie": Entry(Alie, "Baruch, NeurIPS 2019", EITHER),
        "optimised-ipm": Entry(Optimised, "Allouah, AISTATS 2023", RULE, {"base": Ipm()}),
        "optimised-alie": Entry(Optimised, "Allouah, AISTATS 2023", RULE, {"base": Alie()}),
        "mimic": Entry(Mimic, "Karimireddy, ICLR 2022", ALL),
        "min-max": Entry(MinMax, "Shejwalkar, NDSS 2021", EITHER),
        "min-sum": Entry(MinSum, "Shejwalkar, NDSS 2021", EITHER),
        "fang-krum": Entry(FangKrum, "Fang, USENIX Security 2020", ALL),
        "fang-trimmed-mean": Entry(FangTrimmedMean, "Fang, USENIX Security 2020", EITHER),
    }
)

DATA: Mapping[str, Entry[Poison]] = MappingProxyType(
    {
        "label-flip": Entry(LabelFlip, "Fang, USENIX Security 2020", "own data"),
        "pair-flip": Entry(PairFlip, "Tolpegin, ESORICS 2020", "own data"),
        "badnets": Entry(BadNets, "Gu, arXiv 2017", "own data"),
        "dba": Entry(BadNets, "Xie, ICLR 2020", "own data", {"pieces": 4}),
    }
)


def make_attack(name: str, parameters: Mapping[str, object] | None = None) -> Attack:
    """Returns the attack on updates of this name.

    Raises:
        ConfigError: No attack has this name, or a parameter is unknown or out of range.
    """
    return _make(name, UPDATES, parameters or {})


def make_poison(name: str, parameters: Mapping[str, object] | None = None) -> Poison:
    """Returns the attack through data of this name.

    Raises:
        ConfigError: No attack has this name, or a parameter is unknown or out of range.
    """
    return _make(name, DATA, parameters or {})


def _make(name: str, table: Mapping[str, Entry[Made]], parameters: Mapping[str, object]) -> Made:
    entry = table.get(name)
    if entry is None:
        raise ConfigError(f"there is no attack {name[:40]!r}; there are: {', '.join(table)}")
    unknown = sorted(set(parameters) - set(entry.parameters))
    if unknown:
        allowed = ", ".join(entry.parameters) or "none"
        raise ConfigError(f"{name} has no parameter {unknown[0][:40]!r}; allowed: {allowed}")
    return build(name, entry.made_by, {**entry.fixed, **parameters})
