"""Figures of nodes: those that the plan asks for, clamped and noised; no others, and no more."""

from dataclasses import replace

import numpy as np
import pytest
from flwr.app import Context, Message, RecordDict

from fedsec.flower.collection import Attempt, Collected, Post
from fedsec.flower.combination import Combined, Weighted
from fedsec.flower.messages import (
    bare_train_reply,
    instruction,
    read_bare_train_reply,
    train_reply,
)
from fedsec.flower.node_privacy import NodePrivacy, unchanged
from fedsec.flower.noised_figures import NoisedFigures
from fedsec.flower.perturb import Perturb
from fedsec.flower.private import central_mechanism
from fedsec.flower.publishing import Trial
from fedsec.flower.reporting import NOISED, NOISED_OVER
from fedsec.flower.table import collection, combination
from fedsec.plan import FederationPlan
from fedsec.plan.figures import figures_of, update_multiplier
from fedsec.plan.terms import terms
from fedsec.privacy.figures import Figures
from fedsec.privacy.keystream import Keystream
from tests.flower import test_mod
from tests.flower.fakes import FakeGrid, replying
from tests.flower.test_private import central, collected, combine, plan

QUIET = "metrics = { train-loss = [0, 2], num-examples = [0, 100] }\n"
D = 4


def figures(of: FederationPlan) -> Figures:
    found = figures_of(of.privacy)
    assert found is not None
    return found


def rows(of: FederationPlan, *values: dict[str, float]) -> np.ndarray:
    told = [np.append(np.zeros(D, np.float32), figures(of).encode(each)) for each in values]
    return np.array(told, np.float32)


def noised(made: Combined) -> dict[str, float]:
    told = made.figures[NOISED]
    assert isinstance(told, dict)
    return told


def test_the_round_tells_noised_means_over_the_nodes_that_answered() -> None:
    """11 nodes of which 2 are absent, at a multiplier so small that the means show."""
    of = plan(QUIET, z=0.05)
    made = combine(central(of), rows(of, *[{"train-loss": 1.9, "num-examples": 90}] * 9))
    std = figures(of).mechanism(9).std(2)
    assert noised(made)["train-loss"] == pytest.approx(1.9, abs=6 * 2 * std)
    assert noised(made)["num-examples"] == pytest.approx(90, abs=6 * 100 * std)
    assert made.figures["train_loss"] == noised(made)["train-loss"]
    assert made.vector.shape == (D,)


def test_a_node_whose_answer_is_refused_counts_as_one_that_answered() -> None:
    """Else the number would tell neighbours apart: with its update at zero it is not refused."""
    of = plan(QUIET, z=0.05)
    combined = central(of)
    ten = rows(of, *[{"train-loss": 1.9}] * 10)
    nodes = tuple((node,) for node in range(10))
    refused = Collected(ten, nodes, np.ones(10), (), {}, {10: "not finite"})
    made = combined(Attempt(1, 1, tuple(range(11)), RecordDict()), refused, {})
    std = figures(of).mechanism(11).std(2)
    assert noised(made)["train-loss"] == pytest.approx(1 + 0.9 * 10 / 11, abs=6 * 2 * std)


def test_a_release_that_is_asked_for_again_is_told_as_it_was_stored() -> None:
    """Ten answer, and the coordinator stops; three answer when the round is repeated."""
    of = plan(QUIET, z=0.05)
    trial = Trial(terms(of))
    ten, three = (rows(of, *[{"train-loss": 1.9}] * many) for many in (10, 3))
    first, again = (combine(central(of, publish=trial), each) for each in (ten, three))
    assert first.figures[NOISED_OVER] == 10
    assert again.figures == first.figures
    assert again.vector.tolist() == first.vector.tolist()


def test_who_was_not_asked_is_not_counted() -> None:
    of = plan(QUIET, z=0.05)
    given = replace(collected(rows(of, *[{}] * 3)), rejected={77: "not-asked", 4: "not finite"})
    made = central(of)(Attempt(1, 1, (1, 2, 3, 4, 5), RecordDict()), given, {})
    assert made.figures[NOISED_OVER] == 4


def test_means_over_a_secret_number_are_left_as_they_are() -> None:
    of = plan(QUIET + "sampling = 0.5\n", z=0.05)
    made = combine(central(of), rows(of, *[{"train-loss": 2.0}] * 4))
    std = figures(of).mechanism(5.5).std(2)
    assert noised(made)["train-loss"] == pytest.approx(1 + 4 / 5.5, abs=6 * 2 * std)


def test_a_noised_sum_of_those_that_answered_is_divided_by_their_number() -> None:
    """The row of a sum is over the 11 that may answer; 8 do, and all of their losses are 2."""
    of = local()
    told = NoisedFigures(figures(of), Weighted(), weight=4.0)
    row = rows(of, {"train-loss": 2.0}) * np.float32(4.0 * 8 / 11)
    collected = Collected(row, (tuple(range(8)),), np.array([11.0]), (), {}, {})
    made = told(Attempt(1, 1, tuple(range(11)), RecordDict()), collected, {})
    assert noised(made)["train-loss"] == pytest.approx(2.0)


def test_a_claim_beyond_the_range_counts_as_its_end() -> None:
    of = plan(QUIET, z=0.05)
    honest = rows(of, *[{"train-loss": 1.0, "num-examples": 50}] * 11)
    hostile = honest.copy()
    hostile[0, D:] = 3e38
    one, other = (noised(combine(central(of), each)) for each in (honest, hostile))
    assert other["train-loss"] - one["train-loss"] == pytest.approx(1 / 11, abs=1e-4)


def test_updates_get_the_more_noise_and_the_price_stays() -> None:
    without, asked = plan(z=2.0), plan(QUIET, z=2.0)
    assert update_multiplier(asked) == pytest.approx(2.0 / np.sqrt(1 - 1 / 9))
    assert central_mechanism(asked, 0.5).noise_multiplier == update_multiplier(asked)
    assert central_mechanism(without, 0.5).noise_multiplier == 2.0


def test_a_rule_and_an_adaptive_clip_go_with_figures() -> None:
    trimmed = plan(QUIET, robust='[robust]\nrule = "trimmed-mean"\nbyzantine = 2\n')
    assert set(noised(combine(central(trimmed), rows(trimmed, {}, {})))) == {
        "train-loss",
        "num-examples",
    }
    moving = plan(QUIET + "clip_quantile = 0.5\nclip_noise = 5.0\n")
    made = combine(central(moving), rows(moving, {}, {}))
    assert made.vector.shape == (D,)
    assert "clip" in made.memory
    parts = (2 * 5.0, figures(moving).noise_multiplier, update_multiplier(moving))
    assert sum(part**-2 for part in parts) == pytest.approx(1.0)


def local(metrics: str = QUIET) -> FederationPlan:
    text = f"""
        schema = 1
        name = "private"
        [task]
        name = "digits"
        [training]
        rounds = 5
        [nodes]
        min_available = 3
        [privacy]
        model = "local"
        epsilon = 50.0
        delta = 1e-5
        noise_multiplier = 2.0
        clip = 0.5
        {metrics}
        """
    return FederationPlan.parse(text)


def test_a_node_noises_its_figures_for_any_others() -> None:
    """Range 1, two figures, neighbours sqrt(2) apart; the update's noise is that of what is left."""
    of = local()
    assert of.privacy is not None
    perturb = Perturb.of(of.privacy)
    assert perturb.noise_multiplier == pytest.approx(2.0 / np.sqrt(1 - 1 / 9))
    row, source = rows(of, {})[0], Keystream(bytes(range(32)))
    sent = np.array([perturb(row, source) for _ in range(4000)], np.float64)
    assert sent.shape == (4000, D + 2)
    assert sent[:, D:].std() == pytest.approx(6.0 * np.sqrt(2), rel=0.04)
    assert sent[:, :D].std() == pytest.approx(perturb.noise_multiplier * 1.0, rel=0.03)


def test_what_nodes_noised_is_averaged_and_told() -> None:
    of = local()
    made = combine(combination(of), rows(of, {"train-loss": 2.0}, {"train-loss": 1.0}))
    assert noised(made) == {"train-loss": 1.5, "num-examples": 50.0}
    assert made.figures[NOISED_OVER] == 2
    assert made.vector.tolist() == [0.0] * D


def test_figures_of_groups_count_by_their_nodes() -> None:
    """Groups of five and six: what they say weighs as much as there are nodes in them."""
    of = local()
    told = NoisedFigures(figures(of), Weighted(), weight=4.0)
    given = rows(of, {"train-loss": 2.0}, {"train-loss": 0.0})
    given[:, D:] *= 4.0
    groups = (tuple(range(5)), tuple(range(5, 11)))
    collected = Collected(given, groups, np.array([5.0, 6.0]), (), {}, {})
    made = told(Attempt(1, 1, tuple(range(11)), RecordDict()), collected, {})
    assert noised(made)["train-loss"] == pytest.approx(2 * 5 / 11)
    assert noised(made)["num-examples"] == 50


def app(message: Message, context: Context) -> Message:
    reply = train_reply(
        np.ones(D, np.float32), examples=80, loss=99.0, more={"accuracy": 1.0, "secret": 5.0}
    )
    return Message(reply, reply_to=message)


@pytest.mark.parametrize(
    ("told", "behind"),
    [
        (None, []),
        ("metrics = { accuracy = [0, 1], loss = [0, 1] }", [0.5, 0.0]),
        (QUIET, [0.5, pytest.approx(0.3)]),
    ],
)
def test_only_what_the_plan_asks_for_leaves_the_node(told: str | None, behind: list[float]) -> None:
    of = local(told) if told else None
    private = NodePrivacy(None, unchanged, figures=figures(of) if of else None)
    reply = private(test_mod.message(1, "train", "ab", "a", 1), test_mod.context(), app)
    row = np.empty(D + len(behind), np.float32)
    read_bare_train_reply("7", reply.content, row)  # which refuses anything beside that vector
    assert row.tolist() == [1.0] * D + behind


def test_the_coordinator_takes_no_shorter_and_no_longer_vector() -> None:
    of = local()
    grid = FakeGrid(
        [replying(bare_train_reply(np.zeros(size, np.float32))) for size in (D, D + 2, D + 3)]
    )
    asked = instruction({"w": np.zeros(D, np.float32)}, round_number=1, plan=of.digest)
    found = collection(of, D)(Post(grid, 10.0), Attempt(1, 1, (100, 101, 102), asked))
    assert found.nodes == (101,)
    assert "want float32 (6,)" in found.rejected[100]
    assert "want float32 (6,)" in found.rejected[102]
