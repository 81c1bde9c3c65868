"""One reason why a plan is not accepted."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Refusal:
    """A key to change, and why.

    Args:
        key: Path of the key, e.g. ``"nodes.quorum"``.
        reason: Value, what it clashes with and what to do, in one sentence.
    """

    key: str
    reason: str
