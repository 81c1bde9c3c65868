"""Whole simulations: as a federation gives, whatever the engine; kept, shown and refused."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from flwr.app import Context, RecordDict

from fedsec.cli import run
from fedsec.errors import ConfigError, StateError
from fedsec.flower.local import LocalGrid, node_contexts
from fedsec.plan import FederationPlan
from fedsec.tasks.digits import Digits
from fedsec_client.client_app import app as client_app
from fedsec_server.server_app import app as server_app
from fedsec_sim import collecting
from fedsec_sim.attacks.table import make_attack
from fedsec_sim.history import History, read_history
from fedsec_sim.lab import Lab
from fedsec_sim.partitions import Gamma
from fedsec_sim.population import Population
from fedsec_sim.simulate import simulate
from fedsec_sim.systems import Systems
from fedsec_sim.threats import Threat

PLAN = """\
schema = 1
name = "sim"
[task]
name = "digits"
options = { model = "mlp" }
[training]
rounds = 3
batch_size = 16
learning_rate = 0.1
momentum = 0.5
weighting = "examples"
max_examples = 60
[nodes]
min_available = 12
fraction = 0.5
[model]
save_every = 0
"""


EQUAL = PLAN.replace('weighting = "examples"\nmax_examples = 60\n', "")


def federation(tmp_path: Path, text: str) -> tuple[np.ndarray, list[dict[str, object]]]:
    """Runs the deployed apps over a grid; returns the model and the rounds' reports."""
    from safetensors.numpy import load_file  # noqa: PLC0415

    config: dict[str, bool | int | float | str] = {"fedsec-plan": text}
    contexts = node_contexts(12, config)
    grid = LocalGrid(dict.fromkeys(contexts, client_app), contexts)
    server_app(grid, Context(1, 1, {}, RecordDict(), config | {"fedsec-directory": str(tmp_path)}))
    arrays = load_file(next(iter((tmp_path / "models").iterdir())))
    order = ("1.weight", "1.bias", "3.weight", "3.bias")
    flat = np.concatenate([arrays[name].ravel() for name in order])
    return flat, [dict(detail) for kind, detail in grid.reports if kind == "round"]


@pytest.mark.parametrize("algorithm", ["fedavg", "fedadam"])
def test_a_plan_gives_byte_for_byte_what_a_federation_gives(tmp_path: Path, algorithm: str) -> None:
    text = PLAN.replace("rounds = 3", f'rounds = 3\nalgorithm = "{algorithm}"')
    model, reports = federation(tmp_path, text)
    history = simulate(text, engine="loop", workers=1)
    assert history.state is not None
    assert np.array_equal(history.state.vector, model)
    for got, want in zip(history.rounds, reports, strict=True):
        assert {k: v for k, v in got.items() if k not in {"seconds", "updates_per_s"}} == {
            k: v for k, v in want.items() if k != "seconds"
        }


def test_engines_and_workers_agree() -> None:
    runs = [
        simulate(PLAN, engine=engine, workers=workers)  # type: ignore[arg-type]
        for engine, workers in (("loop", 1), ("loop", 2), ("vmap", 1), ("vmap", 2))
    ]
    vectors = [history.state.vector for history in runs if history.state is not None]
    assert np.array_equal(vectors[0], vectors[1])
    assert np.array_equal(vectors[2], vectors[3])
    np.testing.assert_allclose(vectors[2], vectors[0], rtol=1e-5, atol=1e-6)
    assert runs[0].about["engine"] == "loop"
    assert runs[3].about["engine"] == "vmap, 2 workers"
    assert runs[0].accuracy > 0.2


def test_a_mean_in_waves_is_the_mean(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = simulate(PLAN, engine="loop", workers=1)
    monkeypatch.setattr(collecting, "WAVE", 0)
    monkeypatch.setattr(collecting, "LEAST", 4)
    waves = simulate(PLAN, engine="loop", workers=1)
    assert whole.state is not None
    assert waves.state is not None
    np.testing.assert_allclose(waves.state.vector, whole.state.vector, rtol=1e-4, atol=1e-6)
    assert [row["answered"] for row in waves.rounds] == [row["answered"] for row in whole.rounds]
    assert waves.last("train_loss") == pytest.approx(whole.last("train_loss"))


def test_a_row_that_is_not_finite_costs_its_node_alone() -> None:
    lower = PLAN.replace("fraction = 0.5", "quorum = 11")
    history = simulate(lower, Lab(threat=Threat(1, make_attack("nan"))), engine="vmap")
    for row in history.rounds:
        (why,) = row["rejected"].values()  # type: ignore[union-attr]
        assert why == "not-finite: 4810 of 4810 entries are NaN or infinite"
        assert len(row["answered"]) == 11  # type: ignore[arg-type]
    assert np.isfinite(history.state.vector).all()  # type: ignore[union-attr]


def test_a_node_whose_training_diverges_is_left_out() -> None:
    nodes = [Digits().load({"partition": part, "partitions": 12}) for part in range(12)]
    nodes[3].train.inputs[0, 0, 0, 0] = torch.nan
    lower = PLAN.replace("fraction = 0.5", "quorum = 11")
    for engine in ("loop", "vmap"):
        lab = Lab(population=Population.of(nodes))
        history = simulate(lower, lab, engine=engine, workers=1)  # type: ignore[arg-type]
        assert [list(row["rejected"]) for row in history.rounds] == [["103"]] * 3  # type: ignore[call-overload]


def test_who_is_lost_is_not_in_the_mean() -> None:
    lower = PLAN.replace("fraction = 0.5", "quorum = 5")
    history = simulate(lower, Lab(systems=Systems(dropout=0.3)))
    lost = [dict(row["failed"]) for row in history.rounds]  # type: ignore[call-overload]
    assert any(lost)
    for row, missing in zip(history.rounds, lost, strict=True):
        assert len(row["answered"]) == 12 - len(missing)  # type: ignore[arg-type]
    with pytest.raises(StateError, match=r"nodes.quorum = 12"):
        simulate(PLAN.replace("fraction = 0.5", ""), Lab(systems=Systems(dropout=0.3)))


def test_too_few_nodes_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"5 nodes are fewer than nodes\.min_available = 12"):
        simulate(PLAN, Lab(nodes=5))


def test_a_plan_of_a_flower_app_is_refused() -> None:
    text = 'schema = 1\nname = "x"\n[app]\nname = "other"\n[nodes]\nmin_available = 2\n'
    with pytest.raises(ConfigError, match="the Flower app 'other'"):
        simulate(FederationPlan.parse(text))


class Stopper:
    """Presses Ctrl-C after the second round."""

    def begin(self, about: object) -> None:
        pass

    def round(self, row: dict[str, object]) -> None:
        if row["round"] == 2:
            raise KeyboardInterrupt


def test_what_is_done_outlives_an_interruption() -> None:
    history = simulate(PLAN, watch=Stopper())  # type: ignore[arg-type]
    assert history.interrupted
    assert [row["round"] for row in history.rounds] == [1, 2]


def test_the_commands(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plan, out = tmp_path / "plan.toml", tmp_path / "a" / "run.jsonl"
    plan.write_text(PLAN)
    words = ["simulate", str(plan), "--nodes", "14", "--data", "alpha=1.5", "--out", str(out)]
    assert run([*words, "--export", str(tmp_path / "run.csv")]) == 0
    shown = capsys.readouterr().out
    assert "sim: 14 nodes, 7 in a round, seed 1, engine vmap" in shown
    assert "round 3/3  train loss" in shown
    history = read_history(out)
    assert [row["round"] for row in history.rounds] == [1, 2, 3]
    assert (tmp_path / "run.csv").read_text().startswith("round,")
    assert run(words) == 2
    assert f"{out} exists" in capsys.readouterr().err
    assert run(["sim", "show", str(out)]) == 0
    assert "accuracy" in capsys.readouterr().out
    assert run(["sim", "compare", str(out), str(out)]) == 0
    assert capsys.readouterr().out.count("run ") >= 2
    picture = tmp_path / "run.png"
    assert run(["sim", "plot", str(out), "-o", str(picture)]) == 0
    assert picture.read_bytes().startswith(b"\x89PNG")
    nowhere = tmp_path / "mistyped" / "a.png"
    assert run(["sim", "plot", str(out), "-o", str(nowhere)]) == 2
    assert "there is no directory" in capsys.readouterr().err
    assert not nowhere.parent.exists()
    assert run(["sim", "plot", str(out), "--figure", "colour"]) == 2
    assert "has no figure 'colour'; all runs have: " in capsys.readouterr().err
    assert run(["simulate", str(plan), "--data", "alpha"]) == 2
    assert "--data: want KEY=VALUE" in capsys.readouterr().err


def test_a_history_is_kept_and_read(tmp_path: Path) -> None:
    rows = ({"round": 1, "loss": 2.0}, {"round": 2, "loss": None, "answered": [1]})
    history = History({"name": "x"}, rows)
    path = tmp_path / "x.jsonl"
    history.save(path)
    assert read_history(path).rounds == rows
    with path.open("a") as file:
        file.write('{"round": 3, "lo')  # as when the machine fails while a line is written
    assert read_history(path).rounds == rows
    assert history.series("loss") == [(1, 2.0)]
    history.save(tmp_path / "x.parquet")
    assert (tmp_path / "x.parquet").stat().st_size > 100
    with pytest.raises(ConfigError, match=r"must end in \.jsonl, \.csv, \.parquet"):
        history.save(tmp_path / "x.txt")
    (tmp_path / "other.jsonl").write_text("{}\n")
    with pytest.raises(ConfigError, match="is no simulation"):
        read_history(tmp_path / "other.jsonl")
    path.write_text('{"fedsec-simulation": 1}\n[]\n{"round": 1}\n')
    with pytest.raises(ConfigError, match="line 2: not the report of a round"):
        read_history(path)


def test_rule_and_attack_may_be_said_in_the_call() -> None:
    lab = Lab(split=Gamma(0.5))
    whole = FederationPlan.parse(EQUAL + '[robust]\nrule = "median"\nbyzantine = 2\n')
    threat = Threat(2, make_attack("sign-flip", {"scale": 5}))
    wanted = simulate(whole, Lab(split=Gamma(0.5), threat=threat), workers=1)
    for attack in ("sign-flip:scale=5", {"name": "sign-flip", "scale": 5}, threat.attack):
        got = simulate(EQUAL, lab, rule="median", attack=attack, byzantine=2, workers=1)
        assert got.about["plan"] == whole.digest
        assert np.array_equal(got.state.vector, wanted.state.vector)  # type: ignore[union-attr]
    mean = simulate(EQUAL, lab, attack=threat.attack, byzantine=2, workers=1)
    assert wanted.last("loss") < mean.last("loss")


def test_a_rule_is_none_or_a_table_and_one_node_in_five_is_hostile() -> None:
    text = EQUAL.replace("rounds = 3", "rounds = 1")
    robust = text + '[robust]\nrule = "median"\nbyzantine = 2\n'
    mean = simulate(robust, rule="none", engine="loop", workers=1)
    assert mean.about["plan"] == FederationPlan.parse(text).digest
    table = {"rule": "trimmed-mean", "byzantine": 1, "before": ["nnm"]}
    mixed = simulate(text, rule=table, engine="loop", workers=1)
    written = text + '[robust]\nrule = "trimmed-mean"\nbyzantine = 1\nbefore = ["nnm"]\n'
    assert mixed.about["plan"] == FederationPlan.parse(written).digest
    poisoned = simulate(text, attack="label-flip", engine="loop", workers=1)
    assert str(poisoned.about["threat"]).startswith("2 hostile: ")  # of twelve


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ({"rule": "krumm"}, "rule: robust.rule: Input should be 'mean'"),
        ({"rule": "bulyan", "byzantine": 3}, "the plan refuses this rule: robust"),
        ({"attack": "alei"}, "there is no attack 'alei'"),
        ({"byzantine": 2}, "byzantine counts for an attack or a rule"),
        ({"attack": "alie", "lab": Lab(threat=Threat(1, make_attack("zero")))}, "give one"),
        ({"rule": "median", "byzantine": 1, "engine": "network"}, "byte for byte"),
    ],
)
def test_what_cannot_be_varied_is_refused(given: dict[str, object], text: str) -> None:
    with pytest.raises(ConfigError, match=text):
        simulate(EQUAL, **given)  # type: ignore[arg-type]


def test_runs_are_told_apart_by_what_was_chosen(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = EQUAL.replace("rounds = 3", "rounds = 1")
    robust = text + '[robust]\nrule = "median"\nbyzantine = 2\n'
    files = [tmp_path / f"{name}.jsonl" for name in ("mean", "median")]
    for file, plan in zip(files, (text, robust), strict=True):
        simulate(plan, engine="loop", workers=1).save(file)
    assert run(["sim", "compare", *map(str, files), "--json"]) == 0
    plain, other = json.loads(capsys.readouterr().out)
    assert (plain["rule"], other["rule"]) == (None, "median")
    assert "nodes" not in plain  # they have as many
    assert plain["seconds"] > 0
