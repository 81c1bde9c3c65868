"""The plan that the arguments of a part for plain Flower apps come to, checked as any other."""

from collections.abc import Mapping

from fedsec.plan import FederationPlan
from fedsec.plan.reading import read_mapping


def plan_of(what: str, rounds: int, **tables: Mapping[str, object]) -> FederationPlan:
    """Returns a plan whose task is the app's own business.

    Args:
        what: The part's name; begins the message of an error.
        rounds: At most.
        tables: Of the plan, by name: ``privacy``, ``robust``, ``nodes``.

    Raises:
        ConfigError: A value is out of range, or what is combined may not be.
    """
    given = {
        "schema": 1,
        "name": what,
        "task": {"name": "flower:app", "data": "own"},  # the app's own; nothing reads it
        "training": {"rounds": rounds},
        **tables,
    }
    return read_mapping(FederationPlan, given, what=what).checked(what)
