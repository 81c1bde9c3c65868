"""Whether a robust rule holds under the noise that a plan's privacy puts on its rows."""

import math
from dataclasses import dataclass

from fedsec.flower.perturb import Perturb
from fedsec.flower.private import rule_of
from fedsec.flower.sums import noisy_sum
from fedsec.plan import FederationPlan
from fedsec.plan.figures import width
from fedsec.plan.visibility import fewest_rows, group_size
from fedsec.robust.noise import noise_bias


@dataclass(frozen=True)
class Coupling:
    """A rule over rows that carry noise.

    Args:
        what: A row, in words.
        rows: How many there are at least.
        byzantine: f.
        std: Of the noise of a row, per entry, in the unit of the updates.
        size: d.
        clip: Largest L2 norm of an update, so of what a row says without its noise.
        bias: How far f hostile rows move the result at most, in L2; None where no bound is known.
    """

    what: str
    rows: int
    byzantine: int
    std: float
    size: int
    clip: float
    bias: float | None

    @property
    def noise_to_signal(self) -> float:
        """L2 norm of a row's noise over the clip."""
        return self.std * math.sqrt(self.size) / self.clip

    @property
    def robust(self) -> bool:
        """Whether hostile rows move the result by less than one honest update may be long."""
        return self.bias is not None and self.bias <= self.clip

    def sentences(self) -> list[str]:
        """Returns it in words."""
        noise = f"the noise of {self.what} is {self.noise_to_signal:.3g} times as long as the clip"
        if self.bias is None:
            return [noise, "not robust: how far hostile rows move this rule under noise is unknown"]
        moved = f"{self.byzantine} of {self.rows} rows that are hostile move the result by up to "
        moved += f"{self.bias:.3g}, the clip is {self.clip:g}"
        return [noise, moved if self.robust else f"not at this epsilon: {moved}"]

    def to_json(self) -> dict[str, object]:
        """Returns it for programs."""
        return {
            "rows": self.rows,
            "byzantine": self.byzantine,
            "noise_to_signal": self.noise_to_signal,
            "bias": self.bias,
            "clip": self.clip,
            "robust": self.robust,
        }


def coupled(plan: FederationPlan) -> bool:
    """Returns whether the plan has a rule over rows that carry noise."""
    privacy = plan.privacy
    noised = privacy is not None and privacy.model in {"local", "distributed"}
    return noised and rule_of(plan) is not None


def coupling_of(plan: FederationPlan, size: int) -> Coupling | None:
    """Returns how the rule of `plan` stands under its noise; None where there is no such pair.

    Args:
        plan: Any.
        size: d, entries of the model.

    Raises:
        ConfigError: The words of a noised sum are too short for so many entries.
    """
    privacy, robust = plan.privacy, rule_of(plan)
    if privacy is None or robust is None or not coupled(plan):
        return None
    group, what = group_size(plan), "one update"
    if privacy.model == "local":
        std = Perturb.of(privacy).mechanism.std(size)
    else:
        std = noisy_sum(plan, width(plan, size)).std(1)
    if group is not None:
        std, what = std / math.sqrt(group), "one group mean"
    rows, byzantine = fewest_rows(plan), robust.count(plan.smallest_cohort)
    bias = noise_bias(robust.pipeline(byzantine), rows, byzantine, std, size)
    return Coupling(what, rows, byzantine, std, size, privacy.clip, bias)
