"""Nodes that answer as told, and a clock that nobody waits for."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from flwr.app import Array, ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp.typing import ClientAppCallable

from fedsec.flower.arrays import pack
from fedsec.flower.clock import Clock
from fedsec.flower.local import LocalGrid, node_contexts
from fedsec.flower.messages import METRICS, UPDATE, VECTOR, train_reply
from fedsec.plan import FederationPlan

PLAN = """
schema = 1
name = "a test"
[task]
name = "digits"
"""


def plan(training: str = "rounds = 4", more: str = "") -> FederationPlan:
    return FederationPlan.parse(f"{PLAN}[training]\n{training}\n{more}")


@dataclass
class Waiting:
    """A clock that moves only when somebody sleeps."""

    time: float = 0.0
    slept: list[float] = field(default_factory=list)

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.time += seconds

    @property
    def clock(self) -> Clock:
        return Clock(now=lambda: self.time, sleep=self.sleep)


def answering(update: Sequence[float], examples: int = 10, loss: float = 0.5) -> ClientAppCallable:
    """Returns an app that always answers with this update, whatever it is asked."""

    def app(message: Message, context: Context) -> Message:
        reply = train_reply(np.array(update, np.float32), examples=examples, loss=loss)
        return Message(reply, reply_to=message)

    return app


def raising(error: Exception) -> ClientAppCallable:
    def app(message: Message, context: Context) -> Message:
        raise error

    return app


def replying(content: RecordDict) -> ClientAppCallable:
    return lambda message, _context: Message(content, reply_to=message)


def raw_reply(
    array: Array | None = None,
    metrics: Mapping[str, int | float | list[int] | list[float]] | None = None,
    *,
    name: str = VECTOR,
) -> RecordDict:
    """Returns a reply to train that may be wrong in any way."""
    array = pack(np.zeros(3, np.float32)) if array is None else array
    values = dict(metrics if metrics is not None else {"num-examples": 10, "train-loss": 0.5})
    return RecordDict({UPDATE: ArrayRecord({name: array}), METRICS: MetricRecord(values)})


class FakeGrid(LocalGrid):
    """A `LocalGrid` of apps numbered from 100, of which some may be away or silent."""

    def __init__(self, apps: Sequence[ClientAppCallable]) -> None:
        contexts = node_contexts(len(apps), {})
        super().__init__(dict(zip(contexts, apps, strict=True)), contexts)
        self.away: set[int] = set()
        self.silent: set[int] = set()
        self.asked: list[list[int]] = []
        self.timeouts: list[float | None] = []
        self.before: Callable[[], None] = lambda: None

    def get_node_ids(self) -> Iterable[int]:
        self.before()
        return [node for node in super().get_node_ids() if node not in self.away][::-1]

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> Iterable[Message]:
        sent = list(messages)
        self.asked.append([message.metadata.dst_node_id for message in sent])
        self.timeouts.append(timeout)
        answered = [m for m in sent if m.metadata.dst_node_id not in self.silent]
        return list(super().send_and_receive(answered, timeout=timeout))[::-1]

    def of(self, kind: str) -> list[Mapping[str, object]]:
        return [detail for reported, detail in self.reports if reported == kind]
