"""A grid that reaches nobody: it only knows who is there."""

from collections.abc import Iterable, Sequence

from flwr.app import Message, RecordDict
from flwr.serverapp import Grid

from fedsec.flwr_compat import Run


class Roll(Grid):
    """Knows who is there, and reaches nobody: in a simulation nobody is asked."""

    def __init__(self, ids: Sequence[int]) -> None:
        self._ids = ids

    def get_node_ids(self) -> Iterable[int]:
        """Returns all ids."""
        return self._ids

    def set_run(self, run: Run) -> None:
        """Is not needed."""
        raise NotImplementedError

    @property
    def run(self) -> Run:
        """There is none."""
        raise NotImplementedError

    def create_message(
        self,
        content: RecordDict,
        message_type: str,
        dst_node_id: int,
        group_id: str,
        ttl: float | None = None,
    ) -> Message:
        """Is not needed."""
        raise NotImplementedError

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Is not needed."""
        raise NotImplementedError

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Is not needed."""
        raise NotImplementedError

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> Iterable[Message]:
        """Is not needed."""
        raise NotImplementedError
