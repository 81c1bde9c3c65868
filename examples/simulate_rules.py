"""Which rule holds when 3 of 10 nodes attack? Each line is a whole simulated federation."""

from fedsec_sim.lab import Lab
from fedsec_sim.partitions import Gamma
from fedsec_sim.simulate import simulate

PLAN = """
schema = 1
name = "rules under attack"

[task]
name = "digits"
options = { model = "mlp" }

[training]
rounds = 12
local_steps = 4
learning_rate = 0.1
momentum = 0.9

[nodes]
min_available = 10

[round]
evaluate_every = 12
"""
RULES = {
    "mean": None,
    "median": "median",
    "trimmed mean": "trimmed-mean",
    "nnm, trimmed mean": {"rule": "trimmed-mean", "before": ["nnm"]},
}
ATTACKS = {"none": None, "sign flip": "sign-flip:scale=3.0", "alie": "alie:z=1.5"}


def main() -> None:
    """Prints the accuracy of every rule under every attack."""
    print(f"{'':18}" + "".join(f"{name:>12}" for name in ATTACKS))
    lab = Lab(split=Gamma(0.5))
    for name, rule in RULES.items():
        found = []
        for attack in ATTACKS.values():
            hostile = 3 if rule or attack else None
            history = simulate(PLAN, lab, rule=rule, attack=attack, byzantine=hostile, workers=1)
            found.append(history.accuracy)
        print(f"{name:18}" + "".join(f"{accuracy:12.3f}" for accuracy in found))


if __name__ == "__main__":
    main()
