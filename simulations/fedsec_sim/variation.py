"""What a call of `simulate` varies: another rule than the plan's, and an attack."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, TypeAlias

from pydantic import ValidationError

from fedsec.errors import ConfigError
from fedsec.plan import FederationPlan
from fedsec.plan.compat import refusals
from fedsec_sim.attacks.view import Attack
from fedsec_sim.lab import Lab
from fedsec_sim.threats import make_threat

RuleLike: TypeAlias = str | Mapping[str, object]
AttackLike: TypeAlias = str | Mapping[str, object] | Attack
NONE = "none"


def one_in_five(nodes: int) -> int:
    """Returns how many of `nodes` are hostile where nobody says."""
    return max(1, nodes // 5)


def vary(
    plan: FederationPlan,
    lab: Lab,
    rule: RuleLike | None,
    attack: AttackLike | None,
    byzantine: int | None,
) -> tuple[FederationPlan, Lab]:
    """Returns plan and surroundings with another rule, and with adversaries.

    Args:
        plan: To start from.
        lab: To start from.
        rule: As in a plan: the name of a rule, or the table ``[robust]``; ``"none"``: no such
            table. None: the plan's.
        attack: What adversaries do; None: as the lab says.
        byzantine: How many they are, which the rule is told too. None: one node in five.

    Raises:
        ConfigError: There is no such rule or attack, the plan refuses the rule, or the lab has
            adversaries already.
    """
    nodes = lab.nodes or (len(lab.population) if lab.population else plan.nodes.min_available)
    many = one_in_five(nodes) if byzantine is None else byzantine
    if rule is not None:
        plan = with_rule(plan, rule, many)
        if refused := "; ".join(f"{each.key}: {each.reason}" for each in refusals(plan)):
            raise ConfigError(f"the plan refuses this rule: {refused}")
    if attack is not None:
        if lab.threat is not None:
            raise ConfigError("attack and lab.threat both say what adversaries do; give one")
        lab = replace(lab, threat=make_threat(many, attack))
    elif byzantine is not None and rule is None:
        raise ConfigError("byzantine counts for an attack or a rule; give one")
    return plan, lab


def with_rule(plan: FederationPlan, rule: RuleLike, byzantine: int) -> FederationPlan:
    """Returns the plan with another rule, told how many may be hostile; it may refuse it.

    Args:
        plan: To start from.
        rule: A name, or the table ``[robust]``; its own ``byzantine`` counts; ``"none"``: none.
        byzantine: How many may be hostile.

    Raises:
        ConfigError: There is no such rule, or an option is wrong.
    """
    tables: dict[str, Any] = plan.model_dump(by_alias=True, exclude_none=True)
    tables.pop("robust", None)
    if rule != NONE:
        table = {"rule": rule} if isinstance(rule, str) else dict(rule)
        tables["robust"] = {"byzantine": byzantine, **table}
    try:
        return FederationPlan.model_validate(tables)
    except ValidationError as error:
        details = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in details["loc"])
        raise ConfigError(f"rule: {where}: {details['msg']}") from error
