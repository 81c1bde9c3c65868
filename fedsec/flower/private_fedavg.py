"""Central differential privacy as a strategy for any Flower ServerApp, on any of Flower's runtimes.

    from fedsec.flower import PrivateFedAvg

    strategy = PrivateFedAvg(
        epsilon=8.0, delta=1e-5, noise_multiplier=2.0, clip=1.0, nodes=100, rounds=20,
        ledger="privacy.ledger",
    )
    result = strategy.start(grid=grid, initial_arrays=..., num_rounds=20)

The words are those of `[privacy]` and `[robust]` in a plan. Unlike Flower's own wrapper it leaves
out what is not finite, divides by a public number, takes its noise from the operating system, and
charges a ledger on the disk before it hands a model out.
"""

import secrets
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord
from flwr.serverapp import Grid
from flwr.serverapp.strategy import FedAvg

from fedsec.errors import ConfigError, StateError
from fedsec.flower.app_plan import plan_of
from fedsec.flower.private import Central
from fedsec.flower.publishing import DIRECTORY_KEY, LEDGER_KEY, take_on
from fedsec.flower.robust_fedavg import RobustFedAvg
from fedsec.privacy.keystream import Keystream

WHAT = "PrivateFedAvg"


class PrivateFedAvg(RobustFedAvg):
    """A mean or a robust rule over `nodes` nodes, clipped and noised; hides each node.

    Adjacency: one node's update becomes zero. From whom: everybody but who runs this ServerApp.
    What nodes report about their examples is not covered, so it is neither asked for nor told.

    Args:
        epsilon: The most that all rounds may cost together.
        delta: Of the guarantee.
        noise_multiplier: Standard deviation of the noise over the sensitivity.
        clip: Largest L2 norm of what a node changes about the model.
        nodes: How many can take part: what sums are divided by.
        rounds: How many there will be at most.
        ledger: File that is charged; kept from run to run. Releases are stored beside it.
        rule: Name of a rule whose sensitivity is known; `fedsec robust list` shows them.
        byzantine: How many of the nodes may be hostile.
        before: Pre-aggregations, as for `RobustFedAvg`.
        options: Parameters of the rule.
        inner: Draws nodes and makes messages; Flower's FedAvg as it comes if left out.

    Raises:
        ConfigError: An argument is wrong, or the rounds cost more than `epsilon`.
    """

    def __init__(
        self,
        *,
        epsilon: float,
        delta: float,
        noise_multiplier: float,
        clip: float,
        nodes: int,
        rounds: int,
        ledger: str | Path,
        rule: str = "mean",
        byzantine: float = 0,
        before: Sequence[str | dict[str, object]] = (),
        options: dict[str, int | float] | None = None,
        inner: FedAvg | None = None,
    ) -> None:
        super().__init__(rule, byzantine, before=before, options=options, inner=inner)
        robust = {"rule": rule, "byzantine": byzantine, "before": list(before)}
        plan = plan_of(
            WHAT,
            rounds,
            nodes={"min_available": nodes, "quorum": nodes},
            privacy={
                "model": "central",
                "epsilon": float(epsilon),
                "delta": delta,
                "noise_multiplier": float(noise_multiplier),
                "clip": float(clip),
            },
            robust={**robust, "options": options or {}},
        )
        path = Path(ledger).absolute()
        # A new one each time: what another training released must not be released in its place.
        releases = f"{path}.d/{secrets.token_hex(8)}"
        keys = {LEDGER_KEY: str(path), DIRECTORY_KEY: releases}
        publish = take_on(plan, keys, run=0)
        if publish is None:
            raise ConfigError(f"{WHAT}: nothing can be published")
        self._nodes, self._rounds = nodes, rounds
        self._combine = Central(plan, publish, Keystream(), np.random.default_rng)

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """See `Strategy`.

        Raises:
            StateError: There were all rounds already, or more nodes are asked than `nodes`.
        """
        if server_round > self._rounds:
            raise StateError(f"round {server_round}: privacy was reckoned for {self._rounds}")
        messages = list(super().configure_train(server_round, arrays, config, grid))
        if len(messages) > self._nodes:
            raise StateError(f"{len(messages)} nodes are asked, nodes = {self._nodes}")
        return messages

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Returns the next model; no metrics, since they are not covered.

        Raises:
            BudgetExhausted: The ledger does not allow it; nothing is released.
            AttemptMissed: Too little came back for what the rule promises.
        """
        arrays, _ = super().aggregate_train(server_round, replies)
        return arrays, MetricRecord()

    def configure_evaluate(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Returns nothing: what nodes measure on their examples is withheld."""
        del server_round, arrays, config, grid
        return []
