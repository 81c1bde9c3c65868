"""The privacy statement of a run: what is guaranteed to whom, resting on what, and what is not.

It follows from the plan and the ledger alone, so that an auditor who has both can make it again.
"""

import re
from collections.abc import Mapping, Sequence

from fedsec import __version__
from fedsec.auditlog import Record
from fedsec.commands.ledger_totals import OBSERVER_NAMES, accounts, event_in_words
from fedsec.plan import FederationPlan, Privacy
from fedsec.plan.figures import figures_of, over, update_multiplier
from fedsec.plan.privacy import clip_noise, expected, honest, population
from fedsec.plan.terms import conditional, terms
from fedsec.plan.visibility import corrupt_per_group, crowded, group_size
from fedsec.privacy.accounting import ACCOUNTANT, method, spent
from fedsec.privacy.events import Price
from fedsec.privacy.ledger import OBSERVERS, Charge

DELTAS = (1e-5, 1e-6)
_SPECIAL = "\\`*_[]<>#|"  # characters that mean something to Markdown

Entries = Sequence[tuple[Record, Charge]]

_ALWAYS_ASSUMED = (
    "every program ran unchanged on machines that only their operators control",
    "AES-256 in counter mode, keyed by the operating system, is as good as chance",
    (
        "how much noise later runs add was not chosen in view of what earlier ones released, "
        "except where all are Gaussian on a fixed roster or reckoned by Renyi, for which that is "
        "proven"
    ),
)
_ASSUMED: Mapping[str, tuple[str, ...]] = {
    "central": (
        "the coordinator clips, adds the noise, and shows the updates that it receives to nobody",
    ),
    "local": ("a node's operator runs the node's software as it is",),
    "distributed": (
        "secure aggregation opens nothing but sums over at least the stated number of nodes",
    ),
    "example": (
        "how many examples a node has is public",
        (
            "a person is in one example of one node; who is in several is protected less, by group "
            "privacy"
        ),
        "the task's loss is the mean of a loss of each example, which is checked on two of them",
    ),
}
_ASSUMED_OF_SUMS = (
    "each node's own software clips its update before it is added up in secret",
    "the coordinator adds the noise, and shows the sums that it receives to nobody",
)
_NOT_COVERED = (
    "which nodes take part, when, and whether they fail: that is in the run's log and on the wire",
    "texts of errors that a node sends when it cannot train",
    (
        "how the plan came about: settings tried on the same data in other runs are charged there, "
        "and what was tried outside of this ledger is not"
    ),
    "timing and other side channels of the machines",
)
_SEES_UPDATES = "the coordinator itself, which sees each node's update"
_SEES_SUMS = "the coordinator itself, which sees sums of nodes' updates before it adds the noise"
_NOT_COVERED_BY: Mapping[str, tuple[str, ...]] = {
    "central": (
        _SEES_UPDATES,
        (
            "the records of nodes that [robust] makes (norms, cosines, ranks): they lie in "
            "records/ of the run's directory, for the coordinator's user alone"
        ),
    ),
    "local": ("single examples within a node beyond what the node's guarantee gives them",),
    "distributed": ("nodes that leave their noise out beyond the assumed number",),
    "example": ("what all examples of a node have in common",),
}


def statement(plan: FederationPlan, run: int, entries: Entries) -> dict[str, object]:
    """Returns the statement, ready for JSON.

    Args:
        plan: Of the run.
        run: Its id.
        entries: Of the coordinator's whole ledger.

    Raises:
        ConfigError: The plan has no task.
    """
    head = {
        "run": run,
        "name": plan.name,
        "plan": plan.digest,
        "software": f"fedsec {__version__}",
        "ledger": {"records": len(entries), "hash": entries[-1][0].hash if entries else "none"},
    }
    privacy = plan.privacy
    if privacy is None:
        nothing = "the plan has no table [privacy]: no differential privacy is guaranteed to anyone"
        return {**head, "guarantee": None, "not_covered": [nothing]}
    if privacy.model == "example":
        return {**head, **_by_nodes(plan, privacy)}
    charges = [charge for _, charge in entries if charge.run.partition("/")[0] == str(run)]
    return {**head, **_by_plan(plan, privacy, charges), "federation": _federation(entries, privacy)}


def _by_plan(
    plan: FederationPlan, privacy: Privacy, charges: Sequence[Charge]
) -> dict[str, object]:
    of = terms(plan)
    spent_now = [charge.price for charge in charges]
    rank = OBSERVERS.index(of.guarantee.observer)
    return {
        "guarantee": {
            "unit": of.guarantee.unit,
            "adjacency": of.guarantee.adjacency,
            "against": [OBSERVER_NAMES[each] for each in OBSERVERS[rank:]],
            "rests_on": of.guarantee.trust,
        },
        "mechanism": {
            "model": privacy.model,
            "release": event_in_words(of.price.event),
            **_parameters(plan, privacy),
        },
        "sampling": _sampling(plan),
        "rounds": plan.learning[1].rounds,
        "attempts_per_round": plan.round.attempts,
        "releases_at_most": of.releases,
        "releases_charged": sum(price.count for price in spent_now),
        "epsilon_charged": _epsilons(privacy, spent_now),
        "epsilon_of_the_whole_plan": _epsilons(privacy, [of.whole]),
        "accountant": f"{method([of.price])}, {ACCOUNTANT}",
        "assumptions": [*_ALWAYS_ASSUMED, *_assumed(plan, privacy)],
        "not_covered": [*_NOT_COVERED, *_not_covered(plan, privacy)],
    }


def _assumed(plan: FederationPlan, privacy: Privacy) -> tuple[str, ...]:
    if privacy.model == "central" and plan.secure_aggregation is not None:
        return _ASSUMED_OF_SUMS
    return _ASSUMED[privacy.model]


def _not_covered(plan: FederationPlan, privacy: Privacy) -> tuple[str, ...]:
    found = _NOT_COVERED_BY[privacy.model]
    if privacy.model == "central" and plan.secure_aggregation is not None:
        found = tuple(_SEES_SUMS if each == _SEES_UPDATES else each for each in found)
    return found


def _by_nodes(plan: FederationPlan, privacy: Privacy) -> dict[str, object]:
    return {
        "guarantee": {
            "unit": "example",
            "adjacency": "add-or-remove",
            "against": [OBSERVER_NAMES[each] for each in OBSERVERS],
            "rests_on": "each node's own software trains with DP-SGD",
        },
        "mechanism": {
            "model": "example",
            "release": f"Gaussian, multiplier {privacy.noise_multiplier:g}, Poisson batches",
            "clip_of_an_example": privacy.clip,
            "expected_batch_size": plan.learning[1].batch_size,
        },
        "rounds": plan.learning[1].rounds,
        "epsilon_at_most": {
            f"{privacy.delta:g}": privacy.epsilon,
            "why": "a node whose examples would make the plan cost more does not take part; what "
            "it cost a node stands in that node's ledger (`fedsec ledger show`)",
        },
        "accountant": f"privacy loss distribution, {ACCOUNTANT}, on each node",
        "assumptions": [*_ALWAYS_ASSUMED, *_ASSUMED["example"]],
        "not_covered": [*_NOT_COVERED, *_NOT_COVERED_BY["example"]],
    }


def _parameters(plan: FederationPlan, privacy: Privacy) -> dict[str, object]:
    found: dict[str, object] = {
        "noise_multiplier": privacy.noise_multiplier,
        "clip": privacy.clip,
        "nodes": population(plan),
    }
    if privacy.model == "central":
        found["rule"] = plan.robust.rule if plan.robust is not None else "mean"
        found["divided_by"] = expected(plan)
    if privacy.clip_quantile is not None:
        found |= {"clip_quantile": privacy.clip_quantile, "clip_noise": clip_noise(plan)}
    figures = figures_of(privacy)
    if figures is not None:
        found["noise_multiplier_of_updates"] = update_multiplier(plan)
        found["figures"] = {name: [low, high] for name, low, high in figures.ranges}
        found["noise_multiplier_of_figures"] = figures.noise_multiplier
        found["figures_are_means_over"] = over(plan)
    if privacy.model == "distributed":
        found["honest_noise_shares_at_least"] = honest(plan)
    if group_size(plan) is not None:
        found |= {
            "group_size_at_least": group_size(plan),
            "corrupt_nodes_of_a_group_at_most": corrupt_per_group(plan),
            "chance_of_a_group_with_more": crowded(plan),
            "conditional_on_no_such_group": conditional(plan),
        }
    return found


def _sampling(plan: FederationPlan) -> str:
    rate = plan.privacy.sampling if plan.privacy is not None else None
    if rate is None:
        return "none is claimed: reckoned as if every node took part in every round"
    return (
        f"each node is drawn on its own with probability {rate:g}, in secret; whoever learns who "
        "was drawn is not among those against whom this holds"
    )


def _epsilons(privacy: Privacy, prices: Sequence[Price]) -> dict[str, float]:
    return {f"{delta:g}": spent(prices, delta) for delta in (privacy.delta, *DELTAS)}


def _federation(entries: Entries, privacy: Privacy) -> list[dict[str, object]]:
    """Returns what all runs in the ledger come to."""
    charges = [charge for _, charge in entries]
    return [
        {
            "column": account.column,
            "unit": account.unit,
            "adjacency": account.adjacency,
            "against": [OBSERVER_NAMES[each] for each in account.observers],
            "charges": len(account.charges),
            "epsilon": {f"{privacy.delta:g}": account.epsilon},
        }
        for account in accounts(charges, privacy.delta)
    ]


def markdown(made: Mapping[str, object]) -> str:
    """Returns a statement for people."""
    lines = [f"# Privacy statement: run {made['run']}, {_plain(made['name'])}", ""]
    for key, value in made.items():
        if key in {"run", "name"}:
            continue
        lines += [f"## {key.replace('_', ' ').capitalize()}", "", *_lines(value), ""]
    return "\n".join(lines)


def _lines(value: object) -> list[str]:
    match value:
        case None:
            return ["None."]
        case Mapping():
            return [f"- {_label(key)}: {_inline(inner)}" for key, inner in value.items()]
        case list() if value and all(isinstance(each, Mapping) for each in value):
            rows = [[f"{_label(key)}: {_inline(inner)}" for key, inner in e.items()] for e in value]
            return [f"- {'; '.join(row)}" for row in rows]
        case list():
            return [f"- {_plain(each)}" for each in value] or ["None."]
        case _:
            return [_plain(value)]


def _label(key: str) -> str:
    """Returns a key in words; a bare number is a delta."""
    return f"at delta {key}" if key[:1].isdigit() else key.replace("_", " ")


def _inline(value: object) -> str:
    match value:
        case Mapping():
            return ", ".join(f"{_inline(inner)} {_label(key)}" for key, inner in value.items())
        case list():
            return ", ".join(_plain(each) for each in value) or "nobody"
        case float():
            return f"{value:.4g}"
        case _:
            return _plain(value)


def _plain(value: object) -> str:
    """Returns text that Markdown takes literally, on one line."""
    text = "".join(f"\\{each}" if each in _SPECIAL else each for each in str(value))
    return " ".join(text.split())


def unescaped(page: str) -> str:
    r"""Returns a page of `markdown` for eyes instead of a program that reads Markdown.

    >>> unescaped(r"the plan has no table \[privacy\]")
    'the plan has no table [privacy]'
    """
    return re.sub(rf"\\([{re.escape(_SPECIAL)}])", r"\1", page)
