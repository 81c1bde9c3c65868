"""Names to rules and pre-aggregations: one literal each, with what people ask of them."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from fedsec.robust.coordinate_rules import Meamed, Mean, Median, TrimmedMean
from fedsec.robust.distance_rules import (
    Bulyan,
    Caf,
    Dnc,
    GeometricMedian,
    Krum,
    MinimumDiameter,
    Monna,
    MultiKrum,
)
from fedsec.robust.norm_rules import CenteredClipping, Cge, FlTrust
from fedsec.robust.premixing import Arc, Bucketing, Clip, Nnm, Premix
from fedsec.robust.rule import Rule


@dataclass(frozen=True, slots=True)
class RuleEntry:
    """A row of the table of rules.

    Attributes:
        made_by: The class; its fields are the parameters.
        paper: First author, venue and year.
        precondition: On n and f, as it is enforced.
        cost: Time, in n and d.
        sensitivity: Replace-one, for rows clipped to C; "" where no useful bound is known.
    """

    made_by: type[Rule]
    paper: str
    precondition: str
    cost: str
    sensitivity: str = ""


@dataclass(frozen=True, slots=True)
class PremixEntry:
    """A row of the table of pre-aggregations; attributes as for `RuleEntry`."""

    made_by: type[Premix]
    paper: str
    precondition: str
    cost: str


RULES: Mapping[str, RuleEntry] = MappingProxyType(
    {
        "mean": RuleEntry(Mean, "-", "n >= f+1, none of them hostile", "n d", "2C/n"),
        "median": RuleEntry(
            Median, "Yin, ICML 2018", "f < n/2", "n log^2(n) d", "2C/b, on means of b rows"
        ),
        "trimmed-mean": RuleEntry(
            TrimmedMean, "Yin, ICML 2018", "f < n/2", "n log^2(n) d", "2C/(n-2f)"
        ),
        "meamed": RuleEntry(Meamed, "Xie, arXiv 2018", "f < n/2", "n log^2(n) d"),
        "krum": RuleEntry(Krum, "Blanchard, NeurIPS 2017", "n >= 2f+3", "n^2 d"),
        "multi-krum": RuleEntry(
            MultiKrum, "Blanchard, NeurIPS 2017", "n >= 2f+3, keep <= n-f", "n^2 d"
        ),
        "bulyan": RuleEntry(Bulyan, "El Mhamdi, ICML 2018", "n >= 4f+3", "n^2 d + n^3 log(n)"),
        "geometric-median": RuleEntry(
            GeometricMedian, "Pillutla, IEEE TSP 2022", "f < n/2", "n^2 d"
        ),
        "minimum-diameter": RuleEntry(
            MinimumDiameter, "El Mhamdi, ICML 2018", "f < n/2", "n^2 d + search, exp(f) at worst"
        ),
        "monna": RuleEntry(Monna, "Farhadkhani, ICML 2023", "f < n/2, a clean root update", "n d"),
        "centered-clipping": RuleEntry(
            CenteredClipping,
            "Karimireddy, ICML 2021",
            "f < n/2 (f < n/10 advised)",
            "n d; n^2 d for more steps",
            "2 tau L/n",
        ),
        "cge": RuleEntry(Cge, "Gupta, DSN-W 2021", "f < n/2", "n d"),
        "caf": RuleEntry(Caf, "Allouah, ICML 2025", "f < n/2", "n^2 d + n^4"),
        "dnc": RuleEntry(
            Dnc, "Shejwalkar, NDSS 2021", "f < n/2, iterations*ceil(c f) < n", "n d + n^2 sample"
        ),
        "fltrust": RuleEntry(FlTrust, "Cao, NDSS 2021", "n >= f+1, a clean root update", "n d"),
    }
)

PREMIXES: Mapping[str, PremixEntry] = MappingProxyType(
    {
        "nnm": PremixEntry(Nnm, "Allouah, AISTATS 2023", "f < n/2", "n^2 d"),
        "bucketing": PremixEntry(Bucketing, "Karimireddy, ICLR 2022", "f < n/(2s)", "n d"),
        "clip": PremixEntry(Clip, "-", "-", "n d"),
        "arc": PremixEntry(Arc, "Allouah, ICLR 2025", "f < n/2", "n d"),
    }
)
