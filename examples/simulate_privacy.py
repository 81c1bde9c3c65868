"""What does privacy cost? Accuracy over epsilon, as numbers and as a picture.

python simulate_privacy.py [PICTURE.png]
"""

import sys
from pathlib import Path

from fedsec_sim.lab import Lab
from fedsec_sim.partitions import Drawn
from fedsec_sim.plots import curves, save
from fedsec_sim.simulate import simulate

PLAN = """
schema = 1
name = "privacy against utility"

[task]
name = "digits"
options = {{ model = "mlp" }}

[training]
rounds = 8
local_steps = 4
learning_rate = 0.1
momentum = 0.9

[nodes]
min_available = {nodes}

[privacy]
model = "central"
clip = 2.0
noise_multiplier = {noise}
epsilon = 50.0
delta = 1e-5
"""


def main() -> None:
    """Runs eight federations and prints what each comes to."""
    lines: dict[str, list[tuple[float, float]]] = {}
    for nodes in (50, 200):
        points = []
        for noise in (8.0, 4.0, 2.0, 1.0):
            plan = PLAN.format(nodes=nodes, noise=noise)
            history = simulate(plan, Lab(split=Drawn(16)), workers=1)
            points.append((history.last("epsilon"), history.accuracy))
            print(f"{nodes} nodes, epsilon {points[-1][0]:6.2f}: accuracy {points[-1][1]:.3f}")
        lines[f"{nodes} nodes"] = points
    if len(sys.argv) > 1:
        picture = curves(lines, xlabel="epsilon (delta = 1e-5)", ylabel="accuracy")
        save(picture, Path(sys.argv[1]))


if __name__ == "__main__":
    main()
