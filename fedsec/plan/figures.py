"""`privacy.metrics`: figures of nodes that are told, each kept to a range and noised.

    [privacy]
    metrics = { train-loss = [0.0, 4.0], accuracy = [0.0, 1.0] }
    metrics_noise = 3.0          # over what a node can change; 3 times noise_multiplier if left out

Their cost comes out of `privacy.noise_multiplier`: the round costs what it says, with figures or
without, and the updates get the more noise.
"""

from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING

from fedsec.errors import ConfigError
from fedsec.plan.privacy import Privacy, clip_noise, drawn_in_secret, expected
from fedsec.plan.refusal import Refusal

if TYPE_CHECKING:
    from fedsec.plan.federation import FederationPlan
    from fedsec.privacy.figures import Figures
    from fedsec.privacy.joined import Joined

MOST_METRICS = 16
OF_TRAINING = ("train-loss", "num-examples")
OF_CLASSES, OF_NUMBERS = ("accuracy", "f1", "auc"), ("mae", "r2")
MEASURED = MappingProxyType(
    {
        "digits": ("accuracy",),
        "table": OF_CLASSES,
        "images": OF_CLASSES,
        "breast-cancer": OF_CLASSES,
    }
)
"""What nodes measure beside the loss, by built-in task; `OF_NUMBERS` where the target is one."""
NOISE = 3.0
"""Default of `metrics_noise` over `noise_multiplier`: updates then have 6 % more noise."""


def figures_of(privacy: Privacy | None) -> "Figures | None":
    """Returns which figures of nodes are told, and how; None if they are withheld."""
    if privacy is None or not privacy.metrics:
        return None
    from fedsec.privacy.figures import Figures  # noqa: PLC0415 - a plan is read without numpy

    ranges = tuple((name, low, high) for name, (low, high) in privacy.metrics.items())
    given = privacy.metrics_noise
    return Figures(ranges, NOISE * privacy.noise_multiplier if given is None else given)


def joined_of(plan: "FederationPlan") -> "Joined | None":
    """Returns how figures stand behind updates in sums that nodes noise; None if there are none.

    Raises:
        ConfigError: Nothing is left of the noise multiplier for the updates.
    """
    privacy = plan.privacy
    figures = figures_of(privacy)
    if privacy is None or privacy.model != "distributed" or figures is None:
        return None
    from fedsec.privacy.joined import Joined  # noqa: PLC0415 - a plan is read without numpy

    return Joined(figures, privacy.clip, update_multiplier(plan))


def width(plan: "FederationPlan", size: int) -> int:
    """Returns the entries of what a node sends: an update (size,), and figures that are told."""
    told = plan.privacy.metrics if plan.privacy is not None else None
    return size + len(told or ())


def update_multiplier(plan: "FederationPlan") -> float:
    """Returns the noise multiplier that is left for the updates: all of it but for what is told.

    Raises:
        ConfigError: The plan has no [privacy], or nothing is left.
    """
    privacy = plan.privacy
    if privacy is None:
        raise ConfigError("the plan has no table [privacy]")
    figures, parts = figures_of(privacy), []
    if privacy.clip_quantile is not None:
        parts.append(2 * clip_noise(plan))
    if figures is not None:
        parts.append(figures.noise_multiplier)
    if not parts:
        return privacy.noise_multiplier
    from fedsec.privacy.gaussian import remaining  # noqa: PLC0415 - a plan is read without numpy

    return remaining(privacy.noise_multiplier, *parts)


def noised_figures(plan: "FederationPlan") -> Iterator[Refusal]:
    """Figures are told where noise covers them."""
    privacy = plan.privacy
    if privacy is None:
        return
    if privacy.metrics is None:
        if privacy.metrics_noise is not None:
            yield Refusal(
                "privacy.metrics_noise",
                f"{privacy.metrics_noise:g} is read together with privacy.metrics only",
            )
        return
    if privacy.model == "example":
        yield Refusal(
            "privacy.metrics",
            "noise in the training covers no figure that is taken beside it; leave it out, or "
            'choose another model than "example"',
        )
    elif plan.secure_aggregation is not None and privacy.model != "distributed":
        yield Refusal(
            "privacy.metrics",
            f'under model = "{privacy.model}" a secure sum carries updates only; leave it out, or '
            'choose model = "distributed", whose noise covers both',
        )
    wrong = [*sound_ranges("privacy.metrics", privacy.metrics), *_unknown(plan, privacy.metrics)]
    yield from wrong
    if not wrong and not _something_left(plan):
        yield Refusal(
            "privacy.metrics_noise",
            f"{figures_noise(privacy):g} leaves nothing of privacy.noise_multiplier = "
            f"{privacy.noise_multiplier:g} for the updates; raise it",
        )


def _unknown(plan: "FederationPlan", metrics: Mapping[str, Sequence[float]]) -> Iterator[Refusal]:
    """A figure that no node has would be told nevertheless: as the middle of its range."""
    task = None if plan.task is None else plan.task.name
    if task is None or task not in MEASURED:
        return  # a task of one's own: it alone knows
    numbers = plan.data is not None and plan.data.classes is None
    known = (*OF_TRAINING, "loss", *(OF_NUMBERS if numbers else MEASURED[task]))
    for name in metrics:
        if name not in known:
            yield Refusal(
                f"privacy.metrics.{name}",
                f"no node of this task can tell it; these can be told: {', '.join(known)}",
            )


def figures_noise(privacy: Privacy) -> float:
    """Returns the multiplier of the figures' noise; 0 where none is told."""
    found = figures_of(privacy)
    return 0.0 if found is None else found.noise_multiplier


def sound_ranges(key: str, metrics: Mapping[str, Sequence[float]]) -> Iterator[Refusal]:
    """A range is one, and there are no more than a few."""
    if len(metrics) > MOST_METRICS:
        yield Refusal(key, f"{len(metrics)} metrics; allowed: 0..{MOST_METRICS}")
    for name, (low, high) in metrics.items():
        if low >= high:
            yield Refusal(
                f"{key}.{name}",
                f"[{low:g}, {high:g}] is no range; the first must be less than the second",
            )


def sentence(plan: "FederationPlan") -> str:
    """Returns what is told of the nodes' figures, in words."""
    privacy = plan.privacy
    if privacy is None or not privacy.metrics:
        return "of nodes: withheld, all of them"
    means = [f"{name} in {low:g}..{high:g}" for name, (low, high) in privacy.metrics.items()]
    return f"of nodes: told as noised means over {over(plan)}: {', '.join(means)}; no others"


def over(plan: "FederationPlan") -> str:
    """Returns of which nodes noised means are."""
    privacy = plan.privacy
    if not drawn_in_secret(plan):
        central = privacy is not None and privacy.model == "central"
        rejected = "an answer that is rejected counts as the middle of a range"
        return f"those that answer ({rejected})" if central else "those whose answers count"
    return (
        f"the {expected(plan):g} drawn on average (how many were is a secret; who is missing "
        "counts as the middle of a range)"
    )


def _something_left(plan: "FederationPlan") -> bool:
    try:
        update_multiplier(plan)
    except ConfigError:
        return False
    return True
