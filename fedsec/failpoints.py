"""Places at which a process may die, each by name, so that a test can have it die there.

Privacy and files promise something about every one of them: what is spent is never less than what
was released. In production `reach` does nothing; a test sets `on_reach` in a process of its own.
"""

from collections.abc import Callable
from typing import Literal, TypeAlias, get_args

Failpoint: TypeAlias = Literal[
    "file written",  # a temporary file, not forced to the disk yet
    "file synced",
    "file renamed",  # the directory is not forced yet
    "file in place",
    "log created",  # an empty log, its directory forced
    "log written",  # a record, not forced yet
    "log synced",
    "release made",  # noised, in memory only
    "release stored",  # not paid for
    "release paid",  # not published
    "frame leaving",  # to the process that sends it on: a node's reply, a coordinator's message
    "frame left",
]

FAILPOINTS: tuple[Failpoint, ...] = get_args(Failpoint)


def _ignore(_name: Failpoint) -> None:
    """Goes on."""


on_reach: Callable[[Failpoint], None] = _ignore
"""Called at every point. Only tests set it."""


def reach(name: Failpoint) -> None:
    """Says that this point was reached."""
    on_reach(name)
