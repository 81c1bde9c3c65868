"""What a rule and its pre-aggregations must be told about the rows, and which options they take."""

from typing import Literal

import numpy as np

from fedsec.errors import ConfigError
from fedsec.robust.aggregate import Doubles
from fedsec.robust.blocks import HUGE, Rows
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
from fedsec.robust.geometry import FEW_ROWS
from fedsec.robust.norm_rules import CenteredClipping, Cge, FlTrust
from fedsec.robust.options import Row
from fedsec.robust.premixing import Arc, Bucketing, Clip, Nnm, Premix
from fedsec.robust.rule import Rule
from fedsec.robust.table import RULES

BY_DISTANCE = (Krum, MultiKrum, Bulyan, GeometricMedian, MinimumDiameter, Caf)


def looks_at_products(rule: Rule, before: tuple[Premix, ...], reference: Row | None) -> bool:
    """Returns whether `rule` itself wants products or distances among the mixed rows."""
    match rule:
        case CenteredClipping():
            return rule.iterations > 1 or reference is not None
        case Monna():
            return bool(before)
        case _:
            return isinstance(rule, BY_DISTANCE)


def chooses(rule: Rule, before: tuple[Premix, ...]) -> bool:
    """Returns whether some rows are chosen, so that of equally good ones one must go first.

    Buckets are drawn by the rows' places, so behind or before them places decide.
    """
    if any(isinstance(stage, Bucketing) for stage in before):
        return False
    chosen = (Krum, MultiKrum, Bulyan, MinimumDiameter, Caf, Monna, Cge, Dnc)
    return isinstance(rule, chosen) or any(isinstance(stage, Nnm) for stage in before)


def formed_at(rule: Rule, before: tuple[Premix, ...], reference: Row | None) -> int:
    """Returns how many stages there are up to the first buckets that are formed; 0: none are.

    Hostile rows can cancel each other in a bucket, and from products of rows that are long nobody
    can tell a sum that is short. So where norms or distances decide behind buckets, these are
    formed, block by block, and measured themselves.
    """
    for place, stage in enumerate(before, start=1):
        if isinstance(stage, Bucketing) and stage.size > 1:
            looked_at = any(isinstance(later, Nnm | Clip | Arc) for later in before[place:])
            by_norm = isinstance(rule, CenteredClipping | Cge | FlTrust)
            if looked_at or by_norm or looks_at_products(rule, before, reference):
                return place
    return 0


def wants_products(rule: Rule, before: tuple[Premix, ...], reference: Row | None) -> bool:
    """Returns whether anything wants them of the rows that come in; norms are one cheap pass."""
    if formed := formed_at(rule, before, reference):
        return any(isinstance(stage, Nnm) for stage in before[:formed])
    return looks_at_products(rule, before, reference) or any(isinstance(s, Nnm) for s in before)


def wants_accuracy(rule: Rule, before: tuple[Premix, ...], reference: Row | None, n: int) -> bool:
    """Returns whether cheap products would be measured in vain.

    Many mixed rows lie too near to each other for the bound, and a reference from which distances
    are measured, such as the last aggregate, lies amid the rows.
    """
    if isinstance(rule, CenteredClipping | Monna) and reference is not None:
        return True
    mixes = n > FEW_ROWS and any(isinstance(stage, Nnm) for stage in before)
    return mixes and looks_at_products(rule, before, reference)


def check_options(
    rule: Rule,
    before: tuple[Premix, ...],
    *,
    weights: Doubles | None,
    reference: Row | None,
    unusable: Literal["drop", "zero"],
    threads: int,
) -> None:
    """Raises unless the options go with the rule.

    Raises:
        ConfigError: They do not; the message says which.
    """
    name = type(rule).__name__
    if weights is not None:
        if not rule.weighted:
            known = ", ".join(r.made_by.__name__ for r in RULES.values() if r.made_by.weighted)
            raise ConfigError(f"{name} takes no weights; these do: {known}")
        if before or unusable == "zero":
            raise ConfigError(f"{name}: weights go neither with before nor with unusable='zero'")
    _check_trust(rule, before, reference)
    if unusable not in ("drop", "zero"):
        raise ConfigError(f"unusable must be 'drop' or 'zero', got {unusable!r}")
    if threads < 1:
        raise ConfigError(f"threads must be >= 1, got {threads}")


def _check_trust(rule: Rule, before: tuple[Premix, ...], reference: Row | None) -> None:
    """Raises unless the rule is told whom to trust, if it trusts anybody, and only then."""
    name = type(rule).__name__
    by_row = isinstance(rule, Monna) and rule.trusted is not None
    by_reference = isinstance(rule, FlTrust | Monna) and not by_row
    if by_reference and reference is None:
        or_row = ", or trusted: a row" if isinstance(rule, Monna) else ""
        raise ConfigError(f"{name} needs reference: the update of the root data{or_row}")
    if reference is not None and not (by_reference or isinstance(rule, CenteredClipping)):
        raise ConfigError(f"{name} takes no reference{' beside a trusted row' if by_row else ''}")
    if by_row and any(isinstance(stage, Bucketing) for stage in before):
        raise ConfigError("Monna needs the trusted row: bucketing would mix it with others")


def check_reference(reference: Row | None, rows: Rows) -> None:
    """Raises unless the reference is one vector (d,) as finite as rows have to be.

    Raises:
        ConfigError: It is not.
    """
    if reference is None:
        return
    if reference.shape != (rows.size,) or not float(np.abs(reference).max()) < HUGE:
        raise ConfigError(
            f"reference must be one vector ({rows.size},) of entries below {HUGE:g}, got shape "
            f"{reference.shape}"
        )
