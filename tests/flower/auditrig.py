"""The plan that tests of audits are about."""

from fedsec.plan import FederationPlan

NODES, CLIP, DELTA, SIZE = 12, 0.5, 1e-5, 5_000
PLAN = f"""
schema = 1
name = "audited"
[task]
name = "digits"
[training]
rounds = 2
[nodes]
min_available = {NODES}
"""
PRIVACY = """
[privacy]
model = "{}"
epsilon = 50.0
delta = 1e-5
noise_multiplier = 1.0
clip = 0.5
"""
TRIMMED = '[robust]\nrule = "trimmed-mean"\nbyzantine = 3\n'


def plan(model: str = "central", more: str = "") -> FederationPlan:
    return FederationPlan.parse(PLAN + PRIVACY.format(model) + more)
