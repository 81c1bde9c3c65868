"""An audit of real mechanisms: honest ones pass, each planted defect is caught by the part named."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from fedsec.errors import ConfigError
from fedsec.flower import sums
from fedsec.flower.audited import Mechanism
from fedsec.flower.audited_central import CentralMechanism, known
from fedsec.flower.audited_nodes import DistributedMechanism, ExampleMechanism
from fedsec.flower.auditing import (
    Measured,
    Planting,
    measure,
    mechanism_of,
)
from fedsec.flower.collection import Attempt, Collected
from fedsec.flower.private import Central, Doubles
from fedsec.flower.publishing import Publish
from fedsec.flower.records import NodeRecord
from fedsec.flower.strategy import Matrix
from fedsec.plan import FederationPlan
from fedsec.plan.terms import terms
from fedsec.privacy.gaussian import GaussianMechanism
from fedsec.privacy.keystream import Keystream
from fedsec.privacy.ledger import Terms
from fedsec.secagg.groups import group_sizes
from fedsec.tasks.private_training import GridOptimizer, PrivateTraining
from fedsec.vectors import Arrays, Vector
from tests.flower.auditrig import CLIP, DELTA, NODES, PLAN, PRIVACY, SIZE, TRIMMED, plan

Combined = tuple[Doubles, tuple[NodeRecord, ...]]


def noise_passes(mechanism: Mechanism) -> bool:
    rng = np.random.default_rng(1)
    return all(each.passed for each in measure(mechanism, clip=CLIP, size=SIZE, rng=rng))


def planting(mechanism: Mechanism, count: int = 100, size: int = SIZE) -> Planting:
    return Planting(mechanism, CLIP, DELTA, size, count, 2, np.random.default_rng(1))


HONEST: dict[str, FederationPlan] = {
    "central mean": plan(),
    "central trimmed mean": plan(more=TRIMMED),
    "central centred clipping": plan(
        more='[robust]\nrule = "centered-clipping"\nbyzantine = 3\noptions = { radius = 0.1 }\n'
    ),
    "central adaptive clip": plan(more="clip_quantile = 0.5\nclip_noise = 5.0\n"),
    "central sampled": plan(more="sampling = 0.5\n"),
    "local": plan("local"),
    "example": plan("example"),
}


@pytest.mark.parametrize("name", HONEST)
def test_honest_runs_of_every_model_pass(name: str) -> None:
    mechanism = mechanism_of(HONEST[name])
    assert noise_passes(mechanism)
    assert planting(mechanism)().passed


@pytest.mark.parametrize("told", ["", "metrics = { train-loss = [0, 4] }\nmetrics_noise = 1.5\n"])
def test_honest_sums_of_noise_shares_pass(told: str) -> None:
    text = PLAN.replace("rounds = 2", "rounds = 1") + PRIVACY.format("distributed")
    secure = '[secure_aggregation]\nmode = "semi-honest"\n'
    mechanism = mechanism_of(FederationPlan.parse(text + "bits = 20\n" + told + secure))
    assert noise_passes(mechanism)
    assert planting(mechanism)().passed


GROUPS = """
[secure_aggregation]
mode = "semi-honest"
group_size = 5
corrupt_per_group = 1
"""


def grouped(model: str, more: str = "") -> FederationPlan:
    """Twelve nodes in two groups of six; each bears a dropout and a corrupt node."""
    text = PLAN.replace("[task]", 'visibility = "groups"\n[task]', 1)
    return FederationPlan.parse(text + PRIVACY.format(model) + more + GROUPS)


@pytest.mark.parametrize("model", ["central", "distributed"])
def test_honest_sums_of_groups_pass(model: str) -> None:
    mechanism = mechanism_of(grouped(model, "dropouts = 1\n" if model == "distributed" else ""))
    assert noise_passes(mechanism)
    assert planting(mechanism)().passed


BUCKETS = '[robust]\nrule = "median"\nbyzantine = 1\nbefore = [{ name = "bucketing", size = 4 }]\n'
AGAIN = """[robust]
rule = "centered-clipping"
byzantine = 1
options = { radius = 0.1, iterations = 3 }
"""
RULES: dict[str, str] = {
    "trimmed mean": TRIMMED,
    "median over buckets": BUCKETS,
    "trimmed mean over buckets": BUCKETS.replace('"median"', '"trimmed-mean"').replace("4", "2"),
    "median over clipped buckets": BUCKETS.replace(
        "size = 4 }", 'size = 2 }, { name = "clip", norm = 0.05 }'
    ),
    "clipping that starts again": AGAIN,
    "the same, over buckets": AGAIN + 'before = [{ name = "bucketing", size = 2 }]\n',
    "the same, clipped first": AGAIN + 'before = [{ name = "clip", norm = 0.3 }]\n',
}


@pytest.mark.parametrize("name", RULES)
def test_its_rows_reach_what_the_noise_under_a_rule_is_for_and_half_of_it_is_too_little(
    name: str,
) -> None:
    found = measure_of(CentralMechanism(plan(more=RULES[name])))
    assert all(each.passed for each in found)
    assert 0.9 < found[-1].reach < 1.1
    halved = measure_of(broken(HalfOfTheNoise, RULES[name]))
    assert not halved[-1].passed


def test_rows_that_reach_a_part_are_said_to_whatever_the_noise_is() -> None:
    """A step of wide clipping moves as far as the mean, the bound is three of them."""
    wide = AGAIN.replace("0.1", "5.0")
    honest = measure_of(CentralMechanism(plan(more=wide)))
    halved = measure_of(broken(HalfOfTheNoise, wide))
    assert [each.reach for each in honest] == pytest.approx([1 / 3] * 3, rel=0.01)
    assert [each.reach for each in halved] == pytest.approx([1 / 3] * 3, rel=0.01)
    assert all(each.passed for each in halved)  # which is why it is said


def test_groups_behind_a_rule_are_reached_too() -> None:
    text = PLAN.replace("= 12", "= 36").replace("[task]", 'visibility = "groups"\n[task]', 1)
    more = TRIMMED.replace("3", "1") + GROUPS
    found = measure_of(
        CentralMechanism(FederationPlan.parse(text + PRIVACY.format("central") + more))
    )
    assert all(each.passed for each in found)
    assert max(each.reach for each in found) > 0.9


# --- planted defects -------------------------------------------------------------------------------


class WithoutNoise(Central):
    def _noised(self, aggregate: Doubles, collected: Collected, clip: float) -> Vector:
        return (aggregate + 1e-9).astype(np.float32)


class HalfOfTheNoise(Central):
    def mechanism(self, clip: float) -> GaussianMechanism:
        honest = super().mechanism(clip)
        return GaussianMechanism(honest.sensitivity, honest.noise_multiplier / 2)


class NoiseOverNTwice(Central):
    def mechanism(self, clip: float) -> GaussianMechanism:
        honest = super().mechanism(clip)
        return GaussianMechanism(honest.sensitivity / NODES, honest.noise_multiplier)


class WithoutClip(Central):
    def _combine(
        self, attempt: Attempt, collected: Collected, memory: Arrays, clip: float
    ) -> Combined:
        return collected.rows.astype(np.float64).sum(0) / NODES, ()


class ClipAfterMean(Central):
    def _combine(
        self, attempt: Attempt, collected: Collected, memory: Arrays, clip: float
    ) -> Combined:
        mean = collected.rows.astype(np.float64).sum(0) / NODES
        return mean * min(1.0, clip / max(float(np.linalg.norm(mean)), 1e-30)), ()


class DenominatorFromReplies(Central):
    def _combine(
        self, attempt: Attempt, collected: Collected, memory: Arrays, clip: float
    ) -> Combined:
        total, records = super()._combine(attempt, collected, memory, clip)
        return total * NODES / len(collected.rows), records


class NoiseOfTheMeanUnderARule(Central):
    def mechanism(self, clip: float) -> GaussianMechanism:
        return GaussianMechanism(clip / NODES, super().mechanism(clip).noise_multiplier)


def broken(
    kind: type[Central], more: str = "", agreed: FederationPlan | None = None
) -> CentralMechanism:
    def combine(of: FederationPlan, publish: Publish, source: Keystream) -> Central:
        return kind(of, publish, source, known)

    return CentralMechanism(agreed or plan(more=more), combine)


@pytest.mark.parametrize(
    ("kind", "more"),
    [
        (WithoutNoise, ""),
        (NoiseOverNTwice, ""),
        (WithoutClip, ""),
        (ClipAfterMean, ""),
        (DenominatorFromReplies, ""),
        (NoiseOfTheMeanUnderARule, TRIMMED),
    ],
)
def test_the_measurement_of_noise_catches(kind: type[Central], more: str) -> None:
    assert not noise_passes(broken(kind, more))


@pytest.mark.parametrize("kind", [WithoutNoise, NoiseOverNTwice])
def test_canaries_catch(kind: type[Central]) -> None:
    found = planting(broken(kind))()
    assert found.estimate.low > found.claimed
    assert found.bound > 2.0
    assert not found.passed


def test_noise_for_another_adjacency_than_the_guarantee_s_is_caught(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A row that is replaced moves the mean twice as far as one that is missing."""

    def mixed(of: FederationPlan) -> Terms:
        right = terms(of)
        return replace(right, guarantee=replace(right.guarantee, adjacency="replace-one"))

    honest = CentralMechanism(plan())
    assert all(each.passed for each in measure_of(honest))
    monkeypatch.setattr("fedsec.flower.audited.terms", mixed)
    assert not any(each.passed for each in measure_of(honest))


def measure_of(mechanism: CentralMechanism) -> list[Measured]:
    return measure(mechanism, clip=CLIP, size=SIZE, rng=np.random.default_rng(1))


def test_a_tenth_less_noise_is_caught_at_every_number_of_survivors() -> None:
    class TenthLess(Central):
        def mechanism(self, clip: float) -> GaussianMechanism:
            honest = super().mechanism(clip)
            return GaussianMechanism(honest.sensitivity, 0.9 * honest.noise_multiplier)

    rng = np.random.default_rng(1)
    found = measure(broken(TenthLess), clip=CLIP, size=SIZE, rng=rng)
    assert len(found) == 3
    assert not any(each.passed for each in found)


def test_a_denominator_from_replies_is_right_only_when_all_answer() -> None:
    rng = np.random.default_rng(1)
    found = measure(broken(DenominatorFromReplies), clip=CLIP, size=SIZE, rng=rng)
    assert [each.passed for each in found] == [False, False, True]


def test_an_optimiser_that_forgets_its_noise_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    honest: Callable[[GridOptimizer], None] = GridOptimizer.add_noise

    def forgetful(self: GridOptimizer) -> None:
        honest(self)
        for weight in self.params:
            weight.grad = (weight.summed_grad * self._grid).to(weight.dtype)

    monkeypatch.setattr(GridOptimizer, "add_noise", forgetful)
    assert not noise_passes(ExampleMechanism(plan("example"), PrivateTraining))


def test_a_plan_without_privacy_has_nothing_to_audit() -> None:
    with pytest.raises(ConfigError, match="nothing to audit"):
        mechanism_of(FederationPlan.parse(PLAN))


class ShareLeftOut(DistributedMechanism):
    """One node of the group sends its update without its share of the noise."""

    def release(self, rows: Matrix, source: Keystream) -> Vector:
        return super().release(rows[1:], source) + rows[0] / np.float32(self.units)


def test_a_noise_share_that_one_node_of_a_group_leaves_out_is_caught() -> None:
    """At the fewest honest shares; where all answer there is one to spare, and it is that one."""
    mechanism = ShareLeftOut(grouped("distributed", "dropouts = 1\n"))
    found = measure(mechanism, clip=CLIP, size=SIZE, rng=np.random.default_rng(1))
    assert [(each.survivors, each.passed) for each in found] == [(3, False), (5, True)]


def test_shares_for_one_sum_of_all_are_too_small_for_a_group(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sums, "honest", lambda _plan: NODES - 2)
    mechanism = mechanism_of(grouped("distributed", "dropouts = 1\n"))
    found = measure(mechanism, clip=CLIP, size=SIZE, rng=np.random.default_rng(1))
    assert [each.passed for each in found] == [False, False]


class MeansOfWholeGroups(Central):
    """Takes each mean to be of all nodes of its group."""

    def _combine(
        self, attempt: Attempt, collected: Collected, memory: Arrays, clip: float
    ) -> Combined:
        return collected.rows.astype(np.float64).sum(0) / len(group_sizes(NODES, 5)), ()


def test_a_mean_of_few_that_counts_as_one_of_a_whole_group_is_caught() -> None:
    found = measure(
        broken(MeansOfWholeGroups, agreed=grouped("central")),
        clip=CLIP,
        size=SIZE,
        rng=np.random.default_rng(1),
    )
    assert [each.survivors for each in found] == [4, 6, 10, 12]
    assert [each.passed for each in found] == [False, True, True, True]


@pytest.mark.slow
@pytest.mark.parametrize(("multiplier", "true"), [(0.5, 10.0), (1.0, 4.38), (2.0, 1.99)])
def test_the_estimate_is_within_fifteen_percent(multiplier: float, true: float) -> None:
    """At d = 100,000 with 500 canaries, as the median of three trials."""
    text = PLAN.replace(f"min_available = {NODES}", "min_available = 500")
    privacy = PRIVACY.format("central").replace("multiplier = 1.0", f"multiplier = {multiplier}")
    mechanism = CentralMechanism(FederationPlan.parse(text + privacy))
    found = []
    for trial in range(3):
        rng, source = np.random.default_rng(trial), Keystream(trial.to_bytes(32, "big"))
        made = Planting(mechanism, CLIP, DELTA, 100_000, 500, 1, rng, lambda s=source: s)
        found.append(made.estimate().epsilon)
    assert np.median(found) == pytest.approx(true, rel=0.15)
