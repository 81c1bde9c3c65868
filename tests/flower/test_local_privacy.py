"""Local privacy in a plain Flower app: noise, ledger, budget, and what does not leave a node."""

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.optimize
import scipy.stats
from flwr.app import (
    Array,
    ArrayRecord,
    ConfigRecord,
    Context,
    Error,
    Message,
    MetricRecord,
    RecordDict,
)
from flwr.clientapp import ClientApp
from flwr.serverapp.strategy import FedAvg

from fedsec import failpoints
from fedsec.errors import ConfigError
from fedsec.flower import local_mod
from fedsec.flower.local import LocalGrid, node_contexts
from fedsec.flower.privacy_directory import BUDGET, LEDGER, PRIVACY
from fedsec.ledgerfile import LedgerFile

EPSILON, DELTA, CLIP, ROUNDS, SIZE = 8.0, 1e-5, 0.5, 3, 20_000
NODE = 100


class Site:
    """One node with a directory; every message goes to a new app, as after a restart."""

    def __init__(self, directory: Path, epsilon: float = 16.0) -> None:
        self.directory = directory
        directory.mkdir(mode=0o700)
        self.budget(f"epsilon = {epsilon}\ndelta = {DELTA}\n")
        self.calls = 0
        self.move: Callable[[np.ndarray], np.ndarray] = lambda model: model

    def budget(self, text: str) -> None:
        (self.directory / BUDGET).write_text(text)

    def app(self, **more: Any) -> ClientApp:
        given = {"epsilon": EPSILON, "delta": DELTA, "clip": CLIP, "rounds": ROUNDS}
        app = ClientApp(mods=[local_mod(**(given | more))])

        @app.train()
        def train(message: Message, context: Context) -> Message:
            self.calls += 1
            (model,) = message.content.array_records["arrays"].to_numpy_ndarrays()
            metrics = MetricRecord({"num-examples": 4711, "loss": 0.123})
            content = {"arrays": ArrayRecord([self.move(model)]), "metrics": metrics}
            return Message(RecordDict(content), reply_to=message)  # type: ignore[arg-type]

        @app.query()
        @app.evaluate()
        def tell(message: Message, context: Context) -> Message:
            self.calls += 1
            return Message(RecordDict({"m": MetricRecord({"loss": 0.123})}), reply_to=message)

        return app

    def grid(
        self,
        run_id: int = 1,
        app: ClientApp | None = None,
        named: str | None = None,
        **more: Any,
    ) -> LocalGrid:
        contexts = node_contexts(1, {}, run_id=run_id)
        contexts[NODE].node_config[PRIVACY] = str(self.directory) if named is None else named
        return LocalGrid({NODE: app or self.app(**more)}, contexts, run_id=run_id)

    def ask(self, number: int = 1, *, kind: str = "train", **more: Any) -> Message:
        return ask(self.grid(**more), number, kind=kind)

    @property
    def charges(self) -> list[Any]:
        return [charge for _, charge in LedgerFile(self.directory / LEDGER).entries()]


def ask(grid: LocalGrid, number: int = 1, *, kind: str = "train") -> Message:
    arrays = ArrayRecord([np.zeros(SIZE, np.float32)])
    content = RecordDict({"arrays": arrays, "config": ConfigRecord({"server-round": number})})
    message = grid.create_message(content, kind, NODE, "")
    (reply,) = grid.send_and_receive([message])
    return reply


def model(reply: Message) -> np.ndarray:
    assert not reply.has_error(), reply.error.reason
    (array,) = reply.content.array_records["arrays"].to_numpy_ndarrays()
    return array.astype(np.float64)


def refused(reply: Message) -> str:
    assert reply.has_error()
    return str(reply.error.reason)


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path / "privacy")


@pytest.fixture
def _restored() -> Iterator[None]:
    before = failpoints.on_reach
    yield
    failpoints.on_reach = before


def least_multiplier(epsilon: float, delta: float, releases: int) -> float:
    """Balle and Wang, theorem 8, for sensitivity 1: solved for the standard deviation."""

    def loss(std: float) -> float:
        normal = scipy.stats.norm.cdf
        first, second = 0.5 / std - epsilon * std, -0.5 / std - epsilon * std
        return float(normal(first) - np.exp(epsilon) * normal(second)) - delta

    return float(scipy.optimize.brentq(loss, 0.05, 100)) * releases**0.5


def test_the_noise_is_the_least_that_the_rounds_need(site: Site) -> None:
    std = 2 * CLIP * least_multiplier(EPSILON, DELTA, ROUNDS)
    statistic = float((model(site.ask()) ** 2).sum()) / std**2
    assert scipy.stats.chi2.sf(statistic / 1.01, SIZE) > 1e-5
    assert scipy.stats.chi2.cdf(statistic, SIZE) > 1e-5
    (charge,) = site.charges
    assert charge.price.event.noise_multiplier == pytest.approx(
        least_multiplier(EPSILON, DELTA, ROUNDS), rel=1e-3
    )
    guarantee = charge.guarantee
    assert (guarantee.unit, guarantee.adjacency) == ("node", "replace-one")
    assert (guarantee.observer, guarantee.column) == ("coordinator", "enforced")


def test_an_update_is_clipped(site: Site) -> None:
    site.move = lambda model: model + np.float32(100)
    site.budget(f"epsilon = 50\ndelta = {DELTA}\n")
    along = float(model(site.ask(epsilon=50.0, rounds=1)).sum()) / SIZE**0.5
    std = 2 * CLIP * least_multiplier(50.0, DELTA, 1)
    assert abs(along - CLIP) < 6 * std  # without a clip: 14,142


def test_nothing_but_the_model_leaves(site: Site) -> None:
    content = site.ask().content
    assert set(content) == {"arrays", "metrics"}
    assert dict(content.metric_records["metrics"]) == {"num-examples": 1}
    assert "withheld" in refused(site.ask(kind="evaluate"))
    assert "withheld" in refused(site.ask(kind="query"))
    assert site.calls == 1


def test_who_asks_again_gets_the_same_bytes_also_after_a_restart(site: Site) -> None:
    first = model(site.ask())
    assert np.array_equal(first, model(site.ask()))
    assert (site.calls, len(site.charges)) == (1, 1)
    assert not np.array_equal(first, model(site.ask(2)))
    assert not np.array_equal(first, model(site.ask(run_id=2)))
    assert (site.calls, [charge.round for charge in site.charges]) == (3, [1, 2, 1])


def test_a_run_gets_no_more_than_its_rounds(site: Site) -> None:
    for number in range(1, ROUNDS + 1):
        model(site.ask(number))
    assert "budget does not allow it" in refused(site.ask(ROUNDS + 1))
    assert site.calls == len(site.charges) == ROUNDS
    model(site.ask(ROUNDS))  # was paid for


def test_the_site_s_budget_holds_whatever_the_server_asks(site: Site) -> None:
    site.budget(f"epsilon = {EPSILON}\ndelta = {DELTA}\n")
    first = [model(site.ask(number)) for number in range(1, ROUNDS + 1)]
    for run in (2, 3):
        reason = refused(site.ask(run_id=run))
        assert reason == "PolicyRefusal: this node's privacy budget does not allow it"
    assert site.calls == len(site.charges) == ROUNDS
    assert np.array_equal(first[-1], model(site.ask(ROUNDS)))
    assert len(list((site.directory / "releases").iterdir())) == ROUNDS + 1  # and its name


@pytest.mark.usefixtures("_restored")
def test_what_was_stored_and_not_paid_is_paid_before_it_leaves(site: Site) -> None:
    def dies(name: failpoints.Failpoint) -> None:
        if name == "release stored":
            raise KeyboardInterrupt

    failpoints.on_reach = dies
    with pytest.raises(KeyboardInterrupt):
        site.ask()
    assert site.charges == []
    failpoints.on_reach = lambda _name: None
    model(site.ask())
    assert site.calls == len(site.charges) == 1
    site.budget(f"epsilon = 0.01\ndelta = {DELTA}\n")  # lowered: what is paid may go out again
    model(site.ask())
    assert "budget" in refused(site.ask(2))


def test_a_release_that_was_lost_is_not_made_again(site: Site) -> None:
    model(site.ask())
    (release,) = (site.directory / "releases").glob("*.release")
    release.unlink()
    assert "was is lost" in refused(site.ask())
    assert site.calls == 1


def test_two_at_once_make_one_release(site: Site) -> None:
    both = threading.Barrier(2)

    def wait(model: np.ndarray) -> np.ndarray:
        try:
            both.wait(0.5)
        except threading.BrokenBarrierError:
            return model
        raise AssertionError("both train for the same release")

    site.move = wait
    grids, replies = [site.grid(), site.grid()], []
    threads = [threading.Thread(target=lambda g=g: replies.append(ask(g))) for g in grids]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert np.array_equal(model(replies[0]), model(replies[1]))
    assert site.calls == len(site.charges) == 1


def test_an_app_s_own_words_stay(site: Site) -> None:
    def fails(model: np.ndarray) -> np.ndarray:
        raise ValueError("the record of Jane Doe")

    site.move = fails
    reason = refused(site.ask())
    assert "the app failed" in reason
    assert "Jane" not in reason
    silent = ClientApp(mods=[local_mod(epsilon=EPSILON, delta=DELTA, clip=CLIP, rounds=ROUNDS)])
    silent.train()(lambda message, _context: Message(Error(1, "Jane"), reply_to=message))
    assert "Jane" not in refused(site.ask(app=silent))
    assert site.charges == []


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_an_update_that_is_not_finite_is_noised_and_charged_as_zero(
    site: Site, value: float
) -> None:
    """A hostile model may diverge on certain records alone: an error would be a bit for nothing."""
    site.move = lambda model: np.append(model[:-1], np.float32(value))
    first = model(site.ask())
    deviation = 2 * CLIP * least_multiplier(EPSILON, DELTA, ROUNDS)
    assert np.std(first) == pytest.approx(deviation, rel=6 / np.sqrt(2 * SIZE))
    assert abs(np.mean(first)) < 6 * deviation / np.sqrt(SIZE)
    assert len(site.charges) == 1
    np.testing.assert_array_equal(model(site.ask()), first)  # it is a release like any other
    assert site.calls == len(site.charges) == 1


def test_other_arrays_stay_as_they_were_sent(site: Site) -> None:
    sent = {
        "w": np.ones((2, 3), np.float64), "h": np.float16([60_000.0]), "n": np.array(7, np.int64),
    }  # fmt: skip
    app = ClientApp(mods=[local_mod(epsilon=EPSILON, delta=DELTA, clip=CLIP, rounds=ROUNDS)])

    @app.train()
    def train(message: Message, context: Context) -> Message:
        received = message.content.array_records["model"]
        changed = {key: Array(np.asarray(array.numpy() + 1)) for key, array in received.items()}
        content = RecordDict({"own-name": ArrayRecord(changed)})
        del message.content["model"]  # what was sent is known to the mod all the same
        return Message(content, reply_to=message)

    grid = site.grid(app=app)
    content = RecordDict({"model": ArrayRecord({k: Array(v) for k, v in sent.items()})})
    (reply,) = grid.send_and_receive([grid.create_message(content, "train", NODE, "")])
    assert not reply.has_error(), reply.error.reason
    arrays = {k: v.numpy() for k, v in reply.content.array_records["model"].items()}
    assert {k: (v.dtype, v.shape) for k, v in arrays.items()} == {
        k: (v.dtype, v.shape) for k, v in sent.items()
    }
    assert arrays["n"] == 7
    assert not np.array_equal(arrays["w"], sent["w"])


def test_fedavg_goes_on_with_it(site: Site) -> None:
    strategy = FedAvg(fraction_evaluate=0.0, min_train_nodes=1, min_available_nodes=1)
    start = ArrayRecord([np.zeros(SIZE, np.float32)])
    result = strategy.start(site.grid(), start, num_rounds=2)
    assert len(site.charges) == 2
    assert result.arrays.to_numpy_ndarrays()[0].any()


def test_a_node_without_a_directory_refuses(site: Site) -> None:
    reason = refused(site.ask(named=""))
    assert "would be forgotten at every restart" in reason
    assert "mkdir -m 700" in reason
    assert f"--node-config '{PRIVACY}=" in reason
    assert site.calls == 0


def test_a_directory_is_named_whole_and_closed_to_others(site: Site) -> None:
    assert "from the root on" in refused(site.ask(named="privacy"))
    site.directory.chmod(0o755)
    assert "open to other users" in refused(site.ask())
    assert site.calls == 0


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "budget.toml is missing: write"),
        ("epsilon = [", "is no TOML"),
        ("epsilon = 8.0", "must say epsilon and delta"),
        ("epsilon = 8.0\ndelta = 1e-5\nrounds = 3", "and nothing else"),
        ('epsilon = "8"\ndelta = 1e-5', "epsilon must be a number, got '8'"),
        ("epsilon = true\ndelta = 1e-5", "epsilon must be a number, got True"),
        ("epsilon = inf\ndelta = 1e-5", "epsilon must be > 0 and finite"),
        ("epsilon = 8\ndelta = nan", "delta must be in"),
    ],
)
def test_bad_budgets(site: Site, text: str | None, message: str) -> None:
    if text is None:
        (site.directory / BUDGET).unlink()
    else:
        site.budget(text)
    assert message in refused(site.ask())
    assert site.calls == 0


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"epsilon": 0.0}, "epsilon = 0.0"),
        ({"epsilon": float("nan")}, "epsilon = nan"),
        ({"delta": 0.0}, "delta = 0.0"),
        ({"clip": -1.0}, "clip = -1.0"),
        ({"rounds": 0}, "rounds = 0"),
    ],
)
def test_bad_arguments(site: Site, more: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        site.app(**more)
