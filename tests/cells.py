"""What may be combined: the cells that are accepted, as pieces of plans; one table for all tests."""

import math
from itertools import product

SUMS = '[secure_aggregation]\nmode = "malicious"\n'
SEEN = {
    "each": ('visibility = "each"', ""),
    "groups": ('visibility = "groups"', SUMS + "group_size = 4\n"),
    "sum": ('visibility = "sum"', SUMS),
}
RULES = {
    "mean": '[robust]\nrule = "mean"\nbyzantine = 0\n',
    "trimmed-mean": '[robust]\nrule = "trimmed-mean"\nbyzantine = 1\n',
    "median": '[robust]\nrule = "median"\nbyzantine = 1\n',
}
MODELS = ("none", "central", "distributed", "local", "example")
NOISE, CLIP, CLIP_IN_SUMS = 2.0, 1.0, 10.0
ACCEPTED = [
    (seen, private, rule)
    for seen, private, rule in product(SEEN, MODELS, RULES)
    if not (seen == "each" and private == "distributed")
    and not (seen == "sum" and rule != "mean")
    and not (private == "central" and rule == "median")
]


def cell(head: str, seen: str, private: str, robust: str, size: int) -> str:
    """Returns the plan of a cell.

    Args:
        head: Everything else; `VISIBILITY` stands where that is to be.
        seen: Of `SEEN`.
        private: Of `MODELS`.
        robust: The table [robust], e.g. of `RULES`.
        size: d.
    """
    visible, sums = SEEN[seen]
    if sums and private in {"none", "example"}:
        sums += f"clip = {CLIP_IN_SUMS}\n"
    if sums and private == "local":  # a noised update is as long as its noise
        sums += f"clip = {4 * NOISE * CLIP * math.sqrt(size)}\n"
    return head.replace("VISIBILITY", visible, 1) + sums + privacy(private) + robust


def privacy(model: str) -> str:
    """Returns the table [privacy]."""
    if model == "none":
        return ""
    return (
        f'[privacy]\nmodel = "{model}"\nepsilon = 50.0\ndelta = 1e-5\n'
        f"noise_multiplier = {NOISE}\nclip = {CLIP}\n"
    )
