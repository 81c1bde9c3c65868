"""The picture of `privacy_utility.py`."""

from collections.abc import Collection, Sequence
from pathlib import Path

import matplotlib as mpl
from common import Result

mpl.use("Agg")

import matplotlib.pyplot as plt


def plot(found: Sequence[Result], file: Path, *, peers: Collection[str], chance: float) -> None:
    """Draws accuracy over epsilon, one panel for each problem.

    Args:
        found: Of `privacy_utility.py`; its cases end with ``epsilon=...``.
        file: PNG.
        peers: Names of those who have an accuracy of their own at each epsilon.
        chance: Accuracy of a guess, percent.
    """
    rows = [(*r.case.rsplit(" epsilon=", 1), r) for r in found]
    names = list(dict.fromkeys(" ".join(case.split()[:2]) for case, _, _ in rows))
    figure, axes = plt.subplots(1, len(names), figsize=(5 * len(names), 4), squeeze=False)
    for axis, name in zip(axes[0], names, strict=True):
        lines: dict[str, dict[str, float]] = {}
        for case, epsilon, result in rows:
            if case.startswith(f"{name} "):
                lines.setdefault(case.removeprefix(f"{name} "), {})[epsilon] = result.ours
                if result.peer_name in peers:
                    lines.setdefault(result.peer_name, {})[epsilon] = result.peer
        for label, line in lines.items():
            dashed = "--" if label.startswith("flwr") else "-"
            axis.plot(list(line), list(line.values()), dashed, marker="o", label=label)
        axis.axhline(chance, color="grey", linestyle=":", linewidth=1)
        axis.set(title=name, xlabel="epsilon", ylabel="accuracy in %", ylim=(0, 100))
    axes[0][-1].legend(fontsize="small", loc="center left", bbox_to_anchor=(1, 0.5))
    figure.tight_layout()
    figure.savefig(file, dpi=120)
