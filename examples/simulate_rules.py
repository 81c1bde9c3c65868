"""Which rule holds when 3 of 10 nodes attack? Each line is a whole simulated federation."""

from fedsec_sim.attacks.table import make_attack
from fedsec_sim.lab import Lab
from fedsec_sim.partitions import Gamma
from fedsec_sim.simulate import simulate
from fedsec_sim.threats import Threat

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
    "mean": "",
    "median": '[robust]\nrule = "median"\nbyzantine = 3',
    "trimmed mean": '[robust]\nrule = "trimmed-mean"\nbyzantine = 3',
    "nnm, trimmed mean": '[robust]\nrule = "trimmed-mean"\nbyzantine = 3\nbefore = ["nnm"]',
}
ATTACKS = {
    "none": None,
    "sign flip": make_attack("sign-flip", {"scale": 3.0}),
    "alie": make_attack("alie", {"z": 1.5}),
}


def main() -> None:
    """Prints the accuracy of every rule under every attack."""
    print(f"{'':18}" + "".join(f"{name:>12}" for name in ATTACKS))
    for rule, section in RULES.items():
        found = []
        for attack in ATTACKS.values():
            threat = Threat(byzantine=3, attack=attack) if attack else None
            lab = Lab(split=Gamma(0.5), threat=threat)
            found.append(simulate(PLAN + section, lab, workers=1).accuracy)
        print(f"{rule:18}" + "".join(f"{accuracy:12.3f}" for accuracy in found))


if __name__ == "__main__":
    main()
