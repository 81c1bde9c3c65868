"""Guarded nodes in this process, for secure sums."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from types import MappingProxyType

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from flwr.app import Context, Message
from flwr.clientapp.typing import ClientAppCallable

from fedsec.flower.mod import guard
from fedsec.flower.node_privacy import NodePrivacy
from fedsec.flower.secure_node import Identity
from fedsec.plan import FederationPlan
from fedsec.secagg.node import ANY
from fedsec.secagg.parameters import Minima
from tests.flower.fakes import FakeGrid, answering, plan

FIRST = 100


def secure_plan(
    section: str = 'mode = "semi-honest"\nclip = 10.0', training: str = "rounds = 3", more: str = ""
) -> FederationPlan:
    nodes = "[nodes]\nmin_available = 5\nquorum = 4\n"
    return plan(training, f"{nodes}[secure_aggregation]\n{section}\n{more}")


def signer(node: int) -> Ed25519PrivateKey:
    seed = hashlib.sha256(f"signer {node}".encode()).digest()
    return Ed25519PrivateKey.from_private_bytes(seed)


def roster(count: int) -> dict[int, bytes]:
    ids = range(FIRST, FIRST + count)
    return {node: signer(node).public_key().public_bytes_raw() for node in ids}


def guarded(
    agreed: FederationPlan,
    node: int,
    app: ClientAppCallable,
    trusted: Mapping[int, bytes] | None = None,
    *,
    minima: Minima = ANY,
    private: NodePrivacy | None = None,
) -> ClientAppCallable:
    mod = guard(agreed, lambda _plan: None, Identity(signer(node), trusted, minima), private)

    def answer(message: Message, context: Context) -> Message:
        return mod(message, context, app)

    return answer


class SecureGrid(FakeGrid):
    """Nodes from 100 on, each behind its guard; keeps every answer that comes back."""

    def __init__(
        self,
        agreed: FederationPlan,
        updates: Sequence[Sequence[float]],
        *,
        minima: Mapping[int, Minima] = MappingProxyType({}),
        private: Callable[[int], NodePrivacy | None] = lambda _node: None,
    ) -> None:
        self.trusted = roster(len(updates))
        malicious = 'mode":"malicious' in agreed.canonical_json()
        known = self.trusted if malicious else None
        apps = [
            guarded(
                agreed,
                node,
                answering(update, examples=node - FIRST + 1),
                known,
                minima=minima.get(node, ANY),
                private=private(node),
            )
            for node, update in enumerate(updates, FIRST)
        ]
        super().__init__(apps)
        self.came: list[Message] = []
        self.quiet: set[tuple[int, str]] = set()

    def pull_messages(self, message_ids: object) -> list[Message]:
        replies = list(super().pull_messages(message_ids))  # type: ignore[arg-type]
        replies = [each for each in replies if not self._is_lost(each)]
        self.came += deepcopy(replies)  # as they came: a sum empties what it has read
        return replies

    def _is_lost(self, reply: Message) -> bool:
        node = reply.metadata.src_node_id
        record = {} if reply.has_error() else reply.content.config_records.get("fedsec.secagg", {})
        return node in self.silent or (node, record.get("stage")) in self.quiet
