"""What hostile nodes of the map send, and which nodes they are.

They know every honest update before its noise, agree with each other, keep to no clip, and add no
noise: each sends `factor` times the longest that is allowed, against the honest nodes' mean.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fedsec.vectors import norm
from fedsec_sim.attacks.view import View


@dataclass(frozen=True, slots=True)
class Against:
    """Every hostile node sends the same.

    Args:
        factor: L2 norm of what is sent, over the clip.
        clip: To which honest nodes clip in the first round.
        anneal: What the clip is multiplied by from round to round.
    """

    factor: float
    clip: float
    anneal: float = 1.0

    def __call__(self, view: View) -> None:
        """See `fedsec_sim.attacks.view.Attack`."""
        clip = self.clip * self.anneal ** (view.round - 1)
        honest = view.honest
        norms = np.linalg.norm(honest, axis=1)
        mean = np.minimum(1.0, clip / np.maximum(norms, 1e-12)).astype(np.float32) @ honest
        length = norm(mean)
        view.write(mean * np.float32(-self.factor * clip / length) if length else mean)


def worst_places(groups: Sequence[Sequence[int]], hostile: int) -> tuple[int, ...]:
    """Returns the ids of `hostile` nodes, ascending: one in each group, then a second one."""
    most = max(map(len, groups))
    dealt = [group[turn] for turn in range(most) for group in groups if turn < len(group)]
    return tuple(sorted(dealt[:hostile]))
