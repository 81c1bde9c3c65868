"""What a run's events become on the screen."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.table import Table

from fedsec.console import console
from fedsec.wire.generated import admin_pb2 as pb
from fedsec_server.commands.history import History
from fedsec_server.commands.progress import Screen
from fedsec_server.commands.rounds import Rounds
from fedsec_server.commands.shape import as_mapping, detail_words, moment
from tests.server.eventrig import event, of, run_of

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3)
    ),
    max_leaves=8,
)
KEYS = st.sampled_from(
    [
        "round",
        "answered",
        "failed",
        "rejected",
        "loss",
        "train_loss",
        "accuracy",
        "seconds",
        "path",
        "nodes",
    ]
)


def shown(screen: Screen) -> str:
    out = console()
    with out.capture() as captured:
        out.print(screen.render())
    return captured.get()


def printed(made: Table) -> list[str]:
    out = console()
    with out.capture() as captured:
        out.print(made)
    return [line.rstrip() for line in captured.get().splitlines()]


# --- rounds ------------------------------------------------------------------------------------


def test_a_round_becomes_a_row() -> None:
    rounds = Rounds(names={"12": "clinic-1"})
    row = rounds.add(
        event(
            1,
            round=2,
            answered=[10, 11],
            failed={"12": "killed"},
            rejected={"13": "NaN"},
            train_loss=2.0,
            loss=0.5,
            accuracy=0.9,
            seconds=0.25,
            bytes_up=10,
            bytes_down=20,
        )
    )
    assert row is not None
    assert rounds.cells(row) == (
        2,
        "2/4",
        "0.5000",
        "0.9000",
        "2.0000",
        "250.0 ms",
        "clinic-1: killed; 13: NaN",
    )
    assert row.moved == 30


def test_a_round_whose_nodes_are_a_secret_counts_none() -> None:
    rounds = Rounds()
    row = rounds.add(event(1, round=1, cohort="secret", loss=0.5))
    assert row is not None
    assert rounds.cells(row)[:3] == (1, "secret", "0.5000")


def test_noised_figures_are_shown_by_name_and_the_loss_of_training_is_not_that_of_the_tests() -> (
    None
):
    rounds = Rounds()
    noised = {"loss": 0.41, "accuracy": 0.93, "train-loss": -1.7}
    row = rounds.add(
        event(1, round=4, train_loss=-1.7, noised=noised, answered=[1, 2], noised_over=2.0)
    )
    assert row is not None
    assert (row.loss, row.accuracy) == (0.41, 0.93)
    figures = "loss 0.41, accuracy 0.93, train-loss -1.7"
    told = f"{figures} (round 4; over the 2 that answered)"
    assert rounds.noised() == told
    assert ("noised figures", told) in rounds.summary()
    assert rounds.add(event(2, round=5, noised="no mapping")) is not None
    assert rounds.add(event(3, round=6, loss=10**400, noised={"loss": 10**400})) is not None
    assert rounds.noised() == told
    history = History()
    history.take(of(event(1, round=4, train_loss=-1.7, noised=noised, noised_over=2.0)))
    assert "noised_over" not in history.figures
    history.take(of(event(2, round=5, loss=10**400, better=True)))
    assert "better" not in history.figures
    assert history.figures["accuracy"] == {4: 0.93}
    assert history.losses() == {"training": {4: -1.7}, "tests": {4: 0.41}}


@pytest.mark.parametrize(
    ("told", "said"),
    [
        ({"noised_over": 2.0}, "; over the 2 that answered"),
        (
            {"noised_over": 3.0, "rejected": {"3": "NaN"}},
            "; over the 3 that answered, the rejected as the middle of a range",
        ),
        (
            {"noised_over": 5.5, "cohort": "secret"},
            "; over the 5.5 drawn on average, the missing as the middle of a range",
        ),
        ({}, ""),
    ],
)
def test_it_is_said_what_noised_means_are_over(told: dict[str, object], said: str) -> None:
    rounds = Rounds()
    rounds.add(event(1, round=4, noised={"loss": 0.41}, answered=[1, 2], **told))
    assert rounds.noised() == f"loss 0.41 (round 4{said})"


def test_many_missing_nodes_are_counted() -> None:
    rounds = Rounds()
    row = rounds.add(event(1, round=1, failed={str(n): "gone" for n in range(10)}))
    assert row is not None
    assert str(rounds.cells(row)[-1]).endswith("2: gone; and 7 more")


def test_the_loss_of_training_is_never_taken_for_that_of_an_evaluation() -> None:
    rounds = Rounds()
    row = rounds.add(event(1, round=1, answered=[1], train_loss=1.5))
    assert row is not None
    assert rounds.cells(row)[2:5] == (None, None, "1.5000")
    assert dict(rounds.summary()) == {"train loss": "1.5000"}


def test_of_very_many_rounds_the_first_and_last_are_shown() -> None:
    rounds = Rounds()
    for number in range(1, 401):
        failed = {"5": "lost"} if number in {3, 100, 200} else {}
        rounds.add(event(number, round=number, answered=[1], loss=number / 8, failed=failed))
    lines = printed(rounds.excerpt())
    assert [line.split()[0] for line in lines[1:]] == [
        *map(str, range(1, 6)),
        "...",
        *map(str, range(386, 401)),
    ]
    assert lines[6].split(maxsplit=1)[1] == "380 rounds more, 2 with missing nodes"
    assert len(printed(rounds.table())) == 401
    few = Rounds()
    for number in range(1, 41):
        few.add(event(number, round=number))
    assert printed(few.excerpt()) == printed(few.table())


def test_two_means_that_differ_are_told_apart() -> None:
    rounds = Rounds()
    sites = {"1": {"examples": 10, "accuracy": 0.5}, "2": {"examples": 30, "accuracy": 0.9}}
    told = {"accuracy": 0.7, "loss": 0.2, "sites": sites, "pooled": {"accuracy": 0.8, "loss": 0.2}}
    rounds.add(event(1, round=1, answered=[1, 2], **told))
    mean = "0.7000 (mean of the sites, weighed as the plan says; 0.8000 of all their tests)"
    assert dict(rounds.summary())["accuracy"] == mean
    assert dict(rounds.summary())["loss"] == "0.2000"


def test_a_figure_of_central_tests_is_not_taken_for_a_mean_of_the_sites() -> None:
    rounds = Rounds()
    sites = {"1": {"examples": 10, "loss": 0.5}, "2": {"examples": 30, "loss": 0.9}}
    told = {"loss": 0.3, "central": ["loss"], "sites": sites, "pooled": {"loss": 0.8}}
    rounds.add(event(1, round=1, answered=[1, 2], **told))
    central = "0.3000 (of the central tests; 0.8000 of all the sites' tests)"
    assert dict(rounds.summary())["loss"] == central


def test_a_repeated_round_counts_once() -> None:
    rounds = Rounds()
    for sequence, loss in enumerate((3.0, 2.0)):
        rounds.add(event(sequence, round=1, loss=loss))
    assert [row.loss for row in rounds.rows.values()] == [2.0]


def test_the_summary_tells_the_end() -> None:
    rounds = Rounds()
    for number, seconds in enumerate((0.1, 0.2, 0.9), start=1):
        rounds.add(
            event(
                number,
                round=number,
                loss=1 / number,
                accuracy=number / 4,
                seconds=seconds,
                bytes_up=1 << 20,
                failed={"5": "lost"} if number == 2 else {},
            )
        )
    assert dict(rounds.summary()) == {
        "loss": "0.3333",
        "accuracy": "0.7500",
        "time of a round": "200.0 ms (median)",
        "moved": "3.0 MiB",
        "rounds with missing nodes": 1,
    }
    assert Rounds().summary() == []


def test_nan_is_shown() -> None:
    rounds = Rounds()
    row = rounds.add(event(1, round=1, loss="nan"))
    assert row is not None
    assert rounds.cells(row)[2] == "nan"


@given(st.lists(st.dictionaries(KEYS, JSON), max_size=4))
def test_whatever_an_app_reports_can_be_shown(details: list[dict[str, object]]) -> None:
    screen = Screen(Rounds(), clock=lambda: 20.0)
    for sequence, detail in enumerate(details):
        for kind in ("round", "model", "nodes", "note"):
            lines = screen.take(of(event(sequence, kind, **detail)))
            assert all("\x1b" not in line and "\n" not in line for line in lines)
    assert "\x1b" not in shown(screen).replace("\x1b[", "")
    screen.summary()


# --- the screen --------------------------------------------------------------------------------


def test_the_screen_tells_a_run() -> None:
    screen = Screen(Rounds(), clock=lambda: 75.0)
    assert screen.take(of(run_of("pending"))) == ["Run 7 digits: pending, round 0 of 3, 1 min 5 s"]
    assert screen.take(of(run_of("pending"))) == []  # nothing that a reader would see changed
    assert screen.take(of(event(1, "node-lost", node="clinic-1"))) == ["node-lost: node=clinic-1"]
    assert screen.take(of(event(2, "model", path="models/a.safetensors"))) == []
    lines = screen.take(of(event(3, round=1, answered=[1, 2], loss=0.5, seconds=2.0)))
    assert lines == ["round 1, nodes 2, loss 0.5000, time 2.0 s"]
    (line,) = screen.take(of(run_of("failed", reason="no quorum", ended_at=20.0)))
    assert line == "Run 7 digits: failed: no quorum, round 1 of 3, 10.0 s"
    summary = dict(screen.summary())
    assert summary["run 7"] == "failed: no quorum"
    assert summary["time in all"] == "10.0 s"
    assert "fedsec run model 7" in str(summary["take the model away"])


def test_without_a_model_none_is_offered() -> None:
    screen = Screen(Rounds(), run=run_of("failed", ended_at=20.0))
    assert "take the model away" not in dict(screen.summary())
    assert "on the coordinator" in dict(screen.summary())


def test_the_live_screen_shows_the_latest() -> None:
    screen = Screen(Rounds(), clock=lambda: 20.0)
    screen.take(of(run_of("running")))
    for number in range(1, 40):
        screen.take(of(event(number, round=number, answered=[1], loss=number / 8)))
        screen.take(of(event(number, "note", text=f"said {number}")))
    text = shown(screen)
    assert "round 39 of 3" in text
    assert "4.8750" in text
    assert "0.1250" not in text
    assert "said 39" in text
    assert "said 3\n" not in text


# --- shapes ------------------------------------------------------------------------------------


def test_json_has_every_field_and_says_what_has_not_come() -> None:
    node = as_mapping(pb.Node(node_id=2**62, name="a", state="invited"))
    assert node["node_id"] == str(2**62)
    assert node["enrolled_at"] is None
    assert node["connected"] is False
    run = as_mapping(pb.Run(run_id=7, ended_at=1.5))
    assert (run["run_id"], run["ended_at"], run["reason"]) == (7, 1.5, "")
    told = as_mapping(event(3, a=[1, {"b": None}]))
    assert (told["sequence"], told["detail"]) == (3, {"a": [1, {"b": None}]})
    assert json.dumps(told)


def test_times_say_how_far_they_are() -> None:
    assert moment(0.0, now=5.0) == "-"
    assert moment(60.0, now=0.0).endswith("(in 1 min 0 s)")
    assert moment(60.0, now=3660.0).endswith("(1 h 0 min ago)")
    assert detail_words('{"a": 1, "b": "", "c": null, "d": [2]}') == "a=1, d=[2]"
