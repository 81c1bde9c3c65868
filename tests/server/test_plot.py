"""`fedsec run plot`, and the sites of a run side by side in `fedsec run show`."""

from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from fedsec.wire.generated import admin_pb2 as pb
from fedsec_server.commands import picture
from fedsec_server.commands.characters import drawings, spread
from fedsec_server.commands.history import History
from fedsec_server.commands.picture import draw_picture
from fedsec_server.commands.sites import Sites
from fedsec_server.state.store import Store
from fedsec_server.state.values import RunState
from tests.server.commandrig import Fedsec
from tests.server.coordinatorrig import Place


def detail(number: int, sites: int = 2) -> dict[str, object]:
    """Returns what a round's event says; the last of two compares."""
    figures = {
        str(node): {"examples": 10 * node, "loss": 1.0 / number, "accuracy": 0.5 + 0.01 * node}
        for node in range(1, sites + 1)
    }
    if number == 2:
        for node, each in figures.items():
            each |= {"alone-loss": 0.6, "alone-accuracy": 0.52 if node == "1" else 0.4}
    return {
        "round": number,
        "answered": [1, 2],
        "seconds": 0.5 * number,
        "train_loss": 1.2 / number,
        "loss": 1.0 / number,
        "accuracy": 0.515,
        "sites": figures,
        "pooled": {"loss": 1.0 / number, "accuracy": 0.516},
    }


@pytest.fixture(scope="module")
def compared(place: Place, server: Path) -> int:
    """A run that compared its sites with what each is alone, in a running coordinator."""
    store = Store.open(place.layout.database)
    run = store.create_run(
        name="costs $5$", plan="", plan_digest="cd" * 32, rounds=2, submitted_by="x", now=1.0
    )
    for number in (1, 2):
        store.append_event("round", "run", detail(number), at=2.0, run_id=run.run_id)
    store.set_run_state(run.run_id, RunState.FINISHED, now=9.0)
    store.close()
    return run.run_id


def test_a_run_is_drawn_on_the_terminal_and_as_a_picture(
    fedsec: Fedsec, server: Path, compared: int, tmp_path: Path
) -> None:
    picture = tmp_path / "run.png"
    drawn = fedsec("run", "plot", compared, "-o", picture, "--dir", server)
    assert drawn.code == 0
    for part in ("loss, by round", "a training", "b tests", "accuracy at each site", "seconds, by"):
        assert part in drawn.out
    assert "\x1b" not in drawn.out
    assert f"Written: {picture}" in drawn.out
    with Image.open(picture) as image:
        assert np.asarray(image.convert("L")).std() > 10


def test_sites_are_shown_side_by_side(fedsec: Fedsec, server: Path, compared: int) -> None:
    shown = " ".join(fedsec("run", "show", compared, "--dir", server).out.split())
    assert "site tests loss alone accuracy alone" in shown
    assert "1 10 0.5000 0.6000 0.5100 0.5200" in shown
    assert "all, by records 30 0.5000 - 0.5160 -" in shown
    watched = fedsec("run", "watch", compared, "--dir", server).out
    assert "federated is better at 1 of 2 sites, by accuracy" in watched


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            ("last", "-o", "run.jpeg"),
            "run.jpeg: the name of a picture ends with .png, .svg or .pdf",
        ),
        (("last", "-o", "gone/run.png"), "cannot write gone/run.png: No such file or directory"),
        (("77",), "there is no run 77"),
    ],
)
def test_what_cannot_be_drawn(
    fedsec: Fedsec, server: Path, compared: int, words: tuple[str, ...], said: str
) -> None:
    result = fedsec("run", "plot", *words, "--dir", server)
    assert result.code == 2
    assert said in result.err


def test_a_run_that_goes_on_is_drawn_so_far(fedsec: Fedsec, server: Path, place: Place) -> None:
    store = Store.open(place.layout.database)
    run = store.create_run(
        name="on", plan="", plan_digest="cd" * 32, rounds=9, submitted_by="x", now=1.0
    )
    nothing = fedsec("run", "plot", run.run_id, "--dir", server)
    assert nothing.code == 2
    assert "completed no round to draw" in nothing.err
    store.append_event("round", "run", detail(1), at=2.0, run_id=run.run_id)
    assert "accuracy at each site" in fedsec("run", "plot", run.run_id, "--dir", server).out
    store.set_run_state(run.run_id, RunState.STOPPED, now=9.0)
    store.close()


def history(sites: int) -> History:
    made = History(run=pb.Run(run_id=1, name="many"))
    for number in (1, 2):
        made._round(detail(number, sites))
    return made


def test_many_sites_are_a_band() -> None:
    text = "\n".join(drawings(history(30), {}))
    assert "c highest" in text
    lines = spread({"a": {1: 0.1}, "b": {1: 0.5, 2: 0.2}, "c": {1: 0.3}})
    assert lines == {
        "lowest": {1: 0.1, 2: 0.2},
        "middle": {1: 0.3, 2: 0.2},
        "highest": {1: 0.5, 2: 0.2},
    }


@pytest.mark.parametrize("rounds", [1, 2, 3, 30])
def test_there_are_no_halves_of_rounds(rounds: int) -> None:
    axes = Figure().add_subplot()
    picture._lines(axes, {"tests": {at: 1.0 / at for at in range(1, rounds + 1)}}, "Loss")
    assert all(float(tick).is_integer() for tick in axes.get_xticks())


@pytest.mark.parametrize("suffix", [".svg", ".pdf"])
def test_pictures_of_many_sites_and_of_an_apps_own_rounds(tmp_path: Path, suffix: str) -> None:
    draw_picture(history(30), {}, tmp_path / f"many{suffix}")
    plain = History(run=pb.Run(run_id=1, name="an app"), seconds={1: 2.0})
    draw_picture(plain, {}, tmp_path / f"plain{suffix}")
    assert len(list(tmp_path.iterdir())) == 2
    assert "seconds, by round" in "\n".join(drawings(plain, {}))


def test_who_is_better_depends_on_the_figure() -> None:
    def verdict(**figures: float) -> str:
        return Sites({"1": figures}, {}).verdict()

    assert verdict(mae=1.0, **{"alone-mae": 2.0}) == "federated is better at 1 of 1 sites, by mae"
    told = verdict(accuracy=0.5, **{"alone-accuracy": 0.5})
    assert told == "federated is better at 0 of 1 sites, even at 1, by accuracy"
    assert verdict(accuracy=0.5) == ""
    assert Sites.of({"sites": "nonsense"}) is None
    assert Sites.of({}) is None
