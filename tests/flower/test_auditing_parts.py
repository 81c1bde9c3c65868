"""An audit of what is told beside the updates: figures, and the count behind an adaptive clip."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from fedsec.flower.auditing import (
    Measured,
    charged,
    measure,
    parts_of,
    together,
)
from fedsec.flower.private import Doubles
from fedsec.plan import FederationPlan
from fedsec.privacy.distributed import set_up
from fedsec.privacy.figures import Figures
from fedsec.privacy.gaussian import GaussianMechanism
from fedsec.privacy.keystream import Keystream
from fedsec.vectors import Vector
from tests.flower.auditrig import SIZE, plan

LESS = 0.85
FIGURES = "metrics = { train-loss = [0, 4], accuracy = [0, 1] }\nmetrics_noise = 2.0\n"
ADAPTIVE = "clip_quantile = 0.5\nclip_noise = 2.0\n"
BESIDE: dict[str, tuple[FederationPlan, str]] = {
    "central": (plan(more=FIGURES), "figures"),
    "central, sampled": (plan(more=FIGURES + "sampling = 0.5\n"), "figures"),
    "local": (plan("local", FIGURES), "figures"),
    "adaptive": (plan(more=FIGURES + ADAPTIVE), "count of short updates"),
    "distributed": (
        plan("distributed", f'{FIGURES}bits = 20\n[secure_aggregation]\nmode = "semi-honest"\n'),
        "updates and figures",
    ),
}


def part_of(agreed: FederationPlan, name: str) -> list[Measured]:
    (part,) = (each for each in parts_of(agreed, SIZE) if each.name == name)
    rng = np.random.default_rng(1)
    return measure(part.mechanism, clip=part.clip, size=part.size, rng=rng)


@pytest.mark.parametrize("name", BESIDE)
def test_what_is_told_beside_the_updates_is_measured_and_15_percent_less_noise_is_too_little(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With known noise: by chance, so much less would pass once in 1,000 times."""
    monkeypatch.setattr("fedsec.flower.auditing.Keystream", lambda: Keystream(bytes(range(32))))
    agreed, part = BESIDE[name]
    found = part_of(agreed, part)
    assert all(each.passed and 0.95 < each.reach < 1.05 for each in found)
    parts = parts_of(agreed, SIZE)
    assert together(parts) == pytest.approx(charged(parts[0].mechanism))
    honest: Callable[[GaussianMechanism, Doubles, Keystream], Vector] = GaussianMechanism.release
    monkeypatch.setattr(
        GaussianMechanism,
        "release",
        lambda self, vector, source: honest(
            replace(self, noise_multiplier=LESS * self.noise_multiplier), vector, source
        ),
    )
    monkeypatch.setattr(
        "fedsec.flower.sums.set_up",
        lambda **given: set_up(**{**given, "noise_multiplier": LESS * given["noise_multiplier"]}),
    )
    assert not any(each.passed for each in part_of(agreed, part))


def test_figures_that_are_not_kept_to_their_range_are_caught(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Figures, "clamp", lambda _self, rows: rows.astype(np.float64))
    agreed, part = BESIDE["central"]
    assert not any(each.passed for each in part_of(agreed, part))
