"""Flower's SecAgg+ functions on the same work: the peer of `benchmarks/secagg.py`.

Its stages as they stand in flwr 1.41, called one after the other in this process, without any
transport; the coordinator's part follows `SecAggPlusWorkflow.unmask_stage` step by step.
"""

import importlib
import io
import time
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from flwr.app import ConfigRecord
from flwr.common import ndarrays_to_parameters
from flwr.common.secure_aggregation.crypto.shamir import combine_shares
from flwr.common.secure_aggregation.crypto.symmetric_encryption import generate_shared_key
from flwr.common.secure_aggregation.ndarrays_arithmetic import (
    factor_extract,
    get_parameters_shape,
    parameters_addition,
    parameters_mod,
    parameters_subtraction,
)
from flwr.common.secure_aggregation.quantization import dequantize
from flwr.common.secure_aggregation.secaggplus_constants import Key
from flwr.common.secure_aggregation.secaggplus_utils import pseudo_rand_gen
from flwr.supercore.primitives.asymmetric import bytes_to_private_key, bytes_to_public_key

# the package has a function of the module's name, which hides it
client = importlib.import_module("flwr.client.mod.secure_aggregation.secaggplus_mod")

CLIP, TARGET, MODULUS, WEIGHT = 8.0, 1 << 22, 1 << 32, 1000.0


@dataclass
class Flower:
    """One round of Flower's protocol: n nodes in a ring of k neighbours, shares of t, some lost.

    Attributes:
        nodes: n.
        neighbours: k.
        threshold: t.
        lost: Ids of the nodes that share their keys and then leave.
        spent: Processor seconds, by step.
    """

    nodes: int
    neighbours: int
    threshold: int
    lost: frozenset[int]
    spent: dict[str, list[float]] = field(default_factory=dict)
    upload: int = 0

    def around(self, node: int) -> list[int]:
        """Returns a node and its neighbours, as Flower keeps them."""
        side = self.neighbours // 2
        steps = range(-side, side + 1) if self.neighbours < self.nodes - 1 else range(self.nodes)
        return sorted({(node + step) % self.nodes for step in steps})

    def timed(self, step: str, started: float) -> None:
        """Adds what a step took."""
        self.spent.setdefault(step, []).append(time.process_time() - started)

    def run(self, vector: np.ndarray, *, masked: int) -> None:
        """Runs the round on one vector (d,) for all; `masked` nodes really mask theirs."""
        states, ciphertexts = self.share_keys()
        some = [node for node in range(self.nodes) if node not in self.lost][:masked]
        total = None
        for node in some:
            total = self.add(total, self.mask(node, states, ciphertexts, vector))
        for node in range(self.nodes):  # the others' shares are opened, their vectors left out
            if node not in self.lost and node not in some:
                self.open(states[node], ciphertexts[node])
        assert total is not None
        self.unmask(states, total)

    def share_keys(self) -> tuple[list[Any], list[dict[int, bytes]]]:
        """Returns every node's state, and what was sealed for it, by sender."""
        config = {
            Key.SAMPLE_NUMBER: self.nodes,
            Key.SHARE_NUMBER: len(self.around(0)),
            Key.THRESHOLD: self.threshold,
            Key.CLIPPING_RANGE: CLIP,
            Key.TARGET_RANGE: TARGET,
            Key.MOD_RANGE: MODULUS,
            Key.MAX_WEIGHT: WEIGHT,
        }
        states, keys = [], {}
        for node in range(self.nodes):
            state = client.SecAggPlusState()
            state.nid = node
            keys[node] = list(client._setup(state, ConfigRecord(config)).values())
            states.append(state)
        sealed: list[dict[int, bytes]] = [{} for _ in states]
        for state in states:
            known = ConfigRecord({str(node): keys[node] for node in self.around(state.nid)})
            started = time.process_time()
            answer = client._share_keys(state, known)
            self.timed("share keys", started)
            for target, text in zip(
                answer[Key.DESTINATION_LIST], answer[Key.CIPHERTEXT_LIST], strict=True
            ):
                sealed[target][state.nid] = text
        return states, sealed

    def mask(
        self,
        node: int,
        states: list[Any],
        sealed: list[dict[int, bytes]],
        vector: np.ndarray,
    ) -> list[np.ndarray]:
        """Returns a node's masked vector."""
        config = ConfigRecord(
            {
                Key.CIPHERTEXT_LIST: list(sealed[node].values()),
                Key.SOURCE_LIST: list(sealed[node]),
            }
        )
        parameters = ndarrays_to_parameters([vector])
        started = time.process_time()
        answer = client._collect_masked_vectors(states[node], config, 10, parameters)
        self.timed("mask", started)
        parts = answer[Key.MASKED_PARAMETERS]
        self.upload = sum(map(len, parts))
        return [np.load(io.BytesIO(part), allow_pickle=False) for part in parts]

    def open(self, state: Any, sealed: dict[int, bytes]) -> None:
        """Opens the shares for a node, as masking does."""
        for source, text in sealed.items():
            plain = client.decrypt(state.ss2_dict[source], text)
            _, _, seed, key = client.share_keys_plaintext_separate(plain)
            state.rd_seed_share_dict[source], state.sk1_share_dict[source] = seed, key

    def add(self, total: list[np.ndarray] | None, masked: list[np.ndarray]) -> list[np.ndarray]:
        """Returns the running sum."""
        if total is None:
            return masked
        started = time.process_time()
        total = parameters_addition(total, masked)
        self.timed("add", started)
        return total

    def unmask(self, states: list[Any], total: list[np.ndarray]) -> None:
        """Reconstructs all secrets and removes all masks."""
        collected: dict[int, list[bytes]] = {node: [] for node in range(self.nodes)}
        for holder in states:
            if holder.nid in self.lost:
                continue
            around = self.around(holder.nid)
            for owner in around:
                shares = holder.sk1_share_dict if owner in self.lost else holder.rd_seed_share_dict
                collected[owner].append(shares[owner])
        started = time.process_time()
        shape = get_parameters_shape(total)
        for owner, shares in collected.items():
            secret = combine_shares(shares)
            if owner not in self.lost:
                mask = pseudo_rand_gen(secret, MODULUS, shape)
                total = parameters_subtraction(total, mask)
                continue
            for other in set(self.around(owner)) - {owner}:
                key = generate_shared_key(
                    bytes_to_private_key(secret), bytes_to_public_key(states[other].pk1)
                )
                mask = pseudo_rand_gen(key, MODULUS, shape)
                remove = parameters_addition if owner > other else parameters_subtraction
                total = remove(total, mask)
        _, found = factor_extract(parameters_mod(total, MODULUS))
        dequantize(found, CLIP, TARGET)
        self.timed("reconstruct and unmask", started)
