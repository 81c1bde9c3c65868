"""A Grid whose nodes live in this process, one after another: to try a plan or an app out.

No transport, no defence, no scale: real federations run over the coordinator, many nodes on one
machine in `fedsec_sim`. Each node gets a copy of its message, as it would over a network.
"""

import copy
import itertools
from collections.abc import Callable, Iterable, Mapping

from flwr.app import Context, Error, Message, RecordDict
from flwr.clientapp.typing import ClientAppCallable
from flwr.serverapp import Grid

from fedsec.flower.reporting import Json
from fedsec.flwr_compat import Run, become, make_run, set_message_id

APP_RAISED = 2  # Flower's code for an exception in a ClientApp
COORDINATOR_ID = 1  # Flower's node id of a ServerApp


class LocalGrid(Grid):
    """Hands messages to ClientApps here and now, and keeps what is reported.

    Args:
        apps: What answers for each node, by node id.
        contexts: Each node's context, by node id; `node_contexts` makes them.
        run_id: Of the run; this process becomes its coordinator.
        on_report: Is told of every event, after it was kept in `reports`.
    """

    def __init__(
        self,
        apps: Mapping[int, ClientAppCallable],
        contexts: Mapping[int, Context],
        *,
        run_id: int = 1,
        on_report: Callable[[str, Mapping[str, Json]], None] = lambda _kind, _detail: None,
    ) -> None:
        become(run_id, COORDINATOR_ID, 1)
        self.reports: list[tuple[str, Mapping[str, Json]]] = []
        self._apps = apps
        self._contexts = contexts
        self._on_report = on_report
        self._run = make_run(run_id)
        self._numbers = itertools.count(1)
        self._replies: dict[str, Message] = {}

    def report(self, kind: str, detail: Mapping[str, Json]) -> None:
        """Keeps an event; see `fedsec.flower.reporting.Reporter`."""
        self.reports.append((kind, detail))
        self._on_report(kind, detail)

    def set_run(self, run: Run) -> None:
        """See `Grid`."""
        self._run = run

    @property
    def run(self) -> Run:
        """See `Grid`."""
        return self._run

    def create_message(
        self,
        content: RecordDict,
        message_type: str,
        dst_node_id: int,
        group_id: str,
        ttl: float | None = None,
    ) -> Message:
        """See `Grid`."""
        return Message(content, dst_node_id, message_type, group_id=group_id, ttl=ttl)

    def get_node_ids(self) -> Iterable[int]:
        """Returns the ids of all nodes, ascending."""
        return sorted(self._apps)

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Has every message answered and returns its id."""
        ids = []
        for message in messages:
            set_message_id(message, f"message-{next(self._numbers)}")
            ids.append(message.metadata.message_id)
            self._replies[ids[-1]] = self._answer(message)
        return ids

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Returns the answers to `message_ids`, each once."""
        return [self._replies.pop(known) for known in message_ids if known in self._replies]

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> Iterable[Message]:
        """Returns the answers, in the order of `messages`; a node here is never late."""
        del timeout
        return self.pull_messages(self.push_messages(messages))

    def _answer(self, message: Message) -> Message:
        node = message.metadata.dst_node_id
        received = copy.deepcopy(message)
        try:
            return self._apps[node](received, self._contexts[node])
        except Exception as error:  # noqa: BLE001 - an app may raise anything; the grid goes on
            reason = f"{type(error).__name__}: {error}"
            return Message(Error(APP_RAISED, reason), reply_to=received)


def node_contexts(
    nodes: int, run_config: Mapping[str, bool | int | float | str], *, run_id: int = 1
) -> dict[int, Context]:
    """Returns a context per node, as Flower's simulations make them, by node id from 100 on.

    Args:
        nodes: How many.
        run_config: The same for all.
        run_id: Of the run.
    """
    return {
        100 + part: Context(
            run_id=run_id,
            node_id=100 + part,
            node_config={"partition-id": part, "num-partitions": nodes},
            state=RecordDict(),
            run_config=dict(run_config),
        )
        for part in range(nodes)
    }
