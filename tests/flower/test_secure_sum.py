"""Secure sums through the round: exact mean, losses, weights, figures; nothing of one node is told."""

import numpy as np
import pytest
from flwr.app import Message

from fedsec.encoding import Words
from fedsec.errors import StateError
from fedsec.flower.collection import Attempt, AttemptMissed, Collected, Post
from fedsec.flower.messages import Heading, Metrics, instruction
from fedsec.flower.reporting import ROUND
from fedsec.flower.rounds import Rounds
from fedsec.flower.secure_session import make_setting
from fedsec.flower.secure_sum import SecureSum
from fedsec.flower.strategy import FedAvg, ServerState
from fedsec.flower.sums import SumForm, sum_form
from fedsec.privacy.keystream import Keystream
from fedsec.vectors import Vector
from tests.flower.fakes import Waiting, answering, raising
from tests.flower.secure import FIRST, SecureGrid, guarded, secure_plan

MALICIOUS = 'mode = "malicious"\nclip = 10.0'
UPDATES = [[1.0, -2.0, 0.5], [3.0, 1.0, -0.5], [0.0, 4.0, 2.0], [-1.0, 1.0, 6.0], [2.0, 1.0, 7.0]]


def rounds(plan: object, grid: SecureGrid, size: int = 3) -> Rounds:
    return Rounds(plan, grid, grid, size=size, clock=Waiting().clock)  # type: ignore[arg-type]


def begin(size: int = 3) -> ServerState:
    return ServerState.begin({"w": np.zeros(size, np.float32)}, FedAvg())


@pytest.mark.parametrize("section", ['mode = "semi-honest"\nclip = 10.0', MALICIOUS])
@pytest.mark.parametrize("bits", [16, 32])
def test_the_model_moves_by_the_mean(section: str, bits: int) -> None:
    agreed = secure_plan(f"{section}\nword_bits = {bits}\nmax_nodes = 5")
    grid = SecureGrid(agreed, UPDATES)
    run, state = rounds(agreed, grid), begin()
    for number in (1, 2, 3):
        state = run(state, number)
    expected = 3 * np.mean(UPDATES, axis=0)
    tolerance = 3 * 10 / (2 ** (bits - 1) / 5 - 2)
    np.testing.assert_allclose(state.vector, expected, atol=tolerance)
    assert [event["answered"] for event in grid.of(ROUND)] == [list(range(100, 105))] * 3


def test_the_mean_is_weighted_by_examples_up_to_the_cap() -> None:
    agreed = secure_plan(training='rounds = 1\nweighting = "examples"\nmax_examples = 4')
    state = rounds(agreed, SecureGrid(agreed, UPDATES))(begin(), 1)
    weights = np.array([1, 2, 3, 4, 4])  # the fifth claims 5
    expected = weights @ np.array(UPDATES) / weights.sum()
    np.testing.assert_allclose(state.vector, expected, atol=1e-4)


@pytest.mark.parametrize(
    ("off", "said"),
    [
        (1 + 2 + 3 + 4 + 4, "the nodes' weights add up to 0"),
        (2**31, "5 nodes have 20 at most: one of them added what is no weight"),
    ],
)
def test_a_node_whose_word_is_no_weight_costs_an_attempt(
    monkeypatch: pytest.MonkeyPatch, off: int, said: str
) -> None:
    more = "[round]\nattempts = 2\ndeadline_s = 5\n"
    agreed = secure_plan(training='rounds = 1\nweighting = "examples"\nmax_examples = 4', more=more)
    honest, lies = SumForm.encode, [np.uint32(off)]

    def encode(form: SumForm, update: Vector, metrics: Metrics, source: Keystream) -> Words:
        words = honest(form, update, metrics, source)
        if metrics.examples == 1 and lies:
            words[form.encoding.length :] -= lies.pop()
        return words

    monkeypatch.setattr(SumForm, "encode", encode)
    grid = SecureGrid(agreed, UPDATES)
    assert rounds(agreed, grid)(begin(), 1).round == 1
    (note,) = grid.of("note")
    assert said in str(note)


def test_a_hostile_weight_that_the_total_allows_is_not_noticed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Nobody sees it: of 20 at most the honest make 13. It shrinks the mean, as a vector could."""
    agreed = secure_plan(training='rounds = 1\nweighting = "examples"\nmax_examples = 4')
    honest, claimed = SumForm.encode, 1 + 6

    def encode(form: SumForm, update: Vector, metrics: Metrics, source: Keystream) -> Words:
        words = honest(form, update, metrics, source)
        if metrics.examples == 1:
            words[form.encoding.length :] = claimed
        return words

    monkeypatch.setattr(SumForm, "encode", encode)
    state = rounds(agreed, SecureGrid(agreed, UPDATES))(begin(), 1)
    expected = np.array([1, 2, 3, 4, 4]) @ np.array(UPDATES) / (claimed + 2 + 3 + 4 + 4)
    np.testing.assert_allclose(state.vector, expected, atol=1e-4)


def test_an_update_is_clipped_in_l2_before_it_is_weighted() -> None:
    agreed = secure_plan('mode = "semi-honest"\nclip = 1.0')
    updates = [[300.0, 400.0, 0.0], *([[0.0, 0.0, 0.0]] * 4)]
    state = rounds(agreed, SecureGrid(agreed, updates))(begin(), 1)
    np.testing.assert_allclose(state.vector, [0.6 / 5, 0.8 / 5, 0], atol=1e-6)


def test_a_node_whose_app_fails_is_lost_and_named() -> None:
    agreed = secure_plan()
    grid = SecureGrid(agreed, UPDATES)
    grid._apps = {**grid._apps, 104: guarded(agreed, 104, raising(ValueError("no data")))}
    state = rounds(agreed, grid)(begin(), 1)
    np.testing.assert_allclose(state.vector, np.mean(UPDATES[:4], axis=0), atol=1e-5)
    (event,) = grid.of(ROUND)
    assert event["answered"] == [100, 101, 102, 103]
    assert event["failed"] == {"104": "stage offer: ValueError: no data"}


def test_an_app_without_defences_is_undefended() -> None:
    agreed = secure_plan()
    grid = SecureGrid(agreed, UPDATES)
    grid._apps = {**grid._apps, 102: answering([1.0, 1.0, 1.0])}
    rounds(agreed, grid)(begin(), 1)
    (event,) = grid.of(ROUND)
    assert event["rejected"] == {
        "102": "undefended: it answers without a record 'fedsec.secagg': its app has no defence"
    }


def test_below_the_quorum_the_round_is_tried_again_with_fresh_keys() -> None:
    agreed = secure_plan(more="[round]\nattempts = 2\ndeadline_s = 5\n")
    grid = SecureGrid(agreed, UPDATES)
    grid.silent = {100, 101}
    asked: list[int] = []

    def back() -> None:
        asked.append(1)
        if len(asked) > 1:
            grid.silent = set()

    grid.before = back
    state = rounds(agreed, grid)(begin(), 1)
    np.testing.assert_allclose(state.vector, np.mean(UPDATES, axis=0), atol=1e-5)
    (note,) = grid.of("note")
    assert "the secure sum is lost at stage offer: 3 members, the plan's quorum is 4" in str(note)
    offers = [bytes(_record(m)["body"]) for m in grid.came if _record(m)["stage"] == "offer"]  # type: ignore[arg-type]
    assert len(offers) == len(set(offers)) == 8


@pytest.mark.parametrize(("stage", "seconds"), [("shares", 60), ("vector", 600), ("reveal", 60)])
def test_a_node_that_is_silent_after_training_costs_little(stage: str, seconds: float) -> None:
    """Where nodes send much they may take as long as they may to train."""
    agreed = secure_plan()
    grid, time = SecureGrid(agreed, UPDATES), Waiting()
    grid.quiet = {(104, stage)}
    run = Rounds(agreed, grid, grid, size=3, clock=time.clock)
    state = run(begin(), 1)
    counted = UPDATES if stage == "reveal" else UPDATES[:4]
    np.testing.assert_allclose(state.vector, np.mean(counted, axis=0), atol=1e-5)
    assert seconds <= time.time < seconds + 1


def test_without_enough_nodes_the_run_fails_and_says_why() -> None:
    agreed = secure_plan(more="[round]\nattempts = 2\ndeadline_s = 5\n")
    grid = SecureGrid(agreed, UPDATES)
    grid.silent = {100, 101}
    with pytest.raises(StateError, match="stage offer: no answer within 5 s"):
        rounds(agreed, grid)(begin(), 1)


@pytest.mark.parametrize("mode", ["malicious", "semi-honest"])
def test_a_plan_s_attempts_are_draws_of_the_ring_for_both_sides(mode: str) -> None:
    agreed = secure_plan(f'mode = "{mode}"\nclip = 1.0', more="[round]\nattempts = 7\n")
    heading = Heading(1, 1, agreed.digest)
    setting = make_setting(agreed, sum_form(agreed, 3, heading), 1, heading, bytes(32))
    assert setting.assumptions.draws == 7


def _record(message: Message) -> dict[str, object]:
    return dict(message.content.config_records["fedsec.secagg"])


@pytest.mark.parametrize("weighting", ["", 'weighting = "examples"\nmax_examples = 9'])
def test_no_reply_carries_a_node_s_loss_count_or_update(weighting: str) -> None:
    """Reads every byte that comes back."""
    agreed = secure_plan(training=f"rounds = 2\n{weighting}", more="[round]\nevaluate_every = 1\n")
    grid = SecureGrid(agreed, UPDATES)
    rounds(agreed, grid)(begin(), 1)
    assert len(grid.came) == 4 * len(UPDATES)
    for message in grid.came:
        assert message.metadata.message_type == "train"
        assert not message.content.metric_records
        assert set(message.content) <= {"fedsec.secagg", "masked"}
        assert set(_record(message)) == {"stage", "body"}
    told = b"".join(_bytes(message) for message in grid.came)
    for update in UPDATES:
        assert np.array(update, np.float32).tobytes() not in told
    event = grid.of(ROUND)[0]
    assert not {"train_loss", "examples", "loss"} & set(event)


def _bytes(message: Message) -> bytes:
    arrays = [a.data for record in message.content.array_records.values() for a in record.values()]
    return bytes(_record(message)["body"]) + b"".join(arrays)  # type: ignore[arg-type]


@pytest.mark.parametrize("bits", [16, 32])
def test_figures_that_the_plan_lets_out_are_means_within_their_range(bits: int) -> None:
    section = (
        'mode = "semi-honest"\nclip = 10.0\nmax_nodes = 5\nmetrics = { train-loss = [0.0, 2.0] }'
    )
    agreed = secure_plan(f"{section}\nword_bits = {bits}", "rounds = 1")
    grid = SecureGrid(agreed, UPDATES)
    losses = (0.25, 0.5, 1.0, 1.5, 99.0)
    for place, loss in enumerate(losses):
        app = answering(UPDATES[place], loss=loss)
        grid._apps = {**grid._apps, FIRST + place: guarded(agreed, FIRST + place, app)}
    rounds(agreed, grid)(begin(), 1)
    (event,) = grid.of(ROUND)
    expected = np.mean([*losses[:4], 2.0])
    assert event["train_loss"] == pytest.approx(expected, abs=4 / (2**bits / 5))
    assert "examples" not in event  # nobody was asked how many there are


def test_a_figure_that_a_node_drives_out_of_its_range_is_kept_to_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    section = (
        'mode = "semi-honest"\nclip = 10.0\nmax_nodes = 100\nmetrics = { train-loss = [0.0, 2.0] }'
    )
    agreed, honest = secure_plan(section, "rounds = 1"), SumForm.encode

    def encode(form: SumForm, update: Vector, metrics: Metrics, source: Keystream) -> Words:
        words = honest(form, update, metrics, source)
        words[-1] += np.uint32(2**31)
        return words

    grid = SecureGrid(agreed, UPDATES)
    monkeypatch.setattr(SumForm, "encode", encode)
    rounds(agreed, grid)(begin(), 1)
    (event,) = grid.of(ROUND)
    assert event["train_loss"] == 2.0


def test_figures_of_a_weighted_sum_are_weighted_and_their_weight_is_told() -> None:
    section = 'mode = "semi-honest"\nclip = 10.0\nmetrics = { train-loss = [0.0, 2.0] }'
    agreed = secure_plan(section, 'rounds = 1\nweighting = "examples"\nmax_examples = 4')
    grid = SecureGrid(agreed, UPDATES)
    for place in range(5):
        app = answering(UPDATES[place], examples=place + 1, loss=place / 4)
        grid._apps = {**grid._apps, FIRST + place: guarded(agreed, FIRST + place, app)}
    rounds(agreed, grid)(begin(), 1)
    (event,) = grid.of(ROUND)
    weights = np.array([1, 2, 3, 4, 4])
    assert event["train_loss"] == pytest.approx(weights @ np.arange(5) / 4 / 14, abs=1e-5)
    assert event["examples"] == 14


@pytest.mark.parametrize("attempts", [1, 2])
def test_two_sums_of_a_round_tell_a_node_s_update_unless_there_is_one_attempt(
    attempts: int,
) -> None:
    tries = f"[round]\nattempts = {attempts}\ndeadline_s = 5\nreconnect_s = 1\n"
    agreed = secure_plan(MALICIOUS, more=tries)
    grid = SecureGrid(agreed, UPDATES)
    collect = SecureSum(agreed, 3, grid.trusted)

    def opened(number: int, nodes: range) -> Collected:
        model = {"w": np.zeros(3, np.float32)}
        content = instruction(model, round_number=1, plan=agreed.digest, attempt=number)
        post = Post(grid, 5.0, clock=Waiting().clock)
        return collect(post, Attempt(1, number, tuple(nodes), content))

    everybody = opened(1, range(FIRST, FIRST + 5))
    if attempts == 1:
        with pytest.raises(AttemptMissed) as missed:
            opened(2, range(FIRST, FIRST + 4))
        said = ["the plan has 1 (round.attempts)" in why for why in missed.value.failed.values()]
        assert said == [True] * 4
        return
    without = opened(2, range(FIRST, FIRST + 4))
    told = 5 * everybody.rows[0] - 4 * without.rows[0]
    np.testing.assert_allclose(told, UPDATES[4], atol=1e-4)
