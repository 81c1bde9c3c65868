"""Kinds of events that are the coordinator's to record: a run's app cannot report them."""

OWN = frozenset(
    {
        "answer-failed",
        "authority-changed",
        "certificate-issued",
        "certificate-renewed",
        "model-taken",
        "node-connected",
        "node-disconnected",
        "node-enrolled",
        "node-invited",
        "node-revoked",
        "person-added",
        "person-revoked",
        "records-read",
        "reply-refused",
        "roster-published",
        "rpc-refused",
        "run-failed",
        "run-finished",
        "run-refused",
        "run-started",
        "run-stopped",
        "run-submitted",
        "session-refused",
        "session-replaced",
    }
)
"""All that the coordinator's own code records."""

SHARED = frozenset({"reply-refused"})
"""Of these, what a run's process reports as well, of replies that it alone can read. The subject
tells them apart: the node's SPIFFE id, or the run."""

_PREFIXES = tuple(sorted({kind.partition("-")[0] + "-" for kind in OWN}))


def is_own(kind: str) -> bool:
    """Returns whether `kind` is the coordinator's alone, or reads as if it were.

    >>> [is_own(kind) for kind in ("roster-published", "Roster-lost", "reply-refused", "round")]
    [True, True, False, False]
    """
    return kind not in SHARED and kind.strip().lower().startswith(_PREFIXES)
