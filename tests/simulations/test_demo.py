"""The demo's own part: what it reads from a run, what it promises. For real: `make demo`, in CI."""

import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import typer
from matplotlib.image import imread

from fedsec.errors import ConfigError
from fedsec.plan import FederationPlan
from fedsec.plan.terms import terms
from fedsec.privacy.accounting import spent
from fedsec.wire.generated import admin_pb2 as pb
from fedsec_sim import demo, demo_plans
from fedsec_sim.demo import Report, broken
from fedsec_sim.demo_fleet import _Watch, node_settings
from fedsec_sim.demo_picture import characters, draw, map_in_words
from fedsec_sim.demo_plans import Curve, hostile_of
from fedsec_sim.screens import Silence

NAMES = ["node-0", "node-1", "node-2"]
GOOD = Report(
    directory="d", picture="p", nodes=25, hostile=2, defended=0.91, attack_free=0.92,
    undefended=0.1, private=0.89, epsilon=9.2, total_s=60.0, broken=[], fleet=None,
)  # fmt: skip
CURVES = [
    Curve("defended, poisoned", ((1, 0.8), (2, 0.91))),
    Curve("undefended, poisoned", ((1, 0.4), (2, 0.1))),
    Curve("1,000 nodes, private", ((1, 0.8), (2, 0.89)), 9.2),
]


@pytest.fixture(autouse=True)
def signals() -> Iterator[None]:
    """The command takes SIGTERM for itself."""
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


def test_what_the_fleet_leaves_is_read_from_its_events(tmp_path: Path) -> None:
    ids = {name: 100 + index for index, name in enumerate(NAMES)}
    federation = SimpleNamespace(
        nodes=dict.fromkeys(NAMES), node_ids=lambda: ids, logs=tmp_path / "logs"
    )
    watched = _Watch(federation, 7, Silence())  # type: ignore[arg-type]
    watched.run = pb.Run(run_id=7, directory=str(tmp_path / "runs" / "7"))
    for number in (1, 2):
        lost = {"102": "was lost"} if number == 2 else {}
        answered = [100, 101] if lost else [100, 101, 102]
        detail = {
            "round": number, "rounds": 2, "answered": answered, "failed": lost, "rejected": {},
            "loss": 1.0, "accuracy": 0.5 + number / 10, "seconds": 0.1 * number,
            "bytes_down": 1000, "bytes_up": 10,
        }  # fmt: skip
        watched.on_event("round", detail)
    watched.on_event("model", {"path": "models/round-00002.safetensors"})
    fleet = watched.left()
    assert fleet.curve.points == ((1, 0.6), (2, 0.7))
    assert (fleet.bytes_down, fleet.bytes_up, fleet.missing) == (2000, 20, 1)
    assert fleet.round_s == pytest.approx(0.15)
    assert fleet.model == str(tmp_path / "runs/7/models/round-00002.safetensors")
    assert watched.rounds[1].missing == {"node-2": "was lost"}


def test_the_plans_are_what_the_screen_says() -> None:
    fleet = FederationPlan.parse(demo_plans.defended(25, 8))
    assert fleet.visibility == "groups"
    assert fleet.privacy is None
    assert fleet.secure_aggregation is not None
    assert (fleet.secure_aggregation.mode, fleet.secure_aggregation.group_size) == ("malicious", 5)
    assert fleet.robust is not None
    assert fleet.robust.byzantine == 2
    bare = FederationPlan.parse(demo_plans.undefended(25, 8))
    assert bare.secure_aggregation is bare.robust is bare.privacy is None
    assert bare.training == fleet.training
    private = FederationPlan.parse(demo_plans.private())
    assert private.privacy is not None
    assert (private.privacy.model, private.nodes.min_available) == ("distributed", 1000)
    assert private.privacy.epsilon <= demo_plans.BUDGET
    assert spent([terms(private).whole], private.privacy.delta) <= private.privacy.epsilon
    assert [hostile_of(nodes) for nodes in (15, 25, 35)] == [1, 2, 3]
    assert 'secure_aggregation = "malicious"' in node_settings(0, 25)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({}, ""),
        ({"attack_free": 0.89, "defended": 0.88}, "without an attack the fleet's plan reaches"),
        ({"defended": 0.889}, "the defended fleet reaches 0.889, more than 3 points below 0.920"),
        ({"undefended": 0.91}, "the attack leaves a plain mean at 0.910"),
        ({"private": 0.84}, "1,000 private nodes reach 0.840, not 0.85"),
        ({"epsilon": 10.1}, "they spend epsilon 10.10, more than 10"),
    ],
)
def test_a_promise_that_does_not_hold_is_named_and_is_an_exit_code(
    change: dict[str, float], sentence: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    report = replace(GOOD, **change)  # type: ignore[arg-type]
    found = list(broken(report))
    assert len(found) == bool(sentence)
    assert all(each.startswith(sentence) for each in found)
    made = replace(report, broken=found)
    monkeypatch.setattr(demo, "run_demo", lambda *_, **__: (made, CURVES))
    demo.demo_command(directory=tmp_path / "new", check=False, json=True)
    if not found:
        demo.demo_command(directory=tmp_path / "new", json=True)
        return
    with pytest.raises(typer.Exit) as end:
        demo.demo_command(directory=tmp_path / "new", json=True)
    assert end.value.exit_code == 1


def test_the_picture_is_there_and_in_characters(tmp_path: Path) -> None:
    path = draw(CURVES, tmp_path / "demo.png")
    pixels = imread(path)
    assert pixels.shape[0] > 800
    assert pixels.std() > 0.05  # not one colour
    text = characters(CURVES)
    assert "accuracy, by round" in text
    assert all(curve.name in text for curve in CURVES)
    words = map_in_words()
    assert words.row_count == 6


def test_an_existing_directory_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="exists; name a new directory with --directory"):
        demo.demo_command(directory=tmp_path)


def test_the_report_names_epsilon_also_where_there_is_none(
    capsys: pytest.CaptureFixture[str],
) -> None:
    demo.show_report(replace(GOOD, broken=["something"]), CURVES)
    shown = capsys.readouterr().out
    assert "node-level epsilon: none" in shown
    assert "node-level epsilon: 9.20 at delta 1e-5" in shown
    assert "BROKEN: something" in shown


@pytest.mark.slow
def test_a_simulated_demo_keeps_its_promises(tmp_path: Path) -> None:
    demo.demo_command(directory=tmp_path / "demo", sim=True, json=True)
    assert (tmp_path / "demo" / "demo.png").is_file()
