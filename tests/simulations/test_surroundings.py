"""What a plan does not say: data divided, machines of unequal speed, adversaries among the nodes."""

from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from flwr.app import RecordDict

from fedsec.errors import ConfigError
from fedsec.flower.collection import Attempt
from fedsec.plan import FederationPlan
from fedsec.tasks.digits import Digits
from fedsec.tasks.task import Examples
from fedsec_sim.attacks.table import make_attack, make_poison
from fedsec_sim.lab import Lab
from fedsec_sim.partitions import SPLITS, Dirichlet, Drawn, Gamma, Natural, Quantity, make_split
from fedsec_sim.population import Parts, Population
from fedsec_sim.simulate import simulate
from fedsec_sim.spec import parse_spec, read_table
from fedsec_sim.systems import Clockwork, Systems
from fedsec_sim.threats import Threat, poisoned
from fedsec_sim.workloads import images
from fedsec_sim.workloads.images import made_task
from fedsec_sim.workloads.pool import Pool, pool_of
from fedsec_sim.workloads.shakespeare import task as shakespeare

PLAN = """\
schema = 1
name = "surroundings"
[task]
name = "digits"
options = { model = "mlp" }
[training]
rounds = 4
local_epochs = 3
learning_rate = 0.1
momentum = 0.9
[nodes]
min_available = 10
quorum = 8
"""


def pool(count: int = 400) -> Pool:
    labels = torch.arange(count) % 10
    groups = np.repeat(np.arange(40), 10) % 7
    return Pool(Examples(torch.arange(count).float()[:, None], labels), groups[:count])


@pytest.mark.parametrize("name", SPLITS)
def test_a_split_is_the_same_for_the_same_seed_and_covers(name: str) -> None:
    made = make_split(name, {})
    parts = made(pool(), 7, 3)
    again, other = made(pool(), 7, 3), made(pool(), 7, 4)
    assert np.array_equal(parts.rows, again.rows)
    assert (parts.sizes > 0).all()
    if name != "natural":
        assert not np.array_equal(parts.rows, other.rows)
    if name != "drawn":
        assert sorted(parts.rows) == list(range(400))


def classes(parts: Parts, node: int) -> set[int]:
    return set(parts.pool.targets[parts.part(node)].tolist())


def test_gamma_runs_from_sorted_to_alike() -> None:
    extreme, alike = Gamma(0.0)(pool(), 10, 1), Gamma(1.0)(pool(), 10, 1)
    assert [len(classes(extreme, node)) for node in range(10)] == [1] * 10
    assert min(len(classes(alike, node)) for node in range(10)) > 7
    half = Gamma(0.5)(pool(), 10, 1)
    assert half.sizes.tolist() == [40] * 10
    for node in range(10):
        counts = np.bincount(half.pool.targets[half.part(node)], minlength=10)
        assert counts.max() >= 14  # most of a run of 20; alike, it would be 4 and a few


def test_a_small_alpha_makes_nodes_unlike() -> None:
    def spread(alpha: float) -> float:
        parts = Dirichlet(alpha)(pool(), 8, 1)
        shares = [
            np.bincount(parts.pool.targets[parts.part(node)], minlength=10) / parts.sizes[node]
            for node in range(8)
        ]
        return float(np.std(shares, axis=0).mean())

    assert spread(0.1) > 2 * spread(100.0)
    assert Quantity(0.2)(pool(), 8, 1).sizes.std() > 3 * Quantity(100.0)(pool(), 8, 1).sizes.std()


def test_natural_parts_are_the_groups() -> None:
    whole = pool()
    parts = Natural()(whole, 5, 1)
    assert whole.groups is not None
    for node in range(5):
        assert len({int(whole.groups[row]) for row in parts.part(node)}) == 1
    with pytest.raises(ConfigError, match="8 nodes, but only 7 groups have 2 examples"):
        Natural()(whole, 8, 1)
    with pytest.raises(ConfigError, match="no natural parts"):
        Natural()(replace(whole, groups=None), 2, 1)


def test_many_nodes_draw_from_one_pool() -> None:
    parts = Drawn(16)(pool(), 5000, 1)
    assert parts.sizes.tolist() == [16] * 5000
    assert len(parts.pool) == 400


@pytest.mark.parametrize(
    ("name", "given", "text"),
    [
        ("nothing", {}, "there is no split 'nothing'; there are: iid, "),
        ("gamma", {"alpha": 1}, "split gamma has no parameter 'alpha'; allowed: gamma"),
        ("shards", {"per_node": 1.5}, "split shards: per_node = '1.5': want a valid integer"),
        ("gamma", {"gamma": 1.5}, r"gamma must be in \[0, 1\], got 1.5"),
        ("dirichlet", {"alpha": 0}, "alpha must be > 0, got 0"),
        ("shards", {"per_node": 0}, "per_node must be >= 1"),
        ("drawn", {"examples": 0}, "examples must be >= 1"),
        ("quantity", {"alpha": "x"}, "split quantity: "),
    ],
)
def test_a_wrong_split_is_refused(name: str, given: dict[str, object], text: str) -> None:
    with pytest.raises(ConfigError, match=text):
        make_split(name, given)


def test_too_few_examples_are_refused() -> None:
    for name in ("iid", "quantity", "gamma"):
        with pytest.raises(ConfigError, match="examples"):
            make_split(name, {})(pool(30), 31, 1)


def test_a_node_without_data_is_refused() -> None:
    examples = pool().train
    with pytest.raises(ConfigError, match="node 1 of 2 has nothing to train on"):
        Population(Parts.of(examples, [np.arange(3), np.arange(0)]))
    with pytest.raises(ConfigError, match="ids must be 1 different numbers"):
        Population(Parts.of(examples, [np.arange(3)]), ids=(2, 1))
    with pytest.raises(ConfigError, match=r"rows must be in 0\.\.399"):
        Parts.of(examples, [np.array([400])])


def test_words_for_values() -> None:
    assert parse_spec("alie:z=1.5,knowledge=own") == ("alie", {"z": 1.5, "knowledge": "own"})
    assert parse_spec("zero") == ("zero", {})
    assert read_table({"name": "ipm", "epsilon": 2}, "attack") == ("ipm", {"epsilon": 2})
    with pytest.raises(ConfigError, match="want KEY=VALUE"):
        parse_spec("alie:z")
    with pytest.raises(ConfigError, match="attack: want a name or a table with a name"):
        read_table(3, "attack")


def attempt(number: int = 1, nodes: int = 200) -> Attempt:
    return Attempt(number, 1, tuple(range(nodes)), RecordDict())


def clockwork(systems: Systems, deadline_s: float = 60.0) -> Clockwork:
    return Clockwork(systems, lambda _: 100, size=1000, deadline_s=deadline_s, seed=1)


def test_nodes_are_lost_as_often_as_said_and_anew_each_time() -> None:
    clock = clockwork(Systems(dropout=0.3))
    lost = [set(clock(attempt(number))[1]) for number in range(1, 6)]
    assert 240 < sum(map(len, lost)) < 360  # 300 +- 4 standard deviations
    assert len({frozenset(each) for each in lost}) == 5
    again = clockwork(Systems(dropout=0.3))
    assert set(again(attempt(3))[1]) == lost[2]


def test_stragglers_miss_the_deadline_and_the_clock_tells() -> None:
    slow = Systems(spread=0.0, stragglers=0.2, slowdown=1000, latency_s=0.0, bytes_per_s=1e9)
    clock = clockwork(slow, deadline_s=5.0)
    present, failed = clock(attempt())
    assert set(failed.values()) == {"no answer within 5 s (round.deadline_s)"}
    assert 18 < len(failed) < 63
    assert len(present) + len(failed) == 200
    assert clock.now_s == 5.0
    quick = clockwork(replace(slow, stragglers=0.0))
    quick(attempt())
    assert quick.now_s == pytest.approx(0.1, rel=1e-3)  # 100 examples at 1000 a second


def test_faster_machines_make_shorter_rounds() -> None:
    slow, fast = clockwork(Systems(examples_per_s=100)), clockwork(Systems(examples_per_s=10_000))
    assert slow(attempt())[1] == {}
    fast(attempt())
    assert slow.now_s > 5 * fast.now_s


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ({"dropout": 1.0}, r"dropout must be in \[0, 1\), got 1.0"),
        ({"stragglers": -0.1}, "stragglers must be in"),
        ({"examples_per_s": 0.0}, "examples_per_s must be > 0"),
        ({"slowdown": 0.5}, "slowdown >= 1"),
    ],
)
def test_wrong_machines_are_refused(given: dict[str, float], text: str) -> None:
    with pytest.raises(ConfigError, match=text):
        Systems(**given)


def test_simulated_time_stands_in_the_reports() -> None:
    history = simulate(PLAN, Lab(systems=Systems(dropout=0.1)), workers=1)
    times = [value for _, value in history.series("simulated_s")]
    assert len(times) == 4
    assert all(a < b for a, b in pairwise(times))
    assert any(row["failed"] for row in history.rounds)


def test_adversaries_spoil_the_mean_and_not_the_median() -> None:
    threat = Threat(3, make_attack("ipm", {"epsilon": 5.0}))
    lab = Lab(split=make_split("iid", {}), threat=threat)
    robust = PLAN + '[robust]\nrule = "median"\nbyzantine = 3\n'
    clean = simulate(PLAN, replace(lab, threat=None), workers=1).accuracy
    spoiled, saved = (
        simulate(PLAN, lab, workers=1).accuracy,
        simulate(robust, lab, workers=1).accuracy,
    )
    assert clean > 0.85
    assert spoiled < 0.5
    assert saved > 0.75


def test_an_optimised_attack_tries_the_plans_own_rule() -> None:
    threat = Threat(2, make_attack("optimised-alie", {}))
    robust = PLAN + '[robust]\nrule = "trimmed-mean"\nbyzantine = 2\nbefore = ["nnm"]\n'
    lab = Lab(split=make_split("gamma", {"gamma": 0.5}), threat=threat)
    history = simulate(robust, lab, workers=1)
    assert history.accuracy < simulate(robust, replace(lab, threat=None), workers=1).accuracy
    again = simulate(robust, lab, workers=1)
    assert np.array_equal(history.state.vector, again.state.vector)  # type: ignore[union-attr]


def test_poison_changes_the_adversaries_data_alone() -> None:
    made = Lab(split=make_split("iid", {}), nodes=10).populate(FederationPlan.parse(PLAN), Digits())
    threat = Threat(2, poison=make_poison("label-flip", {}))
    members = threat.members(made, 1)
    assert len(members) == 2
    assert threat.poison is not None
    bad = poisoned(made, members, threat.poison, 1)
    for node in made.ids:
        place = made.position[node]
        before, after = made.train.examples(place), bad.train.examples(place)
        assert torch.equal(before.inputs, after.inputs)
        flipped = 9 - before.targets if node in members else before.targets
        assert torch.equal(after.targets, flipped)


def test_a_backdoor_opens_and_its_success_is_told() -> None:
    lab = Lab(split=make_split("iid", {}))
    threat = Threat(4, poison=make_poison("badnets", {"share": 0.5}))
    bad = simulate(PLAN, replace(lab, threat=threat), workers=1)
    assert bad.last("attack_success") > 0.5
    assert bad.accuracy > 0.8  # which nobody would notice
    assert simulate(PLAN, lab, workers=1).series("attack_success") == []


def test_a_threat_needs_somebody_honest_and_something_to_do() -> None:
    with pytest.raises(ConfigError, match="needs an attack on updates or a poison"):
        Threat(1)
    with pytest.raises(ConfigError, match="10 of 10 nodes are hostile"):
        simulate(PLAN, Lab(threat=Threat(10, make_attack("zero", {}))))


def test_data_that_are_not_there_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FEDSEC_DATA", str(tmp_path))
    with pytest.raises(ConfigError, match="set FEDSEC_DATA to the folder that holds it"):
        images._idx(images.LABELS, (10_000,))


def test_plays_are_read_as_windows_by_speaker(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from fedsec_sim.workloads import shakespeare as module  # noqa: PLC0415

    folder = tmp_path / "shakespeare"
    folder.mkdir()
    speech = "To be, or not to be, that is the question"
    text = "\n\n".join(f"{who}:\n{speech}" for who in ("HAMLET", "OPHELIA") * 10)
    (folder / "input.txt").write_text(text)
    monkeypatch.setenv("FEDSEC_DATA", str(tmp_path))
    module._read.cache_clear()
    try:
        whole = pool_of(shakespeare)
        assert whole.train.inputs.shape[1] == 16
        assert whole.groups is not None
        assert set(whole.groups.tolist()) == {0, 1}
        parts = Natural()(whole, 2, 1)
        model = shakespeare.make_model({}, 1)
        assert model(parts.examples(0).inputs).shape == (len(parts.part(0)), len(set(text)))
        assert shakespeare.central_test() is not None
    finally:
        module._read.cache_clear()


TABLE = """\
schema = 1
name = "table"
[task]
name = "table"
data = "visits"
[data]
inputs = ["a", "b"]
classes = 2
scaling = "site"
[training]
rounds = 2
[nodes]
min_available = 2
"""


def test_a_task_that_reads_files_asks_for_them(tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"what a node has under \[data.visits\], e.g. --data conn"
    ):
        simulate(TABLE)
    rows = "".join(f"{i % 7},{i % 3},{i % 2}\n" for i in range(80))
    (tmp_path / "all.csv").write_text("a,b,outcome\n" + rows)
    files = {"directory": str(tmp_path), "files": "all.csv", "label": "outcome"}
    history = simulate(TABLE, Lab(data={"connector": "csv", **files}), workers=1)
    assert len(history.rounds) == 2


def test_a_task_with_one_connector_needs_no_word_for_it() -> None:
    plan = TABLE.replace('"table"\ndata = "visits"', '"breast-cancer"')
    history = simulate(plan[: plan.index("[data]")] + plan[plan.index("[training]") :], workers=1)
    assert history.accuracy > 0.5


def test_made_images_follow_from_the_node() -> None:
    one = made_task.load({"partition": 3, "partitions": 10})
    again = made_task.load({"partition": 3, "partitions": 20})
    assert torch.equal(one.train.inputs, again.train.inputs)
    assert len(one.train) == 60
    assert sum(p.numel() for p in made_task.make_model({}, 1).parameters()) == 44_426
