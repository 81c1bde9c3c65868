"""What may not stand in `[robust]`, or beside it, and why; listed in `fedsec.plan.compat`."""

from collections.abc import Iterator
from dataclasses import MISSING
from typing import TYPE_CHECKING, get_args

from fedsec.errors import ConfigError
from fedsec.plan.privacy import population
from fedsec.plan.refusal import Refusal
from fedsec.plan.robust import TRUSTING, WEIGHT_CAP, Robust, parameters
from fedsec.plan.visibility import fewest_rows, group_size, visibility
from fedsec.robust.table import RULES

if TYPE_CHECKING:
    from fedsec.plan.federation import FederationPlan


def robust_rules(plan: "FederationPlan") -> Iterator[Refusal]:
    """A rule whose promise does not hold for the plan's nodes is no defence."""
    robust = plan.robust
    if robust is None:
        return
    if not plan.built_in or plan.training is None:
        yield Refusal(
            "robust",
            'is read by app.name = "fedsec" only; in a Flower app, take the strategy: '
            "from fedsec.flower import RobustFedAvg",
        )
        return
    wrong = problems(robust)
    yield from wrong or _promise(plan, robust)
    yield from _weights(plan, robust)
    yield from _one_sum(plan, robust)
    yield from _bare_root(plan, robust)
    if not wrong:
        yield from _central(plan, robust)


def problems(robust: Robust) -> list[Refusal]:
    """Returns what is wrong with the section by itself, whatever the number of nodes."""
    wrong = [*_trusting(robust), *_stages(robust), *_options(robust)]
    if not wrong:
        try:
            robust.pipeline(0)
        except ConfigError as error:
            wrong.append(Refusal("robust.options", str(error)))
    return wrong


def _trusting(robust: Robust) -> Iterator[Refusal]:
    if robust.rule in TRUSTING and robust.root is None:
        yield Refusal(
            "robust.root",
            f'missing: "{robust.rule}" trusts an update that the coordinator makes on clean data '
            "of its own; name a table [data.NAME] of its server.toml",
        )
    if robust.rule not in TRUSTING and robust.root is not None:
        known = " and ".join(f'"{name}"' for name in sorted(TRUSTING))
        yield Refusal("robust.root", f'"{robust.root}" is read by {known} only')


def _stages(robust: Robust) -> Iterator[Refusal]:
    for place, stage in enumerate(robust.before):
        yield from (Refusal(f"robust.before.{place}", problem) for problem in stage.problems())


def _options(robust: Robust) -> Iterator[Refusal]:
    known = parameters(robust.rule)
    known.pop("byzantine", None)
    for key, value in robust.options.items():
        path = f"robust.options.{key}"
        if key not in known:
            yield Refusal(path, f'unknown; "{robust.rule}" knows: {", ".join(known) or "none"}')
            continue
        kinds = get_args(known[key].type) or (known[key].type,)
        noun, allowed = ("a number", (int, float)) if float in kinds else ("an integer", (int,))
        if isinstance(value, bool) or not isinstance(value, allowed):
            yield Refusal(path, f"{value!r}: allowed: {noun}")
    for key, field in known.items():
        if field.default is MISSING and key not in robust.options:
            yield Refusal(f"robust.options.{key}", f'missing: "{robust.rule}" needs it')


def _promise(plan: "FederationPlan", robust: Robust) -> Iterator[Refusal]:
    """It must hold for the fewest rows that make a round; f nodes spoil f rows at most."""
    byzantine, size = robust.count(plan.smallest_cohort), group_size(plan)
    if size is not None and plan.smallest_cohort < 2 * size:
        return  # `sound_groups` tells of it
    if visibility(plan) == "sum" and (robust.rule != "mean" or robust.before):
        return  # `_one_sum` tells of it: there is nothing to compare
    rows = f"a round counts with nodes.quorum = {plan.nodes.quorum} answers"
    if size is not None:
        rows += f", so with {fewest_rows(plan)} sums of groups of {size}"
    try:
        robust.check(fewest_rows(plan), byzantine)
    except ConfigError as error:
        yield Refusal("robust.byzantine", f"{robust.byzantine}: {error} ({rows})")


def _weights(plan: "FederationPlan", robust: Robust) -> Iterator[Refusal]:
    weighting = plan.training.weighting if plan.training is not None else "uniform"
    if weighting == "uniform":
        if robust.weight_cap is not None:
            yield Refusal(
                "robust.weight_cap",
                f'{robust.weight_cap:g} is read with training.weighting = "examples" only',
            )
        return
    if not RULES[robust.rule].made_by.weighted:
        known = ", ".join(f'"{name}"' for name, row in RULES.items() if row.made_by.weighted)
        yield Refusal(
            "training.weighting",
            f'"examples" does not go with robust.rule = "{robust.rule}", which takes no weights; '
            f'these do: {known}; or write "uniform"',
        )
    elif robust.before:
        yield Refusal(
            "training.weighting",
            '"examples" does not go with robust.before: mixed updates belong to several nodes; '
            'write "uniform"',
        )
    else:
        yield from _majority(plan, robust)


def _majority(plan: "FederationPlan", robust: Robust) -> Iterator[Refusal]:
    """Hostile nodes must not be able to claim half of the weight, or they are the majority."""
    rows, byzantine = fewest_rows(plan), robust.count(plan.smallest_cohort)
    cap = robust.weight_cap or WEIGHT_CAP
    most = (plan.training.max_examples if plan.training is not None else None) or 1
    enough = 2 * byzantine * cap >= rows and byzantine * most >= rows - byzantine
    if robust.rule == "mean" or not enough or 2 * byzantine >= rows:  # the last: `_promise`
        return
    yield Refusal(
        "robust.weight_cap",
        f"{cap:g}: {byzantine} of {rows} answers could claim half of the weight; "
        f"write less than {rows / (2 * byzantine):.4g}",
    )


def _one_sum(plan: "FederationPlan", robust: Robust) -> Iterator[Refusal]:
    """Of a sum in secret there is one row, whose mean is all that can be told."""
    if visibility(plan) != "sum":
        return
    if robust.rule != "mean" or robust.before:
        stages = [str(stage) for stage in robust.before]
        yield Refusal(
            "robust.rule",
            f'"{" + ".join([*stages, robust.rule])}" compares updates, and the coordinator sees '
            'their one sum: there is nothing to compare; write visibility = "groups", so that it '
            'compares sums of groups, or rule = "mean" without `before`, or leave '
            "[secure_aggregation] out",
        )


def _bare_root(plan: "FederationPlan", robust: Robust) -> Iterator[Refusal]:
    """The root data shape every round, and no node's noise covers them."""
    if robust.root is not None and plan.privacy is not None:
        yield Refusal(
            "robust.root",
            f'"{robust.root}": the model would tell of these records without any noise that covers '
            "them, beside a [privacy] that promises it for the nodes'; leave one of the two out",
        )


def _central(plan: "FederationPlan", robust: Robust) -> Iterator[Refusal]:
    """Noise must cover what one node can change."""
    privacy = plan.privacy
    if privacy is None or privacy.model != "central":
        return
    if robust.on_suspect != "log":
        yield Refusal(
            "robust.on_suspect",
            f'"{robust.on_suspect}": who is left out would depend on the updates in a way that '
            'the noise does not cover; with privacy.model = "central" only "log" is sound',
        )
    plain = robust.rule == "mean" and not robust.before
    if privacy.sampling is not None and not plain:
        yield Refusal(
            "privacy.sampling",
            f"{privacy.sampling}: amplification is known for the plain mean, not for "
            f'robust.rule = "{robust.rule}"; leave it out, so that all take part',
        )
        return
    nodes, size = population(plan), group_size(plan)
    rows = nodes if size is None else nodes // size
    try:
        bound = robust.pipeline(robust.count(nodes)).sensitivity(privacy.clip, rows, "replace-one")
    except ConfigError:  # which `_promise` tells of
        return
    if bound is None:
        known = ", ".join(f'"{name}"' for name, row in RULES.items() if row.sensitivity)
        yield Refusal(
            "robust.rule",
            f'"{robust.rule}" as it stands here has no known sensitivity, so no noise can be said '
            f"to be enough; these can have one: {known} (the median behind bucketing)",
        )
